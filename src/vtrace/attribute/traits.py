"""What may tell one packet from another: read off its records, so that lost and delivered ones can be compared.

A trait must not be a consequence of the loss: a lost packet has records up to the loss only. What it had not come to
yet is None, and such packets are left out where that trait is tried.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise

import msgspec

from vtrace.attribute.case import Case
from vtrace.attribute.cause import Cause
from vtrace.attribute.endings import Ending, is_lost, nearest
from vtrace.attribute.paths import PROTOCOLS
from vtrace.attribute.rewriting import vip_of
from vtrace.model.inventory import Inventory
from vtrace.model.record import LogRecord
from vtrace.model.task import Direction, Pair

_WITH_PORTS = (6, 17, 132)
TCP = 6
ICMP = (1, 58)
_FLAGS = ((0x02, "SYN"), (0x01, "FIN"), (0x04, "RST"))
# What a logical flow of a route does (lr_in_ip_routing_ecmp, ovn-northd(8)).
_NEXT_HOP = re.compile(r"\bx*reg0 = ([0-9a-f.:]+);")
# Conntrack state bits (ovs-fields(7)).
_TRACKED = 0x20
_STATES = ((0x10, "inv"), (0x01, "new"), (0x02, "est"), (0x04, "rel"), (0x08, "rpl"))


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """One packet that arrived or was lost.

    Attributes:
        ends: of the task (from, to).
        unit: its pair and five-tuple, as sent.
        order: its first hop, and its place among the packets of the pair there.
        at_ns: when it was sent, by the clock of its first hop.
        proto: IP protocol number.
        code: of the reason for which it was lost; cause: that and the place, in words.
        by_state: what it was lost to looks at the state of connections.
        between: it was lost between two servers.
        servers: those that it passed, and the one to which it was sent.
        values: of each field, by name; a field whose value is not known is left out.
    """

    pair: int
    direction: Direction
    ends: tuple[str, str]
    lost: bool
    unit: Hashable
    order: tuple[str, int]
    at_ns: int
    proto: int
    code: str = ""
    cause: str = ""
    by_state: bool = False
    between: bool = False
    servers: frozenset[str]
    values: Mapping[str, Hashable]


def traits_of(case: Case, found: Sequence[Ending]) -> list[Traits]:
    """Those of each packet whose end is known, in the order of sending at each first hop."""
    known = [e for e in found if (is_lost(e) or e.kind in ("delivered", "left_domain")) and e.hops]
    hops = [[case.records[number] for number in e.hops] for e in known]
    ways = [_ways(case, e, records) for e, records in zip(known, hops, strict=True)]
    several, tracked = _several(ways), _tracked(case)
    made = [
        _traits(case, e, records, {"ecmp_member": _member(way, several), "conntrack_state": _state(case, e, tracked)})
        for e, records, way in zip(known, hops, ways, strict=True)
    ]
    return sorted(made, key=lambda t: (t.pair, t.order))


def _traits(case: Case, ending: Ending, records: Sequence[LogRecord], others: Mapping[str, Hashable]) -> Traits:
    first, pair, inventory = records[0], case.pair(ending.pair), case.inventory
    values: dict[str, Hashable] = {
        "size": first.length_bytes,
        "fragment": bool(first.fragment),
        "protocol": PROTOCOLS.get(first.proto, f"protocol {first.proto}"),
        "tcp_flags": _flags(first) if first.proto == TCP else None,
        "backend": _backend(pair, ending, records, inventory),
        **others,
    }
    if first.proto in _WITH_PORTS and not first.fragment:
        values |= {"source_port": first.sport, "destination_port": first.dport}
    return Traits(
        pair=ending.pair,
        direction=pair.direction,
        ends=pair.task_ends,
        lost=is_lost(ending),
        unit=(ending.pair, first.proto, first.src, first.sport, first.dst, first.dport),
        order=(first.chassis, ending.order),
        at_ns=first.mono_ns,
        proto=first.proto,
        code=ending.cause.code if ending.cause and is_lost(ending) else "",
        cause=_in_words(ending) if is_lost(ending) else "",
        by_state=_looks_at_state(ending.cause),
        between=ending.kind == "lost_between",
        servers=ending.servers | ({ending.where.next_server} if ending.where.next_server else frozenset()),
        values={name: value for name, value in values.items() if value is not None},
    )


def _flags(record: LogRecord) -> str:
    return "+".join(word for bit, word in _FLAGS if record.tcp_flags & bit) or "none of SYN, FIN, RST"


def _in_words(ending: Ending) -> str:
    where, code = ending.where, ending.cause.code if ending.cause else "unknown"
    if ending.kind == "lost_between":
        return f"{code} between {where.server} and {where.next_server}"
    return f"{code} on {where.server}"


def _looks_at_state(cause: Cause | None) -> bool:
    """Whether a cause is an ACL whose match names a conntrack state, or conntrack itself."""
    name = cause.object.name if cause is not None and cause.object is not None else ""
    return cause is not None and (cause.code == "ct_invalid" or "ct." in name)


# --- conntrack --------------------------------------------------------------------------------------------


# A pair, and the chassis and logical datapath where its packets go through conntrack.
_Place = tuple[int, str, int]


def _tracked(case: Case) -> frozenset[_Place]:
    return frozenset(
        (i.pair, i.chassis, step.datapath)
        for i in case.inspections
        for step in i.steps
        if not i.uncolored and any(action.startswith("ct(table=") for action in step.actions)
    )


def _state(case: Case, ending: Ending, tracked: frozenset[_Place]) -> str | None:
    """That of its connection where it ended: of its last record there, or for a lost one what the inspection found.

    The first copy of a lost packet is made before conntrack saw it, so the inspection's cached flows have to say it. A
    packet that was tracked and has no state in its last copy was committed before: so its connection was new.
    """
    first, last = case.records[ending.hops[0]], case.records[ending.hops[-1]]
    if not is_lost(ending):
        new = "new" if (ending.pair, last.chassis, last.datapath) in tracked else None
        return _state_words(last.ct_state) or new
    inspection = nearest(case, first, last, same_flow=True)
    if inspection is None or not inspection.ct_next or inspection.real_drop is not True:
        return None
    words = set(inspection.ct_next[-1].split(","))
    return ",".join(word for _, word in _STATES if word in words) or None


def _state_words(bits: int) -> str | None:
    if not bits & _TRACKED:
        return None
    return ",".join(word for bit, word in _STATES if bits & bit) or None


# --- which way --------------------------------------------------------------------------------------------


def _backend(pair: Pair, ending: Ending, records: Sequence[LogRecord], inventory: Inventory) -> str | None:
    """The backend it is for, or from, if one of several behind a VIP."""
    first = records[0]
    if pair.direction is Direction.REPLY:
        return first.src if pair.source.members else None
    for before, after in pairwise(records):
        if before.dst != after.dst:
            ends = (before.dst, before.dport), (after.dst, after.dport)
            if vip_of(*ends, before, inventory, {before.datapath, after.datapath}) is not None:
                return after.dst
    # Lost at the first switch, before any record of what was chosen: the inspection knows the port it was for.
    port = inventory.port(ending.where.port or "")
    own = {word for text in port.addresses for word in text.split()} if port else set()
    backends = [b.address for v in inventory.vips if v.address == first.dst for b in v.backends]
    return next((address for address in backends if address in own), None)


# A router and the address that it has a route for.
_Routing = tuple[int, str]


def _ways(case: Case, ending: Ending, records: Sequence[LogRecord]) -> dict[_Routing, str]:
    """The next hop that each router on the way chose: its MAC address, or where that was not known its IP address."""
    routers = {d.key for d in case.inventory.datapaths if d.kind in ("vrouter", "vbrouter")}
    found: dict[_Routing, str] = {}
    for before, record in pairwise(records):
        # The router puts its next hop's MAC address on: the one before was its own.
        if record.datapath in routers and record.eth_dst != before.eth_dst:
            found.setdefault((record.datapath, record.dst), mac_text(record.eth_dst))
    if ending.cause is not None and ending.cause.code == "neighbor_unresolved":
        inspection = nearest(case, records[0], records[-1], same_flow=True)
        for step in inspection.steps if inspection else ():
            chosen = _NEXT_HOP.search(step.object.actions)
            if step.object.stage.endswith("_ecmp") and chosen is not None:
                found.setdefault((step.datapath, records[-1].dst), chosen.group(1))
    return found


def _several(ways: Sequence[Mapping[_Routing, str]]) -> frozenset[_Routing]:
    """Where packets for one and the same address went on by several next hops."""
    next_hops: dict[_Routing, set[str]] = defaultdict(set)
    for way in ways:
        for routing, next_hop in way.items():
            next_hops[routing].add(next_hop)
    return frozenset(routing for routing, found in next_hops.items() if len(found) > 1)


def _member(way: Mapping[_Routing, str], several: frozenset[_Routing]) -> str | None:
    return next((next_hop for routing, next_hop in way.items() if routing in several), None)


def mac_text(value: int) -> str:
    """A 48-bit address as text."""
    return ":".join(f"{value >> shift & 0xFF:02x}" for shift in range(40, -1, -8))
