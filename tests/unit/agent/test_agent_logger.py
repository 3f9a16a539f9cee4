"""From a packet-in to a log record, a probe, a neighbor or a doubt."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from vtrace.agent.logger import RecordLogger
from vtrace.collect.link import DoubtSeen, NeighborSeen, ProbeSeen
from vtrace.color.registry import Role
from vtrace.log.packet import decode, packet_key
from vtrace.model.openflow import Cookie, OfPort, PacketIn, TableId
from vtrace.model.plan import Hook
from vtrace.model.record import LogRecord, Point

# Color 7 in the header (0x1d = 7 << 2 | ECN 1), UDP 5000 to 53.
UDP = bytes.fromhex(
    "0a0000000002 0a0000000001 0800 45 1d 0020 1234 4000 3f 11 beef c0000201 c6336402 1388 0035 000c 0000 61626364"
)
ARP = bytes.fromhex("ffffffffffff 0a0000000001 0806 0001 0800 06 04 0001 0a0000000001 0a000001 000000000000 0a000002")
SECRET = b"k" * 16


def logger(**hooks: Hook) -> RecordLogger:
    made = RecordLogger(region="r1", task_id="t1", secret=SECRET, incarnation=77)
    made.chassis = "c-hv1"
    made.hooks = {(int(name.removeprefix("c")), hook.ofport): hook for name, hook in hooks.items()}
    return made


def message(cookie: int = 1, packet: bytes = UDP, **fields: object) -> PacketIn:
    return PacketIn(cookie=Cookie(cookie), table=TableId(0), packet=packet, length_bytes=len(packet), **fields)


FIRST = Hook(role=Role.COLOR, point=Point.FIRST_HOP, datapath=1, in_key=2, pair=4, color=7, epoch=3, original_dscp=10)
MATCH = Hook(role=Role.MATCH, point=Point.REMOTE_OUTPUT, datapath=1, peer="c-hv2", color=7, epoch=3, original_dscp=10)


def record(found: object) -> LogRecord:
    assert isinstance(found, LogRecord)
    return found


def test_first_hop_record() -> None:
    found = record(logger(c1=FIRST).event(message(in_port=OfPort(5)), 111, 222))
    assert (found.region, found.chassis, found.incarnation, found.seq) == ("r1", "c-hv1", 77, 1)
    assert (found.task, found.pair, found.color, found.epoch) == ("t1", 4, 7, 3)
    assert (found.point, found.datapath, found.in_key, found.out_key) == (Point.FIRST_HOP, 1, 2, 0)
    assert (found.in_ofport, found.peer, found.tunnel_id) == (5, "", 0)
    assert (found.eth_src, found.eth_dst) == (0x0A0000000001, 0x0A0000000002)
    assert (found.proto, found.src, found.dst, found.sport, found.dport) == (17, "192.0.2.1", "198.51.100.2", 5000, 53)
    assert (found.ttl, found.ecn, found.ip_id, found.length_bytes) == (63, 1, 0x1234, 32)
    assert found.dscp == 10, "the original one, not the color"
    assert (found.wall_ns, found.mono_ns) == (111, 222)


def test_a_later_record_names_no_task() -> None:
    registers = {14: 2, 15: 3}
    found = record(logger(c1=MATCH).event(message(in_port=OfPort(5), registers=registers), 1, 2))
    assert (found.task, found.pair) == ("", -1)
    assert (found.in_key, found.out_key, found.peer) == (2, 3, "c-hv2")
    assert found.in_ofport == 0, "in_port counts at table 0 only"
    assert (found.color, found.epoch) == (7, 3)


def test_ingress_record_has_the_tunnel() -> None:
    hook = Hook(role=Role.MATCH, point=Point.INGRESS, datapath=1, peer="c-hv2", color=7, epoch=3, original_dscp=0)
    seen = message(in_port=OfPort(20), tunnel_id=1, tunnel_src="192.0.2.2", tunnel_dst="192.0.2.1")
    found = record(logger(c1=hook).event(seen, 1, 2))
    assert (found.in_ofport, found.tunnel_id, found.tunnel_src, found.tunnel_dst) == (20, 1, "192.0.2.2", "192.0.2.1")


def test_conntrack_state_is_kept() -> None:
    found = record(logger(c1=MATCH).event(message(ct_state=0x21, ct_zone=9), 1, 2))
    assert (found.ct_state, found.ct_zone) == (0x21, 9)


def test_one_packet_has_one_key_at_every_hop_and_agent() -> None:
    routed = bytearray(UDP)
    routed[22] -= 1  # TTL
    routed[0:12] = bytes(12)  # both Ethernet addresses
    one = record(logger(c1=FIRST).event(message(), 1, 2))
    two = record(logger(c1=MATCH).event(message(packet=bytes(routed)), 3, 4))
    assert one.key == two.key


def test_color_and_epoch_are_part_of_the_keys_secret() -> None:
    other_color = Hook(role=Role.MATCH, point=Point.EGRESS, datapath=1, color=11, epoch=3, original_dscp=10)
    other_epoch = Hook(role=Role.MATCH, point=Point.EGRESS, datapath=1, color=7, epoch=4, original_dscp=10)
    hooks = logger(c1=MATCH, c2=other_color, c3=other_epoch)
    keys = {record(hooks.event(message(cookie), 1, 2)).key for cookie in (1, 2, 3)}
    assert len(keys) == 3
    headers = decode(UDP)
    assert headers is not None
    assert packet_key(headers, b"") not in keys


def test_sequence_numbers_have_no_holes() -> None:
    hooks = logger(c1=MATCH, c2=Hook(role=Role.PROBE, pair=1), c3=Hook(role=Role.DOUBT, color=7, epoch=1))
    events = [hooks.event(message(cookie), 1, 2) for cookie in (1, 2, 99, 1, 3, 1)]
    assert [e.seq for e in events if isinstance(e, LogRecord)] == [1, 2, 3]
    assert (hooks.written, hooks.lost) == (3, 0)


def test_probe() -> None:
    found = logger(c1=Hook(role=Role.PROBE, pair=4)).event(message(), 1, 2)
    assert found == ProbeSeen(pair=4, dscp=7, chassis="c-hv1")


def test_arp_request() -> None:
    found = logger(c1=Hook(role=Role.NEIGHBOR, datapath=1, in_key=2)).event(message(packet=ARP), 1, 222)
    assert found == NeighborSeen(
        datapath=1,
        key=2,
        operation=1,
        sender_ip="10.0.0.1",
        target_ip="10.0.0.2",
        eth_src=0x0A0000000001,
        chassis="c-hv1",
        mono_ns=222,
    )


def test_doubt() -> None:
    found = logger(c1=Hook(role=Role.DOUBT, color=7, epoch=3)).event(message(), 1, 2)
    assert found == DoubtSeen(color=7, epoch=3, chassis="c-hv1")


def test_what_is_not_ours_is_not_counted_as_lost() -> None:
    hooks = logger(c1=FIRST)
    assert hooks.event(message(cookie=2), 1, 2) is None
    assert (hooks.written, hooks.lost) == (0, 0)


@pytest.mark.parametrize("role", [Role.COLOR, Role.PROBE, Role.DOUBT])
def test_what_cannot_be_read_is_counted_as_lost(role: Role) -> None:
    hooks = logger(c1=Hook(role=role, point=0, color=7, epoch=1, original_dscp=0))
    assert hooks.event(message(packet=b"\x00" * 20), 1, 2) is None
    assert (hooks.written, hooks.lost) == (0, 1)


def test_no_payload_in_a_record() -> None:
    found = record(logger(c1=FIRST).event(message(), 1, 2))
    assert "abcd" not in repr(found)


NEIGHBOR = bytes.fromhex(
    "0a0000000002 0a0000000001 86dd 61d00000 0020 3a ff"
    "fe800000000000000000000000000001 fd000000000000000000000000000002"
    "8700 0000 00000000 fd000000000000000000000000000002 0101 0a0000000001"
)


def test_a_neighbor_asked_by_unicast_is_no_traffic_of_the_pair() -> None:
    any_icmp, named = replace(FIRST, asked=((58, None, None),)), replace(FIRST, asked=((58, 135, None),))
    hooks = logger(c1=any_icmp, c2=named)
    assert hooks.event(message(packet=NEIGHBOR), 1, 2) is None
    assert (hooks.written, hooks.lost) == (0, 0)
    assert record(hooks.event(message(cookie=2, packet=NEIGHBOR), 1, 2)).proto == 58
