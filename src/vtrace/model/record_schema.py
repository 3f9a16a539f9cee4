"""The Arrow schema of log records, made of `LogRecord`'s fields.

Apart from `record`, since importing Arrow takes longer than a task may wait before it starts.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pyarrow as pa

from vtrace.model.record import LogRecord

_SMALL = {
    "color",
    "point",
    "fragment",
    "ecn",
    "dscp",
    "ttl",
    "proto",
}
_TEXT = {"region", "chassis", "task", "peer", "tunnel_src", "tunnel_dst", "src", "dst"}


def _type_of(name: str) -> pa.DataType:
    if name in _TEXT:
        return pa.string()
    return pa.int16() if name in _SMALL else pa.int64()


SCHEMA_VERSION = 1
RECORD_SCHEMA: pa.Schema = pa.schema(
    [pa.field(name, _type_of(name), nullable=False) for name in LogRecord.__struct_fields__],
    metadata={"vtrace_record_version": str(SCHEMA_VERSION)},
)


def to_table(records: Iterable[LogRecord]) -> pa.Table:
    """The records as an Arrow table of `RECORD_SCHEMA`."""
    return pa.Table.from_pylist([msgspec.to_builtins(r) for r in records], schema=RECORD_SCHEMA)


def from_table(table: pa.Table) -> list[LogRecord]:
    """The rows of an Arrow table of `RECORD_SCHEMA`."""
    return [msgspec.convert(row, LogRecord) for row in table.to_pylist()]
