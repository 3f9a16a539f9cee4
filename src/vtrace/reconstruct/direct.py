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
    VISIT,
    Columns,
    Tables,
)
from vtrace.reconstruct.matching import can_follow, can_lead

MOST_STRETCHES = 32
# Groups up to so long are sorted here: records of one agent come in order, so little moves. Longer ones go the general
# way, whose first step is another sort.
MOST_RECORDS = 64


@compiled
def direct(
    columns: Columns, tables: Tables, order: np.ndarray, starts: np.ndarray, lengths: np.ndarray, hops: np.ndarray
) -> int:
    """Orders the records of every packet that takes no choice.

    Args:
        order: rows of records, those of one key together. Those of the packets found here are sorted and left once.
        starts: where the records of each key begin in `order`, with the end of the last.
        lengths: takes for each key how many hops its packet has; 0 where the general way has to be gone.
        hops: takes the rows of these packets, in path order, one packet after the other.

    Returns:
        How many rows there are in `hops`.
    """
    place, header, sport, dport, ttl, seq = (
        columns.place,
        columns.header,
        columns.sport,
        columns.dport,
        columns.ttl,
        columns.seq,
    )
    places, headers = tables.places, tables.headers
    begins = np.empty(MOST_STRETCHES + 1, np.int64)
    filled = 0
    for one in range(len(starts) - 1):
        lengths[one] = 0
        start, end = starts[one], starts[one + 1]
        if end - start > MOST_RECORDS:
            continue
        end = _sorted(place, seq, places, order, start, end)
        stretches = _stretches(place, header, ttl, places, headers, order, start, end, begins)
        if stretches == 0:
            continue
        begins[stretches] = end
        done = _joined(
            place, header, sport, dport, ttl, places, headers, order, begins, stretches, hops, filled, end - start
        )
        if done:
            lengths[one] = end - start
            filled += end - start
    return filled


@inlined
def _sorted(place: np.ndarray, seq: np.ndarray, places: np.ndarray, order: np.ndarray, start: int, end: int) -> int:
    """Sorts the records of a group by agent and sequence number, leaves each once; returns its new end."""
    left = start
    for i in range(start, end):
        row = order[i]
        source, number = places[place[row], SOURCE], seq[row]
        j = left - 1
        repeated = False
        while j >= start:
            other = order[j]
            before = places[place[other], SOURCE]
            if before < source:
                break
            if before == source:
                if seq[other] < number:
                    break
                if seq[other] == number:
                    repeated = True
                    break
            j -= 1
        if not repeated:
            for k in range(left, j + 1, -1):
                order[k] = order[k - 1]
            order[j + 1] = row
            left += 1
    return left


@inlined
def _stretches(
    place: np.ndarray,
    header: np.ndarray,
    ttl: np.ndarray,
    places: np.ndarray,
    headers: np.ndarray,
    order: np.ndarray,
    start: int,
    end: int,
    begins: np.ndarray,
) -> int:
    """Where the stretches of each chassis begin; 0 where that is in doubt."""
    stretches = 0
    seen = np.uint64(0)
    last_place, last_header, last_ttl = -1, -1, 0
    for i in range(start, end):
        row = order[i]
        own, addresses, hops_left = place[row], header[row], int(ttl[row])
        sure = (places[own, FLAGS] & GROUP) == 0 and headers[addresses, TO_GROUP] == 0
        same = last_place >= 0 and places[last_place, SOURCE] == places[own, SOURCE]
        if places[own, POINT] <= INGRESS:
            closed = not same or places[last_place, POINT] == EGRESS or (places[last_place, FLAGS] & SENT) != 0
            sure = sure and closed and stretches < MOST_STRETCHES
            if sure:
                begins[stretches] = i
                stretches += 1
        elif same:
            sure = sure and can_follow(places, last_place, own, last_ttl - hops_left)
            shares = headers[addresses, SRC] == headers[last_header, SRC]
            sure = sure and (shares or headers[addresses, DST] == headers[last_header, DST])
        else:
            sure = False
        bit = np.uint64(1) << np.uint64((places[own, VISIT] * 7 + hops_left) & 63)
        if seen & bit:
            for j in range(start, i):
                other = order[j]
                if places[place[other], VISIT] == places[own, VISIT] and ttl[other] == hops_left:
                    sure = False
        if not sure:
            stretches = 0
            break
        seen |= bit
        last_place, last_header, last_ttl = own, addresses, hops_left
    return stretches


@inlined
def _joined(
    place: np.ndarray,
    header: np.ndarray,
    sport: np.ndarray,
    dport: np.ndarray,
    ttl: np.ndarray,
    places: np.ndarray,
    headers: np.ndarray,
    order: np.ndarray,
    begins: np.ndarray,
    stretches: int,
    hops: np.ndarray,
    filled: int,
    length: int,
) -> bool:
    """Writes the stretches down one after the other, from the first hop on; whether that could be done."""
    current, firsts = -1, 0
    for one in range(stretches):
        if places[place[order[begins[one]]], POINT] == FIRST_HOP:
            current = one
            firsts += 1
    written, visited = 0, 0
    if firsts != 1:
        current = -1
    while current >= 0:
        visited |= 1 << current
        for i in range(begins[current], begins[current + 1]):
            hops[filled + written] = order[i]
            written += 1
        if written == length:
            break
        sent = order[begins[current + 1] - 1]
        own, addresses = place[sent], header[sent]
        found, leading = -1, 0
        for one in range(stretches):
            came = order[begins[one]]
            there, others = place[came], header[came]
            if visited >> one & 1 or places[there, PEER] == NO_CHASSIS or not can_lead(places, own, there, True):
                continue
            alike = ttl[came] == ttl[sent] and sport[came] == sport[sent] and dport[came] == dport[sent]
            alike = alike and headers[others, SRC] == headers[addresses, SRC]
            if alike and headers[others, DST] == headers[addresses, DST]:
                found = one
                leading += 1
        if leading == 1:
            there = place[order[begins[found]]]
            for one in range(stretches):
                if one != current and can_lead(places, place[order[begins[one + 1] - 1]], there, False):
                    leading += 1
        current = found if leading == 1 else -1
    return written == length
