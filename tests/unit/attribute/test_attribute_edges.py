"""Reasons at the edge of a VPC: gateways, address translation, load balancers, bridges of the provider (reasons.md)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from builders import (
    DEFAULT,
    FOREIGN,
    GW,
    HV1,
    HV2,
    INVENTORY,
    PHYSICAL,
    R1,
    R1_WEB,
    TO_ROUTER,
    WEB,
    WEB1,
    WEB2,
    Recorder,
    case,
    inspection,
    logical,
    pair,
    step,
)
from msgspec.structs import replace

from vtrace.attribute.case import Case, ReplyCount
from vtrace.attribute.causes import find_cause
from vtrace.attribute.silence import keeps_from_color
from vtrace.attribute.verdicts import Attribution, attribute
from vtrace.model.answer import Verdict
from vtrace.model.inspection import Inspection
from vtrace.model.inventory import Backend, Inventory, LogicalDatapath, LogicalPort, Nat, Vip
from vtrace.model.record import Point
from vtrace.model.task import Alias, Direction, Endpoint, Pair, TrafficFilter

PUBLIC, LOCALNET, R1_PUBLIC, CR, TO_R1 = 4, 1, 5, 6, 2
OUTSIDE = "198.51.100.10"
FLOATING = "203.0.113.21"
EDGE = replace(
    INVENTORY,
    datapaths=(
        *INVENTORY.datapaths,
        LogicalDatapath(
            key=PUBLIC, name="public", kind="vswitch", nb_uuid="nb-public", sb_uuid="sb-public", border=True
        ),
    ),
    ports=(
        *INVENTORY.ports,
        LogicalPort(name="public-localnet", key=LOCALNET, datapath=PUBLIC, type="localnet", nb_uuid="nb-localnet"),
        LogicalPort(name="public-r1", key=TO_R1, datapath=PUBLIC, type="patch", peer="r1-public", peer_datapath=R1),
        LogicalPort(name="r1-public", key=R1_PUBLIC, datapath=R1, type="patch", peer="public-r1", peer_datapath=PUBLIC),
        LogicalPort(
            name="cr-r1-public",
            key=CR,
            datapath=R1,
            type="chassisredirect",
            chassis=GW,
            standby=(HV2,),
            ha_group="sb-group",
        ),
    ),
    nats=(Nat(router=R1, kind="snat", external="203.0.113.20", logical="10.0.2.0/24", uuid="nb-snat"),),
)
SNAT = Nat(router=R1, kind="snat", external="203.0.113.20", logical="10.0.1.0/24", uuid="nb-snat1")
OUT = Endpoint(name=OUTSIDE, port="", address=OUTSIDE, addresses=(OUTSIDE,))


def with_port(inventory: Inventory, name: str, **changes: object) -> Inventory:
    return replace(inventory, ports=tuple(replace(p, **changes) if p.name == name else p for p in inventory.ports))


def only(found: Attribution) -> Verdict:
    (verdict,) = found.verdicts
    return verdict


def told(verdict: Verdict) -> tuple[str, str, str, str]:
    assert verdict.why is not None
    assert verdict.why.object is not None
    return (
        verdict.why.code,
        verdict.why.actor,
        verdict.why.object.type,
        verdict.why.object.uuid or verdict.why.object.name,
    )


# --- gateways ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bare", "epoch", "kind"),
    [
        ({}, 1, "lost_between"),
        ({1: frozenset({HV2})}, 1, "evidence_missing"),
        ({1: frozenset({HV2})}, 2, "lost_between"),
        ({1: frozenset({GW})}, 1, "lost_between"),
        ({1: frozenset({HV1})}, 1, "lost_between"),
    ],
    ids=["all have entries", "its standby has none", "has some again", "itself", "another server"],
)
def test_before_a_gateway_whose_standby_has_no_entries_the_color_was_taken_off(
    bare: dict[int, frozenset[str]], epoch: int, kind: str
) -> None:
    recorder = Recorder(epoch=epoch)
    recorder.first(1)
    recorder.passed(1, HV1, WEB, WEB1, TO_ROUTER)
    recorder.sent(1, HV1, GW, R1, in_key=R1_WEB, out_key=CR, ttl=63)
    assert only(attribute(case(recorder.records, inventory=EDGE, bare=bare))).kind == kind


TO_GATEWAY = step(DEFAULT, ("drop",), table=39, datapath=R1, in_key=R1_WEB, out_key=CR)


def gateway_cause(found: Inspection, inventory: Inventory) -> tuple[str, str, str] | None:
    result = find_cause(found, inventory)
    if result is None or result.object is None:
        return None
    return (result.code, result.object.type, result.object.uuid or result.object.name)


def test_no_live_chassis_has_the_gateway_port() -> None:
    dead = with_port(EDGE, "cr-r1-public", chassis="")
    assert gateway_cause(inspection(TO_GATEWAY), dead) == ("gateway_unavailable", "HA_Chassis_Group", "sb-group")


def test_a_sender_that_sees_no_gateway_alive() -> None:
    assert gateway_cause(inspection(TO_GATEWAY), EDGE) == ("gateway_unavailable", "HA_Chassis_Group", "sb-group")


def test_a_gateway_router_names_its_chassis() -> None:
    pinned = with_port(EDGE, "cr-r1-public", type="l3gateway", chassis="", ha_group="", standby=(), pinned="gw1")
    assert gateway_cause(inspection(TO_GATEWAY), pinned) == ("gateway_unavailable", "Chassis", "gw1")


def test_a_standby_that_gets_packets_for_the_gateway_says_who_sent_them_and_why() -> None:
    came = inspection(TO_GATEWAY, chassis=HV2, entry="in_port=3,tun_id=0x3,tun_src=192.0.2.1,tun_dst=192.0.2.2")
    found = find_cause(came, EDGE)
    assert found is not None
    assert found.code == "gateway_unavailable"
    assert "hv1 sent it to hv2" in found.summary
    assert "gw" in found.summary


@pytest.mark.parametrize(
    "found",
    [
        inspection(TO_GATEWAY, chassis=GW),
        inspection(TO_GATEWAY, outcome="tunnel"),
        inspection(step(logical("lr_in_policy"), datapath=R1, out_key=CR)),
        inspection(step(DEFAULT, ("drop",), datapath=R1, out_key=R1_PUBLIC)),
    ],
    ids=["its own chassis", "sent", "a logical flow", "another port"],
)
def test_what_is_no_dead_gateway(found: Inspection) -> None:
    result = find_cause(found, EDGE)
    assert result is None or result.code != "gateway_unavailable"


# --- bridges of the provider -------------------------------------------------------------------------------

HANDED_OUT = step(PHYSICAL, ("output:7",), table=65, datapath=PUBLIC, in_key=TO_R1, out_key=LOCALNET)
BY_HAND = replace(step(FOREIGN, ("drop",), table=0, priority=900), bridge="br-ex")


def test_an_entry_of_a_bridge_beyond_is_named_with_its_bridge() -> None:
    found = find_cause(inspection(HANDED_OUT, elsewhere=(BY_HAND,)), EDGE)
    assert found is not None
    assert (found.code, found.actor) == ("foreign_flow_entry", "provider")
    assert "br-ex" in found.summary
    assert "del-flows br-ex" in (found.fix or "")
    assert found.place.out_key == LOCALNET


@pytest.mark.parametrize("outcome", ["output", "tunnel"])
def test_what_went_out_is_not_the_fault_of_a_bridge_beyond(outcome: str) -> None:
    found = inspection(HANDED_OUT, outcome=outcome, elsewhere=(BY_HAND,))
    assert find_cause(found, EDGE) is None


def test_a_bridge_beyond_that_floods_is_no_cause() -> None:
    floods = replace(BY_HAND, actions=("NORMAL",))
    assert find_cause(inspection(HANDED_OUT, elsewhere=(floods,)), EDGE) is None


# --- address translation -----------------------------------------------------------------------------------


def leaving(src: str = "10.0.1.1", dst: str = OUTSIDE, inventory: Inventory = EDGE, **fields: object) -> Case:
    log = Recorder()
    for key in range(3):
        log.write(HV1, Point.FIRST_HOP, WEB, key, pair=0, in_key=WEB1, in_ofport=5, dst=dst)
        log.write(HV1, Point.LOGICAL_EGRESS, WEB, key, in_key=WEB1, out_key=TO_ROUTER, dst=dst)
        log.write(HV1, Point.REMOTE_OUTPUT, R1, key, in_key=R1_WEB, out_key=CR, peer=GW, ttl=63, dst=dst)
        log.write(GW, Point.INGRESS, R1, key, peer=HV1, in_ofport=20, ttl=63, dst=dst)
        log.write(GW, Point.LOGICAL_EGRESS, R1, key, in_key=R1_WEB, out_key=R1_PUBLIC, ttl=63, src=src, dst=dst)
        log.write(GW, Point.EGRESS, PUBLIC, key, in_key=TO_R1, out_key=LOCALNET, ttl=63, src=src, dst=dst)
    goal = Endpoint(name=dst, port="", address=dst, addresses=(dst,))
    return case(log.records, pairs=[replace(pair(), destination=goal)], inventory=inventory, **fields)


def test_what_leaves_with_its_private_address_is_nat_missing() -> None:
    found = attribute(leaving())
    verdict = only(found)
    assert (verdict.kind, verdict.pattern, found.loss) == ("left_domain", "persistent", "yes")
    assert told(verdict) == ("nat_missing", "tenant", "Logical_Router", "nb-r1")
    assert (verdict.where.server, verdict.where.vfd, verdict.where.port) == ("gw", "public", "public-localnet")
    assert found.packets.left_domain == 3


def covered(**fields: object) -> Inventory:
    """A source NAT row that covers what leaves."""
    return replace(EDGE, nats=(replace(SNAT, logical="10.0.1.0/24", **fields),))


@pytest.mark.parametrize(("port_range", "number"), [("5000-5001", 2), ("5000", 1)])
def test_a_row_with_few_ports_had_none_left(port_range: str, number: int) -> None:
    found = attribute(leaving(inventory=covered(port_range=port_range)))
    verdict = only(found)
    assert (verdict.kind, verdict.pattern, found.loss) == ("left_domain", "persistent", "yes")
    assert told(verdict) == ("nat_port_exhausted", "provider", "NAT", SNAT.uuid)
    assert verdict.why is not None
    assert f"has {number} source ports ({port_range})" in verdict.why.summary
    assert verdict.why.evidence[0].source == f"ovn-nbctl list NAT {SNAT.uuid}"


@pytest.mark.parametrize(
    "fields",
    [{}, {"port_range": "5000-5001", "partial": True}, {"port_range": "5000-5001", "kind": "dnat_and_snat"}],
    ids=["all ports", "not for all addresses", "no ports of its own"],
)
def test_a_row_that_may_have_had_another_reason_is_not_named(fields: dict[str, object]) -> None:
    assert attribute(leaving(inventory=covered(**fields))).loss == "no"


def test_what_such_a_row_translates_is_not_lost() -> None:
    found = attribute(leaving(src="203.0.113.20", inventory=covered(port_range="5000-5001")))
    assert found.loss == "no"


def test_a_router_without_a_gateway_does_no_nat() -> None:
    inert = replace(EDGE, nats=(SNAT,), ports=tuple(p for p in EDGE.ports if p.type != "chassisredirect"))
    verdict = only(attribute(leaving(inventory=inert)))
    assert told(verdict)[0] == "nat_missing"
    assert verdict.why is not None
    assert "no gateway chassis" in verdict.why.summary


def test_a_router_that_translates_nothing_is_only_a_candidate() -> None:
    found = attribute(leaving(inventory=replace(EDGE, nats=())))
    assert found.loss == "no"
    assert only(found).confidence <= 0.5


def vbrouter() -> Inventory:
    return replace(EDGE, datapaths=tuple(replace(d, kind="vbrouter") if d.key == R1 else d for d in EDGE.datapaths))


@pytest.mark.parametrize(
    "found",
    [
        leaving(src="203.0.113.20"),
        leaving(dst="172.16.9.9"),
        leaving(inventory=vbrouter()),
        leaving(inventory=replace(EDGE, nats=(SNAT,))),
    ],
    ids=["translated", "to a private address", "to a data center", "a row claims it"],
)
def test_what_leaves_as_it_should(found: Case) -> None:
    answer = attribute(found)
    assert (answer.loss, only(answer).kind, only(answer).why) == ("no", "left_domain", None)


def test_nobody_outside_answers() -> None:
    found = attribute(leaving(src="203.0.113.20", replies=(ReplyCount(pair=0),)))
    left, silent = found.verdicts
    assert (found.loss, left.kind, silent.kind, silent.direction) == ("no", "left_domain", "no_traffic", "reply")
    assert told(silent)[0] == "guest_not_answering"
    assert silent.where.server == "gw"


def test_somebody_outside_answers() -> None:
    assert only(attribute(leaving(src="203.0.113.20", replies=(ReplyCount(pair=0, packets=1),)))).kind == "left_domain"


def from_outside(*aliases: Alias, traffic: TrafficFilter | None = None) -> Pair:
    own = replace(pair().source, aliases=aliases)
    return Pair(
        index=0, direction=Direction.FORWARD, source=OUT, destination=own, traffic=traffic or TrafficFilter(proto="udp")
    )


FLOATS = Alias(address=FLOATING, kind="floating")


def test_a_vm_without_a_floating_address_has_no_way_in() -> None:
    found = only(attribute(case([], pairs=[from_outside()], inventory=EDGE)))
    assert (found.kind, told(found)) == ("no_traffic", ("nat_missing", "tenant", "Logical_Router", "nb-r1"))


@pytest.mark.parametrize(
    "aliases",
    [
        (Alias(address="203.0.113.20", kind="translated"),),
        (Alias(address="203.0.113.40", kind="vip", proto="tcp", port=80),),
    ],
    ids=["the shared address", "a VIP of another protocol"],
)
def test_what_does_not_lead_in(aliases: Sequence[Alias]) -> None:
    found = only(attribute(case([], pairs=[from_outside(*aliases)], inventory=EDGE)))
    assert told(found)[0] == "nat_missing"


def test_a_reply_comes_back_by_the_shared_address() -> None:
    """The near-miss: nobody outside can begin with it, but what it translated is answered there."""
    reply = replace(from_outside(Alias(address="203.0.113.20", kind="translated")), direction=Direction.REPLY)
    assert told(only(attribute(case([], pairs=[reply], inventory=EDGE))))[0] == "source_silent"


@pytest.mark.parametrize(
    "alias", [FLOATS, Alias(address="203.0.113.40", kind="vip", proto="udp", port=53)], ids=["floating", "VIP"]
)
def test_with_a_way_in_nobody_sends(alias: Alias) -> None:
    found = only(attribute(case([], pairs=[from_outside(alias)], inventory=EDGE)))
    assert told(found)[0] == "source_silent"
    assert found.where.server in ("gw", "hv2")
    assert found.why is not None
    assert alias.address in (found.why.fix or "")


def test_answers_come_in_by_the_address_their_questions_left_with() -> None:
    answers = replace(from_outside(Alias(address="203.0.113.20", kind="translated")), direction=Direction.REPLY)
    found = only(attribute(case([], pairs=[answers], inventory=EDGE)))
    assert told(found)[0] == "source_silent"


def test_a_dead_gateway_lets_nothing_in() -> None:
    dead = with_port(EDGE, "cr-r1-public", chassis="", standby=())
    found = only(attribute(case([], pairs=[from_outside(FLOATS)], inventory=dead)))
    assert told(found) == ("gateway_unavailable", "provider", "HA_Chassis_Group", "sb-group")


def test_a_distributed_address_needs_no_gateway() -> None:
    own = Nat(router=R1, kind="dnat_and_snat", external=FLOATING, logical="10.0.1.1", uuid="nb-fip", port="web1")
    dead = replace(with_port(EDGE, "cr-r1-public", chassis=""), nats=(own,))
    found = only(attribute(case([], pairs=[from_outside(FLOATS)], inventory=dead)))
    assert told(found)[0] == "source_silent"


def uncolored(key: str) -> Inspection:
    return inspection(outcome="drop", elsewhere=(BY_HAND,), uncolored=True, flow=key, chassis=GW)


def test_a_bridge_before_ours_is_blamed_for_what_never_came() -> None:
    key = f"in_port(eth1),eth_type(0x0800),ipv4(src={OUTSIDE},dst={FLOATING},proto=17),udp(dst=53)"
    wanted = from_outside(FLOATS, traffic=TrafficFilter(proto="udp", dport=53))
    found = attribute(case([], [uncolored(key)], pairs=[wanted], inventory=EDGE))
    assert (found.loss, told(only(found))[0]) == ("yes", "foreign_flow_entry")


@pytest.mark.parametrize("chassis", [GW, HV1])
def test_it_is_the_bridge_of_the_gateway_where_it_was_seen(chassis: str) -> None:
    key = f"in_port(eth1),eth_type(0x0800),ipv4(src={OUTSIDE},dst={FLOATING},proto=17)"
    several = with_port(EDGE, "cr-r1-public", standby=(HV1,))
    seen = replace(uncolored(key), chassis=chassis)
    found = only(attribute(case([], [seen], pairs=[from_outside(FLOATS)], inventory=several)))
    assert found.where.server == {GW: "gw", HV1: "hv1"}[chassis]


@pytest.mark.parametrize("end", ["proto=17),udp(dst=54)", "proto=6),tcp(dst=53)"])
def test_a_bridge_before_ours_that_ends_other_traffic_is_not_blamed(end: str) -> None:
    key = f"in_port(eth1),eth_type(0x0800),ipv4(src={OUTSIDE},dst={FLOATING},{end}"
    wanted = from_outside(FLOATS, traffic=TrafficFilter(proto="udp", dport=53))
    found = attribute(case([], [uncolored(key)], pairs=[wanted], inventory=EDGE))
    assert told(only(found))[0] == "source_silent"


@pytest.mark.parametrize(
    ("port", "blamed"), [("2001/0", True), ("2001/0xff00", True), ("2001", False)], ids=["open", "masked", "one port"]
)
def test_behind_a_source_nat_a_bridge_before_ours_is_blamed_unless_it_ends_one_port_only(
    port: str, blamed: bool
) -> None:
    """The port at the address that others have as well tells whose packets they are."""
    key = f"in_port(eth1),eth_type(0x0800),ipv4(src={OUTSIDE},dst=203.0.113.20,proto=17),udp(src=53,dst={port})"
    wanted = from_outside(
        Alias(address="203.0.113.20", kind="translated"), traffic=TrafficFilter(proto="udp", dport=53)
    )
    found = attribute(case([], [uncolored(key)], pairs=[replace(wanted, direction=Direction.REPLY)], inventory=EDGE))
    assert told(only(found))[0] == ("foreign_flow_entry" if blamed else "source_silent")


def test_an_entry_behind_ours_keeps_nothing_from_color() -> None:
    """Its packets are colored when they come: a task must not end before that."""
    wanted = from_outside(FLOATS, traffic=TrafficFilter(proto="udp", dport=53))
    key = f"in_port(eth1),eth_type(0x0800),ipv4(src={OUTSIDE},dst={FLOATING},proto=17),udp(dst=53)"
    for table, kept in ((0, True), (27, False)):
        by_hand = step(FOREIGN, ("drop",), table=table, datapath=PUBLIC, priority=65535)
        found = inspection(by_hand, uncolored=True, flow=key, chassis=GW)
        assert (keeps_from_color(found, wanted, EDGE, seen=False) is not None) == kept


# --- load balancers ----------------------------------------------------------------------------------------

VIP = "10.0.9.1"


def balanced(*backends: Backend) -> Inventory:
    vip = Vip(balancer="lb", uuid="nb-Load_Balancer", address=VIP, proto="udp", port=53, backends=backends)
    return replace(INVENTORY, vips=(replace(vip, datapaths=(WEB,)),))


def at_balancer(inventory: Inventory) -> Attribution:
    log = Recorder()
    log.write(HV1, Point.FIRST_HOP, WEB, 1, pair=0, in_key=WEB1, in_ofport=5, dst=VIP, dport=53)
    chosen = logical("ls_in_lb", f"ct.new && ip4.dst == {VIP} && udp.dst == 53", table="Load_Balancer", name="lb")
    goal = Endpoint(name=VIP, port="", address=VIP, members=("web2",), only=VIP)
    return attribute(
        case(log.records, [inspection(step(chosen))], pairs=[replace(pair(), destination=goal)], inventory=inventory)
    )


def test_a_vip_without_a_backend() -> None:
    verdict = only(at_balancer(balanced()))
    assert told(verdict) == ("lb_no_backend", "tenant", "Load_Balancer", "nb-Load_Balancer")
    assert (verdict.where.server, verdict.where.vfd, verdict.where.vfd_kind) == ("hv1", "lb", "slb")


def test_a_vip_whose_backends_are_all_offline() -> None:
    verdict = only(at_balancer(balanced(Backend(address="10.0.1.2", port=53, status="offline"))))
    assert told(verdict) == ("lb_backend_down", "tenant", "Load_Balancer", "nb-Load_Balancer")
    assert verdict.where.vfd == "lb"


def at_backend(dst: str, inventory: Inventory) -> Verdict:
    log = Recorder()
    log.write(HV1, Point.FIRST_HOP, WEB, 1, pair=0, in_key=WEB1, in_ofport=5, dst=dst, dport=53)
    log.sent(1, dport=53)
    log.came(1, dport=53)
    down = step(DEFAULT, ("drop",), table=40, out_key=WEB2)
    aliases = (Alias(address=VIP, kind="vip", proto="udp", port=53, own_port=53),)
    goal = replace(pair().destination, aliases=aliases)
    found = [inspection(down, chassis=HV2, at=2)]
    return attribute(case(log.records, found, pairs=[replace(pair(), destination=goal)], inventory=inventory)).verdicts[
        0
    ]


def test_a_backend_without_a_live_port() -> None:
    verdict = at_backend(VIP, balanced(Backend(address="10.0.1.2", port=53)))
    assert told(verdict) == ("lb_backend_down", "tenant", "Load_Balancer", "nb-Load_Balancer")
    assert (verdict.pattern, verdict.where.server, verdict.where.vfd) == ("persistent", "hv2", "web")


def test_a_port_that_is_down_and_was_addressed_itself_is_no_matter_of_the_balancer() -> None:
    verdict = at_backend("10.0.1.2", balanced(Backend(address="10.0.1.2", port=53)))
    assert told(verdict)[0] == "vif_down"


def test_a_health_check_of_another_protocol_explains_nothing() -> None:
    inventory = balanced(Backend(address="10.0.1.2", port=53, status="offline"))
    aliases = (Alias(address=VIP, kind="vip", proto="udp", port=53),)
    for proto, code in (("udp", "lb_backend_down"), ("icmp", "unknown")):
        goal = replace(pair().destination, aliases=aliases)
        wanted = replace(pair(), destination=goal, traffic=TrafficFilter(proto=proto))
        found = only(attribute(case([], pairs=[wanted], inventory=inventory, for_others={0: 9})))
        assert found.why is not None
        assert found.why.code == code
