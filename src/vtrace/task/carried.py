"""What a pair's packets carry where they first meet a virtual device: VIPs, floating and translated addresses.

A task names VMs; the addresses on the wire are the cloud's choice. So the topology translates.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import msgspec
import msgspec.structs

from vtrace.model.inventory import Inventory
from vtrace.model.task import Alias, Direction, Endpoint, Pair


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """Headers of a pair's packets at their first hop; an empty text or None stands for any."""

    proto: str
    src: str
    dst: str
    sport: int | None = None
    dport: int | None = None


def with_aliases(endpoint: Endpoint, inventory: Inventory) -> Endpoint:
    """The endpoint, with all addresses that packets for it may carry before they are translated."""
    found: list[Alias] = []
    for port in inventory.ends(endpoint) if endpoint.ports else ():
        vpc = inventory.reach(port.datapath)
        for nat in inventory.nats:
            if nat.router in vpc and any(nat.covers(address) for address in endpoint.addresses):
                kind = "translated" if nat.kind == "snat" else "floating"
                found.append(Alias(address=nat.external, kind=kind))
        for vip in inventory.vips:
            for backend in vip.backends:
                if vpc.intersection(vip.datapaths) and backend.address in endpoint.addresses:
                    found.append(
                        Alias(address=vip.address, kind="vip", proto=vip.proto, port=vip.port, own_port=backend.port)
                    )
    found += [Alias(address=address, kind="translated") for address in _forced_sources(endpoint, inventory)]
    if endpoint.only:
        named = [a for a in (*endpoint.aliases, *found) if a.address == endpoint.only]
        others = [a for a in found if a.address != endpoint.only and a.kind != "vip"]
        found = [*named, *others]
    version = ipaddress.ip_network(endpoint.address).version
    aliases = [a for a in dict.fromkeys(found) if ipaddress.ip_address(a.address).version == version]
    return msgspec.structs.replace(endpoint, aliases=tuple(aliases))


def _forced_sources(endpoint: Endpoint, inventory: Inventory) -> Iterator[str]:
    """Addresses that routers give an endpoint's packets as their source, so that answers to them come back there."""
    ends = inventory.ends(endpoint) if endpoint.ports else ()
    vpc = frozenset[int]().union(*(inventory.reach(port.datapath) for port in ends))
    for router in inventory.datapaths:
        if router.forced and (router.key in vpc or endpoint.outside):
            yield from (word for word in router.forced if word != "router_ip")
            if "router_ip" in router.forced:
                yield from inventory.own_addresses(router.key)


def carried(pair: Pair) -> tuple[Carried, ...]:
    """All combinations of headers that the pair's packets may have at their first hop, each once.

    A source that the user named by its port is known by the port it comes in by, whatever address it uses.
    """
    reply = pair.direction is Direction.REPLY
    sources = ("",) if pair.source.by_port or pair.source.members else pair.source.addresses
    found = [
        Carried(proto=proto, src=src, dst=dst, sport=sport, dport=dport)
        for proto, dst, dport in _destinations(pair, reply=reply)
        for sport in _source_ports(pair, reply=reply)
        for src in sources
    ]
    return tuple(dict.fromkeys(found))


def _destinations(pair: Pair, *, reply: bool) -> Iterator[tuple[str, str, int | None]]:
    """(protocol, address, port) of what the packets are sent to."""
    found = list(_addressed(pair, reply=reply))
    only = pair.destination.only
    if not found and only and not reply:
        # No load balancer has this protocol or port at the VIP that was named: what is sent there is asked about.
        found = [(pair.traffic.proto, only, pair.traffic.dport)]
    return iter(found)


def _addressed(pair: Pair, *, reply: bool) -> Iterator[tuple[str, str, int | None]]:
    """The same, as far as the destination's addresses, NAT rows and VIPs have it."""
    traffic, destination = pair.traffic, pair.destination
    wanted = traffic.sport if reply else traffic.dport
    if reply or not destination.only:
        for address in destination.addresses:
            if address in pair.elsewhere:
                continue
            yield traffic.proto, address, wanted
    for alias in destination.aliases:
        if reply:
            # A VIP is nobody's source, but of a backend that was given its own packets (OVN's hairpin); and a source
            # NAT may have given the connection another port.
            hairpin = bool(set(pair.source.ports) & set(destination.ports))
            if alias.kind != "vip" or hairpin:
                yield traffic.proto, alias.address, None if alias.shared else wanted
            continue
        if destination.only not in ("", alias.address) or (
            alias.proto and traffic.proto and alias.proto != traffic.proto
        ):
            continue
        if alias.port and wanted not in (None, alias.port, alias.own_port):
            continue
        yield traffic.proto or alias.proto, alias.address, alias.port or wanted


def _source_ports(pair: Pair, *, reply: bool) -> Iterator[int | None]:
    if not reply:
        yield pair.traffic.sport
        return
    wanted = pair.traffic.dport
    yield wanted
    for alias in pair.source.aliases:
        if wanted and alias.port == wanted and alias.own_port:
            yield alias.own_port
