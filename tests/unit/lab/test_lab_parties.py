"""Where a traffic goes and who answers; and what the BGP speakers are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from vtrace.errors import UsageError
from vtrace.lab import bgp, parties, plan, topology
from vtrace.lab.programs import OVN_PACKAGES, PACKAGES
from vtrace.lab.state import LabState


def lab(name: str) -> LabState:
    declared, file_name = topology.read(name)
    return plan.make_state("demo", declared, file_name, "2026-01-01T00:00:00Z")


def resolve(
    state: LabState, sender: str, to: str, version: int | None = None, proto: str = "tcp", dport: int | None = None
) -> tuple[str, int | None, set[tuple[str, str, int]]]:
    party = parties.party_of(state, sender)
    found = parties.destination_of(state, party, to, version=version, proto=proto, dport=dport)
    return found.address, found.dport, {(end.node, end.address, end.port) for end in found.ends}


@pytest.mark.parametrize(
    ("name", "sender", "to", "expected"),
    [
        ("internet", "internet1", "red-web1", ("203.0.113.21", None, {("red-web1", "10.1.1.11", 0)})),
        ("internet", "internet1", "203.0.113.31", ("203.0.113.31", None, {("blue-web1", "10.1.1.11", 0)})),
        ("internet", "blue-web1", "10.1.1.12", ("10.1.1.12", None, {("blue-web2", "10.1.1.12", 0)})),
        ("internet", "blue-web1", "internet1", ("198.51.100.10", None, {("internet1", "198.51.100.10", 0)})),
        ("internet", "blue-web1", "192.0.2.99", ("192.0.2.99", None, set())),
        ("internet", "internet1", "10.1.1.11", ("10.1.1.11", None, set())),
        (
            "slb",
            "red-client1",
            "fd00:1:8::1",
            ("fd00:1:8::1", 443, {("red-web1", "fd00:1:2::11", 8080), ("red-web3", "fd00:1:2::13", 8080)}),
        ),
        (
            "slb",
            "red-client1",
            "10.1.9.2",
            ("10.1.9.2", None, {("red-web2", "10.1.2.12", 0), ("red-web3", "10.1.2.13", 0)}),
        ),
        ("datacenter", "customer1", "red-db1", ("10.1.2.11", None, {("red-db1", "10.1.2.11", 0)})),
        ("datacenter", "red-db1", "10.50.2.10", ("10.50.2.10", None, {("customer1", "10.50.2.10", 0)})),
        ("vpc-vpc", "red-web1", "blue-web2", ("10.2.1.12", None, {("blue-web2", "10.2.1.12", 0)})),
        ("vpc-vpc", "red-web1", "10.2.1.12", ("10.2.1.12", None, {("blue-web2", "10.2.1.12", 0)})),
    ],
)
def test_a_destination_is_found(name: str, sender: str, to: str, expected: object) -> None:
    assert resolve(lab(name), sender, to) == expected


def test_the_port_and_protocol_choose_the_vip() -> None:
    assert resolve(lab("slb"), "red-client1", "10.1.9.1", proto="udp")[1] == 5353
    assert resolve(lab("slb"), "red-client1", "10.1.9.1", dport=81) == ("10.1.9.1", 81, set())


@pytest.mark.parametrize(
    ("name", "sender", "to", "expected"),
    [
        ("internet", "internet1", "red-web3", "no floating address"),
        ("internet", "red-web1", "blue-web1", "is in VPC 'blue'"),
        ("internet", "red-web1", "internet1:192.0.2.1", "has no address"),
        ("internet", "red-web1", "internet2", "internet1"),
    ],
)
def test_what_is_no_destination_is_refused(name: str, sender: str, to: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        resolve(lab(name), sender, to)


def test_a_source_address_is_the_senders_own() -> None:
    box = parties.party_of(lab("internet"), "internet1")
    assert parties.source_of(box, 6, None) == "2001:db8:100::10"
    assert parties.source_of(box, 4, "203.0.113.1") == "203.0.113.1"
    with pytest.raises(UsageError, match="has no address"):
        parties.source_of(box, 4, "203.0.113.2")
    with pytest.raises(UsageError, match="not an IPv6"):
        parties.source_of(box, 6, "203.0.113.1")


def test_the_speakers_configurations_fit_each_other() -> None:
    declared, _ = topology.read("datacenter")
    ours = bgp.speaker_configuration(declared, declared.bgps[0], Path("/run/x"))
    theirs = bgp.peer_configuration(declared, list(declared.bgps), Path("/run/x"))
    assert "local 192.0.2.3 as 64512;\n  neighbor 192.0.2.2 as 64513;" in ours
    assert "local 192.0.2.2 as 64513;\n  neighbor 192.0.2.3 as 64512;" in theirs
    assert "bgp_next_hop = 192.0.2.1;" in ours
    assert "bgp_next_hop" not in theirs
    assert "protocol static announce4 { ipv6; route fd00:50:2::/64 unreachable; }" in theirs


def test_what_bgp_needs_is_installed_by_setup_and_not_asked_of_other_labs() -> None:
    rows = [
        line.split()
        for line in (Path(__file__).parents[3] / "scripts/packages.txt").read_text().splitlines()
        if line[0] != "#"
    ]
    assert {(program, package) for program, package, group in rows if group == "demo"} >= set(bgp.PACKAGES.items())
    assert not set(bgp.PACKAGES) & {*PACKAGES, *OVN_PACKAGES}
