"""Shapes of packets: what decides the order of records, kept for the next packet that has the same.

Which way a packet went through the tables of places and headers, and which of its records have other ports than the
first: equal in all that, two packets are put in the same order and take the same path. Most packets of a
task have one of a few shapes, so their order is looked up, and no rule is asked again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vtrace.compiled import compiled, inlined

# Longer packets are few, and each look-up costs.
LONGEST = 16
_BITS = 11
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(64 - _BITS)


class Shapes(NamedTuple):
    """A table of shapes, each in the one slot that its hash names; a newer one takes an older one's.

    Attributes:
        number: of the shape in a slot; length: of its packets, 0 where a slot is free.
        place, header, ports: of each record, as it came; ports 0: those of the first record.
        way: which of the records is each hop, and behind the hops those that are none; hops: how many hops there are.
        gap: whether some are missing between.
        counts: how many shapes were given a number (one number).
    """

    number: np.ndarray
    length: np.ndarray
    place: np.ndarray
    header: np.ndarray
    ports: np.ndarray
    way: np.ndarray
    hops: np.ndarray
    gap: np.ndarray
    counts: np.ndarray


@compiled
def no_shapes() -> Shapes:
    """An empty table."""
    slots = 1 << _BITS
    return Shapes(
        np.zeros(slots, np.int32),
        np.zeros(slots, np.int32),
        np.zeros((slots, LONGEST), np.int32),
        np.zeros((slots, LONGEST), np.int32),
        np.zeros((slots, LONGEST), np.int64),
        np.zeros((slots, LONGEST), np.uint8),
        np.zeros(slots, np.uint8),
        np.zeros(slots, np.uint8),
        np.zeros(1, np.int32),
    )


@inlined
def slot_of(
    header: np.ndarray,
    packet: np.ndarray,
    all_ports: np.ndarray,
    rows: np.ndarray,
    own: np.ndarray,
    length: int,
    ports: np.ndarray,
) -> int:
    """The slot of a packet's shape. `ports` takes what its records have there."""
    first = packet[rows[0]]
    first_ports = all_ports[first]
    hashed = np.uint64(length)
    for i in range(length):
        row = rows[i]
        told = np.int64(0)
        if packet[row] != first:
            others = all_ports[packet[row]]
            told = np.int64(0) if others == first_ports else others + 1
        ports[i] = told
        mixed = np.uint64(own[i]) << np.uint64(32) | np.uint64(header[row])
        hashed = (hashed ^ mixed ^ (np.uint64(told) << np.uint64(20))) * _FACTOR
        hashed ^= hashed >> np.uint64(31)
    return int(np.int64(hashed * _FACTOR >> _SHIFT))


@inlined
def is_in(
    slot: int,
    lengths: np.ndarray,
    places: np.ndarray,
    headers: np.ndarray,
    of_ports: np.ndarray,
    header: np.ndarray,
    rows: np.ndarray,
    own: np.ndarray,
    ports: np.ndarray,
    length: int,
) -> bool:
    """Whether a slot holds just this shape."""
    same = lengths[slot] == length
    if same:
        for i in range(length):
            same = same and places[slot, i] == own[i] and headers[slot, i] == header[rows[i]]
            same = same and of_ports[slot, i] == ports[i]
    return same
