"""What packets carry at their first hop: VIPs, floating and translated addresses (ovn-nb(5), NAT and Load_Balancer)."""

from __future__ import annotations

import pytest
from builders import endpoint, pair
from msgspec.structs import replace

from vtrace.model.inventory import Backend, Inventory, LogicalDatapath, LogicalPort, Nat, Vip
from vtrace.model.task import Alias, Direction, Endpoint, Pair, TrafficFilter
from vtrace.task.carried import Carried, carried, with_aliases

WEB, ROUTER, PUBLIC, OTHER = 1, 2, 3, 4
CLOUD = Inventory(
    datapaths=(
        LogicalDatapath(key=WEB, name="web", kind="vswitch", nb_uuid="", sb_uuid=""),
        LogicalDatapath(key=ROUTER, name="r", kind="vrouter", nb_uuid="", sb_uuid=""),
        LogicalDatapath(key=PUBLIC, name="public", kind="vswitch", nb_uuid="", sb_uuid="", border=True),
        LogicalDatapath(key=OTHER, name="r2", kind="vrouter", nb_uuid="", sb_uuid=""),
    ),
    ports=(
        LogicalPort(name="vm1", key=2, datapath=WEB, chassis="c1"),
        LogicalPort(name="vm2", key=3, datapath=WEB, chassis="c2"),
        LogicalPort(name="web-r", key=1, datapath=WEB, type="patch", peer="r-web", peer_datapath=ROUTER),
        LogicalPort(name="r-web", key=1, datapath=ROUTER, type="patch", peer="web-r", peer_datapath=WEB),
        LogicalPort(name="r-public", key=2, datapath=ROUTER, type="patch", peer="public-r", peer_datapath=PUBLIC),
        LogicalPort(name="cr-r-public", key=3, datapath=ROUTER, type="chassisredirect", chassis="g1", standby=("g2",)),
        LogicalPort(name="public-r", key=1, datapath=PUBLIC, type="patch", peer="r-public", peer_datapath=ROUTER),
        LogicalPort(name="public-r2", key=2, datapath=PUBLIC, type="patch", peer="r2-public", peer_datapath=OTHER),
        LogicalPort(name="r2-public", key=1, datapath=OTHER, type="patch", peer="public-r2", peer_datapath=PUBLIC),
        LogicalPort(name="wire", key=9, datapath=PUBLIC, type="localnet"),
    ),
    chassis=(),
    nats=(
        Nat(router=ROUTER, kind="snat", external="203.0.113.1", logical="10.0.0.0/24", uuid="n1"),
        Nat(router=ROUTER, kind="dnat_and_snat", external="203.0.113.2", logical="10.0.0.2", uuid="n2"),
        # Another VPC's, for the same inner address.
        Nat(router=OTHER, kind="dnat_and_snat", external="203.0.113.9", logical="10.0.0.1", uuid="n3"),
    ),
    vips=(
        Vip(
            balancer="lb",
            uuid="l1",
            address="10.9.0.1",
            proto="tcp",
            port=80,
            backends=(Backend(address="10.0.0.1", port=8080), Backend(address="10.0.0.2", port=8080)),
            datapaths=(WEB,),
        ),
        Vip(
            balancer="elsewhere",
            uuid="l2",
            address="10.9.0.9",
            backends=(Backend(address="10.0.0.1"),),
            datapaths=(OTHER,),
        ),
    ),
)
VM1 = Endpoint(name="vm1", port="vm1", address="10.0.0.1", addresses=("10.0.0.1",), by_port=True)
VM2 = Endpoint(name="vm2", port="vm2", address="10.0.0.2", addresses=("10.0.0.2",), by_port=True)
NET = Endpoint(name="198.51.100.7", port="", address="198.51.100.7", addresses=("198.51.100.7",))
VIP = Endpoint(
    name="10.9.0.1",
    port="",
    members=("vm1", "vm2"),
    address="10.9.0.1",
    addresses=("10.0.0.1", "10.0.0.2"),
    aliases=(Alias(address="10.9.0.1", kind="vip", proto="tcp", port=80, own_port=8080),),
    only="10.9.0.1",
)
SNAT = Alias(address="203.0.113.1", kind="translated")
FLOATING = Alias(address="203.0.113.2", kind="floating")
BALANCED = Alias(address="10.9.0.1", kind="vip", proto="tcp", port=80, own_port=8080)


def made(
    source: Endpoint, destination: Endpoint, *, direction: Direction = Direction.FORWARD, **traffic: object
) -> tuple[Carried, ...]:
    ends = [with_aliases(end, CLOUD) for end in (source, destination)]
    return carried(
        Pair(index=0, direction=direction, source=ends[0], destination=ends[1], traffic=TrafficFilter(**traffic))
    )


@pytest.mark.parametrize(
    ("end", "aliases"),
    [
        (VM1, {SNAT, BALANCED}),
        (VM2, {SNAT, FLOATING, BALANCED}),
        (NET, set()),
        (replace(VM1, addresses=("fd00::1",), address="fd00::1"), set()),
    ],
)
def test_a_vm_has_the_aliases_of_its_own_vpc(end: Endpoint, aliases: set[Alias]) -> None:
    assert set(with_aliases(end, CLOUD).aliases) == aliases


