"""Diagnoses what a VM sends meanwhile, and keeps what really passed both VMs' interfaces."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from faults import answers
from faults.answers import DIAGNOSE_TIMEOUT_S, Answer
from faults.facts import Facts
from faults.model import Pair
from faults.running import eventually, namespace

from packets.frames import Way
from packets.sending import Seen, Sender, Tap

QUIET_POLLS = 6
HOPS = {"switched-local": 2, "switched-remote": 4, "routed-local": 4, "routed-remote": 6}
"""How many records a packet leaves on each of the four ways of the default topology."""


@dataclass
class Watched:
    """An answer, and the truth: what left the source for the destination, and what came in there."""

    answer: Answer
    sent: list[Seen] = field(default_factory=list)
    arrived: list[Seen] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.answer.document["packets"])

    def text(self) -> str:
        return f"sent {len(self.sent)}, arrived {len(self.arrived)}\n{self.answer.text()}"


def way(facts: Facts, pair: Pair, **changes: object) -> Way:
    """From one VM to the other, or to the router in between."""
    source, destination = pair.source_switch, pair.destination_switch
    if source == destination:
        eth_dst = hardware_address(facts, pair.destination)
    else:
        argv = ("ovn-nbctl", "get", "Logical_Router_Port", f"{pair.router}-{source}", "mac")
        eth_dst = facts.execute("central", *argv).strip().strip('"')
    made = Way(eth_src=hardware_address(facts, pair.source), eth_dst=eth_dst, src=pair.src, dst=pair.dst)
    return made.changed(**changes)


def hardware_address(facts: Facts, vm: str) -> str:
    words = facts.execute(vm, "ip", "-o", "link", "show", "eth0").split()
    return words[words.index("link/ether") + 1]


@contextlib.contextmanager
def taps(facts: Facts, pair: Pair, to: str | None = None) -> Iterator[tuple[Callable[[Answer], Watched], Tap, Tap]]:
    """Listens at both VMs; what it yields completes an answer with what passed so far."""
    with Tap(namespace(facts, pair.source)) as at_source, Tap(namespace(facts, pair.destination)) as at_destination:
        wanted = to or pair.dst
        sent: list[Seen] = []
        arrived: list[Seen] = []

        def read() -> None:
            sent.extend(p for p in at_source.read() if p.outgoing and p.dst == wanted)
            arrived.extend(p for p in at_destination.read() if not p.outgoing and (p.src, p.dst) == (pair.src, wanted))

        def complete(answer: Answer) -> Watched:
            still = 0

            def quiet() -> bool:
                # On a busy machine the last packets can be late, and would be counted in the next case.
                nonlocal still
                before = len(arrived)
                read()
                still = still + 1 if before == len(arrived) and sent else 0
                return still >= QUIET_POLLS

            eventually(quiet, "the last packets")
            return Watched(answer, sent, arrived)

        yield complete, at_source, at_destination


def diagnosed(
    facts: Facts, pair: Pair, make: Callable[[int], Sequence[bytes]], rate: float, *args: str, to: str | None = None
) -> Watched:
    """Sends bursts of frames from the source all the while the pair is diagnosed."""
    with taps(facts, pair, to) as (complete, _, _):
        with Sender(namespace(facts, pair.source), make, rate):
            answer = answers.diagnose(facts, *arguments(pair), *args)
        return complete(answer)


def arguments(pair: Pair) -> tuple[str, ...]:
    return ("--from", pair.source, "--to", pair.destination, "--ip", str(pair.ip))


def check_unchanged(found: Watched, dscp: int = 0) -> None:
    """Whoever got a packet got it with the DSCP with which it was sent."""
    assert set(Counter(p.dscp for p in (*found.sent, *found.arrived))) == {dscp}, found.text()


def ident(number: int) -> int:
    """An IP id that no packet of the next minutes has."""
    return number * 7919 & 0xFFFF


class Waiting:
    """A diagnosis that has begun to wait for packets, or to do what else its progress tells."""

    def __init__(self, facts: Facts, *args: str, until: str = "waiting") -> None:
        self._until = until
        self._since_s = time.monotonic()
        self._task: subprocess.Popen[str] = answers.start(facts, *args)

    def __enter__(self) -> Waiting:
        self.until(self._until)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._task.poll() is None:
            self._task.terminate()
            self._task.communicate()

    def until(self, word: str) -> None:
        """Until its progress says so."""
        assert self._task.stderr is not None
        said: list[str] = []
        while word not in (line := self._task.stderr.readline()):
            said.append(line)
            if not line:
                out, _ = self._task.communicate()
                raise AssertionError(f"it ended before it said {word}:\n{''.join(said)}{out}")

    def end(self) -> str:
        """Breaks it off, and waits until it has put everything back; what it said meanwhile."""
        self._task.terminate()
        return "".join(self._task.communicate(timeout=DIAGNOSE_TIMEOUT_S))

    def answer(self) -> Answer:
        return answers.finish(self._task, self._since_s)
