"""Blobs of log records: what comes back of them, and which are refused before compiled code looks at them."""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pytest
from builders import PROPERTY
from hypothesis import given
from hypothesis import strategies as st

from vtrace.collect import blobs
from vtrace.collect.clocks import MOST_NS
from vtrace.errors import UsageError
from vtrace.model.record import LogRecord, Point
from vtrace.model.record_schema import COMPACT_SCHEMA, MONO_DELTA_FIELD, PACKET, from_table, to_table
from vtrace.reconstruct.columns import prepare

RECORD = LogRecord(
    chassis="hv1", incarnation=5, seq=1, color=3, epoch=1, key=7, pair=0, task="t", point=Point.FIRST_HOP, datapath=9,
    proto=17, src="10.0.0.1", dst="10.0.0.2", sport=4000, dport=53, ttl=64, ct_state=0x21, wall_ns=10**18, mono_ns=50,
)  # fmt: skip
SMALL = st.integers(0, 2)
RECORDS = st.lists(
    st.builds(
        lambda key, chassis, seq, sport, ttl, mono_ns, wall_ns: msgspec.structs.replace(
            RECORD, key=key, chassis=f"hv{chassis}", seq=seq, sport=sport, ttl=ttl, mono_ns=mono_ns, wall_ns=wall_ns
        ),
        SMALL,
        SMALL,
        st.integers(1, 2**40),
        SMALL,
        SMALL,
        st.integers(-MOST_NS, MOST_NS),
        st.integers(0, 2**62),
    ),
    max_size=8,
)


def whole(blob: bytes) -> list[LogRecord]:
    return from_table(blobs.flat(pa.Table.from_batches([blobs.decode(blob)])))


@PROPERTY
@given(records=RECORDS)
def test_records_come_back_from_a_blob(records: list[LogRecord]) -> None:
    assert whole(blobs.encode(to_table(records))) == records


@PROPERTY
@given(records=RECORDS.filter(bool))
def test_columns_hold_what_the_records_say(records: list[LogRecord]) -> None:
    half = len(records) // 2
    batches = [blobs.decode(blobs.encode(to_table(part))) for part in (records[:half], records[half:])]
    prepared = prepare(batches)
    columns, tables = prepared.columns, prepared.tables
    assert columns.mono_ns.tolist() == [r.mono_ns for r in records]
    assert columns.seq.tolist() == [r.seq for r in records]
    assert tables.keys[columns.packet].tolist() == [r.key for r in records]
    assert tables.ports[columns.packet].tolist() == [r.sport << 16 | r.dport for r in records]
    assert prepared.places.column("chassis").take(columns.place).to_pylist() == [r.chassis for r in records]
    assert prepared.headers.column("ttl").take(columns.header).to_pylist() == [r.ttl for r in records]


def test_each_packet_stands_there_once() -> None:
    records = [msgspec.structs.replace(RECORD, key=number % 3, seq=number) for number in range(1, 13)]
    batch = blobs.compact(to_table(records))
    assert len(batch.column(PACKET).dictionary) == 3
    cut = blobs.pruned(batch.slice(2, 1))
    assert len(cut.column(PACKET).dictionary) == 1
    assert from_table(blobs.flat(pa.Table.from_batches([cut]))) == records[2:3]
    assert blobs.pruned(batch) is batch


def sent(batch: pa.RecordBatch, name: str, values: pa.Array) -> bytes:
    """A blob in which one column is another."""
    column = pa.field(name, values.type)
    changed = batch.set_column(batch.schema.get_field_index(name), column, values)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, changed.schema) as writer:
        writer.write_batch(changed)
    return blobs.compress(sink.getvalue(), "lz4")


def refused(blob: bytes) -> UsageError:
    with pytest.raises(UsageError) as caught:
        prepare([blobs.decode(blob)])
    return caught.value


@pytest.fixture
def batch() -> pa.RecordBatch:
    return blobs.compact(to_table([RECORD, msgspec.structs.replace(RECORD, seq=2, key=8)]))


@pytest.mark.parametrize("group", ["place", "headers", "packet"])
def test_an_index_outside_of_its_dictionary_is_refused(batch: pa.RecordBatch, group: str) -> None:
    rows = batch.column(group).dictionary
    beyond = pa.DictionaryArray.from_arrays(pa.array([0, len(rows)], pa.int32()), rows, safe=False)
    assert "no blob" in refused(sent(batch, group, beyond)).what


@pytest.mark.parametrize("name", ["seq", MONO_DELTA_FIELD])
def test_empty_values_of_records_are_refused(batch: pa.RecordBatch, name: str) -> None:
    assert refused(sent(batch, name, pa.array([1, None], pa.int64()))).where == name


@pytest.mark.parametrize(("group", "name"), [("place", "chassis"), ("headers", "ttl"), ("packet", "key")])
def test_empty_values_of_dictionaries_are_refused(batch: pa.RecordBatch, group: str, name: str) -> None:
    column = batch.column(group)
    arrays = {field.name: column.dictionary.field(field.name) for field in column.dictionary.type}
    arrays[name] = pa.nulls(len(column.dictionary), arrays[name].type)
    rows = pa.StructArray.from_arrays(list(arrays.values()), names=list(arrays))
    assert refused(sent(batch, group, pa.DictionaryArray.from_arrays(column.indices, rows))).where == name
    no_rows = pa.array([None] * len(column.dictionary), column.dictionary.type)
    no_struct = refused(sent(batch, group, pa.DictionaryArray.from_arrays(column.indices, no_rows)))
    assert f"empty values in {group}" in no_struct.why
    no_index = pa.DictionaryArray.from_arrays(pa.array([0, None], pa.int32()), column.dictionary)
    assert refused(sent(batch, group, no_index)).where == group


def test_a_point_that_there_is_not_is_refused(batch: pa.RecordBatch) -> None:
    records = [msgspec.structs.replace(RECORD, point=len(Point))]
    assert refused(blobs.encode(to_table(records))).where == "point"


@pytest.mark.parametrize("mono_ns", [MOST_NS + 1, 9 * MOST_NS // 5, 4 * MOST_NS, -4 * MOST_NS, 2**63 - 1])
def test_a_clock_that_ran_for_too_long_is_refused(mono_ns: int) -> None:
    records = [RECORD, msgspec.structs.replace(RECORD, seq=2, mono_ns=mono_ns)]
    assert "can't be" in refused(blobs.encode(to_table(records))).what


def test_a_column_of_another_type_is_named(batch: pa.RecordBatch) -> None:
    assert refused(sent(batch, "seq", pa.array(["1", "2"]))).where == "seq"
    assert refused(sent(batch, "headers", pa.array([1, 2]))).where == "headers"


def test_a_column_that_is_not_there_is_named(batch: pa.RecordBatch) -> None:
    sink = pa.BufferOutputStream()
    narrower = batch.drop_columns([PACKET])
    with pa.ipc.new_stream(sink, narrower.schema) as writer:
        writer.write_batch(narrower)
    assert refused(blobs.compress(sink.getvalue(), "lz4")).where == PACKET
    assert PACKET in COMPACT_SCHEMA.names
