"""Runs several diagnoses at once, each of packets of its own, among all the faults of the others."""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest
from faults import answers, bridges
from faults.facts import PROGRAM, Facts
from faults.model import Do
from test_lab import eventually, on, start_traffic, vtrace

from crossing.faults import Injected
from crossing.judging import check_healthy, check_lost
from crossing.scope import Scope
from vtrace.bench.capture import ECHO_REPLIES, ECHO_REQUESTS, Packet, Sniffer
from vtrace.lab import state as lab_state
from vtrace.lab.programs import ProgramError

PACKETS = 20
RATE_PPS = 60
AT_ONCE = 2
QUIET_S = 0.08


class CrossingFacts(Facts):
    """A lab that is up; commands are run in it without starting a vtrace."""

    def execute(self, node: str, *argv: str, check: bool = True, text: str | None = None) -> str:
        try:
            return on(self.lab, node, *argv)
        except ProgramError:
            if check:
                raise
            return ""


@contextlib.contextmanager
def up(topology: str) -> Iterator[CrossingFacts]:
    """A lab of that topology."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    name = f"cross{secrets.token_hex(3)}"
    vtrace(name, "up", topology)
    try:
        yield CrossingFacts(name)
    finally:
        vtrace(name, "down")


@dataclass
class Run:
    """One case: packets, and what was done to them. `fault` None: nothing."""

    scope: Scope
    fault: Injected | None = None
    dscp: int = 0

    @property
    def name(self) -> str:
        scope = self.scope
        return f"{scope.way.name} {scope.proto}{scope.ip}: {self.fault.name if self.fault else 'healthy'}"

    @property
    def arguments(self) -> list[str]:
        way, scope = self.scope.way, self.scope
        start, end = way.task[scope.ip]
        words = ["--from", start, "--to", end, "--ip", str(scope.ip), "--proto", scope.proto, "--timeout", "20"]
        words += ["--direction", way.direction, "--packets", str(PACKETS)]
        return words if scope.proto == "icmp" else [*words, "--dport", str(scope.port)]

    def start(self, lab: str) -> None:
        """Begin its traffic. What a reply's way carries are the answers to it."""
        way, scope = self.scope.way, self.scope
        sender, receiver, address = way.sender, way.receiver, scope.dst
        if way.direction == "reply":
            sender, receiver, address = way.receiver, way.sender, scope.src
        words = ["--from", sender, "--to", f"{receiver}:{address}", "--proto", scope.proto, "--ip", str(scope.ip)]
        words += ["--rate", str(RATE_PPS), "--dscp", str(self.dscp)]
        words += [] if scope.proto == "icmp" else ["--dport", str(scope.port)]
        start_traffic(lab, *words)

    def is_mine(self, packet: Packet) -> bool:
        """Whether a packet is one of those the case asks about."""
        scope = self.scope
        if (packet.src, packet.dst, packet.proto) != (scope.src, scope.dst, scope.proto):
            return False
        forward = scope.way.direction == "forward"
        if scope.proto == "icmp":
            return packet.body[0] in (ECHO_REQUESTS if forward else ECHO_REPLIES)
        ports = struct.unpack_from("!HH", packet.body)
        return ports[1 if forward else 0] == scope.port


@contextlib.contextmanager
def pinging(facts: Facts, node: str, *words: str) -> Iterator[None]:
    """A ping from a node; `lab exec` becomes it."""
    argv = [*PROGRAM, "lab", "exec", "--lab", facts.lab, node, "--", "ping", "-n", "-i", "0.02", *words]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=5)


def apply(facts: Facts, commands: Iterable[Do], *, check: bool = True) -> None:
    """Run commands on the lab's nodes; then wait until the servers have what the databases say."""
    for command in commands:
        facts.execute(command.node, *command.argv, check=check)
    facts.execute("central", "ovn-nbctl", "--wait=hv", "--timeout=20", "sync", check=check)


class Capture:
    """All packets at the ends of some runs."""

    def __init__(self, facts: Facts, nodes: Iterable[str]) -> None:
        self._stack = contextlib.ExitStack()
        self._sniffers = {
            node: self._stack.enter_context(
                Sniffer(lab_state.namespace(facts.lab, node), "to-gw1" if node == "customer1" else "eth0")
            )
            for node in sorted(set(nodes))
        }
        self.packets: dict[str, list[Packet]] = {node: [] for node in self._sniffers}

    def read(self) -> None:
        for node, sniffer in self._sniffers.items():
            self.packets[node] += sniffer.read()

    def forget(self) -> None:
        self.read()
        for packets in self.packets.values():
            packets.clear()

    def close(self) -> None:
        self._stack.close()

    def sent(self, run: Run) -> list[Packet]:
        return [p for p in self.packets[run.scope.way.sender] if p.outgoing and run.is_mine(p)]

    def arrived(self, run: Run) -> list[Packet]:
        return [p for p in self.packets[run.scope.way.receiver] if not p.outgoing and run.is_mine(p)]


