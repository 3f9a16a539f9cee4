"""Runs a case: traffic, fault, diagnosis, what the VMs really saw, and back."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from faults import answers, bridges
from faults.catalogue import Entry
from faults.facts import PROGRAM, Facts
from faults.model import Case, Do, Expect, Fault, Pair, Proto
from vtrace.bench.capture import ECHO_REPLIES, ECHO_REQUESTS, Packet, Sniffer
from vtrace.lab import state as lab_state

RATE_PPS = 200
TCP_CONNECTIONS = 3
PACKETS = 25
PACKETS_OF_DEAD_TCP = 6
"""A connection that gets nothing through sends few packets."""
BLUE_PLACEMENTS = ("switched-remote", "routed-remote")
QUIET_S = 0.08
IN_FLIGHT = 6
"""Packets that the capture at one VM may have and the other's not, since the two are read one after the other."""


def eventually(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.02)


def namespace(facts: Facts, node: str) -> str:
    return lab_state.namespace(facts.lab, node)


def lab_command(facts: Facts, *words: str) -> str:
    """What `vtrace lab WORDS` prints."""
    argv = [*PROGRAM, "lab", *words, "--lab", facts.lab]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{words}: {done.returncode} {done.stdout} {done.stderr}"
    return done.stdout


@dataclass
class Traffic:
    """What keeps packets going for a case."""

    facts: Facts
    ids: list[str] = field(default_factory=list)
    pings: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, pair: Pair, proto: Proto, *, to: str, dscp: int, count: int = 1, sport: int | None = None) -> None:
        for _ in range(count):
            words = ["--from", pair.source, "--to", to, "--proto", proto, "--rate", str(RATE_PPS), "--ip", str(pair.ip)]
            words += ["--dscp", str(dscp)]
            if sport is not None and proto != "icmp":
                words += ["--sport", str(sport), "--dport", "20999"]
            self.ids.append(lab_command(self.facts, "traffic", "start", *words).strip())

    def ping(self, pair: Pair, arguments: tuple[str, ...], dscp: int) -> None:
        """A ping of its own, for what `lab traffic` can't do; `lab exec` becomes it, so that its id is known."""
        argv = [*PROGRAM, "lab", "exec", "--lab", self.facts.lab, pair.source, "--", "ping", f"-{pair.ip}"]
        argv += ["-n", "-i", str(1 / RATE_PPS), "-Q", str(dscp << 2), *arguments]
        self.pings.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def stop(self) -> None:
        for process in self.pings:
            process.terminate()
            process.wait(timeout=5)
        if self.ids:
            lab_command(self.facts, "traffic", "stop")
        self.ids.clear()
        self.pings.clear()


@dataclass
class Watch:
    """The packets of a pair, forward and back, at both VMs."""

    pair: Pair
    at_source: Sniffer
    at_destination: Sniffer
    proto: str | None = None

    def read(self) -> Seen:
        at_source, at_destination = (
            [p for p in sniffer.read() if self.proto in (None, p.proto)]  # a case before may still close connections
            for sniffer in (self.at_source, self.at_destination)
        )
        mine = {self.pair.src, "10.1.1.99", "fd00:1:1::99"}
        theirs = {self.pair.dst, self.pair.alias}

        def forward(packet: Packet) -> bool:
            if packet.proto == "icmp" and packet.body[0] not in ECHO_REQUESTS:
                return False
            return packet.src in mine and packet.dst in theirs

        def back(packet: Packet) -> bool:
            if packet.proto == "icmp" and packet.body[0] not in ECHO_REPLIES:
                return False
            return packet.src in theirs and packet.dst in mine

        return Seen(
            sent=[p for p in at_source if p.outgoing and forward(p)],
            arrived=[p for p in at_destination if not p.outgoing and forward(p)],
            answers_sent=[p for p in at_destination if p.outgoing and back(p)],
            answers_arrived=[p for p in at_source if not p.outgoing and back(p)],
        )


@dataclass(frozen=True)
class Seen:
    """What passed the VMs' interfaces."""

    sent: list[Packet]
    arrived: list[Packet]
    answers_sent: list[Packet]
    answers_arrived: list[Packet]

    def text(self) -> str:
        return (
            f"sent {len(self.sent)}, arrived {len(self.arrived)}, answers sent {len(self.answers_sent)}, "
            f"arrived {len(self.answers_arrived)}"
        )


@contextlib.contextmanager
def watching(facts: Facts, pair: Pair, proto: str | None = None) -> Iterator[Watch]:
    with Sniffer(namespace(facts, pair.source)) as one, Sniffer(namespace(facts, pair.destination)) as other:
        yield Watch(pair, one, other, proto)


def apply(facts: Facts, commands: tuple[Do, ...], *, check: bool = True) -> None:
    """Run an injection's commands through `vtrace lab exec`."""
    for command in commands:
        facts.execute(command.node, *command.argv, check=check)


def expectation(case: Case) -> Expect:
    """The answer that is right: that of the fault, or of a healthy pair."""
    if not case.near_miss:
        return case.fault.expect
    pair = case.pair
    return Expect("delivered", pair.destination_server, pair.destination_switch, loss="no", pattern=None, exit_code=0)


def effect_of(case: Case) -> str:
    return "none lost" if case.near_miss else case.fault.effect


