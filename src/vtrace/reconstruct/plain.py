"""Reconstruction, plain: clear rather than fast, for thousands of records.

Records are grouped by (color, epoch, packet key). Within a group hops are chained by what the records say: where
one says the packet goes next against where the next says it came from. Clocks of two hosts are never compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pyarrow as pa

from vtrace.model.record import Disposition, LogRecord, Point
from vtrace.model.record_schema import RECORD_SCHEMA, from_table
from vtrace.reconstruct.chaining import Row, chain
from vtrace.reconstruct.schema import PACKET_SCHEMA, PATH_SCHEMA, Reconstruction


def reconstruct(table: pa.Table) -> Reconstruction:
    """Chains records into paths.

    Args:
        table: records of `RECORD_SCHEMA`, in any order, repeated or not.

    Returns:
        The same for every order and repetition of the same records.
    """
    records = canonical(table)
    rows = list(enumerate(from_table(records)))
    groups: dict[tuple[int, int, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[(row[1].color, row[1].epoch, row[1].key)].append(row)
    ranks = _first_hop_ranks(rows)
    packets: list[dict[str, object]] = []
    paths: dict[tuple[object, ...], dict[str, object]] = {}
    unclaimed = 0
    for identity in sorted(groups):
        copies = split_copies(groups[identity])
        if not copies:
            unclaimed += 1
        for number, copy in enumerate(copies):
            hops, gap = chain(copy)
            disposition = _disposition(hops)
            first = copy[0][1]
            signature = (first.pair, disposition, *(_place(record) for _, record in hops))
            path = paths.setdefault(
                signature,
                {"pair": first.pair, "disposition": disposition, "packets": 0, "hops": [i for i, _ in hops]},
            )
            path["packets"] = int(str(path["packets"])) + 1
            packets.append(
                dict(
                    zip(PACKET_SCHEMA.names[:3], identity, strict=True),
                    copy=number,
                    task=first.task,
                    pair=first.pair,
                    order=ranks[copy[0][0]],
                    path=list(paths).index(signature),
                    disposition=disposition,
                    gap=gap,
                    ambiguous=len(copies) > 1,
                    hops=[i for i, _ in hops],
                )
            )
    return Reconstruction(
        records=records,
        packets=pa.Table.from_pylist(packets, schema=PACKET_SCHEMA),
        paths=pa.Table.from_pylist(list(paths.values()), schema=PATH_SCHEMA),
        unclaimed=unclaimed,
    )


def canonical(table: pa.Table) -> pa.Table:
    """Each record once, in the order of (chassis, incarnation, seq)."""
    ordered = table.select(RECORD_SCHEMA.names).sort_by(
        [("chassis", "ascending"), ("incarnation", "ascending"), ("seq", "ascending")]
    )
    seen: set[tuple[str, int, int]] = set()
    keep = []
    columns = (ordered[name].to_pylist() for name in ("chassis", "incarnation", "seq"))
    for number, identity in enumerate(zip(*columns, strict=True)):
        if identity not in seen:
            seen.add(identity)
            keep.append(number)
    return ordered.take(pa.array(keep, pa.int64()))


def split_copies(group: Sequence[Row]) -> list[list[Row]]:
    """Divides the records of one key among the packets that have it: as many as there are first-hop records.

    A record with the five-tuple of some of them belongs to one of these (two pairs may send the same datagram);
    of the others any may be the one (NAT changed the five-tuple). Of a place the k-th record belongs to the k-th
    packet that it may belong to. Counts are right then, though with losses which of several identical packets was
    lost can't be known. What is more at a place than packets (a multicast copy, a mirror, a packet whose first-hop
    record is missing) belongs to none.
    """
    copies = [[row] for row in group if row[1].point == Point.FIRST_HOP]
    count: dict[tuple[object, ...], int] = defaultdict(int)
    for row in group:
        if row[1].point == Point.FIRST_HOP:
            continue
        same = [copy for copy in copies if _five_tuple(copy[0][1]) == _five_tuple(row[1])]
        candidates = same or copies
        # The TTL tells a second visit (a loop) from a second packet.
        visit = (row[1].incarnation, row[1].ttl, *_place(row[1]))
        place = (bool(same), *visit, *(_five_tuple(row[1]) if same else ()))
        if count[place] < len(candidates):
            candidates[count[place]].append(row)
        count[place] += 1
    return copies


def _disposition(hops: Sequence[Row]) -> Disposition:
    last = hops[-1][1]
    if last.point == Point.EGRESS:
        return Disposition.EGRESS
    if last.point == Point.REMOTE_OUTPUT:
        return Disposition.SENT if last.peer else Disposition.UNPLANNED
    return Disposition.STOPPED


def _place(record: LogRecord) -> tuple[object, ...]:
    return (
        record.chassis,
        record.point,
        record.datapath,
        record.in_key,
        record.out_key,
        record.in_ofport,
        record.peer,
    )


def _five_tuple(record: LogRecord) -> tuple[object, ...]:
    return (record.proto, record.src, record.dst, record.sport, record.dport)


def _first_hop_ranks(rows: Sequence[Row]) -> dict[int, int]:
    count: dict[tuple[str, int], int] = defaultdict(int)
    ranks = {}
    for number, record in rows:
        if record.point == Point.FIRST_HOP:
            ranks[number] = count[(record.chassis, record.pair)]
            count[(record.chassis, record.pair)] += 1
    return ranks
