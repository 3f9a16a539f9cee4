"""Files of log records: blob stores, and whatever else holds records in the published schema.

A *blob store* is an Arrow IPC file of `BLOB_STORE_SCHEMA`: a row for each blob, with what its records have in common,
so that blobs can be chosen without being decoded. What the writers of the records have written in all stands in the
metadata of its schema (`record_schema.with_streams`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vtrace.collect import blobs
from vtrace.errors import UsageError
from vtrace.model.record import EvidenceRecord
from vtrace.model.record_schema import (
    COMPACT_SCHEMA,
    EVIDENCE_KEY,
    PLACE,
    RECORD_SCHEMA,
    STREAMS_KEY,
    StreamEnd,
    evidence_of,
    streams_of,
    with_evidence,
    with_streams,
)

BLOB_STORE_SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("region", pa.string(), nullable=False),
        pa.field("color", pa.uint8(), nullable=False),
        pa.field("epoch", pa.int64(), nullable=False),
        pa.field("bucket", pa.int32(), nullable=False),
        pa.field("records", pa.int64(), nullable=False),
        pa.field("blob", pa.large_binary(), nullable=False),
    ],
    metadata=RECORD_SCHEMA.metadata,
)
"""`bucket` is the packet key modulo the number of buckets; `records` is the length of the blob's batch."""

_T = TypeVar("_T")

_PARQUET_MAGIC = b"PAR1"
_IPC_FILE_MAGIC = b"ARROW1"
# An IPC stream begins with it since Arrow 0.15 ("Encapsulated message format").
_CONTINUATION = b"\xff\xff\xff\xff"
# Blobs of one batch of the file: enough to make a batch's own header small beside them.
_BATCH_BLOBS = 256
_NEEDED_TO_READ = "It has to have the columns of docs/records.md"


class StoredBlob(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a blob store; `blob` is a view of the file."""

    region: str
    color: int
    epoch: int
    bucket: int
    records: int
    blob: pa.Buffer


class BlobStoreWriter:
    """Writes a blob store. `path` appears when it is closed, as a whole, and never if an error ends the `with`.

    The schema's metadata stand at the beginning of an IPC file, and what was written in all is known only at the end;
    so blobs wait in an unnamed file beside it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[tuple[str, int, int, int, int, int]] = []
        with writing(path):
            self._spool: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115  # closed by close()
        self.ends: tuple[StreamEnd, ...] = ()

    def append(self, *, region: str, color: int, epoch: int, bucket: int, records: int, blob: bytes) -> None:
        """Adds a blob."""
        with writing(self._path):
            self._spool.write(blob)
        self._rows.append((region, color, epoch, bucket, records, len(blob)))

    def __len__(self) -> int:
        return len(self._rows)

    def close(self, ends: Iterable[StreamEnd] = (), order: Iterable[int] | None = None) -> None:
        """Writes the file.

        Args:
            ends: what the writers of the records have written in all, if not set as `ends` before.
            order: the numbers of the blobs in the order in which they are to stand there; None: as they came.
        """
        schema = with_streams(BLOB_STORE_SCHEMA, tuple(ends) or self.ends)
        part = self._path.with_name(self._path.name + ".part")
        try:
            with writing(self._path):
                self._spool.flush()
                with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
                    for batch in self._batches(schema, range(len(self)) if order is None else list(order)):
                        writer.write_batch(batch)
                os.replace(part, self._path)
        finally:
            part.unlink(missing_ok=True)
            self._spool.close()

    def abandon(self) -> None:
        """Leaves nothing."""
        self._spool.close()

    def __enter__(self) -> BlobStoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _batches(self, schema: pa.Schema, order: Sequence[int]) -> Iterator[pa.RecordBatch]:
        sizes = [row[-1] for row in self._rows]
        begins = list(accumulate(sizes, initial=0))
        for first in range(0, len(order), _BATCH_BLOBS):
            chosen = order[first : first + _BATCH_BLOBS]
            *columns, _ = zip(*(self._rows[number] for number in chosen), strict=True)
            arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=False)]
            yield pa.record_batch([*arrays, self._blobs(chosen, begins, sizes)], schema=schema)

    def _blobs(self, chosen: Sequence[int], begins: Sequence[int], sizes: Sequence[int]) -> pa.Array:
        parts = []
        for number in chosen:
            self._spool.seek(begins[number])
            parts.append(self._spool.read(sizes[number]))
        offsets = np.array([0, *accumulate(map(len, parts))], np.int64)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(parts))]
        return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(parts), buffers)


