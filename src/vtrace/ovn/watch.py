"""Tells when rows that a task depends on change: conditional monitors of both OVN databases (ovsdb-server(7)).

Only that something changed is told; what it was is found by reading the topology again. The monitors name rows and
datapaths of the task, so that what is sent grows with the task and not with the cloud; nothing is polled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import anyio

from vtrace.errors import VTraceError
from vtrace.model.inventory import Inventory
from vtrace.ovn.databases import OvnDatabases
from vtrace.ovn.ovsdb import Condition, Database, TableUpdates, uuid_ref

_NB_COLUMNS = {
    "Logical_Switch": ("ports", "acls", "qos_rules", "load_balancer", "load_balancer_group"),
    "Logical_Router": ("ports", "nat", "static_routes", "policies", "load_balancer", "load_balancer_group"),
    "Logical_Switch_Port": ("type", "enabled", "addresses", "port_security", "options"),
    "Load_Balancer": ("vips", "protocol", "ip_port_mappings"),
    "NAT": ("type", "external_ip", "logical_ip", "logical_port", "external_mac"),
    "Logical_Router_Static_Route": ("ip_prefix", "nexthop"),
    "Port_Group": ("acls", "ports"),
    "ACL": ("action", "match", "priority"),
    "QoS": ("action", "match", "priority", "bandwidth"),
    "Logical_Router_Policy": ("action", "match", "priority", "nexthop", "nexthops"),
}
_PLACE_COLUMNS = ("chassis", "additional_chassis", "requested_chassis", "requested_additional_chassis")
_SB_COLUMNS = {
    "Port_Binding": ("logical_port", "type", *_PLACE_COLUMNS, "ha_chassis_group", "up"),
    "Service_Monitor": ("status",),
}

_Wanted: TypeAlias = Mapping[str, tuple[Sequence[str], Sequence[Condition]]]


class TopologyWatch:
    """Watches the rows behind an inventory, until it is closed."""

    def __init__(self, databases: OvnDatabases) -> None:
        self._remotes = databases
        self._watched: list[Database] = []
        self._names: frozenset[str] = frozenset()
        self._rows: frozenset[str] = frozenset()

    async def begin(self, inventory: Inventory, ends: Sequence[str]) -> None:
        """Watches the rows of this inventory, and no others any more. `ends` are the logical ports of the task.

        Raises:
            CannotWorkError: a database is out of reach.
        """
        self.close()
        self.expect(inventory, ends)
        wanted = ((self._remotes.nb, northbound(inventory, ends)), (self._remotes.sb, southbound(inventory)))
        for remote, tables in wanted:
            database = Database(remote.remote, remote.name)
            self._watched.append(database)
            await database.monitor(tables)

    def expect(self, inventory: Inventory, ends: Sequence[str]) -> None:
        """Takes these ports for the task's own, and all others for nobody's business."""
        self._names = frozenset(ends)
        self._rows = frozenset(p.sb_uuid for p in inventory.ports)

    async def changed(self) -> bool:
        """Waits until some of them changed; whether a port of the task is about to be on another chassis.

        Raises:
            CannotWorkError: the connection to a database broke.
        """
        moves: list[bool] = []
        errors: list[VTraceError] = []

        async def wait(database: Database) -> None:
            try:
                while not (found := [u for u in await database.changes() if self.matters(u)]):
                    pass
                moves.append(any(self.moves(update) for update in found))
            except VTraceError as error:
                errors.append(error)
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for database in self._watched:
                group.start_soon(wait, database)
        if errors:
            raise errors[0]
        return any(moves)

    def matters(self, updates: TableUpdates) -> bool:
        """Whether any row of an update is the task's business: not the binding of other VMs on its switches."""
        if set(updates) - {"Port_Binding"}:
            return True
        for uuid, row in updates.get("Port_Binding", {}).items():
            values = row.get("insert", {})
            if uuid in self._rows or values.get("type") or str(values.get("logical_port")) in self._names:
                return True
        return False

    def moves(self, updates: TableUpdates) -> bool:
        """Whether a port of the task changes its chassis."""
        return any(
            uuid in self._rows and ("delete" in row or bool(set(row.get("modify", ())) & set(_PLACE_COLUMNS)))
            for uuid, row in updates.get("Port_Binding", {}).items()
        )

    def close(self) -> None:
        """Ends the monitors."""
        for database in self._watched:
            database.close()
        self._watched = []


def northbound(inventory: Inventory, ends: Sequence[str]) -> _Wanted:
    """What is watched in the northbound database: by table columns, and the rows they are watched in."""
    uuids: dict[str, list[str]] = {
        "Logical_Switch": [d.nb_uuid for d in inventory.datapaths if d.kind == "vswitch"],
        "Logical_Router": [d.nb_uuid for d in inventory.datapaths if d.kind != "vswitch"],
        "Load_Balancer": [vip.uuid for vip in inventory.vips],
        "NAT": [nat.uuid for nat in inventory.nats],
        "Logical_Router_Static_Route": [route.uuid for route in inventory.routes],
        "Port_Group": list(inventory.port_groups),
    }
    for rule in inventory.rules:
        uuids.setdefault(rule.table, []).append(rule.uuid)
    rows: dict[str, list[Condition]] = {
        table: [("_uuid", "==", uuid_ref(uuid)) for uuid in dict.fromkeys(found)] for table, found in uuids.items()
    }
    # By name: a port that is made anew has another row.
    rows["Logical_Switch_Port"] = [("name", "==", name) for name in sorted(set(ends))]
    return dict(_existing(_NB_COLUMNS, rows))


def southbound(inventory: Inventory) -> _Wanted:
    """What is watched in the southbound database."""
    backends = {b.logical_port for vip in inventory.vips for b in vip.backends if b.logical_port}
    rows: dict[str, list[Condition]] = {
        "Port_Binding": [("datapath", "==", uuid_ref(d.sb_uuid)) for d in inventory.datapaths],
        "Service_Monitor": [("logical_port", "==", name) for name in sorted(backends)],
    }
    return dict(_existing(_SB_COLUMNS, rows))


def _existing(
    columns: Mapping[str, Sequence[str]], rows: Mapping[str, Sequence[Any]]
) -> Iterator[tuple[str, tuple[Sequence[str], Sequence[Condition]]]]:
    """A table without a condition would be watched whole: it is left out."""
    for table, names in columns.items():
        if rows.get(table):
            yield table, (names, rows[table])
