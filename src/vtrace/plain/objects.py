"""What the entries of a bridge without OVN stand for: nothing but themselves. The operator wrote them."""

from __future__ import annotations

from vtrace.color.registry import is_ours
from vtrace.model.inspection import Inspection, ResolvedStep, SiteReport
from vtrace.model.inventory import Inventory, OvnObject
from vtrace.model.openflow import BridgeLayout

OPERATOR = OvnObject(kind="operator")


class PlainObjects:
    """Stands where the OVN databases' `ObjectResolver` does."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    async def inspection(self, report: SiteReport, layout: BridgeLayout) -> Inspection:
        """The report, without our own entries and those of other bridges."""
        del layout
        own = next((d for d in self._inventory.datapaths if report.chassis in d.chassis), None)
        bridge = report.trace.steps[0].bridge if report.trace.steps else ""
        steps = tuple(
            ResolvedStep(
                table=step.table,
                priority=step.priority,
                cookie=step.cookie,
                match=step.match,
                actions=step.actions,
                datapath=own.key if own else 0,
                in_key=0,
                out_key=0,
                object=OPERATOR,
            )
            for step in report.trace.steps
            if step.table >= 0 and step.bridge == bridge and not is_ours(step.cookie)
        )
        return Inspection(
            chassis=report.chassis,
            bridge=bridge or (own.name if own else ""),
            pair=report.pair,
            direction=report.direction,
            wall_ns=report.wall_ns,
            mono_ns=report.mono_ns,
            entry=report.entry,
            flow=report.flow,
            flow_id=report.flow_id,
            ct_next=report.ct_next,
            uncolored=report.uncolored,
            steps=steps,
            outcome=report.outcome,
            outputs=report.outputs,
            errors=report.trace.errors,
            real_drop=report.real_drop,
            meters=report.meters,
            ports=report.ports,
            exits=report.exits,
            entrances=report.entrances,
            overhead_bytes=report.overhead_bytes,
            refused_fragments=report.refused_fragments,
            lost_upcalls=report.lost_upcalls,
            text=report.trace.text,
        )
