"""Which row of NAT or load balancing changed a packet's headers between two observations of it."""

from __future__ import annotations

import ipaddress

from vtrace.model.answer import ObjectRef, Rewrite
from vtrace.model.inventory import Inventory, LogicalDatapath, Nat, Vip
from vtrace.model.record import LogRecord

_WITH_PORTS = (6, 17, 132)


def rewrites(before: LogRecord, after: LogRecord, inventory: Inventory) -> tuple[Rewrite, ...]:
    """What changed of source and destination between two records of one packet, one after the other."""
    found = []
    here = {before.datapath, after.datapath}
    old, new = (before.dst, before.dport), (after.dst, after.dport)
    if _changed(before, old, new):
        found.append(_destination(old, new, before, here, inventory))
    old, new = (before.src, before.sport), (after.src, after.sport)
    if _changed(before, old, new):
        found.append(_source(old, new, before, here, inventory))
    return tuple(found)


def _changed(record: LogRecord, old: tuple[str, int], new: tuple[str, int]) -> bool:
    return old[0] != new[0] or (record.proto in _WITH_PORTS and old[1] != new[1])


def _destination(
    old: tuple[str, int], new: tuple[str, int], record: LogRecord, here: set[int], inventory: Inventory
) -> Rewrite:
    vip = vip_of(old, new, record, inventory, here)
    if vip is not None:
        return _rewrite("load_balancing", old, new, record, _balancer(vip))
    hairpin = next((v for v in inventory.vips if v.address == old[0] and _is_backend(new[0], v, here)), None)
    if hairpin is not None:
        return _rewrite("unsnat", old, new, record, _balancer(hairpin))
    nat = next((n for n in inventory.nats if n.external == old[0] and n.router in here), None)
    if nat is not None:
        return _rewrite("unsnat" if nat.kind == "snat" else "dnat", old, new, record, _nat(nat))
    return _rewrite("unknown", old, new, record, None)


def _source(
    old: tuple[str, int], new: tuple[str, int], record: LogRecord, here: set[int], inventory: Inventory
) -> Rewrite:
    vip = vip_of(new, old, record, inventory, here)
    if vip is not None:
        return _rewrite("undnat", old, new, record, _balancer(vip))
    hairpin = next((v for v in inventory.vips if v.address == new[0] and _is_backend(old[0], v, here)), None)
    if hairpin is not None:
        return _rewrite("snat", old, new, record, _balancer(hairpin))
    fitting = [n for n in inventory.nats if n.external == new[0] and n.router in here and n.covers(old[0])]
    # The narrowest row wins, as in OVN.
    nat = max(fitting, key=lambda n: ipaddress.ip_network(n.logical, strict=False).prefixlen, default=None)
    if nat is not None:
        return _rewrite("undnat" if nat.kind == "dnat" else "snat", old, new, record, _nat(nat))
    router = _router_with(new[0], here, inventory)
    if router is not None:
        # No row says so but an option of the router (lb_force_snat_ip, dnat_force_snat_ip; ovn-nb(5)).
        row = ObjectRef(type="Logical_Router", uuid=router.nb_uuid, name=router.name)
        return _rewrite("snat", old, new, record, row)
    return _rewrite("unknown", old, new, record, None)


def _router_with(address: str, here: set[int], inventory: Inventory) -> LogicalDatapath | None:
    """The router, of these datapaths, one of whose own ports has the address."""
    for port in inventory.ports:
        own = [word.partition("/")[0] for text in port.addresses for word in text.split()]
        found = inventory.datapath(port.datapath) if port.datapath in here and address in own else None
        if found is not None and found.kind != "vswitch":
            return found
    return None


def _is_backend(address: str, vip: Vip, here: set[int]) -> bool:
    """Whether a VIP that is set here has the backend: it may be given its own packets, with the VIP as their source."""
    return bool(here.intersection(vip.datapaths)) and any(b.address == address for b in vip.backends)


def vip_of(
    vip: tuple[str, int], backend: tuple[str, int], record: LogRecord, inventory: Inventory, here: set[int]
) -> Vip | None:
    """The VIP, of a load balancer set on one of these datapaths, that has such a backend."""
    ports = record.proto in _WITH_PORTS
    for found in inventory.vips:
        fits = found.address == vip[0] and (not found.port or (ports and found.port == vip[1]))
        ends = any(b.address == backend[0] and b.port in (0, backend[1]) for b in found.backends)
        if fits and ends and here.intersection(found.datapaths):
            return found
    return None


def _rewrite(
    kind: str, old: tuple[str, int], new: tuple[str, int], record: LogRecord, row: ObjectRef | None
) -> Rewrite:
    ports = record.proto in _WITH_PORTS
    return Rewrite(kind=kind, before=_text(old, ports=ports), after=_text(new, ports=ports), object=row)


def _text(end: tuple[str, int], *, ports: bool) -> str:
    if not ports:
        return end[0]
    return f"[{end[0]}]:{end[1]}" if ":" in end[0] else f"{end[0]}:{end[1]}"


def _balancer(vip: Vip) -> ObjectRef:
    return ObjectRef(type="Load_Balancer", uuid=vip.uuid, name=vip.balancer)


def _nat(nat: Nat) -> ObjectRef:
    return ObjectRef(type="NAT", uuid=nat.uuid, name=f"{nat.kind} {nat.external} {nat.logical}")
