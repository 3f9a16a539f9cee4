# ruff: noqa: E501
"""Which cached flows a packet took: connections behind a load balancer share their first pass and part later."""

from __future__ import annotations

from typing import Any

import pytest

from vtrace.agent.cached import Wanted, dscps_matched, likely_passes
from vtrace.collect.link import SiteQuestion
from vtrace.ovs.datapath import parse_dump

COLOR = 3
# Two colored connections to a VIP, by their source ports; the second one's last pass drops. And one uncolored.
COLORED = """
ufid:1, recirc_id(0),in_port(vm),eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.9.9.9,proto=17,tos=0/0xfc),udp(src=5/0,dst=53), packets:90, actions:set(ipv4(tos=0xc/0xfc)),ct(zone=1,nat),recirc(0x1)
ufid:2, recirc_id(0x1),in_port(vm),eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,proto=17),udp(src=1001,dst=53), packets:80, actions:web2
ufid:3, recirc_id(0x1),in_port(vm),eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.3,proto=17),udp(src=1002,dst=53), packets:9, actions:drop
"""
PLAIN = """
ufid:4, recirc_id(0),in_port(vm),eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.9.9.9,proto=17),udp(src=5/0,dst=53), packets:900, actions:ct(zone=1,nat),recirc(0x2)
ufid:5, recirc_id(0x2),in_port(vm),eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.3,proto=17), packets:900, actions:drop
"""


def passes(dump: str, *ports: tuple[int, int], lost: bool = True, dst: str = "10.9.9.9", proto: int = 17) -> list[str]:
    question = SiteQuestion(
        pair=0,
        entry="in_port=1",
        headers="udp",
        src="10.0.0.1",
        dst=dst,
        seen=(("10.0.0.1", dst),),
        ports=ports,
        proto=proto,
        lost=lost,
    )
    return [flow.ufid for flow in likely_passes(parse_dump(dump), question, COLOR)]


@pytest.mark.parametrize(("port", "last"), [(1001, "2"), (1002, "3")])
def test_the_packets_own_connection(port: int, last: str) -> None:
    assert passes(COLORED, (port, 53)) == ["1", last]


@pytest.mark.parametrize(("lost", "last"), [(True, "3"), (False, "2")])
def test_of_several_the_one_that_fits_what_became_of_it(lost: bool, last: str) -> None:
    assert passes(COLORED, lost=lost) == ["1", last]


def test_colored_flows_come_first() -> None:
    assert passes(COLORED + PLAIN, (1001, 53)) == ["1", "2"]


def test_once_the_colored_ones_are_gone_the_connection_goes_on_uncolored() -> None:
    assert passes(PLAIN, (1002, 53)) == ["4", "5"]


@pytest.mark.parametrize(
    ("dump", "port", "dst"),
    [(COLORED, 54, "10.9.9.9"), (COLORED, 53, "10.9.9.8"), (COLORED.splitlines()[1], 53, "10.9.9.9"), ("", 53, "")],
    ids=["another port", "another address", "the last pass is gone", "nothing"],
)
def test_none_where_there_is_no_whole_chain(dump: str, port: int, dst: str) -> None:
    assert passes(dump, (1001, port), dst=dst) == []


# A ping to the same VIP: its passes have the recirculation id of the other protocol's.
PING = """
ufid:6, recirc_id(0),in_port(vm),eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.9.9.9,proto=1),icmp(type=8), packets:40, actions:ct(zone=1,nat),recirc(0x2)
"""
ANSWERED = """
ufid:7, recirc_id(0x2),in_port(vm),eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.3,proto=1), packets:40, actions:web3
"""


def test_what_another_protocol_meets_is_not_taken_for_its_own() -> None:
    drops_udp = PLAIN.replace("dst=10.0.0.3)", "dst=10.0.0.3,proto=17)")
    assert passes(PING + ANSWERED + drops_udp, proto=1) == ["6", "7"]
    assert passes(PING + drops_udp, proto=1) == []
    assert passes(PING + drops_udp, (1002, 53)) == ["4", "5"]


FLOW = "ufid:1, recirc_id(0),in_port(vm),eth_type(0x0800),ipv4(src=10.0.0.0/24,proto=17),udp(dst=53), packets:1, actions:drop"


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({}, True),
        ({"src": "10.0.0.9", "proto": 17, "ports": ((None, 53),)}, True),
        ({"ports": ((7, 54), (None, None))}, True),
        ({"proto": 6}, False),
        ({"ports": ((None, 54),)}, False),
        ({"src": "10.0.1.9"}, False),
    ],
)
def test_what_a_flow_takes_in(fields: dict[str, Any], fits: bool) -> None:
    (flow,) = parse_dump(FLOW)
    assert Wanted(**fields).may_be(flow) is fits