class BlobStore:
    """Reads a blob store through a memory map: iterating gives its blobs, without copies.

    Attributes:
        schema: of the file; ends: what its writers have written in all; evidence: what chassis said of flows.

    Raises:
        UsageError: the file can't be read, or is no blob store.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _reading(path):
            self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
            self.schema: pa.Schema = self._reader.schema
            _check_columns(self.schema, BLOB_STORE_SCHEMA, path)
        self.ends = _ends(self.schema, path)
        self.evidence = _evidence(self.schema, path)

    def __iter__(self) -> Iterator[StoredBlob]:
        for number in range(self._reader.num_record_batches):
            with _reading(self._path):
                batch = pa.Table.from_batches([self._reader.get_batch(number)])
                batch.validate(full=True)
                table = _cast(batch, BLOB_STORE_SCHEMA, self._path)
            # Of one batch each column is one chunk; joining chunks would copy them.
            *columns, blob = (column.chunk(0) for column in table.columns)
            values = [column.to_pylist() for column in columns]
            for row in zip(*values, self._views(blob), strict=True):
                yield StoredBlob(**dict(zip(BLOB_STORE_SCHEMA.names, row, strict=True)))

    @staticmethod
    def _views(blob: pa.LargeBinaryArray) -> Iterator[pa.Buffer]:
        """The blobs as slices of the file: asking a value for its buffer would copy it."""
        _, offsets, data = blob.buffers()
        ends = np.frombuffer(offsets, np.int64)[blob.offset : blob.offset + len(blob) + 1].tolist()
        for begin, end in pairwise(ends):
            yield data.slice(begin, end - begin)


def is_blob_store(path: Path) -> bool:
    """Whether a file is a blob store.

    Raises:
        UsageError: it can't be read.
    """
    with _reading(path):
        with path.open("rb") as file:
            head = file.read(8)
        return head.startswith(_IPC_FILE_MAGIC) and "blob" in pa.ipc.open_file(pa.memory_map(str(path))).schema.names


def read_records(path: Path) -> pa.Table:
    """The log records of a file, in the flat form.

    Args:
        path: Parquet, an Arrow IPC file or stream, in the flat or the compact form; or a blob store. Columns that the
            schema does not have are left out: an older reader reads what a newer writer wrote.

    Returns:
        A table of `RECORD_SCHEMA`, rows in the order of the file. The metadata of its schema are those of the file; of
        a blob store those of its blobs besides.

    Raises:
        UsageError: the file can't be read, is none of these, or lacks columns.
    """
    with _reading(path):
        return _read(path)


def _read(path: Path) -> pa.Table:
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(_PARQUET_MAGIC):
        return _flat(pq.ParquetFile(path).read(), path)
    if head.startswith(_IPC_FILE_MAGIC):
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        return _of_store(path) if "blob" in reader.schema.names else _flat(reader.read_all(), path)
    if head.startswith(_CONTINUATION):
        return _flat(pa.ipc.open_stream(pa.memory_map(str(path))).read_all(), path)
    what = "This file holds no log records that VTrace can read"
    raise UsageError(what, str(path), "it is neither Parquet nor Arrow IPC", "See docs/records.md")


def _of_store(path: Path) -> pa.Table:
    store = BlobStore(path)
    batches: list[pa.Table] = []
    for stored in store:
        try:
            batch = blobs.decode(stored.blob)
        except UsageError as error:
            where = f"{path}, blob {len(batches)}"
            raise UsageError(error.what, where, error.why or error.where, error.next_step) from error
        batches.append(pa.Table.from_batches([batch]))
    ends = blobs.ends_of([store.schema.empty_table(), *batches])
    evidence = dict.fromkeys(
        e for schema in (store.schema, *(b.schema for b in batches)) for e in _evidence(schema, path)
    )
    tables = [_flat(batch.replace_schema_metadata(None), path) for batch in batches] or [RECORD_SCHEMA.empty_table()]
    schema = with_streams(store.schema, ends)
    schema = with_evidence(schema, evidence) if evidence else schema
    return _with_metadata(pa.concat_tables(tables), schema.metadata)


def _flat(table: pa.Table, path: Path) -> pa.Table:
    table.validate(full=True)
    metadata = table.schema.metadata
    _ends(table.schema, path)
    _evidence(table.schema, path)
    if PLACE in table.schema.names:
        _check_columns(table.schema, COMPACT_SCHEMA, path)
        table = blobs.flat(_cast(table, COMPACT_SCHEMA, path))
    _check_columns(table.schema, RECORD_SCHEMA, path)
    table = _cast(table, RECORD_SCHEMA, path)
    try:
        blobs.check_values(table.column("point").to_numpy(), table.column("mono_ns").to_numpy())
    except UsageError as error:
        raise UsageError(error.what, f"{path}, {error.where}", error.why, error.next_step) from error
    return _with_metadata(table, metadata)


def _with_metadata(table: pa.Table, metadata: Mapping[bytes, bytes] | None) -> pa.Table:
    """The table with a file's metadata; but it is in our version of the schema now."""
    return table.replace_schema_metadata({**(metadata or {}), **RECORD_SCHEMA.metadata})


