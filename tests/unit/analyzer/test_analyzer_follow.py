"""Following packets, asking about them, and comparing tunnels: the parts of the analyzer without agents."""

from __future__ import annotations

import random

import pytest
from builders import (
    CHASSIS,
    GW,
    HV1,
    HV2,
    INVENTORY,
    LAYOUT,
    WEB,
    Recorder,
    endpoint,
    pair,
    scope,
    tunnel,
)
from msgspec.structs import replace

from vtrace.analyzer.arming import Arming
from vtrace.analyzer.follow import LOST_AFTER_S, OVERDUE_AFTER_S, Followed, Follower
from vtrace.analyzer.questions import (
    about_answered,
    about_arrival,
    about_packet,
    about_unseen,
    headers,
    mac,
    tunnel_entry,
)
from vtrace.analyzer.tunnels import check_tunnels
from vtrace.collect.link import Survey
from vtrace.model.inventory import Inventory
from vtrace.model.openflow import OfPort, TunnelPort
from vtrace.model.plan import LocalVif
from vtrace.model.record import LogRecord, Point
from vtrace.model.task import Alias, Direction, TrafficFilter


def survey(chassis: str, *tunnels: TunnelPort) -> Survey:
    return Survey(chassis=chassis, layout=LAYOUT, vifs=scope(chassis).vifs, ports=(), tunnels=tunnels)


def followed(records: list[LogRecord], packets: int = 100) -> Follower:
    follower = Follower([pair()], INVENTORY, packets)
    for number, record in enumerate(records):
        follower.add(record, float(number) / 1000)
    return follower


def only(follower: Follower) -> Followed:
    (packet,) = follower.packets
    return packet


# --- follow ------------------------------------------------------------------------------------------------


def test_a_packet_that_arrived_is_settled_at_once() -> None:
    log = Recorder()
    log.switched(1)
    packet = only(followed(log.records))
    assert packet.complete
    assert packet.settled(0.004)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1]])
def test_the_order_in_which_records_come_in_does_not_matter(order: list[int]) -> None:
    log = Recorder()
    log.switched(1)
    follower = followed([log.records[number] for number in order])
    packet = only(follower)
    assert (packet.complete, packet.pair, packet.last) == (True, 0, log.records[3])
    assert follower.colored[0] == 1


def test_a_packet_is_lost_after_a_second_without_a_record() -> None:
    assert LOST_AFTER_S == 1.0
    log = Recorder()
    log.first(1)
    log.sent(1)
    follower = followed(log.records)
    packet = only(follower)
    assert not packet.settled(0.9)
    assert packet.settled(1.1)
    assert not follower.overdue(OVERDUE_AFTER_S / 2)
    assert follower.overdue(0.5) == [packet]


def test_out_of_another_port_is_no_arrival() -> None:
    log = Recorder()
    log.first(1)
    log.out(1, out_key=44)
    assert not only(followed(log.records)).complete


def test_of_identical_packets_all_must_arrive() -> None:
    log = Recorder()
    log.switched(1)
    log.first(1)
    assert not only(followed(log.records)).complete


TWO_PAIRS = [pair(), pair("web1", "db1", index=1)]


def one_datagram_to_two() -> tuple[list[LogRecord], list[LogRecord]]:
    """Records of one and the same datagram from web1 to web2 and to db1."""
    one, two = Recorder(), Recorder()
    one.switched(1)
    two.routed(1, 1)
    return one.records, [replace(record, dst="10.0.2.1") for record in two.records]


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("shift", range(6))
def test_one_datagram_sent_to_two_is_a_packet_of_each_pair(shift: int, lost: int) -> None:
    records = one_datagram_to_two()
    kept = [list(found) for found in records]
    kept[lost].pop()
    mixed = [r for found in kept for r in found]
    mixed = mixed[shift:] + mixed[:shift]
    follower = Follower(TWO_PAIRS, INVENTORY, 100)
    for record in mixed:
        follower.add(record, 0.0)
    for index in (0, 1):
        (packet,) = follower.of_pair(index)
        assert {(r.chassis, r.seq, r.dst) for r in packet.records} == {(r.chassis, r.seq, r.dst) for r in kept[index]}
        assert packet.complete == (index != lost)
    assert [p.pair for p in follower.overdue(0.5)] == [lost]
    assert follower.pair_settled(1 - lost, 0.5)
    assert not follower.pair_settled(lost, 0.5)


