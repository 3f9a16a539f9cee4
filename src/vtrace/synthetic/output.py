"""Where generated records go: a Parquet file in the flat form, or a blob store."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vtrace.collect import blobs
from vtrace.collect.store import BlobStoreWriter, writing
from vtrace.model.record_schema import RECORD_SCHEMA, StreamEnd, with_streams
from vtrace.synthetic.chance import Chance, Ints, Purpose
from vtrace.synthetic.delivery import Delivery

PARQUET, BLOBS = ".parquet", ".blobs"
_ROW_GROUP = 250_000
# All other columns have few values.
_VARIED = ("key", "seq", "wall_ns", "mono_ns")
_DICTIONARIES = [name for name in RECORD_SCHEMA.names if name not in _VARIED]
# What is shuffled is in so many parts, each of which has to fit into memory.
_PARTS = 64


class Sink(ABC):
    """Takes deliveries. `size_bytes` is that of the file, once it is closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0

    @abstractmethod
    def add(self, delivery: Delivery) -> None:
        """Writes records."""

    @abstractmethod
    def end_task(self) -> None:
        """Says that what follows is, but for late records, of other tasks."""

    @abstractmethod
    def close(self, ends: list[StreamEnd]) -> None:
        """Completes the file, with what the agents have written in all."""

    @abstractmethod
    def abandon(self) -> None:
        """Leaves nothing."""


