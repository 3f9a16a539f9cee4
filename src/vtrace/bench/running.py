"""Runs fault cases live in several labs side by side, each one case after the other; can be resumed from its file."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import queue
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import msgspec

from vtrace.bench import topologies
from vtrace.bench.drawing import Case, batches
from vtrace.bench.fault import Fault, Right
from vtrace.bench.figures import commit
from vtrace.bench.filling import Filled, Ready, fill, first_line
from vtrace.bench.injecting import VoidError, injected
from vtrace.bench.judging import Expected, Judgement, expected, judge
from vtrace.errors import CannotWorkError, UsageError
from vtrace.lab import state as lab_state
from vtrace.lab.programs import ProgramError, run_on
from vtrace.lab.state import LabState

PROGRAM = (sys.executable, "-m", "vtrace.present.cli.main")
LAB_UP_S = 90
DIAGNOSE_S = 20
DEAD_TCP_PACKETS = 6
ATTEMPTS = 2
"""A case whose fault did not come about is tried once more."""

Progress = Callable[[str], None]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A case that was run: a line of the results.

    Attributes:
        void: why it says nothing; then there is no answer.
        inject: the commands that were run, as a shell takes them.
        took_s: from the start of the diagnosing process to its end.
        passed: packets of each flow that were sent and that arrived meanwhile, as captured.
    """

    case: Case
    codes: tuple[str, ...] = ()
    way: tuple[str, ...] = ()
    ip: int = 0
    proto: str = ""
    size_bytes: int = 0
    rate_pps: int = 0
    packets: int = 0
    inject: tuple[str, ...] = ()
    command: str = ""
    right: Expected | None = None
    judgement: Judgement | None = None
    took_s: float = 0.0
    passed: tuple[tuple[int, int], ...] = ()
    void: str = ""
    commit: str = ""
    answer: dict[str, Any] | None = None


