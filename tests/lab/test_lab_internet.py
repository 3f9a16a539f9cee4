"""The topology `internet`, and provider networks: what is translated, how, and where. Needs root."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_lab import eventually, on, standing, start_traffic, vtrace

from vtrace.lab import state as lab_state
from vtrace.lab.programs import node_command

pytestmark = pytest.mark.lab

HOSTS = {4: "198.51.100.20", 6: "2001:db8:100::20"}
SERVER = """
import socket, sys
with socket.create_server((sys.argv[1], 9999), family=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET) as s:
    s.settimeout(10)
    print('ready', flush=True)
    client, peer = s.accept()
    print(peer[0], client.recv(9))
"""
CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], 9999), 10, (sys.argv[2], 0)) as s:
    s.send(b'x')
"""
TWO_TAGS = """
[[server]]
name = "hv1"
region = "r"
[[server]]
name = "gw1"
role = "gateway"
region = "r"
networks = ["wan"]
""" + "".join(
    f"""
[[outside]]
name = "{color}-net"
network = "wan"
vlan = {vlan}
addresses = ["192.0.2.1/24", "2001:db8:2::1/64"]
[[switch]]
name = "{color}-outer"
network = "wan"
vlan = {vlan}
subnets = ["192.0.2.0/24", "2001:db8:2::/64"]
[[router]]
name = "{color}-router"
vpc = "{color}"
[[link]]
router = "{color}-router"
switch = "{color}-outer"
addresses = ["192.0.2.10", "2001:db8:2::10"]
gateways = ["gw1"]
[[nat]]
router = "{color}-router"
type = "dnat_and_snat"
external = "192.0.2.{vlan}"
logical = "10.1.1.11"
[[switch]]
name = "{color}-web"
vpc = "{color}"
router = "{color}-router"
subnets = ["10.1.1.0/24", "fd00:1:1::/64"]
[[vm]]
name = "{color}-web1"
switch = "{color}-web"
server = "hv1"
addresses = ["10.1.1.11", "fd00:1:1::11"]
[[route]]
router = "{color}-net"
prefix = "fd00:1:1::/64"
nexthop = "2001:db8:2::10"
[[reach]]
from = ["{color}-web1"]
to = ["192.0.2.1", "2001:db8:2::1"]
[[reach]]
from = ["{color}-net"]
to = ["192.0.2.{vlan}", "fd00:1:1::11"]
"""
    for color, vlan in (("red", 20), ("blue", 30))
)


@pytest.fixture(scope="module")
def lab() -> Iterator[str]:
    with standing("internet") as name:
        yield name


@pytest.fixture(autouse=True)
def _no_traffic_left(lab: str) -> Iterator[None]:
    yield
    vtrace(lab, "traffic stop")


def peer_seen(lab: str, server: str, listen: str, client: str, source: str, to: str) -> str:
    """Connect from one node to another; the address the one that listens sees."""
    state = lab_state.require(lab)
    argv = node_command(state, server, [sys.executable, "-S", "-c", SERVER, listen])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        on(lab, client, sys.executable, "-S", "-c", CLIENT, to, source)
        return process.stdout.read().split()[0]


OUT = {
    "red-web1": (11, 21),
    "red-web2": (12, 22),
    "red-web3": (13, 20),
    "blue-web1": (11, 31),
    "blue-web2": (12, 32),
    "blue-web3": (13, 30),
}


@pytest.mark.parametrize("vm", OUT)
@pytest.mark.parametrize("ip", [4, 6])
def test_what_leaves_has_the_floating_or_the_shared_address(lab: str, vm: str, ip: int) -> None:
    own, external = OUT[vm]
    inner, outer = ("10.1.1.", "203.0.113.") if ip == 4 else ("fd00:1:1::", "2001:db8:ff::")
    assert peer_seen(lab, "internet1", HOSTS[ip], vm, f"{inner}{own}", HOSTS[ip]) == f"{outer}{external}"


@pytest.mark.parametrize("vm", [vm for vm in OUT if not vm.endswith("web3")])
@pytest.mark.parametrize("ip", [4, 6])
def test_what_comes_to_a_floating_address_reaches_its_vm(lab: str, vm: str, ip: int) -> None:
    own, external = OUT[vm]
    inner, outer = ("10.1.1.", "203.0.113.") if ip == 4 else ("fd00:1:1::", "2001:db8:ff::")
    assert peer_seen(lab, vm, f"{inner}{own}", "internet1", HOSTS[ip], f"{outer}{external}") == HOSTS[ip]


@pytest.mark.parametrize("proto", ["udp", "tcp", "icmp"])
@pytest.mark.parametrize("ip", ["4", "6"])
@pytest.mark.parametrize(
    ("sender", "to"),
    [("internet1", "red-web1"), ("internet1", "blue-web2"), ("red-web3", "internet1"), ("blue-web2", "internet1")],
)
def test_traffic_runs_in_and_out(lab: str, sender: str, to: str, proto: str, ip: str) -> None:
    counts = start_traffic(lab, "--from", sender, "--to", to, "--proto", proto, "--ip", ip, "--rate", "200")
    eventually(lambda: counts()["received"] >= 50, "echoes")


