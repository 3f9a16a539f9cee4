"""Reconstructs records that are stored in a file: part by part, on several cores.

A blob store is read in parts of whole buckets, since a bucket has all records of its keys: only a part for each core is
in memory at a time. Any other file is read whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from vtrace.analyzer.working import Goals, Source, gathered, shared_zeros
from vtrace.collect import blobs
from vtrace.collect.store import BlobStore, StoredBlob, is_blob_store, read_records
from vtrace.model.record import EvidenceRecord, StreamEnd
from vtrace.model.record_schema import evidence_of, streams_of
from vtrace.reconstruct.answers import Answers, answers
from vtrace.reconstruct.columns import prepare
from vtrace.reconstruct.gathering import Gathered
from vtrace.reconstruct.streams import Streams

# A part of about so many records fits into a core's own cache, and its fixed costs are small beside it.
PART_RECORDS = 150_000


class OfBlobs(msgspec.Struct, frozen=True):
    """A part of a blob store."""

    stored: tuple[StoredBlob, ...]

    def read(self) -> Sequence[pa.RecordBatch]:
        """Decodes its blobs."""
        return [blobs.decode(one.blob) for one in self.stored]


class OfTable(msgspec.Struct, frozen=True):
    """The rows of a table that make up a part."""

    table: pa.Table
    rows: np.ndarray

    def read(self) -> Sequence[pa.RecordBatch]:
        """Brings its rows into the compact form."""
        return [blobs.compact(self.table.take(pa.array(self.rows)))]


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """Records, in parts that can be read again and again."""

    parts: Sequence[Source]
    ends: tuple[StreamEnd, ...]
    evidence: tuple[EvidenceRecord, ...] = ()
    records: int


def open_stored(path: Path) -> Stored:
    """The records of a file.

    Raises:
        UsageError: it can't be read, or holds no log records.
    """
    if not is_blob_store(path):
        table = read_records(path)
        metadata = table.schema.metadata
        parts = [OfTable(table, rows) for rows in _by_key(table.column("key").to_numpy())]
        ends, evidence = streams_of(metadata), evidence_of(metadata)
        return Stored(parts=parts, ends=ends, evidence=evidence, records=table.num_rows)
    store = BlobStore(path)
    buckets: dict[tuple[int, int, int], list[StoredBlob]] = defaultdict(list)
    for one in store:
        buckets[one.color, one.epoch, one.bucket].append(one)
    blob_parts = [OfBlobs(tuple(group)) for group in _joined(buckets)]
    records = sum(one.records for group in buckets.values() for one in group)
    return Stored(parts=blob_parts, ends=store.ends, evidence=store.evidence, records=records)


def _by_key(keys: np.ndarray) -> list[np.ndarray]:
    """Rows, divided by their keys into parts of the size that is wanted; in their order."""
    parts = -(-len(keys) // PART_RECORDS)
    if parts <= 1:
        return [np.arange(len(keys))] if len(keys) else []
    part = (keys.view(np.uint64) % np.uint64(parts)).astype(np.int64)
    order = np.argsort(part, kind="stable")
    return np.split(order, np.cumsum(np.bincount(part, minlength=parts))[:-1])


def _joined(buckets: Mapping[tuple[int, int, int], list[StoredBlob]]) -> Iterator[list[StoredBlob]]:
    """Buckets, several together where they are small."""
    waiting: list[StoredBlob] = []
    for name in sorted(buckets):
        waiting += buckets[name]
        if sum(one.records for one in waiting) >= PART_RECORDS:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def reconstruct_stored(stored: Stored, *, cores: int = 1, goals: Goals | None = None) -> Answers:
    """What became of the packets whose records are stored.

    Args:
        cores: how many parts are worked on at once, each by a process of its own.
        goals: where the packets of each (task, pair) should come out, if that is one place.
    """
    with gather(stored, cores=cores, goals=goals) as (found, streams):
        return answers(found, streams, stored.evidence)


@contextmanager
def gather(stored: Stored, *, cores: int = 1, goals: Goals | None = None) -> Iterator[tuple[Gathered, Streams]]:
    """All that answers are made of: every packet, and which records are at hand of each log stream.

    Args:
        cores, goals: as for `reconstruct_stored`.
    """
    cores = min(cores, len(stored.parts))
    streams = Streams(stored.ends, records=stored.records, zeros=shared_zeros if cores > 1 else None)
    if not stored.ends:
        # Nobody told how many records there should be: that is found out first, since workers share the room for it.
        for part in stored.parts:
            prepared = prepare(part.read())
            streams.reach(streams.numbers(prepared.places), prepared.columns.place, prepared.columns.seq)
    with gathered(stored.parts, streams, goals, cores) as found:
        yield found, streams
