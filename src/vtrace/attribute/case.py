"""All that attribution looks at: one value, collected before, so that the same case gives the same answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from vtrace.model.answer import Change
from vtrace.model.inspection import Inspection
from vtrace.model.inventory import Inventory
from vtrace.model.record import LogRecord
from vtrace.model.task import Direction, Pair

if TYPE_CHECKING:
    from vtrace.reconstruct.schema import Reconstruction


class NeighborWatch(msgspec.Struct, frozen=True, kw_only=True):
    """What a pair's source asked by ARP or ND, and whether it was answered."""

    pair: int
    target: str
    requests: int
    answers: int


class TunnelCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the tunnel from one chassis to another is as the southbound database says, at both ends.

    `mismatch` says what is not; empty if all is. `tunnel` is the sender's interface, `remote_ip` where that sends to,
    `tunnel_back` the receiver's interface. `encap` is the uuid of the southbound row that an end does not follow.
    Without OVN it is what joins two bridges, of that `kind`: "tunnel", "wire" or "patch".
    """

    sender: str
    receiver: str
    tunnel: str = ""
    mismatch: str = ""
    kind: str = "tunnel"
    remote_ip: str = ""
    tunnel_back: str = ""
    encap: str = ""


class ReplyCount(msgspec.Struct, frozen=True, kw_only=True):
    """What the destination's VIF sent back for a forward pair: packets, TCP resets, ICMP errors."""

    pair: int
    packets: int = 0
    resets: int = 0
    errors: int = 0


class Case(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The evidence of one task.

    Attributes:
        reconstruction: packets and paths.
        records: the rows of its records table, as structs.
        inspections: every inspection made, oldest first.
        covered: chassis that had an agent.
        silent_servers: chassis that should have had one, and whose Open vSwitch did not answer.
        bare: by epoch, chassis that might have got packets and had no entries: before a gateway with such a standby the
            color was taken off.
        copies_cut: for each chassis, copies that the meter or a full buffer took.
        cut_of_counted: how many of them were of packets that count, as far as these tell; None: any may have been.
        entered: packets of each pair that our entries at the first hop counted, whether or not a copy came.
        taken: packets of each pair that other runs of VTrace colored at the first hop, so that this one could not.
        disturbances: when (nanoseconds since the epoch) and on which chassis somebody took our entries off.
        for_others: packets of each pair that were sent to an address it shares and went on to other endpoints.
        not_begun: numbers of the pairs that the task ended too early to color.
        blinded: numbers of those of which no more packets are seen: the server where they come in hangs or died.
        changes: of the topology, while the task ran.
        reply_asked: whether the reply direction is colored too, so that it need not be counted.
        packets_asked: N for each pair and direction.
    """

    pairs: tuple[Pair, ...]
    inventory: Inventory
    reconstruction: Reconstruction
    records: tuple[LogRecord, ...]
    inspections: tuple[Inspection, ...]
    covered: tuple[str, ...]
    silent_servers: tuple[str, ...] = ()
    bare: Mapping[int, frozenset[str]] = {}
    copies_cut: Mapping[str, int] = {}
    cut_of_counted: Mapping[str, int] | None = None
    neighbors: tuple[NeighborWatch, ...] = ()
    tunnels: tuple[TunnelCheck, ...] = ()
    replies: tuple[ReplyCount, ...] = ()
    packets_asked: int = 100
    reply_asked: bool = False
    entered: Mapping[int, int] = {}
    taken: Mapping[int, int] = {}
    for_others: Mapping[int, int] = {}
    disturbances: tuple[tuple[str, int], ...] = ()
    not_begun: frozenset[int] = frozenset()
    blinded: frozenset[int] = frozenset()
    changes: tuple[Change, ...] = ()

    def pair(self, index: int) -> Pair:
        return self._by_index[index]

    @cached_property
    def _by_index(self) -> dict[int, Pair]:
        return {pair.index: pair for pair in self.pairs}

    @cached_property
    def _inspections_by_place(self) -> dict[tuple[int, str], list[Inspection]]:
        """Those of colored packets: each packet of a task is held against some, and a task may have many."""
        found: dict[tuple[int, str], list[Inspection]] = defaultdict(list)
        for inspection in self.inspections:
            if not inspection.uncolored:
                found[(inspection.pair, inspection.chassis)].append(inspection)
        return dict(found)

    def forward_of(self, pair: Pair) -> Pair | None:
        """For a pair of the reply direction the one whose packets it answers, if the task has it."""
        if pair.direction is not Direction.REPLY:
            return None
        ends = (pair.destination.name, pair.source.name)
        return next(
            (p for p in self.pairs if p.direction is Direction.FORWARD and (p.source.name, p.destination.name) == ends),
            None,
        )

    def of_flow(self, pair: int, chassis: str, flow_id: str) -> list[Inspection]:
        """Those of one flow of it; one without a flow's name speaks for all."""
        return [i for i in self.of_pair(pair, chassis) if i.flow_id in ("", flow_id)]

    def of_pair(self, pair: int, chassis: str) -> list[Inspection]:
        """The inspections of a pair's colored packets on a chassis, oldest first."""
        return self._inspections_by_place.get((pair, chassis), [])
