"""A topology without OVN: what is accepted, what is refused with file and key, and the inventory file of it."""

from __future__ import annotations

import tomllib

import msgspec
import pytest

from vtrace.errors import UsageError
from vtrace.lab import breaking, bridges, daemons, plan, status, topology
from vtrace.lab.checks_plain import bridge_problems
from vtrace.lab.declared import Topology
from vtrace.lab.faults import FAULTS
from vtrace.lab.state import LabState
from vtrace.model.plain import PortRef
from vtrace.plain import inventory_file

GOOD = """
kind = "plain"

[[server]]
name = "hv1"
region = "east"

[[switch]]
name = "net"
vpc = "red"
subnets = ["10.0.0.0/24"]

[[vm]]
name = "vm1"
switch = "net"
server = "hv1"
addresses = ["10.0.0.5"]

[[vm]]
name = "vm2"
switch = "net"
server = "hv1"
bridge = "br1"
addresses = ["10.0.0.6"]

[[bridge]]
server = "hv1"
name = "br0"
entries = "actions=drop"

[[bridge]]
server = "hv1"
name = "br1"
entries = "actions=drop"

[[patch]]
server = "hv1"
bridges = ["br0", "br1"]
"""
OVN_TABLES = {
    "router": 'name = "r"\nvpc = "red"',
    "link": 'router = "r"\nswitch = "net"\naddresses = ["10.0.0.9"]',
    "nat": 'router = "r"\ntype = "snat"\nexternal = "192.0.2.1"\nlogical = "10.0.0.0/24"',
    "load_balancer": 'name = "b"\nvips = ["10.0.0.9"]\nbackends = ["vm1"]',
    "outside": 'name = "o"\nnetwork = "public"\naddresses = ["192.0.2.1/24"]',
}


def lab(name: str = "plain") -> LabState:
    declared, file_name = topology.read(name)
    return plan.make_state("demo", declared, file_name, "2026-01-01T00:00:00Z")


