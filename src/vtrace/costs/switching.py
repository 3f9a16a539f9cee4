"""What is put on in the slices B and taken off in the slices A: nothing, tasks of our own code, or the program.

Each way tells, from the bridges, that it is on or off before a slice begins.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO, Protocol

import msgspec

from vtrace.costs import children, readings
from vtrace.costs.setting import Setting
from vtrace.costs.tasks import Order, Stage, State, Task
from vtrace.errors import CannotWorkError

PROGRAM = (sys.executable, "-m", "vtrace.present.cli.main")
SWITCH_TIMEOUT_S = 60.0
_POLL_S = 0.05
_PACKETS = "100000"


class Switch(Protocol):
    """Puts something on all bridges, and takes it off again; both have been done when they return."""

    def on(self) -> None: ...

    def off(self) -> None: ...

    def pid(self) -> int | None:
        """The process that holds it, while it is on."""

    def told(self) -> State | None:
        """What the process said last, where it says something."""


class Nothing:
    """Puts nothing on: what this finds is noise."""

    def on(self) -> None:
        return

    def off(self) -> None:
        return

    def pid(self) -> int | None:
        return None

    def told(self) -> State | None:
        return None


class Agents:
    """Agents, and tasks on them, by `costs.tasks` in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._told: State | None = None

    def on(self) -> None:
        self._say("on")

    def off(self) -> None:
        self._say("off")

    def pid(self) -> int:
        return self._process.pid

    def told(self) -> State | None:
        return self._told

    def tell(self) -> State:
        """How it is now, while it is on."""
        return self._say("tell")

    def _say(self, word: str) -> State:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        line = children.read_line(self._process, f"The tasks could not be put {word}", SWITCH_TIMEOUT_S)
        self._told = msgspec.json.decode(line, type=State)
        return self._told


class Diagnose:
    """The whole program: `vtrace diagnose` of a pair, ended as by Ctrl-C."""

    def __init__(self, found: Setting, task: Task, errors: IO[bytes]) -> None:
        self._setting = found
        ends = ("--from", ",".join(task.sources), "--to", ",".join(task.destinations))
        words = ("--proto", "udp", "--dport", str(task.dport), "--packets", _PACKETS, "--timeout", "600", "--json")
        self._words = [*PROGRAM, "diagnose", "--lab", found.state.name, *ends, *words]
        self._errors = errors
        self._process: subprocess.Popen[bytes] | None = None

    def on(self) -> None:
        self._process = subprocess.Popen(
            self._words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors
        )
        _until(lambda: readings.ours(self._setting.state, self._setting.source).colored > 0, self._why)

    def off(self) -> None:
        if self._process is not None:
            children.end(self._process, signal.SIGINT)
            self._process = None

    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def told(self) -> State | None:
        return None

    def _why(self) -> str:
        self._errors.seek(0)
        said = self._errors.read()[-1000:].decode("utf-8", "replace")
        if self._process is not None and self._process.poll() is not None:
            raise CannotWorkError("The task ended by itself", "vtrace diagnose", said, "")
        return said


@contextlib.contextmanager
def agents(found: Setting, stage: Stage, tasks: tuple[Task, ...]) -> Iterator[Agents]:
    """`Agents` in a process of its own, on the cores that do not forward."""
    order = msgspec.json.encode(Order(lab=found.state.name, tasks=tasks, stage=stage)).decode()
    process = subprocess.Popen(
        [sys.executable, "-m", "vtrace.costs.tasks", order],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        children.read_line(process, "The tasks could not be planned", SWITCH_TIMEOUT_S)
        yield Agents(process)
    finally:
        children.end_of_input(process)


@contextlib.contextmanager
def diagnose(found: Setting, task: Task) -> Iterator[Switch]:
    """`Diagnose`, off at the end."""
    with tempfile.TemporaryFile() as errors:
        switch = Diagnose(found, task, errors)
        try:
            yield switch
        finally:
            switch.off()


def _until(holds: Callable[[], bool], seen: Callable[[], str]) -> None:
    ends_s = time.monotonic() + SWITCH_TIMEOUT_S
    while not holds():
        said = seen()
        if time.monotonic() > ends_s:
            raise CannotWorkError("The task does not color", "vtrace diagnose", said, "")
        time.sleep(_POLL_S)
