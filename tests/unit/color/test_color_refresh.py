"""What makes the userspace datapath forget cached flows: where, by which bits, and that it does nothing else."""

from __future__ import annotations

import pytest
from builders import CLAIM, DB, WEB

from vtrace.color.refresh import places_of, refresh_entries
from vtrace.color.registry import PRIORITY_COLOR, Role, index_of, is_our_entry, role_of
from vtrace.model.openflow import Cookie, FlowEntry, GuardBits, TableId

BITS = GuardBits(register=10, lsb=26)


def entry(match: str, table: int = 0) -> FlowEntry:
    return FlowEntry(table=TableId(table), priority=1, cookie=Cookie(0), match=match, actions="drop", hard_timeout_s=30)


@pytest.mark.parametrize(
    ("match", "places"),
    [
        ("in_port=3,udp,nw_src=10.0.1.1,nw_tos=0,tp_dst=80", ["in_port=3,ip"]),
        ("in_port=3,icmp6,ipv6_src=::1", ["in_port=3,ipv6"]),
        (f"in_port=9,tun_id=0x{WEB:x},ip,nw_tos=12", [f"in_port=9,tun_id=0x{WEB:x},ip"]),
        (f"in_port=9,tun_id=0x{DB:x}/0xffffff,ipv6,nw_tos=12", [f"in_port=9,tun_id=0x{DB:x}/0xffffff,ipv6"]),
        ("in_port=3,arp,arp_op=1", []),
        ("ip,nw_proto=255,reg8=0x3", []),
    ],
)
def test_places_are_where_packets_come_in(match: str, places: list[str]) -> None:
    assert places_of([entry(match), entry(match)]) == places


def test_other_tables_have_no_places() -> None:
    assert places_of([entry("in_port=3,ip", 39)]) == []


def test_an_entry_is_ours_scoped_and_ends() -> None:
    made = refresh_entries(["in_port=3,ip", "in_port=9,tun_id=0x1,ip"], BITS, CLAIM, 1, 0x80000005, 25)
    assert [e.match for e in made] == [
        "in_port=3,ip,pkt_mark=0x80000005/0x80000005,reg10=0/0xc000000",
        "in_port=9,tun_id=0x1,ip,pkt_mark=0x80000005/0x80000005,reg10=0/0xc000000",
    ]
    for one in made:
        # Past our entries of table 0, and then what would have come without it.
        assert one.actions == "load:0x1->NXM_NX_REG10[26..27],resubmit(,0)"
        assert (one.table, one.priority, one.hard_timeout_s) == (0, PRIORITY_COLOR, 25)
        assert is_our_entry(one.cookie, one.hard_timeout_s)
        assert (role_of(one.cookie), index_of(one.cookie)) == (Role.REFRESH, 1)
