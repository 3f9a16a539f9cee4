"""What inspections show, in the form that travels with the records that they explain."""

from __future__ import annotations

from msgspec.structs import replace

from vtrace.attribute.case import Case
from vtrace.attribute.causes import find_cause
from vtrace.model.answer import ObjectRef
from vtrace.model.inspection import Inspection
from vtrace.model.record import EvidenceRecord


def evidence_records(case: Case, task: str) -> tuple[EvidenceRecord, ...]:
    """One for each inspection of colored packets, oldest first; with the reason, where it shows one by itself."""
    return tuple(_evidence(case, task, inspection) for inspection in case.inspections if not inspection.uncolored)


def _evidence(case: Case, task: str, inspection: Inspection) -> EvidenceRecord:
    made = EvidenceRecord(
        task=task,
        pair=inspection.pair,
        chassis=inspection.chassis,
        flow=inspection.flow_id,
        wall_ns=inspection.wall_ns,
        mono_ns=inspection.mono_ns,
        outcome=inspection.outcome,
    )
    cause = find_cause(inspection, case.inventory)
    if cause is None:
        return made
    named = cause.object or ObjectRef(type="")
    return replace(
        made,
        code=cause.code,
        actor=cause.actor,
        summary=cause.summary,
        fix=cause.fix or "",
        object_type=named.type,
        object_uuid=named.uuid,
        object_name=named.name,
        datapath=cause.place.datapath,
        in_key=cause.place.in_key,
        out_key=cause.place.out_key,
    )
