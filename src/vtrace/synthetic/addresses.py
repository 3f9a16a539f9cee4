"""IP addresses as integers, and their texts.

An IPv4 address is its number. An IPv6 one has a bit that says so, one of three prefixes, two groups and a last one.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vtrace.synthetic.chance import Ints

_V6 = 1 << 62
_PREFIX_SHIFT = 48
ULA, GLOBAL, MULTICAST = 0, 1, 2


def v6(prefix: int, first: int | Ints, second: int | Ints, last: int | Ints) -> Ints:
    """IPv6 addresses: fd00:FIRST:SECOND::LAST, 2001:db8:FIRST::LAST or ff02::LAST. No group that is shown is 0."""
    fixed = np.int64(_V6 | prefix << _PREFIX_SHIFT)
    groups = np.asarray(first, np.int64) << 32 | np.asarray(second, np.int64) << 16 | np.asarray(last, np.int64)
    return np.asarray(fixed | groups)


def address_texts(addresses: Ints) -> pa.Array:
    """The texts of addresses, IPv6 as in RFC 5952."""
    is_six = (addresses & _V6) != 0
    heads, head = np.unique(np.where(is_six, addresses >> 16, addresses >> 8), return_inverse=True)
    # In IPv6 a head has bit 46; in IPv4 it has 24 bits at most.
    texts = pa.array([_head(int(value)) for value in heads], pa.string())
    tail = np.where(is_six, 256 + (addresses & 0xFFFF), addresses & 0xFF)
    return pc.binary_join_element_wise(texts.take(pa.array(head)), _tails().take(pa.array(tail)), "")


def _head(value: int) -> str:
    if not value & _V6 >> 16:
        return f"{value >> 16}.{value >> 8 & 255}.{value & 255}."
    prefix, first, second = value >> (_PREFIX_SHIFT - 16) & 3, value >> 16 & 0xFFFF, value & 0xFFFF
    return (f"fd00:{first:x}:{second:x}::", f"2001:db8:{first:x}::", "ff02::")[prefix]


@cache
def _tails() -> pa.Array:
    return pa.array([*(str(n) for n in range(256)), *(f"{n:x}" for n in range(1 << 16))])
