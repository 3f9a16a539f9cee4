"""One part of the records: all of some packet keys. What the kernel finds there, cut down to what answers need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import pyarrow as pa

from vtrace.reconstruct.columns import Prepared, column, prepare
from vtrace.reconstruct.kernel import reconstruct_columns
from vtrace.reconstruct.layout import CHASSIS, Packets
from vtrace.reconstruct.schema import Goal

FLAG_GAP, FLAG_AMBIGUOUS, FLAG_MISSING, FLAG_COPIED = 1, 2, 4, 8
# What a packet was like at its first hop: fields of the record.
TRAITS = ("length_bytes", "sport", "dport", "ct_state", "tcp_flags", "fragment")


class PacketRows(msgspec.Struct, frozen=True, kw_only=True):
    """One row a packet. Numbers of pairs and paths are those of the owner.

    Attributes:
        pair, path, disposition: int32, int32, uint8 (`layout.AT_…`).
        order_ns: when its first-hop record was written, by the clock of `first_chassis`: both give it its place.
        last_seq, last_ns: number and time of its last record; last_place: its place.
        flags: FLAG_…
        backend: number of the address that it had at last.
        traits: the fields of `TRAITS`, and `proto`.
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
        backends: the addresses that packets had at last.
    """

    prepared: Prepared
    found: Packets
    rows: PacketRows
    backends: list[str]

    @property
    def records(self) -> int:
        return len(self.prepared.columns.key)


def part_of(batches: Sequence[pa.RecordBatch], goals: Mapping[tuple[str, int], Goal] | None = None) -> Part:
    """Reconstructs the packets of a part.

    Args:
        batches: records in the compact form, all that there are of their keys.
        goals: where the packets of each (task, pair) should come out, if that is one place.
    """
    prepared = prepare(batches, goals)
    found = reconstruct_columns(prepared.columns, prepared.tables)
    columns, places = prepared.columns, prepared.tables.places
    first = found.first
    last = found.hops[found.start + found.length - 1]
    headers = columns.header[last]
    used, backend = np.unique(headers, return_inverse=True)
    return Part(
        prepared=prepared,
        found=found,
        rows=PacketRows(
            pair=found.paths[:, 0].astype(np.int32)[found.path],
            path=found.path,
            disposition=found.disposition,
            first_chassis=places[columns.place[first], CHASSIS],
            order_ns=columns.mono_ns[first],
            last_seq=columns.seq[last],
            last_ns=columns.mono_ns[last],
            last_place=columns.place[last],
            flags=found.gap * np.uint8(FLAG_GAP)
            | found.ambiguous * np.uint8(FLAG_AMBIGUOUS)
            | (found.others_length > 0) * np.uint8(FLAG_COPIED),
            backend=backend.astype(np.int32),
            traits={name: column(batches, name)[first] for name in TRAITS}
            | {"proto": prepared.headers.column("proto").to_numpy()[columns.header[first]]},
        ),
        backends=prepared.headers.column("dst").take(pa.array(used)).to_pylist(),
    )
