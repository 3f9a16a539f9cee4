"""Packets longer than what the next link carries: by the MTU of a device, or by what came through and what did not."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from vtrace.attribute.case import Case
from vtrace.attribute.cause import CANDIDATE, CONCLUDED, Cause, here, rfc3339, trace_evidence
from vtrace.model.answer import Evidence, ObjectRef
from vtrace.model.inspection import Inspection, PortReading, ResolvedStep
from vtrace.model.inventory import Inventory
from vtrace.model.record import LogRecord

# So unlikely has it to be that a link which loses at random lost all of the longest packets and so few of the others.
BY_CHANCE = 0.01
MIN_LOST = 2
# Every link that carries IPv6 carries so much (RFC 8200, 5): only above it is a length alone a reason to be lost.
SURELY_CARRIED_BYTES = 1280
# What IPv6 needs above IPv4 in a tunnel's outer header; the rest with an Ethernet header of the inner packet.
_OUTER_IPV6_BYTES = 20
_ETHERNET_BYTES = 14
_LARGER = re.compile(r"check_pkt_larger\((\d+)\)")
_TUNNEL_BYTES = {"geneve": 58, "vxlan": 50, "stt": 72}


class _Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A packet that was sent over a link. `ending` is the number of its ending if it was lost there."""

    flow: tuple[object, ...]
    length: int
    mono_ns: int
    ending: int | None = None


def refused_by_sender(last: LogRecord, inspection: Inspection | None, inventory: Inventory) -> Cause | None:
    """The device that packets leave the sender by, where its MTU is too small for this one."""
    if inspection is None:
        return None
    return _refused(last, inspection, inspection.exits, overhead(inspection, last, inventory), inventory)


def refused_by_receiver(last: LogRecord, inspection: Inspection | None, inventory: Inventory) -> Cause | None:
    """The device by which the receiver gets what the sender's tunnel brings, where its MTU is too small."""
    if inspection is None or len(inspection.entrances) != 1:
        return None
    return _refused(last, inspection, inspection.entrances, overhead(inspection, last, inventory), inventory)


def refused_by_port(last: LogRecord, inspection: Inspection, port: str, inventory: Inventory) -> Cause | None:
    """The device behind a logical port, where its MTU is too small for a packet that was handed to it."""
    own = [r for r in inspection.ports if r.iface_id == port and str(r.ofport) in inspection.outputs]
    return _refused(last, inspection, own or inspection.exits, 0, inventory)


def too_large_for_router(
    last: LogRecord, inspection: Inspection | None, datapath: int, inventory: Inventory
) -> Cause | None:
    """A port of the router `datapath` that packets are to leave by, where its `gateway_mtu` is too small for this one.

    A trace is of a short packet, so it shows the check and goes on past it.
    """
    for step, limit in _checks(inspection) if inspection is not None else ():
        if step.datapath != datapath or last.length_bytes + _ETHERNET_BYTES <= limit:
            continue
        port = inventory.port_by_key(step.datapath, step.out_key)
        name = port.name if port else "?"
        router = inventory.datapath(step.datapath)
        return Cause(
            code="mtu_exceeded",
            actor="provider",
            summary=f"it is {last.length_bytes} bytes long, and the port {name} of the router "
            f"{router.name if router else '?'} passes on {limit - _ETHERNET_BYTES} at most (its gateway_mtu): "
            f"{last.src} is told so by an ICMP error",
            object=ObjectRef(type="Logical_Router_Port", uuid=port.nb_uuid if port else "", name=name),
            fix=f"ovn-nbctl get Logical_Router_Port {name} options:gateway_mtu; let ICMP errors through to {last.src}",
            evidence=(trace_evidence(inspection, inventory),) if inspection is not None else (),
            place=here(step),
            needs_bytes=last.length_bytes,
        )
    return None


def _checks(inspection: Inspection) -> Iterator[tuple[ResolvedStep, int]]:
    """The checks of a packet's length on its way: the frame's length that passes."""
    for step in inspection.steps:
        for found in filter(None, map(_LARGER.match, step.actions)):
            yield step, int(found[1])