def test_a_vm_is_reached_at_its_own_address_and_at_every_alias() -> None:
    assert set(made(NET, VM2, proto="tcp")) == {
        Carried(proto="tcp", src="198.51.100.7", dst="10.0.0.2"),
        Carried(proto="tcp", src="198.51.100.7", dst="203.0.113.1"),
        Carried(proto="tcp", src="198.51.100.7", dst="203.0.113.2"),
        Carried(proto="tcp", src="198.51.100.7", dst="10.9.0.1", dport=80),
    }


@pytest.mark.parametrize(("dport", "vip"), [(80, True), (8080, True), (443, False), (None, True)])
def test_a_port_means_the_vips_or_the_backends(dport: int | None, vip: bool) -> None:
    found = [c for c in made(VM2, VM1, proto="tcp", dport=dport) if c.dst == "10.9.0.1"]
    assert [c.dport for c in found] == ([80] if vip else [])


def test_a_vip_of_another_protocol_is_left_out_and_gives_its_own_to_a_task_without_one() -> None:
    assert all(c.dst != "10.9.0.1" for c in made(VM2, VM1, proto="udp"))
    assert [c.proto for c in made(VM2, VM1) if c.dst == "10.9.0.1"] == ["tcp"]


def test_who_names_a_vip_means_only_packets_to_it() -> None:
    assert made(VM2, VIP) == (Carried(proto="tcp", src="", dst="10.9.0.1", dport=80),)


def test_a_vip_that_was_named_is_asked_about_whatever_is_sent_there() -> None:
    assert made(VM2, VIP, proto="udp", dport=53) == (Carried(proto="udp", src="", dst="10.9.0.1", dport=53),)
    assert made(VM2, VIP, proto="tcp", dport=443) == (Carried(proto="tcp", src="", dst="10.9.0.1", dport=443),)


def test_replies_are_known_by_where_they_come_in_and_go_to_no_vip() -> None:
    other = replace(VIP, members=("vm1",), addresses=("10.0.0.1",))
    found = made(other, VM2, direction=Direction.REPLY, proto="tcp", dport=80, sport=4000)
    assert {(c.src, c.sport) for c in found} == {("", 80), ("", 8080)}
    # A source NAT may have given the connection another port.
    assert {(c.dst, c.dport) for c in found} == {("10.0.0.2", 4000), ("203.0.113.2", 4000), ("203.0.113.1", None)}


def test_a_router_that_forces_its_own_source_on_packets_gets_the_answers() -> None:
    """lb_force_snat_ip: the backends answer to the router's address, and the router gives it to the client."""
    ports = tuple(
        replace(p, addresses=("0a:00:00:00:00:01 10.0.0.254/24",)) if p.name == "r-web" else p for p in CLOUD.ports
    )
    forced = ("router_ip", "10.7.7.7")
    datapaths = tuple(replace(d, forced=forced) if d.key == ROUTER else d for d in CLOUD.datapaths)
    answers = {Alias(address=address, kind="translated") for address in ("10.0.0.254", "10.7.7.7")}
    found = with_aliases(VM2, replace(CLOUD, ports=ports, datapaths=datapaths))
    assert answers <= set(found.aliases)
    assert not answers & set(with_aliases(VM2, CLOUD).aliases)
    elsewhere = tuple(replace(d, forced=forced) if d.key == OTHER else d for d in CLOUD.datapaths)
    assert not answers & set(with_aliases(VM2, replace(CLOUD, ports=ports, datapaths=elsewhere)).aliases)


def test_a_backend_answers_itself_by_the_vip() -> None:
    found = made(VIP, VM1, direction=Direction.REPLY, proto="tcp")
    assert {c.dst for c in found} == {"10.0.0.1", "203.0.113.1", "10.9.0.1"}


@pytest.mark.parametrize(
    ("destination", "first", "now", "other"),
    [
        (VM1, "10.9.0.1", "10.0.0.2", True),
        (VM1, "10.9.0.1", "10.0.0.1", False),
        (VM1, "10.9.0.1", "10.9.0.1", False),
        (VM1, "203.0.113.1", "10.0.0.77", True),
        (VM1, "10.0.0.1", "10.0.0.77", False),
        (VM2, "203.0.113.2", "10.0.0.77", False),
        (VIP, "10.9.0.1", "10.0.0.2", False),
    ],
)
def test_who_a_packet_to_a_shared_address_was_for(destination: Endpoint, first: str, now: str, other: bool) -> None:
    pair = Pair(
        index=0,
        direction=Direction.FORWARD,
        source=NET,
        destination=with_aliases(destination, CLOUD),
        traffic=TrafficFilter(),
    )
    assert pair.is_for_another(first, now) is other


def test_ends_reach_and_entrances() -> None:
    assert [p.name for p in CLOUD.ends(VIP)] == ["vm1", "vm2"]
    assert [p.name for p in CLOUD.ends(NET)] == ["wire"]
    assert CLOUD.reach(WEB) == {WEB, ROUTER, PUBLIC}
    assert CLOUD.reach(OTHER) == {OTHER, PUBLIC}
    wire = CLOUD.port("wire")
    assert wire is not None
    assert CLOUD.entrances(wire) == {"g1", "g2"}


def test_what_is_sent_to_an_address_that_is_another_vms_there_is_not_the_pairs() -> None:
    two = replace(pair(), destination=endpoint("web2", "10.0.1.2", "10.0.1.22"), elsewhere=("10.0.1.2",))
    assert [headers.dst for headers in carried(two)] == ["10.0.1.22"]
    assert not two.unreachable
    assert carried(replace(two, destination=endpoint("web2"))) == ()