@contextlib.contextmanager
def running(facts: Facts, runs: list[Run]) -> Iterator[Capture]:
    """Traffic of all runs, with their faults; everything is taken back at the end."""
    ways = [run.scope.way for run in runs]
    capture = Capture(facts, [node for way in ways for node in (way.sender, way.receiver)])
    faults = [run.fault for run in runs if run.fault]
    try:
        for run in runs:
            run.start(facts.lab)
        eventually(lambda: _all_arrive(capture, runs), "packets of every case before the faults")
        apply(facts, [command for fault in faults for command in fault.inject])
        eventually(lambda: _acts(capture, runs), "the injected faults to act")
        yield capture
    finally:
        vtrace(facts.lab, "traffic stop")
        apply(facts, [command for fault in faults for command in fault.heal], check=False)
        capture.close()


def _all_arrive(capture: Capture, runs: list[Run]) -> bool:
    capture.read()
    return all(capture.arrived(run) for run in runs)


def _acts(capture: Capture, runs: list[Run]) -> bool:
    """Whether nothing arrives of what a fault is for."""
    capture.forget()
    time.sleep(QUIET_S)
    capture.read()
    return not any(capture.arrived(run) for run in runs if run.fault)


def diagnose_all(facts: Facts, runs: list[Run], at_once: int = AT_ONCE) -> list[answers.Answer]:
    """The answers of all runs, some diagnoses at a time."""
    found: list[answers.Answer] = []
    for first in range(0, len(runs), at_once):
        since = time.monotonic()
        started = [answers.start(facts, *run.arguments) for run in runs[first : first + at_once]]
        found += [answers.finish(process, since) for process in started]
    return found


def check_truth(capture: Capture, run: Run) -> None:
    """The injector's own claim: all lost, or none. Truth of the packet capture, not of VTrace."""
    sent, arrived = capture.sent(run), capture.arrived(run)
    text = f"{run.name}: sent {len(sent)}, arrived {len(arrived)}"
    assert sent, text
    assert bool(arrived) == (run.fault is None or run.fault.expect.loss == "no"), text


def check_untouched(capture: Capture, runs: list[Run]) -> None:
    """Nobody sees a changed packet: DSCP and ECN are as the sender wrote them, at both ends and both ways."""
    for run in runs:
        ends = set(run.scope.way.ends[run.scope.ip])
        for node in (run.scope.way.sender, run.scope.way.receiver):
            for packet in capture.packets[node]:
                if {packet.src, packet.dst} != ends or packet.proto != run.scope.proto:
                    continue
                if packet.proto != "icmp" and run.scope.port not in struct.unpack_from("!HH", packet.body):
                    continue
                # TCP sends resets and such without the socket's mark.
                allowed = (run.dscp, 0) if packet.proto == "tcp" else (run.dscp,)
                assert packet.dscp in allowed, f"{run.name}: DSCP {packet.dscp} at {node}: {packet}"
                assert packet.ecn == 0, f"{run.name}: ECN {packet.ecn} at {node}: {packet}"


def run_all(facts: Facts, runs: list[Run]) -> None:
    """Run cases together, and hold each answer against what was injected. Raises AssertionError with all complaints."""
    complaints: list[str] = []
    with running(facts, runs) as capture:
        before = bridges.all_standing(facts.lab)
        capture.forget()
        found = diagnose_all(facts, runs)
        capture.read()
        complaints += bridges.complaints(before, bridges.all_standing(facts.lab))
        for run, answer in zip(runs, found, strict=True):
            try:
                check_truth(capture, run)
                judge(facts, run, answer)
            except AssertionError as error:
                complaints.append(f"=== {run.name}\n{error}")
        check_untouched(capture, runs)
    assert not complaints, "\n".join(complaints)


def judge(facts: Facts, run: Run, answer: answers.Answer) -> None:
    """Hold one answer against what was done to its packets."""
    if run.fault is None:
        check_healthy(answer, run.scope, PACKETS, alone=False)
    else:
        check_lost(answer, run.scope, run.fault, facts, PACKETS, alone=False)