@pytest.mark.parametrize("late", [False, True], ids=["its first hop first", "its first hop last"])
def test_what_one_pair_has_beyond_n_another_may_need(late: bool) -> None:
    """Agents report each for itself, so what was colored beyond N may show that only when all else of it is there."""
    first, second = one_datagram_to_two()
    follower = Follower(TWO_PAIRS, INVENTORY, 1)
    log = Recorder()
    log.switched(7)
    beyond = [*first[1:], first[0]] if late else first
    for record in (*log.records, *second, *beyond) if late else (*log.records, *beyond, *second):
        follower.add(record, 0.0)
    assert [len(follower.of_pair(index)) for index in (0, 1)] == [1, 1]
    assert follower.of_pair(1)[0].complete
    assert not [r for r in follower.records if r.key == 1 and r.dst == "10.0.1.2"]


@pytest.mark.parametrize("beyond", [0, 1], ids=["the request", "the echo"])
@pytest.mark.parametrize("seed", range(8))
def test_an_echo_with_the_key_of_its_request(beyond: int, seed: int) -> None:
    """One of the two was colored beyond N; the records of both come in in any order."""
    log = Recorder()
    log.switched(1)
    back = {"src": "10.0.1.2", "dst": "10.0.1.1"}
    request = list(log.records)
    log.write(HV2, Point.FIRST_HOP, WEB, 1, pair=1, in_key=3, in_ofport=6, ttl=64, **back)
    log.sent(1, HV2, HV1, in_key=3, out_key=2, **back)
    log.came(1, HV1, HV2, **back)
    log.out(1, HV1, in_key=3, out_key=2, **back)
    echo = log.records[len(request) :]
    before = Recorder()
    before.first(9, beyond)
    mixed = [*request, *echo]
    random.Random(seed).shuffle(mixed)
    follower = Follower([pair(), pair("web2", "web1", index=1, direction=Direction.REPLY)], INVENTORY, 1)
    for record in (*before.records, *mixed):
        follower.add(record, 0.0)
    kept = {(r.chassis, r.seq) for r in follower.records if r.key == 1}
    assert kept == {(r.chassis, r.seq) for r in (echo, request)[beyond]}


def test_without_a_first_hop_record_nothing_is_settled_or_asked() -> None:
    log = Recorder()
    log.switched(1)
    follower = followed(log.records[1:])
    assert not only(follower).settled(9.0)
    assert follower.overdue(9.0) == []
    assert follower.all_settled(9.0)


def test_enough_counts_first_hops_of_the_pair() -> None:
    log = Recorder()
    for key in range(3):
        log.first(key)
    follower = followed(log.records, packets=3)
    assert follower.has_enough(0)
    assert not follower.has_enough(1)


def test_the_last_record_is_the_furthest_on_the_way() -> None:
    log = Recorder()
    log.routed(1)
    assert only(followed(log.records[::-1])).last == log.records[-1]


def test_the_last_record_of_a_hairpin_is_that_of_the_second_visit() -> None:
    log = Recorder()
    log.hairpin(1)
    assert only(followed(log.records)).last == log.records[-1]


# --- questions ---------------------------------------------------------------------------------------------


def test_mac() -> None:
    assert mac(0x0A00000000FF) == "0a:00:00:00:00:ff"


def test_what_a_port_may_get_beside_its_first_address_is_asked_about_too() -> None:
    """Its port security allows more, as where a route leads to addresses behind it."""
    vif = LocalVif(ofport=OfPort(5), datapath=WEB, key=1)
    addresses = ("10.0.2.1", "10.9.0.1", "10.9.0.2")
    named = replace(pair("web1", "db1"), destination=endpoint("db1", *addresses, by_port=True))
    assert [question.dst for question in about_unseen(named, vif)] == list(addresses)
    taken = replace(named, elsewhere=("10.9.0.1",))
    assert [question.dst for question in about_unseen(taken, vif)] == ["10.0.2.1", "10.9.0.2"]
    by_address = replace(named, destination=endpoint("db1", *addresses))
    assert [question.dst for question in about_unseen(by_address, vif)] == ["10.0.2.1"]


