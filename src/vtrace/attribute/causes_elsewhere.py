"""Reasons of packets that came out at a port that is not the destination's."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from vtrace.attribute.cause import CONCLUDED, Cause, rfc3339
from vtrace.model.answer import Evidence, ObjectRef
from vtrace.model.inventory import Inventory, LogicalPort
from vtrace.model.record import LogRecord

# What may end a packet at a port that it should not have come to.
_AT_PORT = ("port_unbound", "port_disabled", "port_security", "vif_down", "vif_queue_full")


def astray(
    port: LogicalPort | None, last: LogRecord, wanted: Sequence[LogicalPort], name: str, inventory: Inventory
) -> Cause:
    """It came out at another port: because that claims the destination's address too, or for a reason not known."""
    known = port.name if port else f"key {last.out_key}"
    seen = Evidence(
        source="log records",
        text=f"went out by the port {known} (key {last.out_key}) to {last.dst}",
        chassis=inventory.server(last.chassis),
        at=rfc3339(last.wall_ns),
    )
    rival = _rival(port, wanted, inventory) if port is not None else None
    if port is not None and rival is not None:
        return _conflict(port, rival, inventory, f"it went to {port.name}", seen)
    return Cause(
        code="misdelivered",
        actor="provider",
        summary=f"it came out at the port {known}, which is not that of {name}",
        object=ObjectRef(type="Logical_Switch_Port", uuid=port.nb_uuid if port else "", name=known),
        fix=f"ovn-sbctl find Port_Binding logical_port={known}" if port else None,
        confidence=CONCLUDED,
        evidence=(seen,),
    )


def at_a_rival(cause: Cause, wanted: Sequence[LogicalPort], inventory: Inventory) -> Cause:
    """The cause; an address conflict where that brought the packet to the port at which it ended."""
    port = inventory.port_by_key(cause.place.datapath, cause.place.out_key) if cause.place.out_key else None
    if cause.code not in _AT_PORT or port is None or port in wanted:
        return cause
    rival = _rival(port, wanted, inventory)
    if rival is None:
        return cause
    found = _conflict(port, rival, inventory, f"it went to {port.name}: {cause.summary}", *cause.evidence)
    return replace(found, confidence=cause.confidence, place=cause.place, because=cause.key)


def _rival(port: LogicalPort, wanted: Sequence[LogicalPort], inventory: Inventory) -> LogicalPort | None:
    """A port that packets should have gone to, or a router's of the same switch, with an address of this one's."""
    if port.type:
        return None
    doors = {p.peer for p in inventory.ports if p.peer and p.peer_datapath == port.datapath}
    doors &= {p.name for p in inventory.ports if p.datapath == port.datapath}
    routers = [p for p in inventory.ports if p.peer in doors]
    here = [p for p in wanted if p.datapath == port.datapath]
    return next((p for p in (*here, *routers) if p.name != port.name and p.claims & port.claims), None)


def _conflict(port: LogicalPort, rival: LogicalPort, inventory: Inventory, went: str, *seen: Evidence) -> Cause:
    switch = inventory.datapath(port.datapath)
    shared = ", ".join(sorted(port.claims & rival.claims))
    rows = Evidence(
        source="ovn-nbctl --columns=name,addresses list Logical_Switch_Port",
        text=f"{port.name} ({port.nb_uuid}): {'; '.join(port.addresses)}. "
        f"{rival.name} ({rival.nb_uuid}): {'; '.join(rival.addresses)}",
    )
    return Cause(
        code="address_conflict",
        actor="tenant",
        summary=f"the ports {rival.name} and {port.name} of {switch.name if switch else '?'} both claim {shared}, and "
        f"{went}",
        object=ObjectRef(type="Logical_Switch_Port", uuid=port.nb_uuid, name=f"{port.name}, {rival.name}"),
        fix=f"ovn-nbctl lsp-get-addresses {port.name}; ovn-nbctl lsp-get-addresses {rival.name}; then give one of them "
        "others: ovn-nbctl lsp-set-addresses PORT 'MAC IP…'",
        confidence=CONCLUDED,
        evidence=(*seen, rows),
    )