class ParquetSink(Sink):
    """The flat form. Row groups have the same length whatever the deliveries' is."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        # The metadata of a schema that Arrow stores could not be completed at the end.
        with writing(path):
            self._writer: Any = pq.ParquetWriter(
                path,
                RECORD_SCHEMA.remove_metadata(),
                compression="zstd",
                compression_level=1,
                use_dictionary=_DICTIONARIES,
                store_schema=False,
            )
        self._waiting: list[pa.Table] = []

    def add(self, delivery: Delivery) -> None:
        self.add_table(delivery.records.table(delivery.rows))

    def add_table(self, table: pa.Table) -> None:
        """Writes a table of `RECORD_SCHEMA`."""
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= _ROW_GROUP:
            waiting = pa.concat_tables(self._waiting)
            whole = len(waiting) // _ROW_GROUP * _ROW_GROUP
            self._write(waiting.slice(0, whole))
            self._waiting = [waiting.slice(whole)]

    def _write(self, table: pa.Table) -> None:
        with writing(self.path):
            self._writer.write_table(table.replace_schema_metadata(None), _ROW_GROUP)

    def end_task(self) -> None:
        pass

    def close(self, ends: list[StreamEnd]) -> None:
        if any(map(len, self._waiting)):
            self._write(pa.concat_tables(self._waiting))
        with writing(self.path):
            self._writer.add_key_value_metadata(with_streams(RECORD_SCHEMA, ends).metadata)
            self._writer.close()
        self.size_bytes = self.path.stat().st_size

    def abandon(self) -> None:
        # A full disk must not hide why it was given up.
        with suppress(OSError):
            self._writer.close()
        self.path.unlink(missing_ok=True)


class ShuffledSink(Sink):
    """Takes records to another sink in no order at all: each first to one of several files, then those one by one.

    Args:
        parts: how many files. One has to fit into memory.
    """

    def __init__(self, to: ParquetSink, parts: int = _PARTS) -> None:
        super().__init__(to.path)
        self._to = to
        self._parts = parts
        self._files: list[IO[bytes]] = []
        self._writers: list[Any] = []
        # In the file of a part the random number that it is sorted by stands beside the records.
        schema = RECORD_SCHEMA.append(pa.field("order", pa.int64()))
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        for _ in range(self._parts):
            with writing(to.path):
                self._files.append(tempfile.TemporaryFile(dir=to.path.parent))  # noqa: SIM115  # closed by close()
            self._writers.append(pa.ipc.new_stream(pa.PythonFile(self._files[-1], "w"), schema, options=options))

    def add(self, delivery: Delivery) -> None:
        part = (delivery.order & 0x7FFF_FFFF) % self._parts
        chosen = np.argsort(part, kind="stable")
        begins = np.searchsorted(part[chosen], np.arange(self._parts + 1))
        table = delivery.records.table(delivery.rows[chosen])
        table = table.append_column(pa.field("order", pa.int64()), pa.array(delivery.order[chosen]))
        with writing(self.path):
            for writer, (begin, end) in zip(self._writers, pairwise(begins), strict=True):
                if end > begin:
                    writer.write_table(table.slice(begin, end - begin))

    def end_task(self) -> None:
        pass

    def close(self, ends: list[StreamEnd]) -> None:
        for file, writer in zip(self._files, self._writers, strict=True):
            with writing(self.path):
                writer.close()
                file.seek(0)
                table = pa.ipc.open_stream(pa.PythonFile(file, "r")).read_all()
            self._to.add_table(table.sort_by("order").drop_columns("order"))
            file.close()
        self._to.close(ends)
        self.size_bytes = self._to.size_bytes

    def abandon(self) -> None:
        for file in self._files:
            file.close()
        self._to.abandon()


class BlobSink(Sink):
    """A blob store.

    Args:
        buckets: of the packet key, a power of two; blob_records: at most so many in a blob.
        shuffle: whether blobs, and records in a blob, are in no order.
    """

    def __init__(self, path: Path, *, buckets: int, blob_records: int, shuffle: bool) -> None:
        super().__init__(path)
        self._store = BlobStoreWriter(path)
        self._buckets = buckets
        self._blob_records = blob_records
        self._shuffle = shuffle
        self._waiting: dict[tuple[str, int, int, int], list[pa.Table]] = {}

    def add(self, delivery: Delivery) -> None:
        if not len(delivery.rows):
            return
        records, rows = delivery.records, delivery.rows
        packet = records.packet[rows]
        bucket = records.packets.key[packet] & (self._buckets - 1)
        region = records.regions(rows)
        use = records.packets.epoch[packet] * 64 + records.packets.color[packet]
        keys = (delivery.order,) if self._shuffle else ()
        chosen = np.lexsort((*keys, bucket, use, region))
        begins = np.flatnonzero(_changes(bucket[chosen]) | _changes(use[chosen]) | _changes(region[chosen]))
        table = records.table(rows[chosen])
        for begin, end in zip(begins, [*begins[1:], len(chosen)], strict=True):
            row = chosen[begin]
            name = (table["region"][int(begin)].as_py(), int(use[row]) % 64, int(use[row]) // 64, int(bucket[row]))
            self._collect(name, table.slice(begin, end - begin))

    def _collect(self, name: tuple[str, int, int, int], table: pa.Table) -> None:
        waiting = self._waiting.setdefault(name, [])
        waiting.append(table)
        if sum(map(len, waiting)) >= self._blob_records:
            together = pa.concat_tables(waiting)
            whole = len(together) // self._blob_records * self._blob_records
            for begin in range(0, whole, self._blob_records):
                self._write(name, together.slice(begin, self._blob_records))
            waiting[:] = [together.slice(whole)] if whole < len(together) else []

    def _write(self, name: tuple[str, int, int, int], table: pa.Table) -> None:
        region, color, epoch, bucket = name
        blob = blobs.encode(table.combine_chunks())
        self._store.append(region=region, color=color, epoch=epoch, bucket=bucket, records=len(table), blob=blob)

    def end_task(self) -> None:
        for name, waiting in self._waiting.items():
            if waiting:
                self._write(name, pa.concat_tables(waiting))
        self._waiting.clear()

    def close(self, ends: list[StreamEnd]) -> None:
        self.end_task()
        number = np.arange(len(self._store))
        order = np.argsort(Chance(0).bits(Purpose.SHUFFLE, number)) if self._shuffle else number
        self._store.close(ends, order.tolist())
        self.size_bytes = self.path.stat().st_size

    def abandon(self) -> None:
        self._store.abandon()


def _changes(values: Ints) -> np.ndarray:
    return np.diff(values, prepend=values[0] - 1) != 0