def stands(case: Case, pair: int, cause: Cause) -> bool:
    """Whether a packet as long would be lost of the same cause now, as far as the last inspections tell.

    What was concluded from the lengths alone stands: had a packet as long come through, it would not have been.
    """
    named = cause.object.name if cause.object else ""
    latest = {(i.chassis, i.flow_id): i for i in case.inspections if i.pair == pair}
    if cause.object is not None and cause.object.type == "Logical_Router_Port":
        limits = [limit for i in latest.values() for _, limit in _checks(i)]
        return any(cause.needs_bytes + _ETHERNET_BYTES > limit for limit in limits)
    readings = [r for i in latest.values() for r in (*i.exits, *i.entrances, *i.ports) if r.name == named and r.mtu]
    return not readings or any(cause.needs_bytes > r.mtu for r in readings)


def overhead(inspection: Inspection, last: LogRecord, inventory: Inventory) -> int:
    """What the tunnel that a packet was sent by adds to its length."""
    if inspection.overhead_bytes or inventory.plain:
        return inspection.overhead_bytes
    peer = inventory.chassis_named(last.peer)
    kind = next(iter(peer.encap_types), "") if peer else ""
    six = bool(peer and peer.encap_ips and ":" in peer.encap_ips[0])
    return _TUNNEL_BYTES.get(kind, 0) + (_OUTER_IPV6_BYTES if six else 0)


def _refused(
    last: LogRecord, inspection: Inspection, devices: Sequence[PortReading], added: int, inventory: Inventory
) -> Cause | None:
    length = last.length_bytes + added
    small = [d for d in devices if d.mtu and not d.segments and length > d.mtu]
    if not small or len(small) < len(devices):
        # By one of several it may have gone.
        return None
    device, server = small[0], inventory.server(inspection.chassis)
    with_tunnel = f", {length} with the tunnel's headers" if added else ""
    return Cause(
        code="mtu_exceeded",
        actor="provider",
        summary=f"it is {last.length_bytes} bytes long{with_tunnel}, and the interface {device.name} of {server} "
        f"carries {device.mtu} at most (its MTU)",
        object=ObjectRef(type="Interface", name=device.name),
        fix=f"on {server}: ip link set {device.name} mtu {length}; or set the MTU of the VMs to {device.mtu - added}",
        evidence=(
            Evidence(
                source=f"ovs-vsctl get Interface {device.name} mtu",
                text=str(device.mtu),
                chassis=server,
                at=rfc3339(inspection.wall_ns),
            ),
        ),
        needs_bytes=length,
    )


