"""Blobs: how log records are sent and kept in great numbers. Bytes in, tables out; nothing is read or written here.

A blob holds 1,000 to 10,000 records of one region, color, epoch and bucket of the packet key: an Arrow IPC stream of
`COMPACT_SCHEMA` with a single batch, the whole of it compressed (`frames`). A blob's records are of whole packets as
far as their writer saw them: two blobs of one bucket together hold what a packet has in this bucket, and no other
bucket has any of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vtrace.collect.clocks import MOST_NS, in_parts
from vtrace.collect.frames import CodecName, compress, decompress
from vtrace.errors import UsageError
from vtrace.model.record import Point
from vtrace.model.record_schema import (
    CLOCK_DELTA_FIELD,
    CLOCK_FIELD,
    COMPACT_SCHEMA,
    GROUPS,
    HEADERS,
    MONO_DELTA_FIELD,
    MONO_FIELD,
    MONO_OFFSET_FIELD,
    PACKET,
    PLACE,
    RECORD_SCHEMA,
    STREAMS_KEY,
    VERSION_KEY,
    StreamEnd,
    group_fields,
    streams_of,
    struct_type,
    with_streams,
)

# A blob that says it has more, decompressed, is none: 10,000 records have a few hundred thousand bytes.
MOST_BYTES = 1 << 30
# Schemas of blobs that were found to be right, the latest first.
_known_schemas: tuple[pa.Schema, ...] = ()
_MOST_SCHEMAS = 16
# Below it row numbers made of several columns' fit into 64 bits together with another column's.
_ROOM = 1 << 62


def compact(flat: pa.Table) -> pa.RecordBatch:
    """The compact form of a table of `RECORD_SCHEMA`; rows keep their order, metadata stay."""
    found = {group: _distinct(flat, group) for group in GROUPS}
    place, packet = found[PLACE], found[PACKET]
    chassis = place.columns[struct_type(PLACE).get_field_index("chassis")].dictionary_encode().indices.to_numpy()
    clocks = in_parts(flat.column("mono_ns").to_numpy(), chassis.astype(np.int64), place.numbers, packet.numbers)
    ahead = pc.subtract(flat.column("wall_ns"), flat.column("mono_ns")).to_numpy()
    of_group = {PLACE: (clocks.place, ahead[place.first]), HEADERS: (), PACKET: (clocks.packet,)}
    columns = {group: _dictionary(found[group], of_group[group], group) for group in GROUPS}
    columns["seq"] = flat.column("seq").combine_chunks()
    columns[MONO_DELTA_FIELD] = pa.array(clocks.record)
    columns[CLOCK_DELTA_FIELD] = pa.array(ahead - ahead[place.first][place.numbers])
    schema = COMPACT_SCHEMA.with_metadata({**(flat.schema.metadata or {}), VERSION_KEY: _version()})
    return pa.RecordBatch.from_arrays([columns[name] for name in COMPACT_SCHEMA.names], schema=schema)


def flat(table: pa.Table) -> pa.Table:
    """The flat form of a table of `COMPACT_SCHEMA`; rows keep their order, metadata stay.

    Columns may be of narrower types than the schema's, as in a blob.
    """
    columns: dict[str, pa.ChunkedArray] = {}
    for group in GROUPS:
        chunks = [chunk.dictionary.take(chunk.indices) for chunk in table.column(group).chunks]
        for field in struct_type(group):
            parts = [chunk.field(field.name).cast(field.type) for chunk in chunks]
            columns[field.name] = pa.chunked_array(parts, field.type)
    for name in ("seq", MONO_DELTA_FIELD, CLOCK_DELTA_FIELD):
        columns[name] = table.column(name).cast(pa.int64())
    columns["mono_ns"] = pc.add(pc.add(columns[MONO_FIELD], columns[MONO_OFFSET_FIELD]), columns[MONO_DELTA_FIELD])
    columns["wall_ns"] = pc.add(pc.add(columns[CLOCK_FIELD], columns[CLOCK_DELTA_FIELD]), columns["mono_ns"])
    schema = RECORD_SCHEMA.with_metadata(table.schema.metadata)
    return pa.table([columns[name] for name in RECORD_SCHEMA.names], schema=schema)


def pruned(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch without the packets that none of its records is of: rows that were left out leave theirs behind."""
    column = batch.column(PACKET)
    used, indices = np.unique(column.indices.to_numpy(), return_inverse=True)
    if len(used) == len(column.dictionary):
        return batch
    kept = pa.DictionaryArray.from_arrays(
        pa.array(indices, column.indices.type), column.dictionary.take(pa.array(used))
    )
    at = batch.schema.get_field_index(PACKET)
    return batch.set_column(at, pa.field(PACKET, kept.type, nullable=False), kept)


