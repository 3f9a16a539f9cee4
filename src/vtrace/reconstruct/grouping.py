"""Groups records by packet key: a hash table over (key, color and epoch), then a counting sort. Order is kept.

Where a row of the table of packets is of one color and epoch, as in all blobs, rows are looked up instead of records.
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
        The rows, those of a group in the order of the input; and where each group begins, with the end of the last.
    """
    rows = len(columns.place)
    number = np.empty(rows, np.int32)
    uses = np.full(len(tables.keys), -1, np.int32)
    if _note_uses(columns, tables, uses):
        sizes = _number(columns.packet, tables.keys, uses, number)
    else:
        # Each record as a row of its own.
        own = np.arange(rows).astype(np.int32)
        keys, uses = np.empty(rows, np.int64), np.empty(rows, np.int32)
        for row in range(rows):
            keys[row], uses[row] = tables.keys[columns.packet[row]], tables.places[columns.place[row], USE]
        sizes = _number(own, keys, uses, number)
    starts = np.zeros(len(sizes) + 1, np.int64)
    for one in range(len(sizes)):
        starts[one + 1] = starts[one] + sizes[one]
        sizes[one] = starts[one]
    order = np.empty(rows, np.int32)
    for row in range(rows):
        one = number[row]
        order[sizes[one]] = row
        sizes[one] += 1
    return order, starts


@compiled
def _note_uses(columns: Columns, tables: Tables, uses: np.ndarray) -> bool:
    """Notes the color and epoch of each row of the table of packets; whether all its records are of that one."""
    place, packet, places = columns.place, columns.packet, tables.places
    for row in range(len(place)):
        one, use = packet[row], places[place[row], USE]
        if uses[one] < 0:
            uses[one] = use
        elif uses[one] != use:
            return False
    return True


@compiled
def _number(packet: np.ndarray, keys: np.ndarray, uses: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Numbers the group of each record by looking up each row of the table of packets; how large each group is.

    Args:
        uses: of each row its color and epoch; -1 where no record points to it: such a row has no group.
    """
    bits = 4
    while 1 << bits < 2 * len(keys):
        bits += 1
    shift, mask = np.uint64(64 - bits), (1 << bits) - 1
    slots = np.full(1 << bits, -1, np.int32)
    own = np.empty(len(keys), np.int32)
    groups = 0
    for one in range(len(keys)):
        if uses[one] < 0:
            continue
        key, use = keys[one], uses[one]
        at = np.int64((np.uint64(key) + np.uint64(use) * _MIX) * _SPREAD >> shift)
        found = slots[at]
        # A slot holds the first row of a group.
        while found >= 0 and (keys[found] != key or uses[found] != use):
            at = (at + 1) & mask
            found = slots[at]
        if found < 0:
            slots[at] = one
            own[one] = groups
            groups += 1
        else:
            own[one] = own[found]
    sizes = np.zeros(groups, np.int32)
    for row in range(len(packet)):
        found = own[packet[row]]
        number[row] = found
        sizes[found] += 1
    return sizes


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
