"""The declared topology of a lab: a TOML file, decoded strictly and checked as a whole.

Every error names the file and the key. docs/lab.md has the format.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from vtrace.errors import UsageError

NODE_NAME = re.compile(r"[a-z][a-z0-9-]*")
MAX_LINK_NAME_LENGTH = 15
"""Longest name of a network link (IFNAMSIZ - 1)."""
MAX_SERVER_NAME_LENGTH = MAX_LINK_NAME_LENGTH - len("to-")
MAX_SERVERS = 22
"""So that every wire's addresses fit in one third byte (see plan.py)."""
RESERVED_NAMES = ("central",)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class _Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all that a topology file may hold."""


class Server(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A hypervisor or a gateway: one chassis."""

    name: str
    region: str
    role: Literal["hypervisor", "gateway"] = "hypervisor"


class Router(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A logical router."""

    name: str
    vpc: str


class Switch(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A logical switch; `router` takes the first host address of each subnet."""

    name: str
    vpc: str
    subnets: tuple[str, ...]
    router: str | None = None


class Vm(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A VM with one port; `aliases` are further addresses of its own, reached through routes."""

    name: str
    switch: str
    server: str
    addresses: tuple[str, ...]
    aliases: tuple[str, ...] = ()


class Route(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A static route of a logical router."""

    router: str
    prefix: str
    nexthop: str


class Topology(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole lab, as declared."""

    encap: Literal["geneve", "vxlan"] = "geneve"
    vm_mtu: int = 1400
    servers: tuple[Server, ...] = msgspec.field(name="server", default=())
    routers: tuple[Router, ...] = msgspec.field(name="router", default=())
    switches: tuple[Switch, ...] = msgspec.field(name="switch", default=())
    vms: tuple[Vm, ...] = msgspec.field(name="vm", default=())
    routes: tuple[Route, ...] = msgspec.field(name="route", default=())


def read(source: str | None) -> tuple[Topology, str]:
    """Read a topology file, or the one that ships.

    Args:
        source: path of a TOML file, or None for the default topology.

    Returns:
        The checked topology and the name of its file.

    Raises:
        UsageError: the file can't be read, or says something that can't be built.
    """
    if source is None:
        shipped = resources.files("vtrace.lab") / "topologies" / "default.toml"
        return parse(shipped.read_text(), "default.toml"), "default.toml"
    try:
        text = Path(source).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("the topology file can't be read", source, str(error)) from error
    return parse(text, source), source


def parse(text: str, file_name: str) -> Topology:
    """Decode and check the text of a topology file.

    Raises:
        UsageError: naming the file and the key.
    """
    try:
        topology = msgspec.convert(tomllib.loads(text), Topology)
    except tomllib.TOMLDecodeError as error:
        raise UsageError("the topology file is not TOML", file_name, str(error)) from error
    except msgspec.ValidationError as error:
        raise UsageError("the topology file has a wrong key or value", file_name, str(error)) from error
    for key, why in _problems(topology):
        raise UsageError("the topology can't be built", f"{file_name}: {key}", why)
    return topology


def _problems(topology: Topology) -> Iterator[tuple[str, str]]:
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


def _name_problems(topology: Topology) -> Iterator[tuple[str, str]]:
    nodes: set[str] = set(RESERVED_NAMES)
    limits = [(f"server {s.name!r}.name", s.name, MAX_SERVER_NAME_LENGTH) for s in topology.servers]
    limits += [(f"vm {v.name!r}.name", v.name, MAX_LINK_NAME_LENGTH) for v in topology.vms]
    for key, name, longest in limits:
        if not NODE_NAME.fullmatch(name):
            yield key, "a NODE name is small letters, digits and hyphens, and begins with a letter"
        if len(name) > longest:
            yield key, f"at most {longest} characters, it names a network link"
        if name in nodes or name.startswith(("wire-", "br-")):
            yield key, "the name is taken"
        nodes.add(name)
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
        elif switch.router is not None and routers[switch.router].vpc != switch.vpc:
            yield (
                f"{key}.router",
                f"{switch.router!r} is in VPC {routers[switch.router].vpc!r}, not {switch.vpc!r}",
            )
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
    routers = {router.name for router in topology.routers}
    for number, route in enumerate(topology.routes, 1):
        key = f"route {number}"
        network, nexthop = network_of(route.prefix), address_of(route.nexthop)
        if route.router not in routers:
            yield f"{key}.router", f"there is no router {route.router!r}"
        if network is None:
            yield f"{key}.prefix", f"{route.prefix!r} is not a network"
        if nexthop is None or (network is not None and nexthop.version != network.version):
            yield f"{key}.nexthop", f"{route.nexthop!r} is not an address of the prefix's family"


def network_of(text: str) -> Network | None:
    """The network a text names, or None."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def address_of(text: str) -> Address | None:
    """The address a text names, or None."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def router_address(network: Network) -> Address:
    """The address the router has in a subnet: its first host."""
    return network.network_address + 1
