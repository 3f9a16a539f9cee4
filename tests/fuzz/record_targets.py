"""Log records: files in every form, with bytes flipped and with lies in them, up to `vtrace reconstruct`."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fuzzing import Target, or_refused

from vtrace.collect import blobs, frames
from vtrace.collect.store import BlobStoreWriter
from vtrace.model.record import EvidenceRecord, LogRecord, Point, StreamEnd
from vtrace.model.record_schema import (
    EVIDENCE_KEY,
    FIELDS,
    STREAMS_KEY,
    VERSION_KEY,
    streams_of,
    to_table,
    with_evidence,
    with_streams,
)
from vtrace.present.cli.main import parser
from vtrace.reconstruct.columns import prepare

_EXITS = (0, 1, 3)
_FORMS = ("parquet", "arrow", "stream", "compact", "store")
_TASK = "0123456789abcdef"


def _packet(number: int, *, lost: bool) -> Iterator[LogRecord]:
    shared: dict[str, Any] = {
        "incarnation": 5, "color": 3, "epoch": 1, "key": number * 7919 - 9000, "proto": 17, "src": "10.0.0.1",
        "dst": "10.0.0.2", "sport": 5, "dport": 53, "ttl": 64, "ip_id": number, "length_bytes": 84, "dscp": 0,
    }  # fmt: skip
    time = 1000 * number
    yield LogRecord(
        chassis="a", seq=2 * number + 1, pair=0, task=_TASK, point=Point.FIRST_HOP, datapath=1, in_key=1, in_ofport=2,
        mono_ns=time, wall_ns=time + 50, **shared,
    )  # fmt: skip
    yield LogRecord(
        chassis="a", seq=2 * number + 2, point=Point.REMOTE_OUTPUT, datapath=1, in_key=1, out_key=2, peer="b",
        mono_ns=time + 5, wall_ns=time + 55, **shared,
    )  # fmt: skip
    if not lost:
        yield LogRecord(
            chassis="b", seq=2 * number + 1, point=Point.INGRESS, datapath=1, peer="a", tunnel_id=1, in_ofport=4,
            tunnel_src="192.0.2.1", tunnel_dst="192.0.2.2", mono_ns=time, wall_ns=time + 60, **shared,
        )  # fmt: skip
        yield LogRecord(
            chassis="b", seq=2 * number + 2, point=Point.EGRESS, datapath=1, in_key=1, out_key=2, mono_ns=time + 3,
            wall_ns=time + 63, **shared,
        )  # fmt: skip


def table() -> pa.Table:
    """Twelve packets, some of them lost, with what their writers said beside them."""
    made = to_table(record for number in range(12) for record in _packet(number, lost=number % 4 == 3))
    ends = [StreamEnd(chassis=name, incarnation=5, color=3, epoch=1, written=24) for name in ("a", "b")]
    said = EvidenceRecord(
        task=_TASK,
        pair=0,
        chassis="a",
        wall_ns=1,
        mono_ns=1,
        outcome="drop",
        code="acl_drop",
        actor="tenant",
        summary="x",
    )
    schema = with_evidence(with_streams(made.schema, ends), [said])
    return made.replace_schema_metadata(schema.metadata)


def write(made: pa.Table, form: str, path: Path, blob: bytes | None = None) -> None:
    """Writes a table in one of `_FORMS`."""
    if form == "parquet":
        pq.write_table(made, path)
    elif form == "store":
        with BlobStoreWriter(path) as writer:
            content = blobs.encode(made) if blob is None else blob
            writer.append(region="", color=3, epoch=1, bucket=0, records=made.num_rows, blob=content)
            writer.ends = streams_of(made.schema.metadata)
    else:
        given = pa.Table.from_batches([blobs.compact(made)]) if form == "compact" else made
        opened = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as sink, opened(sink, given.schema) as writer:
            writer.write_table(given)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A file in memory."""
    path = Path(f"/dev/shm/vtrace-fuzz-{os.getpid()}.records")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def reconstructed(path: Path) -> None:
    """`vtrace reconstruct`, for people and as JSON."""
    for words in ([], ["--json"]):
        arguments = parser().parse_args(["reconstruct", str(path), "--cores", "1", *words])
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            assert arguments.func(arguments) in _EXITS
        assert shown.getvalue()


def file(data: bytes) -> None:
    """A file of these bytes."""
    with scratch() as path:
        path.write_bytes(data)
        reconstructed(path)


def blob(data: bytes) -> None:
    """A frame, and a blob that is one."""
    or_refused(lambda frame: prepare([blobs.decode(frame)]) and None)(data)
    with contextlib.suppress(ValueError, OSError):
        frames.decompress(pa.py_buffer(data), most=1 << 20)


def unframed(data: bytes) -> None:
    """A store with one blob, whose content is these bytes: what stands behind a frame that is right."""
    with scratch() as path:
        write(table(), "store", path, frames.compress(pa.py_buffer(data), "lz4"))
        reconstructed(path)


