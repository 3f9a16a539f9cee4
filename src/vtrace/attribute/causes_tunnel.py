"""Reasons of what joins two servers: a tunnel that can't be used, one that is not as it should be, the wires below."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from vtrace.attribute.between import link_cause
from vtrace.attribute.case import TunnelCheck
from vtrace.attribute.cause import CONCLUDED, Cause, rfc3339
from vtrace.model.answer import Evidence, ObjectRef
from vtrace.model.inventory import Inventory
from vtrace.model.record import LogRecord, Point


def between(last: LogRecord, check: TunnelCheck | None, inventory: Inventory) -> Cause:
    """Why a packet that was sent did not come in: a tunnel end that is not as it should be, or the wire."""
    sender, receiver = inventory.server(last.chassis), inventory.server(last.peer)
    tunnel = check.tunnel if check else ""
    seen = Evidence(
        source="log records",
        text=f"sent to {receiver} by {tunnel or 'its tunnel'}, no record of it from {receiver}",
        chassis=sender,
        at=rfc3339(last.wall_ns),
    )
    if inventory.plain:
        return link_cause(check, sender, receiver, seen)
    if check and check.mismatch:
        return misconfigured(check, inventory, seen)
    return Cause(
        code="physical_loss",
        actor="physical",
        summary=f"{sender} sent it by its tunnel, both ends are as they should be, and {receiver} never got it: "
        f"the physical network between {sender} and {receiver} lost it",
        object=ObjectRef(type="Tunnel", name=tunnel),
        fix=f"check the links and switches between {sender} and {receiver}: capture the tunnel's UDP port on both",
        evidence=(seen,),
    )


def misconfigured(check: TunnelCheck, inventory: Inventory, *seen: Evidence) -> Cause:
    """What the sender handed to a tunnel that is not, at one of its ends, as the southbound database says."""
    sender, receiver = inventory.server(check.sender), inventory.server(check.receiver)
    ends = [(sender, check.tunnel), (receiver, check.tunnel_back)]
    shown = "; ".join(_interface(server, name) for server, name in ends)
    return Cause(
        code="tunnel_misconfigured",
        actor="provider",
        summary=f"the tunnel between {sender} and {receiver} is not as the southbound database says: {check.mismatch}",
        object=ObjectRef(type="Encap", uuid=check.encap, name=check.tunnel or check.tunnel_back),
        fix=f"ovn-sbctl list Encap; {shown}; ovn-controller sets its end right where it runs: "
        "ovn-appctl -t ovn-controller connection-status",
        confidence=CONCLUDED,
        evidence=(*seen, Evidence(source=shown, text=check.mismatch, chassis=sender)),
    )


def _interface(server: str, name: str) -> str:
    row = f"list Interface {name}" if name else "find Interface type=geneve"
    return f"on {server}: ovs-vsctl --columns=name,type,options,ofport,error {row}"


def unreachable(cause: Cause, last: LogRecord, check: TunnelCheck | None, inventory: Inventory) -> Cause:
    """The cause of a packet that the sender could not put into a tunnel, with the tunnel and its other end named."""
    if cause.code != "tunnel_unreachable" or not last.peer:
        return cause
    sender, receiver = inventory.server(last.chassis), inventory.server(last.peer)
    name = check.tunnel if check and check.tunnel else f"{sender} → {receiver}"
    far = check.remote_ip if check else ""
    wrong = f"; {check.mismatch}" if check and check.mismatch else ""
    shown = f"on {sender}: ovs-appctl ovs/route/lookup {far}; ovs-appctl tnl/neigh/show; ip route get {far}"
    return replace(
        cause,
        summary=f"{sender} could not send it to {receiver}{f' ({far})' if far else ''}: "
        f"{cause.summary.removeprefix(_COULD_NOT)}{wrong}",
        object=ObjectRef(type="Tunnel", name=name),
        fix=shown if far else _interface(sender, ""),
        because=cause.key,
    )


_COULD_NOT = "the server could not send it by its tunnel: "


def no_tunnel(last: LogRecord, check: TunnelCheck | None, inventory: Inventory) -> Cause | None:
    """That the sender has no tunnel to the server of the port at all, where that is so."""
    if check is None or check.tunnel or not check.mismatch or inventory.plain:
        return None
    return Cause(
        code="tunnel_unreachable",
        actor="provider",
        summary=f"{_COULD_NOT}it has none",
        evidence=(
            Evidence(
                source=_interface(inventory.server(last.chassis), ""),
                text=check.mismatch,
                chassis=inventory.server(last.chassis),
                at=rfc3339(last.wall_ns),
            ),
        ),
    )


def came_as_another(
    records: Sequence[LogRecord], checks: Sequence[TunnelCheck], inventory: Inventory
) -> tuple[LogRecord, Cause] | None:
    """The sender's record of a packet that came out of a tunnel in another logical datapath than it was sent in.

    A tunnel whose key is set by hand does that: the key is the logical datapath.
    """
    sent = [r for r in records if r.point == Point.REMOTE_OUTPUT]
    came = [r for r in records if r.point == Point.INGRESS]
    for record in reversed(came):
        before = next((r for r in reversed(sent) if (r.chassis, r.peer) == (record.peer, record.chassis)), None)
        check = next((c for c in checks if (c.sender, c.receiver) == (record.peer, record.chassis)), None)
        if before is None or check is None or not check.mismatch or before.datapath == record.datapath:
            continue
        names = [
            d.name if (d := inventory.datapath(key)) else f"key {key}" for key in (before.datapath, record.datapath)
        ]
        seen = Evidence(
            source="log records",
            text=f"sent for {names[0]}, came in for {names[1]}",
            chassis=inventory.server(record.chassis),
            at=rfc3339(record.wall_ns),
        )
        return before, misconfigured(check, inventory, seen)
    return None
