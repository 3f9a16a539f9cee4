"""The topology `vpc-vpc`: two VPCs joined by a transit switch. Needs root."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from test_lab import eventually, on, standing, start_traffic, vtrace
from test_lab_internet import peer_seen

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab() -> Iterator[str]:
    with standing("vpc-vpc") as name:
        yield name
        vtrace(name, "traffic stop")


@pytest.mark.parametrize("proto", ["udp", "tcp", "icmp"])
@pytest.mark.parametrize("ip", ["4", "6"])
@pytest.mark.parametrize(("sender", "to"), [("red-web1", "blue-web1"), ("blue-web2", "red-web3")])
def test_traffic_crosses(lab: str, sender: str, to: str, proto: str, ip: str) -> None:
    counts = start_traffic(lab, "--from", sender, "--to", to, "--proto", proto, "--ip", ip, "--rate", "200")
    eventually(lambda: counts()["received"] >= 50, "echoes")


def test_traffic_crosses_by_address(lab: str) -> None:
    counts = start_traffic(lab, "--from", "red-web2", "--to", "10.2.1.13", "--rate", "200")
    eventually(lambda: counts()["received"] >= 50, "echoes")


def test_nothing_is_translated_and_three_hops_are_passed(lab: str) -> None:
    assert peer_seen(lab, "blue-web3", "10.2.1.13", "red-web1", "10.1.1.11", "10.2.1.13") == "10.1.1.11"
    assert "ttl=62" in on(lab, "red-web1", "ping", "-c1", "-W2", "10.2.1.13")


def test_the_transit_switch_is_marked_as_ovn_ic_would(lab: str) -> None:
    query = ("get", "Logical_Switch", "transit", "other_config:interconn-ts")
    assert on(lab, "central", "ovn-nbctl", *query).strip().strip('"') == "transit"
