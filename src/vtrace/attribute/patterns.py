"""Persistent, transient or unclear: what the order of lost and delivered packets says (docs/answer.md)."""

from __future__ import annotations

from collections.abc import Sequence

TRANSIENT_AFTER = 20


def pattern(lost: Sequence[bool], *, stands: bool) -> str | None:
    """The pattern of one pair and direction.

    Args:
        lost: for each packet in first-hop order, whether it was lost; packets with evidence missing left out.
        stands: whether the cause still stands when the task ends.

    Returns:
        None where nothing was lost.
    """
    if not any(lost):
        return None
    if stands or all(lost) or runs(lost) >= 2:
        return "persistent"
    last = max(number for number, was_lost in enumerate(lost) if was_lost)
    return "transient" if len(lost) - 1 - last >= TRANSIENT_AFTER else "unclear"


def runs(lost: Sequence[bool]) -> int:
    """How many separate runs of lost packets there are."""
    return sum(1 for number, was_lost in enumerate(lost) if was_lost and (number == 0 or not lost[number - 1]))
