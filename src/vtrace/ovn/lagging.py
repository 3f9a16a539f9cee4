"""Whether a bridge does what the southbound database says: rows that have no entry on the way of a lost packet.

Looked for only where a packet was lost. A row counts only if the packet surely fits it, and would have hit it: at a
higher priority than what it hit. Then the bridge did something else than the database says.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from typing import Any

from vtrace.collect.link import Standing, Survey
from vtrace.model.inspection import Inspection
from vtrace.model.inventory import Inventory, LogicalDatapath, LogicalPort
from vtrace.model.openflow import BridgeLayout
from vtrace.ovn.databases import OvnDatabases
from vtrace.ovn.expression import Packet, holds
from vtrace.ovn.objects import logical_table
from vtrace.ovn.ovsdb import Row, uuid_ref
from vtrace.ovn.understood import understood
from vtrace.ovs.trace_packet import LookUp, look_ups

_COLUMNS = ("_uuid", "pipeline", "table_id", "priority", "match", "external_ids")
# Rows read so long ago are read again.
_FRESH_S = 1.0


class LagFinder:
    """Compares what a packet hit with the logical flows of the southbound database."""

    def __init__(self, databases: OvnDatabases) -> None:
        self._sb = databases.sb
        self._rows: dict[str, tuple[float, list[Row]]] = {}

    @understood
    async def missing_row(
        self, inspection: Inspection, standing: Standing, layout: BridgeLayout, inventory: Inventory
    ) -> str:
        """The logical flow, in words, that the packet should have hit and that has no entry; empty if there is none."""
        installed = {entry[:2]: set[int]() for entry in standing.entries}
        for table, priority, cookie in standing.entries:
            installed[table, priority].add(cookie)
        for found in reversed(look_ups(inspection.text)):
            pipeline, table_id = logical_table(found.table, layout)
            datapath = inventory.datapath(found.fields.get("metadata", 0))
            if not pipeline or datapath is None:
                continue
            rows = [r for r in await self._of(datapath) if (r["pipeline"], r["table_id"]) == (pipeline, table_id)]
            row = _first_missing(rows, found, installed, _packet(found, inventory))
            if row is not None:
                stage = row["external_ids"].get("stage-name", "")
                return (
                    f"the logical flow of {datapath.name}, stage {stage}, priority {row['priority']}, "
                    f"{row['match']!r} (Logical_Flow {row['_uuid']}) has no entry in table {found.table}"
                )
        return ""

    async def _of(self, datapath: LogicalDatapath) -> list[Row]:
        """All logical flows of a datapath, or of a group with it."""
        read_s, rows = self._rows.get(datapath.sb_uuid, (0.0, []))
        if not rows or time.monotonic() - read_s > _FRESH_S:
            here: list[Any] = [("datapaths", "includes", uuid_ref(datapath.sb_uuid))]
            groups = await self._sb.select("Logical_DP_Group", here, ("_uuid",))
            owners = [("logical_datapath", "==", uuid_ref(datapath.sb_uuid))]
            owners += [("logical_dp_group", "==", uuid_ref(group["_uuid"])) for group in groups]
            results = await self._sb.select_many([("Logical_Flow", [owner], _COLUMNS) for owner in owners])
            rows = [row for found in results for row in found]
            self._rows[datapath.sb_uuid] = (time.monotonic(), rows)
        return rows


def _first_missing(
    rows: Sequence[Row], found: LookUp, installed: dict[tuple[int, int], set[int]], packet: Packet
) -> Row | None:
    """The row of the highest priority that the packet fits and that has no entry."""
    for row in sorted(rows, key=lambda r: -int(r["priority"])):
        if row["priority"] <= found.priority:
            return None
        standing = installed.get((found.table, row["priority"]), set())
        # Of rows that say the same ovn-controller puts in one.
        same = [r for r in rows if r["priority"] == row["priority"] and _words(r) == _words(row)]
        if not any(_cookie(r) in standing for r in same) and holds(row["match"], packet):
            return row
    return None


def _words(row: Row) -> str:
    return "".join(str(row["match"]).split())


def _cookie(row: Row) -> int:
    return int(str(row["_uuid"])[:8], 16)


def _packet(found: LookUp, inventory: Inventory) -> Packet:
    datapath = found.fields.get("metadata", 0)

    def named(register: str) -> str:
        port = inventory.port_by_key(datapath, found.fields.get(register, 0))
        return port.name if port else ""

    return Packet(fields=found.fields, inport=named("reg14"), outport=named("reg15"))


def missing_port_entry(inspection: Inspection, survey: Survey, inventory: Inventory) -> str:
    """The port, in words, whose row says that the bridge should pass packets for it on, and that has no entry."""
    step = inspection.steps[-1] if inspection.steps else None
    if step is None or inspection.outcome != "drop" or inspection.errors or step.object.kind != "default":
        return ""
    layout = survey.layout
    if step.table == 0:
        return _deaf_port(inspection, survey, inventory)
    port = inventory.port_by_key(step.datapath, step.out_key)
    if port is None or not port.enabled or step.table not in (layout.local_output, layout.log_to_physical):
        return ""
    if port.type == "patch" and port.peer_datapath:
        return _no_entry(port, step.table)
    if port.type:
        return ""
    if port.chassis == inspection.chassis and any(
        p.iface_id == port.name and p.ofport > 0 and not p.error for p in inspection.ports
    ):
        return _no_entry(port, step.table)
    elsewhere = port.chassis not in ("", inspection.chassis) and port.name not in inventory.moved
    # What went to another server comes to local output too, and its default entry, after that.
    hit = any(s.table == layout.remote_output and port.sb_uuid.startswith(f"{s.cookie:08x}") for s in inspection.steps)
    if elsewhere and not hit and step.table == layout.local_output and _tunnel_to(port.chassis, survey):
        server = inventory.server(port.chassis)
        return f"{_no_entry(port, layout.remote_output)}, though it is on {server}"
    return ""


def sent_elsewhere(inspection: Inspection, survey: Survey, inventory: Inventory) -> str:
    """The port, in words, whose packets the bridge sends to another server than the one that has it."""
    step = next((s for s in reversed(inspection.steps) if s.table == survey.layout.remote_output), None)
    port = inventory.port_by_key(step.datapath, step.out_key) if step is not None else None
    if port is None or port.type or port.chassis in ("", inspection.chassis) or port.name in inventory.moved:
        return ""
    used = {t.chassis for t in survey.tunnels if str(t.ofport) in inspection.outputs}
    if inspection.outcome != "tunnel" or not used or port.chassis in used:
        return ""
    there = ", ".join(sorted(map(inventory.server, used)))
    sent = f"it sends what is for {port.name} (Port_Binding {port.sb_uuid}) to {there}"
    return f"{sent}, and {inventory.server(port.chassis)} has it"


def _no_entry(port: LogicalPort, table: int) -> str:
    return f"the port {port.name} (Port_Binding {port.sb_uuid}) has no entry in table {table}"


def _deaf_port(inspection: Inspection, survey: Survey, inventory: Inventory) -> str:
    """What comes in by a tunnel, or by the interface of a port that is bound here, has to have an entry in table 0."""
    came_by = re.search(r"\bin_port=(\d+)\b", inspection.entry)
    ofport = int(came_by[1]) if came_by else 0
    for tunnel in survey.tunnels:
        if tunnel.ofport == ofport and tunnel.chassis:
            return f"the tunnel from {inventory.server(tunnel.chassis)} ({tunnel.name}) has no entry in table 0"
    interface = next((p for p in survey.ports if p.ofport == ofport and p.iface_id), None)
    port = inventory.port(interface.iface_id) if interface else None
    return _no_entry(port, 0) if port is not None and port.chassis == inspection.chassis else ""


def _tunnel_to(chassis: str, survey: Survey) -> bool:
    return any(tunnel.chassis == chassis for tunnel in survey.tunnels)


def datapaths_of(inspection: Inspection) -> tuple[int, ...]:
    """The logical datapaths, by key, that an inspected packet passed."""
    return tuple(dict.fromkeys(step.datapath for step in inspection.steps if step.datapath))


def orphans(cookies: Iterable[int]) -> frozenset[int]:
    """Of cookies without a row those that look like the start of a uuid: of ovn-controller that no longer follows."""
    return frozenset(cookie for cookie in cookies if cookie >> 20)
