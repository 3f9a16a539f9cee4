"""Entries of OVN whose rows are gone: for a moment they look like somebody else's. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from vtrace.model.inspection import Inspection, ResolvedStep
from vtrace.model.inventory import OvnObject

_COOKIE_BITS = 32


def without_row(inspection: Inspection) -> frozenset[int]:
    """Cookies like those of OVN, the first 32 bits of a row's uuid, that no row has."""
    return frozenset(
        step.cookie
        for step in inspection.steps
        if step.object.kind == "foreign" and step.cookie and not step.cookie >> _COOKIE_BITS and not step.bridge
    )


def outdated(inspection: Inspection, gone: frozenset[int]) -> Inspection:
    """The inspection, with entries that were taken away after it known as OVN's own."""
    old = [step for step in inspection.steps if step.cookie in gone]
    if inspection.outcome != "drop" or inspection.steps[-1] not in old:
        return replace(inspection, steps=tuple(_of_ovn(s) if s in old else s for s in inspection.steps))
    last = inspection.steps[-1]
    text = f"the entry table={last.table},priority={last.priority},{last.match} stood there without a row"
    return replace(inspection, steps=tuple(_of_ovn(s) if s in old else s for s in inspection.steps), lagging=text)


def _of_ovn(step: ResolvedStep) -> ResolvedStep:
    return replace(step, object=OvnObject(kind="default"))
