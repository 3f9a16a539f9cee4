"""The short way: a packet whose records leave no doubt, which almost all are.

One first hop, no flood, each place visited once, each stretch of a chassis whole, and each tunnel's two ends found
once. For these the order is that of the general way (`apart`, `ordering`); for all others nothing is decided here.

Here time counts. A compiled function counts references whenever an array is taken out of a tuple, cut or handed to
another function, so all columns are named once, and the steps for one packet are compiled into the loop over all.
"""

from __future__ import annotations

import numpy as np

from vtrace.compiled import compiled, inlined
from vtrace.reconstruct.layout import (
    DST,
    EGRESS,
    FIRST_HOP,
    FLAGS,
    GROUP,
    INGRESS,
    NO_CHASSIS,
    PEER,
    POINT,
    SENT,
    SOURCE,
    SRC,
    TO_GROUP,
    TTL,
    VISIT,
    Columns,
    Tables,
)
from vtrace.reconstruct.matching import can_follow, can_lead
from vtrace.reconstruct.shapes import LONGEST, is_in, no_shapes, slot_of

MOST_STRETCHES = 32
# Groups up to so long are sorted here: records of one agent come in order, so little moves. Longer ones go the general
# way, whose first step is another sort.
MOST_RECORDS = 64


@compiled
def direct(
    columns: Columns,
    tables: Tables,
    order: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    shapes: np.ndarray,
    hops: np.ndarray,
) -> int:
    """Orders the records of every packet that takes no choice.

    Args:
        order: rows of records, those of one key together; starts: where each key's begin, with the end of the last.
        lengths: takes for each key how many hops its packet has; 0 where the general way has to be gone.
        shapes: takes for each key the number of its packet's shape, from 0; -1 where that was not looked at.
        hops: takes the rows of these packets, in path order, one packet after the other.

    Returns:
        How many rows there are in `hops`.
    """
    place, header, packet, seq, _ = columns
    places, headers, all_ports = tables.places, tables.headers, tables.ports
    number, known, of_place, of_header, of_ports, of_way, _, _, count = no_shapes()
    begins = np.empty(MOST_STRETCHES + 1, np.int64)
    # The records of one packet: rows, rows of their places, agents and numbers, ports; and which is each hop.
    rows, own = np.empty(MOST_RECORDS, np.int32), np.empty(MOST_RECORDS, np.int32)
    sources, numbers = np.empty(MOST_RECORDS, np.int32), np.empty(MOST_RECORDS, np.int64)
    ports, way = np.empty(MOST_RECORDS, np.int64), np.empty(MOST_RECORDS, np.uint8)
    filled = 0
    for one in range(len(starts) - 1):
        lengths[one], shapes[one] = 0, -1
        start, end = starts[one], starts[one + 1]
        if end - start > MOST_RECORDS:
            continue
        length = _as_they_came(place, seq, places, order, start, end, rows, own, sources, numbers)
        slot = -1
        if length == 0:
            length = _sorted(place, seq, places, order, start, end, rows, own, sources, numbers)
        if length <= LONGEST:
            slot = slot_of(header, packet, all_ports, rows, own, length, ports)
            if is_in(slot, known, of_place, of_header, of_ports, header, rows, own, ports, length):
                for i in range(length):
                    hops[filled + i] = rows[of_way[slot, i]]
                lengths[one], shapes[one] = length, number[slot]
                filled += length
                continue
        stretches = _stretches(header, places, headers, rows, own, sources, length, begins)
        if stretches == 0:
            continue
        begins[stretches] = length
        if not _joined(header, packet, all_ports, places, headers, rows, own, begins, stretches, way, length):
            continue
        for i in range(length):
            hops[filled + i] = rows[way[i]]
        lengths[one] = length
        filled += length
        if slot >= 0:
            number[slot], known[slot], shapes[one] = count[0], length, count[0]
            count[0] += 1
            for i in range(length):
                of_place[slot, i], of_header[slot, i] = own[i], header[rows[i]]
                of_ports[slot, i], of_way[slot, i] = ports[i], way[i]
    return filled


@inlined
def _as_they_came(
    place: np.ndarray,
    seq: np.ndarray,
    places: np.ndarray,
    order: np.ndarray,
    start: int,
    end: int,
    rows: np.ndarray,
    own: np.ndarray,
    sources: np.ndarray,
    numbers: np.ndarray,
) -> int:
    """Takes the records of a group out, if those of each agent came in order and once each; else returns 0."""
    last_source, last_number = -1, np.int64(0)
    in_order = True
    for i in range(start, end):
        row = order[i]
        at = place[row]
        source, number = places[at, SOURCE], seq[row]
        if source == last_source:
            in_order = in_order and number > last_number
        else:
            for j in range(i - start):
                if sources[j] == source and numbers[j] >= number:
                    in_order = False
        j = i - start
        rows[j], own[j], sources[j], numbers[j] = row, at, source, number
        last_source, last_number = source, number
    return end - start if in_order else 0


