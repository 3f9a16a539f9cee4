"""Where the kernel's way from blobs to answers spends its time: a stopwatch around the functions that it is made of.

They are replaced by ones that look at the clock first, in the process that is measured and nowhere else. What one of
them spends in another counts as the other's alone.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

# Each stage with the functions that make it up, as the modules that call them know them.
STAGES: dict[str, tuple[str, ...]] = {
    "open": ("vtrace.analyzer.stored:open_stored",),
    "decode": ("vtrace.collect.blobs:decode",),
    "prepare": ("vtrace.reconstruct.parts:prepare",),
    "kernel": ("vtrace.reconstruct.parts:reconstruct_columns",),
    "packets": ("vtrace.analyzer.working:part_of",),
    "streams": (
        "vtrace.reconstruct.streams:Streams.numbers",
        "vtrace.reconstruct.streams:Streams.mark",
        "vtrace.reconstruct.streams:Streams.widen",
    ),
    "gathering": ("vtrace.reconstruct.gathering:Gathered.add",),
    "parts": ("vtrace.analyzer.working:take_in",),
    "answers": ("vtrace.analyzer.stored:answers",),
    "answers, joining": ("vtrace.reconstruct.gathering:Gathered.rows",),
    "answers, holes": (
        "vtrace.reconstruct.answers:flag_missing",
        "vtrace.reconstruct.streams:Streams.holes",
        "vtrace.reconstruct.streams:Streams.missing",
    ),
    "answers, runs": ("vtrace.reconstruct.answers:runs",),
    "answers, contrast": ("vtrace.reconstruct.answers:differences",),
}
"""`packets` is what a part takes beside preparation and kernel; `parts` what is left of it."""


class Spent(msgspec.Struct, kw_only=True):
    """What a stage took: `wall_s` holds waiting, `cpu_s` does not."""

    calls: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0


class Stopwatch:
    """Adds up what stages take. `whole_s`: how long each took with all that it calls, added up."""

    def __init__(self) -> None:
        self.spent: dict[str, Spent] = {stage: Spent() for stage in STAGES}
        self.whole_s: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._own = threading.local()

    def around(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            inside: list[tuple[float, float]] = []
            outside = getattr(self._own, "inside", None)
            self._own.inside = inside
            wall_s, cpu_s = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.perf_counter() - wall_s, time.thread_time() - cpu_s
                self._own.inside = outside
                if outside is not None:
                    outside.append(took)
                self._add(stage, took, inside)

        return timed

    def _add(self, stage: str, took: tuple[float, float], inside: list[tuple[float, float]]) -> None:
        with self._lock:
            spent = self.spent[stage]
            spent.calls += 1
            spent.wall_s += took[0] - sum(wall_s for wall_s, _ in inside)
            spent.cpu_s += took[1] - sum(cpu_s for _, cpu_s in inside)
            self.whole_s[stage] += took[0]


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Times all stages until it ends."""
    watch = Stopwatch()
    replaced = []
    try:
        for stage, names in STAGES.items():
            for name in names:
                owner, attribute = resolve(name)
                function = getattr(owner, attribute)
                replaced.append((owner, attribute, function))
                setattr(owner, attribute, watch.around(stage, function))
        yield watch
    finally:
        for owner, attribute, function in replaced:
            setattr(owner, attribute, function)


def resolve(name: str) -> tuple[Any, str]:
    """The module or class that has "MODULE:[CLASS.]FUNCTION", and the function's name."""
    module, _, path = name.partition(":")
    *classes, attribute = path.split(".")
    owner: Any = importlib.import_module(module)
    for one in classes:
        owner = getattr(owner, one)
    return owner, attribute