def _check_columns(found: pa.Schema, needed: pa.Schema, path: Path) -> None:
    missing = [name for name in needed.names if name not in found.names]
    twice = [name for name in needed.names if found.names.count(name) > 1]
    if missing:
        what = "This file of log records lacks columns"
        raise UsageError(what, str(path), f"there is no {', '.join(missing)}", _NEEDED_TO_READ)
    if twice:
        what = "This file of log records has columns twice"
        raise UsageError(what, str(path), f"there is more than one {', '.join(twice)}", _NEEDED_TO_READ)


def _cast(table: pa.Table, schema: pa.Schema, path: Path) -> pa.Table:
    """The columns of the schema and no others, in its types."""
    columns = []
    for field in schema:
        column = table.column(field.name)
        rows = [chunk.dictionary for chunk in column.chunks if pa.types.is_dictionary(chunk.type)]
        if column.null_count or any(own.null_count for own in rows):
            what = "This file of log records has empty values"
            raise UsageError(what, str(path), f"in the column {field.name}", _NEEDED_TO_READ)
        try:
            columns.append(column if column.type == field.type else _as_type(column, field.type))
        except pa.ArrowException as error:
            what = "This file of log records has a column of another type"
            raise UsageError(what, str(path), f"{field.name}: {error}", _NEEDED_TO_READ) from error
    return pa.table(columns, schema=schema.with_metadata(table.schema.metadata))


def _as_type(column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(type_):
        if not pa.types.is_dictionary(column.type):
            raise pa.ArrowTypeError(f"{column.type} is no dictionary")
        # A newer writer's structs may hold more fields than ours.
        chunks = [_with_dictionary(chunk, type_) for chunk in column.chunks]
        return pa.chunked_array(chunks, type_)
    return column.cast(type_)


def _with_dictionary(chunk: pa.DictionaryArray, type_: pa.DictionaryType) -> pa.DictionaryArray:
    values = chunk.dictionary
    struct = type_.value_type
    arrays = [pc.struct_field(values, field.name).cast(field.type) for field in struct]
    return pa.DictionaryArray.from_arrays(
        chunk.indices.cast(type_.index_type), pa.StructArray.from_arrays(arrays, fields=list(struct))
    )


def _ends(schema: pa.Schema, path: Path) -> tuple[StreamEnd, ...]:
    return _understood(schema, path, STREAMS_KEY, streams_of)


def _evidence(schema: pa.Schema, path: Path) -> tuple[EvidenceRecord, ...]:
    return _understood(schema, path, EVIDENCE_KEY, evidence_of)


def _understood(schema: pa.Schema, path: Path, key: bytes, read: Callable[[Mapping[bytes, bytes] | None], _T]) -> _T:
    try:
        return read(schema.metadata)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        what = "The metadata of log records are not understood"
        raise UsageError(what, f"{path}, {key.decode()}", str(error), "Write the file anew") from error


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Says which file it was that is missing or broken."""
    try:
        yield
    except OSError as error:
        what = "A file of log records can't be read"
        # Arrow tells of broken files by OSError, too.
        why = error.strerror or str(error)
        raise UsageError(what, str(path), why, "Name a file that is there, whole, and may be read") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        what = "This file of log records is broken"
        raise UsageError(what, str(path), str(error), "Write or copy it anew") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Says which file it was that can't be written.

    Raises:
        UsageError: for any OSError.
    """
    try:
        yield
    except OSError as error:
        what = "A file can't be written"
        why = error.strerror or str(error)
        raise UsageError(what, str(path), why, "Name a folder that is there, may be written, and has room") from error
