"""Log records as Arrow tables, and their schema."""

from __future__ import annotations

import msgspec
import msgspec.structs
import pyarrow as pa
import pytest
from builders import PROPERTY
from hypothesis import given
from hypothesis import strategies as st

from vtrace.model.record import LogRecord, Point, flow_id
from vtrace.model.record_schema import RECORD_SCHEMA, from_table, to_table

TEXT = st.text(max_size=20)
INT64 = st.integers(-(2**63), 2**63 - 1)
COUNT = st.integers(0, 2**63 - 1)
BYTE = st.integers(0, 255)
RECORDS = st.builds(
    LogRecord,
    **dict.fromkeys(LogRecord.__struct_fields__, COUNT)
    | dict.fromkeys(("sport", "dport", "tcp_flags"), st.integers(0, 2**16 - 1))
    | dict.fromkeys(("ip_id", "length_bytes", "ct_state"), st.integers(0, 2**32 - 1))
    | dict.fromkeys(("vlan", "ct_zone"), st.integers(-1, 2**31 - 1))
    | dict.fromkeys(("region", "chassis", "task", "peer", "tunnel_src", "tunnel_dst", "src", "dst"), TEXT)
    | dict.fromkeys(("color", "fragment", "ecn", "dscp", "ttl", "proto"), BYTE)
    | {
        "key": INT64,
        "pair": st.integers(-1, 255),
        "point": st.sampled_from(Point),
        "eth_src": st.integers(0, 2**48 - 1),
    },
)


@PROPERTY
@given(st.lists(RECORDS, max_size=5))
def test_records_round_trip(records: list[LogRecord]) -> None:
    table = to_table(records)
    assert table.schema.equals(RECORD_SCHEMA, check_metadata=True)
    assert from_table(table) == records


@PROPERTY
@given(st.lists(RECORDS, max_size=3))
def test_records_round_trip_as_an_arrow_stream(records: list[LogRecord]) -> None:
    sink = pa.BufferOutputStream()
    table = to_table(records)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    back = pa.ipc.open_stream(sink.getvalue()).read_all()
    assert back.schema.metadata == {b"vtrace_record_version": b"3"}
    assert from_table(back) == records


def test_every_field_is_a_column_and_none_is_null() -> None:
    assert RECORD_SCHEMA.names == list(LogRecord.__struct_fields__)
    assert not any(field.nullable for field in RECORD_SCHEMA)


@pytest.mark.parametrize("column", ["key", "incarnation", "eth_src", "tunnel_id", "wall_ns", "mono_ns", "seq"])
def test_wide_columns_hold_64_bits(column: str) -> None:
    assert RECORD_SCHEMA.field(column).type == pa.int64()


def test_a_record_knows_what_the_design_asks_for() -> None:
    # design.md, "Log": what the record has.
    wanted = {"region", "chassis", "seq", "point", "datapath", "in_key", "out_key", "tunnel_id", "tunnel_src"}
    wanted |= {"tunnel_dst", "proto", "src", "dst", "sport", "dport", "ttl", "dscp", "ct_state", "wall_ns", "mono_ns"}
    wanted |= {"key", "color", "epoch", "task"}
    assert wanted <= set(LogRecord.__struct_fields__)
    assert not {"payload", "packet", "data"} & set(LogRecord.__struct_fields__)


def test_points_have_the_words_of_the_answer() -> None:
    assert {point.word for point in Point} == {"first_hop", "ingress", "logical_egress", "remote_output", "egress"}


@pytest.mark.parametrize(
    ("field", "value", "same"),
    [
        ("seq", 9, True),
        ("key", 9, True),
        ("ip_id", 9, True),
        ("length_bytes", 9, True),
        ("wall_ns", 9, True),
        ("tcp_flags", 0x18, True),
        ("tcp_flags", 0x02, False),
        ("tcp_flags", 0x04, False),
        ("src", "c", False),
        ("dst", "c", False),
        ("sport", 9, False),
        ("dport", 9, False),
        ("proto", 17, False),
        ("ttl", 9, False),
        ("dscp", 9, False),
        ("fragment", 1, False),
    ],
)
def test_packets_of_one_flow_differ_in_nothing_that_a_pipeline_looks_at(field: str, value: object, same: bool) -> None:
    one = msgspec.convert({**REQUIRED, "tcp_flags": 0x10}, LogRecord)
    two = msgspec.structs.replace(one, **{field: value})
    assert (flow_id(one) == flow_id(two)) == same


def test_a_record_is_frozen() -> None:
    (record,) = from_table(to_table([msgspec.convert({**REQUIRED}, LogRecord)]))
    with pytest.raises(AttributeError):
        record.ttl = 1  # type: ignore[misc]


REQUIRED = {
    "chassis": "c",
    "incarnation": 1,
    "seq": 1,
    "color": 3,
    "epoch": 1,
    "key": 0,
    "point": 0,
    "datapath": 1,
    "proto": 6,
    "src": "a",
    "dst": "b",
}
