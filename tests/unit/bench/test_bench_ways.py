"""The written ways fit the topologies that ship, whatever names and addresses are drawn."""

from __future__ import annotations

import ipaddress
import itertools
import random
import tomllib

import pytest

from vtrace.bench import topologies, way
from vtrace.bench.topologies import SHIPPED
from vtrace.bench.way import Way
from vtrace.lab.topology import parse

KINDS = tuple(SHIPPED)


def drawn(kind: str, seed: int = 3) -> tuple[dict[str, list[dict[str, object]]], tuple[Way, ...]]:
    rename = topologies.renaming(random.Random(seed))
    return tomllib.loads(topologies.shipped(kind, rename)), way.written(kind, rename)


def names(table: list[dict[str, object]]) -> set[object]:
    return {row["name"] for row in table}


@pytest.mark.parametrize("kind", KINDS)
def test_a_renamed_topology_is_one(kind: str) -> None:
    rename = topologies.renaming(random.Random(5))
    text = topologies.shipped(kind, rename)
    for name in ("hv1", "gw1", "red-router"):
        assert name not in text
    assert parse(text, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_servers_devices_and_ends_are_those_of_the_topology(kind: str) -> None:
    topology, ways = drawn(kind)
    servers = names(topology["server"])
    ends = names(topology["vm"]) | names(topology.get("outside", []))
    translating = {row["router"] for row in topology.get("nat", [])}
    border = {r["name"] for r in topology["router"] if "chassis" in r} - translating
    devices = {
        "vswitch": names(topology["switch"]),
        "slb": names(topology.get("load_balancer", [])),
        "vrouter": {r["name"] for r in topology["router"]} - border,
        "vbrouter": border,
    }
    assert len({one.name for one in ways}) > 9
    for one in ways:
        assert {one.client, one.server} <= ends, one.name
        for place in one.places:
            assert place.server in servers, one.name
            assert place.vfd in devices[place.vfd_kind], one.name


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_hands_to_the_next(kind: str) -> None:
    """By the lab's names for ports: the one towards `b` of `a` is `a-b`."""
    _, ways = drawn(kind)
    for one in ways:
        passed = [place for place in one.places if place.vfd_kind != "slb" and "cr-" not in place.out_port]
        for place, after in itertools.pairwise(passed):
            if place.vfd != after.vfd:
                assert place.out_port == f"{place.vfd}-{after.vfd}", one.name
                assert after.in_port == f"{after.vfd}-{place.vfd}", one.name


@pytest.mark.parametrize("kind", KINDS)
def test_addresses_are_of_their_version(kind: str) -> None:
    _, ways = drawn(kind)
    for one in ways:
        assert one.traits == tuple(sorted(one.traits)), one.name
        for version, column in ((4, 0), (6, 1)):
            for place in one.places:
                assert {ipaddress.ip_address(a[column]).version for a in (place.src, place.dst)} == {version}
            assert ipaddress.ip_address(one.sources[column]).version == version


def test_a_way_is_there_for_each_pair_of_texts_to_ask_by() -> None:
    _, ways = drawn("internet")
    inward = [one.asked[0] for one in ways if one.name == "central-in"]
    assert len(inward) == len(set(inward)) == 3
    assert {start for start, _ in inward} == {"198.51.100.10"}


def test_tunnels_are_found_where_the_server_changes() -> None:
    _, ways = drawn("internet")
    out = next(one for one in ways if one.name == "central-out")
    assert [(before, behind.role) for before, behind in out.crossings] == [(out.places[0].server, "gateway")]


@pytest.mark.parametrize(
    ("kind", "name", "role"),
    [
        ("datacenter", "web1-in", "vbrouter"),
        ("datacenter", "web1-out", "router"),
        ("internet", "central-out", "router"),
        ("internet", "vip-in-1", "router"),
        ("vpcs", "red1-to-blue1", "router"),
    ],
)
def test_the_first_router_is_of_any_kind(kind: str, name: str, role: str) -> None:
    _, ways = drawn(kind)
    one = next(one for one in ways if one.name == name)
    assert one.place("first_router") == one.place(role)


def test_asked_about_by_the_address_that_is_sent_to() -> None:
    _, ways = drawn("internet")
    inward = {one.asked[0][1]: one for one in ways if one.name == "central-in"}
    assert [text for text, one in inward.items() if one.has("as sent")] == [ways[0].values["external"][0]]
    assert all(one.has("as sent") for one in ways if one.name == "central-out")
