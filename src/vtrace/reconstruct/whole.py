"""Reconstruction of a table of records at once: each packet with its records, in a form that `attribute` reads."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from vtrace.collect.blobs import compact
from vtrace.model.record import Disposition, Point
from vtrace.model.record_schema import RECORD_SCHEMA
from vtrace.reconstruct.columns import Prepared, prepare
from vtrace.reconstruct.kernel import reconstruct_columns
from vtrace.reconstruct.layout import Packets
from vtrace.reconstruct.numbering import row_numbers
from vtrace.reconstruct.schema import PACKET_SCHEMA, PATH_SCHEMA, Goal, Reconstruction

# By number of `layout.AT_…`.
DISPOSITIONS = (Disposition.EGRESS, Disposition.SENT, Disposition.STOPPED, Disposition.UNPLANNED)
# What tells one record from another: its log stream, and its number there.
IDENTITY = ("chassis", "incarnation", "color", "epoch", "seq")


def reconstruct(table: pa.Table, goals: Mapping[tuple[str, int], Goal] | None = None) -> Reconstruction:
    """Chains records into paths.

    Args:
        table: records of `RECORD_SCHEMA`, in any order, repeated or not.
        goals: the port that the packets of each (task, pair) are meant for: of a broadcast's copies that for it is
            shown.

    Returns:
        The same for every order and repetition of the same records.
    """
    records = canonical(table)
    prepared = prepare([compact(records)], goals)
    found = reconstruct_columns(prepared.columns, prepared.tables)
    packets, paths = _tables(records, prepared, found)
    return Reconstruction(records=records, packets=packets, paths=paths, unclaimed=int(found.counts[1]))


def canonical(table: pa.Table) -> pa.Table:
    """Each record once, in the order of (chassis, incarnation, color, epoch, seq)."""
    known = table.select(RECORD_SCHEMA.names)
    _, first = row_numbers([known.column(name) for name in IDENTITY])
    return known.take(pa.array(first)).sort_by([(name, "ascending") for name in IDENTITY])


def _tables(records: pa.Table, prepared: Prepared, found: Packets) -> tuple[pa.Table, pa.Table]:
    first = found.first
    values = {name: records.column(name).to_numpy()[first] for name in ("color", "epoch", "key", "pair")}
    order = np.lexsort((found.copy, values["key"], values["epoch"], values["color"]))
    paths, number = _renumbered(found.path[order])
    packets = pa.table(
        [
            *(values[name][order] for name in ("color", "epoch", "key")),
            found.copy[order],
            records.column("task").take(pa.array(first[order])),
            values["pair"][order],
            _ranks(records, first)[order],
            number,
            pa.array(DISPOSITIONS).take(pa.array(found.disposition[order])),
            *(pa.array(flags[order] != 0) for flags in (found.gap, found.ambiguous)),
            *(
                _lists(starts[order], lengths[order], rows)
                for starts, lengths, rows in (
                    (found.start, found.length, found.hops),
                    (found.others_start, found.others_length, found.others),
                )
            ),
        ],
        names=PACKET_SCHEMA.names,
    ).cast(PACKET_SCHEMA)
    shown = order[paths]
    table = pa.table(
        [
            values["pair"][shown],
            pa.array(DISPOSITIONS).take(pa.array(found.disposition[shown])),
            np.bincount(number, minlength=len(paths)),
            _lists(found.start[shown], found.length[shown], found.hops),
        ],
        names=PATH_SCHEMA.names,
    ).cast(PATH_SCHEMA)
    return packets, table


def _renumbered(path: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each path a packet that took it, in the order of their first packets; and for each packet its path."""
    _, first, number = np.unique(path, return_index=True, return_inverse=True)
    order = np.argsort(first)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return first[order], ranks[number]


def _lists(starts: np.ndarray, lengths: np.ndarray, rows: np.ndarray) -> pa.ListArray:
    """Lists of rows, in the order of their starts and lengths."""
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    taken = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(starts, lengths)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows[taken].astype(np.int64)))


def _ranks(records: pa.Table, first: np.ndarray) -> np.ndarray:
    """Of each packet the rank of its first-hop record among those of its chassis and pair, by the chassis's clock."""
    hops = np.flatnonzero(records.column("point").to_numpy() == Point.FIRST_HOP)
    rows = records.take(pa.array(hops))
    group, _ = row_numbers([rows.column("chassis"), rows.column("pair")])
    keys = [rows.column(name).to_numpy() for name in ("seq", "color", "epoch", "mono_ns")]
    order = np.lexsort((*keys, group))
    begins = np.searchsorted(group[order], group[order], side="left")
    ranks = np.empty(records.num_rows, np.int64)
    ranks[hops[order]] = np.arange(len(order)) - begins
    return ranks[first]