def metadata(data: bytes) -> None:
    """What stands beside the records."""
    given = {(STREAMS_KEY, EVIDENCE_KEY)[data[0] % 2 if data else 0]: data[1:], VERSION_KEY: b"9"}
    with scratch() as path:
        write(table().replace_schema_metadata(given), "arrow", path)
        reconstructed(path)


_EXTREMES = (
    0,
    1,
    -1,
    127,
    255,
    256,
    32768,
    65535,
    (1 << 31) - 1,
    -(1 << 31),
    (1 << 32) - 1,
    (1 << 62),
    (1 << 63) - 1,
    -(1 << 63),
)
_TEXTS = ("", "a", "b", "\0", "é" * 40, "10.0.0.2", "x" * 5000, "\U0001f600")
_TYPES = (
    pa.string(),
    pa.float64(),
    pa.int8(),
    pa.large_string(),
    pa.list_(pa.int64()),
    pa.bool_(),
    pa.timestamp("ns"),
    pa.null(),
)


def lies(data: bytes) -> None:
    """Records whose values are not so: each four bytes are an edit of the table, the first byte says the form."""
    made = table()
    form, data = _FORMS[data[0] % len(_FORMS)] if data else "parquet", data[1:]
    for begin in range(0, len(data) - 3, 4):
        made = _edited(made, *data[begin : begin + 4])
    with scratch() as path:
        try:
            write(made, form, path)
        except (pa.ArrowException, OverflowError, TypeError, ValueError, KeyError, AttributeError):
            # It can't be written at all, so nobody has to read it.
            return
        reconstructed(path)


def _edited(made: pa.Table, which: int, column: int, row: int, value: int) -> pa.Table:
    if not made.num_columns:
        return made
    number = column % made.num_columns
    name, type_ = made.schema.names[number], made.schema.types[number]
    values = made.column(number).to_pylist()
    if which < 160 and values:
        choice = _TEXTS[value % len(_TEXTS)] if pa.types.is_string(type_) else _EXTREMES[value % len(_EXTREMES)]
        changed = range(len(values)) if row == 255 else [row % len(values)]
        for at in changed:
            values[at] = choice
        return _with(made, number, values, type_)
    if which < 180:
        return _with(made, number, [None, *values[1:]], type_)
    if which < 200:
        return _with(made, number, values, _TYPES[value % len(_TYPES)])
    if which < 215:
        return made.drop_columns([name])
    if which < 230:
        return pa.concat_tables([made] * (2 + value % 3))
    if which < 240:
        return made.slice(0, row % 5)
    metadata = dict(made.schema.metadata or {})
    end = StreamEnd(chassis="a", incarnation=5, color=3, epoch=1, written=_EXTREMES[value % len(_EXTREMES)])
    schema = with_streams(made.schema, [end])
    return made.replace_schema_metadata({**metadata, **schema.metadata})


def _with(made: pa.Table, number: int, values: list[Any], type_: pa.DataType) -> pa.Table:
    try:
        array = pa.array(values, type_)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return made
    return made.set_column(number, pa.field(made.schema.names[number], type_), array)


def _seeds() -> tuple[bytes, ...]:
    found = []
    with scratch() as path:
        for form in _FORMS:
            write(table(), form, path)
            found.append(path.read_bytes())
    return tuple(found)


def _content() -> bytes:
    sink = pa.BufferOutputStream()
    batch = blobs.compact(table())
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


_FILES = _seeds()
_NAMES = tuple(field.name.encode() for field in FIELDS)
_NUMBERS = (b"\xff" * 8, b"\xff\xff\xff\x7f", bytes(8), b"\0\0\0\x80", b"\xff\xff\xff\xff\0\0\0\0")
_JSON = (
    b"[" * 1500,
    b'{"chassis":"a","incarnation":5,"color":3,"epoch":1,"written":9223372036854775807}',
    b"\xff",
    b"null",
)
TARGETS = (
    Target("record_file", or_refused(file), _FILES, (*_NUMBERS, *_NAMES[:4]), 1 << 16),
    Target("blob", blob, (blobs.encode(table()), blobs.encode(table(), codec="zstd")), _NUMBERS, 1 << 15),
    Target("blob_content", or_refused(unframed), (_content(),), _NUMBERS, 1 << 15),
    Target(
        "record_metadata",
        or_refused(metadata),
        (b"\0" + table().schema.metadata[STREAMS_KEY], b"\1" + table().schema.metadata[EVIDENCE_KEY]),
        _JSON,
        8192,
    ),
    Target(
        "record_lies",
        or_refused(lies),
        (bytes(5), b"\4\0\x0f\xff\x0b", b"\1\xff\0\0\x0c", b"\3\0\5\0\x0c"),
        (b"\0\7\xff\x0c",),
        64,
    ),
)
