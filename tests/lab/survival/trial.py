"""Runs a case: traffic, a task, the event in the state of it that is meant, what is left, and a later task."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from changing.trial import MARK, Ends
from faults import bridges
from faults.bridges import Standing
from faults.facts import PROGRAM, Facts
from test_lab import start_traffic, vtrace

from survival import events
from survival.cases import Case
from survival.events import BOX, DESTINATION, SOURCE, Event, Scene

RATE_PPS = 100
PACKETS = 400
LATER_PACKETS = 25
TIMEOUT_S = 6
LAST_ENTRY_S = TIMEOUT_S + 20
"""When the last of our entries, the claim, times out (docs/pipeline.md)."""
EXPIRY_S = 6
"""Open vSwitch looks for entries whose time is over every now and then, later if the machine is busy."""
BOUND_S = 30
"""By so much a task may exceed its time limit, whatever happens around it."""
WHILE_S = 1.5
PORT = re.compile(r"(in_port=|output:)\d+")
GROUP = re.compile(r"group:\d+")
GROUP_ID = re.compile(r"group_id=\d+,")
ZONE = re.compile(r"load:(?:0x)?[0-9a-f]+->(NXM_NX_REG1[123]\[\])")
FLOWS_S = 40
LATER_S = 4.0
"""For as long as a later task takes: gateways come back late."""
WORDS = {"ready": r"task ready", "coloring": r"coloring [1-9]", "collecting": r"collecting"}
ADDRESS = {DESTINATION: DESTINATION, BOX: "198.51.100.10"}


def destination(case: Case) -> str:
    """Whom the source sends to: by the gateway where that is to be hurt."""
    return BOX if case.place == "gateway" else DESTINATION


@dataclass
class Told:
    """What a diagnosing process said."""

    exit_code: int | None = None
    document: dict[str, Any] = field(default_factory=dict)
    out: str = ""
    progress: str = ""
    took_s: float = 0.0

    def text(self) -> str:
        shown = {key: value for key, value in self.document.items() if key != "paths"}
        return f"exit {self.exit_code} after {self.took_s:.1f} s\n{json.dumps(shown, indent=1)}\n{self.progress}"


class Task:
    """A diagnosis whose progress is followed."""

    def __init__(self, argv: list[str], *, full: bool) -> None:
        self._since_s = time.monotonic()
        with open("/dev/full" if full else "/dev/null", "w", encoding="ascii") as sink:
            out = sink if full else subprocess.PIPE
            self.process = subprocess.Popen(argv, stdout=out, stderr=subprocess.PIPE, text=True)
        self._lines: list[str] = []
        self._out = ""
        self._moved = threading.Condition()
        self._ended = False
        self._readers = [threading.Thread(target=self._read_lines), threading.Thread(target=self._read_answer)]
        for reader in self._readers:
            reader.start()

    def _read_lines(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._moved:
                self._lines.append(line)
                self._moved.notify_all()
        with self._moved:
            self._ended = True
            self._moved.notify_all()

    def _read_answer(self) -> None:
        if self.process.stdout is not None:
            self._out = self.process.stdout.read()

    def reached(self, state: str, timeout_s: float) -> bool:
        """Waits for a state of the task; whether it came."""
        if state == "after":
            return self.ended(timeout_s)
        words = re.compile(WORDS[state])
        with self._moved:
            self._moved.wait_for(lambda: self._ended or any(map(words.search, self._lines)), timeout_s)
            return any(map(words.search, self._lines))

    def ended(self, timeout_s: float) -> bool:
        """Waits for its end; whether it came."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def told(self) -> Told:
        """All it said; it is killed if it has not ended."""
        took_s = time.monotonic() - self._since_s
        if self.process.poll() is None:
            self.process.kill()
        code = self.process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        found = Told(exit_code=code, out=self._out, progress="".join(self._lines), took_s=took_s)
        with suppress(ValueError):
            found.document = json.loads(self._out)
        return found


