"""Real datapath dumps (OVS 3.1.0, userspace): keys, actions, chains, drops after a copy."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtrace.errors import ProtocolError
from vtrace.model.openflow import DatapathFlow
from vtrace.ovs import datapath

DATA = Path(__file__).parent / "data"
COPY = "userspace(pid=0,controller(reason=1,dont_send=0,continuation=0,recirc_id=16,rule_cookie=0x1,max_len=64))"
METERED = f"sample(sample=100.0%,actions(meter(1),{COPY}))"
PUSH = (
    "tnl_push(tnl_port(genev_sys_6081),header(size=58,type=5,eth(dst=aa:55:aa:55:00:02,src=1e:d9:ec:52:17:49,"
    "dl_type=0x0800),ipv4(src=192.0.2.1,dst=192.0.2.2,proto=17,tos=0,ttl=64,frag=0x4000),udp(src=0,dst=6081,"
    "csum=0xffff),geneve(crit,vni=0x1,options({class=0x102,type=0x80,len=4,0x20004}))),out_port(br-phy)),phy0"
)


def flow(actions: str, key: str = "recirc_id(0),in_port(vm1)") -> DatapathFlow:
    return datapath.parse_flow(f"ufid:1-2, {key}, packets:1, bytes:2, used:never, dp:ovs, actions:{actions}")


def test_real_dump() -> None:
    flows = datapath.parse_dump((DATA / "datapath_color.txt").read_text())
    assert len(flows) == 6
    second_pass, first_pass, other, dropped, _, ipv6 = flows
    assert (first_pass.recirc_id, first_pass.in_port, first_pass.packets) == (0, "vm1", 2)
    assert (first_pass.tos, first_pass.tos_mask) == (0x0C, 0xFC)
    assert datapath.recirculations(first_pass) == (0xF,)
    assert (first_pass.unused_s, flow("drop").unused_s) == (0.544, None)
    assert (second_pass.recirc_id, second_pass.tos, second_pass.tos_mask) == (0xF, 0x0C, 0xFF)
    assert second_pass.ct_state == ("new", "trk")
    assert second_pass.ct_state_unset == ("est", "rel", "rpl", "inv")
    assert datapath.outputs(second_pass)[0] == "genev_sys_6081,dst=192.168.77.2"
    assert not datapath.ends_in_drop(first_pass)
    assert not datapath.ends_in_drop(second_pass)
    assert (other.tos_mask, datapath.ends_in_drop(other)) == (0, True)
    assert datapath.ends_in_drop(dropped), "a metered copy and nothing after it"
    assert (ipv6.tos, ipv6.tos_mask, datapath.outputs(ipv6)) == (0x0C, 0xFC, ("vm2", "vm4"))
    assert ipv6.ufid == "97edc015-a676-4753-9f1d-8f4595d4ebf7"


@pytest.mark.parametrize(
    ("actions", "dropped"),
    [
        ("drop", True),
        (COPY, True),
        (METERED, True),
        (f"{COPY},12", False),
        (f"12,{METERED}", True),
        (f"{METERED},{PUSH}", False),
        (f"{COPY},ct(zone=11,nat),recirc(0xf)", False),
        (f"{COPY},clone({PUSH}),ct_clear", False),
        (f"{COPY},set(ipv4(tos=0/0xfc)),ct_clear,pop_vlan", True),
        (f"clone({COPY},4)", False),
        (f"clone(4,{COPY})", True),
        (f"{COPY},check_pkt_len(size=1514,gt(drop),le(3))", False),
        ("userspace(pid=4294967295,slow_path(controller))", False),
        (f"{COPY},hash(l4(0)),recirc(0x5)", False),
        (f"{COPY},lb_output(1)", False),
    ],
)
def test_ends_in_drop(actions: str, dropped: bool) -> None:
    assert datapath.ends_in_drop(flow(actions)) is dropped


def test_kernel_tunnels_name_their_far_end() -> None:
    actions = (
        "set(tunnel(tun_id=0x1,src=192.0.2.1,dst=192.0.2.7,ttl=64,tp_dst=6081,flags(df|csum|key))),genev_sys_6081,3"
    )
    assert datapath.outputs(flow(actions)) == ("genev_sys_6081,dst=192.0.2.7", "3")


def test_ipv6_and_vlan_keys() -> None:
    vlan = flow(
        "drop",
        "recirc_id(0),in_port(12),eth_type(0x8100),vlan(vid=5,pcp=0),encap(eth_type(0x86dd),ipv6(tclass=0x0f/0xfc))",
    )
    assert (vlan.in_port, vlan.tos, vlan.tos_mask) == ("12", 0x0F, 0xFC)
    signed = flow("drop", "recirc_id(0x1f),in_port(2),ct_state(+est-new+trk)")
    assert (signed.recirc_id, signed.ct_state, signed.ct_state_unset) == (0x1F, ("est", "trk"), ("new",))


def test_of_tos_follows_recirculations_and_nothing_else() -> None:
    key = "recirc_id({}),in_port(vm1),ipv4(tos={})"
    first = flow(f"{COPY},recirc(0x5)", key.format("0", "0xc/0xfc"))
    second = flow("recirc(0x6)", key.format("0x5", "0/0"))
    third = flow("drop", key.format("0x6", "0/0"))
    loop = flow("recirc(0x6)", key.format("0x6", "0xd"))
    other_color = flow("drop", key.format("0x5", "0x1c/0xfc"))
    stranger = flow("recirc(0x9)", key.format("0", "0/0"))
    chosen = datapath.of_tos((stranger, third, other_color, second, first, loop), 0x0C)
    assert set(chosen) == {first, second, third, loop}


@pytest.mark.parametrize("line", ["", "recirc_id(0),in_port(1)", "recirc_id(0", "packets:1,actions:4)"])
def test_what_is_no_flow_is_refused(line: str) -> None:
    with pytest.raises(ProtocolError):
        datapath.parse_flow(line)


@given(st.text(alphabet="userspacontl(),:=0x/12 f", max_size=60))
def test_garbage_is_refused_or_read(text: str) -> None:
    for read in (datapath.parse_flow, lambda t: datapath.ends_in_drop(flow(t)), lambda t: datapath.outputs(flow(t))):
        with contextlib.suppress(ProtocolError):
            read(text)


def test_how_many_flows_are_cached() -> None:
    shown = (
        "netdev@ovs-netdev:\n  lookups: hit:17 missed:73 lost:0\n  flows: 71\n  port 0: ovs-netdev (tap)\n"
        "system@ovs-system:\n  lookups: hit:1 missed:1 lost:0\n  flows: 1200\n  masks: hit:1 total:0 hit/pkt:0.00\n"
    )
    assert datapath.flow_count(shown) == 1271
    assert datapath.flow_count("") == 0
