"""The DSCP values that colors are taken of, and which cases of a test are run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from faults.matrix import seed
from faults.running import is_soak

POOL_2 = tuple(range(3, 64, 4))
"""DSCPs xxxx11 (RFC 2474)."""
Case = TypeVar("Case")


def drawn(cases: Sequence[Case], count: int, turn: int = 0) -> list[Case]:
    """So many of the cases in a row, other ones with each commit; all in `make soak`.

    Args:
        turn: another one for each test, so that one commit does not draw the same of all.
    """
    if is_soak():
        return list(cases)
    first = seed() + turn
    return [cases[(first + number) % len(cases)] for number in range(count)]
