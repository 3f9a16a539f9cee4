"""From an inspection to a reason: what ended a packet on a chassis (docs/reasons.md says when each code holds)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import msgspec.structs

from vtrace.attribute import fixes
from vtrace.attribute.cause import CANDIDATE, CONCLUDED, SEEN_ACTING, Cause, here, last_step, step_text, trace_evidence
from vtrace.attribute.cause import rfc3339 as rfc3339
from vtrace.attribute.causes_balancer import balancer
from vtrace.attribute.causes_conntrack import ct_invalid, ct_limit
from vtrace.attribute.causes_fragment import dropped_by_mode, refused_by_conntrack
from vtrace.attribute.causes_gateway import gateway, other_bridge
from vtrace.attribute.causes_lagging import lagging_bridge
from vtrace.attribute.causes_routing import (
    device_name,
    ip_input,
    loop_fix,
    meant_for,
    neighbor,
    policy,
    round_text,
    routing,
)
from vtrace.attribute.operator import ended_by
from vtrace.model.answer import ObjectRef
from vtrace.model.inspection import Inspection, ResolvedStep
from vtrace.model.inventory import Inventory, LogicalPort

Rule = Callable[[Inspection, Inventory], Cause | None]


def find_cause(inspection: Inspection, inventory: Inventory) -> Cause | None:
    """The cause that an inspection shows, or None where it shows that the packet should have passed."""
    inventory = inventory.with_ports(inspection.others)
    for rule in _RULES:
        cause = rule(inspection, inventory)
        if cause is not None:
            cause = refused_by_conntrack(cause, inspection, inventory)
            seen = inspection.real_drop or cause.code in _COUNTED
            confidence = SEEN_ACTING if seen and cause.code != "unknown" else cause.confidence
            return msgspec.structs.replace(
                cause, confidence=confidence, evidence=(*cause.evidence, trace_evidence(inspection, inventory))
            )
    return None


def _port(inventory: Inventory, step: ResolvedStep, *, out: bool) -> LogicalPort | None:
    return inventory.port_by_key(step.datapath, step.out_key if out else step.in_key)


def _foreign_entry(inspection: Inspection, inventory: Inventory) -> Cause | None:
    """An entry that neither ovn-controller nor we made, in the way of a packet that did not come out."""
    foreign = [step for step in inspection.steps if step.object.kind == "foreign"]
    last = last_step(inspection)
    if last is not None and (inspection.outcome != "drop" or last.object.row_uuid):
        # It came through, or a row of the tenant's ended it: entries that only pass on had no part in that.
        foreign = [step for step in foreign if not _passes_on(step)]
    if not foreign:
        return None
    step = foreign[-1]
    text = step_text(step)
    return Cause(
        code="foreign_flow_entry",
        actor="provider",
        summary=f"an OpenFlow entry that OVN did not make ended or diverted it: {text}",
        object=ObjectRef(type="OpenFlow entry", uuid=f"0x{step.cookie:x}", name=text),
        fix=fixes.delete_entry(inventory.server(inspection.chassis), step, inspection.bridge),
        place=here(step),
    )


def _operator_entry(inspection: Inspection, inventory: Inventory) -> Cause | None:
    """Without OVN every entry is somebody's own: the one that ended it is named."""
    found = ended_by(inspection, inventory.server(inspection.chassis))
    if found is None:
        return None
    return Cause(
        code="foreign_flow_entry",
        actor="provider",
        summary=found.summary,
        object=ObjectRef(type="OpenFlow entry", uuid=f"0x{found.step.cookie:x}", name=found.text),
        fix=found.fix,
        confidence=CONCLUDED if found.sure else CANDIDATE,
        place=here(found.step),
    )


def _passes_on(step: ResolvedStep) -> bool:
    """Whether an entry does nothing but go on to the next table."""
    return step.actions == (f"resubmit(,{step.table + 1})",)


