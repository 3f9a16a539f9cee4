"""What changed in the topology while a task ran: named for the answer, and merged into what the task knows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from vtrace.model.answer import Change, ObjectRef
from vtrace.model.inventory import OUTWARD, Inventory, LogicalPort, Vip
from vtrace.model.task import Pair
from vtrace.task.carried import carried

_RULES = {"ACL": "an ACL", "QoS": "a QoS row", "Logical_Router_Policy": "a router policy"}


def describe(old: Inventory, new: Inventory, at: str) -> tuple[Change, ...]:
    """The changes from one reading of the topology to the next, in words.

    Args:
        at: when the new one was read (RFC 3339).
    """
    found = [*_ports(old, new), *_balancers(old, new), *_translations(old, new), *_routes(old, new), *_rules(old, new)]
    return tuple(Change(at=at, text=text, object=row) for text, row in found)


def merged(old: Inventory, new: Inventory) -> Inventory:
    """The new topology, with what is gone of the old one: packets from before the change are still to be explained."""
    return Inventory(
        datapaths=_union(old.datapaths, new.datapaths, "key"),
        ports=_union(old.ports, new.ports, "name"),
        chassis=_union(old.chassis, new.chassis, "name"),
        nats=_union(old.nats, new.nats, "uuid"),
        vips=_vips(old.vips, new.vips),
        routes=new.routes,
        rules=new.rules,
        port_groups=new.port_groups,
        moved=tuple(sorted({*old.moved, *(p.name for p in new.ports if _has_moved(p, old))})),
        plain=new.plain,
    )


def _has_moved(port: LogicalPort, old: Inventory) -> bool:
    before = old.port(port.name)
    return before is not None and before.chassis != port.chassis


def needs_arming(old: Inventory, new: Inventory, pairs: Sequence[Pair], pairs_now: Sequence[Pair]) -> bool:
    """Whether the entries that stand are no longer those that are needed."""
    if {(p.index, frozenset(carried(p))) for p in pairs} != {(p.index, frozenset(carried(p))) for p in pairs_now}:
        return True
    if {n for p in pairs for n in p.destination.ports} != {n for p in pairs_now for n in p.destination.ports}:
        return True
    if {d.key for d in old.datapaths} != {d.key for d in new.datapaths}:
        return True
    return {_place(p) for p in old.ports} != {_place(p) for p in new.ports}


def arrivals(old: Inventory, new: Inventory) -> frozenset[str]:
    """The chassis that have ports now which they had not before."""
    had = {(p.name, p.chassis) for p in old.ports}
    return frozenset(p.chassis for p in new.ports if p.chassis and (p.name, p.chassis) not in had)


def _place(port: LogicalPort) -> tuple[Any, ...]:
    return (port.name, port.datapath, port.key, port.type, port.chassis, port.standby, port.peer_datapath)


def _union(old: Iterable[Any], new: Iterable[Any], key: str) -> tuple[Any, ...]:
    found = {getattr(item, key): item for item in old}
    found.update({getattr(item, key): item for item in new})
    return tuple(found.values())


def _vips(old: Sequence[Vip], new: Sequence[Vip]) -> tuple[Vip, ...]:
    """New VIPs; a backend that is gone stays known, for the packets that it still got."""
    before = {(vip.uuid, vip.address, vip.port): vip for vip in old}
    found = []
    for vip in new:
        known = before.pop((vip.uuid, vip.address, vip.port), None)
        have = {(b.address, b.port) for b in vip.backends}
        gone = [b for b in known.backends if (b.address, b.port) not in have] if known else []
        found.append(replace(vip, backends=(*vip.backends, *(replace(b, status="removed") for b in gone))))
    return (*found, *before.values())


def _ports(old: Inventory, new: Inventory) -> Iterator[tuple[str, ObjectRef | None]]:
    has = {port.name for port in new.ports}
    for port in old.ports:
        if port.name not in has and _is_named(port):
            yield f"the port {port.name} was removed", _lsp(port)
    for port in new.ports:
        before = old.port(port.name)
        if before is None:
            if _is_named(port):
                yield f"the port {port.name} was added", _lsp(port)
            continue
        if before.enabled != port.enabled:
            yield f"the port {port.name} was {'enabled' if port.enabled else 'disabled'}", _lsp(port)
        if port.type == "" and set(before.addresses) != set(port.addresses):
            yield f"the addresses of {port.name} are {_listed(port.addresses)} now", _lsp(port)
        if port.type == "" and set(before.port_security) != set(port.port_security):
            yield f"the port security of {port.name} is {_listed(port.port_security)} now", _lsp(port)
        if before.chassis != port.chassis and port.type != "patch":
            yield _moved(before, port, old, new), ObjectRef(type="Port_Binding", uuid=port.sb_uuid, name=port.name)


def _is_named(port: LogicalPort) -> bool:
    """Whether a port is named where it comes or goes; the two ends of a patch come and go with others."""
    return port.type in ("", "chassisredirect", *OUTWARD)


def _lsp(port: LogicalPort) -> ObjectRef:
    return ObjectRef(type="Logical_Switch_Port", uuid=port.nb_uuid, name=port.name)


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(texts) or "none"


def _moved(before: LogicalPort, port: LogicalPort, old: Inventory, new: Inventory) -> str:
    name = port.name.removeprefix("cr-")
    what = f"the gateway of {name}" if port.type in ("chassisredirect", "l3gateway") else name
    if not before.chassis:
        return f"{what} was bound by {new.server(port.chassis)}"
    if not port.chassis:
        return f"{what} is no longer bound: {old.server(before.chassis)} gave it up"
    return f"{what} moved from {old.server(before.chassis)} to {new.server(port.chassis)}"


def _balancers(old: Inventory, new: Inventory) -> Iterator[tuple[str, ObjectRef | None]]:
    before = {(vip.uuid, vip.address, vip.port): vip for vip in old.vips}
    for vip in new.vips:
        row = ObjectRef(type="Load_Balancer", uuid=vip.uuid, name=vip.balancer)
        known = before.pop((vip.uuid, vip.address, vip.port), None)
        name = _vip_name(vip)
        if known is None:
            yield f"the load balancer {vip.balancer} got the VIP {name}", row
            continue
        had = {(b.address, b.port): b.status for b in known.backends if b.status != "removed"}
        has = {(b.address, b.port): b.status for b in vip.backends}
        for address, port in sorted(has.keys() - had.keys()):
            yield f"the backend {address}:{port} was added to {name} of {vip.balancer}", row
        for address, port in sorted(had.keys() - has.keys()):
            yield f"the backend {address}:{port} was removed from {name} of {vip.balancer}", row
        for end in sorted(had.keys() & has.keys()):
            if had[end] != has[end]:
                yield f"the health check of {end[0]}:{end[1]} behind {name} says {has[end] or 'nothing'} now", row
    for vip in before.values():
        row = ObjectRef(type="Load_Balancer", uuid=vip.uuid, name=vip.balancer)
        yield f"the load balancer {vip.balancer} lost the VIP {_vip_name(vip)}", row


def _vip_name(vip: Vip) -> str:
    address = f"[{vip.address}]" if ":" in vip.address and vip.port else vip.address
    return f"{address}:{vip.port}" if vip.port else address


def _translations(old: Inventory, new: Inventory) -> Iterator[tuple[str, ObjectRef | None]]:
    had, has = {n.uuid: n for n in old.nats}, {n.uuid: n for n in new.nats}
    for word, uuids, rows in (("added", has.keys() - had.keys(), has), ("removed", had.keys() - has.keys(), had)):
        for uuid in sorted(uuids):
            nat = rows[uuid]
            text = f"NAT {nat.kind} {nat.external} for {nat.logical} was {word}"
            yield text, ObjectRef(type="NAT", uuid=uuid, name=f"{nat.kind} {nat.external} {nat.logical}")


def _routes(old: Inventory, new: Inventory) -> Iterator[tuple[str, ObjectRef | None]]:
    had, has = {r.uuid: r for r in old.routes}, {r.uuid: r for r in new.routes}
    for word, uuids, rows in (("added", has.keys() - had.keys(), has), ("removed", had.keys() - has.keys(), had)):
        for uuid in sorted(uuids):
            route = rows[uuid]
            router = _name(new, old, route.router)
            text = f"the route {route.prefix} by {route.nexthop} of {router} was {word}"
            yield text, ObjectRef(type="Logical_Router_Static_Route", uuid=uuid, name=route.prefix)
    for uuid in sorted(had.keys() & has.keys()):
        if had[uuid] != has[uuid]:
            route = has[uuid]
            text = f"the route {route.prefix} of {_name(new, old, route.router)} goes by {route.nexthop} now"
            yield text, ObjectRef(type="Logical_Router_Static_Route", uuid=uuid, name=route.prefix)


def _rules(old: Inventory, new: Inventory) -> Iterator[tuple[str, ObjectRef | None]]:
    had, has = set(old.rules), set(new.rules)
    for word, rules in (("added to", has - had), ("removed from", had - has)):
        for rule in sorted(rules, key=lambda r: (r.datapath, r.table, r.uuid)):
            text = f"{_RULES[rule.table]} was {word} {_name(new, old, rule.datapath)}"
            yield text, ObjectRef(type=rule.table, uuid=rule.uuid)


def _name(new: Inventory, old: Inventory, datapath: int) -> str:
    found = new.datapath(datapath) or old.datapath(datapath)
    return found.name if found else "?"
