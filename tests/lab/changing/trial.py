"""Runs a diagnosis, changes the topology in the middle of it, and keeps what really passed the ends."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, field, replace

from faults import bridges
from faults.answers import Answer
from faults.facts import Facts
from packets.watching import Waiting
from test_lab import eventually, start_traffic, vtrace

from changing.steps import Step, bound
from vtrace.bench.capture import Packet, Sniffer
from vtrace.lab import state as lab_state

RATE_PPS = 100
HUNG_S = 60.0
"""Entries of a server that hung, and those that restore what it held back, are timed out by then."""
MARK = b"vtrl"
"""What the lab's messages have behind their number and the time."""


@dataclass(frozen=True)
class Change:
    """One change, and what the answer must say of it.

    Attributes:
        traffic: words of `lab traffic start`; `task` those of `diagnose`.
        do, undo: the change, and back; `undo` runs after the answer.
        says: texts that the answer's changes must hold, each in one of them; `object_types` of theirs.
        patterns: of losses, those that are right; none: at most a transient one.
        when: the words of the task's progress at which the change comes.
        codes: reasons that are right for what was lost. `loss` has the answers that are.
        before: what has to be so before the task; `revive` what has to be undone before anything else can be.
        silent: nothing may be named.
        bursts: the guest sends many packets at once in the middle of it.
        slow: only in the whole run.
        hangs: a server hangs until after the answer: what restores on the others stays for a while, and its meters
            until its next agent begins.
    """

    name: str
    traffic: tuple[str, ...]
    task: tuple[str, ...]
    do: tuple[Step, ...]
    undo: tuple[Step, ...]
    before: tuple[Step, ...] = ()
    revive: tuple[Step, ...] = ()
    says: tuple[str, ...] = ()
    object_types: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    loss: tuple[str, ...] = ("no",)
    when: str = "coloring "
    packets: int = 250
    topology: str = "default"
    silent: bool = False
    bursts: bool = False
    slow: bool = False
    hangs: bool = False


@dataclass
class Found:
    """An answer, and the truth."""

    answer: Answer
    sent: list[Packet] = field(default_factory=list)
    arrived: list[Packet] = field(default_factory=list)
    colored: list[tuple[str, Packet]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return len(self.sent) - len(self.arrived)

    @property
    def texts(self) -> list[str]:
        return [c["text"] for c in self.answer.document["changes"]]

    def text(self) -> str:
        dscps = Counter((node, p.dscp) for node, p in self.colored)
        truth = f"sent {len(self.sent)}, arrived {len(self.arrived)}, colors {dscps}, left {self.left}"
        return f"{truth}\n{self.answer.text()}"


class Ends:
    """All packets at all VMs and outside boxes, as they pass there."""

    def __init__(self, lab: str) -> None:
        state = lab_state.require(lab)
        self._stack = contextlib.ExitStack()
        links = [(vm.name, "eth0") for vm in state.vms]
        for box in state.outsides:
            # The bridge that joins its links has what it sends and gets; the links have also what is for others.
            links += [(box.name, "eth0"), *((box.name, f"to-{server}") for server in box.servers)]
        self._sniffers = {
            link: self._stack.enter_context(Sniffer(lab_state.namespace(lab, link[0]), link[1])) for link in links
        }
        self.packets: dict[tuple[str, str], list[Packet]] = {link: [] for link in links}

    def __enter__(self) -> Ends:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self) -> int:
        found = 0
        for link, sniffer in self._sniffers.items():
            new = sniffer.read()
            self.packets[link] += new
            found += len(new)
        return found


def run(lab: str, change: Change) -> Found:
    """One diagnosis with a change in its middle. The change is taken back."""
    for step in change.before:
        step(lab)
    before = bridges.all_standing(lab)
    with Ends(lab) as ends:
        start_traffic(lab, "--rate", str(RATE_PPS), "--proto", "udp", *change.traffic)
        try:
            eventually(lambda: ends.read() > 20, "traffic")
            args = ("--packets", str(change.packets), "--proto", "udp", "--timeout", "20", *change.task)
            with Waiting(Facts(lab), *args, until=change.when) as task:
                for step in change.do:
                    step(lab)
                answer = task.answer()
            ends.read()
            meanwhile = {link: list(packets) for link, packets in ends.packets.items()}
        finally:
            for step in change.revive:
                step(lab)
            vtrace(lab, "traffic stop")
            if change.hangs:
                eventually(lambda: not _ours(lab), "the end of the last entries", timeout_s=HUNG_S)
            left = _ours(lab)
            meters = {n: (b.meters, before[n].meters) for n, b in bridges.all_standing(lab).items()}
            if not change.hangs:
                left += [f"meters on {n}: {now}, were {then}" for n, (now, then) in meters.items() if now != then]
            for step in (*change.undo, bound()):
                step(lab)
        eventually(lambda: ends.read() == 0, "the last packets")
        found = _found(answer, ends.packets, change, left)
        # What a hung server lets go of once it goes on was lost as far as the answer could know.
        return replace(_found(answer, meanwhile, change, left), colored=found.colored) if change.hangs else found


def _ours(lab: str) -> list[str]:
    return [entry for bridge in bridges.all_standing(lab).values() for entry in bridge.ours]


def _found(answer: Answer, packets: dict[tuple[str, str], list[Packet]], change: Change, left: list[str]) -> Found:
    """Who sent what, who got it, and who saw a color. A message has its number and the time it was sent."""
    sender = change.traffic[change.traffic.index("--from") + 1].partition(":")[0]
    sent = {p.body[8:]: p for p in packets[sender, "eth0"] if p.outgoing and MARK in p.body[:32]}
    arrived = {
        p.body[8:]: p
        for (node, link), got in packets.items()
        for p in got
        if node != sender and link == "eth0" and not p.outgoing and p.body[8:] in sent
    }
    colored = [(node, p) for (node, _), got in packets.items() for p in got if p.dscp and MARK in p.body[:32]]
    return Found(answer, list(sent.values()), list(arrived.values()), colored, left)
