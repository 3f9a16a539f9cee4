"""Runs diagnoses of packets of their own, several at a time, each among the faults of all others."""

from __future__ import annotations

import contextlib
import json
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from crossing.running import apply
from faults import answers
from faults.answers import Answer
from faults.facts import Facts
from test_lab import eventually, start_traffic, vtrace

from kinds.faults import Build, Injected, Packets, Right, kind_of
from vtrace.bench.capture import ECHO_REPLIES, ECHO_REQUESTS, Packet, Sniffer
from vtrace.lab import state as lab_state

PACKETS = 20
RATE_PPS = 60
AT_ONCE = 2
QUIET_S = 0.08
POOL_2 = {value for value in range(64) if value & 3 == 3}
"""DSCPs that colors are taken of (RFC 2474); no sender here uses one."""
DSCPS = (0, 10, 46)


@dataclass
class Run:
    """One case: packets, and what is done to them; `fault` None is nothing. `near` is beside it, and does nothing."""

    packets: Packets
    fault: Injected | None = None
    near: Injected | None = None
    timeout_s: int = 20

    @property
    def name(self) -> str:
        packets = self.packets
        return f"{packets.way.name} {packets.proto}{packets.ip}: {self.fault.name if self.fault else 'healthy'}"

    @property
    def arguments(self) -> list[str]:
        packets, way = self.packets, self.packets.way
        start, end = (way.address(name, packets.ip) for name in way.task)
        words = [
            "--from",
            start,
            "--to",
            end,
            "--ip",
            str(packets.ip),
            "--proto",
            packets.proto,
            "--timeout",
            str(self.timeout_s),
        ]
        words += ["--direction", way.direction, "--packets", str(PACKETS)]
        return words if packets.proto == "icmp" else [*words, "--dport", str(packets.port)]

    def start(self, lab: str) -> None:
        """Begin its traffic. What a reply's way carries are the answers to it."""
        packets, way = self.packets, self.packets.way
        to = way.address(way.towards, packets.ip)
        sender = f"{way.sender}:{way.address('host', packets.ip)}" if way.sender == "internet1" else way.sender
        words = ["--from", sender, "--proto", packets.proto, "--rate", str(RATE_PPS)]
        words += ["--to", f"{way.receiver}:{to}" if way.receiver == "internet1" else to]
        words += ["--dscp", str(DSCPS[packets.number % len(DSCPS)])]
        words += [] if packets.proto == "icmp" else ["--dport", str(packets.port)]
        start_traffic(lab, *words)

    def is_mine(self, packet: Packet, *, sent: bool = False) -> bool:
        """Whether a packet that arrived, or was sent, is one of those that the case asks about."""
        packets, hop = self.packets, self.packets.way.hops[0 if sent else -1]
        ends = (packets.way.address(hop.src, packets.ip), packets.way.address(hop.dst, packets.ip))
        if ends != (packet.src, packet.dst) or packet.proto != packets.proto or packet.outgoing != sent:
            return False
        forward = packets.way.direction == "forward"
        if packets.proto == "icmp":
            return packet.body[0] in (ECHO_REQUESTS if forward else ECHO_REPLIES)
        return struct.unpack_from("!HH", packet.body)[1 if forward else 0] == packets.port


class Capture:
    """All packets at every end of a lab."""

    def __init__(self, facts: Facts) -> None:
        self._stack = contextlib.ExitStack()
        ends = [node["name"] for node in facts.status["nodes"] if node["role"] in ("vm", "outside")]
        self._sniffers = {
            node: self._stack.enter_context(Sniffer(lab_state.namespace(facts.lab, node))) for node in ends
        }
        self.packets: dict[str, list[Packet]] = {node: [] for node in ends}

    def read(self) -> None:
        for node, sniffer in self._sniffers.items():
            self.packets[node] += sniffer.read()

    def forget(self) -> None:
        self.read()
        for packets in self.packets.values():
            packets.clear()

    def arrived(self, run: Run) -> list[Packet]:
        return [p for p in self.packets[run.packets.way.captured] if run.is_mine(p)]

    def sent(self, run: Run) -> list[Packet]:
        return [p for p in self.packets[run.packets.way.sending] if run.is_mine(p, sent=True)]

    def colored(self) -> list[tuple[str, Packet]]:
        """Packets that somebody outside the domain saw with a color."""
        return [(node, p) for node, packets in self.packets.items() for p in packets if p.dscp in POOL_2]

    def close(self) -> None:
        self._stack.close()


def make(
    facts: Facts, number: int, way: Any, ip: Any, proto: Any, build: Build | None = None, near: Build | None = None
) -> Run:
    """A case with a port of its own; the near-miss is for packets that nobody sends."""
    packets = Packets(way, ip, proto, 20300 + number, number)
    beside = Packets(way, ip, proto, packets.port, number + 100).elsewhere()
    return Run(packets, build(packets, facts) if build else None, near(beside, facts) if near else None)


@contextlib.contextmanager
def running(facts: Facts, runs: list[Run], *, acts: bool = True) -> Iterator[Capture]:
    """Traffic of all runs, with their faults and near-misses; everything is taken back at the end."""
    done = [step for run in runs for step in (run.fault, run.near) if step]
    capture = Capture(facts)
    try:
        for run in runs:
            run.start(facts.lab)
        eventually(lambda: _all_arrive(capture, runs), "packets of every case before the faults")
        apply(facts, [command for step in done for command in step.inject])
        if acts:
            eventually(lambda: _acts(capture, runs), "the injected faults to act")
        yield capture
    finally:
        vtrace(facts.lab, "traffic stop")
        apply(facts, [command for step in done for command in step.heal], check=False)
        capture.close()


