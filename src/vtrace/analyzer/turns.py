"""Which pairs of a task are colored at a time, so that the copies of their packets stay within the meters.

What a meter cuts is evidence that is missing, and of many busy pairs at once it would be most. So a few pairs begin,
and others follow as fast as the copies of those before allow: many at once where nothing is sent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from vtrace.color.registry import COPY_RATE_PPS, FIRST_RATE_PPS
from vtrace.model.record import LogRecord, Point
from vtrace.model.task import Pair

# So many pairs begin at once.
FIRST_PAIRS = 8
# For so long copies are counted before others begin.
TURN_S = 0.25
# The share of what the meters allow that is used: what comes is never as even as what came.
SHARE = 0.5


class Turns:
    """The pairs that have begun, and those that wait. Times are the analyzer's own clock, in seconds.

    Attributes:
        waiting: the numbers of the pairs whose turn has not come, in the order in which it will.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        order = _one_of_each_source(pairs)
        self.waiting: list[int] = order[FIRST_PAIRS:]
        self._begun = min(len(order), FIRST_PAIRS)
        self._first: Counter[str] = Counter()
        self._all: Counter[str] = Counter()
        self._heard: set[int] = set()
        self._since_s = 0.0
        self._first_pps, self._copies_pps = FIRST_RATE_PPS, COPY_RATE_PPS

    def allow(self, first_pps: int, copies_pps: int) -> None:
        """Takes note of how many copies the meters let through in a second: of first hops, and all others."""
        self._first_pps, self._copies_pps = first_pps, copies_pps

    def start(self, now_s: float) -> None:
        """What is counted from now on is that of all pairs that have begun."""
        self._first.clear()
        self._all.clear()
        self._heard.clear()
        self._since_s = now_s

    def take(self, record: LogRecord) -> None:
        """Counts a copy."""
        if not self.waiting:
            return
        self._all[record.chassis] += 1
        if record.point == Point.FIRST_HOP:
            self._first[record.chassis] += 1
            self._heard.add(record.pair)

    def next(self, now_s: float) -> list[int]:
        """The pairs whose turn it is now; none while what they will send is not known to fit.

        After that none till they are colored (`start`).
        """
        passed_s = now_s - self._since_s
        if not self.waiting or passed_s < TURN_S:
            return []
        load = max(
            max(self._first.values(), default=0) / self._first_pps / passed_s,
            (max(self._all.values(), default=0)) / self._copies_pps / passed_s,
        )
        most = max(FIRST_PAIRS, self._begun)
        if load:
            most = min(most, int((SHARE - load) / (load / len(self._heard or (0,)))))
        chosen, self.waiting = self.waiting[: max(0, most)], self.waiting[max(0, most) :]
        self._begun += len(chosen)
        self.start(math.inf if chosen else now_s)
        return chosen


def _one_of_each_source(pairs: Sequence[Pair]) -> list[int]:
    """The pairs' numbers, the first of each source before the second of any: sources are on many servers."""
    seen: Counter[str] = Counter()
    ranked = []
    for pair in pairs:
        ranked.append((seen[pair.source.name], pair.index))
        seen[pair.source.name] += 1
    return [index for _, index in sorted(ranked)]
