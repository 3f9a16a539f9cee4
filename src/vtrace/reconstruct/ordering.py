"""The general way, third part: orders the records of one packet by what they say of where it came from and went.

Of a packet that was copied to several ports (broadcast, multicast) only the hops of one copy are shown: that for the
goal, or else the one that came furthest.
"""

from __future__ import annotations

import numpy as np

from vtrace.compiled import compiled
from vtrace.reconstruct.layout import (
    CHASSIS,
    DATAPATH,
    EGRESS,
    FIRST_HOP,
    FLAGS,
    GROUP,
    INGRESS,
    LOGICAL_EGRESS,
    OUT_KEY,
    PEER,
    POINT,
    REMOTE_OUTPUT,
    SOURCE,
    Columns,
    Tables,
)
from vtrace.reconstruct.matching import at, begins, goes_on, is_of_flood, is_sent, leads_to, ttl

_NONE = -1


@compiled
def ordered(columns: Columns, tables: Tables, rows: np.ndarray, pair: int, hops: np.ndarray) -> tuple[int, bool]:
    """Orders the records of a packet, first hop first.

    Args:
        rows: its records, by agent and sequence number, that of its first hop among them.
        pair: row of the table of goals.
        hops: takes the rows, in path order.

    Returns:
        How many hops there are, and whether some between them are missing.
    """
    for number in range(len(rows)):
        if is_of_flood(columns, tables, rows[number]):
            return _of_flood(columns, tables, rows, pair, hops)
    starts = np.empty(len(rows) + 1, np.int32)
    stretches = 0
    for number in range(len(rows)):
        same = number > 0 and at(columns, tables, rows[number], SOURCE) == at(columns, tables, rows[number - 1], SOURCE)
        if not same or begins(columns, tables, rows[number]) or is_sent(columns, tables, rows[number - 1]):
            starts[stretches] = number
            stretches += 1
    starts[stretches] = len(rows)
    used = np.zeros(stretches, np.uint8)
    current, filled = 0, 0
    for one in range(stretches):
        if at(columns, tables, rows[starts[one]], POINT) == FIRST_HOP:
            current = one
            break
    while current != _NONE:
        used[current] = 1
        for number in range(starts[current], starts[current + 1]):
            hops[filled] = rows[number]
            filled += 1
        current = _next(columns, tables, rows, starts, used, hops[:filled])
        if current == _NONE and filled < len(rows):
            current = _first_of_rest(columns, tables, rows, starts, used)
    gap = False
    for number in range(1, filled):
        gap = gap or not goes_on(columns, tables, hops[number - 1], hops[number])
    return filled, gap


@compiled
def _next(
    columns: Columns, tables: Tables, rows: np.ndarray, starts: np.ndarray, used: np.ndarray, hops: np.ndarray
) -> int:
    """The stretch that begins where the last tunnel output went."""
    for exact in (True, False):
        for number in range(len(hops) - 1, -1, -1):
            if at(columns, tables, hops[number], POINT) != REMOTE_OUTPUT:
                continue
            for one in range(len(used)):
                if not used[one] and leads_to(columns, tables, hops[number], rows[starts[one]], exact):
                    return one
    return _NONE


@compiled
def _first_of_rest(columns: Columns, tables: Tables, rows: np.ndarray, starts: np.ndarray, used: np.ndarray) -> int:
    """Where records between are missing: of what is left the stretch that no other of it leads to.

    Falling TTL decides among several; it only bounds the order.
    """
    best, best_rank, best_ttl = _NONE, -1, np.int64(-1)
    for one in range(len(used)):
        if used[one]:
            continue
        start = rows[starts[one]]
        led_from_peer, led_to = False, False
        for other in range(len(used)):
            if used[other]:
                continue
            for number in range(starts[other], starts[other + 1]):
                row = rows[number]
                if is_sent(columns, tables, row) and at(columns, tables, row, PEER) == at(
                    columns, tables, start, CHASSIS
                ):
                    led_to = True
                    if at(columns, tables, row, CHASSIS) == at(columns, tables, start, PEER):
                        led_from_peer = True
        rank = 0
        if not led_from_peer:
            rank = 2 if at(columns, tables, start, POINT) == INGRESS or not led_to else 1
        left = np.int64(ttl(columns, tables, start))
        if rank > best_rank or (rank == best_rank and left > best_ttl):
            best, best_rank, best_ttl = one, rank, left
    return best


