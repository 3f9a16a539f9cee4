"""Packets that were under way when the topology changed: what stood before no longer did, and what came not yet."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from vtrace.attribute.case import Case
from vtrace.attribute.cause import CONCLUDED, Cause
from vtrace.attribute.causes import find_cause
from vtrace.model.answer import ObjectRef
from vtrace.model.inspection import Inspection
from vtrace.model.inventory import LogicalPort
from vtrace.model.record import Disposition, LogRecord, flow_id

# An inspection that shows why packets are lost says it for those of this long before it, too.
SOON_NS = 1_000_000_000
# An inspection is dated when it is done, and takes up to so long.
MADE_IN_NS = 300_000_000
_GATEWAYS = ("chassisredirect", "l3gateway")


class Moves:
    """Which packets met a port on the move: those of an epoch after which none arrived any more by the same chassis.

    When a port moves the entries move with it, and packets colored after that are of another epoch.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        self._latest: dict[tuple[int, int], int] = defaultdict(int)
        self._arrived: dict[tuple[int, int, str], int] = defaultdict(lambda: -1)
        for row in case.reconstruction.packets.to_pylist() if case.inventory.moved else ():
            first = case.records[row["hops"][0]]
            kind = (row["pair"], first.dscp)
            self._latest[kind] = max(self._latest[kind], first.epoch)
            if row["disposition"] == Disposition.EGRESS:
                for chassis in {case.records[number].chassis for number in row["hops"]}:
                    way = (row["pair"], first.epoch, chassis)
                    self._arrived[way] = max(self._arrived[way], row["order"])

    def cause(self, row: dict[str, Any]) -> Cause | None:
        """Why a packet was lost that met a port on the move; None if it met none."""
        first = self._case.records[row["hops"][0]]
        last = self._case.records[row["hops"][-1]]
        way = (row["pair"], first.epoch, last.peer or last.chassis)
        if first.epoch >= self._latest[row["pair"], first.dscp] or row["order"] < self._arrived[way]:
            return None
        port = self._port(row["pair"])
        if port is None:
            return None
        gateway = port.type in _GATEWAYS
        name = f"the gateway of {port.name.removeprefix('cr-')}" if gateway else f"the port {port.name}"
        return Cause(
            code="port_unbound",
            actor="provider",
            summary=f"{name} was moving just then, and no chassis passed it on",
            object=ObjectRef(type="Port_Binding", uuid=port.sb_uuid, name=port.name)
            if gateway
            else ObjectRef(type="Logical_Switch_Port", uuid=port.nb_uuid, name=port.name),
            fix=f"ovn-sbctl find Port_Binding logical_port={port.name}",
            confidence=CONCLUDED,
        )

    def _port(self, pair: int) -> LogicalPort | None:
        inventory = self._case.inventory
        ends = self._case.pair(pair).destination.ports
        moved = [port for port in inventory.ports if port.name in inventory.moved]
        gateways = [port for port in moved if port.type in _GATEWAYS]
        return next((port for port in (*(p for p in moved if p.name in ends), *gateways)), None)


def is_stale(case: Case, asked: Inspection | None, last: LogRecord) -> bool:
    """Whether an inspection says nothing of a packet: its port was on the move, and it was asked at another time."""
    port = case.inventory.port_by_key(last.datapath, last.out_key)
    if asked is None or port is None or port.name not in case.inventory.moved:
        return False
    return abs(asked.mono_ns - last.mono_ns) > MADE_IN_NS


def shows_cause_soon(case: Case, first: LogRecord, last: LogRecord, asked: Inspection | None) -> Inspection | None:
    """The inspection to go by for a packet that did not come out.

    Where the one that is nearest was made before, and showed nothing, the next one may show what had come between.
    """
    if asked is None or asked.mono_ns > last.mono_ns + MADE_IN_NS or find_cause(asked, case.inventory) is not None:
        return asked
    after = [
        i
        for i in case.of_flow(first.pair, last.chassis, flow_id(first))
        if 0 <= i.mono_ns - last.mono_ns <= SOON_NS and find_cause(i, case.inventory) is not None
    ]
    return min(after, key=lambda i: i.mono_ns, default=asked)
