"""Which color a task takes: one that nobody has, and that no cached flow acts on by what it was made for before.

Open vSwitch's userspace datapath may leave such flows behind (docs/adr/0019).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

from vtrace.collect.link import ColorsBefore
from vtrace.color.registry import POOL_2
from vtrace.errors import CannotWorkError

# A packet that had a color so long after a task had it is somebody else's.
AFTER_S = 0.5


def sent_by_others(before: Iterable[ColorsBefore]) -> set[int]:
    """The colors that cached flows match for packets that came after any task had the color, as far as is known."""
    return {
        color
        for b in before
        for color, idle_s in b.cached_s.items()
        if idle_s + AFTER_S < b.ages_s.get(color, math.inf)
    }


def longest_unused(free: Sequence[int], before: Collection[ColorsBefore]) -> int:
    """The first color that no task had lately, else the one that was longest unused; last those of cached flows.

    These may not act by this task's entries (docs/adr/0019).
    """

    def rank(color: int) -> tuple[bool, float]:
        age_s = min((b.ages_s[color] for b in before if color in b.ages_s), default=math.inf)
        return all(color not in b.cached_s for b in before), age_s

    return max(free, key=rank)


def all_in_use(chassis: Sequence[str], held: Collection[int], sent: Collection[int]) -> CannotWorkError:
    """What there is to say where no color is left.

    Args:
        held: colors of other tasks; sent: those that somebody else's packets have.
    """
    why = []
    if held or not sent:
        why.append(f"{len(POOL_2)} tasks at once are the limit where they share a server")
    if sent:
        numbers = ", ".join(map(str, sorted(sent)))
        why.append(f"tenants send packets with DSCP {numbers} themselves, or somebody did in the last ten seconds")
    return CannotWorkError(
        "Every color is in use",
        ", ".join(chassis),
        "; ".join(why),
        "Try again later" if sent else "Wait until another task has ended",
    )
