"""The published schema of log records (docs/records.md): one table of fields, from which all forms are made.

Two forms hold the same fields. *Flat* has a column for each field: what people and other programs read, stored as
Parquet or Arrow IPC. *Compact* is what is sent and kept in great numbers: fields that the entry which made the copy
determines are one dictionary-encoded struct column, `place`, those that all packets of a flow share there another,
`headers`, and those that all records of a packet share a third, `packet`; so a record costs an index for each, and a
reader can look at each place and each packet once instead of at each record.

Apart from `record`, since importing Arrow takes longer than a task may wait before it starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

import msgspec
import pyarrow as pa

from vtrace.model.record import EvidenceRecord, LogRecord
from vtrace.model.record import StreamEnd as StreamEnd

SCHEMA_VERSION = 3
VERSION_KEY = b"vtrace_record_version"
STREAMS_KEY = b"vtrace_streams"
EVIDENCE_KEY = b"vtrace_evidence"

PLACE, HEADERS, PACKET, RECORD = "place", "headers", "packet", "record"
GROUPS = (PLACE, HEADERS, PACKET)
"""Those that are struct columns of the compact form."""


class RecordField(msgspec.Struct, frozen=True):
    """A field of the schema. `group` is the struct column of the compact form that it stands in, or "record"."""

    name: str
    type: pa.DataType
    group: str


def _fields(group: str, arrow_type: pa.DataType, names: str) -> tuple[RecordField, ...]:
    return tuple(RecordField(name, arrow_type, group) for name in names.split())


_FIELDS = {
    field.name: field
    for field in (
        *_fields(PLACE, pa.string(), "region chassis task peer tunnel_src tunnel_dst"),
        *_fields(PLACE, pa.int64(), "incarnation epoch datapath in_key out_key in_ofport tunnel_id"),
        *_fields(PLACE, pa.int32(), "pair"),
        *_fields(PLACE, pa.uint8(), "color point dscp"),
        *_fields(HEADERS, pa.string(), "src dst"),
        *_fields(HEADERS, pa.int64(), "eth_src eth_dst"),
        *_fields(HEADERS, pa.int32(), "vlan ct_zone"),
        *_fields(HEADERS, pa.uint32(), "ct_state"),
        *_fields(HEADERS, pa.uint8(), "proto ecn ttl"),
        *_fields(PACKET, pa.int64(), "key"),
        *_fields(PACKET, pa.uint32(), "ip_id length_bytes"),
        *_fields(PACKET, pa.uint16(), "sport dport tcp_flags"),
        *_fields(PACKET, pa.uint8(), "fragment"),
        *_fields(RECORD, pa.int64(), "seq wall_ns mono_ns"),
    )
}
FIELDS = tuple(_FIELDS[name] for name in LogRecord.__struct_fields__)
"""All fields, in the order of `LogRecord`."""

RECORD_SCHEMA: pa.Schema = pa.schema(
    [pa.field(f.name, f.type, nullable=False) for f in FIELDS],
    metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()},
)
"""The flat form."""


def group_fields(group: str) -> tuple[RecordField, ...]:
    """The fields of one group, in the order of the schema."""
    return tuple(f for f in FIELDS if f.group == group)


# The monotonic clock is kept in three parts (`collect.clocks`): of a record's place, of its packet, and the rest. The
# wall clock is kept as what it is ahead of that one: at the first record of a place, and the difference to that, which
# hardly ever changes. So neither takes much room.
MONO_FIELD, MONO_OFFSET_FIELD, MONO_DELTA_FIELD = "mono_base_ns", "mono_offset_ns", "mono_delta_ns"
CLOCK_FIELD, CLOCK_DELTA_FIELD = "clock_ns", "clock_delta_ns"
_CLOCK_FIELDS = {PLACE: (MONO_FIELD, CLOCK_FIELD), HEADERS: (), PACKET: (MONO_OFFSET_FIELD,)}


@cache
def struct_type(group: str) -> pa.StructType:
    """The struct that a group is in the compact form."""
    types = {**{f.name: f.type for f in group_fields(group)}, **dict.fromkeys(_CLOCK_FIELDS[group], pa.int64())}
    return pa.struct([pa.field(name, type_, nullable=False) for name, type_ in types.items()])


COMPACT_SCHEMA: pa.Schema = pa.schema(
    [
        *(pa.field(g, pa.dictionary(pa.int32(), struct_type(g)), nullable=False) for g in GROUPS),
        *(pa.field(name, pa.int64(), nullable=False) for name in ("seq", MONO_DELTA_FIELD, CLOCK_DELTA_FIELD)),
    ],
    metadata=RECORD_SCHEMA.metadata,
)
"""The compact form."""


def with_streams(schema: pa.Schema, ends: Iterable[StreamEnd]) -> pa.Schema:
    """The schema with what its table's writers wrote in all, which travels as metadata."""
    return schema.with_metadata({**(schema.metadata or {}), STREAMS_KEY: msgspec.json.encode(list(ends))})


def streams_of(metadata: Mapping[bytes, bytes] | None) -> tuple[StreamEnd, ...]:
    """What `with_streams` put in; nothing if it did not.

    Raises:
        msgspec.MsgspecError: the metadata are not what they should be.
    """
    text = (metadata or {}).get(STREAMS_KEY)
    return msgspec.json.decode(text, type=tuple[StreamEnd, ...]) if text else ()


def with_evidence(schema: pa.Schema, evidence: Iterable[EvidenceRecord]) -> pa.Schema:
    """The schema with what chassis said about flows of these records, which travels as metadata."""
    return schema.with_metadata({**(schema.metadata or {}), EVIDENCE_KEY: msgspec.json.encode(list(evidence))})


def evidence_of(metadata: Mapping[bytes, bytes] | None) -> tuple[EvidenceRecord, ...]:
    """What `with_evidence` put in; nothing if it did not.

    Raises:
        msgspec.MsgspecError: the metadata are not what they should be.
    """
    text = (metadata or {}).get(EVIDENCE_KEY)
    return msgspec.json.decode(text, type=tuple[EvidenceRecord, ...]) if text else ()


def to_table(records: Iterable[LogRecord]) -> pa.Table:
    """The records as an Arrow table of `RECORD_SCHEMA`."""
    rows = list(records)
    columns = [pa.array([getattr(r, f.name) for r in rows], f.type) for f in FIELDS]
    return pa.table(columns, schema=RECORD_SCHEMA)


def from_table(table: pa.Table) -> list[LogRecord]:
    """The rows of an Arrow table of `RECORD_SCHEMA`."""
    columns = (table.column(name).to_pylist() for name in RECORD_SCHEMA.names)
    return [LogRecord(**dict(zip(RECORD_SCHEMA.names, row, strict=True))) for row in zip(*columns, strict=True)]