def _translation_error(inspection: Inspection, inventory: Inventory) -> Cause | None:
    if not inspection.errors:
        return None
    step = last_step(inspection)
    text = "; ".join(inspection.errors)
    if _NO_PORT in text and step is not None and not _lacks_tunnel(inspection):
        # The entries still lead to the interface of a port that is bound here, and it is gone.
        port = _port(inventory, step, out=True)
        if port is not None and not port.type and port.chassis == inspection.chassis:
            return _vif_missing(port, inspection, step, inventory)
    if any(word in text.lower() for word in ("tunnel", "neighbor", "neighbour")) or _lacks_tunnel(inspection):
        return Cause(
            code="tunnel_unreachable",
            actor="provider",
            summary=f"the server could not send it by its tunnel: {text}",
            object=ObjectRef(type="Tunnel", name=",".join(inspection.outputs)),
            fix=f"on {inventory.server(inspection.chassis)}: ovs-appctl ovs/route/show; ovs-appctl tnl/neigh/show",
            place=here(step),
        )
    return Cause(
        code="vswitch_pipeline_error",
        actor="provider",
        summary=f"Open vSwitch could not translate it: {text}{round_text(inspection, inventory)}",
        object=ObjectRef(type="Chassis", name=inspection.chassis),
        fix=loop_fix(inspection, inventory)
        or f"on {inventory.server(inspection.chassis)}: the trace in the evidence, which tables does it pass again and "
        "again? ovs-appctl coverage/show",
        place=here(step),
    )


# What Open vSwitch says of an output to a port number that no interface has.
_NO_PORT = "Nonexistent output port"


def _lacks_tunnel(inspection: Inspection) -> bool:
    """Whether the port that there is not was to take it to another server: OVN gives it a tunnel key before."""
    sent = [s for s in inspection.steps if any(a.startswith("output:") for a in s.actions)]
    return _NO_PORT in inspection.errors and any("tun_id" in a for s in sent for a in s.actions)


def _logical_drop(inspection: Inspection, inventory: Inventory) -> Cause | None:
    """A logical flow ended it: the stage says what kind of reason, the row behind it which."""
    step = last_step(inspection)
    if inspection.outcome not in ("drop", "controller") or step is None or step.object.kind != "logical_flow":
        return None
    for word, rule in _STAGES:
        if word in step.object.stage:
            cause = rule(inspection, step, inventory)
            if cause is not None:
                return cause
    return Cause(
        code="unknown",
        actor="unknown",
        summary=f"a logical flow of stage {step.object.stage} of {device_name(inventory, step)} dropped it: "
        f"{step.object.match}",
        object=ObjectRef(type="Logical_Flow", uuid=step.object.flow_uuid, name=step.object.stage),
        confidence=CANDIDATE,
        place=here(step),
    )


def _acl(inspection: Inspection, step: ResolvedStep, inventory: Inventory) -> Cause | None:
    acl = step
    if step.object.row_table != "ACL":
        # Since 23.06 the stage that drops has no row: it carries out what an entry of the stage before it decided.
        acl = _decided(inspection, step)
        if acl.object.row_table != "ACL" and "ct.inv" in acl.object.match:
            return _blocked(step, inventory) if "+rpl" in acl.match else ct_invalid(inspection, step, inventory)
        if acl.object.row.get("action") not in ("drop", "reject"):
            return None
    row = acl.object.row
    rejects = row.get("action") == "reject"
    name = acl.object.row_name or row.get("match", "")
    verb = "rejected" if rejects else "dropped"
    return Cause(
        code="acl_reject" if rejects else "acl_drop",
        actor="tenant",
        summary=f"the ACL {row.get('direction', '')} priority {row.get('priority', '')} "
        f"{row.get('match', '')!r} of {row.get('owner', device_name(inventory, step))} {verb} it",
        object=ObjectRef(type="ACL", uuid=acl.object.row_uuid, name=name),
        fix=fixes.acl(acl.object),
        place=here(step),
    )


def _decided(inspection: Inspection, step: ResolvedStep) -> ResolvedStep:
    """The last look-up, before an ACL action stage, in the evaluation stage that belongs to it."""
    stage = step.object.stage.removesuffix("_action") + "_eval"
    found = [s for s in inspection.steps if s.datapath == step.datapath and s.object.stage == stage]
    return found[-1] if found else step


