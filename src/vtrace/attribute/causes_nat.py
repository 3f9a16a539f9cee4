"""Reasons of address translation: a packet that leaves untranslated, a port that nobody outside can address."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from vtrace.attribute.cause import CANDIDATE, CONCLUDED, Cause, rfc3339
from vtrace.model.answer import Evidence, ObjectRef
from vtrace.model.inventory import Inventory, LogicalDatapath, Nat
from vtrace.model.record import LogRecord
from vtrace.model.task import Alias, Direction, Pair

# Addresses that nobody answers to across the Internet (RFC 1918, RFC 6598, RFC 4193).
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
_GATEWAYS = ("chassisredirect", "l3gateway")


def untranslated(records: Iterable[LogRecord], inventory: Inventory) -> Cause | None:
    """A packet that left for a public address with the private one of its VM: it cannot be answered."""
    hops = list(records)
    last = hops[-1]
    if last.src != hops[0].src or not is_private(last.src) or is_private(last.dst):
        return None
    found = [d for d in (inventory.datapath(hop.datapath) for hop in hops) if d is not None and d.kind != "vswitch"]
    router = found[-1] if found else None
    if router is None or router.kind == "vbrouter":
        # A customer's data center knows the addresses of the VPC.
        return None
    rows = [nat for nat in inventory.nats if nat.router == router.key and _same_version(nat, last.src)]
    if any(nat.kind != "dnat" and nat.covers(last.src) for nat in rows):
        if any(port.datapath == router.key and port.type in _GATEWAYS for port in inventory.ports):
            return _exhausted(router, last, [n for n in rows if n.kind == "snat" and n.covers(last.src)], inventory)
        return _missing(router, last, f"{router.name} has no gateway chassis, so its NAT rows do nothing", CONCLUDED)
    why = f"no NAT row of {router.name} claims it"
    # A router that translates nothing at all may have somebody behind it who does.
    return _missing(router, last, why, CONCLUDED if rows else CANDIDATE)


def _exhausted(router: LogicalDatapath, last: LogRecord, rows: list[Nat], inventory: Inventory) -> Cause | None:
    """A row with few source ports that should have translated a packet, and did not: none of them was free.

    Open vSwitch's own conntrack then calls the packet invalid and lets it go on as it is (conntrack.c).
    """
    row = max(rows, key=lambda n: ipaddress.ip_network(n.logical, strict=False).prefixlen, default=None)
    if row is None or not row.ports or row.partial:
        return None
    server = inventory.server(last.chassis)
    shown = f"ovn-nbctl list NAT {row.uuid}"
    return Cause(
        code="nat_port_exhausted",
        actor="provider",
        summary=f"it left for {last.dst} with its private address {last.src}: the NAT row snat {row.external} "
        f"{row.logical} of {router.name} has {row.ports} source ports ({row.port_range}), and none was free",
        object=ObjectRef(type="NAT", uuid=row.uuid, name=f"{row.kind} {row.external} {row.logical}"),
        fix=f"{shown}; on {server}: ovs-appctl dpctl/dump-conntrack; give it more ports: "
        f"ovn-nbctl set NAT {row.uuid} external_port_range=LOW-HIGH",
        confidence=CONCLUDED,
        evidence=(
            Evidence(
                source=shown,
                text=f"external_port_range {row.port_range}; a packet that it covers left as {last.src}:{last.sport}",
                chassis=server,
                at=rfc3339(last.wall_ns),
            ),
        ),
    )


def _missing(router: LogicalDatapath, last: LogRecord, why: str, confidence: float) -> Cause:
    return Cause(
        code="nat_missing",
        actor="tenant",
        summary=f"it left for {last.dst} with the private address {last.src}, which nobody there can answer: {why}",
        object=ObjectRef(type="Logical_Router", uuid=router.nb_uuid, name=router.name),
        fix=f"ovn-nbctl lr-nat-list {router.name}; ovn-nbctl lr-nat-add {router.name} snat EXTERNAL {last.src}",
        evidence=(Evidence(source=f"ovn-nbctl lr-nat-list {router.name}", text=f"no row translates {last.src}"),),
        confidence=confidence,
    )


def unaddressable(pair: Pair, inventory: Inventory) -> Cause | None:
    """Traffic from a public address for a VM that has no address which is one outside: it has no way in."""
    own = pair.destination
    if not own.ports or not pair.source.outside or is_private(pair.source.address):
        return None
    if any(_leads_in(alias, pair) for alias in own.aliases) or not all(map(is_private, own.addresses)):
        return None
    around = {key for port in inventory.ends(own) for key in inventory.reach(port.datapath)}
    routers = [d for d in inventory.datapaths if d.key in around and d.kind != "vswitch"]
    edges = [r for r in routers if any(n.router == r.key and _same_version(n, own.address) for n in inventory.nats)]
    if not edges or any(r.kind == "vbrouter" for r in routers):
        return None
    router = edges[0]
    return Cause(
        code="nat_missing",
        actor="tenant",
        summary=f"nothing from {pair.source.name} can be sent to {own.name}: no NAT row of {router.name} gives "
        f"{own.address} a floating address, and no load balancer leads to it",
        object=ObjectRef(type="Logical_Router", uuid=router.nb_uuid, name=router.name),
        fix=f"ovn-nbctl lr-nat-list {router.name}; "
        f"ovn-nbctl lr-nat-add {router.name} dnat_and_snat EXTERNAL {own.address}",
        evidence=(Evidence(source=f"ovn-nbctl lr-nat-list {router.name}", text=f"no row is for {own.address}"),),
        confidence=CONCLUDED,
    )


def _leads_in(alias: Alias, pair: Pair) -> bool:
    """Whether a pair's packets may be for an alias: a floating address, a VIP of their protocol and port.

    Answers may also be for an address that the router gave its packets on their way out.
    """
    if alias.kind == "translated":
        return pair.direction is Direction.REPLY
    traffic = pair.traffic
    protocol = not (alias.proto and traffic.proto) or alias.proto == traffic.proto
    port = not alias.port or traffic.dport in (None, alias.port, alias.own_port)
    return protocol and port


def is_private(address: str) -> bool:
    """Whether an address is one of those that mean nothing outside; a network by its first address."""
    found = ipaddress.ip_network(address, strict=False).network_address
    return any(found.version == network.version and found in network for network in _PRIVATE)


def _same_version(nat: Nat, address: str) -> bool:
    return (":" in nat.external) == (":" in address)
