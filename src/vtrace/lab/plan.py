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
from vtrace.lab.declared import Network, Topology, listener_of, network_of, vip_of
from vtrace.lab.state import (
    LabBackend,
    LabFloating,
    LabListener,
    LabNode,
    LabOutside,
    LabPatch,
    LabServer,
    LabSpeaker,
    LabState,
    LabVip,
    LabVm,
    LabWire,
    Role,
)

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
    outsides, speakers = _outsides(topology), _speakers(topology)
    central = lab_state.node_directory(name, "central")
    return LabState(
        name=name,
        phase="building",
        encap=topology.encap,
        topology=file_name,
        started=started,
        nb_remote=f"unix:{central}/ovnnb_db.sock" if topology.kind == "ovn" else "",
        sb_remote=f"unix:{central}/ovnsb_db.sock" if topology.kind == "ovn" else "",
        servers=servers,
        wires=wires,
        vms=vms,
        nodes=_nodes(servers, wires, vms) + _outer_nodes(topology, outsides, speakers),
        outsides=outsides,
        speakers=speakers,
        listeners=_listeners(topology),
        vips=_vips(topology, vms),
        floating=_floating(topology, vms),
        crossings=_crossings(topology),
        kind=topology.kind,
        patches=tuple(LabPatch(server=patch.server, bridges=patch.bridges) for patch in topology.patches),
    )


def _servers(name: str, topology: Topology) -> tuple[LabServer, ...]:
    return tuple(
        LabServer(
            name=server.name,
            chassis=server.name,
            role=server.role,
            region=server.region,
            rundir=str(lab_state.node_directory(name, server.name)),
            bridge=next(iter(bridges_of(topology, server.name)), BRIDGE),
            bridges=bridges_of(topology, server.name),
            tunnel_address=f"10.250.0.{number}",
            tunnel_mac=f"02:76:70:00:00:{number:02x}",
            mgmt_address=f"10.251.0.{number + 1}",
            networks=server.networks,
        )
        for number, server in enumerate(topology.servers, 1)
    )


def bridges_of(topology: Topology, server: str) -> tuple[str, ...]:
    """The names of a server's bridges that the topology has entries for."""
    return tuple(bridge.name for bridge in topology.bridges if bridge.server == server)


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
            vpc=switches[vm.switch].vpc or "",
            router=switches[vm.switch].router,
            mac=f"0a:00:00:00:{number >> 8:02x}:{number & 255:02x}",
            addresses=tuple(str(ipaddress.ip_address(a)) for a in vm.addresses),
            aliases=tuple(str(ipaddress.ip_address(a)) for a in vm.aliases),
            bridge=vm.bridge or next(iter(bridges_of(topology, vm.server)), BRIDGE),
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


def _outsides(topology: Topology) -> tuple[LabOutside, ...]:
    return tuple(
        LabOutside(
            name=box.name,
            network=box.network,
            vlan=box.vlan,
            mac=f"0a:00:04:00:00:{number:02x}",
            servers=tuple(server.name for server in topology.servers if box.network in server.networks),
            addresses=tuple(str(ipaddress.ip_interface(text)) for text in box.addresses),
            hosts=tuple(str(ipaddress.ip_address(text)) for text in box.hosts),
            vpcs=_vpcs_at(topology, box.network, box.vlan),
        )
        for number, box in enumerate(topology.outsides, 1)
    )


def _vpcs_at(topology: Topology, network: str, vlan: int | None) -> tuple[str, ...]:
    """The VPCs whose routers have a port on a switch of a provider network, and translate nothing."""
    switches = {switch.name: switch for switch in topology.switches if (switch.network, switch.vlan) == (network, vlan)}
    routers = {link.router for link in topology.links if link.switch in switches}
    routers |= {switch.router for switch in switches.values() if switch.router is not None}
    routers -= {nat.router for nat in topology.nats}
    return tuple(sorted({router.vpc for router in topology.routers if router.name in routers}))


def _speakers(topology: Topology) -> tuple[LabSpeaker, ...]:
    return tuple(
        LabSpeaker(
            name=bgp.name,
            server=bgp.server,
            switch=bgp.switch,
            router=bgp.router,
            mac=f"0a:00:05:00:00:{number:02x}",
            addresses=tuple(str(ipaddress.ip_address(text)) for text in bgp.addresses),
            peer=bgp.peer,
        )
        for number, bgp in enumerate(topology.bgps, 1)
    )


