"""Reconstruction while records come in: in micro-batches, with bounded state, to the answer of the whole at once.

A packet is *settled* when nothing of it came for `settle_ns`, and *closed* `horizon_ns` later. Until then its records
are kept, and a straggler changes its outcome, which is told as a correction. What comes later still is late: such a
record has no packet any more, and is counted with those that have no first hop. Times are those of the reader's own
clock at which records came in; no chassis's clock takes part.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vtrace.collect.blobs import compact, flat, pruned
from vtrace.model.record import EvidenceRecord, StreamEnd
from vtrace.reconstruct.answers import KINDS, Answers, answers
from vtrace.reconstruct.columns import Prepared, prepare
from vtrace.reconstruct.gathering import Gathered
from vtrace.reconstruct.grouping import group
from vtrace.reconstruct.parts import Part, part_of
from vtrace.reconstruct.schema import Goal
from vtrace.reconstruct.streams import Streams

_FAR_NS = 1 << 62
SETTLE_NS = 1_000_000_000
HORIZON_NS = 30_000_000_000

CORRECTION_SCHEMA: pa.Schema = pa.schema(
    [
        ("color", pa.uint8()),
        ("epoch", pa.int64()),
        ("key", pa.int64()),
        ("copy", pa.int32()),
        ("task", pa.string()),
        ("pair", pa.int32()),
        ("before", pa.string()),
        ("after", pa.string()),
    ]
)
"""A packet that was told to have ended one way and ended another: `before` and `after` are kinds (answers.KINDS)."""


_NAME = ("color", "epoch", "key", "copy")
# So many batches are kept apart at most; more are joined, with one dictionary of places and of headers.
_MOST_BATCHES = 32


class Incremental:
    """Takes records in and tells what became of their packets.

    Attributes:
        records, repeated: how many came in, and how many of them had been there before.
    """

    def __init__(
        self,
        ends: Iterable[StreamEnd] = (),
        *,
        goals: Mapping[tuple[str, int], Goal] | None = None,
        settle_ns: int = SETTLE_NS,
        horizon_ns: int = HORIZON_NS,
    ) -> None:
        """Begins.

        Args:
            ends: what agents have written so far, if they told; `expect` takes later news.
            goals: where the packets of each (task, pair) should come out, if that is one place.
            settle_ns, horizon_ns: since a packet's last record came: its outcome is told; its records are forgotten.
        """
        self._streams = Streams(ends)
        self._closed = Gathered()
        self._goals = goals
        self._settle_ns, self._close_ns = settle_ns, settle_ns + horizon_ns
        self._open: list[pa.RecordBatch] = []
        self._came_ns: list[np.ndarray] = []
        self._told = _outcomes(None)
        self.records = 0
        self.repeated = 0

    @property
    def open_records(self) -> int:
        """How many records are kept."""
        return sum(batch.num_rows for batch in self._open)

    def expect(self, ends: Iterable[StreamEnd]) -> None:
        """Takes note of what agents have written so far."""
        self._streams.expect({(e.chassis, e.incarnation, e.color, e.epoch): e.written for e in ends})

    def add(self, batch: pa.RecordBatch, now_ns: int) -> None:
        """Takes records in.

        Args:
            batch: in the compact form, in any order; what was there before is left out.
            now_ns: the reader's clock.
        """
        if not batch.num_rows:
            return
        self.records += batch.num_rows
        self._streams.believe(self.records)
        prepared = prepare([batch])
        columns = prepared.columns
        stream = self._streams.numbers(prepared.places)
        self._streams.reach(stream, columns.place, columns.seq)
        new, spans = self._streams.mark(stream, columns.place, columns.seq, columns.mono_ns)
        self._streams.widen(spans)
        self.repeated += batch.num_rows - int(new.sum())
        self._keep([*self._open, _cut(batch, new)], [*self._came_ns, np.full(int(new.sum()), now_ns)])

    def advance(self, now_ns: int) -> pa.Table:
        """Settles and closes packets.

        Returns:
            Corrections: packets that were settled before, and have another outcome now.
        """
        if not self._open:
            return CORRECTION_SCHEMA.empty_table()
        prepared = prepare(self._open)
        order, starts = group(prepared.columns, prepared.tables)
        came_ns = np.concatenate(self._came_ns)
        age_ns = np.empty(len(order), np.int64)
        age_ns[order] = now_ns - np.repeat(np.maximum.reduceat(came_ns[order], starts[:-1]), np.diff(starts))
        corrections = self._tell(self._chosen(age_ns >= self._settle_ns))
        closing = age_ns >= self._close_ns
        if closing.any():
            self._close(prepared, closing, came_ns)
        return corrections

    def answers(self, evidence: Iterable[EvidenceRecord] = ()) -> Answers:
        """What is known by now, open packets as far as they got."""
        gathered = self._closed
        if self._open:
            gathered = copy.deepcopy(gathered)
            gathered.add(part_of(self._open, self._goals))
        found = answers(gathered, self._streams, evidence)
        return msgspec.structs.replace(found, records=self.records, repeated=self.repeated)

    def _keep(self, batches: Iterable[pa.RecordBatch], came_ns: Iterable[np.ndarray]) -> None:
        kept = [(batch, came) for batch, came in zip(batches, came_ns, strict=True) if batch.num_rows]
        self._open, self._came_ns = [batch for batch, _ in kept], [came for _, came in kept]
        if len(self._open) > _MOST_BATCHES:
            # Blobs are of the narrowest types, each of its own.
            parts = [flat(pa.Table.from_batches([batch])) for batch in self._open]
            self._open = [compact(pa.concat_tables(parts))]
            self._came_ns = [np.concatenate(self._came_ns)]

    def _chosen(self, chosen: np.ndarray) -> list[pa.RecordBatch]:
        """Of each open batch the rows that are chosen."""
        ends = np.cumsum([batch.num_rows for batch in self._open])
        cut = [_cut(batch, own) for batch, own in zip(self._open, np.split(chosen, ends[:-1]), strict=True)]
        return [batch for batch in cut if batch.num_rows]

    def _close(self, prepared: Prepared, closing: np.ndarray, came_ns: np.ndarray) -> None:
        part = part_of(self._chosen(closing), self._goals)
        self._closed.add(part)
        self._told = self._told.join(_outcomes(part), list(_NAME), join_type="left anti")
        # What these chassis had written by then came long ago, or not at all.
        places, mono_ns = prepared.columns.place[closing], prepared.columns.mono_ns[closing]
        latest = np.full(prepared.places.num_rows, -_FAR_NS, np.int64)
        np.maximum.at(latest, places, mono_ns)
        before_ns: dict[str, int] = {}
        for chassis, at_ns in zip(prepared.places.column("chassis").to_pylist(), latest.tolist(), strict=True):
            before_ns[chassis] = max(before_ns.get(chassis, at_ns), at_ns)
        self._streams.settle(before_ns)
        left = np.split(~closing, np.cumsum([batch.num_rows for batch in self._open])[:-1])
        self._keep(
            [_cut(batch, own) for batch, own in zip(self._open, left, strict=True)],
            [
                came[own]
                for came, own in zip(np.split(came_ns, np.cumsum([len(o) for o in left])[:-1]), left, strict=True)
            ],
        )

    def _tell(self, batches: list[pa.RecordBatch]) -> pa.Table:
        """Notes the outcomes of settled packets; those that differ from what was noted before."""
        if not batches:
            return CORRECTION_SCHEMA.empty_table()
        settled = _outcomes(part_of(batches, self._goals))
        both = settled.join(
            self._told.select([*_NAME, "after"]).rename_columns([*_NAME, "before"]), list(_NAME), join_type="inner"
        )
        changed = both.filter(pc.not_equal(both.column("before"), both.column("after")))
        self._told = pa.concat_tables([self._told.join(settled, list(_NAME), join_type="left anti"), settled])
        return changed.select(CORRECTION_SCHEMA.names).cast(CORRECTION_SCHEMA)


def _cut(batch: pa.RecordBatch, chosen: np.ndarray) -> pa.RecordBatch:
    """The rows that are chosen, with their packets and no others."""
    return pruned(batch.filter(pa.array(chosen)))


def _outcomes(part: Part | None) -> pa.Table:
    """Of each packet of a part its name, pair and what became of it."""
    schema = CORRECTION_SCHEMA.remove(CORRECTION_SCHEMA.get_field_index("before"))
    if part is None:
        return schema.empty_table()
    prepared = part.prepared
    places = prepared.places.take(pa.array(prepared.columns.place[part.found.first]))
    pairs = prepared.pairs.take(pa.array(part.rows.pair))
    kinds = pa.array([KINDS[number] for number in range(len(KINDS))])
    return pa.table(
        [
            places.column("color"),
            places.column("epoch"),
            pa.array(prepared.packets["key"]).take(pa.array(prepared.columns.packet[part.found.first])),
            pa.array(part.found.copy),
            pairs.column("task"),
            pairs.column("pair"),
            kinds.take(pa.array(part.rows.disposition)),
        ],
        schema=schema,
    )
