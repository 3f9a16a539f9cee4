"""Tells when rows that a task depends on change: conditional monitors of both OVN databases (ovsdb-server(7)).

Only that something changed is told; what it was is found by reading the topology again. The monitors name rows and
datapaths of the task, so that what is sent grows with the task and not with the cloud.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import anyio.to_thread

from vtrace.model.inventory import Inventory
from vtrace.ovn.databases import OvnDatabases
from vtrace.ovn.ovsdb import Condition, Database, uuid_ref

# For how long a thread waits for the next change before it looks whether it is still wanted.
POLL_S = 0.25
# Changes come in bursts: what follows within this is one change.
SETTLE_S = 0.05

_NB_COLUMNS = {
    "Logical_Switch": ("acls", "qos_rules", "load_balancer", "load_balancer_group"),
    "Logical_Router": ("nat", "static_routes", "policies", "load_balancer", "load_balancer_group"),
    "Load_Balancer": ("vips",),
    "NAT": ("type", "external_ip", "logical_ip", "logical_port", "external_mac"),
    "Logical_Router_Static_Route": ("ip_prefix", "nexthop"),
    "Port_Group": ("acls", "ports"),
    "ACL": ("action", "match", "priority"),
    "Logical_Router_Policy": ("action", "match", "priority"),
}
_SB_COLUMNS = {
    "Port_Binding": ("chassis", "additional_chassis", "requested_chassis", "ha_chassis_group"),
    "Service_Monitor": ("status",),
}


class TopologyWatch:
    """Watches the rows behind an inventory, until it is closed."""

    def __init__(self, databases: OvnDatabases) -> None:
        self._remotes = databases
        self._watched: list[Database] = []

    async def begin(self, inventory: Inventory) -> None:
        """Watches the rows of this inventory, and no others any more.

        Raises:
            CannotWorkError: a database is out of reach.
        """
        self.close()
        for remote, wanted in ((self._remotes.nb, _northbound(inventory)), (self._remotes.sb, _southbound(inventory))):
            database = Database(remote.remote, remote.name)
            self._watched.append(database)
            await database.monitor(wanted)

    async def changed(self) -> None:
        """Waits until some of them changed, and the burst is over.

        Raises:
            CannotWorkError: the connection to a database broke.
        """
        happened = anyio.Event()

        async def wait(database: Database) -> None:
            poll = functools.partial(database.changed, POLL_S)
            while not happened.is_set():
                if await anyio.to_thread.run_sync(poll, abandon_on_cancel=True):
                    happened.set()

        async with anyio.create_task_group() as group:
            for database in self._watched:
                group.start_soon(wait, database)
            await happened.wait()
            await anyio.sleep(SETTLE_S)

    def close(self) -> None:
        """Ends the monitors."""
        for database in self._watched:
            database.close()
        self._watched = []


def _northbound(inventory: Inventory) -> Mapping[str, tuple[Sequence[str], Sequence[Condition]]]:
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
    return {
        table: (columns, [("_uuid", "==", uuid_ref(uuid)) for uuid in dict.fromkeys(uuids.get(table, ()))])
        for table, columns in _NB_COLUMNS.items()
        if uuids.get(table)
    }


def _southbound(inventory: Inventory) -> Mapping[str, tuple[Sequence[str], Sequence[Condition]]]:
    found: dict[str, list[Any]] = {
        "Port_Binding": [("datapath", "==", uuid_ref(d.sb_uuid)) for d in inventory.datapaths],
        "Service_Monitor": [
            ("logical_port", "==", name)
            for name in sorted({b.logical_port for vip in inventory.vips for b in vip.backends if b.logical_port})
        ],
    }
    return {table: (columns, found[table]) for table, columns in _SB_COLUMNS.items() if found[table]}
