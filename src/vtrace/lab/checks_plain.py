"""What can't be built of a topology's bridges, and what a topology without OVN can't have."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vtrace.lab.declared import Topology

BRIDGE_NAME = re.compile(r"[a-z][a-z0-9-]*")
MAX_BRIDGE_NAME_LENGTH = 12
"""So that a patch port, `to-<bridge>`, is no longer than the name of a network link may be."""
RESERVED_BRIDGES = ("br-phy", "br-int")

Problems = Iterator[tuple[str, str]]


def bridge_problems(topology: Topology) -> Problems:
    """All that is wrong with them, as (key, reason)."""
    if topology.kind == "ovn":
        yield from _plain_only(topology)
    else:
        yield from _ovn_only(topology)
        yield from _bridge_problems(topology)
        yield from _patch_problems(topology)


def _plain_only(topology: Topology) -> Problems:
    why = 'is of a lab without OVN (kind = "plain")'
    for name, given in (("bridge", topology.bridges), ("patch", topology.patches)):
        if given:
            yield name, why
    yield from ((f"vm {vm.name!r}.bridge", why) for vm in topology.vms if vm.bridge is not None)


def _ovn_only(topology: Topology) -> Problems:
    why = 'needs OVN, and kind = "plain" has none'
    tables = {
        "router": topology.routers,
        "link": topology.links,
        "route": topology.routes,
        "nat": topology.nats,
        "load_balancer": topology.load_balancers,
        "bgp": topology.bgps,
        "outside": topology.outsides,
    }
    yield from ((name, why) for name, given in tables.items() if given)
    for server in topology.servers:
        if server.role != "hypervisor":
            yield f"server {server.name!r}.role", why
        if server.networks:
            yield f"server {server.name!r}.networks", why
    for switch in topology.switches:
        if switch.network is not None or switch.transit:
            yield f"switch {switch.name!r}.{'transit' if switch.transit else 'network'}", why


def _bridge_problems(topology: Topology) -> Problems:
    servers = {server.name for server in topology.servers}
    taken: set[tuple[str, str]] = set()
    for number, bridge in enumerate(topology.bridges, 1):
        key = f"bridge {number}"
        if bridge.server not in servers:
            yield f"{key}.server", f"there is no server {bridge.server!r}"
        if not BRIDGE_NAME.fullmatch(bridge.name) or len(bridge.name) > MAX_BRIDGE_NAME_LENGTH:
            yield (
                f"{key}.name",
                f"{bridge.name!r} can't name a bridge: at most {MAX_BRIDGE_NAME_LENGTH} small letters, digits, hyphens",
            )
        if (bridge.server, bridge.name) in taken or bridge.name in RESERVED_BRIDGES:
            yield f"{key}.name", f"{bridge.name!r} is taken on {bridge.server!r}"
        if not bridge.entries.strip():
            yield f"{key}.entries", "without an entry it forwards nothing"
        taken.add((bridge.server, bridge.name))
    for name in sorted(servers - {server for server, _ in taken}):
        yield f"server {name!r}", "it has no [[bridge]]"
    for vm in topology.vms:
        if vm.bridge is not None and (vm.server, vm.bridge) not in taken:
            yield f"vm {vm.name!r}.bridge", f"the server {vm.server!r} has no bridge {vm.bridge!r}"


def _patch_problems(topology: Topology) -> Problems:
    bridges = {(bridge.server, bridge.name) for bridge in topology.bridges}
    taken: set[tuple[str, frozenset[str]]] = set()
    for number, patch in enumerate(topology.patches, 1):
        for name in patch.bridges:
            if (patch.server, name) not in bridges:
                yield f"patch {number}.bridges", f"the server {patch.server!r} has no bridge {name!r}"
        pair = (patch.server, frozenset(patch.bridges))
        if len(pair[1]) < len(patch.bridges) or pair in taken:
            yield f"patch {number}.bridges", "two different ones are joined, and once"
        taken.add(pair)
