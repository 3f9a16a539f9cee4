"""Output tables and a free register, found from the entries of bridges that somebody wrote by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from vtrace.errors import BridgeNotUnderstoodError, RefusedError
from vtrace.model.plain import LearnedMac, PlainLayout, RegisterField
from vtrace.ovs.flowtext import parse_dump
from vtrace.ovs.plain_layout import MAX_MIRRORED, discover, dscp_entries, parse_fdb


def layout(text: str, groups: Mapping[int, tuple[str, ...]] | None = None) -> PlainLayout:
    return discover(parse_dump(text), groups or {}, (), "br0")


UNCLEAR = BridgeNotUnderstoodError


def many(line: str, count: int) -> str:
    return "".join(line.format(n) for n in range(count))


SWITCH = """
 cookie=0x0, table=0, n_packets=0, n_bytes=0, priority=100,in_port=1 actions=load:0x1->NXM_NX_REG15[],resubmit(,10)
 cookie=0x0, table=0, n_packets=0, n_bytes=0, priority=50,arp actions=FLOOD
 cookie=0x7, table=10, n_packets=0, n_bytes=0, priority=9,reg14=0x1/0x1,dl_dst=0a:00:00:00:00:01 actions=output:3
 cookie=0x0, table=10, n_packets=0, n_bytes=0, priority=9,ip actions=resubmit(,20)
 cookie=0x0, table=10, n_packets=0, n_bytes=0, priority=0 actions=drop
 cookie=0x0, table=20, n_packets=0, n_bytes=0, actions=output:NXM_NX_REG0[4..15]
 cookie=0x0, table=30, n_packets=0, n_bytes=0, actions=drop
"""


def test_output_tables() -> None:
    found = layout(SWITCH)
    assert [t.table for t in found.tables] == [0, 10, 20]
    assert [t.mirror for t in found.tables] == [253, 252, 251]
    assert [t.lsb for t in found.tables] == [2, 4, 6]
    assert found.guard.register == 13, "reg15 is set and reg14 matched"
    ten = found.tables[1]
    assert [(e.rank, e.ports, e.terms) for e in ten.entries] == [
        (2, (3,), ("reg14=0x1/0x1", "dl_dst=0a:00:00:00:00:01")),
        (2, (), ("ip",)),
        (1, (), ()),
    ]
    assert found.tables[2].entries[0].field == RegisterField(register=0, lsb=4, width=12)
    assert not ten.returns


@pytest.mark.parametrize(
    ("actions", "why"),
    [
        ("output:1", ""),
        ("output:1,output:2", "several"),
        ("FLOOD", "told beforehand"),
        ("output:NXM_OF_IN_PORT[]", "told beforehand"),
        ("controller(reason=no_match,max_len=65535,id=0)", "controller"),
        ("output:1,resubmit(,9)", "passes them on too"),
        ("resubmit(,3)", "same table"),
        ("group:4", ""),
        ("group:5", "several"),
    ],
)
def test_why_a_color_has_to_go(actions: str, why: str) -> None:
    text = f" table=1, priority=5,ip actions={actions}\n table=1, priority=1 actions=output:9\n"
    found = layout(text + " table=3, actions=resubmit(,1)\n", {4: ("output:1",), 5: ("output:1", "output:2")})
    (table,) = found.tables
    assert why in table.entries[0].unsure
    assert bool(table.entries[0].unsure) == bool(why)
    assert bool(found.notes) == bool(why)


def test_conntrack_and_back_is_one_look_more_and_no_loop() -> None:
    text = " table=0, ct_state=-trk,ip actions=ct(table=1)\n table=1, actions=resubmit(,0)\n"
    (table,) = layout(text + " table=0, priority=1 actions=output:1\n").tables
    assert table.returns
    assert [(e.once, e.unsure) for e in table.entries] == [(True, ""), (False, "")]


def test_a_table_that_outputs_are_learned_into_is_an_output_table() -> None:
    learning = "learn(table=4,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]),resubmit(,4)"
    found = layout(f" table=0, actions={learning}\n")
    assert [(t.table, t.entries) for t in found.tables] == [(4, ())]


def test_ours_are_left_aside_and_tables_in_use_not_taken() -> None:
    ours = " cookie=0x5654100100000001, table=0, hard_timeout=30, priority=65535,reg15=0x1 actions=output:5\n"
    found = layout(SWITCH + ours)
    assert found == layout(SWITCH)
    assert layout(SWITCH + " table=40, actions=goto_table:253\n table=252, actions=drop\n").tables[0].mirror == 251


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (" table=0, priority=65535,ip actions=output:1\n", RefusedError, "highest priority"),
        (" table=0, priority=65535,ip actions=drop\n table=0, actions=output:1\n", RefusedError, "highest priority"),
        (" table=0, conj_id=1,ip actions=output:1\n", UNCLEAR, "conjunctive"),
        (" table=0, ip actions=conjunction(1,1/2)\n table=0, actions=output:1\n", UNCLEAR, "conjunctive"),
        (" table=0, actions=teleport\n", UNCLEAR, "teleport"),
        (many(" table=0, priority={} actions=output:1\n", MAX_MIRRORED + 1), UNCLEAR, "2001"),
        (many(" table={}, actions=output:1\n", 16), UNCLEAR, "16 of its tables"),
        (many(" table={}, actions=drop\n", 254) + " table=0, actions=output:1\n", UNCLEAR, "unused table"),
        (many(" table=0, reg{}=1 actions=output:1\n", 16), UNCLEAR, "every register"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        layout(text)


def test_entries_that_use_the_dscp() -> None:
    text = (
        " table=0, priority=3,ip,nw_tos=184 actions=drop\n table=0, priority=2,ip actions=mod_nw_tos:4,output:1\n"
        " table=0, priority=1,ip actions=move:NXM_OF_IP_TOS[]->NXM_NX_REG0[0..7]\n table=0, ip actions=output:1\n"
    )
    assert [line.partition(" ")[0] for line in dscp_entries(parse_dump(text))] == [
        "table=0,priority=3,ip,nw_tos=184",
        "table=0,priority=2,ip",
        "table=0,priority=1,ip",
    ]


def test_fdb() -> None:
    text = (
        " port  VLAN  MAC                Age\n    1     0  0A:00:00:00:00:01    7\nLOCAL 0 fe:00:00:00:00:01 static\n"
    )
    assert parse_fdb(text) == (LearnedMac(port=1, vlan=0, mac="0a:00:00:00:00:01", age_s=7),)
