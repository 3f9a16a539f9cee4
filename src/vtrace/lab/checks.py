"""What can't be built in a topology: each problem as (key, reason)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vtrace.lab.checks_outer import outer_problems
from vtrace.lab.checks_plain import bridge_problems
from vtrace.lab.declared import Topology, address_of, listener_of, network_of, router_address

NODE_NAME = re.compile(r"[a-z][a-z0-9-]*")
MAX_LINK_NAME_LENGTH = 15
"""Longest name of a network link (IFNAMSIZ - 1)."""
MAX_SERVER_NAME_LENGTH = MAX_LINK_NAME_LENGTH - len("to-")
MAX_NETWORK_NAME_LENGTH = MAX_LINK_NAME_LENGTH - len("br-")
MAX_SERVERS = 22
"""So that every wire's addresses fit in one third byte (see plan.py)."""
RESERVED_NAMES = ("central",)
RESERVED_NETWORKS = ("int", "phy")


def problems(topology: Topology) -> Iterator[tuple[str, str]]:
    """All that is wrong with it, as (key, reason); the first one is reported."""
    if not topology.servers:
        yield "server", "at least one is needed"
    if len(topology.servers) > MAX_SERVERS:
        yield "server", f"at most {MAX_SERVERS} servers, this has {len(topology.servers)}"
    if not 1280 <= topology.vm_mtu <= 1440:
        yield "vm_mtu", f"{topology.vm_mtu} is outside 1280..1440 (1500 less the tunnel's headers)"
    yield from _name_problems(topology)
    yield from _switch_problems(topology)
    yield from _vm_problems(topology)
    yield from _route_problems(topology)
    yield from outer_problems(topology)
    yield from bridge_problems(topology)


def _name_problems(topology: Topology) -> Iterator[tuple[str, str]]:
    nodes: set[str] = set(RESERVED_NAMES)
    limits = [(f"server {s.name!r}.name", s.name, MAX_SERVER_NAME_LENGTH) for s in topology.servers]
    limits += [(f"vm {v.name!r}.name", v.name, MAX_LINK_NAME_LENGTH) for v in topology.vms]
    limits += [(f"outside {o.name!r}.name", o.name, MAX_LINK_NAME_LENGTH) for o in topology.outsides]
    limits += [(f"bgp {b.name!r}.name", b.name, MAX_LINK_NAME_LENGTH) for b in topology.bgps]
    for key, name, longest in limits:
        if not NODE_NAME.fullmatch(name):
            yield key, "a NODE name is small letters, digits and hyphens, and begins with a letter"
        if len(name) > longest:
            yield key, f"at most {longest} characters, it names a network link"
        if name in nodes or name.startswith(("wire-", "br-")):
            yield key, "the name is taken"
        nodes.add(name)
    for server in topology.servers:
        for network in server.networks:
            if not NODE_NAME.fullmatch(network) or len(network) > MAX_NETWORK_NAME_LENGTH:
                yield f"server {server.name!r}.networks", f"{network!r} can't name a bridge, br-NETWORK"
            if network in RESERVED_NETWORKS or server.networks.count(network) > 1:
                yield f"server {server.name!r}.networks", f"{network!r} is taken"
    logical: set[str] = set()
    for key, name in [("router", r.name) for r in topology.routers] + [("switch", s.name) for s in topology.switches]:
        if not name or name in logical:
            yield f"{key} {name!r}.name", "the name is empty or taken"
        logical.add(name)


def _switch_problems(topology: Topology) -> Iterator[tuple[str, str]]:
    routers = {router.name: router for router in topology.routers}
    for switch in topology.switches:
        key = f"switch {switch.name!r}"
        if switch.router is not None and switch.router not in routers:
            yield f"{key}.router", f"there is no router {switch.router!r}"
        elif switch.router is not None and switch.vpc not in (None, routers[switch.router].vpc):
            yield (
                f"{key}.router",
                f"{switch.router!r} is in VPC {routers[switch.router].vpc!r}, not {switch.vpc!r}",
            )
        if (switch.vpc is None) != (switch.network is not None or switch.transit):
            yield f"{key}.vpc", "a VPC's switch needs one; a switch of a provider network or in transit has none"
        if switch.network is not None and switch.transit:
            yield f"{key}.transit", "a switch of a provider network is not one"
        if not switch.subnets:
            yield f"{key}.subnets", "at least one is needed"
        for subnet in switch.subnets:
            if network_of(subnet) is None:
                yield f"{key}.subnets", f"{subnet!r} is not a network such as 10.1.1.0/24"


def _vm_problems(topology: Topology) -> Iterator[tuple[str, str]]:
    servers = {server.name for server in topology.servers}
    switches = {switch.name: switch for switch in topology.switches}
    taken: set[tuple[str, str]] = set()
    for vm in topology.vms:
        key = f"vm {vm.name!r}"
        if vm.server not in servers:
            yield f"{key}.server", f"there is no server {vm.server!r}"
        if vm.switch not in switches:
            yield f"{key}.switch", f"there is no switch {vm.switch!r}"
            continue
        if switches[vm.switch].vpc is None:
            yield f"{key}.switch", f"{vm.switch!r} is in no VPC"
        yield from ((f"{key}.listens", f"{t!r} is not tcp/PORT or udp/PORT") for t in vm.listens if not listener_of(t))
        networks = [network_of(subnet) for subnet in switches[vm.switch].subnets]
        if not vm.addresses:
            yield f"{key}.addresses", "at least one is needed"
        for text in vm.addresses + vm.aliases:
            address = address_of(text)
            if address is None:
                yield f"{key}.addresses", f"{text!r} is not an address"
            elif (vm.switch, str(address)) in taken:
                yield f"{key}.addresses", f"{text} is taken on {vm.switch!r}"
            elif text in vm.addresses:
                home = next((n for n in networks if n is not None and address in n), None)
                if home is None:
                    yield f"{key}.addresses", f"{text} is in none of the subnets of {vm.switch!r}"
                elif address == router_address(home):
                    yield f"{key}.addresses", f"{text} is the router's"
            taken.add((vm.switch, str(address)))


def _route_problems(topology: Topology) -> Iterator[tuple[str, str]]:
    routers = {router.name for router in topology.routers} | {box.name for box in topology.outsides}
    for number, route in enumerate(topology.routes, 1):
        key = f"route {number}"
        network, nexthop = network_of(route.prefix), address_of(route.nexthop)
        if route.router not in routers:
            yield f"{key}.router", f"there is no router or outside box {route.router!r}"
        if network is None:
            yield f"{key}.prefix", f"{route.prefix!r} is not a network"
        if nexthop is None or (network is not None and nexthop.version != network.version):
            yield f"{key}.nexthop", f"{route.nexthop!r} is not an address of the prefix's family"
