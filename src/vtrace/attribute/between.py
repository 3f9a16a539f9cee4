"""Why a packet did not come in at the other end of what joins two bridges without OVN."""

from __future__ import annotations

from vtrace.attribute.case import TunnelCheck
from vtrace.attribute.cause import Cause
from vtrace.model.answer import Evidence, ObjectRef


def link_cause(check: TunnelCheck | None, sender: str, receiver: str, seen: Evidence) -> Cause:
    """An end that is not as it should be, or what lies between the ends."""
    kind = check.kind if check else "link"
    name = check.tunnel if check else ""
    if check and check.mismatch:
        return Cause(
            code="tunnel_misconfigured",
            actor="provider",
            summary=f"the {kind} {name} between {sender} and {receiver} is not whole: {check.mismatch}",
            object=ObjectRef(type="Interface", name=name),
            fix=f"on {sender} and {receiver}: ovs-vsctl list Interface",
            evidence=(seen,),
        )
    return Cause(
        code="physical_loss",
        actor="physical",
        summary=f"{sender} sent it by the {kind} {name}, both ends are as they should be, and {receiver} never got it: "
        f"it was lost between {sender} and {receiver}",
        object=ObjectRef(type="Tunnel" if kind == "tunnel" else "Interface", name=name),
        fix=f"check what lies between {sender} and {receiver}: capture at both ends of {name}",
        evidence=(seen,),
    )
