"""One part of the records: all of some packet keys. What the kernel finds there, cut down to what answers need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import pyarrow as pa

from vtrace.compiled import compiled
from vtrace.reconstruct.columns import Prepared, addresses, prepare
from vtrace.reconstruct.distinct import PATH_PAIR
from vtrace.reconstruct.kernel import reconstruct_columns
from vtrace.reconstruct.layout import CHASSIS, DST, Columns, Packets, Tables
from vtrace.reconstruct.schema import Goal

FLAG_GAP, FLAG_AMBIGUOUS, FLAG_MISSING, FLAG_COPIED = 1, 2, 4, 8
# Columns of `Part.counts` beside the dispositions (`layout.AT_…`).
WITH_GAP, AMBIGUOUS = 4, 5
COUNTS = 6
# What a packet was like at its first hop: fields of the record.
TRAITS_OF_PACKET = ("length_bytes", "sport", "dport", "tcp_flags", "fragment")
TRAITS_OF_HEADERS = ("ct_state", "proto")


class PacketRows(msgspec.Struct, frozen=True, kw_only=True):
    """One row a packet. Numbers of pairs and paths are those of the owner.

    Attributes:
        pair, path, disposition: int32, int32, uint8 (`layout.AT_…`).
        order_ns: when its first-hop record was written, by the clock of `first_chassis`: both give it its place.
        last_seq, last_ns: number and time of its last record; last_place: its place.
        flags: FLAG_…
        backend: number of the destination address that it had at last.
        traits: the fields of `TRAITS_OF_PACKET` and `TRAITS_OF_HEADERS`.
    """

    pair: np.ndarray
    path: np.ndarray
    disposition: np.ndarray
    first_chassis: np.ndarray
    order_ns: np.ndarray
    last_seq: np.ndarray
    last_ns: np.ndarray
    last_place: np.ndarray
    flags: np.ndarray
    backend: np.ndarray
    traits: dict[str, np.ndarray]

    def columns(self) -> dict[str, np.ndarray]:
        """All columns by name."""
        own = {name: getattr(self, name) for name in self.__struct_fields__ if name != "traits"}
        return own | {f"trait_{name}": values for name, values in self.traits.items()}


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in a part. Numbers of pairs, places, paths and backends are the part's own.

    Attributes:
        prepared: the records; found: what the kernel made of them; rows: the packets.
        counts: int64, for each pair how many packets ended each way, and WITH_GAP, AMBIGUOUS.
        backends: the addresses that packets had, by number.
    """

    prepared: Prepared
    found: Packets
    rows: PacketRows
    counts: np.ndarray
    backends: list[str]

    @property
    def records(self) -> int:
        return len(self.prepared.columns.place)


def part_of(batches: Sequence[pa.RecordBatch], goals: Mapping[tuple[str, int], Goal] | None = None) -> Part:
    """Reconstructs the packets of a part.

    Args:
        batches: records in the compact form, all that there are of their keys.
        goals: where the packets of each (task, pair) should come out, if that is one place.
    """
    prepared = prepare(batches, goals)
    found = reconstruct_columns(prepared.columns, prepared.tables)
    counts = np.zeros((prepared.pairs.num_rows, COUNTS), np.int64)
    pair, chassis, order_ns, last_seq, last_ns, last_place, flags, backend = _rows_of(
        prepared.columns, prepared.tables, found, counts
    )
    packet, header = prepared.columns.packet[found.first], prepared.columns.header[found.first]
    traits = {name: prepared.packets[name][packet] for name in TRAITS_OF_PACKET}
    traits |= {name: prepared.headers.column(name).to_numpy()[header] for name in TRAITS_OF_HEADERS}
    return Part(
        prepared=prepared,
        found=found,
        rows=PacketRows(
            pair=pair,
            path=found.path,
            disposition=found.disposition,
            first_chassis=chassis,
            order_ns=order_ns,
            last_seq=last_seq,
            last_ns=last_ns,
            last_place=last_place,
            flags=flags,
            backend=backend,
            traits=traits,
        ),
        counts=counts,
        backends=addresses(prepared.headers),
    )


@compiled
def _rows_of(columns: Columns, tables: Tables, found: Packets, counts: np.ndarray) -> tuple[np.ndarray, ...]:
    """The columns of `PacketRows` that have to be made: of each packet its pair, and of its first and last record."""
    place, header, seq, mono_ns = columns.place, columns.header, columns.seq, columns.mono_ns
    places, headers = tables.places, tables.headers
    first, start, length, hops, others = found.first, found.start, found.length, found.hops, found.others_length
    gap, ambiguous, path, paths, disposition = found.gap, found.ambiguous, found.path, found.paths, found.disposition
    packets = len(first)
    pair, chassis, last_place, backend = (
        np.empty(packets, np.int32),
        np.empty(packets, np.int32),
        np.empty(packets, np.int32),
        np.empty(packets, np.int32),
    )
    order_ns, last_seq, last_ns = np.empty(packets, np.int64), np.empty(packets, np.int64), np.empty(packets, np.int64)
    flags = np.empty(packets, np.uint8)
    for packet in range(packets):
        row, last = first[packet], hops[start[packet] + length[packet] - 1]
        own = paths[path[packet], PATH_PAIR]
        pair[packet] = own
        chassis[packet] = places[place[row], CHASSIS]
        order_ns[packet] = mono_ns[row]
        last_seq[packet], last_ns[packet], last_place[packet] = seq[last], mono_ns[last], place[last]
        backend[packet] = headers[header[last], DST]
        mark = FLAG_COPIED if others[packet] > 0 else 0
        counts[own, disposition[packet]] += 1
        if gap[packet]:
            mark |= FLAG_GAP
            counts[own, WITH_GAP] += 1
        if ambiguous[packet]:
            mark |= FLAG_AMBIGUOUS
            counts[own, AMBIGUOUS] += 1
        flags[packet] = mark
    return pair, chassis, order_ns, last_seq, last_ns, last_place, flags, backend
