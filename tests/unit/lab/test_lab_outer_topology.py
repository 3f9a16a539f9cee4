"""Topology files with an outside: what is accepted, and that an error names the file and the key."""

from __future__ import annotations

import pytest

from vtrace.errors import UsageError
from vtrace.lab import topology

GOOD = """
[[server]]
name = "hv1"
region = "east"
networks = ["public"]

[[server]]
name = "gw1"
region = "east"
role = "gateway"
networks = ["public"]

[[server]]
name = "hv2"
region = "east"

[[outside]]
name = "net1"
network = "public"
addresses = ["192.0.2.1/24", "2001:db8::1/64"]
hosts = ["198.51.100.1"]
listens = ["tcp/80"]

[[router]]
name = "r"
vpc = "red"

[[router]]
name = "g"
vpc = "red"
kind = "vbrouter"
chassis = "gw1"

[[router]]
name = "plain"
vpc = "red"

[[switch]]
name = "s"
vpc = "red"
router = "r"
subnets = ["10.0.0.0/24", "fd00::/64"]

[[switch]]
name = "public"
network = "public"
subnets = ["192.0.2.0/24", "2001:db8::/64"]

[[switch]]
name = "t"
transit = true
subnets = ["169.254.0.0/24"]

[[vm]]
name = "vm1"
switch = "s"
server = "hv1"
addresses = ["10.0.0.5", "fd00::5"]
listens = ["udp/53"]

[[vm]]
name = "vm2"
switch = "s"
server = "hv2"
addresses = ["10.0.0.6"]

[[link]]
router = "r"
switch = "public"
addresses = ["192.0.2.10", "2001:db8::10"]
gateways = ["gw1"]

[[link]]
router = "g"
switch = "public"
addresses = ["192.0.2.11"]

[[route]]
router = "net1"
prefix = "10.0.0.0/24"
nexthop = "192.0.2.11"

[[nat]]
router = "r"
type = "snat"
external = "192.0.2.20"
logical = "10.0.0.0/24"

[[nat]]
router = "r"
type = "dnat_and_snat"
external = "2001:db8::21"
logical = "fd00::5"
vm = "vm1"

[[load_balancer]]
name = "lb"
vips = ["10.9.0.1:80"]
protocol = "udp"
port = 53
backends = ["vm1", "vm2"]
switches = ["s"]
routers = ["r"]
health_check = true

[[bgp]]
name = "speaker1"
router = "g"
switch = "public"
server = "gw1"
addresses = ["192.0.2.3"]
announce = ["10.0.0.0/24"]
peer = "net1"
peer_announce = ["198.51.100.0/24"]

[[reach]]
from = ["vm1", "net1"]
to = ["vm2", "198.51.100.1"]
proto = "tcp"
port = 80
"""


@pytest.mark.parametrize("name", topology.shipped())
def test_what_ships_can_be_built_and_is_called_by_its_name(name: str) -> None:
    assert topology.read(name)[1] == f"{name}.toml"


def test_a_name_that_does_not_ship_lists_those_that_do() -> None:
    assert topology.shipped() == ["datacenter", "default", "internet", "plain", "slb", "vpc-vpc"]
    with pytest.raises(UsageError, match="datacenter default internet plain slb vpc-vpc"):
        topology.read("interned")


def test_everything_together_is_accepted() -> None:
    parsed = topology.parse(GOOD, "mine.toml")
    assert parsed.outsides[0].vlan is None
    assert parsed.load_balancers[0].health_check


