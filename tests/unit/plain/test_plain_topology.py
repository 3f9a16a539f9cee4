"""From an inventory file and the bridges' facts to a task's inventory."""

from __future__ import annotations

import pytest

from vtrace.errors import CannotWorkError, UsageError
from vtrace.model.openflow import BridgePort, OfPort, TunnelPort
from vtrace.model.plain import (
    FIRST_BRIDGE,
    LOCAL_KEY,
    LOCAL_PORT,
    MISSING_PORTS,
    SEVERAL_PORTS,
    PlainCloud,
    PlainEndpoint,
    PlainLink,
    PlainServer,
    PortRef,
    port_key,
    port_number,
)
from vtrace.ovs.bridge import BridgeFacts
from vtrace.plain import topology
from vtrace.plain.topology import read_topology, resolve

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def at(text: str) -> PortRef:
    server, bridge, port = text.split("/")
    return PortRef(server=server, bridge=bridge, port=port)


def vm(name: str, where: str, *addresses: str, vpc: str = "", vlan: int = 0) -> PlainEndpoint:
    return PlainEndpoint(name=name, at=at(where), mac="0a:00:00:00:00:01", addresses=addresses, vpc=vpc, vlan=vlan)


def link(kind: str, one: str, two: str) -> PlainLink:
    return PlainLink(kind=kind, ends=(at(one), at(two)))


CLOUD = PlainCloud(
    servers=(
        PlainServer(name="a", rundir="/run/a", bridges=("br0", "br1"), address="192.0.2.1"),
        PlainServer(name="b", rundir="/run/b", bridges=("br0",)),
        PlainServer(name="c", rundir="/run/c", bridges=("br0",)),
    ),
    endpoints=(
        vm("vm1", "a/br0/tap1", "10.0.0.1", "fd00::1", vpc="blue", vlan=7),
        vm("vm2", "b/br0/tap2", "10.0.0.2", vpc="blue"),
        vm("vm3", "c/br0/tap3", "10.0.0.1", vpc="red"),
        vm("eth9", "b/br0/tap4", "10.0.0.9"),
    ),
    links=(link("patch", "a/br0/up", "a/br1/down"), link("tunnel", "a/br1/tun", "b/br0/tun")),
    path="cloud.toml",
)


def facts(*names: str) -> BridgeFacts:
    ports = [BridgePort(name="br0", ofport=OfPort(LOCAL_PORT))]
    ports += [BridgePort(name=name, ofport=OfPort(number)) for number, name in enumerate(names, 1)]
    tunnels = [
        TunnelPort(name=name, ofport=OfPort(n), kind="vxlan", remote_ip="192.0.2.9")
        for n, name in enumerate(names, 1)
        if name == "tun"
    ]
    return BridgeFacts(
        name="br0",
        datapath_id="",
        datapath_type="netdev",
        system_id="",
        hostname="",
        ovs_version="",
        encap_ips=(),
        encap_types=(),
        ports=tuple(ports),
        tunnels=tuple(tunnels),
    )


@pytest.fixture
def bridges(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        ("/run/a", "br0"): facts("tap1", "up"),
        ("/run/a", "br1"): facts("down", "tun", "eth9"),
        ("/run/b", "br0"): facts("tun", "tap4"),
    }

    async def read(rundir: str, bridge: str) -> BridgeFacts:
        return found[rundir, bridge]

    monkeypatch.setattr(topology, "read_bridge", read)


