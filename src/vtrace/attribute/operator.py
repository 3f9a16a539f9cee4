"""What ended a packet on a bridge whose entries an operator wrote: the entry, the table without one, the port."""

from __future__ import annotations

import msgspec

from vtrace.model.inspection import Inspection, ResolvedStep
from vtrace.model.inventory import Inventory


class OperatorEnd(msgspec.Struct, frozen=True, kw_only=True):
    """Where it ended and why, in words. `sure` is false where somebody else may still send it on."""

    step: ResolvedStep
    text: str
    summary: str
    fix: str
    sure: bool = True


def ended_by(inspection: Inspection, server: str) -> OperatorEnd | None:
    """What ended a packet; None where nothing did, or no entry of an operator's."""
    if not inspection.steps or inspection.steps[-1].object.kind != "operator":
        return None
    if inspection.outcome not in ("drop", "controller"):
        return None
    step = inspection.steps[-1]
    text, bridge = entry_text(step), inspection.bridge
    selection = text.partition(" actions=")[0]
    look = f"on {server}: ovs-ofctl dump-flows {bridge} table={step.table}"
    remove = f"on {server}: ovs-ofctl --strict del-flows {bridge} '{selection}'"
    if step.priority < 0:
        missing = f"table {step.table} of the bridge {bridge} on {server} has no entry for it, so it ended there"
        return OperatorEnd(step=step, text=f"table={step.table}", summary=missing, fix=look)
    ports = [action.partition(":")[2] for action in step.actions if action.startswith("output:")]
    if inspection.outcome == "controller":
        summary = f"the entry {text} of the bridge {bridge} on {server} sends it to a controller and outputs it nowhere"
        return OperatorEnd(step=step, text=text, summary=summary, fix=look, sure=False)
    if ports:
        why = "; ".join(inspection.errors) or "nothing went out by it"
        summary = f"the entry {text} of the bridge {bridge} on {server} outputs it to port {', '.join(ports)}: {why}"
        return OperatorEnd(step=step, text=text, summary=summary, fix=f"on {server}: ovs-ofctl show {bridge}; {look}")
    if inspection.errors:
        return None
    if step.actions in ((), ("drop",)):
        summary = f"the entry {text} of the bridge {bridge} on {server} drops it"
        return OperatorEnd(step=step, text=text, summary=summary, fix=remove)
    summary = f"the entry {text} of the bridge {bridge} on {server} is the last that it met, and outputs it nowhere"
    return OperatorEnd(step=step, text=text, summary=summary, fix=look)


def entry_text(step: ResolvedStep) -> str:
    """An entry as `ovs-ofctl add-flow` takes it; a table without one by its number."""
    if step.priority < 0:
        return f"table={step.table}"
    match = f",{step.match}" if step.match else ""
    return f"table={step.table},priority={step.priority}{match} actions={','.join(step.actions) or 'drop'}"


def port_type(inventory: Inventory) -> str:
    """What answers call the type of a VM's port."""
    return "Interface" if inventory.plain else "Logical_Switch_Port"
