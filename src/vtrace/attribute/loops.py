"""Packets that go round between routers, as their records show."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from vtrace.attribute.cause import CONCLUDED, Cause, Place, rfc3339
from vtrace.model.answer import Evidence, ObjectRef
from vtrace.model.inventory import Inventory, LogicalDatapath
from vtrace.model.record import LogRecord, Point

# A router may see a packet twice with no loop at all: on two servers, or for a VIP whose backend sent it.
_ROUNDS = 3


class Loop(msgspec.Struct, frozen=True, kw_only=True):
    """The devices of one round in their order, how often it went round, and where the TTL ends.

    `last` is the record, of an earlier round, of the router that ends it.
    """

    devices: tuple[LogicalDatapath, ...]
    rounds: int
    last: LogRecord

    @property
    def text(self) -> str:
        names = [device.name for device in self.devices]
        return f"it goes round {' → '.join((*names, names[0]))}, {self.rounds} times as far as it was seen"

    @property
    def fix(self) -> str:
        routers = [device.name for device in self.devices if device.kind != "vswitch"]
        return "; ".join(f"ovn-nbctl lr-route-list {name}" for name in routers)


def loop(records: Sequence[LogRecord], inventory: Inventory) -> Loop | None:
    """The loop that a packet's records, in their order, show; None if they show none."""
    passed = [r for r in records if r.point in (Point.LOGICAL_EGRESS, Point.REMOTE_OUTPUT)]
    routed = [r for r in passed if _is_router(r, inventory)]
    for first in routed:
        again = [
            r for r in routed if (r.datapath, r.in_key, r.chassis) == (first.datapath, first.in_key, first.chassis)
        ]
        falling = [r for r, following in itertools.pairwise(again) if following.ttl < r.ttl]
        if len(falling) + 1 < _ROUNDS:
            continue
        between = passed[passed.index(first) : passed.index(again[1])]
        devices = [inventory.datapath(key) for key in dict.fromkeys(r.datapath for r in between)]
        members = [r for r in between if _is_router(r, inventory)]
        # Each router of a round takes one off: that which would send it on with none ends it.
        last = next((r for r in members if r.ttl % max(1, again[0].ttl - again[1].ttl) == 0), members[0])
        return Loop(devices=tuple(d for d in devices if d is not None), rounds=len(again), last=last)
    return None


def _is_router(record: LogRecord, inventory: Inventory) -> bool:
    device = inventory.datapath(record.datapath)
    return device is not None and device.kind != "vswitch"


def ttl_ends(found: Loop, inventory: Inventory) -> Cause:
    """The cause of a packet whose records show a loop: sooner or later its TTL ends there."""
    record = found.last
    router = inventory.datapath(record.datapath)
    name = router.name if router else "?"
    return Cause(
        code="ttl_exceeded",
        actor="tenant",
        summary=f"its TTL ends at the router {name}: {found.text}",
        object=ObjectRef(type="Logical_Router", uuid=router.nb_uuid if router else "", name=name),
        fix=found.fix,
        confidence=CONCLUDED,
        place=Place(datapath=record.datapath, in_key=record.in_key),
        evidence=(
            Evidence(
                source="log records",
                text=f"to {record.dst}: {found.text}",
                chassis=inventory.server(record.chassis),
                at=rfc3339(record.wall_ns),
            ),
        ),
    )


def with_loop(cause: Cause, found: Loop) -> Cause:
    """The cause of a packet that a device ended for going round, with the round named."""
    if cause.code not in ("ttl_exceeded", "vswitch_pipeline_error") or "goes round" in cause.summary:
        return cause
    return replace(cause, summary=f"{cause.summary}: {found.text}", fix=found.fix)
