"""Reasons that a router gives: routes, policies, TTLs, next hops; and the rounds that packets make between routers."""

from __future__ import annotations

from vtrace.attribute.cause import Cause, here
from vtrace.model.answer import ObjectRef
from vtrace.model.inspection import Inspection, ResolvedStep
from vtrace.model.inventory import Inventory, LogicalDatapath


def device_name(inventory: Inventory, step: ResolvedStep) -> str:
    """The logical switch or router that a look-up was in."""
    found = inventory.datapath(step.datapath)
    return found.name if found else "?"


def routing(inspection: Inspection, step: ResolvedStep, inventory: Inventory) -> Cause | None:
    router = inventory.datapath(step.datapath)
    if step.object.row_table == "Logical_Router_Static_Route":
        return Cause(
            code="blackhole_route",
            actor="tenant",
            summary=f"the route {step.object.row.get('ip_prefix', '')} of {device_name(inventory, step)} says discard",
            object=ObjectRef(
                type=step.object.row_table, uuid=step.object.row_uuid, name=step.object.row.get("ip_prefix", "")
            ),
            fix=f"ovn-nbctl lr-route-del {device_name(inventory, step)} {step.object.row.get('ip_prefix', '')}",
            place=here(step),
        )
    return Cause(
        code="no_route",
        actor="tenant",
        summary=f"the router {device_name(inventory, step)} has no route that matches the destination"
        + (f" {inspection.dst}" if inspection.dst else ""),
        object=ObjectRef(
            type="Logical_Router", uuid=router.nb_uuid if router else "", name=router.name if router else "?"
        ),
        fix=f"ovn-nbctl lr-route-list {device_name(inventory, step)}; "
        f"ovn-nbctl lr-route-add {device_name(inventory, step)} {inspection.dst or 'PREFIX'} NEXTHOP",
        place=here(step),
    )


def policy(inspection: Inspection, step: ResolvedStep, inventory: Inventory) -> Cause | None:
    if step.object.row_table != "Logical_Router_Policy":
        return None
    row = step.object.row
    return Cause(
        code="policy_route_drop",
        actor="tenant",
        summary=f"the router policy {row.get('priority', '')} {row.get('match', '')!r} of "
        f"{device_name(inventory, step)} drops it",
        object=ObjectRef(type=step.object.row_table, uuid=step.object.row_uuid, name=row.get("match", "")),
        fix=f"ovn-nbctl lr-policy-del {device_name(inventory, step)} {row.get('priority', '')} "
        f"'{row.get('match', '')}'",
        place=here(step),
    )


def ip_input(inspection: Inspection, step: ResolvedStep, inventory: Inventory) -> Cause | None:
    if "ip.ttl" not in step.object.match:
        return None
    router = inventory.datapath(step.datapath)
    return Cause(
        code="ttl_exceeded",
        actor="tenant",
        summary=f"its TTL ended at the router {device_name(inventory, step)}{meant_for(inspection)}"
        + round_text(inspection, inventory),
        fix=loop_fix(inspection, inventory)
        or f"ovn-nbctl lr-route-list {device_name(inventory, step)}; does the sender give its packets a higher TTL?",
        object=ObjectRef(
            type="Logical_Router", uuid=router.nb_uuid if router else "", name=router.name if router else "?"
        ),
        place=here(step),
    )


def neighbor(inspection: Inspection, step: ResolvedStep, inventory: Inventory) -> Cause | None:
    port = inventory.port_by_key(step.datapath, step.out_key)
    name = port.name.removeprefix("cr-") if port else "?"
    router, hop = device_name(inventory, step), inspection.next_hop
    return Cause(
        code="neighbor_unresolved",
        actor="provider",
        summary=f"the router {router} does not know the MAC address of the next hop{f' {hop}' if hop else ''} "
        f"behind its port {name}{meant_for(inspection)}: its ARP or ND stays unanswered",
        object=ObjectRef(type="Logical_Router_Port", uuid=port.nb_uuid if port else "", name=name),
        fix=f"is {hop or 'the next hop'} up, and does it answer ARP or ND? "
        f"ovn-sbctl find MAC_Binding logical_port={name}"
        + (f" 'ip=\"{hop}\"'" if hop else "")
        + f"; is the route right? ovn-nbctl lr-route-list {router}",
        place=here(step),
    )


def meant_for(inspection: Inspection) -> str:
    """Whom the packet was for, where that is known."""
    return f" (it was for {inspection.dst})" if inspection.dst else ""


def _loop(inspection: Inspection, inventory: Inventory) -> list[LogicalDatapath]:
    """The devices that a packet passes a second time, in the order of the first time; none where it goes straight."""
    visits = [step.datapath for step in inspection.steps if step.datapath]
    visits = [key for number, key in enumerate(visits) if number == 0 or visits[number - 1] != key]
    again = {key for key in visits if visits.count(key) > 1}
    return [d for key in dict.fromkeys(visits) if key in again and (d := inventory.datapath(key)) is not None]


def round_text(inspection: Inspection, inventory: Inventory) -> str:
    names = [device.name for device in _loop(inspection, inventory)]
    return f"; it goes round {' → '.join((*names, names[0]))}" if len(names) > 1 else ""


def loop_fix(inspection: Inspection, inventory: Inventory) -> str | None:
    routers = [device.name for device in _loop(inspection, inventory) if device.kind != "vswitch"]
    return "; ".join(f"ovn-nbctl lr-route-list {name}" for name in routers) or None
