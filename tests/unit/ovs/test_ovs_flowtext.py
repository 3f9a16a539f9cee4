"""Text of ovs-ofctl: no number is ever read in part, brackets are honored, garbage is a ProtocolError."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtrace.errors import ProtocolError
from vtrace.model.openflow import MeterStat
from vtrace.ovs import flowtext, ofctl

DATA = Path(__file__).parent / "data"

OURS = (
    " cookie=0x5654100100000001, duration=0.007s, table=200, n_packets=12, n_bytes=345, hard_timeout=600, "
    "send_flow_rem priority=65535,reg10=0x4000000/0xc000000,in_port=12 "
    "actions=clone(load:0x1->NXM_NX_REG10[26..27],controller(max_len=128,id=20481,userdata=00.01.02),resubmit(,0))"
)


def test_every_word_of_an_entry_is_read() -> None:
    entry = flowtext.parse_entry(OURS)
    assert (entry.table, entry.priority, entry.cookie) == (200, 65535, 0x5654_1001_0000_0001)
    assert (entry.n_packets, entry.n_bytes, entry.duration_s, entry.hard_timeout_s) == (12, 345, 0.007, 600)
    assert entry.match == "reg10=0x4000000/0xc000000,in_port=12"
    assert entry.actions.startswith("clone(load:0x1->")
    assert entry.actions.endswith("resubmit(,0))")


def test_port_12_is_not_port_2() -> None:
    assert flowtext.match_fields(flowtext.parse_entry(OURS).match)["in_port"] == "12"


def test_an_entry_without_priority_has_the_default_one() -> None:
    entry = flowtext.parse_entry(" cookie=0x0, duration=1.5s, table=2, n_packets=0, n_bytes=0, actions=drop")
    assert (entry.priority, entry.match, entry.actions) == (32768, "", "drop")


def test_a_real_dump_is_read_whole() -> None:
    text = (DATA / "dump_23.03.1.txt").read_text()
    entries = flowtext.parse_dump("OFPST_FLOW reply (OF1.3) (xid=0x2):\n" + text)
    assert len(entries) == len(text.splitlines())
    assert all(entry.actions for entry in entries)
    assert {entry.table for entry in entries} >= {0, 37, 39, 40, 41, 64, 65}


@pytest.mark.parametrize("line", ["", "cookie=0x1", "cookie=zz, actions=drop", "priority=1,(( actions=drop"])
def test_what_is_no_entry_is_refused(line: str) -> None:
    with pytest.raises(ProtocolError):
        flowtext.parse_entry(line)


def test_split_honors_brackets_of_all_kinds() -> None:
    assert list(flowtext.split_top("a(b,c),[d,e],{f,g}, h")) == ["a(b,c)", "[d,e]", "{f,g}", "h"]


@given(st.text(alphabet="abc(),[]{}=/0x19 :->", max_size=60))
def test_garbage_is_a_protocol_error_or_an_entry(text: str) -> None:
    for read in (flowtext.parse_entry, flowtext.number, flowtext.match_fields, lambda t: flowtext.masked(t, 32)):
        with contextlib.suppress(ProtocolError):
            read(text)


def test_meters_are_read_and_merged() -> None:
    config = (
        "OFPST_METER_CONFIG reply (OF1.3) (xid=0x2):\n"
        "meter=7 pktps burst stats bands=\ntype=drop rate=100 burst_size=50\n\n"
        "meter=262143 kbps bands=\ntype=drop rate=8\n"
    )
    stats = (
        "OFPST_METER reply (OF1.3) (xid=0x2):\n"
        "meter:7 flow_count:3 packet_in_count:99 byte_in_count:990 duration:0.014s bands:\n"
        "0: packet_count:42 byte_count:420\n"
    )
    assert ofctl.parse_meter_configs(config) == {7: (100, 50), 262143: (0, 0)}
    counted = ofctl.parse_meter_stats(stats)[7]
    merged = MeterStat(meter_id=7, **counted)
    assert (merged.packets_in, merged.in_use_by, merged.band_packets) == (99, 3, 42)


def test_table_counts_follow_ditto() -> None:
    text = (
        "OFPST_TABLE reply (OF1.3) (xid=0x2):\n  table 0:\n    active=11, lookup=77, matched=77\n\n"
        "  table 1:\n    active=0, lookup=0, matched=0\n\n  tables 2...7: ditto\n\n"
        "  table 8:\n    active=18, lookup=99, matched=99\n\n  table 9: ditto\n"
    )
    counts = ofctl.parse_table_counts(text)
    assert counts == {0: 11, **dict.fromkeys(range(1, 8), 0), 8: 18, 9: 18}


def test_port_counters_leave_out_what_a_port_does_not_keep() -> None:
    text = (
        "OFPST_PORT reply (OF1.3) (xid=0x2): 7 ports\n"
        "  port  8: rx pkts=1, bytes=2, drop=?, errs=?, frame=?, over=?, crc=?\n"
        "           tx pkts=6, bytes=474, drop=3, errs=?, coll=?\n           duration=215.055s\n"
        "  port LOCAL: rx pkts=0, bytes=0, drop=0, errs=0, frame=0, over=0, crc=0\n"
    )
    counters = ofctl.parse_port_counters(text)
    assert counters["8"] == {"rx_packets": 1, "rx_bytes": 2, "tx_packets": 6, "tx_bytes": 474, "tx_dropped": 3}
    assert counters["LOCAL"]["rx_dropped"] == 0