def test_of_a_source_nat_only_an_awaited_answer_is_asked_about() -> None:
    """Others have its address as well: the VM has to send what such packets would answer."""
    vif = LocalVif(ofport=OfPort(5), datapath=WEB, key=1)
    shared = replace(endpoint("web1", "10.0.1.1"), aliases=(Alias(address="203.0.113.20", kind="translated"),))
    reply = replace(
        pair("web1", "web2", direction=Direction.REPLY),
        source=endpoint("web2", "10.0.1.2"),
        destination=shared,
        traffic=TrafficFilter(proto="udp", dport=53),
    )
    assert [question.dst for question in about_unseen(reply, vif)] == ["10.0.1.1"]
    assert [question.dst for question in about_unseen(reply, vif, translated=True)] == ["10.0.1.1", "203.0.113.20"]
    (sent,) = about_answered(reply, vif)
    assert (sent.src, sent.dst, sent.proto, sent.ports) == ("10.0.1.1", "10.0.1.2", 17, ((None, 53),))


@pytest.mark.parametrize(("only", "found"), [("", ["10.0.2.1", "10.9.9.1", "10.9.9.2"]), ("10.9.9.2", ["10.9.9.2"])])
def test_what_is_sent_to_a_vip_may_be_for_each_backend(only: str, found: list[str]) -> None:
    vif = LocalVif(ofport=OfPort(5), datapath=WEB, key=1)
    vips = (Alias(address="10.9.9.1", kind="vip"), Alias(address="10.9.9.2", kind="vip"))
    address = only or "10.0.2.1"
    end = replace(endpoint("db1", "10.0.2.1"), aliases=vips, only=only, address=address)
    questions = about_unseen(replace(pair("web1", "db1"), destination=end), vif)
    assert [question.dst for question in questions] == found


BASE = LogRecord(
    chassis=HV1,
    incarnation=1,
    seq=1,
    color=7,
    epoch=1,
    key=1,
    point=Point.FIRST_HOP,
    datapath=WEB,
    in_ofport=5,
    eth_src=1,
    eth_dst=2,
    proto=6,
    src="10.0.0.1",
    dst="10.0.0.2",
    sport=1000,
    dport=80,
    ttl=63,
    dscp=10,
    ecn=1,
    tcp_flags=0x12,
)
ETHERNET = "dl_src=00:00:00:00:00:01,dl_dst=00:00:00:00:00:02"
IP = f"{ETHERNET},nw_src=10.0.0.1,nw_dst=10.0.0.2"
IP6 = f"{ETHERNET},ipv6_src=fd00::1,ipv6_dst=fd00::2"
# The original DSCP, not the color: 10 << 2.
TOS = "nw_tos=40,nw_ecn=1,nw_ttl=63"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, f"tcp,{IP},{TOS},tcp_src=1000,tcp_dst=80,tcp_flags=0x12"),
        ({"proto": 17}, f"udp,{IP},{TOS},udp_src=1000,udp_dst=80"),
        ({"proto": 1, "sport": 8, "dport": 0}, f"icmp,{IP},{TOS},icmp_type=8,icmp_code=0"),
        ({"proto": 132}, f"ip,{IP},nw_proto=132,{TOS}"),
        ({"src": "fd00::1", "dst": "fd00::2", "tcp_flags": 0}, f"tcp6,{IP6},{TOS},tcp_src=1000,tcp_dst=80"),
        (
            {"src": "fd00::1", "dst": "fd00::2", "proto": 58, "sport": 128, "dport": 0},
            f"icmp6,{IP6},{TOS},icmpv6_type=128,icmpv6_code=0",
        ),
        ({"src": "fd00::1", "dst": "fd00::2", "proto": 47}, f"ipv6,{IP6},nw_proto=47,{TOS}"),
    ],
    ids=["tcp", "udp", "icmp", "sctp", "tcp6", "icmp6", "gre6"],
)
def test_headers_are_the_tenants_own(changes: dict[str, object], text: str) -> None:
    assert headers(replace(BASE, **changes)) == text


def test_how_a_packet_comes_in_by_a_tunnel() -> None:
    # ovn-architecture(7): Geneve option 15 bits in port, 16 bits out port; VXLAN: 12 bits out port, 12 bits datapath.
    assert tunnel_entry(tunnel(HV2, 20), 5, 3, 9, "192.0.2.2", "192.0.2.1") == (
        "in_port=20,tun_id=0x5,tun_metadata0=0x30009,tun_src=192.0.2.2,tun_dst=192.0.2.1"
    )
    assert tunnel_entry(tunnel(HV2, 20, "vxlan"), 5, 3, 9, "fd00::2", "fd00::1") == (
        "in_port=20,tun_id=0x9005,tun_ipv6_src=fd00::2,tun_ipv6_dst=fd00::1"
    )


