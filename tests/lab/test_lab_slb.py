"""The topology `slb`: load balancers on a switch and on a router, and their health checks. Needs root."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from test_lab import eventually, on, standing, start_traffic, vtrace

from vtrace.lab import state as lab_state
from vtrace.lab import traffic as lab_traffic

pytestmark = pytest.mark.lab

BACKENDS = ("red-web1", "red-web2", "red-web3")


@pytest.fixture(scope="module")
def lab() -> Iterator[str]:
    with standing("slb") as name:
        yield name


@pytest.fixture(autouse=True)
def _no_traffic_left(lab: str) -> Iterator[None]:
    yield
    vtrace(lab, "traffic stop")


def connected(lab: str, vm: str, port: int) -> int:
    """How many TCP connections a VM has at a port."""
    return len(on(lab, vm, "ss", "-Htn", "state", "established", f"sport = :{port}").splitlines())


@pytest.mark.parametrize("client", ["red-client1", "red-client2"])
@pytest.mark.parametrize(
    ("vip", "proto"),
    [
        ("10.1.9.1", "tcp"),
        ("fd00:1:9::1", "tcp"),
        ("10.1.9.1", "udp"),
        ("fd00:1:9::1", "udp"),
        ("10.1.9.2", "icmp"),
        ("fd00:1:9::2", "icmp"),
        ("10.1.9.2", "udp"),
        ("fd00:1:9::2", "tcp"),
        ("10.1.8.1", "tcp"),
        ("fd00:1:8::1", "tcp"),
        ("10.1.8.1", "udp"),
        ("fd00:1:8::1", "udp"),
    ],
)
def test_traffic_runs_to_every_vip(lab: str, client: str, vip: str, proto: str) -> None:
    counts = start_traffic(lab, "--from", client, "--to", vip, "--proto", proto, "--rate", "200")
    eventually(lambda: counts()["received"] >= 50, "echoes")


@pytest.mark.parametrize("proto", ["icmp", "udp"])
def test_nobody_answers_at_what_a_vip_has_no_port_for(lab: str, proto: str) -> None:
    port = () if proto == "icmp" else ("--dport", "7")
    counts = start_traffic(lab, "--from", "red-client1", "--to", "10.1.9.1", "--proto", proto, *port)
    eventually(lambda: counts()["sent"] >= 20, "packets")
    assert counts()["received"] == 0


def test_many_connections_reach_every_backend(lab: str) -> None:
    state = lab_state.require(lab)
    wish = lab_traffic.Wish(source="red-client1", to="10.1.9.1", proto="tcp", rate=400)
    started = lab_traffic.start(state, wish, flows=48)
    eventually(lambda: all(connected(lab, vm, 8080) for vm in BACKENDS), "connections at each backend")
    eventually(lambda: lab_traffic.counts(state, started)["connects"] == 48, "all connections")
    assert sum(connected(lab, vm, 8080) for vm in BACKENDS) == 48


def test_many_source_ports_of_datagrams_and_echoes(lab: str) -> None:
    state = lab_state.require(lab)
    for proto, to in (("udp", "10.1.9.1"), ("icmp", "10.1.9.2")):
        wish = lab_traffic.Wish(source="red-client2", to=to, proto=proto, rate=400)
        started = lab_traffic.start(state, wish, flows=16)
        eventually(lambda one=started: lab_traffic.counts(state, one)["received"] >= 150, "echoes")


def statuses(lab: str, vm: str) -> dict[str, str]:
    """What the health checks say of a VM's TCP port, by address."""
    query = ("--format=csv", "--no-headings", "--columns=ip,status", "find", "Service_Monitor", f"logical_port={vm}")
    text = on(lab, "central", "ovn-sbctl", *query, "protocol=tcp").replace('"', "")
    return dict(line.split(",") for line in text.split())


def test_a_backend_that_does_not_answer_is_taken_out(lab: str) -> None:
    addresses = {"10.1.2.12", "fd00:1:2::12"}
    assert statuses(lab, "red-web2") == dict.fromkeys(addresses, "online")
    chain = "chain c { type filter hook input priority 0; tcp dport 8080 reject with tcp reset; };"
    on(lab, "red-web2", "nft", f"table inet deaf {{ {chain} }}")
    eventually(lambda: statuses(lab, "red-web2") == dict.fromkeys(addresses, "offline"), "the backend to be offline")
    on(lab, "central", "ovn-nbctl", "--timeout=10", "--wait=hv", "sync")
    on(lab, "red-web2", "nft", "delete", "table", "inet", "deaf")
    eventually(lambda: statuses(lab, "red-web2") == dict.fromkeys(addresses, "online"), "the backend to be online")
