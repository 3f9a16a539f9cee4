"""Packets that a server lost before Open vSwitch had looked them up: it had no time for them."""

from __future__ import annotations

from collections.abc import Collection

from vtrace.attribute.case import Case
from vtrace.attribute.cause import CANDIDATE, CONCLUDED, Cause, rfc3339
from vtrace.model.answer import Evidence, ObjectRef
from vtrace.model.inspection import Inspection

# So many times the share that the counters show may have been lost of the task's packets, of a sample as small as that.
_MUCH_MORE = 2


def lost_by_receiver(case: Case, receiver: str, pairs: Collection[int], lost: int, passed: int) -> Cause | None:
    """An overload of the server that packets were sent to, if its counters explain what has no record there.

    They have to have grown by as many at least, and by no much smaller share of all that came in.
    """
    for inspection in reversed(case.inspections):
        if inspection.chassis != receiver or inspection.pair not in pairs or len(inspection.entrances) != 1:
            continue
        device = inspection.entrances[0]
        gone = device.rx_lost + inspection.lost_upcalls
        if gone < max(lost, 1) or lost * device.rx_packets > _MUCH_MORE * gone * (lost + passed):
            return None
        server = case.inventory.server(receiver)
        at = f"of {device.rx_packets} that came in by {device.name} " if device.rx_lost else ""
        return _cause(case, inspection, f"{server} lost {gone} packets {at}before Open vSwitch had looked them up")
    return None


def lost_on_the_way(case: Case, inspection: Inspection | None) -> Cause | None:
    """A candidate for a packet that vanished inside a server: its Open vSwitch could not look up all packets."""
    if inspection is None or inspection.lost_upcalls <= 0:
        return None
    server = case.inventory.server(inspection.chassis)
    told = (
        f"it went in and did not come out; meanwhile Open vSwitch of {server} lost {inspection.lost_upcalls} packets "
    )
    return _cause(case, inspection, f"{told}that it was to look up", confidence=CANDIDATE)


def _cause(case: Case, inspection: Inspection, summary: str, confidence: float = CONCLUDED) -> Cause:
    server, at = case.inventory.server(inspection.chassis), rfc3339(inspection.wall_ns)
    evidence = []
    for device in inspection.entrances:
        if device.rx_lost:
            text = f"{device.name}: {device.rx_lost} more dropped since the task began"
            evidence.append(Evidence(source="ss -0 -n -m -a", text=text, chassis=server, at=at))
    if inspection.lost_upcalls:
        text = f"lost: {inspection.lost_upcalls} more since the task began"
        evidence.append(Evidence(source="ovs-appctl dpctl/show", text=text, chassis=server, at=at))
    return Cause(
        code="vswitch_overload",
        actor="provider",
        summary=summary,
        object=ObjectRef(type="Chassis", name=server),
        fix=f"on {server}: top -H -p $(pidof ovs-vswitchd); ovs-appctl coverage/show; ovs-appctl upcall/show",
        confidence=confidence,
        evidence=tuple(evidence),
    )