# A router's VIP: a connection that is known has the backend's address in its second pass, a new one still the VIP's.
ON_ROUTER = """
ufid:1, recirc_id(0),in_port(vm),eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.9.9.9,proto=6,tos=0/0xfc),tcp(src=5/0,dst=80), packets:35, actions:ct(zone=8,nat),recirc(0x16)
ufid:2, recirc_id(0x16),in_port(vm),eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,proto=6),tcp(src=7/0,dst=8080), packets:3, actions:drop
ufid:3, recirc_id(0x16),in_port(vm),eth_type(0x0800),ipv4(src=10.0.0.1/0.0.0.0,dst=10.9.9.9,proto=6),tcp(src=7/0,dst=80), packets:30, actions:hash(l4(0)),recirc(0x47)
ufid:4, recirc_id(0x47),in_port(vm),eth_type(0x0800),ipv4(src=10.0.0.1/0.0.0.0,dst=10.9.9.9/0.0.0.0,proto=6/0),tcp(src=7/0,dst=80/0), packets:30, actions:web3
"""


@pytest.mark.parametrize(("lost", "passed"), [(True, ["1", "2"]), (False, ["1", "3", "4"])])
def test_the_pass_in_which_it_is_translated_may_be_that_in_which_it_is_lost(lost: bool, passed: list[str]) -> None:
    assert passes(ON_ROUTER, proto=6, lost=lost) == passed


# The same with what conntrack knows: the packet's own connection, one to another port, and an attempt whose flows went.
TRANSLATED = """
ufid:1, recirc_id(0),in_port(vm),eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.9.9.9,proto=6,tos=0/0xfc),tcp(src=5/0,dst=80/0), packets:35, actions:ct(zone=8,nat),recirc(0x16)
ufid:2, ct_tuple4(src=10.0.0.1/0.0.0.0,dst=10.9.9.9/0.0.0.0,proto=6/0,tp_src=5/0,tp_dst=80/0),recirc_id(0x16),in_port(vm),eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,proto=6),tcp(src=5/0,dst=8080), packets:3, actions:drop
ufid:3, ct_tuple4(src=10.0.0.1/0.0.0.0,dst=10.9.9.9/0.0.0.0,proto=6/0,tp_src=7/0,tp_dst=443/0),recirc_id(0x16),in_port(vm),eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.3,proto=6),tcp(src=7/0,dst=8443), packets:90, actions:drop
ufid:4, ct_tuple4(src=10.0.0.1/0.0.0.0,dst=10.9.9.9/0.0.0.0,proto=6/0,tp_src=8/0,tp_dst=80/0),recirc_id(0x16),in_port(vm),eth_type(0x0800),ipv4(src=10.0.0.1/0.0.0.0,dst=10.9.9.9,proto=6),tcp(src=8/0,dst=80), packets:2, actions:hash(l4(0)),recirc(0x47)
"""
TRANSLATED_6 = (
    TRANSLATED.replace("ct_tuple4", "ct_tuple6")
    .replace("tp_src", "src_port")
    .replace("tp_dst", "dst_port")
    .replace("10.0.0.", "fd00::")
    .replace("10.9.9.9", "fd09::9")
    .replace("0.0.0.0", "::")
    .replace("0x0800", "0x86dd")
    .replace("ipv4(", "ipv6(")
    .replace("tos=", "tclass=")
)


def test_a_load_balancer_may_give_its_packets_another_port() -> None:
    assert passes(TRANSLATED, (5, 80), proto=6) == ["1", "2"]
    assert passes(TRANSLATED, (7, 443), proto=6) == ["1", "3"]


def test_a_load_balancer_of_ipv6_too() -> None:
    question = SiteQuestion(
        pair=0,
        entry="in_port=1",
        headers="tcp6",
        src="fd00::1",
        dst="fd09::9",
        seen=(("fd00::1", "fd09::9"),),
        ports=((5, 80),),
        proto=6,
        lost=True,
    )
    assert [flow.ufid for flow in likely_passes(parse_dump(TRANSLATED_6), question, COLOR)] == ["1", "2"]


def test_the_dscps_that_a_dump_matches() -> None:
    """Of what packets have, not of a tunnel's header or what actions set; 0 is nobody's."""
    lines = (
        "in_port(2),ipv4(src=10.1.1.12,tos=0x8c/0xfc,frag=no), packets:9, bytes:1, used:3.125s, actions:3",
        "in_port(2),ipv4(src=10.1.1.13,tos=0x8c/0xfc,frag=no), packets:9, bytes:1, used:1.5s, actions:3",
        "recirc_id(4),in_port(2),ipv6(proto=17,tclass=0x4f,hlimit=63), packets:0, bytes:0, used:never, actions:3",
        "in_port(2),ipv4(tos=0/0xfc,frag=no), packets:1, bytes:1, used:1.0s, actions:set(ipv4(tos=0x1c/0xfc)),3",
        "in_port(2),ipv4(tos=0x3/0x3,frag=no), packets:1, bytes:1, used:1.0s, actions:3",
        "in_port(2),ipv4(tos=0x2c/0,frag=no), packets:1, bytes:1, used:1.0s, actions:3",
        "tunnel(tun_id=0x2,tos=0x5c,ttl=63),in_port(2),ipv4(frag=no), packets:1, bytes:1, used:1.0s, actions:3",
    )
    assert dscps_matched("flow-dump from the main thread:\n" + "\n".join(lines)) == {0x8C >> 2: 1.5, 0x4F >> 2: 0.0}
    assert dscps_matched("") == {}