SURVEYS = {
    HV1: survey(HV1, tunnel(HV2, 20), tunnel(GW, 21)),
    HV2: survey(HV2, tunnel(HV1, 20), tunnel(GW, 21)),
    GW: survey(GW, tunnel(HV1, 20), tunnel(HV2, 21)),
}


def test_the_question_at_the_first_hop() -> None:
    log = Recorder()
    log.switched(1)
    found = about_packet(log.records, HV1, pair(), SURVEYS)
    assert found is not None
    assert (found.entry, found.pair, found.color) == ("in_port=5", 0, 7)
    assert found.headers.startswith("udp,")


def test_the_question_where_it_came_in() -> None:
    log = Recorder()
    log.switched(1)
    log.records[2] = replace(log.records[2], tunnel_src="192.0.2.1", tunnel_dst="192.0.2.2")
    found = about_packet(log.records, HV2, pair(), SURVEYS)
    assert found is not None
    # web1 is port 2, web2 port 3 of datapath 1.
    assert found.entry == "in_port=20,tun_id=0x1,tun_metadata0=0x20003,tun_src=192.0.2.1,tun_dst=192.0.2.2"


def test_no_question_where_its_way_in_is_not_known() -> None:
    log = Recorder()
    log.switched(1)
    assert about_packet(log.records, GW, pair(), SURVEYS) is None
    assert about_packet(log.records[3:], HV2, pair(), SURVEYS) is None


def test_the_question_to_a_receiver_that_saw_nothing() -> None:
    log = Recorder()
    log.first(1)
    log.sent(1)
    found = about_arrival(log.records[-1], log.records, pair(), SURVEYS, INVENTORY)
    assert found is not None
    assert found.entry == "in_port=20,tun_id=0x1,tun_metadata0=0x20003,tun_src=192.0.2.1,tun_dst=192.0.2.2"
    assert about_arrival(log.records[-1], log.records, pair(), {}, INVENTORY) is None


# --- tunnels -----------------------------------------------------------------------------------------------

TWO = Inventory(datapaths=(), ports=(), chassis=CHASSIS[:2])


def mismatches(one: Survey, two: Survey, inventory: Inventory = TWO) -> dict[tuple[str, str], str]:
    found = check_tunnels(inventory, {one.chassis: one, two.chassis: two})
    return {(check.sender, check.receiver): check.mismatch for check in found}


def test_tunnels_that_are_as_the_southbound_database_says() -> None:
    assert mismatches(survey(HV1, tunnel(HV2, 20)), survey(HV2, tunnel(HV1, 20))) == {(HV1, HV2): "", (HV2, HV1): ""}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"remote_ip": "192.0.2.77"}, "192.0.2.77"),
        ({"kind": "vxlan"}, "vxlan"),
        pytest.param(
            {"options": {"key": "7"}},
            "key",
        ),
    ],
    ids=["address", "type", "key"],
)
def test_either_end_of_a_tunnel_can_be_wrong(wrong: dict[str, object], words: str) -> None:
    good, bad = survey(HV1, tunnel(HV2, 20)), survey(HV2, tunnel(HV1, 20, **wrong))
    found = mismatches(good, bad)
    assert all(words in text and "hv2" in text for text in found.values())
    assert len(found) == 2


def test_a_tunnel_that_is_missing() -> None:
    found = mismatches(survey(HV1, tunnel(HV2, 20)), survey(HV2))
    assert "no tunnel port towards hv1" in found[(HV2, HV1)]


def test_a_second_tunnel_address_of_a_chassis_is_right_too() -> None:
    two = replace(CHASSIS[1], encap_ips=("192.0.2.2", "198.51.100.2"))
    inventory = replace(TWO, chassis=(CHASSIS[0], two))
    found = mismatches(survey(HV1, tunnel(HV2, 20, remote_ip="198.51.100.2")), survey(HV2, tunnel(HV1, 20)), inventory)
    assert set(found.values()) == {""}


