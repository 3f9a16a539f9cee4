"""The inventory file: what a right one gives, and that every error names the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from vtrace.errors import UsageError
from vtrace.model.plain import PlainLink, PortRef
from vtrace.plain.inventory_file import parse, read

RIGHT = """
[[server]]
name = "left"
rundir = "/run/left"
bridges = ["br0", "br-ext"]
region = "here"
address = "192.0.2.1"

[[server]]
name = "right"
bridges = ["br0"]

[[endpoint]]
name = "vm1"
server = "left"
bridge = "br0"
port = "tap1"
mac = "0A:00:00:00:00:01"
addresses = ["10.0.0.1", "fd00:0::1"]
vpc = "blue"

[[endpoint]]
name = "vm2"
server = "right"
bridge = "br0"
port = "tap2"
mac = "0a:00:00:00:00:02"
addresses = ["10.0.0.2"]
vlan = 7

[[link]]
kind = "patch"
ends = [
  { server = "left", bridge = "br0", port = "to-ext" },
  { server = "left", bridge = "br-ext", port = "to-br0" },
]

[[link]]
kind = "wire"
ends = [
  { server = "left", bridge = "br-ext", port = "eth1" },
  { server = "right", bridge = "br0", port = "eth1" },
]
"""


def test_a_right_file() -> None:
    cloud = parse(RIGHT, "cloud.toml")
    assert [(s.name, b) for s, b in cloud.bridges()] == [("left", "br0"), ("left", "br-ext"), ("right", "br0")]
    assert cloud.servers[1].rundir == "/var/run/openvswitch"
    one, two = cloud.endpoints
    assert (one.mac, one.addresses, one.vlan, one.vpc) == ("0a:00:00:00:00:01", ("10.0.0.1", "fd00::1"), 0, "blue")
    assert (two.at, two.vlan) == (PortRef(server="right", bridge="br0", port="tap2"), 7)
    assert cloud.links[1] == PlainLink(
        kind="wire",
        ends=(PortRef(server="left", bridge="br-ext", port="eth1"), PortRef(server="right", bridge="br0", port="eth1")),
    )


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('name = "left"', "", r"cloud.toml: server\[0\].name\): is missing"),
        ('name = "left"', "name = 3", r"server\[0\].name"),
        ('name = "right"', 'name = "left"', r"server\[1\].name\): 'left' is there twice"),
        ('bridges = ["br0"]', "bridges = []", r"server\[1\].bridges"),
        ('bridges = ["br0", "br-ext"]', 'bridges = ["br0", "br0"]', r"server\[0\].bridges"),
        ('address = "192.0.2.1"', 'address = "192.0.2"', r"server\[0\].address.*no IP address"),
        ('region = "here"', 'regoin = "here"', r"server\[0\].regoin\): is no key"),
        ('server = "right"\nbridge', 'server = "wrong"\nbridge', r"endpoint\[1\].server.*no server 'wrong'"),
        ('bridge = "br0"\nport = "tap1"', 'bridge = "br9"\nport = "tap1"', r"endpoint\[0\].bridge.*no bridge 'br9'"),
        ('mac = "0A:00:00:00:00:01"', 'mac = "0A:00"', r"endpoint\[0\].mac"),
        ('"fd00:0::1"', '"10.0.0.0/24"', r"endpoint\[0\].addresses"),
        ("vlan = 7", "vlan = 5000", r"endpoint\[1\].vlan"),
        ("vlan = 7", "vlan = true", r"endpoint\[1\].vlan"),
        ('name = "vm2"', 'name = "vm1"', r"endpoint\[1\].name"),
        ('kind = "wire"', 'kind = "cable"', r"link\[1\].kind"),
        ('kind = "wire"', 'kind = "patch"', r"link\[1\].kind.*one server"),
        ('port = "to-br0" },', 'port = "to-br0", ofport = 3 },', r"link\[0\].ends\[1\].ofport"),
        ('  { server = "left", bridge = "br-ext", port = "to-br0" },\n', "", r"link\[0\].ends\): are 1"),
        ('bridge = "br-ext", port = "to-br0"', 'bridge = "br0", port = "to-br0"', r"link\[0\]\): both ends"),
        ('bridge = "br-ext", port = "eth1"', 'bridge = "br0", port = "tap1"', r"link\[1\].ends\[0\].port.*endpoint"),
        (
            'bridge = "br-ext", port = "eth1"',
            'bridge = "br0", port = "to-ext"',
            r"link\[1\].ends\[0\].port.*another link",
        ),
        ("[[server]]", "[[servr]]", "servr"),
    ],
)
def test_errors_name_the_file_and_the_key(before: str, after: str, says: str) -> None:
    assert before in RIGHT
    with pytest.raises(UsageError, match=says):
        parse(RIGHT.replace(before, after, 1), "cloud.toml")


def test_no_toml_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no TOML \(cloud.toml\)"):
        parse("a = ", "cloud.toml")
    with pytest.raises(UsageError, match=r"server.*there is none"):
        parse("", "cloud.toml")
    with pytest.raises(UsageError, match="can't be read"):
        read(str(tmp_path / "missing.toml"))
