"""Distinct paths: a hash table from (pair, disposition, places in order) to a number, with counts and delays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vtrace.compiled import compiled, inlined
from vtrace.reconstruct.layout import SPOT, Columns, Tables

# Columns of `Paths.rows`.
PATH_PAIR, PATH_DISPOSITION, PATH_PACKETS, PATH_START, PATH_LENGTH = range(5)
# Columns of `Paths.delays`.
SHORTEST, LONGEST, SUM = range(3)

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)
_FAR_NS = np.int64(1 << 62)


class Paths(NamedTuple):
    """The paths found so far.

    Attributes:
        slots: of the hash table: numbers of paths, -1 where free. hashes: of each path.
        rows: of each path, PATH_…; places: hop by hop, rows of the table of places; delays: likewise, the shortest,
            longest and summed time since the hop before it, by the clocks of the one or two chassis, in nanoseconds.
        counts: how many paths there are, and how many hops of paths.
    """

    slots: np.ndarray
    hashes: np.ndarray
    rows: np.ndarray
    places: np.ndarray
    delays: np.ndarray
    counts: np.ndarray


@compiled
def no_paths(paths: int, hops: int) -> Paths:
    """Room for so many paths (a power of two), with so many hops in all."""
    return Paths(
        np.full(4 * paths, -1, np.int32),
        np.empty(paths, np.uint64),
        np.empty((paths, 5), np.int64),
        np.empty(hops, np.int32),
        np.empty((hops, 3), np.int64),
        np.zeros(2, np.int64),
    )


@compiled
def number_paths(
    columns: Columns,
    tables: Tables,
    pairs: np.ndarray,
    dispositions: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    hops: np.ndarray,
    paths: np.ndarray,
    shapes: np.ndarray,
) -> Paths:
    """Finds the path of each packet, and counts.

    Args:
        pairs, dispositions: of each packet; starts, lengths: where its records stand in `hops`, in path order.
        paths: takes the number of each packet's path.
        shapes: of each packet; those of one shape (but -1) took one path.
    """
    known = no_paths(256, 4096)
    of_shape = np.full(shapes.max() + 1 if len(shapes) else 0, -1, np.int32)
    at = 0
    while True:
        at = _fill(columns, tables, known, pairs, dispositions, starts, lengths, hops, paths, shapes, of_shape, at)
        if at == len(pairs):
            return known
        known = _doubled(known)


@compiled
def _fill(
    columns: Columns,
    tables: Tables,
    known: Paths,
    pairs: np.ndarray,
    dispositions: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    hops: np.ndarray,
    paths: np.ndarray,
    shapes: np.ndarray,
    of_shape: np.ndarray,
    packet: int,
) -> int:
    """Goes on from a packet until all are done, or there is no room for another path; returns the next packet."""
    place, mono_ns, places = columns.place, columns.mono_ns, tables.places
    slots, hashes, rows, path_places, delays, counts = known
    mask = len(slots) - 1
    while packet < len(pairs):
        pair, disposition, start, length = pairs[packet], dispositions[packet], starts[packet], lengths[packet]
        shape = shapes[packet]
        one, slot, hashed = np.int32(-1), np.int64(0), np.uint64(0)
        if shape >= 0:
            one = of_shape[shape]
        if one < 0:
            hashed = np.uint64(pair + 1) * _FACTOR + np.uint64(disposition)
            for number in range(start, start + length):
                hashed = (hashed ^ np.uint64(places[place[hops[number]], SPOT])) * _FACTOR
                hashed ^= hashed >> _SHIFT
            slot = np.int64(hashed) & mask
            one = slots[slot]
            while one >= 0:
                same = hashes[one] == hashed and rows[one, PATH_PAIR] == pair
                same = same and rows[one, PATH_DISPOSITION] == disposition
                if same and _same_spots(place, places, hops, start, length, path_places, rows, one):
                    break
                slot = (slot + 1) & mask
                one = slots[slot]
        if one < 0:
            one = np.int32(counts[0])
            first = counts[1]
            if one == len(rows) or first + length > len(path_places):
                break
            slots[slot] = one
            hashes[one] = hashed
            rows[one, PATH_PAIR] = pair
            rows[one, PATH_DISPOSITION] = disposition
            rows[one, PATH_PACKETS] = 0
            rows[one, PATH_START] = first
            rows[one, PATH_LENGTH] = length
            for number in range(length):
                path_places[first + number] = place[hops[start + number]]
                delays[first + number, SHORTEST] = _FAR_NS
                delays[first + number, LONGEST] = -_FAR_NS
                delays[first + number, SUM] = 0
            counts[0] += 1
            counts[1] += length
        rows[one, PATH_PACKETS] += 1
        first = rows[one, PATH_START] - start
        before_ns = mono_ns[hops[start]]
        for number in range(start + 1, start + length):
            now_ns = mono_ns[hops[number]]
            delay = now_ns - before_ns
            before_ns = now_ns
            delays[first + number, SUM] += delay
            if delay < delays[first + number, SHORTEST]:
                delays[first + number, SHORTEST] = delay
            if delay > delays[first + number, LONGEST]:
                delays[first + number, LONGEST] = delay
        paths[packet] = one
        if shape >= 0:
            of_shape[shape] = one
        packet += 1
    return packet


@inlined
def _same_spots(
    place: np.ndarray,
    places: np.ndarray,
    hops: np.ndarray,
    start: int,
    length: int,
    path_places: np.ndarray,
    rows: np.ndarray,
    one: int,
) -> bool:
    first = rows[one, PATH_START]
    same = rows[one, PATH_LENGTH] == length
    if same:
        for number in range(length):
            if places[path_places[first + number], SPOT] != places[place[hops[start + number]], SPOT]:
                same = False
                break
    return same


@compiled
def _doubled(known: Paths) -> Paths:
    """The same paths, with twice the room, and more where one path takes more."""
    paths, hops = known.counts[0], known.counts[1]
    grown = no_paths(2 * len(known.rows), 2 * len(known.places) + (1 << 16))
    grown.counts[0], grown.counts[1] = paths, hops
    for hop in range(hops):
        grown.places[hop] = known.places[hop]
        for column in range(SUM + 1):
            grown.delays[hop, column] = known.delays[hop, column]
    mask = len(grown.slots) - 1
    for one in range(paths):
        grown.hashes[one] = known.hashes[one]
        for column in range(PATH_LENGTH + 1):
            grown.rows[one, column] = known.rows[one, column]
        slot = np.int64(grown.hashes[one]) & mask
        while grown.slots[slot] >= 0:
            slot = (slot + 1) & mask
        grown.slots[slot] = one
    return grown
