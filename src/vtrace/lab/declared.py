"""What a topology file may hold: one struct a table of the file. docs/lab.md explains every key."""

from __future__ import annotations

import ipaddress
from typing import Literal

import msgspec

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class _Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all that a topology file may hold."""


class Server(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A hypervisor or a gateway: one chassis; `networks` are the provider networks it has a bridge to."""

    name: str
    region: str
    role: Literal["hypervisor", "gateway"] = "hypervisor"
    networks: tuple[str, ...] = ()


class Outside(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A box in a provider network: the Internet, or a customer's router.

    Attributes:
        addresses: its own, in the provider network, with prefix length.
        hosts: further addresses behind it; all are its own and answer.
        vlan: the tag its frames have in the provider network.
        listens: as of a VM.
    """

    name: str
    network: str
    addresses: tuple[str, ...]
    hosts: tuple[str, ...] = ()
    vlan: int | None = None
    listens: tuple[str, ...] = ()


class Router(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A logical router; with a chassis, a gateway router."""

    name: str
    vpc: str
    chassis: str | None = None
    kind: Literal["vbrouter"] | None = None
    options: dict[str, str] = {}


class Switch(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A logical switch; `router` takes the first host address of each subnet.

    Attributes:
        vpc: none for a switch of a provider network and for a transit switch.
        network: the provider network its localnet port leads to.
        vlan: the tag of that port.
        transit: it joins routers of several VPCs.
    """

    name: str
    subnets: tuple[str, ...]
    vpc: str | None = None
    router: str | None = None
    network: str | None = None
    vlan: int | None = None
    transit: bool = False


class Vm(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A VM with one port; `aliases` are further addresses of its own, reached through routes.

    Attributes:
        listens: `tcp/PORT` or `udp/PORT`: a program that sends back what it gets, as long as the lab is up.
        bridge: in a plain lab, where its port is; its server's first bridge if not given.
    """

    name: str
    switch: str
    server: str
    addresses: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    listens: tuple[str, ...] = ()
    bridge: str | None = None


class Bridge(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bridge of a plain lab; `entries` are OpenFlow entries as `ovs-ofctl add-flows` reads them."""

    server: str
    name: str
    entries: str


class Patch(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two bridges of one server, joined: each has a port `to-<other bridge>`."""

    server: str
    bridges: tuple[str, str]


class Link(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A router's port on a switch, at addresses of its own; with gateways, a distributed gateway port."""

    router: str
    switch: str
    addresses: tuple[str, ...]
    gateways: tuple[str, ...] = ()


class Route(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A static route of a logical router or of an outside box."""

    router: str
    prefix: str
    nexthop: str


class Nat(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A translation; with a VM, a floating address that lives on the VM's server (distributed)."""

    router: str
    type: Literal["snat", "dnat_and_snat"]
    external: str
    logical: str
    vm: str | None = None


class LoadBalancer(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A load balancer.

    Attributes:
        vips: `10.0.0.1:80`, `[fd00::1]:80`, or an address alone.
        backends: VMs; the address is that of the VIP's family.
        port: of the backends; none if and only if the VIPs have none.
        health_check: OVN looks after the backends.
    """

    name: str
    vips: tuple[str, ...]
    backends: tuple[str, ...]
    protocol: Literal["tcp", "udp"] = "tcp"
    port: int | None = None
    switches: tuple[str, ...] = ()
    routers: tuple[str, ...] = ()
    health_check: bool = False


class Bgp(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A BGP speaker that speaks for a router to an outside box, and keeps the routes it learns in that router.

    Attributes:
        name: the speaker's NODE and its port's name.
        announce: prefixes it announces, with the router's address on that switch as next hop.
        peer: an outside box, which runs a speaker too.
        peer_announce: prefixes the peer announces.
    """

    name: str
    router: str
    switch: str
    server: str
    addresses: tuple[str, ...]
    announce: tuple[str, ...]
    peer: str
    peer_announce: tuple[str, ...]
    asn: int = 64512
    peer_asn: int = 64513


class Reach(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A promise beyond those between VMs of a switch or router: `lab up` waits until it holds.

    Attributes:
        source: VMs or outside boxes (key `from`).
        to: addresses, or VMs (at all their addresses).
        port: where somebody listens, for tcp and udp.
    """

    source: tuple[str, ...] = msgspec.field(name="from")
    to: tuple[str, ...]
    proto: Literal["icmp", "tcp", "udp"] = "icmp"
    port: int | None = None


class Topology(_Declared, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole lab, as declared. One of kind `plain` has bridges with entries of its own, and no OVN."""

    kind: Literal["ovn", "plain"] = "ovn"
    encap: Literal["geneve", "vxlan"] = "geneve"
    vm_mtu: int = 1400
    servers: tuple[Server, ...] = msgspec.field(name="server", default=())
    outsides: tuple[Outside, ...] = msgspec.field(name="outside", default=())
    routers: tuple[Router, ...] = msgspec.field(name="router", default=())
    switches: tuple[Switch, ...] = msgspec.field(name="switch", default=())
    vms: tuple[Vm, ...] = msgspec.field(name="vm", default=())
    bridges: tuple[Bridge, ...] = msgspec.field(name="bridge", default=())
    patches: tuple[Patch, ...] = msgspec.field(name="patch", default=())
    links: tuple[Link, ...] = msgspec.field(name="link", default=())
    routes: tuple[Route, ...] = msgspec.field(name="route", default=())
    nats: tuple[Nat, ...] = msgspec.field(name="nat", default=())
    load_balancers: tuple[LoadBalancer, ...] = msgspec.field(name="load_balancer", default=())
    bgps: tuple[Bgp, ...] = msgspec.field(name="bgp", default=())
    reaches: tuple[Reach, ...] = msgspec.field(name="reach", default=())


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


def interface_of(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface | None:
    """The address with prefix length a text names, or None."""
    try:
        return ipaddress.ip_interface(text) if "/" in text else None
    except ValueError:
        return None


def vip_of(text: str) -> tuple[Address, int | None] | None:
    """The address and port a VIP's text names, or None."""
    alone = address_of(text)
    if alone is not None:
        return alone, None
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    address = address_of(host[1:-1] if bracketed else host)
    if address is None or (address.version == 6) != bracketed:
        return None
    if not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= 65535:
        return None
    return address, int(port)


def listener_of(text: str) -> tuple[str, int] | None:
    """The protocol and port of a `listens` entry, or None."""
    proto, _, port = text.partition("/")
    if proto not in ("tcp", "udp") or not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= 65535:
        return None
    return proto, int(port)


def router_address(network: Network) -> Address:
    """The address the router has in a subnet: its first host."""
    return network.network_address + 1


def health_source(network: Network) -> Address:
    """The address OVN's health checks come from in a subnet: the last but one, which nobody else has."""
    return network[-2]
