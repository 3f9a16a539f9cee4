"""The kernel: records of many packets in, their hops in path order and the distinct paths out. Exact, one thread.

Records are grouped by packet key, sorted by agent and sequence number, and left once each. A packet that leaves no
doubt goes the short way (`direct`), all others the general one (`apart`, `ordering`), to the same result.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vtrace.compiled import compiled
from vtrace.reconstruct.apart import apart
from vtrace.reconstruct.direct import direct
from vtrace.reconstruct.distinct import number_paths
from vtrace.reconstruct.grouping import group, sort_unique
from vtrace.reconstruct.layout import (
    AT_EGRESS,
    AT_SENT,
    AT_STOPPED,
    AT_UNPLANNED,
    EGRESS,
    FIRST_HOP,
    FLAGS,
    PAIR,
    POINT,
    REMOTE_OUTPUT,
    Columns,
    Packets,
    Tables,
)
from vtrace.reconstruct.matching import at
from vtrace.reconstruct.ordering import ordered
from vtrace.reconstruct.shapes import LONGEST, Shapes, is_in, no_shapes, slot_of


@compiled
def reconstruct_columns(columns: Columns, tables: Tables) -> Packets:
    """Makes packets and paths of records.

    Args:
        columns: the records, in any order, repeated or not. All records of a key have to be there.
        tables: what they point to.

    Returns:
        Packets in no order that means anything. The packets of a key are the same for every order and repetition of
        the records.
    """
    order, starts = group(columns, tables)
    groups = len(starts) - 1
    lengths, shapes = np.empty(groups, np.int32), np.empty(groups, np.int32)
    hops = np.empty(len(order), np.int32)
    filled = direct(columns, tables, order, starts, lengths, shapes, hops)
    found = _room(hops, len(order), _first_hops(columns, tables))
    packets = _note_direct(starts, lengths, found)
    packets = _the_general_way(columns, tables, order, starts, lengths, found, packets, filled)
    return _with_paths(columns, tables, found, packets, shapes)


@compiled
def _first_hops(columns: Columns, tables: Tables) -> int:
    place, places = columns.place, tables.places
    found = 0
    for row in range(len(place)):
        found += places[place[row], POINT] == FIRST_HOP
    return found


@compiled
def _room(hops: np.ndarray, rows: int, packets: int) -> Packets:
    return Packets(
        np.empty(packets, np.int32),
        np.empty(packets, np.int64),
        np.empty(packets, np.int32),
        np.empty(packets, np.uint8),
        np.zeros(packets, np.int32),
        np.zeros(packets, np.uint8),
        np.zeros(packets, np.uint8),
        np.empty(packets, np.int32),
        np.empty(packets, np.int32),
        np.zeros(packets, np.int64),
        np.zeros(packets, np.int32),
        hops,
        np.empty(rows, np.int32),
        np.empty((0, 5), np.int64),
        np.empty(0, np.int32),
        np.empty((0, 3), np.int64),
        np.zeros(3, np.int64),
    )


@compiled
def _note_direct(starts: np.ndarray, lengths: np.ndarray, found: Packets) -> int:
    """Writes down the packets that went the short way; how many they are."""
    start, length, group_ = found.start, found.length, found.group
    packets, filled, repeated = 0, 0, 0
    for one in range(len(lengths)):
        if lengths[one]:
            start[packets] = filled
            length[packets] = lengths[one]
            group_[packets] = one
            filled += lengths[one]
            packets += 1
            repeated += starts[one + 1] - starts[one] - lengths[one]
    found.counts[0] = repeated
    return packets


@compiled
def _the_general_way(
    columns: Columns,
    tables: Tables,
    order: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    found: Packets,
    packets: int,
    filled: int,
) -> int:
    """Does the same for all other keys; how many packets there are then."""
    shapes, looked_up = no_shapes(), _Scratch(np.empty(LONGEST, np.int32), np.empty(LONGEST, np.int64))
    aside = 0
    for one in range(len(lengths)):
        if lengths[one]:
            continue
        own = order[starts[one] : starts[one + 1]]
        length = sort_unique(columns, tables, own)
        found.counts[0] += len(own) - length
        own = own[:length]
        slot = -1
        if length <= LONGEST:
            slot, known = _look_up(columns, tables, shapes, own, looked_up)
            if known:
                hops = _as_before(shapes, slot, own, found, filled, aside)
                _describe(found, packets, one, 0, shapes.gap[slot] != 0, False, filled, hops, aside, length - hops)
                packets += 1
                filled += hops
                aside += length - hops
                continue
        owner, copies, by_clock = apart(columns, tables, own)
        if copies == 0:
            found.counts[1] += 1
            found.counts[2] += length
        for copy in range(copies):
            mine, pair = _of_copy(columns, tables, own, owner, copy)
            hops, gap = ordered(columns, tables, mine, pair, found.hops[filled:])
            others = _set_aside(mine, found.hops[filled : filled + hops], found.others[aside:])
            _describe(found, packets, one, copy, gap, copies > 1, filled, hops, aside, others)
            if slot >= 0 and copies == 1 and not by_clock and hops + others == length:
                _keep(columns, shapes, slot, own, looked_up, found, filled, hops, aside, gap)
            packets += 1
            filled += hops
            aside += others
    return packets


class _Scratch(NamedTuple):
    """Room for the places and ports of a packet's records."""

    place: np.ndarray
    ports: np.ndarray