OUTSIDE_ERRORS = [
    ('name = "net1"\nnetwork = "public"', 'name = "net1"\nnetwork = "other"', "outside 'net1'.network"),
    ('name = "net1"\nnetwork', 'name = "hv1"\nnetwork', "outside 'hv1'.name"),
    ('"192.0.2.1/24", "2001:db8::1/64"', '"192.0.2.1"', "outside 'net1'.addresses"),
    ('"192.0.2.1/24", "2001:db8::1/64"', "", "outside 'net1'.addresses"),
    ('"192.0.2.1/24"', '"192.0.2.10/24"', "taken on 'public' by link 1"),
    ('hosts = ["198.51.100.1"]', 'hosts = ["198.51.100"]', "outside 'net1'.hosts"),
    ('hosts = ["198.51.100.1"]', "vlan = 5000", "outside 'net1'.vlan"),
    ('listens = ["tcp/80"]', 'listens = ["80"]', "outside 'net1'.listens"),
    (
        "[[router]]",
        '[[outside]]\nname = "net2"\nnetwork = "public"\naddresses = ["192.0.2.9/24"]\n[[router]]',
        "outside 'net2'.network",
    ),
    ('networks = ["public"]', 'networks = ["a-very-long-network"]', "server 'hv1'.networks"),
    ('networks = ["public"]', 'networks = ["int"]', "server 'hv1'.networks"),
    ('networks = ["public"]', 'networks = ["public", "public"]', "server 'hv1'.networks"),
    ('name = "public"\nnetwork = "public"', 'name = "public"\nnetwork = "other"', "switch 'public'.network"),
    ('name = "public"\nnetwork = "public"', 'name = "public"\nnetwork = "public"\nvlan = 0', "switch 'public'.vlan"),
    ('name = "public"\nnetwork = "public"', 'name = "public"\nvpc = "red"\nvlan = 5', "switch 'public'.vlan"),
    ('name = "public"\nnetwork = "public"', 'name = "public"', "switch 'public'.vpc"),
    ('name = "s"\nvpc = "red"', 'name = "s"\nvpc = "red"\nnetwork = "public"', "switch 's'.vpc"),
    ("transit = true", 'transit = true\nnetwork = "public"', "switch 't'.transit"),
    ('switch = "s"\nserver = "hv1"', 'switch = "t"\nserver = "hv1"', "vm 'vm1'.switch"),
    ('listens = ["udp/53"]', 'listens = ["udp/0"]', "vm 'vm1'.listens"),
]

ROUTER_ERRORS = [
    ('chassis = "gw1"', 'chassis = "gw9"', "router 'g'.chassis"),
    ('chassis = "gw1"', "", "router 'g'.chassis"),
    ('kind = "vbrouter"', 'kind = "vpn"', "router[1].kind"),
    ('chassis = "gw1"', 'chassis = "gw1"\noptions = { chassis = "gw1" }', "router 'g'.options"),
    ('[[link]]\nrouter = "r"', '[[link]]\nrouter = "q"', "link 1.router"),
    ('router = "r"\nswitch = "public"', 'router = "r"\nswitch = "private"', "link 1.switch"),
    ('router = "r"\nswitch = "public"', 'router = "r"\nswitch = "s"', "link 1.switch"),
    ('"192.0.2.10", "2001:db8::10"', '"192.0.3.10"', "link 1.addresses"),
    ('"192.0.2.10", "2001:db8::10"', "", "link 1.addresses"),
    ('addresses = ["192.0.2.11"]', 'addresses = ["192.0.2.10"]', "link 2.addresses"),
    ('gateways = ["gw1"]', 'gateways = ["gw9"]', "link 1.gateways"),
    ('gateways = ["gw1"]', 'gateways = ["hv2"]', "link 1.gateways"),
    ('addresses = ["192.0.2.11"]', 'addresses = ["192.0.2.11"]\ngateways = ["gw1"]', "link 2.gateways"),
    ('router = "net1"', 'router = "net9"', "route 1.router"),
    ('[[nat]]\nrouter = "r"', '[[nat]]\nrouter = "q"', "nat 1.router"),
    ('[[nat]]\nrouter = "r"', '[[nat]]\nrouter = "plain"', "nat 1.router"),
    ('type = "snat"', 'type = "masquerade"', "masquerade"),
    ('external = "192.0.2.20"', 'external = "192.0.2.0/24"', "nat 1.external"),
    ('external = "192.0.2.20"', 'external = "2001:db8::20"', "nat 1.logical"),
    ('logical = "10.0.0.0/24"', 'logical = "10.0.0.0/24"\nvm = "vm1"', "nat 1.vm"),
    ('logical = "fd00::5"', 'logical = "fd00::/64"', "nat 2.logical"),
    ('vm = "vm1"', 'vm = "vm9"', "nat 2.vm"),
    ('vm = "vm1"', 'vm = "vm2"', "nat 2.vm"),
]

