"""What makes the userspace datapath forget cached flows: ours, scoped, and without effect on a packet."""

from __future__ import annotations

from builders import CLAIM

from vtrace.color.refresh import refresh_entries
from vtrace.color.registry import PRIORITY_COLOR, Role, is_our_entry, role_of
from vtrace.model.openflow import GuardBits


def test_an_entry_is_ours_scoped_and_ends() -> None:
    made = refresh_entries(3, GuardBits(register=10, lsb=26), CLAIM, 0x80000005, 25)
    assert [e.match for e in made] == [
        "in_port=3,ip,pkt_mark=0x80000005/0x80000005,reg10=0/0xc000000",
        "in_port=3,ipv6,pkt_mark=0x80000005/0x80000005,reg10=0/0xc000000",
    ]
    for one in made:
        # Past our entries of table 0, and then what would have come without it.
        assert one.actions == "load:0x1->NXM_NX_REG10[26..27],resubmit(,0)"
        assert (one.table, one.priority, one.hard_timeout_s) == (0, PRIORITY_COLOR, 25)
        assert is_our_entry(one.cookie, one.hard_timeout_s)
        assert role_of(one.cookie) == Role.REFRESH
