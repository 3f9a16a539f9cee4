"""The packet's fields at each look-up; lines of real traces (Open vSwitch 3.1)."""

from __future__ import annotations

from vtrace.ovs.trace_packet import last_seen, look_ups

TEXT = """Flow: udp,in_port=4,tun_id=0x1,vlan_tci=0x0000,dl_src=0a:00:01:00:00:02,dl_dst=0a:00:00:00:00:04,nw_src=10.1.1.11,nw_dst=10.1.2.11,nw_ttl=63,tp_src=30001,tp_dst=5432

bridge("br-int")
----------------
 0. in_port=4, priority 100
    move:NXM_NX_TUN_ID[0..23]->OXM_OF_METADATA[0..23]
     -> OXM_OF_METADATA[0..23] is now 0x1
    move:NXM_NX_TUN_METADATA0[0..15]->NXM_NX_REG15[0..15]
     -> NXM_NX_REG15[0..15] is now 0x3
    resubmit(,40)
40. reg15=0x3,metadata=0x1, priority 100, cookie 0xfe50db21
    set_field:0x1->reg13
    set_field:0x8000000000000000000000000000/0x8000000000000000000000000000->xxreg0
    set_field:0/0xffff00000000->xreg4
    set_field:0x4/0x4->xreg4
    load:0x5->NXM_NX_REG8[16..31]
    set_field:0a:00:00:00:00:09->eth_dst
    dec_ttl()
    resubmit(,46)
46. No match.
    drop

Final flow: udp
"""  # noqa: E501

RESUMED = """Flow: recirc_id=0x5,ct_state=est|trk,ct_zone=3,eth,tcp6,reg14=0x2,metadata=0x1,ipv6_src=fd00::1,ipv6_dst=fd00::2,tp_dst=80

bridge("br-int")
----------------
    thaw
        Resuming from table 17
17. ct_state=-new+est,metadata=0x1, priority 5, cookie 0x1
    ct_clear
    move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]
     -> NXM_OF_ETH_DST[] is now 0a:00:00:00:00:01
    resubmit(,18)
18. priority 0
    drop
"""  # noqa: E501


def test_tables_priorities_and_cookies() -> None:
    found = [(look.table, look.priority, look.cookie) for look in look_ups(TEXT)]
    assert found == [(0, 100, 0), (40, 100, 0xFE50DB21), (46, -1, 0)]


def test_headers_and_registers_as_they_were_there() -> None:
    first, second, last = look_ups(TEXT)
    assert (first.fields["version"], first.fields["nw_proto"], first.fields["metadata"]) == (4, 17, 0)
    assert (first.fields["nw_dst"], first.fields["dl_dst"]) == (0x0A01020B, 0x0A0000000004)
    assert (second.fields["metadata"], second.fields["reg15"], second.fields["reg13"]) == (1, 3, 0)
    assert (last.fields["reg13"], last.fields["reg0"], last.fields["reg9"]) == (1, 0x8000, 4)
    assert (last.fields["reg8"], last.fields["dl_dst"], last.fields["nw_ttl"]) == (0x50000, 0x0A0000000009, 62)


def test_conntrack_states_of_a_pass_that_resumes() -> None:
    first, last = look_ups(RESUMED)
    assert (first.fields["version"], first.fields["reg14"], first.fields["ipv6_dst"]) == (6, 2, 0xFD00 << 112 | 2)
    assert (first.fields["ct.est"], first.fields["ct.trk"], first.fields["ct.new"]) == (1, 1, 0)
    assert (last.fields["ct.est"], last.fields["ct.trk"]) == (0, 0)


def test_what_was_copied_from_elsewhere_is_not_known() -> None:
    assert "dl_dst" not in look_ups(RESUMED)[-1].fields


NO_CT = {"ct_zone": 0, "ct_new": False}


def test_addresses_at_the_last_look_up() -> None:
    four = TEXT.replace("set_field:0x1->reg13", "set_field:0xa010214->reg0").replace(
        "    set_field:0x8", "    unknown:0x8"
    )
    assert last_seen(four) == {"dst": "10.1.2.11", "next_hop": "10.1.2.20", "eth_dst": "0a:00:00:00:00:09", **NO_CT}
    assert last_seen(RESUMED) == {"dst": "fd00::2", "next_hop": "", "eth_dst": "", **NO_CT}
    six = RESUMED.replace("ct_clear", "set_field:0xfd000000000000000000000000000007->xxreg0")
    assert last_seen(six)["next_hop"] == "fd00::7"
    assert last_seen("") == {"dst": "", "next_hop": "", "eth_dst": "", **NO_CT}


def test_conntrack_zone_and_state_at_the_last_look_up() -> None:
    text = (
        RESUMED.replace("reg14=0x2", "reg13=0x3,reg14=0x2").replace("est|trk", "new|trk").replace("    ct_clear\n", "")
    )
    found = last_seen(text)
    assert (found["ct_zone"], found["ct_new"]) == (3, True)