class Results:
    """The file of outcomes, one JSON document a line; one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[int, Outcome] = {}
        self._turn = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CannotWorkError(
                "another run writes these results", str(path), "", "wait for it, or name another file"
            ) from error
        self._file.seek(0)
        for line in self._file:
            # A run that was killed may have left half a line: that case is run again.
            with contextlib.suppress(msgspec.DecodeError):
                outcome = msgspec.json.decode(line, type=Outcome)
                if outcome.right is not None and outcome.answer is not None:
                    outcome = msgspec.structs.replace(outcome, judgement=judge(outcome.right, outcome.answer))
                self.done[outcome.case.number] = outcome

    def add(self, outcome: Outcome) -> None:
        with self._turn:
            self.done[outcome.case.number] = outcome
            self._file.write(msgspec.json.encode(outcome).decode() + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()


class Run:
    """All cases of a benchmark on `lanes` labs at a time."""

    def __init__(
        self, faults: Sequence[Fault], cases: Sequence[Case], results: Results, lanes: int, tell: Progress
    ) -> None:
        self._known = {fault.name: fault for fault in faults}
        self._cases = cases
        self._results = results
        self._lanes = lanes
        self._tell = tell
        self._stopping = threading.Event()
        self._commit = commit()
        self._failed: list[BaseException] = []
        digest = hashlib.sha256(str(results.path.resolve()).encode()).hexdigest()[:4]
        self._labs = [f"bf{digest}{lane}" for lane in range(lanes)]

    def run(self) -> None:
        """Runs what is not in the results yet. Ctrl-C ends it after the cases under way."""
        done = self._results.done
        # A case whose fault has another draw by now is another case.
        waiting: queue.SimpleQueue[list[Case]] = queue.SimpleQueue()
        for batch in batches(self._cases):
            left = [case for case in batch if case.number not in done or done[case.number].case != case]
            if left:
                waiting.put(left)
        for lab in self._labs:
            _vtrace("lab", "down", "--lab", lab)
        ended = [threading.Event() for _ in self._labs]
        for lab, event in zip(self._labs, ended, strict=True):
            threading.Thread(target=self._lane, args=(lab, waiting, event), name=lab).start()
        while not all(event.is_set() for event in ended):
            try:
                # Not Thread.join: one that is interrupted takes the thread for ended (Python 3.11).
                for event in ended:
                    event.wait()
            except KeyboardInterrupt:
                # Again and again, if need be: what was injected is taken back, and the labs go down.
                self._tell("stopping after the cases under way")
                self._stopping.set()
        if self._failed:
            raise self._failed[0]

    def _lane(self, lab: str, waiting: queue.SimpleQueue[list[Case]], ended: threading.Event) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    batch = waiting.get_nowait()
                except queue.Empty:
                    return
                self._batch(lab, batch)
        except BaseException as error:  # noqa: BLE001 (handed to the caller of run)
            self._failed.append(error)
            self._stopping.set()
        finally:
            ended.set()

    def _batch(self, lab: str, batch: Sequence[Case]) -> None:
        left = list(batch)
        while left:
            with _standing(lab, batch[0]) as (state, rename):
                while left:
                    if self._stopping.is_set():
                        return
                    outcome = self._attempts(left.pop(0), state, rename)
                    self._results.add(outcome)
                    self._tell(told(outcome, self._results.done.values()))
                    if outcome.void:
                        # The lab may no longer be what it was: the next case gets a new one.
                        break

    def _attempts(self, case: Case, state: LabState, rename: topologies.Rename | None) -> Outcome:
        outcome = Outcome(case=case)
        for _ in range(ATTEMPTS):
            outcome = self._case(case, state, rename)
            if not outcome.void:
                break
        return outcome

    def _case(self, case: Case, state: LabState, rename: topologies.Rename | None) -> Outcome:
        try:
            ready = fill(case, self._known, state, rename)
        except (UsageError, ProgramError) as error:
            return Outcome(case=case, void=str(error))
        outcome = Outcome(
            case=case,
            codes=tuple(filled.fault.code for filled in ready.faults),
            way=tuple(flow.way.name for flow in ready.flows),
            ip=ready.flows[0].ip,
            proto=ready.flows[0].proto,
            size_bytes=ready.size_bytes,
            rate_pps=ready.rate_pps,
            packets=ready.packets,
            inject=tuple(f"on {c.on}: {shlex.join(c.run)}" for f in ready.faults for c in _injected(case, f)),
            commit=self._commit,
        )
        early = [_uuid(state, f, before=True) for f in ready.faults]
        try:
            with injected(state, ready) as (injector, capture):
                late = [_uuid(state, f, before=False) for f in ready.faults]
                right = expected(_rights(ready, [one or other for one, other in zip(early, late, strict=True)]))
                words = arguments(ready)
                capture.forget()
                began = time.monotonic()
                answer = _diagnose(state.name, words)
                took_s = time.monotonic() - began
                passed = injector.check(capture)
        except (VoidError, ProgramError) as error:
            return msgspec.structs.replace(outcome, void=str(error))
        return msgspec.structs.replace(
            outcome,
            command=shlex.join(("vtrace", "diagnose", *words)),
            right=right,
            judgement=judge(right, answer),
            took_s=round(took_s, 3),
            passed=tuple(passed),
            answer=answer,
        )


def told(outcome: Outcome, done: Any) -> str:
    """A line about a case, and how it goes so far."""
    judged = [o.judgement for o in done if o.judgement is not None]
    rate = sum(j.all_three for j in judged) / len(judged) if judged else 0.0
    what = " + ".join(outcome.case.faults) or "nothing"
    head = f"{len(judged)} ({rate:.1%} right): case {outcome.case.number}, {outcome.case.mode}: {what}"
    head += f" [{outcome.case.kind}, {' '.join(outcome.way)}, {outcome.proto}{outcome.ip}]"
    if outcome.void:
        return f"{head}: void: {outcome.void}"
    assert outcome.judgement is not None
    if outcome.judgement.all_three:
        return f"{head}: right, {outcome.took_s:.1f} s"
    wrong = [name for name in ("loss", "where", "why") if not getattr(outcome.judgement, name)]
    return f"{head}: WRONG {' '.join(wrong)}: {', '.join(outcome.judgement.given) or 'no verdict'}"


def arguments(ready: Ready) -> list[str]:
    """What an operator types after `vtrace diagnose`."""
    first = ready.flows[0]
    six = first.ip == 6
    ends = list(dict.fromkeys(flow.way.asked[six][1] for flow in ready.flows))
    words = ["--from", first.way.asked[six][0], "--to", ",".join(ends), "--ip", str(first.ip)]
    words += ["--proto", first.proto, "--direction", first.way.direction]
    if first.proto != "icmp":
        words += ["--dport", str(first.port)]
    lost = ready.case.mode != "near-miss" and any(f.fault.effect == "all lost" for f in ready.faults)
    packets = DEAD_TCP_PACKETS if first.proto == "tcp" and lost else ready.packets
    return [*words, "--packets", str(packets), "--timeout", str(DIAGNOSE_S)]


def _injected(case: Case, filled: Filled) -> Sequence[Any]:
    return filled.near if case.mode == "near-miss" else filled.inject


def _rights(ready: Ready, uuids: Sequence[str]) -> list[tuple[Right, str, str]]:
    """What has to be said; where nothing acts, that all packets arrive."""
    if ready.case.mode in ("near-miss", "healthy"):
        way = ready.flows[0].way
        last = way.places[-1]
        healthy = Right(
            kind=way.arrival,
            loss="no",
            server=last.server,
            vfd=last.vfd,
            vfd_kind=last.vfd_kind,
            direction=way.direction,
        )
        return [(healthy, "", "")]
    return [(f.right, f.fault.code, uuid) for f, uuid in zip(ready.faults, uuids, strict=True)]


def _uuid(state: LabState, filled: Filled, *, before: bool) -> str:
    row = filled.right.row
    if row is None or row.before is not before:
        return ""
    words = [f"ovn-{row.database}ctl", "--bare", "--columns=_uuid", "find", row.table, row.find]
    return first_line(run_on(state, "central", words))


@contextlib.contextmanager
def _standing(lab: str, case: Case) -> Iterator[tuple[LabState, topologies.Rename | None]]:
    """The lab of a case's batch."""
    rng = case.lab_rng
    rename = None if case.kind == "vpc" else topologies.renaming(rng)
    text = topologies.vpcs(rng) if rename is None else topologies.shipped(case.kind, rename)
    with tempfile.NamedTemporaryFile("w", suffix=".toml", prefix="vtrace-bench-") as file:
        file.write(text)
        file.flush()
        up = _vtrace("lab", "up", file.name, "--lab", lab)
    try:
        if up.returncode:
            raise CannotWorkError("a lab did not come up", lab, up.stderr.strip()[-400:])
        yield lab_state.require(lab), rename
    finally:
        _vtrace("lab", "down", "--lab", lab)


def _diagnose(lab: str, words: Sequence[str]) -> dict[str, Any]:
    done = _vtrace("diagnose", "--lab", lab, "--json", *words)
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        document = {"error": {"what": "no document", "why": done.stderr[-2000:]}}
    document["exit_code"] = done.returncode
    return document


def _vtrace(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=LAB_UP_S,
        check=False,
        # Ctrl-C is for us: a lab that is being built or taken down is not broken off.
        start_new_session=True,
    )
