"""Reasons at a load balancer: a VIP without backends, backends that are down."""

from __future__ import annotations

from vtrace.attribute.cause import Cause, here
from vtrace.model.answer import ObjectRef
from vtrace.model.inspection import Inspection, ResolvedStep
from vtrace.model.inventory import Inventory, Vip

# What it takes for a backend to be there: its port is bound, and its interface up.
_NO_LIVE_PORT = ("port_unbound", "vif_down")


def balancer(inspection: Inspection, step: ResolvedStep, inventory: Inventory) -> Cause | None:
    """The load balancer ended it: a VIP that has no backend, or none that its health check has left."""
    if step.object.row_table != "Load_Balancer":
        return None
    row = step.object
    vips = [v for v in inventory.vips if v.uuid == row.row_uuid and _is_met(v, step)]
    name = row.row_name or row.row_uuid
    reference = ObjectRef(type="Load_Balancer", uuid=row.row_uuid, name=name)
    backends = [b for v in vips for b in v.backends]
    if backends:
        said = ", ".join(f"{b.address}: {b.status or 'not checked'}" for b in backends)
        return Cause(
            code="lb_backend_down",
            actor="tenant",
            summary=f"the load balancer {name} has no backend left for {_written(vips)}: its health check says {said}",
            object=reference,
            fix="ovn-sbctl --columns=logical_port,ip,port,status list Service_Monitor; "
            f"ovn-nbctl lb-list {row.row_uuid}",
            place=here(step),
            balancer=name,
        )
    return Cause(
        code="lb_no_backend",
        actor="tenant",
        summary=f"the load balancer {name} has no backend for {_written(vips) or 'this VIP'}",
        object=reference,
        fix=f'ovn-nbctl lb-list {row.row_uuid}; ovn-nbctl set Load_Balancer {row.row_uuid} \'vips:"VIP"="BACKENDS"\'',
        place=here(step),
        balancer=name,
    )


def backend_down(cause: Cause, vip: Vip) -> Cause:
    """The cause of a packet that a load balancer gave to a backend: without a live port the balancer's is named."""
    if cause.code not in _NO_LIVE_PORT:
        return cause
    return Cause(
        code="lb_backend_down",
        actor="tenant",
        summary=f"the load balancer {vip.balancer} gave it to a backend that has no live port: {cause.summary}",
        object=ObjectRef(type="Load_Balancer", uuid=vip.uuid, name=vip.balancer),
        fix=f"{cause.fix}; or take the backend out: ovn-nbctl lb-list {vip.uuid}",
        confidence=cause.confidence,
        place=cause.place,
        evidence=cause.evidence,
        because=cause.key,
    )


def _is_met(vip: Vip, step: ResolvedStep) -> bool:
    """Whether the logical flow that acted is the VIP's: its match names the address, and the port if there is one."""
    words = step.object.match.replace("(", " ").replace(")", " ").split()
    return vip.address in words and (not vip.port or str(vip.port) in words)


def _written(vips: list[Vip]) -> str:
    """VIPs as a user writes them."""
    return ", ".join(
        dict.fromkeys(
            (f"[{v.address}]:{v.port}" if ":" in v.address else f"{v.address}:{v.port}") if v.port else v.address
            for v in vips
        )
    )
