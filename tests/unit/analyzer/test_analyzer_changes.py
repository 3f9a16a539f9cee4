"""What is said of a change, and when the entries have to move with it."""

from __future__ import annotations

from typing import Any

import pytest
from builders import DATAPATHS, DB, HV1, HV2, INVENTORY, PORTS, R1, WEB, pair
from msgspec.structs import replace

from vtrace.analyzer.changes import arrivals, describe, merged, needs_arming
from vtrace.model.inventory import Backend, Inventory, LogicalPort, Nat, Route, Rule, Vip

AT = "2026-01-01T00:00:00Z"
GATEWAY = LogicalPort(
    name="cr-r1-public", key=9, datapath=R1, type="chassisredirect", chassis=HV1, standby=(HV2,), sb_uuid="sb-cr"
)
VIP = Vip(
    balancer="lb",
    uuid="nb-lb",
    address="10.0.9.1",
    proto="tcp",
    port=80,
    backends=(Backend(address="10.0.2.1", port=8080, logical_port="db1", status="online"),),
    datapaths=(WEB,),
)
NAT = Nat(router=R1, kind="snat", external="192.0.2.1", logical="10.0.1.0/24", uuid="nb-nat")
ROUTE = Route(router=R1, prefix="10.9.0.0/16", nexthop="10.0.2.1", uuid="nb-route")
RULE = Rule(datapath=DB, table="ACL", uuid="nb-acl")
FULL = replace(INVENTORY, ports=(*PORTS, GATEWAY), vips=(VIP,), nats=(NAT,), routes=(ROUTE,), rules=(RULE,))


def with_port(name: str, **changed: Any) -> Inventory:
    """The full topology with one port changed."""
    return replace(FULL, ports=tuple(replace(p, **changed) if p.name == name else p for p in FULL.ports))


def texts(old: Inventory, new: Inventory) -> list[str]:
    return [change.text for change in describe(old, new, AT)]


CHANGES: dict[str, tuple[Inventory, str, str]] = {
    "VM moves": (with_port("db1", chassis=HV1), "db1 moved from hv2 to hv1", "Port_Binding"),
    "VM leaves": (with_port("db1", chassis=""), "db1 is no longer bound: hv2 gave it up", "Port_Binding"),
    "gateway fails over": (
        with_port("cr-r1-public", chassis=HV2, standby=(HV1,)),
        "the gateway of r1-public moved from hv1 to hv2",
        "Port_Binding",
    ),
    "port disabled": (with_port("db1", enabled=False), "the port db1 was disabled", "Logical_Switch_Port"),
    "addresses": (with_port("db1", addresses=("a 10.0.2.9",)), "the addresses of db1 are a 10.0.2.9 now", ""),
    "port security": (with_port("web1", port_security=()), "the port security of web1 is none now", ""),
    "port removed": (
        replace(FULL, ports=tuple(p for p in FULL.ports if p.name != "db1")),
        "the port db1 was removed",
        "Logical_Switch_Port",
    ),
    "backend removed": (
        replace(FULL, vips=(replace(VIP, backends=()),)),
        "the backend 10.0.2.1:8080 was removed from 10.0.9.1:80 of lb",
        "Load_Balancer",
    ),
    "backend added": (
        replace(FULL, vips=(replace(VIP, backends=(*VIP.backends, Backend(address="10.0.1.2", port=8080))),)),
        "the backend 10.0.1.2:8080 was added to 10.0.9.1:80 of lb",
        "Load_Balancer",
    ),
    "health check": (
        replace(FULL, vips=(replace(VIP, backends=(replace(VIP.backends[0], status="offline"),)),)),
        "the health check of 10.0.2.1:8080 behind 10.0.9.1:80 says offline now",
        "Load_Balancer",
    ),
    "VIP removed": (replace(FULL, vips=()), "the load balancer lb lost the VIP 10.0.9.1:80", "Load_Balancer"),
    "NAT removed": (replace(FULL, nats=()), "NAT snat 192.0.2.1 for 10.0.1.0/24 was removed", "NAT"),
    "route removed": (
        replace(FULL, routes=()),
        "the route 10.9.0.0/16 by 10.0.2.1 of r1 was removed",
        "Logical_Router_Static_Route",
    ),
    "route goes elsewhere": (
        replace(FULL, routes=(replace(ROUTE, nexthop="10.0.1.2"),)),
        "the route 10.9.0.0/16 of r1 goes by 10.0.1.2 now",
        "Logical_Router_Static_Route",
    ),
    "ACL removed": (replace(FULL, rules=()), "an ACL was removed from db", "ACL"),
    "policy added": (
        replace(FULL, rules=(RULE, Rule(datapath=R1, table="Logical_Router_Policy", uuid="nb-policy"))),
        "a router policy was added to r1",
        "Logical_Router_Policy",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_named_with_its_row(name: str) -> None:
    new, text, table = CHANGES[name]
    (change,) = describe(FULL, new, AT)
    assert (change.text, change.at) == (text, AT)
    assert change.object is not None
    assert table in ("", change.object.type)


def test_what_comes_back_is_named_too() -> None:
    for new, _, _ in CHANGES.values():
        assert len(texts(new, FULL)) == 1


@pytest.mark.parametrize("name", ["datapaths", "ports", "chassis", "vips", "nats", "routes", "rules"])
def test_another_order_is_no_change(name: str) -> None:
    two = replace(
        FULL,
        vips=(VIP, replace(VIP, address="10.0.9.2")),
        nats=(NAT, replace(NAT, uuid="nb-nat2")),
        routes=(ROUTE, replace(ROUTE, uuid="nb-route2")),
        rules=(RULE, replace(RULE, uuid="nb-acl2")),
    )
    other = replace(two, **{name: tuple(reversed(getattr(two, name)))})
    assert texts(two, other) == []
    assert not needs_arming(two, other, [pair()], [pair()])


def test_ports_that_come_with_a_patch_are_not_named() -> None:
    patch = LogicalPort(name="web-r2", key=7, datapath=WEB, type="patch", peer="r2-web")
    assert texts(FULL, replace(FULL, ports=(*FULL.ports, patch))) == []


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("VM moves", True),
        ("VM leaves", True),
        ("gateway fails over", True),
        ("port removed", True),
        ("port disabled", False),
        ("health check", False),
        ("NAT removed", False),
        ("route removed", False),
        ("ACL removed", False),
        ("policy added", False),
    ],
)
def test_entries_move_only_where_they_stand_wrong(name: str, *, wanted: bool) -> None:
    assert needs_arming(FULL, CHANGES[name][0], [pair()], [pair()]) is wanted


