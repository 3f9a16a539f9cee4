"""Bits of the packet mark that cached flows do not match yet (`color.refresh`)."""

from __future__ import annotations

import secrets

_MARK_BITS = 32
_BITS = 3


def fresh_bits(last: int = 0) -> int:
    """Some bits of the mark, at random, and none of `last`: cached flows have those of the tasks before, if any."""
    free = [bit for bit in range(_MARK_BITS) if not last >> bit & 1]
    return sum(1 << bit for bit in secrets.SystemRandom().sample(free, _BITS))
