"""Reasons at the edge of a domain: gateway ports that nobody has, and bridges of the provider beyond OVN's."""

from __future__ import annotations

from collections.abc import Sequence

from vtrace.attribute import fixes
from vtrace.attribute.cause import CONCLUDED, Cause, Place, here, last_step, step_text
from vtrace.model.answer import ObjectRef
from vtrace.model.inspection import Inspection, ResolvedStep
from vtrace.model.inventory import Inventory, LogicalPort


def other_bridge(inspection: Inspection, inventory: Inventory) -> Cause | None:
    """An entry of a bridge that is not OVN's ended it: before it came to OVN's, or after it had left that."""
    if inspection.outcome != "drop" or inspection.errors:
        return None
    step = next((s for s in inspection.elsewhere if s.actions in ((), ("drop",))), None)
    if step is None:
        return None
    server, text = inventory.server(inspection.chassis), step_text(step)
    missing = step.priority < 0
    summary = f"table {step.table} of it has no entry for it" if missing else f"its entry {text} dropped it"
    return Cause(
        code="foreign_flow_entry",
        actor="provider",
        summary=f"the bridge {step.bridge} of {server}, which is not OVN's, ended it: {summary}",
        object=ObjectRef(type="OpenFlow entry", uuid=f"0x{step.cookie:x}", name=f"bridge={step.bridge},{text}"),
        fix=f"on {server}: ovs-ofctl dump-flows {step.bridge}"
        if missing
        else fixes.delete_entry(server, step, step.bridge),
        place=here(last_step(inspection)),
    )


def gateway(inspection: Inspection, inventory: Inventory) -> Cause | None:
    """It was to go out by a gateway port, and no live server has that, or the one it came to does not."""
    step = last_step(inspection)
    if inspection.outcome != "drop" or step is None or step.object.kind == "logical_flow":
        return None
    port = inventory.port_by_key(step.datapath, step.out_key)
    if port is None or port.type not in ("chassisredirect", "l3gateway"):
        return None
    if not port.chassis:
        return _unavailable(port, step, inventory, f"no live server has {_named(port)}{_may_have(port, inventory)}")
    if port.chassis == inspection.chassis:
        return None
    holder, here_ = inventory.server(port.chassis), inventory.server(inspection.chassis)
    sender = _sender(inspection, inventory)
    if sender:
        return _unavailable(
            port,
            step,
            inventory,
            f"{sender} sent it to {here_}, which does not have {_named(port)}: {holder} has it, and {sender} takes "
            f"{holder} for dead, since their BFD session is down",
            fix=f"on {sender}: ovs-vsctl --columns=name,bfd_status find Interface type=geneve; check the network "
            f"between {sender} and {holder}",
        )
    return _unavailable(
        port,
        step,
        inventory,
        f"{here_} takes every server that may have {_named(port)} for dead: it sees no BFD session with "
        f"{', '.join(sorted({holder, *map(inventory.server, port.standby)}))}",
        fix=f"on {here_}: ovs-vsctl --columns=name,bfd_status find Interface type=geneve",
    )


def no_gateway(ports: Sequence[LogicalPort], inventory: Inventory) -> Cause | None:
    """Of the gateway ports by which traffic would come in: one that no live server has."""
    dead = next((p for p in ports if p.type in ("chassisredirect", "l3gateway") and not p.chassis), None)
    if dead is None:
        return None
    why = f"no live server has {_named(dead)}{_may_have(dead, inventory)}, so nobody answers for its addresses"
    return _unavailable(dead, None, inventory, why)


def silent_gateway(port: LogicalPort, chassis: str, inventory: Inventory) -> Cause | None:
    """A gateway port on a chassis whose Open vSwitch answers nothing: what is sent there goes no further."""
    if port.type not in ("chassisredirect", "l3gateway"):
        return None
    server = inventory.server(chassis)
    has = "has" if port.chassis == chassis else "had"
    why = f"{server} {has} {_named(port)}, and its Open vSwitch does not answer"
    return _unavailable(port, None, inventory, why, f"on {server}: is ovs-vswitchd alive? ovs-appctl version")


def _unavailable(
    port: LogicalPort, step: ResolvedStep | None, inventory: Inventory, summary: str, fix: str = ""
) -> Cause:
    router_port = port.name.removeprefix("cr-")
    group = ObjectRef(type="HA_Chassis_Group", uuid=port.ha_group, name=router_port)
    single = ObjectRef(type="Chassis", name=port.pinned or port.chassis or next(iter(port.standby), ""))
    return Cause(
        code="gateway_unavailable",
        actor="provider",
        summary=summary,
        object=group if port.ha_group else single,
        fix=fix
        or f"ovn-sbctl find Port_Binding logical_port={port.name}; ovn-nbctl lrp-get-gateway-chassis {router_port}; "
        "ovn-sbctl show: does ovn-controller run there?",
        confidence=CONCLUDED,
        place=here(step) if step else Place(),
    )


def _named(port: LogicalPort) -> str:
    return f"the gateway port {port.name.removeprefix('cr-')}"


def _may_have(port: LogicalPort, inventory: Inventory) -> str:
    may = dict.fromkeys(filter(None, (port.pinned, *port.standby)))
    names = ", ".join(inventory.server(name) for name in may)
    return f" (it may be on {names})" if names else ""


def _sender(inspection: Inspection, inventory: Inventory) -> str:
    """The server that a packet came from, where it came by a tunnel."""
    words = dict(word.partition("=")[::2] for word in inspection.entry.split(","))
    address = words.get("tun_src") or words.get("tun_ipv6_src")
    return next((c.server for c in inventory.chassis if address in c.encap_ips), "") if address else ""
