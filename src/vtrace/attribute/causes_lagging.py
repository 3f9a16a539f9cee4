"""Reasons of a bridge that does not do what the southbound database says."""

from __future__ import annotations

from vtrace.attribute.cause import Cause, here, last_step, rfc3339
from vtrace.model.answer import Evidence, ObjectRef
from vtrace.model.inspection import Inspection
from vtrace.model.inventory import Inventory

_STATUS = "ovn-appctl -t ovn-controller connection-status"
_ENTRIES = "ovs-ofctl dump-flows"


def lagging_bridge(inspection: Inspection, inventory: Inventory) -> Cause | None:
    """An entry that outlived its row, or a row that has no entry: what it did is not what the database says."""
    if not inspection.lagging:
        return None
    server = inventory.server(inspection.chassis)
    chassis = inventory.chassis_named(inspection.chassis)
    behind = inspection.controller
    return Cause(
        code="stale_flow_entry",
        actor="provider",
        summary=f"the bridge {inspection.bridge} of {server} lags behind the southbound database: {inspection.lagging}"
        + (f"; ovn-controller there {behind}" if behind else ""),
        object=ObjectRef(type="Chassis", uuid=chassis.uuid if chassis else "", name=inspection.chassis),
        fix=_fix(server, behind, inspection.bridge),
        place=here(last_step(inspection)),
        evidence=(
            Evidence(
                source=f"{_STATUS}; {_ENTRIES} {inspection.bridge}",
                text=f"{inspection.lagging}; ovn-controller {behind or 'answers and is connected'}",
                chassis=server,
                at=rfc3339(inspection.wall_ns),
            ),
        ),
    )


def _fix(server: str, behind: str, bridge: str) -> str:
    if "connected" in behind:
        return (
            f"on {server}: {_STATUS}; ovs-vsctl get Open_vSwitch . external_ids:ovn-remote; is that address reachable?"
        )
    if "paused" in behind:
        return f"on {server}: ovn-appctl -t ovn-controller debug/resume"
    if behind:
        return f"on {server}: {_STATUS}; is the process alive, stopped, busy? Restart ovn-controller"
    # It remembers what it put in, so a recompute alone does not bring back what somebody else deleted.
    return f"on {server}: {_ENTRIES} {bridge}; restart ovn-controller: it then puts all entries in anew"