def _blocked(step: ResolvedStep, inventory: Inventory) -> Cause:
    """A reply on a connection that an ACL has marked: northd drops these in the stage for invalid packets."""
    switch = device_name(inventory, step)
    return Cause(
        code="acl_drop",
        actor="tenant",
        summary=f"an ACL of {switch} blocks the connection's other direction, so its replies are dropped too",
        object=ObjectRef(type="ACL"),
        fix=f"ovn-nbctl acl-list {switch}",
        place=here(step),
    )


def _port_security(inspection: Inspection, step: ResolvedStep, inventory: Inventory) -> Cause | None:
    out = "_out_" in step.object.stage
    port = _port(inventory, step, out=out)
    name = port.name if port else "?"
    if port is not None and not port.enabled:
        return _disabled(step, port)
    allowed = ", ".join(port.port_security) if port else "?"
    which = "destination" if out else "source"
    return Cause(
        code="port_security",
        actor="tenant",
        summary=f"port security of {name} dropped it: its {which} address is not among {allowed}",
        object=ObjectRef(type="Logical_Switch_Port", uuid=port.nb_uuid if port else "", name=name),
        fix=fixes.port_security(name),
        place=here(step),
    )


def _disabled(step: ResolvedStep, port: LogicalPort) -> Cause:
    return Cause(
        code="port_disabled",
        actor="tenant",
        summary=f"the port {port.name} is disabled",
        object=ObjectRef(type="Logical_Switch_Port", uuid=port.nb_uuid, name=port.name),
        fix=f"ovn-nbctl lsp-set-enabled {port.name} enabled",
        place=here(step),
    )


def _unknown_mac(inspection: Inspection, step: ResolvedStep, inventory: Inventory) -> Cause | None:
    for port in inventory.ports:
        if port.datapath == step.datapath and not port.enabled and _goes_to(inspection, port):
            return _disabled(step, port)
    switch, mac = inventory.datapath(step.datapath), inspection.eth_dst
    return Cause(
        code="unknown_destination_mac",
        actor="tenant",
        summary=f"the switch {device_name(inventory, step)} has no port for the destination MAC address"
        f"{f' {mac}' if mac else ''}{meant_for(inspection)}",
        fix=f"ovn-nbctl show {device_name(inventory, step)}; ovn-nbctl lsp-set-addresses PORT "
        f"'{mac or 'MAC'} {inspection.dst or 'IP'}', or let the port learn: ovn-nbctl lsp-set-addresses PORT unknown",
        object=ObjectRef(
            type="Logical_Switch", uuid=switch.nb_uuid if switch else "", name=switch.name if switch else "?"
        ),
        place=here(step),
    )


def _goes_to(inspection: Inspection, port: LogicalPort) -> bool:
    """Whether the inspected flow's destination address is one of the port's."""
    fields = dict(word.partition("=")[::2] for word in inspection.flow.split(","))
    wanted = fields.get("nw_dst") or fields.get("ipv6_dst") or fields.get("arp_tpa") or fields.get("nd_target")
    return bool(wanted) and any(wanted in text.split() for text in port.addresses)


StageRule = Callable[[Inspection, ResolvedStep, Inventory], Cause | None]
# Words of logical stage names (ovn-northd(8)), the more special first.
_STAGES: tuple[tuple[str, StageRule], ...] = (
    ("port_sec", _port_security),
    ("acl", _acl),
    ("lb", balancer),
    ("dnat", balancer),
    ("ip_routing", routing),
    ("policy", policy),
    ("ip_input", ip_input),
    ("arp_re", neighbor),
    ("l2_unknown", _unknown_mac),
    ("l2_lkup", _unknown_mac),
)


