"""What two records say of each other: whether one can follow the other on a chassis, or came where the other went."""

from __future__ import annotations

import numpy as np

from vtrace.compiled import compiled, inlined
from vtrace.reconstruct.layout import (
    CHASSIS,
    CROSSES,
    DATAPATH,
    DST,
    EGRESS,
    FLAGS,
    GROUP,
    IN_KEY,
    INGRESS,
    LOGICAL_EGRESS,
    NO_CHASSIS,
    PEER,
    POINT,
    REMOTE_OUTPUT,
    SENT,
    SOURCE,
    SPOT,
    SRC,
    TO_GROUP,
    TTL,
    VISIT,
    Columns,
    Tables,
)


@compiled
def at(columns: Columns, tables: Tables, row: int, column: int) -> int:
    """A value of the place of a record."""
    return tables.places[columns.place[row], column]


@compiled
def ttl(columns: Columns, tables: Tables, row: int) -> int:
    """The TTL of a record."""
    return tables.headers[columns.header[row], TTL]


@compiled
def is_sent(columns: Columns, tables: Tables, row: int) -> bool:
    """Whether it says to which chassis the packet was sent."""
    return (tables.places[columns.place[row], FLAGS] & SENT) != 0


@compiled
def begins(columns: Columns, tables: Tables, row: int) -> bool:
    """Whether a stretch of records on a chassis begins with it: the packet came in."""
    return tables.places[columns.place[row], POINT] <= INGRESS


@compiled
def is_of_flood(columns: Columns, tables: Tables, row: int) -> bool:
    """Whether its packet may have been copied to several ports: output to a multicast group, or sent to one."""
    grouped = (tables.places[columns.place[row], FLAGS] & GROUP) != 0
    return grouped or tables.headers[columns.header[row], TO_GROUP] != 0


@compiled
def shares_address(columns: Columns, tables: Tables, one: int, two: int) -> bool:
    """Whether source or destination address are the same: few devices change both at once."""
    a, b = columns.header[one], columns.header[two]
    if a == b:
        return True
    headers = tables.headers
    return headers[a, SRC] == headers[b, SRC] or headers[a, DST] == headers[b, DST]


@compiled
def is_reverse(columns: Columns, tables: Tables, one: int, two: int) -> bool:
    """Whether one goes back where the other came from."""
    a, b, headers = columns.header[one], columns.header[two], tables.headers
    there_and_back = headers[a, SRC] == headers[b, DST] and headers[a, DST] == headers[b, SRC]
    return there_and_back and headers[a, SRC] != headers[a, DST]


@compiled
def likeness(columns: Columns, tables: Tables, one: int, two: int) -> int:
    """How many of addresses and ports are the same: NAT leaves a part of them alone."""
    a, b, headers = columns.header[one], columns.header[two], tables.headers
    alike = int(headers[a, SRC] == headers[b, SRC]) + int(headers[a, DST] == headers[b, DST])
    changed = tables.ports[columns.packet[one]] ^ tables.ports[columns.packet[two]]
    return alike + int(changed >> 16 == 0) + int(changed & 0xFFFF == 0)


@compiled
def same_visit(columns: Columns, tables: Tables, one: int, two: int) -> bool:
    """Whether two records are of one visit of a place. The TTL tells a second visit (a loop) from a second packet."""
    a, b, places = columns.place[one], columns.place[two], tables.places
    return ttl(columns, tables, one) == ttl(columns, tables, two) and places[a, VISIT] == places[b, VISIT]


@inlined
def can_follow(places: np.ndarray, a: int, b: int, fell: np.int64) -> bool:
    """`follows`, of two rows of the table of places and by how much the TTL fell."""
    before, after = places[a, POINT], places[b, POINT]
    possible = before != EGRESS and (places[a, FLAGS] & SENT) == 0
    # OVN sends nothing on by a tunnel in the datapath in which it came by one (ovn-architecture(7)).
    again = after == INGRESS or (after == REMOTE_OUTPUT and places[b, CROSSES] != 0)
    possible = possible and not (before == INGRESS and again)
    same = places[a, DATAPATH] == places[b, DATAPATH]
    here = not same and fell <= 1 if before == LOGICAL_EGRESS else same
    return bool(possible and here and fell >= 0)


@compiled
def follows(columns: Columns, tables: Tables, last: int, row: int) -> bool:
    """Whether a record can be the next one on the same chassis: it says in which datapath the packet was.

    A router takes one off the TTL before it logs; a switch takes none.
    """
    fell = np.int64(ttl(columns, tables, last) - ttl(columns, tables, row))
    return can_follow(tables.places, columns.place[last], columns.place[row], fell)


@compiled
def is_sure(columns: Columns, tables: Tables, last: int, row: int) -> bool:
    """Whether a record that can follow another does so by its TTL or in port, too."""
    places = tables.places
    a, b = columns.place[last], columns.place[row]
    if places[a, POINT] == LOGICAL_EGRESS:
        return ttl(columns, tables, last) == ttl(columns, tables, row)
    in_key = places[a, IN_KEY]
    return in_key == 0 or places[b, IN_KEY] == 0 or places[b, IN_KEY] == in_key


@inlined
def can_lead(places: np.ndarray, a: int, b: int, exact: bool) -> bool:
    """`leads_to`, of two rows of the table of places."""
    crosses = places[a, POINT] == REMOTE_OUTPUT and places[b, POINT] == INGRESS
    crosses = crosses and places[a, CROSSES] == places[b, CROSSES]
    flags, own, peer = places[a, FLAGS], places[a, CHASSIS], places[b, PEER]
    if (flags & SENT) != 0 and exact:
        leads = places[b, CHASSIS] == places[a, PEER] and (peer == NO_CHASSIS or own == peer)
    else:
        leads = (flags & (SENT | GROUP)) != 0 and peer == own
    return crosses and leads


@compiled
def leads_to(columns: Columns, tables: Tables, sent: int, came: int, exact: bool) -> bool:
    """Whether what one record says was sent is what another says came in.

    Where not `exact` the receiver may be another than the sender's record names: a gateway that took over since the
    task began. It says itself where the packet came from.
    """
    return can_lead(tables.places, columns.place[sent], columns.place[came], exact)


@compiled
def alike_on_the_wire(columns: Columns, tables: Tables, one: int, two: int) -> bool:
    """Whether two records agree in what a tunnel does not change."""
    places = tables.places
    a, b = columns.place[one], columns.place[two]
    if ttl(columns, tables, one) != ttl(columns, tables, two) or places[a, CROSSES] != places[b, CROSSES]:
        return False
    if tables.ports[columns.packet[one]] != tables.ports[columns.packet[two]]:
        return False
    h, k, headers = columns.header[one], columns.header[two], tables.headers
    return h == k or (headers[h, SRC] == headers[k, SRC] and headers[h, DST] == headers[k, DST])


@compiled
def goes_on(columns: Columns, tables: Tables, last: int, row: int) -> bool:
    """Whether nothing can be missing between two hops."""
    here = tables.places[columns.place[last], SOURCE] == tables.places[columns.place[row], SOURCE]
    if here and not begins(columns, tables, row) and follows(columns, tables, last, row):
        return True
    return leads_to(columns, tables, last, row, True) or leads_to(columns, tables, last, row, False)


@compiled
def same_spots(columns: Columns, tables: Tables, one: np.ndarray, two: np.ndarray) -> bool:
    """Whether two lists of records are of the same places."""
    if len(one) != len(two):
        return False
    for number in range(len(one)):
        if at(columns, tables, one[number], SPOT) != at(columns, tables, two[number], SPOT):
            return False
    return True