def _outer_nodes(
    topology: Topology, outsides: tuple[LabOutside, ...], speakers: tuple[LabSpeaker, ...]
) -> tuple[LabNode, ...]:
    """The nodes of outside boxes (of no region) and of BGP speakers (of their server's)."""
    regions = {server.name: server.region for server in topology.servers}
    nodes = [
        LabNode(
            name=box.name,
            role="outside",
            region=None,
            addresses=(*(text.partition("/")[0] for text in box.addresses), *box.hosts),
            connects=box.servers,
        )
        for box in outsides
    ]
    nodes += [
        LabNode(
            name=speaker.name,
            role="speaker",
            region=regions[speaker.server],
            addresses=speaker.addresses,
            connects=(speaker.server,),
        )
        for speaker in speakers
    ]
    return tuple(nodes)


def _listeners(topology: Topology) -> tuple[LabListener, ...]:
    declared = [(vm.name, text) for vm in topology.vms for text in vm.listens]
    declared += [(box.name, text) for box in topology.outsides for text in box.listens]
    found = [(node, listener_of(text)) for node, text in declared]
    return tuple(
        LabListener(node=node, proto="tcp" if one[0] == "tcp" else "udp", port=one[1])
        for node, one in found
        if one is not None
    )


def _vips(topology: Topology, vms: tuple[LabVm, ...]) -> tuple[LabVip, ...]:
    routers = {router.name: router.vpc for router in topology.routers}
    switches = {switch.name: switch.vpc or "" for switch in topology.switches}
    by_name = {vm.name: vm for vm in vms}
    found = []
    for balancer in topology.load_balancers:
        vpcs = {routers[name] for name in balancer.routers} | {switches[name] for name in balancer.switches}
        for vip in filter(None, map(vip_of, balancer.vips)):
            backends = (LabBackend(vm=b, address=address_in(by_name[b], vip[0].version)) for b in balancer.backends)
            one = LabVip(
                balancer=balancer.name,
                vpcs=tuple(sorted(vpcs)),
                address=str(vip[0]),
                port=vip[1],
                proto=balancer.protocol,
                backend_port=balancer.port,
                backends=tuple(backends),
            )
            found.append(one)
    return tuple(found)


def address_in(vm: LabVm, version: int) -> str:
    """The VM's first address of an IP version, or nothing."""
    return next((text for text in vm.addresses if ipaddress.ip_address(text).version == version), "")


def _floating(topology: Topology, vms: tuple[LabVm, ...]) -> tuple[LabFloating, ...]:
    """Each floating address, and the VM of the router's VPC that has the address behind it."""
    routers = {router.name: router.vpc for router in topology.routers}
    found = []
    for nat in topology.nats:
        if nat.type == "dnat_and_snat":
            address = str(ipaddress.ip_address(nat.logical))
            owners = (v for v in vms if v.vpc == routers[nat.router] and address in v.addresses + v.aliases)
            external = str(ipaddress.ip_address(nat.external))
            found += [LabFloating(external=external, vm=vm.name, address=address) for vm in owners]
    return tuple(found)


def _crossings(topology: Topology) -> tuple[tuple[str, str], ...]:
    vpcs = {router.name: router.vpc for router in topology.routers}
    transits = {switch.name for switch in topology.switches if switch.transit}
    pairs = {
        tuple(sorted((vpcs[one.router], vpcs[other.router])))
        for one, other in itertools.combinations(topology.links, 2)
        if one.switch == other.switch and one.switch in transits and vpcs[one.router] != vpcs[other.router]
    }
    return tuple(sorted((pair[0], pair[1]) for pair in pairs))


def subnets(topology: Topology, switch_name: str) -> tuple[Network, ...]:
    """The networks of a switch of a checked topology."""
    switch = next(switch for switch in topology.switches if switch.name == switch_name)
    return tuple(network for network in map(network_of, switch.subnets) if network is not None)


def router_mac(topology: Topology, switch_name: str) -> str:
    """The MAC of the router's port on a switch."""
    number = [switch.name for switch in topology.switches].index(switch_name) + 1
    return f"0a:00:01:00:{number >> 8:02x}:{number & 255:02x}"


def link_mac(number: int) -> str:
    """The MAC of the router's port of a topology's n-th link, from 0."""
    number += 1
    return f"0a:00:02:00:{number >> 8:02x}:{number & 255:02x}"


def floating_mac(number: int) -> str:
    """The MAC of a topology's n-th translation, from 0, where it is distributed."""
    number += 1
    return f"0a:00:03:00:{number >> 8:02x}:{number & 255:02x}"


def provider_bridge(network: str) -> str:
    """The name of a server's bridge to a provider network."""
    return f"br-{network}"
