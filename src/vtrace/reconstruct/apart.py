"""The general way, second part: divides the records of one key among the packets that have it.

There are as many packets as first-hop records. What is left over because records between are missing goes to a packet
that it can belong to, or to none. Counts are right, though with losses which of several equal packets was lost is
inferred.
"""

from __future__ import annotations

import numpy as np

from vtrace.compiled import compiled
from vtrace.reconstruct.layout import (
    CHASSIS,
    EGRESS,
    FIRST_HOP,
    INGRESS,
    PEER,
    POINT,
    SPOT,
    Columns,
    Tables,
)
from vtrace.reconstruct.matching import (
    alike_on_the_wire,
    at,
    follows,
    is_reverse,
    is_sent,
    likeness,
    same_visit,
)
from vtrace.reconstruct.stretches import Stretches, strands

_NONE = -1


@compiled
def apart(columns: Columns, tables: Tables, rows: np.ndarray) -> tuple[np.ndarray, int, bool]:
    """Divides the records of a key.

    Args:
        rows: its records, by agent and sequence number, each once.

    Returns:
        For each of them the number of its packet, -1 if it can belong to none; how many packets there are, in the
        order of their first-hop records; and whether clocks had to tell some of them apart.
    """
    found = strands(columns, tables, rows)
    length, count = len(rows), found.counts[0]
    owner = np.full(length, _NONE, np.int32)
    heads = np.full(count, _NONE, np.int32)
    lasts = np.full(count, _NONE, np.int32)
    after = np.full(length, _NONE, np.int32)
    packets = 0
    waiting = np.empty(count, np.int32)
    for one in range(count):
        start = found.head[one]
        if not found.begun[one] and at(columns, tables, rows[start], POINT) == FIRST_HOP:
            heads[packets] = start
            lasts[packets] = _append(found, waiting, one, owner, packets, after, _NONE)
            packets += 1
    for one in range(count):
        start = found.head[one]
        if found.begun[one] or at(columns, tables, rows[start], POINT) == FIRST_HOP:
            continue
        strand = np.full(length, _NONE, np.int32)
        owned = np.zeros(length, np.int32)
        last = _append(found, waiting, one, owned, 1, strand, _NONE)
        free = np.zeros(packets, np.uint8)
        for packet in range(packets):
            free[packet] = _has_room(columns, tables, rows, heads[packet], after, start, strand)
        chosen = _chosen(columns, tables, rows, heads, lasts, after, packets, free, start)
        if chosen != _NONE:
            after[lasts[chosen]] = start
            lasts[chosen] = last
            i = start
            while i != _NONE:
                owner[i] = chosen
                after[i] = strand[i]
                i = strand[i]
    return owner, packets, found.by_clock[0] != 0


@compiled
def _append(
    found: Stretches, waiting: np.ndarray, first: int, owner: np.ndarray, packet: int, after: np.ndarray, last: int
) -> int:
    """Lists the records of a stretch and all that follow it, each once; returns the last."""
    waiting[0] = first
    ended, i = 1, 0
    while i < ended:
        one = waiting[i]
        i += 1
        record = found.head[one]
        while record != _NONE:
            owner[record] = packet
            if last != _NONE:
                after[last] = record
            last = record
            record = found.following[record]
        child = found.child[one]
        while child != _NONE:
            waiting[ended] = child
            ended += 1
            child = found.sibling[child]
    return last


@compiled
def _has_room(
    columns: Columns, tables: Tables, rows: np.ndarray, head: int, after: np.ndarray, start: int, strand: np.ndarray
) -> bool:
    """Whether a strand may be a packet's: neither has a record of a visit, or the reverse addresses, of the other's.

    What is reversed is of a packet that has the same key and no first-hop record: the answer to a datagram, say. That
    the two share no address says nothing: a load balancer with SNAT changes both.
    """
    i = start
    while i != _NONE:
        j = head
        while j != _NONE:
            if same_visit(columns, tables, rows[i], rows[j]) or is_reverse(columns, tables, rows[i], rows[j]):
                return False
            j = after[j]
        i = strand[i]
    return True


@compiled
def _chosen(
    columns: Columns,
    tables: Tables,
    rows: np.ndarray,
    heads: np.ndarray,
    lasts: np.ndarray,
    after: np.ndarray,
    packets: int,
    free: np.ndarray,
    start: int,
) -> int:
    """Which packet a strand belongs to whose beginning is missing; -1 where that can't be told.

    The only one; one that ends where the strand begins; or else any that it can belong to, if they are all alike.
    """
    first, near, nearest = _NONE, _NONE, -1
    for packet in range(packets):
        if free[packet]:
            first = packet if first == _NONE else first
            last = rows[lasts[packet]]
            if _is_near(columns, tables, last, rows[start]):
                alike = likeness(columns, tables, last, rows[start])
                if alike > nearest:
                    near, nearest = packet, alike
    if first == _NONE or packets == 1:
        return first
    if near != _NONE:
        return near
    for packet in range(first + 1, packets):
        if free[packet] and not _alike(columns, tables, rows, heads[first], heads[packet], after):
            return _NONE
    last = rows[lasts[first]]
    ended = is_sent(columns, tables, last) or at(columns, tables, last, POINT) == EGRESS
    return _NONE if ended else first


@compiled
def _is_near(columns: Columns, tables: Tables, last: int, start: int) -> bool:
    """Whether only the record of an output or an ingress is missing between a packet's last and a strand."""
    sent = is_sent(columns, tables, last)
    if at(columns, tables, start, POINT) == INGRESS:
        came_from = at(columns, tables, start, PEER) == at(columns, tables, last, CHASSIS)
        return not sent and came_from and follows(columns, tables, last, start)
    there = at(columns, tables, start, CHASSIS) == at(columns, tables, last, PEER)
    return sent and there and alike_on_the_wire(columns, tables, start, last)


@compiled
def _alike(columns: Columns, tables: Tables, rows: np.ndarray, one: int, two: int, after: np.ndarray) -> bool:
    """Whether two packets are of one five-tuple and were seen at the same places so far."""
    if likeness(columns, tables, rows[one], rows[two]) < 4:
        return False
    while one != _NONE and two != _NONE:
        if at(columns, tables, rows[one], SPOT) != at(columns, tables, rows[two], SPOT):
            return False
        one, two = after[one], after[two]
    return one == two