def test_entries_move_when_packets_carry_other_addresses() -> None:
    before = pair()
    after = replace(before, destination=replace(before.destination, addresses=("10.0.2.1", "10.0.2.7")))
    assert needs_arming(FULL, FULL, [before], [after])
    assert not needs_arming(FULL, FULL, [before], [before])


def test_entries_move_when_a_switch_is_added() -> None:
    more = replace(FULL, datapaths=(*DATAPATHS, replace(DATAPATHS[0], key=77, name="new")))
    assert needs_arming(FULL, more, [pair()], [pair()])


def test_what_is_gone_stays_known() -> None:
    gone = replace(FULL, ports=FULL.ports[1:], vips=(), nats=(), datapaths=DATAPATHS[1:], routes=(), rules=())
    known = merged(FULL, gone)
    assert {p.name for p in known.ports} == {p.name for p in FULL.ports}
    assert {d.key for d in known.datapaths} == {d.key for d in DATAPATHS}
    assert (known.vips, known.nats) == (FULL.vips, FULL.nats)
    assert (known.routes, known.rules) == ((), ())


def test_a_removed_backend_is_known_as_removed() -> None:
    known = merged(FULL, CHANGES["backend removed"][0])
    assert [(b.address, b.status) for b in known.vips[0].backends] == [("10.0.2.1", "removed")]
    assert texts(known, CHANGES["backend removed"][0]) == []
    (again,) = merged(known, FULL).vips[0].backends
    assert again.status == "online"


def test_ports_that_moved_are_remembered() -> None:
    away = merged(FULL, CHANGES["VM moves"][0])
    assert away.moved == ("db1",)
    assert merged(away, FULL).moved == ("db1",)
    assert merged(FULL, FULL).moved == ()


def test_arrivals_are_chassis_that_got_a_port() -> None:
    assert arrivals(FULL, CHANGES["VM moves"][0]) == {HV1}
    assert arrivals(FULL, CHANGES["VM leaves"][0]) == frozenset()
    assert arrivals(FULL, FULL) == frozenset()