@inlined
def _sorted(
    place: np.ndarray,
    seq: np.ndarray,
    places: np.ndarray,
    order: np.ndarray,
    start: int,
    end: int,
    rows: np.ndarray,
    own: np.ndarray,
    sources: np.ndarray,
    numbers: np.ndarray,
) -> int:
    """Takes the records of a group out, sorted by agent and sequence number, each once; returns how many."""
    length = 0
    for i in range(start, end):
        row = order[i]
        at = place[row]
        source, number = places[at, SOURCE], seq[row]
        j = length - 1
        while j >= 0 and (sources[j] > source or (sources[j] == source and numbers[j] > number)):
            j -= 1
        if j >= 0 and sources[j] == source and numbers[j] == number:
            continue
        for k in range(length, j + 1, -1):
            rows[k], own[k], sources[k], numbers[k] = rows[k - 1], own[k - 1], sources[k - 1], numbers[k - 1]
        rows[j + 1], own[j + 1], sources[j + 1], numbers[j + 1] = row, at, source, number
        length += 1
    return length


@inlined
def _stretches(
    header: np.ndarray,
    places: np.ndarray,
    headers: np.ndarray,
    rows: np.ndarray,
    own: np.ndarray,
    sources: np.ndarray,
    length: int,
    begins: np.ndarray,
) -> int:
    """Where the stretches of each chassis begin; 0 where that is in doubt."""
    stretches = 0
    seen = np.uint64(0)
    last_place, last_header, last_ttl = 0, 0, np.int64(0)
    for i in range(length):
        at, addresses = own[i], header[rows[i]]
        hops_left = np.int64(headers[addresses, TTL])
        sure = (places[at, FLAGS] & GROUP) == 0 and headers[addresses, TO_GROUP] == 0
        same = i > 0 and sources[i - 1] == sources[i]
        if places[at, POINT] <= INGRESS:
            # All that this agent wrote before has to be of stretches that ended.
            for j in range(i):
                if sources[j] == sources[i] and (j + 1 == i or sources[j + 1] != sources[i]):
                    ended = places[own[j], POINT] == EGRESS or (places[own[j], FLAGS] & SENT) != 0
                    sure = sure and ended
            sure = sure and stretches < MOST_STRETCHES
            if sure:
                begins[stretches] = i
                stretches += 1
        elif same:
            sure = sure and can_follow(places, last_place, at, last_ttl - hops_left)
            if addresses != last_header:
                shares = headers[addresses, SRC] == headers[last_header, SRC]
                sure = sure and (shares or headers[addresses, DST] == headers[last_header, DST])
        else:
            sure = False
        bit = np.uint64(1) << np.uint64((places[at, VISIT] * 7 + hops_left) & 63)
        if seen & bit:
            for j in range(i):
                if places[own[j], VISIT] == places[at, VISIT] and headers[header[rows[j]], TTL] == hops_left:
                    sure = False
        if not sure:
            stretches = 0
            break
        seen |= bit
        last_place, last_header, last_ttl = at, addresses, hops_left
    return stretches


@inlined
def _joined(
    header: np.ndarray,
    packet: np.ndarray,
    all_ports: np.ndarray,
    places: np.ndarray,
    headers: np.ndarray,
    rows: np.ndarray,
    own: np.ndarray,
    begins: np.ndarray,
    stretches: int,
    way: np.ndarray,
    length: int,
) -> bool:
    """Writes down which record is each hop: stretch after stretch, from the first hop on; whether that is sure."""
    current, firsts = -1, 0
    for one in range(stretches):
        if places[own[begins[one]], POINT] == FIRST_HOP:
            current = one
            firsts += 1
    written, visited = 0, 0
    if firsts != 1:
        current = -1
    while current >= 0:
        visited |= 1 << current
        for i in range(begins[current], begins[current + 1]):
            way[written] = i
            written += 1
        if written == length:
            break
        last = begins[current + 1] - 1
        sent, here, addresses = rows[last], own[last], header[rows[last]]
        found, leading = -1, 0
        for one in range(stretches):
            came, there = rows[begins[one]], own[begins[one]]
            if visited >> one & 1 or places[there, PEER] == NO_CHASSIS or not can_lead(places, here, there, True):
                continue
            others = header[came]
            alike = headers[others, TTL] == headers[addresses, TTL]
            alike = alike and all_ports[packet[came]] == all_ports[packet[sent]]
            if alike and others != addresses:
                alike = headers[others, SRC] == headers[addresses, SRC]
                alike = alike and headers[others, DST] == headers[addresses, DST]
            if alike:
                found = one
                leading += 1
        if leading == 1:
            there = own[begins[found]]
            for one in range(stretches):
                if one != current and can_lead(places, own[begins[one + 1] - 1], there, False):
                    leading += 1
        current = found if leading == 1 else -1
    return written == length