# --- arming ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout_s", [1.0, 1.9, 30.0, 3600.0])
def test_hard_timeouts_rise_from_color_over_match_to_restore(timeout_s: float) -> None:
    limits = Arming({}, INVENTORY, [pair()], timeout_s).limits
    assert timeout_s < limits.color_s < limits.match_s < limits.restore_s < 65536


# --- shared addresses --------------------------------------------------------------------------------------

VIP = Alias(address="10.9.9.9", kind="vip")
BACKENDS = [
    replace(p, destination=replace(p.destination, aliases=(VIP,))) for p in (pair(), pair("web1", "db1", index=1))
]


def balanced(key: int, to: str, *, arrives: bool = True, number: int = 0) -> list[LogRecord]:
    """A packet to the VIP that the load balancer gives to web2 or db1, colored by a pair's entry."""
    log = Recorder()
    (log.switched if to == "10.0.1.2" else log.routed)(key, number)
    records = log.records if arrives else log.records[:-1]
    return [replace(r, dst=VIP.address if r.point == Point.FIRST_HOP else to) for r in records]


def balancing(*packets: list[LogRecord], n: int = 2) -> Follower:
    follower = Follower(BACKENDS, INVENTORY, n)
    for records in packets:
        for record in records:
            follower.add(record, 0.0)
    return follower


@pytest.mark.parametrize("backwards", [False, True])
def test_a_packet_to_a_vip_is_of_the_pair_whose_backend_it_goes_to(backwards: bool) -> None:
    records = balanced(1, "10.0.2.1")
    follower = balancing(records[::-1] if backwards else records)
    assert (follower.of_pair(0), follower.own(0), follower.for_others[0]) == ([], 0, 1)
    (packet,) = follower.of_pair(1)
    assert (packet.pair, packet.complete, packet.first, follower.own(1)) == (1, True, 1, 1)
    assert [r.pair for r in follower.records if r.point == Point.FIRST_HOP] == [1]
    assert follower.arrived_flows[(1, packet.flow_id)] is packet
    assert follower.all_settled(0.0)


def test_one_that_is_lost_there_is_asked_about_as_that_pairs() -> None:
    follower = balancing(balanced(1, "10.0.2.1", arrives=False))
    assert [p.pair for p in follower.overdue(0.5)] == [1]
    assert follower.pair_settled(0, 0.0)
    assert not follower.pair_settled(1, 0.0)


def test_a_pair_has_enough_by_what_another_ones_entry_colored_and_not_more() -> None:
    follower = balancing(*(balanced(key, "10.0.2.1") for key in range(1, 5)))
    assert follower.has_enough(1)
    assert not follower.has_enough(0)
    assert (follower.own(1), len(follower.of_pair(1)), follower.for_others[0]) == (2, 2, 4)


def test_what_goes_to_a_backend_that_is_not_in_the_task_is_nobodys() -> None:
    follower = balancing(balanced(1, "10.0.7.7"))
    assert (follower.own(0), follower.own(1), follower.for_others[0]) == (0, 0, 1)
    other = [replace(r, pair=0) for r in balanced(2, "10.0.1.2")]
    assert balancing(other).own(0) == 1


def test_a_packet_that_does_not_count_is_not_followed() -> None:
    follow, log = Follower([pair()], INVENTORY, 100), Recorder()
    log.switched(1)
    log.switched(2)
    for record in log.records:
        follow.add(record, 0.0, counts=record.key == 1)
    assert follow.own(0) == 1
    assert [packet.start.key for packet in follow.of_pair(0) if packet.start] == [1]
    assert {record.key for record in follow.records} == {1}


def test_packets_that_were_unsure_are_set_aside() -> None:
    """Also those that were colored when there seemed to be enough, and were not followed."""
    follow, log = Follower([pair()], INVENTORY, 3), Recorder()
    for key in (1, 3, 2, 4, 5):
        log.switched(key)
    for record in log.records:
        follow.add(record, 0.0, unsure=record.key in (2, 4, 5) and record.point == Point.FIRST_HOP)
    assert follow.has_enough(0)
    follow.set_aside(0)
    assert (follow.has_enough(0), follow.own(0)) == (False, 2)
    assert {record.key for record in follow.records} == {1, 3}
    assert [packet.start.key for packet in follow.of_pair(0) if packet.start] == [1, 3]
    follow.add(replace(log.records[-1], key=2, seq=99), 0.0)
    assert {record.key for record in follow.records} == {1, 3}, "what comes of it later is not followed either"