def encode(table: pa.Table | pa.RecordBatch, ends: Iterable[StreamEnd] = (), codec: CodecName = "lz4") -> bytes:
    """One blob of a table in the flat form, or of a batch in the compact one.

    Args:
        ends: what the writers of these records have written in all so far, if they know.
        codec: LZ4 is read twice as fast as zstd, and takes a third more room.
    """
    small = _narrowed(table if isinstance(table, pa.RecordBatch) else compact(table))
    small = small.replace_schema_metadata(with_streams(small.schema, ends).metadata if ends else small.schema.metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, small.schema) as writer:
        writer.write_batch(small)
    return compress(sink.getvalue(), codec)


def _narrowed(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same values in the narrowest integers that hold them: what is not there need not be decompressed.

    Dictionaries stay as they are: they are short, and those of one type are joined at once.
    """
    arrays = []
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            indices = column.indices.cast(_narrowest(0, len(column.dictionary), _SIGNED_TYPES))
            arrays.append(pa.DictionaryArray.from_arrays(indices, column.dictionary))
        elif len(column):
            bounds = pc.min_max(column)
            low, high = bounds["min"].as_py(), bounds["max"].as_py()
            arrays.append(column.cast(_narrowest(low, high, _UNSIGNED_TYPES if low >= 0 else _SIGNED_TYPES)))
        else:
            arrays.append(column)
    fields = [pa.field(f.name, a.type, nullable=False) for f, a in zip(batch.schema, arrays, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields, batch.schema.metadata))


# Each with the lowest and highest value it holds.
_UNSIGNED_TYPES = ((pa.uint8(), 0, 0xFF), (pa.uint16(), 0, 0xFFFF), (pa.uint32(), 0, 0xFFFFFFFF))
_SIGNED_TYPES = (
    (pa.int8(), -0x80, 0x7F),
    (pa.int16(), -0x8000, 0x7FFF),
    (pa.int32(), -0x80000000, 0x7FFFFFFF),
)


def _narrowest(low: int, high: int, types: Iterable[tuple[pa.DataType, int, int]]) -> pa.DataType:
    return next((type_ for type_, least, most in types if least <= low and high <= most), pa.int64())


def decode(blob: bytes | memoryview | pa.Buffer) -> pa.RecordBatch:
    """The records of a blob, in the compact form; `reconstruct.columns` looks whether their values can be.

    Raises:
        UsageError: it is no blob, or one of another schema that leaves out what is needed.
    """
    buffer = pa.py_buffer(blob)
    try:
        batch = pa.ipc.open_stream(decompress(buffer, most=MOST_BYTES)).read_next_batch()
        # Among the rest it looks whether indices are within their dictionaries.
        batch.validate(full=True)
        _check_schema_once(batch.schema)
        if empty := [group for group in GROUPS if batch.column(group).dictionary.null_count]:
            raise ValueError(f"empty values in {', '.join(empty)}")
    except (pa.ArrowException, OSError, StopIteration, IndexError, ValueError) as error:
        raise UsageError("This is no blob of log records", "", str(error), "See docs/records.md") from error
    return batch


def _check_schema_once(schema: pa.Schema) -> None:
    """Blobs come in a few schemas, and to look one through takes longer than to read a blob."""
    global _known_schemas
    known = _known_schemas
    for place, one in enumerate(known):
        if schema.equals(one):
            if place:
                _known_schemas = (one, *known[:place], *known[place + 1 :])
            return
    _check_schema(schema)
    _known_schemas = (schema.remove_metadata(), *known[: _MOST_SCHEMAS - 1])


def _check_schema(schema: pa.Schema) -> None:
    # Names that are no text are found out here: a ValueError.
    names = schema.names
    missing = [name for name in COMPACT_SCHEMA.names if names.count(name) != 1]
    if missing:
        raise UsageError(
            "This blob of log records lacks columns", ", ".join(missing), "", "It needs those of docs/records.md"
        )
    wrong = [field.name for field in COMPACT_SCHEMA if not _holds(schema.field(field.name).type, field.type)]
    if wrong:
        what = "This blob of log records has columns of another type"
        raise UsageError(what, ", ".join(wrong), "", "It needs those of docs/records.md")


def check_values(points: np.ndarray, mono_ns: np.ndarray) -> None:
    """Holds records to what no agent can have written, and what reckons with them relies on.

    Raises:
        UsageError: an observation point that there is not, or a clock that has run for more than 9 years.
    """
    check_bounds("point", points, 0, max(Point))
    check_bounds("mono_ns", mono_ns, -MOST_NS, MOST_NS)


def check_bounds(name: str, values: np.ndarray, low: int, high: int) -> None:
    """Refuses values that no agent can have written.

    Raises:
        UsageError: one is lower or higher.
    """
    if len(values) and not low <= values.min() <= values.max() <= high:
        what = "Log records say what can't be"
        raise UsageError(what, name, f"it has to be from {low} to {high}", "Leave out what wrote them")


def _holds(found: pa.DataType, type_: pa.DataType) -> bool:
    """Whether values of a type found can stand for those of the schema's: the same, or a narrower one."""
    if not pa.types.is_dictionary(type_):
        return _fits(found, type_)
    if not pa.types.is_dictionary(found) or not pa.types.is_struct(found.value_type):
        return False
    names = [field.name for field in found.value_type]
    return all(
        names.count(field.name) == 1 and _fits(found.value_type.field(field.name).type, field.type)
        for field in type_.value_type
    )


def _fits(type_: pa.DataType, into: pa.DataType) -> bool:
    if type_.equals(into):
        return True
    integers = pa.types.is_integer(type_) and pa.types.is_integer(into)
    return integers and bool(np.can_cast(type_.to_pandas_dtype(), into.to_pandas_dtype()))


def ends_of(tables: Iterable[pa.Table | pa.RecordBatch]) -> tuple[StreamEnd, ...]:
    """What the writers of all these have written: of each log stream the highest number that one of them tells.

    Raises:
        UsageError: the metadata of one are not understood.
    """
    found: dict[tuple[str, int, int, int], StreamEnd] = {}
    for table in tables:
        try:
            ends = streams_of(table.schema.metadata)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            where = STREAMS_KEY.decode()
            raise UsageError("The metadata of log records are not understood", where, str(error), "") from error
        for end in ends:
            name = (end.chassis, end.incarnation, end.color, end.epoch)
            if name not in found or found[name].written < end.written:
                found[name] = end
    return tuple(found[name] for name in sorted(found))


def row_numbers(columns: Sequence[pa.Array | pa.ChunkedArray]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers equal rows of these columns alike.

    Returns:
        For each row its number, from 0 in the order of first appearance; and for each number a row that has it.
    """
    codes = np.zeros(len(columns[0]), np.int64)
    room = 1
    for column in columns:
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        encoded = array.dictionary_encode()
        values = len(encoded.dictionary)
        if values <= 1:
            continue
        if room * values >= _ROOM:
            codes, room = _dense(codes)
        codes = codes * values + encoded.indices.to_numpy(zero_copy_only=False)
        room *= values
    codes, room = _dense(codes)
    first = np.full(room, len(codes), np.int64)
    np.minimum.at(first, codes, np.arange(len(codes)))
    return codes, first


def _dense(codes: np.ndarray) -> tuple[np.ndarray, int]:
    encoded = pa.array(codes).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), len(encoded.dictionary)


class _Distinct(NamedTuple):
    """The distinct rows of a group of columns: of each row of the table the number, and of each number such a row."""

    columns: list[pa.Array]
    numbers: np.ndarray
    first: np.ndarray


def _distinct(table: pa.Table, group: str) -> _Distinct:
    columns = [table.column(field.name) for field in group_fields(group)]
    numbers, first = row_numbers(columns)
    return _Distinct([column.take(pa.array(first)).combine_chunks() for column in columns], numbers, first)


def _dictionary(found: _Distinct, more: Iterable[np.ndarray], group: str) -> pa.DictionaryArray:
    """A column of a group's structs, with what else there is of each."""
    fields = list(struct_type(group))
    arrays = [column.cast(field.type) for column, field in zip(found.columns, fields, strict=False)]
    values = pa.StructArray.from_arrays([*arrays, *map(pa.array, more)], fields=fields)
    return pa.DictionaryArray.from_arrays(pa.array(found.numbers, pa.int32()), values)


def _version() -> bytes:
    return RECORD_SCHEMA.metadata[VERSION_KEY]