SERVICE_ERRORS = [
    ('name = "lb"', 'name = ""', "load_balancer ''.name"),
    ('vips = ["10.9.0.1:80"]', 'vips = ["10.9.0.1:0"]', "load_balancer 'lb'.vips"),
    ('vips = ["10.9.0.1:80"]', 'vips = ["fd00:9::1:80:x"]', "load_balancer 'lb'.vips"),
    ('vips = ["10.9.0.1:80"]', "vips = []", "load_balancer 'lb'.vips"),
    ('vips = ["10.9.0.1:80"]', 'vips = ["10.9.0.1"]', "load_balancer 'lb'.port"),
    ('vips = ["10.9.0.1:80"]', 'vips = ["[fd00:9::1]:80"]', "load_balancer 'lb'.backends"),
    ('protocol = "udp"', 'protocol = "sctp"', "sctp"),
    ("port = 53\n", "port = 0\n", "load_balancer 'lb'.port"),
    ('backends = ["vm1", "vm2"]', 'backends = ["vm9"]', "load_balancer 'lb'.backends"),
    ('backends = ["vm1", "vm2"]', "backends = []", "load_balancer 'lb'.backends"),
    ('switches = ["s"]', 'switches = ["u"]', "load_balancer 'lb'.switches"),
    ('switches = ["s"]\nrouters = ["r"]', "", "load_balancer 'lb'.switches"),
    ('routers = ["r"]', 'routers = ["q"]', "load_balancer 'lb'.routers"),
    ('routers = ["r"]', 'routers = ["plain"]', "load_balancer 'lb'.routers"),
    ('"10.0.0.6"', '"10.0.0.254"', "vm 'vm2'.addresses"),
    ('name = "speaker1"', 'name = "vm1"', "bgp 'vm1'.name"),
    ('peer = "net1"', 'peer = "vm1"', "bgp 'speaker1'.peer"),
    ('server = "gw1"\naddresses', 'server = "gw9"\naddresses', "bgp 'speaker1'.server"),
    ('router = "g"\nswitch = "public"\nserver', 'router = "g"\nswitch = "x"\nserver', "bgp 'speaker1'.switch"),
    ('router = "g"\nswitch = "public"\nserver', 'router = "g"\nswitch = "s"\nserver', "bgp 'speaker1'.switch"),
    ('router = "g"\nswitch = "public"\nserver', 'router = "plain"\nswitch = "public"\nserver', "'speaker1'.router"),
    ('addresses = ["192.0.2.3"]', 'addresses = ["192.0.3.3"]', "bgp 'speaker1'.addresses"),
    ('addresses = ["192.0.2.3"]', "addresses = []", "bgp 'speaker1'.addresses"),
    ('announce = ["10.0.0.0/24"]', 'announce = ["10.0.0.1/24"]', "bgp 'speaker1'.announce"),
    ('peer_announce = ["198.51.100.0/24"]', 'peer_announce = ["x"]', "bgp 'speaker1'.peer_announce"),
    ('peer = "net1"', 'peer = "net1"\nasn = 64513', "bgp 'speaker1'.peer_asn"),
    ('from = ["vm1", "net1"]', 'from = ["gw1"]', "reach 1.from"),
    ('to = ["vm2", "198.51.100.1"]', 'to = ["nobody"]', "reach 1.to"),
    ('proto = "tcp"\nport = 80', 'proto = "tcp"', "reach 1.port"),
    ('proto = "tcp"\nport = 80', "port = 80", "reach 1.port"),
    ('proto = "tcp"\nport = 80', 'proto = "sctp"', "sctp"),
]


@pytest.mark.parametrize(("old", "new", "expected"), OUTSIDE_ERRORS + ROUTER_ERRORS + SERVICE_ERRORS)
def test_a_wrong_topology_names_the_file_and_the_key(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    with pytest.raises(UsageError) as caught:
        topology.parse(GOOD.replace(old, new, 1), "mine.toml")
    assert "mine.toml" in str(caught.value)
    assert expected in str(caught.value)
