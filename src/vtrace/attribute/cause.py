"""What a cause is, and how it is told: the trace as evidence, an entry as text, times."""

from __future__ import annotations

import datetime

import msgspec

from vtrace.model.answer import Evidence, ObjectRef
from vtrace.model.inspection import Inspection, ResolvedStep
from vtrace.model.inventory import Inventory

SEEN_ACTING = 1.0
CONCLUDED = 0.8
CANDIDATE = 0.5


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A place inside a chassis: logical datapath and ports, by tunnel key (0: not known)."""

    datapath: int = 0
    in_key: int = 0
    out_key: int = 0


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Why packets ended at a place, and what was seen that says so.

    `key` tells two causes apart: equal keys are the same cause. `balancer` is the load balancer that ended it itself:
    the device that answers name then. `because` is the key of the cause behind this one, if an inspection shows that.
    `needs_bytes` is how long a packet the object would have to carry.
    """

    code: str
    actor: str
    summary: str
    object: ObjectRef | None = None
    fix: str | None = None
    confidence: float = CONCLUDED
    place: Place = Place()
    evidence: tuple[Evidence, ...] = ()
    balancer: str = ""
    because: tuple[str, ...] = ()
    needs_bytes: int = 0

    @property
    def key(self) -> tuple[str, ...]:
        named = self.object
        return (self.code, named.type, named.uuid, named.name) if named else (self.code,)


def trace_evidence(inspection: Inspection, inventory: Inventory) -> Evidence:
    """The inspection's own text, as evidence: the entries it passed and how it ended."""
    last = [step_text(step) for step in inspection.steps[-3:]]
    ending = ", ".join(inspection.errors) or inspection.outcome
    return Evidence(
        source=trace_command(inspection),
        text="; ".join([*last, f"ends in: {ending}"]),
        chassis=inventory.server(inspection.chassis),
        at=rfc3339(inspection.wall_ns),
    )


def trace_command(inspection: Inspection) -> str:
    """The command that makes the same trace again."""
    states = "".join(f" --ct-next '{state}'" for state in inspection.ct_next)
    return f"ovs-appctl ofproto/trace {inspection.bridge} '{inspection.flow}'{states}"


def rfc3339(wall_ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 text in UTC."""
    moment = datetime.datetime.fromtimestamp(wall_ns / 1e9, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def step_text(step: ResolvedStep) -> str:
    match = f",{step.match}" if step.match else ""
    actions = ",".join(step.actions) or "drop"
    return f"table={step.table}{match},priority={step.priority},cookie=0x{step.cookie:x} actions={actions}"


def last_step(inspection: Inspection) -> ResolvedStep | None:
    return inspection.steps[-1] if inspection.steps else None


def here(step: ResolvedStep | None) -> Place:
    return Place(datapath=step.datapath, in_key=step.in_key, out_key=step.out_key) if step else Place()
