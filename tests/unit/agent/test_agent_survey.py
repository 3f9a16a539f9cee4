"""What an agent reads of its bridge, from entries as ovs-ofctl prints them."""

from __future__ import annotations

import pytest
from builders import installed

from vtrace.agent.survey import colors_used, entries_at_top, local_vifs
from vtrace.color.registry import Role, cookie
from vtrace.model.openflow import InstalledEntry, OfPort
from vtrace.model.plan import LocalVif

# OVN 23.03.1 on OVS 3.1.0 prints set_field; older ones print load (ovs-actions(7)).
SET_FIELD = (
    "in_port=5 actions=set_field:0x1->reg13,set_field:0x3->reg11,set_field:0x2->reg12,set_field:0x1->metadata,"
    "set_field:0x2->reg14,resubmit(,8)"
)
LOAD = (
    "in_port=6 actions=load:0x1->NXM_NX_REG13[],load:0x3->NXM_NX_REG11[],load:0x2->NXM_NX_REG12[],"
    "load:0xa->OXM_OF_METADATA[],load:0x10->NXM_NX_REG14[],resubmit(,8)"
)
TUNNEL = (
    "in_port=8 actions=move:NXM_NX_TUN_ID[0..23]->OXM_OF_METADATA[0..23],"
    "move:NXM_NX_TUN_METADATA0[16..30]->NXM_NX_REG14[0..14],move:NXM_NX_TUN_METADATA0[0..15]->NXM_NX_REG15[0..15],"
    "resubmit(,40)"
)


@pytest.mark.parametrize(
    ("text", "vif"),
    [
        (SET_FIELD, LocalVif(ofport=OfPort(5), datapath=1, key=2)),
        (LOAD, LocalVif(ofport=OfPort(6), datapath=10, key=16)),
        (
            SET_FIELD.replace("in_port=5", "in_port=12,vlan_tci=0x0000/0x1000"),
            LocalVif(ofport=OfPort(12), datapath=1, key=2),
        ),
    ],
    ids=["set_field", "load", "localnet"],
)
def test_a_vif(text: str, vif: LocalVif) -> None:
    assert local_vifs([installed(text)]) == (vif,)


@pytest.mark.parametrize(
    "text",
    [
        TUNNEL,
        " actions=drop",
        "in_port=9 actions=NORMAL",
        "in_port=9 actions=set_field:0x1->metadata,resubmit(,8)",
        "in_port=9 actions=set_field:0x1->reg14,resubmit(,8)",
        "dl_vlan=5 actions=set_field:0x1->metadata,set_field:0x2->reg14,resubmit(,8)",
        "in_port=LOCAL actions=set_field:0x1->metadata,set_field:0x2->reg14,resubmit(,8)",
    ],
    ids=["tunnel", "default", "normal", "no key", "no datapath", "no port", "local"],
)
def test_what_is_no_vif(text: str) -> None:
    assert local_vifs([installed(text)]) == ()


def test_our_own_entries_are_no_vifs() -> None:
    assert local_vifs([installed(SET_FIELD, cookie=cookie(Role.COLOR, 1), hard_timeout_s=30)]) == ()


def test_a_masked_load_of_somebody_else_does_not_end_the_run() -> None:
    text = "in_port=9 actions=set_field:0x1/0xff->metadata,set_field:0x2/0xff->reg14,resubmit(,8)"
    assert local_vifs([installed(text)]) == ()


def test_colors_used_by_other_runs() -> None:
    ours = [
        installed(" actions=drop", cookie=cookie(role, generation, color=color), hard_timeout_s=30)
        for role, generation, color in [
            (Role.CLAIM, 1, 11),
            (Role.MATCH, 1, 11),
            (Role.COLOR, 2, 3),
            (Role.COUNT, 2, 0),
        ]
    ]
    assert colors_used(ours) == (3, 11)


def test_entries_of_others_at_our_priority() -> None:
    entries: list[InstalledEntry] = [
        installed("ip,nw_dst=10.0.0.1 actions=drop", priority=65535, table=8),
        installed("ip actions=drop", priority=65534),
        installed("ip actions=drop", priority=65533),
        installed("ip actions=drop", priority=65534, table=8),
        installed("ip actions=drop", priority=65535, cookie=cookie(Role.MATCH, 1), hard_timeout_s=30),
    ]
    assert entries_at_top(entries) == (
        "table=8,priority=65535,ip,nw_dst=10.0.0.1 actions=drop",
        "table=0,priority=65534,ip actions=drop",
    )


def test_what_only_begins_as_our_cookies_do_is_somebody_elses() -> None:
    """All of ours have a hard time-out, a role and a generation."""
    like_ours = [
        installed("ip actions=drop", priority=65535, cookie=cookie(Role.MATCH, 1, color=7)),
        installed("ip actions=drop", priority=65535, cookie=cookie(Role.MATCH, 0, color=7), hard_timeout_s=30),
        installed("ip actions=drop", priority=65535, cookie=0x5654_F001_0000_0000, hard_timeout_s=30),
    ]
    assert len(entries_at_top(like_ours)) == 3
    assert colors_used(like_ours) == ()


def test_who_shares_an_interface_with_nested_ports_takes_untagged_frames_only() -> None:
    parent, alone = installed(SET_FIELD), installed(LOAD)
    child = installed(SET_FIELD.replace("in_port=5", "in_port=5,dl_vlan=7").replace("0x2->reg14", "0x9->reg14"))
    found = {(vif.ofport, vif.vlan): vif.match for vif in local_vifs([parent, child, alone])}
    assert found == {
        (5, 0): "in_port=5,vlan_tci=0x0000/0x1000",
        (5, 7): "in_port=5,dl_vlan=7",
        (6, 0): "in_port=6",
    }