def test_a_vm_is_on_its_servers_first_bridge_if_it_does_not_say_where() -> None:
    state = plan.make_state("demo", topology.parse(GOOD, "mine.toml"), "mine.toml", "2026-01-01T00:00:00Z")
    assert [(vm.name, vm.bridge) for vm in state.vms] == [("vm1", "br0"), ("vm2", "br1")]
    assert [(server.bridge, server.bridges) for server in state.servers] == [("br0", ("br0", "br1"))]
    assert [patch.bridges for patch in state.patches] == [("br0", "br1")]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('kind = "plain"', 'kind = "flat"', "kind"),
        ('kind = "plain"', "", "bridge"),
        ('server = "hv1"\nname = "br0"', 'server = "hv9"\nname = "br0"', "bridge 1.server"),
        ('name = "br0"', 'name = "BR 0"', "bridge 1.name"),
        ('name = "br0"', 'name = "br-much-too-long"', "bridge 1.name"),
        ('name = "br0"', 'name = "br-phy"', "'br-phy' is taken"),
        ('name = "br1"\nentries', 'name = "br0"\nentries', "bridge 2.name"),
        ('entries = "actions=drop"', 'entries = " "', "bridge 1.entries"),
        ('entries = "actions=drop"', "", "entries"),
        ('entries = "actions=drop"', 'entries = "actions=drop"\ncolor = 1', "color"),
        ('bridge = "br1"', 'bridge = "br7"', "vm 'vm2'.bridge"),
        ('bridges = ["br0", "br1"]', 'bridges = ["br0", "br7"]', "patch 1.bridges"),
        ('bridges = ["br0", "br1"]', 'bridges = ["br0", "br0"]', "patch 1.bridges"),
        ('bridges = ["br0", "br1"]', 'bridges = ["br0"]', "bridges"),
        ('region = "east"', 'region = "east"\nrole = "gateway"', "server 'hv1'.role"),
        ('region = "east"', 'region = "east"\nnetworks = ["public"]', "server 'hv1'.networks"),
        ('region = "east"', 'region = "east"\n[[server]]\nname = "hv2"\nregion = "west"', "server 'hv2'"),
        (
            '[[vm]]\nname = "vm1"',
            '[[switch]]\nname = "t"\ntransit = true\nsubnets = ["10.1.0.0/24"]\n[[vm]]\nname = "vm1"',
            "switch 't'.transit",
        ),
    ],
)
def test_a_wrong_key_is_named(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    with pytest.raises(UsageError) as caught:
        topology.parse(GOOD.replace(old, new, 1), "mine.toml")
    assert "mine.toml" in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize("name", OVN_TABLES)
def test_what_needs_ovn_is_refused(name: str) -> None:
    text = f"{GOOD}\n[[{name}]]\n{OVN_TABLES[name]}\n"
    found = dict(bridge_problems(msgspec.convert(tomllib.loads(text), Topology)))
    assert found[name] == 'needs OVN, and kind = "plain" has none'


@pytest.mark.parametrize("extra", ['[[bridge]]\nserver = "hv1"\nname = "br0"\nentries = "actions=drop"', "[[patch]]"])
def test_bridges_are_of_a_lab_without_ovn(extra: str) -> None:
    text = GOOD.replace('kind = "plain"', "").partition("[[bridge]]")[0].replace('bridge = "br1"\n', "")
    topology.parse(text, "mine.toml")
    extra = extra.replace("[[patch]]", '[[patch]]\nserver = "hv1"\nbridges = ["br0", "br1"]')
    with pytest.raises(UsageError, match="is of a lab without OVN"):
        topology.parse(f"{text}\n{extra}", "mine.toml")


def test_the_inventory_file_is_one_that_diagnose_reads() -> None:
    state = lab()
    cloud = inventory_file.parse(bridges.inventory(state), "inventory.toml")
    assert [(server.name, server.bridges) for server in cloud.servers] == [
        ("hv1", ("br0",)),
        ("hv2", ("br0",)),
        ("hv3", ("br0", "br1")),
    ]
    assert [server.address for server in cloud.servers] == [server.tunnel_address for server in state.servers]
    assert {e.name: (e.at.server, e.at.bridge, e.mac) for e in cloud.endpoints} == {
        "plain-a1": ("hv1", "br0", "0a:00:00:00:00:01"),
        "plain-a2": ("hv1", "br0", "0a:00:00:00:00:02"),
        "plain-a3": ("hv2", "br0", "0a:00:00:00:00:03"),
        "plain-b1": ("hv3", "br1", "0a:00:00:00:00:04"),
    }
    assert [link.kind for link in cloud.links] == ["tunnel", "tunnel", "tunnel", "patch"]
    assert cloud.links[0].ends == (
        PortRef(server="hv1", bridge="br0", port="vx-hv2"),
        PortRef(server="hv2", bridge="br0", port="vx-hv1"),
    )


def test_a_plain_lab_runs_open_vswitch_alone() -> None:
    state = lab()
    assert {daemon for _, daemon in daemons.daemons_of(state)} == {"ovsdb-server", "ovs-vswitchd"}
    assert (state.nb_remote, state.sb_remote) == ("", "")
    document = status.document(state)
    default = status.document(lab("default"))
    for part in ("nodes", "vms"):
        rows, others = document[part], default[part]
        assert isinstance(rows, list)
        assert isinstance(others, list)
        assert set(rows[0]) == set(others[0])


def test_every_fault_of_a_wire_or_an_entry_is_possible_without_ovn() -> None:
    possible = {fault.name for fault in FAULTS if not fault.needs_ovn}
    assert possible == {"foreign_flow_entry", "physical_loss", "partial_loss", "transient_loss"}


@pytest.mark.parametrize("fault", [fault.name for fault in FAULTS if fault.needs_ovn])
def test_a_fault_that_needs_ovn_says_that_there_is_none(fault: str) -> None:
    with pytest.raises(UsageError, match="needs OVN, and lab 'demo' has none"):
        breaking.apply(lab(), fault, [])
