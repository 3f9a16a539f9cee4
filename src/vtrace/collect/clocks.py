"""Clocks of records in parts that take little room: what all records of a place share, all of a packet, and the rest.

Each chassis's monotonic clock begins when it likes, and a packet is on its way for milliseconds. So the clock of a
record is its chassis's clock at some moment, how much later the packet was sent, and how long it was on its way by
then: the first belongs to the record's place, the second to its packet, and only the third, a small one, to itself.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np

# No clock is farther from 0, and no part of one. Three parts add up within 64 bits; so do differences of clocks, and
# some times as much, with which it is reckoned how late records can be.
MOST_NS = 1 << 58


class Clocks(NamedTuple):
    """Parts that add up to each record's clock, in nanoseconds: of each place, of each packet, of each record."""

    place: np.ndarray
    packet: np.ndarray
    record: np.ndarray


def in_parts(clock_ns: np.ndarray, chassis: np.ndarray, place: np.ndarray, packet: np.ndarray) -> Clocks:
    """Takes clocks apart.

    Args:
        clock_ns: of each record, no farther from 0 than `MOST_NS`.
        chassis: a number for each place's; place, packet: of each record, numbered from 0 without gaps.
    """
    places, packets = len(chassis), int(packet.max(initial=-1)) + 1
    whole = Clocks(np.zeros(places, np.int64), np.zeros(packets, np.int64), clock_ns)
    if not len(clock_ns):
        return whole
    _, first = np.unique(packet, return_index=True)
    own = chassis[place]
    begun = _begun(clock_ns, own, own[first][packet], first[packet])
    sent = clock_ns[first] - begun[own[first]]
    parts = Clocks(begun[chassis], sent, clock_ns - begun[own] - sent[packet])
    small = all(len(part) == 0 or -MOST_NS <= part.min() <= part.max() <= MOST_NS for part in parts)
    return parts if small else whole


def _begun(clock_ns: np.ndarray, own: np.ndarray, first_chassis: np.ndarray, first: np.ndarray) -> np.ndarray:
    """What each chassis's clock was at one moment, as near as packets that were seen on two of them tell.

    Args:
        own, first_chassis: of each record its chassis and that of the first record of its packet, which is row `first`.
    """
    many = int(own.max()) + 1
    codes, rows = np.unique(first_chassis * many + own, return_index=True)
    ahead: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for code, by_ns in zip(codes.tolist(), (clock_ns[rows] - clock_ns[first[rows]]).tolist(), strict=True):
        one, other = divmod(code, many)
        ahead[one].append((other, by_ns))
        ahead[other].append((one, -by_ns))
    found: dict[int, int] = {}
    for one, row in zip(*(values.tolist() for values in np.unique(own, return_index=True)), strict=True):
        waiting = [] if one in found else [one]
        found.setdefault(one, int(clock_ns[row]))
        while waiting:
            here = waiting.pop()
            for other, by_ns in ahead[here]:
                if other not in found:
                    found[other] = found[here] + by_ns
                    waiting.append(other)
    begun = np.zeros(many, np.int64)
    for one, at_ns in found.items():
        # Clocks that can't be go round, as they do in numpy; what comes of it is out of bounds.
        begun[one] = (at_ns + (1 << 63)) % (1 << 64) - (1 << 63)
    return begun
