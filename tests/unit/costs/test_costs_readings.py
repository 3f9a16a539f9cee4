"""Cached flows as text, their masks, and which of them were rebuilt."""

from __future__ import annotations

from pathlib import Path

import pytest

from vtrace.costs import readings
from vtrace.costs.readings import Cached

# As Open vSwitch 3.1 prints them.
_BEGIN = (
    "skb_priority(0/0),skb_mark(0/0),ct_state(0/0),ct_zone(0/0),ct_mark(0/0),ct_label(0/0),recirc_id(0),dp_hash(0/0),"
    "in_port({port}),packet_type(ns=0,id=0),eth(src={src},dst=0a:00:01:00:00:03),eth_type(0x0800),"
)
LINE = (
    "ufid:{ufid}, "
    + _BEGIN
    + "ipv4(src={ip},dst=10.1.2.11,proto=1,tos=0/{tos},ttl={ttl},frag=no),icmp(type=8/0,code=0/0), packets:{packets}, "
    "bytes:98, used:0.718s, dp:ovs, actions:{actions}, dp-extra-info:miniflow_bits(5,2)"
)
TUNNEL = (
    "ufid:06657da9, skb_priority(0/0),tunnel(tun_id=0x4,src=10.250.0.1,dst=10.250.0.2,ttl=63/0,tp_src=55551/0,"
    "tp_dst=6081/0,geneve({{class=0x102,type=0x80,len=4,{option}/0x7fffffff}}),flags(-df+csum+key)),recirc_id(0),"
    "in_port(genev_sys_6081),eth_type(0x0800),ipv4(src=10.1.1.11/0.0.0.0,dst=10.1.2.11,proto=1/0,tos=0/0,ttl=63/0,"
    "frag=no), packets:1, bytes:98, used:1.004s, dp:ovs, actions:red-b1"
)


def line(**changed: str) -> str:
    fields = {
        "ufid": "f3c67e8e", "port": "red-a1", "src": "0a:00:00:00:00:05", "ip": "10.1.1.11", "tos": "0x3", "ttl": "64",
        "packets": "7", "actions": "set(ipv4(ttl=63)),to-hv2",
    }  # fmt: skip
    return LINE.format(**(fields | changed))


def held(*lines: str) -> Cached:
    return Cached(flows=readings.parse_cached(["flow-dump from the main thread:", *lines]), missed=0)


def test_a_line_is_read() -> None:
    (flow,) = held(line()).flows.values()
    assert flow.packets == 7
    assert flow.actions == "set(ipv4(ttl=63)),to-hv2"
    assert flow.key.startswith("skb_priority(0/0),")
    assert flow.key.endswith("icmp(type=8/0,code=0/0)")


@pytest.mark.parametrize(
    "other",
    [
        line(ufid="1", ttl="9"),
        line(ufid="1", port="x"),
        line(ufid="1", src="0b:00:00:00:00:05"),
        line(ufid="1", ip="1.1.1.1"),
    ],
)
def test_values_make_no_other_mask(other: str) -> None:
    assert held(line(), other).masks == 1


@pytest.mark.parametrize(
    "other",
    [line(ufid="1", tos="0xff"), line(ufid="1", ttl="64/0"), line(ufid="1", ip="10.1.1.11/255.255.0.0")],
)
def test_another_mask_is_another(other: str) -> None:
    assert held(line(), other).masks == 2


def test_tunnel_options_are_values() -> None:
    lines = [TUNNEL.format(option=option) for option in ("0x50004", "0x30001")]
    first, second = (readings.mask(one.partition(", ")[2].partition(", packets:")[0]) for one in lines)
    assert first == second
    assert "0x7fffffff" not in first.partition("geneve")[2].partition("0x")[0]


def test_copies_of_ours_are_seen() -> None:
    ours = "sample(sample=100.0%,actions(meter(0),userspace(pid=0,controller(rule_cookie=0x56541a380c000000))))"
    theirs = ours.replace("0x5654", "0x1234")
    assert held(line(actions=ours), line(ufid="1", actions=theirs), line(ufid="2")).copying == 1


@pytest.mark.parametrize(
    ("later", "rebuilt"),
    [
        ([line(packets="9")], 0),
        ([line(packets="9", actions="drop")], 0),
        ([], 1),
        ([line(packets="3")], 1),
        ([line(packets="9", tos="0xff")], 1),
        ([line(ufid="1", packets="9")], 1),
    ],
)
def test_what_was_deleted_counts_even_if_it_came_again(later: list[str], rebuilt: int) -> None:
    assert held(line()).rebuilt(held(*later), "in_port(red-a1)") == rebuilt
    assert held(line()).rebuilt(held(*later), "in_port(red-a1)", "ipv6(") == 0


def test_processor_time_of_this_process_grows() -> None:
    import os

    began = readings.process_ns(os.getpid()), readings.main_thread_ns(os.getpid())
    sum(range(3_000_000))
    ended = readings.process_ns(os.getpid()), readings.main_thread_ns(os.getpid())
    assert ended[0] > began[0]
    assert ended[1] > began[1]


def test_memory_is_what_the_kernel_says() -> None:
    import os

    found = readings.memory_mb(os.getpid())
    assert 0 < found["pss"] <= found["rss"]
    kilobytes = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS")).split()[1]
    assert found["rss"] == pytest.approx(int(kilobytes) / 1024, rel=0.2)
