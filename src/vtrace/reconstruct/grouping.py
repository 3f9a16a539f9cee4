"""Groups records by packet key: a hash table over (key, color and epoch), then a counting sort. Order is kept.

Only the first record of each row of the table of packets is looked up; the others of that row go where it went.
"""

from __future__ import annotations

import numpy as np

from vtrace.compiled import compiled, inlined
from vtrace.reconstruct.layout import SOURCE, USE, Columns, Tables

# An odd constant near 2^64 over the golden ratio spreads keys over the table, whichever bits of them are alike.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)


@compiled
def group(columns: Columns, tables: Tables) -> tuple[np.ndarray, np.ndarray]:
    """Rows of records, those of one key together.

    Returns:
        The rows, groups in the order of their first records and each in the order of the input; and where each group
        begins, with the end of the last.
    """
    place, packet, places, all_keys = columns.place, columns.packet, tables.places, tables.keys
    rows = len(place)
    # Of each row of the table of packets the group and the use of its latest record.
    of_packet, its_use = np.full(len(all_keys), -1, np.int32), np.empty(len(all_keys), np.int32)
    most = _most_groups(place, places, len(all_keys))
    bits = 4
    while 1 << bits < 2 * most:
        bits += 1
    shift = np.uint64(64 - bits)
    mask = (1 << bits) - 1
    slots = np.full(1 << bits, -1, np.int32)
    keys = np.empty(1 << bits - 1, np.int64)
    uses = np.empty(1 << bits - 1, np.int32)
    sizes = np.zeros((1 << bits - 1) + 1, np.int64)
    number = np.empty(rows, np.int32)
    groups = 0
    for row in range(rows):
        one, use = packet[row], places[place[row], USE]
        found = of_packet[one]
        if found < 0 or its_use[one] != use:
            own = all_keys[one]
            hashed = (np.uint64(own) + np.uint64(use) * _MIX) * _SPREAD
            at = np.int64(hashed >> shift)
            found = slots[at]
            while found >= 0 and (keys[found] != own or uses[found] != use):
                at = (at + 1) & mask
                found = slots[at]
            if found < 0:
                found = np.int32(groups)
                slots[at] = found
                keys[found] = own
                uses[found] = use
                groups += 1
            of_packet[one], its_use[one] = found, use
        number[row] = found
        sizes[found] += 1
    starts = np.zeros(groups + 1, np.int64)
    for one in range(groups):
        starts[one + 1] = starts[one] + sizes[one]
        sizes[one] = starts[one]
    order = np.empty(rows, np.int32)
    for row in range(rows):
        one = number[row]
        order[sizes[one]] = row
        sizes[one] += 1
    return order, starts


@compiled
def _most_groups(place: np.ndarray, places: np.ndarray, packets: int) -> int:
    """How many groups there can be: packets, if all are of one use, as those of a blob are; else records."""
    first = places[place[0], USE] if len(place) else 0
    for row in range(len(place)):
        if places[place[row], USE] != first:
            return len(place)
    return packets


@compiled
def sort_unique(columns: Columns, tables: Tables, rows: np.ndarray) -> int:
    """Sorts the records of one group by agent and sequence number, in place, and leaves each once.

    Returns:
        How many are left, at the beginning of `rows`.
    """
    place, seq, places = columns.place, columns.seq, tables.places
    length = len(rows)
    for top in range(length // 2 - 1, -1, -1):
        _sink(place, seq, places, rows, top, length)
    for end in range(length - 1, 0, -1):
        rows[0], rows[end] = rows[end], rows[0]
        _sink(place, seq, places, rows, 0, end)
    left = 0
    for i in range(length):
        if left == 0 or _is_before(place, seq, places, rows[left - 1], rows[i]):
            rows[left] = rows[i]
            left += 1
    return left


@compiled
def _sink(place: np.ndarray, seq: np.ndarray, places: np.ndarray, rows: np.ndarray, top: int, end: int) -> None:
    """Makes a heap of the rows below `top` whole again (heapsort: no group is so large that it takes long)."""
    row = rows[top]
    while True:
        child = 2 * top + 1
        if child + 1 < end and _is_before(place, seq, places, rows[child], rows[child + 1]):
            child += 1
        if child >= end or not _is_before(place, seq, places, row, rows[child]):
            break
        rows[top] = rows[child]
        top = child
    rows[top] = row


@inlined
def _is_before(place: np.ndarray, seq: np.ndarray, places: np.ndarray, one: int, two: int) -> bool:
    a, b = places[place[one], SOURCE], places[place[two], SOURCE]
    return a < b or (a == b and seq[one] < seq[two])