def begin_traffic(case: Case, traffic: Traffic) -> None:
    """The case's packets; where the blue VPC has such a pair, its packets too, with the very same header."""
    fault, pair = case.fault, case.pair
    arguments = fault.near_ping if case.near_miss and fault.near_ping else fault.ping
    if arguments:
        traffic.ping(pair, arguments, case.dscp)
        return
    to = f"{pair.destination}:{pair.alias}" if fault.to_alias else pair.destination
    blue = pair.placement in BLUE_PLACEMENTS
    tcp = case.proto == "tcp"
    traffic.start(pair, case.proto, to=to, dscp=case.dscp, sport=30999 if blue and not tcp else None)
    if tcp:
        traffic.start(pair, case.proto, to=to, dscp=case.dscp, count=TCP_CONNECTIONS - 1)
    if blue:
        twin = traffic.facts.pair(pair.placement, pair.ip, "blue")
        to = to.replace(pair.destination, twin.destination)
        traffic.start(twin, case.proto, to=to, dscp=case.dscp, sport=None if tcp else 30999)


def wait_for_effect(case: Case, watch: Watch) -> None:
    """Until the fault shows at the VMs: entries take a moment to reach the datapath."""
    watch.read()
    if effect_of(case) == "all lost":

        def nothing_comes() -> bool:
            watch.read()
            time.sleep(QUIET_S)
            return not watch.read().arrived

        eventually(nothing_comes, f"the injected fault to act: {case.id}")


def check_truth(case: Case, seen: Seen) -> None:
    """The injector's own claim: that the fault does to the packets what it is said to do."""
    effect, text = effect_of(case), f"injector, {case.id}: {seen.text()}"
    assert seen.sent, text
    if effect == "all lost":
        assert not seen.arrived, text
    elif effect == "some lost" and case.proto != "tcp":
        assert 0 < len(seen.arrived) < len(seen.sent), text
    elif effect == "none lost":
        assert len(seen.arrived) >= len(seen.sent) - IN_FLIGHT, text


def check_untouched(case: Case, seen: Seen) -> None:
    """The tenant sees no packet changed: its DSCP above all, in both directions."""
    for packets in (seen.sent, seen.arrived, seen.answers_sent, seen.answers_arrived):
        other = [p for p in packets if p.dscp != case.dscp]
        # TCP sends resets and such without the socket's mark.
        other = [p for p in other if p.proto != "tcp" or p.dscp != 0]
        assert not other, f"{case.id}: {len(other)} packets with DSCP {sorted({p.dscp for p in other})}"


def arguments_of(case: Case) -> list[str]:
    pair = case.pair
    dead_tcp = case.proto == "tcp" and effect_of(case) == "all lost"
    count = PACKETS_OF_DEAD_TCP if dead_tcp else packets_of(case)
    words = ["--from", pair.source, "--to", pair.destination, "--packets", str(count)]
    return [*words, "--proto", case.proto, "--ip", str(pair.ip), "--timeout", "20"]


def packets_of(case: Case) -> int:
    return 100 if case.fault.name in ("transient_loss", "unclear_loss", "two_bursts") else PACKETS


def build(entry: Entry, facts: Facts, case: dict[str, object]) -> Case:
    """A case from its coordinates."""
    pair = facts.pair(str(case["placement"]), 4 if case["ip"] == 4 else 6)
    fault: Fault = entry.build(pair, facts)
    return Case(
        fault=fault,
        pair=pair,
        proto=case["proto"],  # type: ignore[arg-type]
        opened_before=bool(case["opened_before"]),
        dscp=int(str(case["dscp"])),
        near_miss=bool(case["near_miss"]),
    )


def run(case: Case, facts: Facts) -> answers.Answer:
    """Run a case and hold the answer against what was injected. Raises AssertionError."""
    traffic, fault = Traffic(facts), case.fault
    injected = fault.near if case.near_miss else (*(fault.near if fault.decoy else ()), *fault.inject)
    with watching(facts, case.pair, case.proto) as watch:
        try:
            own_ping = bool(fault.ping)
            apply(facts, fault.prepare)
            if case.opened_before and not own_ping:
                begin_traffic(case, traffic)
                eventually(lambda: len(watch.read().arrived) >= 1, f"packets before the fault: {case.id}")
            apply(facts, injected)
            if not case.opened_before or own_ping:
                begin_traffic(case, traffic)
            wait_for_effect(case, watch)
            before = bridges.all_standing(facts.lab)
            watch.read()
            answer = answers.diagnose(facts, *arguments_of(case))
            seen = watch.read()
            complaints = bridges.complaints(before, bridges.all_standing(facts.lab))
            check_truth(case, seen)
            answers.check_sound(answer, packets_of(case))
            answers.check_only_of(answer, case.pair)
            answers.check_expected(answer, expectation(case), facts)
            check_untouched(case, seen)
            assert not complaints, "\n".join(complaints)
        finally:
            traffic.stop()
            if not case.near_miss:
                apply(facts, fault.heal, check=False)
            if case.near_miss or fault.decoy:
                apply(facts, fault.near_heal, check=False)
    return answer


def is_soak() -> bool:
    return os.environ.get("VTRACE_SOAK", "0") == "1"
