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
from vtrace.lab.state import LabNode, LabServer, LabState, LabVm, LabWire
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
    servers = tuple(
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
    wires = tuple(
        LabWire(
            name=f"wire-{one.name}-{other.name}",
            ends=(one.name, other.name),
            addresses=(f"10.250.{number}.1", f"10.250.{number}.2"),
            macs=(f"02:76:77:00:{number:02x}:01", f"02:76:77:00:{number:02x}:02"),
        )
        for number, (one, other) in enumerate(itertools.combinations(servers, 2), 1)
    )
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
    regions = {server.name: server.region for server in servers}
    nodes = [
        LabNode(
            name="central",
            role="central",
            region=None,
            addresses=(CENTRAL_MGMT_ADDRESS,),
            connects=tuple(server.name for server in servers),
        )
    ]
    for server in servers:
        connects = tuple(wire.name for wire in wires if server.name in wire.ends)
        addresses = (server.tunnel_address, server.mgmt_address)
        nodes.append(
            LabNode(
                name=server.name,
                role=server.role,
                region=server.region,
                addresses=addresses,
                connects=("central", *connects),
            )
        )
    for wire in wires:
        ends = {regions[end] for end in wire.ends}
        nodes.append(
            LabNode(
                name=wire.name,
                role="wire",
                region=ends.pop() if len(ends) == 1 else None,
                addresses=wire.addresses,
                connects=wire.ends,
            )
        )
    for vm in vms:
        nodes.append(
            LabNode(
                name=vm.name,
                role="vm",
                region=regions[vm.server],
                addresses=vm.addresses + vm.aliases,
                connects=(vm.server,),
            )
        )
    return tuple(nodes)


def subnets(topology: Topology, switch_name: str) -> tuple[Network, ...]:
    """The networks of a switch of a checked topology."""
    switch = next(switch for switch in topology.switches if switch.name == switch_name)
    return tuple(network for network in map(network_of, switch.subnets) if network is not None)


def router_mac(topology: Topology, switch_name: str) -> str:
    """The MAC of the router's port on a switch."""
    number = [switch.name for switch in topology.switches].index(switch_name) + 1
    return f"0a:00:01:00:{number >> 8:02x}:{number & 255:02x}"
