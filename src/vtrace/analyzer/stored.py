"""Reconstructs records that are stored in a file: part by part, on several threads.

A blob store is read in parts of whole buckets, since a bucket has all records of its keys: only a part for each thread
is in memory at a time. Any other file is one part.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from vtrace.collect import blobs
from vtrace.collect.store import BlobStore, StoredBlob, read_records
from vtrace.model.record import EvidenceRecord, StreamEnd
from vtrace.model.record_schema import evidence_of, streams_of
from vtrace.reconstruct.answers import Answers, answers
from vtrace.reconstruct.columns import prepare
from vtrace.reconstruct.gathering import Gathered
from vtrace.reconstruct.parts import part_of
from vtrace.reconstruct.schema import Goal
from vtrace.reconstruct.streams import Streams

# A part of about so many records fits into a core's own cache, and its fixed costs are small beside it.
PART_RECORDS = 150_000
Part = Sequence[pa.RecordBatch]


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """Records, in parts that can be read again and again."""

    parts: Sequence[Source]
    ends: tuple[StreamEnd, ...]
    evidence: tuple[EvidenceRecord, ...] = ()
    records: int


class Source:
    """One part: gives its batches whenever it is asked."""

    def __init__(self, stored: Sequence[StoredBlob] = (), batches: Sequence[pa.RecordBatch] = ()) -> None:
        self._stored = stored
        self._batches = batches

    def read(self) -> Part:
        """All records of the part, in the compact form."""
        return [*self._batches, *(blobs.decode(one.blob) for one in self._stored)]


def is_store(path: Path) -> bool:
    try:
        return "blob" in pa.ipc.open_file(pa.memory_map(str(path))).schema.names
    except (pa.ArrowException, OSError):
        return False


def read_evidence(path: Path) -> tuple[EvidenceRecord, ...]:
    if path.suffix == ".parquet":
        return evidence_of(pq.read_schema(path).metadata)
    return evidence_of(pa.ipc.open_file(pa.memory_map(str(path))).schema.metadata)


def open_stored(path: Path) -> Stored:
    """The records of a file.

    Raises:
        UsageError: it can't be read, or holds no log records.
    """
    if not is_store(path):
        table = read_records(path)
        batches = [blobs.compact(table)] if table.num_rows else []
        ends = streams_of(table.schema.metadata)
        parts = [Source(batches=batches)] if batches else []
        return Stored(parts=parts, ends=ends, evidence=read_evidence(path), records=table.num_rows)
    store = BlobStore(path)
    buckets: dict[tuple[int, int, int], list[StoredBlob]] = defaultdict(list)
    for one in store:
        buckets[one.color, one.epoch, one.bucket].append(one)
    parts = [Source(stored=group) for group in _joined(buckets)]
    records = sum(one.records for group in buckets.values() for one in group)
    return Stored(parts=parts, ends=store.ends, evidence=read_evidence(path), records=records)


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


def reconstruct_stored(
    stored: Stored, *, threads: int = 1, goals: Mapping[tuple[str, int], Goal] | None = None
) -> Answers:
    """What became of the packets whose records are stored.

    Args:
        threads: how many parts are worked on at once.
        goals: where the packets of each (task, pair) should come out, if that is one place.
    """
    streams = Streams(stored.ends, records=stored.records)
    gathered = Gathered()
    lock = threading.Lock()

    def work(source: Source) -> None:
        part = part_of(source.read(), goals)
        columns = part.prepared.columns
        with lock:
            numbers = streams.numbers(part.prepared.places)
        _, spans = streams.mark(numbers, columns.place, columns.seq, columns.mono_ns)
        with lock:
            streams.widen(spans)
            gathered.add(part)

    def reach(source: Source) -> None:
        prepared = prepare(source.read())
        numbers = streams.numbers(prepared.places)
        streams.reach(numbers, prepared.columns.place, prepared.columns.seq)

    if not stored.ends:
        # Nobody told how many records there should be: that is found out first, since threads share the room for it.
        for source in stored.parts:
            reach(source)
    _on_threads(work, stored.parts, threads)
    return answers(gathered, streams, stored.evidence)


def _on_threads(work: object, parts: Iterable[Source], threads: int) -> None:
    assert callable(work)
    if threads <= 1:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, part) for part in parts]:
            done.result()