async def test_bridges_and_ports(bridges: None) -> None:
    pair = (resolve(CLOUD, "vm1", 4)[0], resolve(CLOUD, "vm2", 4)[0])
    found = await read_topology(CLOUD, [pair])
    inventory = found.inventory
    assert inventory.plain
    assert [(d.key - FIRST_BRIDGE, d.name, d.chassis) for d in inventory.datapaths] == [
        (0, "br0", ("a/br0",)),
        (1, "br1", ("a/br1",)),
        (2, "br0", ("b/br0",)),
    ]
    assert [inventory.server(c.name) for c in inventory.chassis] == ["a", "a", "b"]
    of = {(p.datapath - FIRST_BRIDGE, p.name): p for p in inventory.ports}
    vm1, vm2 = of[0, "vm1"], of[2, "vm2"]
    assert (vm1.key, vm1.type, vm1.chassis, vm1.addresses) == (1, "", "a/br0", ("0a:00:00:00:00:01 10.0.0.1 fd00::1",))
    assert vm2.key > MISSING_PORTS, "its interface is not there"
    assert (of[0, "up"].type, of[0, "up"].peer_datapath - FIRST_BRIDGE) == ("patch", 1)
    assert of[1, "a/br1/eth9"].type == "localnet", "not listed, and no endpoint's name is taken"
    assert of[0, "br0"].key == LOCAL_KEY
    assert of[1, topology.SEVERAL_NAME].key == SEVERAL_PORTS
    middle = found.bridges[1]
    assert [(t.name, t.ofport, t.kind, t.chassis) for t in middle.links] == [
        ("down", 1, "patch", "a/br0"),
        ("tun", 2, "vxlan", "b/br0"),
    ]
    assert found.bridges[0].tags == {"tap1": 7}
    assert len({(p.datapath, p.key) for p in inventory.ports}) == len(inventory.ports)


async def test_two_that_nothing_joins(bridges: None) -> None:
    pair = (resolve(CLOUD, "vm1", 4)[0], resolve(CLOUD, "vm3", 4)[0])
    with pytest.raises(CannotWorkError, match="no link leads from a/br0 to c/br0"):
        await read_topology(CLOUD, [pair])


async def test_of_a_large_cloud_only_the_shortest_way(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"s{n}" for n in range(20)]
    ring = PlainCloud(
        servers=tuple(PlainServer(name=name, rundir=name, bridges=("br0",)) for name in names),
        endpoints=(vm("x", "s0/br0/vm", "10.0.0.1"), vm("y", "s3/br0/vm", "10.0.0.2")),
        links=tuple(
            link("wire", f"{one}/br0/r", f"{two}/br0/l") for one, two in zip(names, names[1:] + names[:1], strict=True)
        ),
    )

    async def read(rundir: str, bridge: str) -> BridgeFacts:
        return facts("vm", "l", "r")

    monkeypatch.setattr(topology, "read_bridge", read)
    found = await read_topology(ring, [(resolve(ring, "x", 4)[0], resolve(ring, "y", 4)[0])])
    assert [b.chassis for b in found.bridges] == ["s0/br0", "s1/br0", "s2/br0", "s3/br0"]


@pytest.mark.parametrize(
    ("text", "version", "names"),
    [
        ("vm1", 4, ["vm1"]),
        ("10.0.0.2", 4, ["vm2"]),
        ("blue/10.0.0.1", 4, ["vm1"]),
        ("red/10.0.0.1", 4, ["vm3"]),
        ("blue/10.0.0.0/24", 4, ["vm1", "vm2"]),
        ("fd00::/64", 6, ["vm1"]),
    ],
)
def test_endpoints(text: str, version: int, names: list[str]) -> None:
    found = resolve(CLOUD, text, version)
    assert [e.name for e in found] == names
    assert all(e.by_port == (text == e.name) for e in found)


@pytest.mark.parametrize(
    ("text", "version", "says"),
    [
        ("nobody", 4, "Nothing is called 'nobody'"),
        ("10.9.9.9", 4, "No endpoint has an address"),
        ("10.0.0.1", 4, "Several VPCs"),
        ("vm2", 6, "no IPv6 address"),
    ],
)
def test_no_endpoint(text: str, version: int, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        resolve(CLOUD, text, version)


def test_keys_of_ports() -> None:
    assert [port_number(port_key(n)) for n in (1, 4711, LOCAL_PORT)] == [1, 4711, LOCAL_PORT]
    assert port_key(LOCAL_PORT) < 0x8000
