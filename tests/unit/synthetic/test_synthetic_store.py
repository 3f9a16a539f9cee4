"""Files of log records: blob stores, and what else can be read."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from making import Generator, Made, sorted_rows

from vtrace.collect import blobs
from vtrace.collect.store import BLOB_STORE_SCHEMA, BlobStore, BlobStoreWriter, read_records
from vtrace.errors import UsageError
from vtrace.model.record import EvidenceRecord
from vtrace.model.record_schema import (
    RECORD_SCHEMA,
    STREAMS_KEY,
    StreamEnd,
    evidence_of,
    streams_of,
    to_table,
    with_evidence,
    with_streams,
)

END = StreamEnd(chassis="hv1", incarnation=5, color=3, epoch=1, written=9)


@pytest.fixture
def small(made: Generator) -> Made:
    return made(tasks=2, packets=40)


def compact(made: Made) -> pa.Table:
    return pa.Table.from_batches([blobs.compact(made.table)])


def write_ipc(path: Path, table: pa.Table, *, stream: bool) -> Path:
    sink = pa.OSFile(str(path), "wb")
    with sink, (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=100):
            writer.write_batch(batch)
    return path


def test_a_blob_holds_records_of_one_region_color_epoch_and_bucket(made: Generator) -> None:
    found = made(".blobs", tasks=3, packets=3000)
    store = BlobStore(found.path)
    assert store.ends == found.ends
    full: Counter[bool] = Counter()
    for stored in store:
        table = blobs.flat(pa.Table.from_batches([blobs.decode(stored.blob)]))
        assert len(table) == stored.records <= 300
        full[stored.records == 300] += 1
        for name in ("region", "color", "epoch"):
            assert table[name].unique().to_pylist() == [getattr(stored, name)]
        assert {key & 3 for key in table["key"].to_pylist()} == {stored.bucket}
    assert full[True] > full[False]


def test_blobs_are_views_of_the_file(made: Generator) -> None:
    store = BlobStore(made(".blobs", packets=5000).path)
    before = pa.total_allocated_bytes()
    stored = list(store)
    assert sum(blob.blob.size for blob in stored) > 100_000
    assert pa.total_allocated_bytes() - before < 10_000


def test_a_store_keeps_its_blobs_and_their_order(tmp_path: Path) -> None:
    path = tmp_path / "x.blobs"
    writer = BlobStoreWriter(path)
    for number in range(600):
        writer.append(region="east", color=7, epoch=2, bucket=number % 4, records=number, blob=b"b%d" % number)
    assert not path.exists()
    writer.close([END])
    found = list(BlobStore(path))
    assert [(b.records, bytes(b.blob)) for b in found] == [(n, b"b%d" % n) for n in range(600)]
    assert {(b.region, b.color, b.epoch) for b in found} == {("east", 7, 2)}
    assert BlobStore(path).ends == (END,)
    assert pa.ipc.open_file(path).schema.remove_metadata() == BLOB_STORE_SCHEMA.remove_metadata()
    assert [p.name for p in tmp_path.iterdir()] == ["x.blobs"]


def test_a_store_that_failed_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError), BlobStoreWriter(tmp_path / "x.blobs") as writer:
        writer.append(region="east", color=7, epoch=2, bucket=0, records=1, blob=None)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_an_empty_store_has_no_records(tmp_path: Path) -> None:
    with BlobStoreWriter(tmp_path / "x.blobs") as writer:
        writer.ends = (END,)
    table = read_records(tmp_path / "x.blobs")
    assert len(table) == 0
    assert streams_of(table.schema.metadata) == (END,)


@pytest.mark.parametrize("form", ["flat", "compact"])
@pytest.mark.parametrize("stream", [False, True])
def test_records_are_read_from_arrow_ipc(small: Made, tmp_path: Path, form: str, stream: bool) -> None:
    table = small.table if form == "flat" else compact(small)
    found = read_records(write_ipc(tmp_path / "x.arrow", table, stream=stream))
    assert found.schema.equals(RECORD_SCHEMA)
    assert sorted_rows(found).equals(sorted_rows(small.table))
    assert streams_of(found.schema.metadata) == small.ends


def test_stream_ends_are_in_the_metadata_of_the_parquet_file(small: Made) -> None:
    assert streams_of(pq.read_schema(small.path).metadata) == small.ends


def test_what_a_newer_writer_adds_is_left_out(small: Made, tmp_path: Path) -> None:
    newer = small.table.append_column("mood", pa.array(["good"] * len(small.table)))
    pq.write_table(newer, tmp_path / "x.parquet")
    table = compact(small)
    place = table["place"].chunk(0)
    wider = pa.StructArray.from_arrays(
        [*place.dictionary.flatten(), pa.array(["good"] * len(place.dictionary))],
        names=[*(field.name for field in place.dictionary.type), "mood"],
    )
    again = table.set_column(0, "place", pa.DictionaryArray.from_arrays(place.indices, wider))
    write_ipc(tmp_path / "x.arrow", again.append_column("mood", pa.array([1] * len(again))), stream=True)
    for name in ("x.parquet", "x.arrow"):
        found = read_records(tmp_path / name)
        assert found.schema.equals(RECORD_SCHEMA)
        assert sorted_rows(found).equals(sorted_rows(small.table))


def test_strings_may_be_stored_as_dictionaries_and_numbers_in_other_widths(small: Made, tmp_path: Path) -> None:
    table = small.table
    for name, type_ in (("chassis", pa.dictionary(pa.int32(), pa.string())), ("ttl", pa.int64())):
        table = table.set_column(table.schema.names.index(name), name, table[name].cast(type_))
    assert sorted_rows(read_records(write_ipc(tmp_path / "x", table, stream=False))).equals(sorted_rows(small.table))


def test_what_chassis_said_on_the_spot_is_kept(small: Made, tmp_path: Path) -> None:
    said_here, said_there = (
        EvidenceRecord(task="t", pair=0, chassis=name, wall_ns=1, mono_ns=2, outcome="drop") for name in ("hv1", "hv2")
    )
    schema = with_evidence(small.table.schema, [said_here])
    pq.write_table(small.table.replace_schema_metadata(schema.metadata), tmp_path / "x.parquet")
    assert evidence_of(read_records(tmp_path / "x.parquet").schema.metadata) == (said_here,)
    with BlobStoreWriter(tmp_path / "x.blobs") as writer:
        for evidence in ([said_here], [said_here, said_there], []):
            table = RECORD_SCHEMA.empty_table()
            table = table.replace_schema_metadata(with_evidence(table.schema, evidence).metadata)
            blob = blobs.encode(table, [END])
            writer.append(region="east", color=3, epoch=1, bucket=0, records=0, blob=blob)
    metadata = read_records(tmp_path / "x.blobs").schema.metadata
    assert evidence_of(metadata) == (said_here, said_there)
    assert streams_of(metadata) == (END,)


def said(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read_records(path)
    error = caught.value
    assert str(path) in error.where
    assert error.next_step
    return f"{error.what}: {error.why}"


@pytest.mark.parametrize("form", ["flat", "compact"])
def test_missing_columns_are_named(small: Made, tmp_path: Path, form: str) -> None:
    table, names = (small.table, ("seq", "key")) if form == "flat" else (compact(small), ("packet", "seq"))
    text = said(write_ipc(tmp_path / "x", table.drop_columns(list(names)), stream=False))
    assert f"there is no {', '.join(names)}" in text


def test_a_struct_without_a_field_is_named(small: Made, tmp_path: Path) -> None:
    whole = compact(small)
    headers = whole["headers"].chunk(0)
    fields = [field.name for field in headers.dictionary.type]
    narrower = pa.StructArray.from_arrays(headers.dictionary.flatten()[1:], names=fields[1:])
    table = whole.set_column(1, "headers", pa.DictionaryArray.from_arrays(headers.indices, narrower))
    assert fields[0] in said(write_ipc(tmp_path / "x", table, stream=False))


def test_a_column_of_another_type_is_named(small: Made, tmp_path: Path) -> None:
    names = pa.array(["much"] * len(small.table))
    table = small.table.set_column(small.table.schema.names.index("ttl"), "ttl", names)
    assert "ttl" in said(write_ipc(tmp_path / "x", table, stream=False))


def test_empty_values_are_refused(small: Made, tmp_path: Path) -> None:
    index = small.table.schema.names.index("ttl")
    table = small.table.set_column(index, "ttl", pa.nulls(len(small.table), pa.uint8()))
    assert "ttl" in said(write_ipc(tmp_path / "x", table, stream=False))


@pytest.mark.parametrize("suffix", [".parquet", ".blobs"])
@pytest.mark.parametrize("left", [0, 4, 100, 0.5, 0.99])
def test_what_is_cut_short_is_refused(made: Generator, suffix: str, left: float) -> None:
    path = made(suffix, tasks=2).path
    data = path.read_bytes()
    path.write_bytes(data[: left if isinstance(left, int) else int(left * len(data))])
    assert said(path)


def test_a_broken_blob_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.blobs"
    with BlobStoreWriter(path) as writer:
        good = blobs.encode(to_table([]))
        for blob in (good, good[:-1], b"nothing"):
            writer.append(region="", color=3, epoch=1, bucket=0, records=0, blob=blob)
    with pytest.raises(UsageError) as caught:
        read_records(path)
    assert caught.value.where == f"{path}, blob 1"


@pytest.mark.parametrize("text", ["", "hello, this is no table"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.parquet"
    path.write_text(text)
    assert "neither Parquet nor Arrow IPC" in said(path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    assert "No such file" in said(tmp_path / "none.parquet")
    assert said(tmp_path)
    with pytest.raises(UsageError, match="can't be written"):
        BlobStoreWriter(tmp_path / "none" / "x.blobs")


def test_metadata_that_are_no_stream_ends_are_refused(small: Made, tmp_path: Path) -> None:
    table = small.table.replace_schema_metadata({STREAMS_KEY: b"[1]"})
    assert "metadata" in said(write_ipc(tmp_path / "x", table, stream=False))
    assert with_streams(RECORD_SCHEMA, [END]).metadata


@pytest.mark.parametrize("suffix", [".parquet", ".blobs"])
def test_a_file_with_changed_bytes_is_read_or_refused(made: Generator, suffix: str) -> None:
    path = made(suffix, tasks=1, packets=20).path
    data = path.read_bytes()
    draw = random.Random(suffix)
    for number in range(60):
        changed = bytearray(data)
        for _ in range(draw.choice((1, 20))):
            changed[draw.randrange(8, len(changed))] = draw.randrange(256)
        path = path.with_name(f"changed-{number}{suffix}")
        path.write_bytes(changed)
        with contextlib.suppress(UsageError):
            assert read_records(path).schema.equals(RECORD_SCHEMA)
