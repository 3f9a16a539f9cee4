"""From an inventory file and the bridges it names to the inventory of a task: each bridge is one virtual device.

Keys of ports are their OpenFlow port numbers, which copies carry; keys of bridges are numbers given here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from vtrace.errors import CannotWorkError, UsageError
from vtrace.model.inventory import Chassis, Inventory, LogicalDatapath, LogicalPort
from vtrace.model.openflow import BridgePort, OfPort, TunnelPort
from vtrace.model.plain import (
    FIRST_BRIDGE,
    MISSING_PORTS,
    SEVERAL_PORTS,
    PlainCloud,
    PlainEndpoint,
    PlainLink,
    PlainServer,
    PortRef,
    chassis_name,
    port_key,
)
from vtrace.model.task import Endpoint
from vtrace.ovs.bridge import BridgeFacts, read_bridge

# As with OVN: so many bridges are armed whole, of more only those on shortest paths.
MAX_ARMED_WHOLE = 12
SEVERAL_NAME = "several ports"


class PlainBridge(msgspec.Struct, frozen=True, kw_only=True):
    """A bridge of a task.

    Attributes:
        links: its ports to other armed bridges; `chassis` of each is what is behind it.
        names: the logical port of each interface; tags: the VLAN of those that have one.
        macs: the addresses of the inventory file.
    """

    server: PlainServer
    bridge: str
    chassis: str
    key: int
    links: tuple[TunnelPort, ...]
    names: Mapping[str, str]
    tags: Mapping[str, int]
    macs: frozenset[str]


class PlainTopology(msgspec.Struct, frozen=True, kw_only=True):
    """The inventory of a task, and the bridges to work on."""

    inventory: Inventory
    bridges: tuple[PlainBridge, ...]


def resolve(cloud: PlainCloud, text: str, ip_version: int) -> list[Endpoint]:
    """The endpoints that a text names: a name, `VPC/address`, an address or a CIDR.

    Raises:
        UsageError: nothing has that name or address, or several VPCs have it.
    """
    named = [e for e in cloud.endpoints if e.name == text]
    if named:
        return [_endpoint(named[0], ip_version, by_port=True)]
    vpc, slash, rest = text.partition("/")
    if not slash or _network(rest) is None or _network(text) is not None:
        vpc, rest = "", text
    network = _network(rest)
    if network is None:
        known = ", ".join(sorted(e.name for e in cloud.endpoints)[:10])
        raise UsageError(f"Nothing is called {text!r}", cloud.path, f"the inventory file has {known}", "")
    found = [
        e
        for e in cloud.endpoints
        if vpc in ("", e.vpc) and any(ipaddress.ip_address(a) in network for a in e.addresses)
    ]
    if not found:
        raise UsageError(f"No endpoint has an address in {text!r}", cloud.path, "", "Add it to the inventory file")
    vpcs = sorted({e.vpc for e in found})
    if len(vpcs) > 1:
        raise UsageError(
            f"Several VPCs have {rest}", text, ", ".join(v or "(none)" for v in vpcs), f"Write {vpcs[-1]}/{rest}"
        )
    return [_endpoint(e, ip_version, by_port=False) for e in found]


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _endpoint(endpoint: PlainEndpoint, ip_version: int, *, by_port: bool) -> Endpoint:
    addresses = tuple(a for a in endpoint.addresses if ipaddress.ip_address(a).version == ip_version)
    if not addresses:
        raise UsageError(f"{endpoint.name} has no IPv{ip_version} address", endpoint.name, "", "Give --ip")
    return Endpoint(
        name=endpoint.name,
        port=endpoint.name,
        address=addresses[0],
        addresses=addresses,
        by_port=by_port,
        vpc=endpoint.vpc,
    )


async def read_topology(cloud: PlainCloud, pairs: Sequence[tuple[Endpoint, Endpoint]]) -> PlainTopology:
    """The bridges between the ends of the pairs, and their ports.

    Raises:
        CannotWorkError: a bridge is out of reach, a port is not there, or nothing joins the two ends.
    """
    wanted = _bridges_between(cloud, pairs)
    servers = {server.name: server for server in cloud.servers}
    facts = {place: await read_bridge(servers[place[0]].rundir, place[1]) for place in wanted}
    return _Builder(cloud, facts).topology()


_Place = tuple[str, str]


def _bridges_between(cloud: PlainCloud, pairs: Sequence[tuple[Endpoint, Endpoint]]) -> list[_Place]:
    """(server, bridge) of all that the traffic of the pairs can reach, or of what lies on shortest paths."""
    at = {e.name: (e.at.server, e.at.bridge) for e in cloud.endpoints}
    around: dict[_Place, set[_Place]] = {}
    for link in cloud.links:
        one, two = ((end.server, end.bridge) for end in link.ends)
        around.setdefault(one, set()).add(two)
        around.setdefault(two, set()).add(one)
    found: set[_Place] = set()
    for source, destination in pairs:
        start, goal = at[source.port], at[destination.port]
        distances = _distances(start, around)
        if goal not in distances:
            raise CannotWorkError(
                f"Nothing joins the bridges of {source.name} and {destination.name}",
                cloud.path,
                f"no link leads from {'/'.join(start)} to {'/'.join(goal)}",
                "Add the links between them to the inventory file",
            )
        if len(distances) <= MAX_ARMED_WHOLE:
            found |= set(distances)
        else:
            back = _distances(goal, around)
            found |= {p for p in distances if distances[p] + back[p] == distances[goal]}
    return [(s.name, b) for s, b in cloud.bridges() if (s.name, b) in found]


def _distances(start: _Place, around: Mapping[_Place, set[_Place]]) -> dict[_Place, int]:
    found = {start: 0}
    waiting = [start]
    for place in waiting:
        for following in around.get(place, ()):
            if following not in found:
                found[following] = found[place] + 1
                waiting.append(following)
    return found


class _Builder:
    def __init__(self, cloud: PlainCloud, facts: Mapping[_Place, BridgeFacts]) -> None:
        self._cloud = cloud
        self._facts = facts
        self._servers = {server.name: server for server in cloud.servers}
        self._keys = {place: number for number, place in enumerate(facts, FIRST_BRIDGE)}
        self._links = [link for link in cloud.links if all((e.server, e.bridge) in facts for e in link.ends)]
        self._endpoints = {e.at: e for e in cloud.endpoints if (e.at.server, e.at.bridge) in facts}
        self._taken = {e.name for e in cloud.endpoints}

    def topology(self) -> PlainTopology:
        ports = {place: list(self._ports(place)) for place in self._facts}
        inventory = Inventory(
            datapaths=tuple(
                LogicalDatapath(
                    key=key,
                    name=bridge,
                    kind="vswitch",
                    nb_uuid="",
                    sb_uuid="",
                    chassis=(chassis_name(server, bridge),),
                )
                for (server, bridge), key in self._keys.items()
            ),
            ports=tuple(port for found in ports.values() for _, port in found),
            chassis=tuple(self._chassis(self._servers[server], bridge) for server, bridge in self._facts),
            plain=True,
        )
        bridges = tuple(
            PlainBridge(
                server=self._servers[place[0]],
                bridge=place[1],
                chassis=chassis_name(*place),
                key=self._keys[place],
                links=tuple(self._link_ports(place)),
                names={interface: port.name for interface, port in ports[place] if interface},
                tags={at.port: e.vlan for at, e in self._endpoints.items() if _place(at) == place and e.vlan},
                macs=frozenset(e.mac for e in self._cloud.endpoints),
            )
            for place in self._facts
        )
        return PlainTopology(inventory=inventory, bridges=bridges)

    def _chassis(self, server: PlainServer, bridge: str) -> Chassis:
        address = (server.address,) if server.address else ()
        return Chassis(name=chassis_name(server.name, bridge), server=server.name, encap_ips=address)

    def _ports(self, place: _Place) -> Iterable[tuple[str, LogicalPort]]:
        """(interface, port) of all ports of a bridge, of those that it should have, and of several at once."""
        here = {port.name: port for port in self._facts[place].ports}
        listed = [
            at.port for at in (*self._endpoints, *(e for k in self._links for e in k.ends)) if _place(at) == place
        ]
        for number, name in enumerate(dict.fromkeys((*here, *listed))):
            ref = PortRef(server=place[0], bridge=place[1], port=name)
            yield name, self._port(ref, here.get(name), number)
        several = LogicalPort(name=SEVERAL_NAME, key=SEVERAL_PORTS, datapath=self._keys[place], type="patch")
        yield "", several

    def _port(self, ref: PortRef, found: BridgePort | None, number: int) -> LogicalPort:
        endpoint = self._endpoints.get(ref)
        peer = self._peer(ref)
        key = port_key(found.ofport) if found is not None and found.ofport > 0 else MISSING_PORTS + number
        own = ref.port if ref.port not in self._taken else str(ref)
        return LogicalPort(
            name=endpoint.name if endpoint else own,
            key=key,
            datapath=self._keys[_place(ref)],
            # What the file does not list leads nobody knows where.
            type="" if endpoint else "patch" if peer else "localnet",
            chassis=chassis_name(ref.server, ref.bridge),
            peer_datapath=self._keys[_place(peer)] if peer else 0,
            mac=endpoint.mac if endpoint else "",
            addresses=(" ".join((endpoint.mac, *endpoint.addresses)),) if endpoint else (),
            up=key < MISSING_PORTS,
        )

    def _peer(self, ref: PortRef) -> PortRef | None:
        for link in self._links:
            if ref in link.ends:
                return _other(link, ref)
        return None

    def _link_ports(self, place: _Place) -> Iterable[TunnelPort]:
        here = {port.name: port for port in self._facts[place].ports}
        tunnels = {tunnel.name: tunnel for tunnel in self._facts[place].tunnels}
        for link in self._links:
            for end in link.ends:
                port = here.get(end.port)
                if _place(end) != place:
                    continue
                peer = _other(link, end)
                tunnel = tunnels.get(end.port)
                yield TunnelPort(
                    name=end.port,
                    ofport=port.ofport if port else OfPort(-1),
                    kind=tunnel.kind if tunnel else link.kind,
                    remote_ip=tunnel.remote_ip if tunnel else "",
                    chassis=chassis_name(peer.server, peer.bridge),
                    options=tunnel.options if tunnel else {},
                )


def _place(ref: PortRef) -> _Place:
    return (ref.server, ref.bridge)


def _other(link: PlainLink, end: PortRef) -> PortRef:
    return link.ends[1] if link.ends[0] == end else link.ends[0]