def _all_arrive(capture: Capture, runs: list[Run]) -> bool:
    capture.read()
    return all(capture.arrived(run) for run in runs)


def _acts(capture: Capture, runs: list[Run]) -> bool:
    capture.forget()
    time.sleep(QUIET_S)
    capture.read()
    return not any(capture.arrived(run) for run in runs if run.fault)


def diagnose_all(facts: Facts, runs: list[Run]) -> list[Answer]:
    """The answers of all runs, some diagnoses at a time."""
    found: list[Answer] = []
    for first in range(0, len(runs), AT_ONCE):
        since = time.monotonic()
        started = [answers.start(facts, *run.arguments) for run in runs[first : first + AT_ONCE]]
        found += [answers.finish(process, since) for process in started]
    return found


def run_all(facts: Facts, runs: list[Run]) -> None:
    """Run cases together and hold each answer against what was done. Raises AssertionError with all complaints."""
    complaints: list[str] = []
    with running(facts, runs) as capture:
        capture.forget()
        found = diagnose_all(facts, runs)
        capture.read()
        for run, answer in zip(runs, found, strict=True):
            try:
                assert capture.sent(run), f"{run.name}: nothing was sent"
                assert bool(capture.arrived(run)) == (run.fault is None), f"{run.name}: not what was injected"
                if run.fault is None:
                    check_healthy(answer, run)
                else:
                    check_lost(answer, run, run.fault.right, facts)
            except AssertionError as error:
                complaints.append(f"=== {run.name}\n{error}")
        complaints += [f"color at {node}: {packet}" for node, packet in capture.colored()]
    assert not complaints, "\n".join(complaints)


def check_healthy(answer: Answer, run: Run) -> None:
    """No loss: all packets arrived, and the answer shows their whole way."""
    way, text = run.packets.way, answer.text()
    answers.check_sound(answer, PACKETS, alone=False)
    assert (answer.document["loss"], answer.code) == ("no", 0), text
    first, last = answer.first, way.hops[-1]
    assert (first["kind"], first["direction"], first["packets"]) == (way.arrival, way.direction, PACKETS), text
    where = first["where"]
    assert (where["server"], where["vfd"], where["port"]) == (last.server, last.vfd, last.out_port), text
    assert first["why"] is None, text
    mine = [p for p in answer.document["paths"] if p["direction"] == way.direction]
    assert sum(p["packets"] for p in mine) == PACKETS, text
    for path in mine:
        assert path["disposition"] == way.arrival, text
        check_hops(path["hops"], run, text, whole=True)


def check_hops(hops: Iterable[dict[str, Any]], run: Run, text: str, *, whole: bool) -> None:
    """The hops are those of the way, rewriting included, or its beginning."""
    way, ip = run.packets.way, run.packets.ip
    found = [
        (
            h["server"],
            h["vfd"],
            h["vfd_kind"],
            h["point"],
            h["in_port"] or "",
            h["out_port"] or "",
            h["five_tuple"]["src"],
            h["five_tuple"]["dst"],
            tuple(r["kind"] for r in h["rewritten"]),
        )
        for h in hops
    ]
    right = [
        (
            h.server,
            h.vfd,
            kind_of(h.vfd),
            h.point,
            h.in_port,
            h.out_port,
            way.address(h.src, ip),
            way.address(h.dst, ip),
            h.changed,
        )
        for h in way.hops
    ]
    assert found == (right if whole else right[: len(found)]), f"{json.dumps(found, indent=1)}\n{text}"


def check_lost(answer: Answer, run: Run, right: Right, facts: Facts) -> None:
    """All packets were lost at the place of the fault, of the injected cause, and nothing else is in the answer."""
    text = f"{run.name}: {right}\n{answer.text()}"
    answers.check_sound(answer, PACKETS, alone=False)
    assert (answer.document["loss"], answer.code) == ("yes", 1), text
    verdict = answer.first
    where, why = verdict["where"], verdict["why"]
    assert (verdict["kind"], verdict["direction"]) == (right.kind, run.packets.way.direction), text
    assert verdict["pattern"] == "persistent", text
    assert (where["server"], where["vfd"], where["vfd_kind"]) == (right.server, right.vfd, right.vfd_kind), text
    assert where["next_server"] == right.next_server, text
    assert right.port in (None, where["port"]), text
    assert (why["code"], why["actor"]) == (right.code, right.actor), text
    assert verdict["confidence"] >= 0.8, text
    assert verdict["packets"] == answer.document["packets"]["colored"], text
    if right.row is not None:
        find = ("ovn-nbctl", "--bare", "--columns=_uuid", "find", right.row.table, right.row.condition)
        assert (why["object"]["type"], [why["object"]["uuid"]]) == (
            right.row.table,
            facts.execute("central", *find).split(),
        ), text
    assert right.object_type in ("", why["object"]["type"]), text
    told = json.dumps([why["object"], why["summary"], why["fix"]])
    for word in right.words:
        assert word in told, f"{word}: {text}"
    for path in answer.document["paths"]:
        check_hops(path["hops"], run, text, whole=False)