@compiled
def _look_up(columns: Columns, tables: Tables, shapes: Shapes, rows: np.ndarray, scratch: _Scratch) -> tuple[int, bool]:
    """The slot of a packet's shape, and whether it holds just that."""
    place, header, packet, _, _ = columns
    _, lengths, of_place, of_header, of_ports, _, _, _, _ = shapes
    own, ports = scratch
    length = len(rows)
    for i in range(length):
        own[i] = place[rows[i]]
    slot = slot_of(header, packet, tables.ports, rows, own, length, ports)
    known = is_in(slot, lengths, of_place, of_header, of_ports, header, rows, own, ports, length)
    return slot, known


@compiled
def _as_before(shapes: Shapes, slot: int, rows: np.ndarray, found: Packets, filled: int, aside: int) -> int:
    """Orders the records of a packet as those of the one before of its shape; how many hops it has."""
    hops = int(shapes.hops[slot])
    for i in range(len(rows)):
        row = rows[shapes.way[slot, i]]
        if i < hops:
            found.hops[filled + i] = row
        else:
            found.others[aside + i - hops] = row
    return hops


@compiled
def _keep(
    columns: Columns,
    shapes: Shapes,
    slot: int,
    rows: np.ndarray,
    scratch: _Scratch,
    found: Packets,
    filled: int,
    hops: int,
    aside: int,
    gap: bool,
) -> None:
    """Keeps the order of a packet's records for the next one of its shape."""
    shapes.length[slot], shapes.hops[slot], shapes.gap[slot] = len(rows), hops, gap
    for i in range(len(rows)):
        shapes.place[slot, i], shapes.ports[slot, i] = scratch.place[i], scratch.ports[i]
        shapes.header[slot, i] = columns.header[rows[i]]
        row = found.hops[filled + i] if i < hops else found.others[aside + i - hops]
        for j in range(len(rows)):
            if rows[j] == row:
                shapes.way[slot, i] = j


@compiled
def _describe(
    found: Packets,
    packet: int,
    group_: int,
    copy: int,
    gap: bool,
    ambiguous: bool,
    start: int,
    length: int,
    aside: int,
    others: int,
) -> None:
    found.group[packet], found.copy[packet] = group_, copy
    found.gap[packet], found.ambiguous[packet] = gap, ambiguous
    found.start[packet], found.length[packet] = start, length
    found.others_start[packet], found.others_length[packet] = aside, others


@compiled
def _of_copy(
    columns: Columns, tables: Tables, rows: np.ndarray, owner: np.ndarray, copy: int
) -> tuple[np.ndarray, int]:
    """The records of one packet of a key, in the order of `rows`, and its pair."""
    mine = np.empty(len(rows), np.int32)
    length, pair = 0, -1
    for number in range(len(rows)):
        if owner[number] == copy:
            mine[length] = rows[number]
            length += 1
            if at(columns, tables, rows[number], POINT) == FIRST_HOP:
                pair = at(columns, tables, rows[number], PAIR)
    return mine[:length], pair


@compiled
def _set_aside(mine: np.ndarray, hops: np.ndarray, others: np.ndarray) -> int:
    """Lists the records that are no hops; how many those are."""
    length = 0
    for row in mine:
        shown = False
        for hop in hops:
            shown = shown or hop == row
        if not shown:
            others[length] = row
            length += 1
    return length


@compiled
def _with_paths(columns: Columns, tables: Tables, found: Packets, packets: int, shapes: np.ndarray) -> Packets:
    """Names each packet's first-hop record, disposition and path; the result, cut to its length."""
    place, places, hops = columns.place, tables.places, found.hops
    first, start, length, disposition = found.first, found.start, found.length, found.disposition
    pairs, own_shapes = np.empty(packets, np.int32), np.empty(packets, np.int32)
    group_ = found.group
    filled, aside = 0, 0
    for packet in range(packets):
        row = hops[start[packet]]
        first[packet] = row
        pairs[packet] = places[place[row], PAIR]
        own_shapes[packet] = shapes[group_[packet]]
        last = place[hops[start[packet] + length[packet] - 1]]
        point = places[last, POINT]
        if point == EGRESS:
            disposition[packet] = AT_EGRESS
        elif point == REMOTE_OUTPUT:
            disposition[packet] = AT_SENT if places[last, FLAGS] else AT_UNPLANNED
        else:
            disposition[packet] = AT_STOPPED
        filled += length[packet]
        aside += found.others_length[packet]
    known = number_paths(
        columns, tables, pairs, disposition[:packets], start[:packets], length[:packets], hops, found.path, own_shapes
    )
    return Packets(
        first[:packets],
        start[:packets],
        length[:packets],
        disposition[:packets],
        found.copy[:packets],
        found.gap[:packets],
        found.ambiguous[:packets],
        found.path[:packets],
        found.group[:packets],
        found.others_start[:packets],
        found.others_length[:packets],
        hops[:filled],
        found.others[:aside],
        known.rows[: known.counts[0]],
        known.places[: known.counts[1]],
        known.delays[: known.counts[1]],
        found.counts,
    )