class Passing:
    """The tenant's packets at its ends, by their bodies: what was sent, what arrived, what showed a color."""

    def __init__(self, ends: Ends) -> None:
        self._ends = ends
        self.sent: dict[bytes, None] = {}
        self.arrived: set[bytes] = set()
        self.colored: Counter[str] = Counter()

    def read(self) -> int:
        count = self._ends.read()
        for (node, link), packets in self._ends.packets.items():
            for packet in packets:
                if MARK not in packet.body[:32]:
                    continue
                if packet.dscp:
                    self.colored[f"{node} {link} {'out' if packet.outgoing else 'in'} {packet.dscp}"] += 1
                if link != "eth0":
                    continue
                if node == SOURCE and packet.outgoing:
                    self.sent[packet.body[8:]] = None
                elif node != SOURCE and not packet.outgoing:
                    self.arrived.add(packet.body[8:])
            packets.clear()
        return count

    @property
    def lost(self) -> int:
        return len(set(self.sent) - self.arrived)

    def gaps(self) -> list[str]:
        """Runs of packets that did not arrive, by their places in what was sent."""
        found: list[list[int]] = []
        for place, body in enumerate(self.sent):
            if body not in self.arrived:
                if found and found[-1][1] == place - 1:
                    found[-1][1] = place
                else:
                    found.append([place, place])
        return [f"{first}-{last}" for first, last in found]

    def flows(self, timeout_s: float = FLOWS_S) -> bool:
        """Waits until what is sent from now on arrives; whether it does."""
        deadline = time.monotonic() + timeout_s
        self.read()
        before = len(self.sent)
        while time.monotonic() < deadline:
            self.read()
            newest = list(self.sent)[before:]
            if len(newest) > 30 and set(newest[-30:-10]) <= self.arrived:
                return True
            time.sleep(0.05)
        return False


@dataclass
class Found:
    """What happened in a case. `lost_then` counts what had not arrived when the task ended: some of it may come yet.

    `marks` say how many packets had been sent when something began or ended; `gaps` which did not arrive.
    """

    told: Told | None = None
    later: list[Told] = field(default_factory=list)
    sent: int = 0
    lost: int = 0
    lost_then: int = 0
    gaps: list[str] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)
    colored: Counter[str] = field(default_factory=Counter)
    event_s: float = 0.0
    left_s: float = 0.0
    trouble: list[str] = field(default_factory=list)


