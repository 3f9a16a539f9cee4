"""Fragments that are dropped for being fragments: by the bridge's mode, or by what conntrack takes of them."""

from __future__ import annotations

from msgspec.structs import replace

from vtrace.attribute.cause import Cause, here, last_step, rfc3339
from vtrace.model.answer import Evidence, ObjectRef
from vtrace.model.inspection import Inspection
from vtrace.model.inventory import Inventory

# What a trace prints instead of a look-up (xlate_report_table of ofproto-dpif-xlate.c).
_MODE = "Packets are IP fragments"


def dropped_by_mode(inspection: Inspection, inventory: Inventory) -> Cause | None:
    """The bridge drops whatever is a fragment, before it looks anything up (OFPC_FRAG_DROP)."""
    step = last_step(inspection)
    if inspection.outcome != "drop" or step is None or not step.match.startswith(_MODE):
        return None
    server, bridge = inventory.server(inspection.chassis), inspection.bridge
    return Cause(
        code="fragment_dropped",
        actor="provider",
        summary=f"it is a fragment, and the bridge {bridge} of {server} drops all of them (fragment mode drop)",
        object=ObjectRef(type="Bridge", name=bridge),
        fix=f"on {server}: ovs-ofctl get-frags {bridge}; ovs-ofctl set-frags {bridge} normal",
        place=here(step),
    )


def refused_by_conntrack(cause: Cause, inspection: Inspection, inventory: Inventory) -> Cause:
    """The cause, or what made conntrack call a fragment invalid.

    Open vSwitch's own conntrack puts fragments together to look at them, and takes not all of them (ipf.c).
    """
    if cause.code != "ct_invalid" or "ip_frag=" not in inspection.flow:
        return cause
    family = "v6" if "ipv6" in inspection.flow else "v4"
    found = next((r for r in inspection.refused_fragments if r.family == family), None)
    if found is None:
        return cause
    server = inventory.server(inspection.chassis)
    short = "too short" in found.counts
    reasons = ", ".join(f"{count} {name}" for name, count in found.counts.items())
    takes = f"takes none shorter than {found.shortest} bytes but the last of a packet" if short else "took not all"
    raise_it = f"; or on {server}: ovs-appctl dpctl/ipf-set-min-frag {family} BYTES" if short else ""
    return replace(
        cause,
        code="fragment_dropped",
        actor="provider",
        summary=f"it is a fragment, and Open vSwitch's conntrack on {server} {takes}: it called {reasons} "
        f"invalid while the task ran; {cause.summary}",
        object=ObjectRef(type="Datapath", name=found.datapath),
        fix=f"let the sender make no fragments, or longer ones (its MTU){raise_it}",
        evidence=(
            *cause.evidence,
            Evidence(
                source="ovs-appctl dpctl/ipf-get-status",
                text=f"{family} frags: {reasons} more since the task began; min {family} frag size {found.shortest}",
                chassis=server,
                at=rfc3339(inspection.wall_ns),
            ),
        ),
    )