def _physical_drop(inspection: Inspection, inventory: Inventory) -> Cause | None:
    """One of OVN's own defaults ended it: no entry for the out port."""
    step = last_step(inspection)
    if inspection.outcome != "drop" or step is None:
        return None
    port = _port(inventory, step, out=True)
    if port is None or port.type:
        return None
    reference = ObjectRef(type="Logical_Switch_Port", uuid=port.nb_uuid, name=port.name)
    if not port.enabled:
        return _disabled(step, port)
    moving = port.name in inventory.moved and port.chassis not in ("", inspection.chassis)
    if not port.chassis or moving:
        return Cause(
            code="port_unbound",
            actor="provider",
            summary=f"no chassis had bound the port {port.name} just then: it was moving"
            if moving
            else f"no chassis has bound the port {port.name}",
            object=reference,
            fix=f"ovn-sbctl find Port_Binding logical_port={port.name}; on its server: ovs-vsctl find Interface "
            f"external_ids:iface-id={port.name}",
            place=here(step),
        )
    return _vif_missing(port, inspection, step, inventory) if port.chassis == inspection.chassis else None


def _vif_missing(port: LogicalPort, inspection: Inspection, step: ResolvedStep, inventory: Inventory) -> Cause:
    return Cause(
        code="vif_down",
        actor="guest",
        summary=f"the port {port.name} is bound here, but its interface is missing, down or without a port number",
        object=ObjectRef(type="Interface", name=port.name),
        fix=f"on {inventory.server(port.chassis)}: ovs-vsctl find Interface external_ids:iface-id={port.name}",
        place=here(step),
    )


def _metered(inspection: Inspection, inventory: Inventory) -> Cause | None:
    """The pipeline would pass it, and a meter on its way cut packets while the task ran."""
    cut = {meter.meter_id: meter for meter in inspection.meters if meter.cut_packets > 0}
    for step in inspection.steps:
        for action in step.actions:
            word, _, number = action.partition(":")
            if word == "meter" and number.isdecimal() and int(number) in cut:
                return _rate_limit(step, cut[int(number)].cut_packets, inventory)
    return None


def _rate_limit(step: ResolvedStep, packets: int, inventory: Inventory) -> Cause:
    row = step.object
    limit = row.row.get("bandwidth") or "rate not known"
    what = f"the QoS row {row.row.get('match', '')!r}" if row.row_table == "QoS" else "a meter"
    return Cause(
        code="qos_rate_limit",
        actor="tenant",
        summary=f"{what} of {row.row.get('owner') or device_name(inventory, step)} limits it ({limit}, in kbit/s and "
        f"kbit) and cut {packets} packets while the task ran",
        object=ObjectRef(type=row.row_table or "QoS", uuid=row.row_uuid, name=row.row.get("match", "")),
        fix=fixes.qos(row),
        place=here(step),
    )


def _vif_down(inspection: Inspection, inventory: Inventory) -> Cause | None:
    """It was handed to an interface that is down, or in error."""
    if inspection.outcome != "output":
        return None
    for reading in inspection.ports:
        if str(reading.ofport) not in inspection.outputs:
            continue
        step = last_step(inspection)
        place = here(step)
        if reading.cut_off:
            cards = ", ".join(reading.behind)
            return Cause(
                code="vif_down",
                actor="provider",
                summary=f"no port of the bridge behind {reading.name} is up: {cards}",
                object=ObjectRef(type="Interface", name=reading.behind[0] if reading.behind else reading.name),
                fix=f"on {inventory.server(inspection.chassis)}: ovs-vsctl --columns=name,link_state list Interface",
                place=place,
            )
        if reading.error or not reading.admin_up or not reading.link_up:
            state = reading.error or ("administratively down" if not reading.admin_up else "link down")
            return Cause(
                code="vif_down",
                actor="guest",
                summary=f"the interface {reading.name} is {state}",
                object=ObjectRef(type="Interface", name=reading.name),
                fix=f"on {inventory.server(inspection.chassis)}: ovs-vsctl list Interface {reading.name}",
                place=place,
            )
    return None


# Codes that a counter proves: seen acting although the datapath flow ends in an output.
_COUNTED = ("qos_rate_limit",)
_RULES: tuple[Rule, ...] = (
    dropped_by_mode,
    _operator_entry,
    _foreign_entry,
    lagging_bridge,
    ct_limit,
    _translation_error,
    _logical_drop,
    other_bridge,
    gateway,
    _physical_drop,
    _metered,
    _vif_down,
)
