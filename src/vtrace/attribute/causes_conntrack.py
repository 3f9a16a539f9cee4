"""Reasons of conntrack: packets that it calls invalid, connections that it has no room for."""

from __future__ import annotations

import re

from vtrace.attribute.cause import CONCLUDED, Cause, here, last_step, rfc3339
from vtrace.attribute.causes_routing import device_name, meant_for
from vtrace.model.answer import Evidence, ObjectRef
from vtrace.model.inspection import CtZone, Inspection, ResolvedStep
from vtrace.model.inventory import Inventory

_REPLY = 1
_SYN, _ACK = 0x02, 0x10


def ct_invalid(inspection: Inspection, step: ResolvedStep, inventory: Inventory) -> Cause:
    """A logical flow drops what conntrack called invalid."""
    server, device = inventory.server(inspection.chassis), device_name(inventory, step)
    zone = f" zone={inspection.ct_zone}" if inspection.ct_zone else ""
    return Cause(
        code="ct_invalid",
        actor="guest",
        summary=f"conntrack called it invalid{f' (zone {inspection.ct_zone})' if zone else ''} and {device} drops such "
        f"packets{meant_for(inspection)}: a wrong checksum, a TCP packet out of its window, or no part of a connection",
        object=ObjectRef(type="Logical_Flow", uuid=step.object.flow_uuid, name=step.object.stage),
        fix=f"on {server}: ovs-appctl dpctl/dump-conntrack{zone}; in the sender: does its card make the checksums that "
        "it is left (ethtool -k), do both directions of the connection come this way?",
        place=here(step),
    )


def ct_limit(inspection: Inspection, inventory: Inventory) -> Cause | None:
    """An answer that an ACL took for a new connection, since conntrack had no room for its connection.

    Open vSwitch's own conntrack lets packets of what it can't remember pass as new ones (conntrack.c, conn_not_found).
    """
    step = last_step(inspection)
    full = next((zone for zone in inspection.ct_zones if zone.limit and zone.count >= zone.limit), None)
    if step is None or full is None or not inspection.ct_new or "acl" not in step.object.stage:
        return None
    if inspection.outcome not in ("drop", "controller") or not _is_answer(inspection):
        return None
    server, device = inventory.server(inspection.chassis), inventory.datapath(step.datapath)
    shown = f"ovs-appctl dpctl/ct-get-limits zone={full.zone}"
    return Cause(
        code="ct_limit",
        actor="provider",
        summary=f"the conntrack zone {full.zone} on {server} is full ({_of(full)}), so the connection of this answer "
        f"is not known there and {device.name if device else '?'} drops it as a new one",
        object=ObjectRef(
            type="Logical_Datapath", uuid=device.sb_uuid if device else "", name=device.name if device else "?"
        ),
        fix=f"on {server}: {shown}; ovs-appctl dpctl/ct-set-limits zone={full.zone},limit=MORE; "
        f"ovs-appctl dpctl/dump-conntrack zone={full.zone}",
        confidence=CONCLUDED,
        place=here(step),
        evidence=(
            Evidence(
                source=shown,
                text=f"zone {full.zone}: {_of(full)}; conntrack took the packet for new",
                chassis=server,
                at=rfc3339(inspection.wall_ns),
            ),
        ),
    )


def _of(zone: CtZone) -> str:
    return f"{zone.count} connections of at most {zone.limit}"


def _is_answer(inspection: Inspection) -> bool:
    """Whether the packet can't begin a connection: TCP says so itself, else the task does by asking for the reply."""
    flags = re.search(r"tcp_flags=(0x[0-9a-f]+)", inspection.flow)
    if flags:
        return not int(flags[1], 16) & _SYN or bool(int(flags[1], 16) & _ACK)
    return inspection.direction == _REPLY