@pytest.mark.parametrize("to", ["203.0.113.40", "2001:db8:ff::40", "203.0.113.21", "2001:db8:ff::32"])
def test_traffic_runs_to_addresses(lab: str, to: str) -> None:
    sender = f"internet1:{HOSTS[6 if ':' in to else 4]}"
    counts = start_traffic(lab, "--from", sender, "--to", to, "--proto", "tcp", "--rate", "200")
    eventually(lambda: counts()["received"] >= 50, "echoes")


def test_a_vm_reaches_the_floating_address_of_another_vpc(lab: str) -> None:
    counts = start_traffic(lab, "--from", "red-web1", "--to", "203.0.113.32", "--rate", "200")
    eventually(lambda: counts()["received"] >= 50, "echoes")


def test_a_vm_without_a_floating_address_is_no_destination_from_outside(lab: str) -> None:
    assert "no floating" in vtrace(lab, "traffic start", "--from", "internet1", "--to", "red-web3", code=2)
    assert "internet1" in vtrace(lab, "traffic start", "--from", "internet9", "--to", "red-web3", code=2)
    assert "no address" in vtrace(lab, "traffic start", "--from", "internet1:192.0.2.1", "--to", "red-web1", code=2)


def test_status_shows_the_box_and_no_more_vms(lab: str) -> None:
    document = json.loads(vtrace(lab, "status", "--json"))
    nodes = {node["name"]: node for node in document["nodes"]}
    assert nodes["internet1"]["role"] == "outside"
    assert nodes["internet1"]["connects"] == ["hv1", "hv2", "gw1", "gw2"]
    assert {"203.0.113.1", "198.51.100.10"} <= set(nodes["internet1"]["addresses"])
    assert {vm["name"] for vm in document["vms"]} == {name for name in nodes if nodes[name]["role"] == "vm"}
    assert vtrace(lab, "exec", "internet1", "--", "uname", "-n") == "internet1\n"


def test_no_frame_of_the_provider_network_is_on_a_wire(lab: str) -> None:
    wires = [wire.name for wire in lab_state.require(lab).wires]
    chain = "chain forward { type filter hook forward priority 0; udp dport 6081 accept; counter; };"
    for wire in wires:
        on(lab, wire, "nft", f"table inet probe {{ {chain} }}")
    counts = start_traffic(lab, "--from", "internet1", "--to", "red-web2", "--rate", "500")
    eventually(lambda: counts()["received"] >= 100, "echoes")
    on(lab, "internet1", "ping", "-c1", "-W2", "203.0.113.21")
    for wire in wires:
        assert "packets 0 " in on(lab, wire, "nft", "list", "table", "inet", "probe"), wire
        on(lab, wire, "nft", "delete", "table", "inet", "probe")


def holder(lab: str, port: str) -> str:
    """The chassis that holds a gateway port; empty while it goes from one to another."""
    query = ("ovn-sbctl", "--bare", "--columns=chassis", "find", "Port_Binding", f"logical_port=cr-{port}")
    chassis = on(lab, "central", *query).strip()
    if not chassis:
        return ""
    return on(lab, "central", "ovn-sbctl", "--bare", "--columns=name", "list", "Chassis", chassis).strip()


def test_another_gateway_takes_over_by_priority(lab: str) -> None:
    counts = start_traffic(lab, "--from", "internet1", "--to", "red-web1", "--rate", "200")
    eventually(lambda: counts()["received"] > 0, "the traffic to flow")
    assert holder(lab, "red-router-public") == "gw1"
    for priority, now in (("30", "gw2"), ("10", "gw1")):
        on(lab, "central", "ovn-nbctl", "lrp-set-gateway-chassis", "red-router-public", "gw2", priority)
        eventually(lambda now=now: holder(lab, "red-router-public") == now, f"{now} to hold the port")
        before = counts()["received"]
        eventually(lambda before=before: counts()["received"] >= before + 100, "the traffic to go on")
    assert holder(lab, "blue-router-public") == "gw1"


def test_gateways_watch_each_other(lab: str) -> None:
    status = on(lab, "gw1", "ovs-vsctl", "--bare", "--columns=bfd_status", "find", "Interface", "type=geneve")
    assert status.count("state=up") == 2 * 3


def test_two_tags_of_one_provider_network(tmp_path: Path) -> None:
    topology = tmp_path / "tags.toml"
    topology.write_text(TWO_TAGS)
    with standing(str(topology)) as second:
        assert peer_seen(second, "red-net", "192.0.2.1", "red-web1", "10.1.1.11", "192.0.2.1") == "192.0.2.20"
        assert peer_seen(second, "blue-net", "192.0.2.1", "blue-web1", "10.1.1.11", "192.0.2.1") == "192.0.2.30"


def test_a_standby_gateway_takes_over_from_a_dead_one(lab: str) -> None:
    """The last one: it leaves the gateway dead."""
    counts = start_traffic(lab, "--from", "red-web3", "--to", "internet1", "--rate", "200")
    eventually(lambda: counts()["received"] > 0, "the traffic to flow")
    on(lab, "gw1", "sh", "-c", "kill -9 $(cat $OVS_RUNDIR/ovs-vswitchd.pid) $(cat $OVS_RUNDIR/ovn-controller.pid)")
    eventually(lambda: holder(lab, "red-router-public") == "gw2", "gw2 to hold the port")
    before = counts()["received"]
    eventually(lambda: counts()["received"] >= before + 100, "the traffic to go on")
