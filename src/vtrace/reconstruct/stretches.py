"""The general way, first part: joins records to stretches within a chassis, and stretches to strands across tunnels.

Several packets may have one key: a retransmission, an equal datagram with IP id 0, the same datagram of two pairs. So
within a chassis each record continues the stretch that it fits best, in the order of sequence numbers; between
chassis a stretch follows one that says it sent to it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vtrace.compiled import compiled
from vtrace.reconstruct.layout import (
    CHASSIS,
    EGRESS,
    FLAGS,
    GROUP,
    INGRESS,
    PEER,
    POINT,
    SOURCE,
    Columns,
    Tables,
)
from vtrace.reconstruct.matching import (
    alike_on_the_wire,
    at,
    begins,
    follows,
    is_of_flood,
    is_sent,
    is_sure,
    leads_to,
    likeness,
    same_visit,
    shares_address,
)

# How many ways to lay the pauses of two chassis on each other are tried at most.
ALIGNMENTS = 50
# Likeness of all four of addresses and ports, for sure: there is none better.
_BEST = 4 * 4 + 2
_NONE = -1
_FAR = np.int64(1 << 62)


class Stretches(NamedTuple):
    """The stretches of the records of one key, as linked lists of numbers of records within the group.

    Attributes:
        counts: how many there are (one number). head, tail: their first and last records. following: of a record, the
            next one of its stretch; -1 ends. flooded: whether a stretch may be of several copies.
        child, last_child, sibling: of a stretch, those that begin where it was sent. begun: whether one is a child.
        by_clock: whether clocks had to tell equal packets apart (one number).
    """

    counts: np.ndarray
    head: np.ndarray
    tail: np.ndarray
    following: np.ndarray
    flooded: np.ndarray
    child: np.ndarray
    last_child: np.ndarray
    sibling: np.ndarray
    begun: np.ndarray
    by_clock: np.ndarray


@compiled
def strands(columns: Columns, tables: Tables, rows: np.ndarray) -> Stretches:
    """The stretches of a group's records, each joined to those that begin where it was sent.

    Args:
        rows: the records of one key, by agent and sequence number, each once.
    """
    found = _stretches(columns, tables, rows)
    for exact in (True, False):
        _join(columns, tables, rows, found, exact)
    return found


@compiled
def _stretches(columns: Columns, tables: Tables, rows: np.ndarray) -> Stretches:
    length = len(rows)
    found = Stretches(
        np.zeros(1, np.int64),
        np.full(length, _NONE, np.int32),
        np.full(length, _NONE, np.int32),
        np.full(length, _NONE, np.int32),
        np.zeros(length, np.uint8),
        np.full(length, _NONE, np.int32),
        np.full(length, _NONE, np.int32),
        np.full(length, _NONE, np.int32),
        np.zeros(length, np.uint8),
        np.zeros(1, np.uint8),
    )
    open_here = np.empty(length, np.int32)
    opened = 0
    for i in range(length):
        if i and at(columns, tables, rows[i], SOURCE) != at(columns, tables, rows[i - 1], SOURCE):
            opened = 0
        one = _NONE
        if not begins(columns, tables, rows[i]):
            one = _continued(columns, tables, rows, found, open_here, opened, i)
        if one == _NONE:
            one = found.counts[0]
            found.counts[0] += 1
            found.head[one] = i
            open_here[opened] = one
            opened += 1
        else:
            found.following[found.tail[one]] = i
        found.tail[one] = i
        if is_of_flood(columns, tables, rows[i]):
            found.flooded[one] = 1
        ended = at(columns, tables, rows[i], POINT) == EGRESS or is_sent(columns, tables, rows[i])
        if ended and not found.flooded[one]:
            kept = 0
            for number in range(opened):
                if open_here[number] != one:
                    open_here[kept] = open_here[number]
                    kept += 1
            opened = kept
    return found


@compiled
def _continued(
    columns: Columns, tables: Tables, rows: np.ndarray, found: Stretches, open_here: np.ndarray, opened: int, i: int
) -> int:
    """The stretch that a record continues; of several that it continues equally well the youngest; -1: none."""
    best, best_rank = _NONE, -1
    for number in range(opened - 1, -1, -1):
        one = open_here[number]
        rank = _rank(columns, tables, rows, found, one, i)
        if rank > best_rank:
            best, best_rank = one, rank
            if rank == _BEST:
                break
    return best


@compiled
def _rank(columns: Columns, tables: Tables, rows: np.ndarray, found: Stretches, one: int, i: int) -> int:
    """How well a record continues a stretch: likeness, then how sure. -1: it can't, or one between is missing."""
    last, row = rows[found.tail[one]], rows[i]
    sure = 2
    if not found.flooded[one]:
        if not follows(columns, tables, last, row) or not shares_address(columns, tables, last, row):
            return -1
        sure = 1 + int(is_sure(columns, tables, last, row))
    other = found.head[one]
    while other != _NONE:
        if same_visit(columns, tables, rows[other], row):
            return -1
        other = found.following[other]
    return 4 * likeness(columns, tables, last, row) + sure


