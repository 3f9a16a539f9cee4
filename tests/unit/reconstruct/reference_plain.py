"""Reconstruction in plain Python, which the kernel is held against: clear rather than fast.

Records are grouped by (color, epoch, packet key). Within a group hops are chained by what the records say: where
one says the packet goes next against where the next says it came from. Clocks of two hosts are never compared.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence

import pyarrow as pa
from reference_chaining import Row, chain, is_flooded, is_for_group, leads_to
from reference_splitting import follows, place, split_copies

from vtrace.model.record import Disposition, LogRecord, Point
from vtrace.model.record_schema import RECORD_SCHEMA, from_table
from vtrace.reconstruct.schema import PACKET_SCHEMA, PATH_SCHEMA, Goal, Reconstruction


def reconstruct(table: pa.Table, goals: Mapping[tuple[str, int], Goal] | None = None) -> Reconstruction:
    """Chains records into paths.

    Args:
        table: records of `RECORD_SCHEMA`, in any order, repeated or not.
        goals: the port that each pair's packets are meant for: of a broadcast's copies that for it is shown.

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
            first = copy[0][1]
            hops, gap = chain(copy, (goals or {}).get((first.task, first.pair)))
            if not is_flooded(copy):
                gap = any(not _goes_on(one, two) for (_, one), (_, two) in itertools.pairwise(hops))
            disposition = _disposition(hops)
            shown = {i for i, _ in hops}
            signature = (first.pair, disposition, *(place(record) for _, record in hops))
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
                    others=[i for i, _ in copy if i not in shown],
                )
            )
    return Reconstruction(
        records=records,
        packets=pa.Table.from_pylist(packets, schema=PACKET_SCHEMA),
        paths=pa.Table.from_pylist(list(paths.values()), schema=PATH_SCHEMA),
        unclaimed=unclaimed,
    )


def canonical(table: pa.Table) -> pa.Table:
    """Each record once, in the order of (chassis, incarnation, color, epoch, seq)."""
    identity = ("chassis", "incarnation", "color", "epoch", "seq")
    ordered = table.select(RECORD_SCHEMA.names).sort_by([(name, "ascending") for name in identity])
    seen: set[tuple[object, ...]] = set()
    keep = []
    columns = (ordered[name].to_pylist() for name in identity)
    for number, own in enumerate(zip(*columns, strict=True)):
        if own not in seen:
            seen.add(own)
            keep.append(number)
    return ordered.take(pa.array(keep, pa.int64()))


def _goes_on(last: LogRecord, record: LogRecord) -> bool:
    """Whether nothing can be missing between two hops."""
    here = (last.chassis, last.incarnation) == (record.chassis, record.incarnation)
    if here and record.point not in (Point.FIRST_HOP, Point.INGRESS) and follows(last, record):
        return True
    return any(leads_to(last, record, exact=exact) for exact in (True, False))


def _disposition(hops: Sequence[Row]) -> Disposition:
    last = hops[-1][1]
    if last.point == Point.EGRESS:
        return Disposition.EGRESS
    if last.point == Point.REMOTE_OUTPUT:
        return Disposition.SENT if last.peer or is_for_group(last) else Disposition.UNPLANNED
    return Disposition.STOPPED


def _first_hop_ranks(rows: Sequence[Row]) -> dict[int, int]:
    count: dict[tuple[str, int], int] = defaultdict(int)
    ranks = {}
    # In the order of each chassis's own clock: numbers begin again with every incarnation, color and epoch.
    for number, record in sorted(rows, key=lambda row: (row[1].mono_ns, row[1].epoch, row[1].color, row[1].seq)):
        if record.point == Point.FIRST_HOP:
            ranks[number] = count[(record.chassis, record.pair)]
            count[(record.chassis, record.pair)] += 1
    return ranks
