"""Topology files: what is accepted, and that an error names the file and the key."""

from __future__ import annotations

import pytest

from vtrace.errors import UsageError
from vtrace.lab import topology

GOOD = """
[[server]]
name = "hv1"
region = "east"

[[router]]
name = "r"
vpc = "red"

[[switch]]
name = "s"
vpc = "red"
router = "r"
subnets = ["10.0.0.0/24", "fd00::/64"]

[[vm]]
name = "vm1"
switch = "s"
server = "hv1"
addresses = ["10.0.0.5", "fd00::5"]

[[route]]
router = "r"
prefix = "10.9.0.0/24"
nexthop = "10.0.0.5"
"""


def test_the_default_topology_is_what_the_design_asks_for() -> None:
    default, name = topology.read(None)
    assert name == "default.toml"
    assert [server.role for server in default.servers] == ["hypervisor"] * 3 + ["gateway"]
    assert len({server.region for server in default.servers}) == 2
    vms = {vm.name: vm for vm in default.vms}
    one, same_server, other_server = vms["red-web1"], vms["red-web2"], vms["red-web3"]
    assert one.switch == same_server.switch == other_server.switch
    assert one.server == same_server.server != other_server.server
    assert vms["red-db1"].switch != one.switch
    switches = {switch.name: switch for switch in default.switches}
    assert switches[one.switch].router == switches[vms["red-db1"].switch].router
    red = {a for vm in default.vms if switches[vm.switch].vpc == "red" for a in vm.addresses}
    blue = {a for vm in default.vms if switches[vm.switch].vpc == "blue" for a in vm.addresses}
    assert blue < red


def test_a_small_topology_has_defaults() -> None:
    parsed = topology.parse(GOOD, "small.toml")
    assert (parsed.encap, parsed.vm_mtu, parsed.servers[0].role) == ("geneve", 1400, "hypervisor")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('region = "east"', 'region = "east"\ncolour = 1', "colour"),
        ('region = "east"', "", "region"),
        ('name = "hv1"\nregion', 'name = "HV 1"\nregion', "server 'HV 1'.name"),
        ('name = "hv1"\nregion', 'name = "central"\nregion', "server 'central'.name"),
        ('name = "hv1"\nregion', 'name = "a-very-long-name"\nregion', "at most 12"),
        ('server = "hv1"', 'server = "hv9"', "vm 'vm1'.server"),
        ('switch = "s"', 'switch = "t"', "vm 'vm1'.switch"),
        ('"10.0.0.5", "fd00::5"', '"10.0.1.5"', "in none of the subnets"),
        ('"10.0.0.5", "fd00::5"', '"10.0.0.1"', "is the router's"),
        ('"10.0.0.5", "fd00::5"', '"10.0.0.5", "10.0.0.5"', "is taken"),
        ('"10.0.0.5", "fd00::5"', '"10.0.0.500"', "is not an address"),
        ('"10.0.0.0/24", "fd00::/64"', '"10.0.0.1/24"', "switch 's'.subnets"),
        ('router = "r"\nsubnets', 'router = "q"\nsubnets', "switch 's'.router"),
        ('vpc = "red"\nrouter', 'vpc = "blue"\nrouter', "switch 's'.router"),
        ('prefix = "10.9.0.0/24"', 'prefix = "10.9.0.1/24"', "route 1.prefix"),
        ('nexthop = "10.0.0.5"', 'nexthop = "fd00::5"', "route 1.nexthop"),
        ("[[route]]", "encap = 3\n[[route]]", "encap"),
        ("[[route]]", "[[route", "not TOML"),
    ],
)
def test_a_wrong_topology_names_the_file_and_the_key(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    with pytest.raises(UsageError) as caught:
        topology.parse(GOOD.replace(old, new, 1), "mine.toml")
    assert "mine.toml" in str(caught.value)
    assert expected in str(caught.value)


def test_the_tunnel_and_the_mtu_are_checked() -> None:
    with pytest.raises(UsageError, match="encap"):
        topology.parse('encap = "gre"\n' + GOOD, "mine.toml")
    with pytest.raises(UsageError, match="vm_mtu"):
        topology.parse("vm_mtu = 1500\n" + GOOD, "mine.toml")


def test_two_nodes_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="name is taken"):
        topology.parse(GOOD.replace('name = "vm1"', 'name = "hv1"'), "mine.toml")


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="can't be read"):
        topology.read("/nonexistent/lab.toml")