# --- a packet that was copied ------------------------------------------------------------------------------


@compiled
def _of_flood(columns: Columns, tables: Tables, rows: np.ndarray, pair: int, hops: np.ndarray) -> tuple[int, bool]:
    """The hops of the copy for the goal, or of the one that came furthest, and whether some are missing."""
    length = len(rows)
    before = np.full(length, _NONE, np.int32)
    guessed = np.zeros(length, np.uint8)
    root = 0
    while at(columns, tables, rows[root], POINT) != FIRST_HOP:
        root += 1
    for number in range(length):
        if number == root:
            continue
        if at(columns, tables, rows[number], POINT) == INGRESS:
            known = _sender(columns, tables, rows, number)
        else:
            known = _trunk(columns, tables, rows, number)
        before[number] = known if known != _NONE else root
        guessed[number] = known == _NONE
    end = _end(columns, tables, rows, before, pair)
    filled = _way_length(before, end, length)
    gap = False
    number = end
    for place in range(filled - 1, -1, -1):
        hops[place] = rows[number]
        gap = gap or guessed[number] != 0
        number = before[number]
    return filled, gap


@compiled
def _sender(columns: Columns, tables: Tables, rows: np.ndarray, came: int) -> int:
    for exact in (True, False):
        for number in range(len(rows)):
            if leads_to(columns, tables, rows[number], rows[came], exact):
                return number
    return _NONE


@compiled
def _trunk(columns: Columns, tables: Tables, rows: np.ndarray, own: int) -> int:
    """The record on the same chassis that this one continues: outputs to ports are ends of their own."""
    for number in range(own - 1, -1, -1):
        if at(columns, tables, rows[number], SOURCE) != at(columns, tables, rows[own], SOURCE):
            break
        point = at(columns, tables, rows[number], POINT)
        if point in (EGRESS, REMOTE_OUTPUT):
            continue
        here = at(columns, tables, rows[number], DATAPATH) == at(columns, tables, rows[own], DATAPATH)
        if (point == LOGICAL_EGRESS) != here:
            return number
    return _NONE


@compiled
def _end(columns: Columns, tables: Tables, rows: np.ndarray, before: np.ndarray, pair: int) -> int:
    """The last record of the copy to be shown."""
    goals = tables.goals
    if 0 <= pair < len(goals) and goals[pair, 0] >= 0:
        blind = True
        for number in range(len(rows)):
            point = at(columns, tables, rows[number], POINT)
            blind = blind and point in (FIRST_HOP, REMOTE_OUTPUT)
        at_port, in_it, towards = _NONE, _NONE, _NONE
        for number in range(len(rows)):
            row = rows[number]
            if at(columns, tables, row, DATAPATH) != goals[pair, 0]:
                continue
            point, chassis = at(columns, tables, row, POINT), at(columns, tables, row, CHASSIS)
            if point == EGRESS and at(columns, tables, row, OUT_KEY) == goals[pair, 1]:
                at_port = number
            if chassis == goals[pair, 2] and point <= INGRESS:
                in_it = number
            grouped = (at(columns, tables, row, FLAGS) & GROUP) != 0
            if grouped or (at(columns, tables, row, PEER) == goals[pair, 2] and chassis != goals[pair, 2]):
                towards = number
        for found in (at_port, towards if blind else in_it, in_it if blind else towards):
            if found != _NONE:
                return found
    best, best_out, best_length = 0, -1, -1
    for number in range(len(rows)):
        out = int(at(columns, tables, rows[number], POINT) == EGRESS)
        length = _way_length(before, number, len(rows))
        if out > best_out or (out == best_out and length > best_length):
            best, best_out, best_length = number, out, length
    return best


@compiled
def _way_length(before: np.ndarray, end: int, most: int) -> int:
    length = 1
    while before[end] != _NONE and length < most:
        end = before[end]
        length += 1
    return length
