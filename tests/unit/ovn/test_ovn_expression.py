"""Whether a packet fits the match of a logical flow; texts as ovn-northd 23.03 writes them."""

from __future__ import annotations

import pytest

from vtrace.ovn.expression import Packet, holds

PACKET = Packet(
    fields={
        "version": 4,
        "nw_proto": 17,
        "dl_src": 0x0A0000000001,
        "dl_dst": 0x0A0001000001,
        "nw_src": 0x0A01010B,
        "nw_dst": 0x0A09010A,
        "tp_src": 30001,
        "tp_dst": 5432,
        "nw_ttl": 63,
        "reg0": 0x0A01020B,
        "reg1": 0,
        "reg2": 0,
        "reg3": 0x80,
        "reg7": 0,
        "reg9": 4,
        "reg10": 1,
        "ct.trk": 1,
        "ct.est": 1,
        "ct.inv": 0,
    },
    inport="web1",
    outport="r1-db",
)


@pytest.mark.parametrize(
    "match",
    [
        "1",
        "reg7 == 0 && ip4.dst == 10.9.1.0/24",
        "ip4.dst == 10.9.1.10/255.255.255.255",
        'inport == "web1" && ip4',
        'outport == "r1-db" && reg0 == 10.1.2.11',
        "eth.dst == 0a:00:01:00:00:01",
        "eth.src == {0a:00:01:00:00:02, 0a:00:00:00:00:01} && (arp || udp)",
        "udp.dst == 5432 && udp.src >= 1024",
        "ip4.dst != 10.9.2.0/24",
        "!ct.inv && ct.est",
        "flags.loopback == 1 && reg9[2]",
        "xxreg0[0..7] == 0x80",
        "ip.ttl == 63 || tcp",
        "outport == $unknown || ip4.src == {10.1.1.11, 10.1.1.12}",
    ],
)
def test_fits(match: str) -> None:
    assert holds(match, PACKET) is True


@pytest.mark.parametrize(
    "match",
    [
        "0",
        "ip6.dst == fd00:1:2::/64",
        "ip4.dst == 10.9.2.0/24",
        'inport == "web2" && ip4',
        "tcp.dst == 5432",
        "udp.dst == 5433 && ip4.src == $set",
        "arp.op == 1 && arp.tpa == 10.1.2.1",
        "nd_ns && nd.target == fd00::1",
        "eth.mcast",
        "icmp4",
        "!(ip4 && udp)",
        "ip4.src != {10.1.1.11, 10.1.1.12}",
        "flags[1] == 1",
        "ct.inv",
    ],
)
def test_does_not_fit(match: str) -> None:
    assert holds(match, PACKET) is False


@pytest.mark.parametrize(
    "match",
    [
        "ip4.src == $set",
        "inport == @group && ip4",
        'is_chassis_resident("cr-r1-public")',
        "ip4 && ct_label.natted == 1",
        "ip4.dst == ",
        "(ip4",
        "ip4 ip4",
        "",
        "tcp.flags == 2 || vlan.present",
    ],
)
def test_is_not_known(match: str) -> None:
    assert holds(match, PACKET) is None