class Trial:
    """One case, on a lab that is as it should be. It is so again afterwards, or `trouble` says what is not."""

    def __init__(self, lab: str, case: Case, directory: Path) -> None:
        self._case = case
        self._event: Event = events.of(case)
        self._scene = Scene(lab, directory)
        self._facts = Facts(lab)
        self._found = Found()
        self._before: dict[str, Standing] = {}

    def run(self) -> Found:
        """The case itself."""
        with self._passing() as passing:
            task = self._begin_task()
            self._scene.task = task.process
            try:
                if not task.reached(self._case.state, TIMEOUT_S + BOUND_S):
                    self._found.trouble.append(f"the task never was {self._case.state}")
                self._hurt(task, passing)
            finally:
                self._found.told = task.told()
            self._recover(passing)
        return self._found

    def control(self, event_s: float) -> Found:
        """The same event, for as long, with nothing of ours there."""
        with self._passing() as passing:
            began_s = time.monotonic()
            self._mark("event", passing)
            self._event.begin(self._scene)
            if self._event.hold != "none":
                time.sleep(max(0.0, event_s - (time.monotonic() - began_s)))
                self._mark("end", passing)
                self._event.end(self._scene)
            self._mark("ended", passing)
            self._found.event_s = time.monotonic() - began_s
            self._settle(passing)
            time.sleep(LATER_S)
        return self._found

    @contextmanager
    def _passing(self) -> Iterator[Passing]:
        lab = self._scene.lab
        with ExitStack() as stack:
            passing = Passing(stack.enter_context(Ends(lab)))
            to = destination(self._case)
            to = to if to == DESTINATION else f"{to}:{ADDRESS[to]}"
            start_traffic(lab, "--rate", str(RATE_PPS), "--proto", "udp", "--from", SOURCE, "--to", to)
            stack.callback(vtrace, lab, "traffic stop")
            if not passing.flows():
                self._found.trouble.append("no traffic before the case")
            passing.sent.clear()
            passing.arrived.clear()
            passing.colored.clear()
            self._event.prepare(self._scene)
            self._before = bridges.all_standing(lab)
            yield passing
            vtrace(lab, "traffic stop")
            while passing.read():
                time.sleep(0.1)
            self._found.sent, self._found.lost = len(passing.sent), passing.lost
            self._found.gaps = passing.gaps()
            self._found.colored = passing.colored

    def _arguments(self, packets: int, timeout_s: int) -> list[str]:
        to = ADDRESS[destination(self._case)]
        words = ["diagnose", "--lab", self._scene.lab, "--json", "--from", SOURCE, "--to", to]
        return [*words, "--proto", "udp", "--packets", str(packets), "--timeout", str(timeout_s)]

    def _begin_task(self) -> Task:
        program, more = self._event.program(self._scene), self._event.arguments(self._scene)
        return Task([*program, *self._arguments(PACKETS, TIMEOUT_S), *more], full=self._event.full)

    def _hurt(self, task: Task, passing: Passing) -> None:
        """The event, from its beginning to its end, and the task to its end."""
        event, began_s = self._event, time.monotonic()
        self._mark("event", passing)
        event.begin(self._scene)
        if event.hold == "while" or (event.hold == "task" and self._case.state == "after"):
            time.sleep(WHILE_S)
        elif event.hold == "expiry":
            self._wait_for_expiry()
        elif event.hold == "task":
            task.ended(TIMEOUT_S + BOUND_S)
            passing.read()
            self._found.lost_then = passing.lost
        if event.kills and event.hold == "none":
            self._ask_later()
        if event.hold != "none":
            self._mark("end", passing)
            event.end(self._scene)
        self._mark("ended", passing)
        self._found.event_s = time.monotonic() - began_s
        if not task.ended(TIMEOUT_S + BOUND_S):
            self._found.trouble.append(f"the task has not ended {BOUND_S} s after its time limit")

    def _ours(self) -> list[str]:
        lab = self._scene.lab
        return [f"{name}: {e}" for name, there in bridges.all_standing(lab).items() for e in there.ours]

    def _wait_for_expiry(self) -> None:
        """Until none of our entries is left; that is trouble if it takes longer than their time-outs."""
        since_s = time.monotonic()
        while ours := self._ours():
            if time.monotonic() > since_s + LAST_ENTRY_S + EXPIRY_S:
                self._found.trouble += [f"left beyond its hard time-out: {entry}" for entry in ours]
                return
            time.sleep(0.2)
            self._found.left_s = time.monotonic() - since_s

    def _recover(self, passing: Passing) -> None:
        """What has to be so after the event: traffic flows, all is as before, and a task works."""
        self._settle(passing)
        self._mark("later", passing)
        self._ask_later()
        self._found.trouble += self._changed(meters=True)[:12]

    def _mark(self, name: str, passing: Passing) -> None:
        passing.read()
        self._found.marks[name] = len(passing.sent)

    def _settle(self, passing: Passing) -> None:
        """Waits until all is as before, but for meters."""
        if not passing.flows():
            self._found.trouble.append("nothing arrives any more after the event")
        self._wait_for_expiry()
        deadline = time.monotonic() + FLOWS_S
        while complaints := self._changed(meters=False):
            if time.monotonic() > deadline:
                self._found.trouble += complaints[:12]
                break
            time.sleep(0.2)
        passing.flows()

    def _changed(self, *, meters: bool) -> list[str]:
        """What is not as it was; ovn-controller's process may be another."""
        now, moves = bridges.all_standing(self._scene.lab), self._case.event == "vm-moves"
        both = ({n: numbered_alike(b, ports=moves) for n, b in all_.items()} for all_ in (self._before, now))
        found = bridges.complaints(*both)
        return [c for c in found if ": ovn-controller " not in c and (meters or ": meters were " not in c)]

    def _ask_later(self) -> None:
        task = Task([*PROGRAM, *self._arguments(LATER_PACKETS, TIMEOUT_S)], full=False)
        task.ended(TIMEOUT_S + BOUND_S)
        self._found.later.append(task.told())


def numbered_alike(there: Standing, *, ports: bool) -> Standing:
    """What stands on a bridge, whatever numbers zones and groups have: ovn-controller deals them out anew.

    Args:
        ports: whatever numbers a bridge's ports have, too: one that was away gets another.
    """
    entries = {GROUP.sub("group:G", ZONE.sub(r"load:ZONE->\1", entry)) for entry in there.entries}
    if ports:
        entries = {PORT.sub(r"\1P", entry) for entry in entries}
    groups = sorted(GROUP_ID.sub("", line).strip() for line in there.groups.splitlines())
    return replace(there, entries=frozenset(entries), groups="\n".join(groups))


def run(lab: str, case: Case) -> Found:
    """A case."""
    with tempfile.TemporaryDirectory() as directory:
        return Trial(lab, case, Path(directory)).run()


def control(lab: str, case: Case, event_s: float) -> Found:
    """Its event, for as long, with nothing of ours there."""
    with tempfile.TemporaryDirectory() as directory:
        return Trial(lab, case, Path(directory)).control(event_s)
