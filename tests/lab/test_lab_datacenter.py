"""The topology `datacenter`: a vBRouter, BGP, and routes that come and go. Needs root and bird."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from test_lab import COMMAND, assert_nothing_left, eventually, on, standing, start_traffic, vtrace
from test_lab_internet import peer_seen

pytestmark = pytest.mark.lab

WITHDRAWN_WITHIN_S = 2.0
BIRDC = 'birdc -s "$BIRD_SOCKET" '


@pytest.fixture(scope="module")
def lab() -> Iterator[str]:
    with standing("datacenter") as name:
        yield name


@pytest.fixture(autouse=True)
def _no_traffic_left(lab: str) -> Iterator[None]:
    yield
    vtrace(lab, "traffic stop")


def routes(lab: str, router: str) -> set[str]:
    """The prefixes of a router's static routes."""
    text = on(lab, "central", "ovn-nbctl", "lr-route-list", router)
    return {words[0] for line in text.splitlines() if (words := line.split()) and words[-1] == "dst-ip"}


def test_both_sides_learn_each_others_prefixes(lab: str) -> None:
    assert {"10.50.1.0/24", "10.50.2.0/24", "fd00:50:1::/64", "fd00:50:2::/64"} <= routes(lab, "red-vbr")
    kernel = on(lab, "customer1", "ip", "route") + on(lab, "customer1", "ip", "-6", "route")
    for prefix, nexthop in (("10.1.1.0/24", "192.0.2.1"), ("fd00:1:2::/64", "2001:db8:2::1")):
        assert f"{prefix} via {nexthop} " in kernel, "the next hop is the vBRouter, not the speaker"


@pytest.mark.parametrize("proto", ["udp", "tcp", "icmp"])
@pytest.mark.parametrize("ip", ["4", "6"])
@pytest.mark.parametrize(("sender", "to"), [("customer1", "red-db1"), ("red-web1", "customer1")])
def test_traffic_runs_in_and_out(lab: str, sender: str, to: str, proto: str, ip: str) -> None:
    counts = start_traffic(lab, "--from", sender, "--to", to, "--proto", proto, "--ip", ip, "--rate", "200")
    eventually(lambda: counts()["received"] >= 50, "echoes")


def test_nothing_is_translated(lab: str) -> None:
    assert peer_seen(lab, "customer1", "10.50.2.10", "red-web1", "10.1.1.11", "10.50.2.10") == "10.1.1.11"
    assert peer_seen(lab, "red-db1", "fd00:1:2::11", "customer1", "fd00:50:1::10", "fd00:1:2::11") == "fd00:50:1::10"


@pytest.mark.parametrize(("number", "prefix"), [(1, "10.50.1.0/24"), (3, "fd00:50:1::/64")])
def test_a_withdrawn_route_is_gone_and_comes_back(lab: str, number: int, prefix: str) -> None:
    before = routes(lab, "red-vbr")
    on(lab, "customer1", "sh", "-c", f"{BIRDC}disable announce{number}")
    eventually(lambda: routes(lab, "red-vbr") == before - {prefix}, "the route to go", WITHDRAWN_WITHIN_S)
    on(lab, "customer1", "sh", "-c", f"{BIRDC}enable announce{number}")
    eventually(lambda: routes(lab, "red-vbr") == before, "the route to come back", WITHDRAWN_WITHIN_S)


def test_a_session_that_ends_takes_all_routes_with_it(lab: str) -> None:
    before = routes(lab, "red-vbr")
    on(lab, "customer1", "sh", "-c", f"{BIRDC}disable peer4")
    gone = {"10.50.1.0/24", "10.50.2.0/24"}
    eventually(lambda: routes(lab, "red-vbr") == before - gone, "the routes to go", WITHDRAWN_WITHIN_S)
    on(lab, "customer1", "sh", "-c", f"{BIRDC}enable peer4")
    eventually(lambda: routes(lab, "red-vbr") == before, "the routes to come back")


def test_the_vbrouter_and_the_speaker_say_what_they_are(lab: str) -> None:
    kind = on(lab, "central", "ovn-nbctl", "get", "Logical_Router", "red-vbr", 'external_ids:"vtrace:kind"')
    assert kind.strip().strip('"') == "vbrouter"
    nodes = {node["name"]: node for node in json.loads(vtrace(lab, "status", "--json"))["nodes"]}
    assert (nodes["speaker1"]["role"], nodes["customer1"]["role"]) == ("speaker", "outside")
    assert vtrace(lab, "exec", "speaker1", "--", "uname", "-n") == "speaker1\n"
    assert "dead" not in vtrace(lab, "status")


@pytest.mark.parametrize("stage", ["starting", "waiting for OVN", "waiting for every VM"])
def test_down_after_up_was_killed(lab: str, stage: str) -> None:
    name = f"{lab}-k"
    argv = [*COMMAND, "up", "--lab", name, "datacenter"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as up:
        assert up.stderr is not None
        while stage not in up.stderr.readline():
            pass
        up.kill()
    vtrace(name, "down")
    assert_nothing_left(name)


def test_a_second_lab_of_it_stands_beside_the_first(lab: str) -> None:
    with standing("datacenter") as second:
        on(second, "customer1", "sh", "-c", f"{BIRDC}disable announce1")
        eventually(lambda: "10.50.1.0/24" not in routes(second, "red-vbr"), "the route to go")
        assert "10.50.1.0/24" in routes(lab, "red-vbr")


def test_a_dead_speaker_is_named(lab: str) -> None:
    """The last one: it leaves the speaker dead."""
    on(lab, "speaker1", "sh", "-c", 'kill -9 $(cat "$(dirname "$BIRD_SOCKET")/bird.pid")')
    eventually(lambda: "dead: bird on speaker1" in vtrace(lab, "status"), "the speaker to be named dead")
