"""From a topology to the addresses of a lab. Pure.

Address plan (private to the lab's namespaces, so two labs may use the same):

    10.250.0.S/16   tunnel address of server S, on the local port of its br-phy
    10.250.W.1, .2  the addresses of wire W towards its first and second server
    10.251.0.1      central; 10.251.0.(S+1) server S, on the management network
"""

from __future__ import annotations

import ipaddress
import itertools

from vtrace.lab import state as lab_state
from vtrace.lab.state import LabNode, LabServer, LabState, LabVm, LabWire, Role
from vtrace.lab.topology import Network, Topology, network_of

BRIDGE = "br-int"
UNDERLAY_BRIDGE = "br-phy"
TUNNEL_PREFIX_LENGTH = 16
MGMT_PREFIX_LENGTH = 24
CENTRAL_MGMT_ADDRESS = "10.251.0.1"
SB_PORT = 6642


def make_state(name: str, topology: Topology, file_name: str, started: str) -> LabState:
    """The state of a lab that is about to be built.

    Args:
        name: of the lab.
        topology: checked.
        file_name: where the topology came from.
        started: RFC 3339 UTC.
    """
    servers = _servers(name, topology)
    wires = _wires(servers)
    vms = _vms(topology)
    central = lab_state.node_directory(name, "central")
    return LabState(
        name=name,
        phase="building",
        encap=topology.encap,
        topology=file_name,
        started=started,
        nb_remote=f"unix:{central}/ovnnb_db.sock",
        sb_remote=f"unix:{central}/ovnsb_db.sock",
        servers=servers,
        wires=wires,
        vms=vms,
        nodes=_nodes(servers, wires, vms),
    )


def _servers(name: str, topology: Topology) -> tuple[LabServer, ...]:
    return tuple(
        LabServer(
            name=server.name,
            chassis=server.name,
            role=server.role,
            region=server.region,
            rundir=str(lab_state.node_directory(name, server.name)),
            bridge=BRIDGE,
            tunnel_address=f"10.250.0.{number}",
            tunnel_mac=f"02:76:70:00:00:{number:02x}",
            mgmt_address=f"10.251.0.{number + 1}",
        )
        for number, server in enumerate(topology.servers, 1)
    )


def _wires(servers: tuple[LabServer, ...]) -> tuple[LabWire, ...]:
    return tuple(
        LabWire(
            name=f"wire-{one.name}-{other.name}",
            ends=(one.name, other.name),
            addresses=(f"10.250.{number}.1", f"10.250.{number}.2"),
            macs=(f"02:76:77:00:{number:02x}:01", f"02:76:77:00:{number:02x}:02"),
        )
        for number, (one, other) in enumerate(itertools.combinations(servers, 2), 1)
    )


def _vms(topology: Topology) -> tuple[LabVm, ...]:
    switches = {switch.name: switch for switch in topology.switches}
    return tuple(
        LabVm(
            name=vm.name,
            server=vm.server,
            switch=vm.switch,
            vpc=switches[vm.switch].vpc,
            router=switches[vm.switch].router,
            mac=f"0a:00:00:00:{number >> 8:02x}:{number & 255:02x}",
            addresses=tuple(str(ipaddress.ip_address(a)) for a in vm.addresses),
            aliases=tuple(str(ipaddress.ip_address(a)) for a in vm.aliases),
        )
        for number, vm in enumerate(topology.vms, 1)
    )


def _nodes(servers: tuple[LabServer, ...], wires: tuple[LabWire, ...], vms: tuple[LabVm, ...]) -> tuple[LabNode, ...]:
    regions: dict[str, str | None] = {server.name: server.region for server in servers}

    def node(name: str, role: Role, connects: tuple[str, ...], addresses: tuple[str, ...]) -> LabNode:
        """A node; its region is that of all it connects, if they have one region."""
        around = {regions[name]} if name in regions else {regions[other] for other in connects}
        region = around.pop() if len(around) == 1 and role != "central" else None
        return LabNode(name=name, role=role, region=region, addresses=addresses, connects=connects)

    nodes = [node("central", "central", tuple(server.name for server in servers), (CENTRAL_MGMT_ADDRESS,))]
    for server in servers:
        connects = ("central", *(wire.name for wire in wires if server.name in wire.ends))
        nodes.append(node(server.name, server.role, connects, (server.tunnel_address, server.mgmt_address)))
    nodes += [node(wire.name, "wire", wire.ends, wire.addresses) for wire in wires]
    nodes += [node(vm.name, "vm", (vm.server,), vm.addresses + vm.aliases) for vm in vms]
    return tuple(nodes)


def subnets(topology: Topology, switch_name: str) -> tuple[Network, ...]:
    """The networks of a switch of a checked topology."""
    switch = next(switch for switch in topology.switches if switch.name == switch_name)
    return tuple(network for network in map(network_of, switch.subnets) if network is not None)


def router_mac(topology: Topology, switch_name: str) -> str:
    """The MAC of the router's port on a switch."""
    number = [switch.name for switch in topology.switches].index(switch_name) + 1
    return f"0a:00:01:00:{number >> 8:02x}:{number & 255:02x}"