@compiled
def _join(columns: Columns, tables: Tables, rows: np.ndarray, found: Stretches, exact: bool) -> None:
    """Joins stretches that begin with an ingress to those that sent there, like packets together."""
    count = found.counts[0]
    begun_before, taken = np.zeros(count, np.uint8), np.zeros(count, np.uint8)
    for one in range(count):
        begun_before[one] = found.begun[one]
    receivers, senders = np.empty(count, np.int32), np.empty(count, np.int32)
    for first in range(count):
        start = rows[found.head[first]]
        if begun_before[first] or taken[first] or at(columns, tables, start, POINT) != INGRESS:
            continue
        alike = 0
        for one in range(first, count):
            other = rows[found.head[one]]
            if begun_before[one] or taken[one] or at(columns, tables, other, POINT) != INGRESS:
                continue
            ends = at(columns, tables, other, CHASSIS) == at(columns, tables, start, CHASSIS)
            ends = ends and at(columns, tables, other, PEER) == at(columns, tables, start, PEER)
            if ends and alike_on_the_wire(columns, tables, start, other):
                taken[one] = 1
                receivers[alike] = one
                alike += 1
        free = 0
        for one in range(count):
            leads = _leads(columns, tables, rows, found, one, start, exact)
            if leads and _is_free(columns, tables, rows, found, one, start):
                senders[free] = one
                free += 1
        _align(columns, rows, found, senders[:free], receivers[:alike])


@compiled
def _leads(
    columns: Columns, tables: Tables, rows: np.ndarray, found: Stretches, one: int, came: int, exact: bool
) -> bool:
    """Whether a record of a stretch says that it was sent where another begins."""
    i = found.head[one]
    while i != _NONE:
        if leads_to(columns, tables, rows[i], came, exact) and alike_on_the_wire(columns, tables, rows[i], came):
            return True
        i = found.following[i]
    return False


@compiled
def _is_free(columns: Columns, tables: Tables, rows: np.ndarray, found: Stretches, one: int, came: int) -> bool:
    """Whether what a stretch sent has not been found there yet: one packet, or one copy for each chassis."""
    grouped = False
    i = found.head[one]
    while i != _NONE:
        grouped = grouped or (at(columns, tables, rows[i], FLAGS) & GROUP) != 0
        i = found.following[i]
    child = found.child[one]
    if not grouped:
        return bool(child == _NONE)
    while child != _NONE:
        if at(columns, tables, rows[found.head[child]], CHASSIS) == at(columns, tables, came, CHASSIS):
            return False
        child = found.sibling[child]
    return True


@compiled
def _adopt(found: Stretches, sender: int, receiver: int) -> None:
    if found.child[sender] == _NONE:
        found.child[sender] = receiver
    else:
        found.sibling[found.last_child[sender]] = receiver
    found.last_child[sender] = receiver
    found.begun[receiver] = 1


@compiled
def _align(columns: Columns, rows: np.ndarray, found: Stretches, senders: np.ndarray, receivers: np.ndarray) -> None:
    """Which of several equal packets that were sent are those that came: in order, and where some were lost those
    between which the pauses are most alike."""
    missing = len(senders) - len(receivers)
    if missing <= 0:
        for number in range(len(senders)):
            _adopt(found, senders[number], receivers[number])
        return
    found.by_clock[0] = 1
    left_ns = np.empty(len(senders), np.int64)
    came_ns = np.empty(len(receivers), np.int64)
    for number in range(len(senders)):
        left_ns[number] = columns.mono_ns[rows[found.tail[senders[number]]]]
    for number in range(len(receivers)):
        came_ns[number] = columns.mono_ns[rows[found.head[receivers[number]]]]
    best, chosen = np.int64(_FAR), np.zeros(len(receivers), np.int64)
    tried = np.empty(len(receivers), np.int64)
    for first in range(min(missing, ALIGNMENTS) + 1):
        differs = _lay(left_ns, came_ns, first, tried)
        if differs < best:
            best = differs
            for number in range(len(receivers)):
                chosen[number] = tried[number]
    for number in range(len(receivers)):
        _adopt(found, senders[chosen[number]], receivers[number])


@compiled
def _lay(left_ns: np.ndarray, came_ns: np.ndarray, first: int, tried: np.ndarray) -> np.int64:
    """If the first that came is the one with this index: which the others are, and by how much the pauses differ."""
    tried[0] = first
    differs = np.int64(0)
    for number in range(1, len(came_ns)):
        lowest = tried[number - 1] + 1
        highest = len(left_ns) - (len(came_ns) - number)
        wanted = left_ns[tried[number - 1]] + came_ns[number] - came_ns[number - 1]
        low, high = lowest, highest + 1
        while low < high:
            middle = (low + high) // 2
            if left_ns[middle] < wanted:
                low = middle + 1
            else:
                high = middle
        index = min(max(low, lowest), highest)
        if index > lowest and abs(left_ns[index - 1] - wanted) <= abs(left_ns[index] - wanted):
            index -= 1
        differs += abs(left_ns[index] - wanted)
        tried[number] = index
    return differs
