"""What the compiled functions look at: columns of records, and tables of places, headers and packets they point to.

A *place* is what the entry that made a copy determines (chassis, observation point, logical datapath, ports, peer);
*headers* are a packet's addresses and TTL there. Both are few beside the records, so all text becomes numbers here,
once, and nothing compiled ever sees a name. Equal numbers mean equal values; their order means nothing, except for
sources. What is the same at all records of a packet stands in a row of its own; there may be several such rows for one
packet: of each blob one, and where its ports were rewritten.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Columns of the table of places. A source is an agent: a chassis and its incarnation; their order is that of the names.
SOURCE, CHASSIS, PEER, POINT, DATAPATH, CROSSES, IN_KEY, OUT_KEY, USE, PAIR, SPOT, VISIT, FLAGS = range(13)
PLACE_COLUMNS = 16
"""A row of 16 numbers of 32 bits fills a cache line."""
NO_CHASSIS = -1

# Bits of FLAGS.
SENT, GROUP = 1, 2

# Columns of the table of headers.
SRC, DST, TO_GROUP, TTL = range(4)
HEADER_COLUMNS = 4

# `Point`, as numbers that compiled code knows.
FIRST_HOP, INGRESS, REMOTE_OUTPUT, LOGICAL_EGRESS, EGRESS = range(5)

# How a packet's records end (`Disposition`), by number.
AT_EGRESS, AT_SENT, AT_STOPPED, AT_UNPLANNED = range(4)


class Columns(NamedTuple):
    """One row a record.

    Attributes:
        place, header, packet: int32, rows of the tables; seq, mono_ns: int64.
    """

    place: np.ndarray
    header: np.ndarray
    packet: np.ndarray
    seq: np.ndarray
    mono_ns: np.ndarray


class Tables(NamedTuple):
    """The tables that records point to.

    Attributes:
        places: int32, `PLACE_COLUMNS` wide. SOURCE, CHASSIS, PEER (NO_CHASSIS: none), USE (color and epoch), PAIR (task
            and pair; -1: not a first hop), SPOT (the place as paths tell it apart: no incarnation, color or DSCP),
            VISIT (spot and incarnation). CROSSES is the datapath on both sides of a tunnel, 0 between plain bridges.
        headers: int32, `HEADER_COLUMNS` wide: SRC, DST (an address has one number in both), TO_GROUP (1: the Ethernet
            address is a group's), TTL.
        keys, ports: int64, of each packet: its key; its source port times 65536 and its destination port.
        goals: int32, one row a pair: DATAPATH, OUT_KEY, CHASSIS where its packets should come out; -1: no one place.
    """

    places: np.ndarray
    headers: np.ndarray
    keys: np.ndarray
    ports: np.ndarray
    goals: np.ndarray


class Packets(NamedTuple):
    """What the compiled functions give: one row a packet, and the rows of records that it has.

    Attributes:
        first: row of its first-hop record. start, length: where its hops stand in `hops`, in path order.
        disposition: AT_…; copy: number among packets of its key; gap, ambiguous: 0 or 1; path: row of `paths`.
        group: number of its key. others_start, others_length: its records that are no hops, in `others`.
        hops, others: rows of records.
        paths: int64, one row a distinct path: pair, disposition, packets, start and length in `path_places`.
        path_places: rows of the table of places, hop by hop.
        delays: int64, one row a hop of a path, as `path_places`: the shortest, longest and summed time since the hop
            before it, by the clocks of the one or two chassis, in nanoseconds. Of one chassis it is a latency.
        counts: records that were there more than once; keys without a first-hop record; their records.
    """

    first: np.ndarray
    start: np.ndarray
    length: np.ndarray
    disposition: np.ndarray
    copy: np.ndarray
    gap: np.ndarray
    ambiguous: np.ndarray
    path: np.ndarray
    group: np.ndarray
    others_start: np.ndarray
    others_length: np.ndarray
    hops: np.ndarray
    others: np.ndarray
    paths: np.ndarray
    path_places: np.ndarray
    delays: np.ndarray
    counts: np.ndarray