class Links:
    """The lengths of packets that were sent from server to server, and what became of them."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._sent: dict[tuple[str, str], list[_Sample]] = {}

    def note(self, row: dict[str, Any], ending: int, kind: str, cause: Cause | None) -> None:
        """Takes a packet in: the links that it passed, and the one that lost it for no other known cause."""
        records = [self._case.records[number] for number in row["hops"]]
        flow = (records[0].proto, records[0].src, records[0].dst, records[0].sport, records[0].dport)
        for sent, came in itertools.pairwise(records):
            if sent.peer and sent.chassis != came.chassis == sent.peer:
                self._add(sent, _Sample(flow=flow, length=sent.length_bytes, mono_ns=sent.mono_ns))
        last = records[-1]
        if kind == "lost_between" and cause is not None and cause.code == "physical_loss":
            self._add(last, _Sample(flow=flow, length=last.length_bytes, mono_ns=last.mono_ns, ending=ending))

    def _add(self, sent: LogRecord, sample: _Sample) -> None:
        self._sent.setdefault((sent.chassis, sent.peer), []).append(sample)

    def too_long(self) -> Iterable[tuple[int, float, str, str]]:
        """The endings of packets that were too long: (number, confidence, what was seen, what would be a remedy)."""
        for (sender, receiver), samples in self._sent.items():
            lost = [s.mono_ns for s in samples if s.ending is not None]
            if not lost:
                continue
            # Before and after the fault longer ones may have passed.
            during = [s for s in samples if min(lost) <= s.mono_ns <= max(lost)]
            for tried in (samples, during):
                confidence = self._confidence(tried, sender, receiver)
                if confidence:
                    yield from self._told(tried, confidence)
                    break

    def losses(self) -> Iterable[tuple[str, str, tuple[int, ...], int]]:
        """Of each link: sender, receiver, the endings of what it lost, and how many packets passed."""
        for (sender, receiver), samples in self._sent.items():
            lost = tuple(s.ending for s in samples if s.ending is not None)
            if lost:
                yield sender, receiver, lost, len(samples) - len(lost)

    def lost_at_last(self, sender: str, receiver: str) -> tuple[int, ...]:
        """The endings of what the link lost since it passed a packet for the last time, by the sender's clock."""
        samples = self._sent.get((sender, receiver), [])
        passed_ns = max((s.mono_ns for s in samples if s.ending is None), default=-1)
        return tuple(s.ending for s in samples if s.ending is not None and s.mono_ns > passed_ns)

    def _told(self, samples: Sequence[_Sample], confidence: float) -> Iterable[tuple[int, float, str, str]]:
        passed = [s.length for s in samples if s.ending is None]
        long = [s for s in samples if s.ending is not None and s.length > max(passed)]
        shortest = min(s.length for s in long)
        seen = (
            f"none of {len(long)} packets of {shortest} bytes or more came in, and all {len(passed)} that did are "
            f"{max(passed)} bytes long at most"
        )
        remedy = f"the VMs' MTU may be {max(passed)} for sure, and has to be below {shortest}"
        for sample in long:
            if sample.ending is not None:
                yield sample.ending, confidence, seen, remedy

    def _confidence(self, samples: Sequence[_Sample], sender: str, receiver: str) -> float:
        """How sure it is that length decides; 0 if chance, or something else, explains it as well."""
        passed = [s for s in samples if s.ending is None]
        if not passed or any(s.length <= 0 for s in samples):
            return 0
        limit = max(s.length for s in passed)
        long = [s for s in samples if s.ending is not None and s.length > limit]
        short = [s for s in samples if s.ending is not None and s.length <= limit]
        shared = {s.flow for s in long} & {s.flow for s in passed}
        if shared:
            counts = [sum(1 for s in group if s.flow in shared) for group in (long, short, passed)]
            return CONCLUDED if _beyond_chance(*counts) else 0
        # Lengths and flows go together: a device may as well lose some of the flows (a bad member of a bundle).
        if _beyond_chance(*(len({s.flow for s in group}) for group in (long, short, passed))):
            return CONCLUDED
        peer = self._case.inventory.chassis_named(receiver)
        added = _TUNNEL_BYTES.get(next(iter(peer.encap_types), ""), 0) if peer else 0
        large = all(s.length + added > SURELY_CARRIED_BYTES for s in long)
        return CANDIDATE if large and _beyond_chance(len(long), len(short), len(passed)) else 0


def _beyond_chance(long: int, short: int, passed: int) -> bool:
    """Whether a link that loses any packet with the same probability would hardly have lost all of the longest.

    Of the others it lost `short` and passed `passed`: that estimates the probability (Laplace's rule).
    """
    rate = (short + 1) / (short + passed + 2)
    return long >= MIN_LOST and rate**long <= BY_CHANCE


def longer_than_carried(cause: Cause, confidence: float, seen: str, remedy: str, between: str) -> Cause:
    """What a loss between two servers is that only packets above a length meet."""
    other = "" if confidence > CANDIDATE else "; or something there loses just the flows that these were of"
    return msgspec.structs.replace(
        cause,
        code="mtu_exceeded",
        actor="provider",
        summary=f"they are longer than what the network {between} carries: {seen}{other}",
        fix=f"find the link {between} with the smaller MTU (ip link; ping -M do -s SIZE), and raise it; {remedy}",
        confidence=confidence,
    )
