"""What action lists can do with a packet (ovs-actions(7)); texts are those of `ovs-ofctl --no-names dump-flows`."""

from __future__ import annotations

import pytest

from vtrace.errors import BridgeNotUnderstoodError
from vtrace.ovs.ofctl import parse_groups
from vtrace.ovs.outputs import Reach, learned_tables, reach_of

GROUPS = {5: ("output:3", "load:1->NXM_NX_REG0[],resubmit(,9)"), 6: ("group:6",)}


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ("drop", Reach()),
        ("output:3", Reach(ports={3})),
        ("output(port=3,max_len=64)", Reach(ports={3})),
        ("enqueue:3:1,LOCAL", Reach(ports={3, 65534})),
        ("set_field:0a:00:00:00:00:01->eth_dst,dec_ttl,output:3", Reach(ports={3})),
        ("output:NXM_NX_REG0[0..15]", Reach(fields={"NXM_NX_REG0[0..15]"})),
        ("NORMAL", Reach(normal=True)),
        ("FLOOD", Reach(spread="FLOOD")),
        ("IN_PORT", Reach(spread="IN_PORT")),
        ("bundle(eth_src,0,active_backup,ofport,members:4,8)", Reach(spread="bundle")),
        ("CONTROLLER:65535", Reach(controller=True)),
        ("controller(reason=no_match,max_len=65535,id=7)", Reach(controller=True)),
        ("goto_table:4", Reach(tables={4})),
        ("resubmit(,4),resubmit(2,5),resubmit:7,resubmit(8,)", Reach(tables={4, 5, 1})),
        ("ct(commit,zone=5,nat(src=10.0.0.1-10.0.0.9))", Reach()),
        ("ct(table=3,zone=NXM_NX_REG4[0..15]),output:1", Reach(ports={1}, ct_tables={3})),
        ("ct(commit,table=6,exec(load:0x1->NXM_NX_CT_MARK[]))", Reach(ct_tables={6})),
        ("clone(set_queue:1,output:2),resubmit(,9)", Reach(ports={2}, tables={9})),
        ("write_actions(output:2),goto_table:7", Reach(ports={2}, tables={7})),
        ("group:5", Reach(ports={3}, tables={9}, groups={5})),
        ("learn(table=8,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]),output:4", Reach(ports={4})),
    ],
)  # fmt: skip
def test_reach(actions: str, expected: Reach) -> None:
    assert reach_of(actions, 1, GROUPS, "here") == expected


@pytest.mark.parametrize(
    ("actions", "says"),
    [
        ("resubmit(,2,ct)", "original tuple"),
        ("teleport:3", "'teleport:3' is not known"),
        ("group:6", "leads to itself"),
        ("clone(output:1", "balance"),
    ],
)
def test_what_is_not_known_is_refused(actions: str, says: str) -> None:
    with pytest.raises(BridgeNotUnderstoodError, match=says) as caught:
        reach_of(actions, 1, GROUPS, "br0: table=1")
    assert caught.value.where == "br0: table=1"


def test_tables_that_entries_are_learned_into() -> None:
    text = "learn(table=8,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]),learn(load:1->NXM_NX_REG1[]),drop"
    assert list(learned_tables(text)) == [(8, True), (1, False)]


def test_groups() -> None:
    text = (
        "OFPST_GROUP_DESC reply (OF1.3) (xid=0x2):\n"
        " group_id=5,type=select,bucket=weight:10,actions=output:3,bucket=weight:5,actions=resubmit(,9)\n"
        " group_id=6,type=all\n"
    )
    assert parse_groups(text) == {5: ("output:3", "resubmit(,9)"), 6: ()}
