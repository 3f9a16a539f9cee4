"""Finds what on a path reads or writes `ip.dscp`: coloring would change what it does."""

from __future__ import annotations

from collections.abc import Iterable

from vtrace.model.inventory import Inventory
from vtrace.model.openflow import TunnelPort
from vtrace.ovn.databases import port_groups
from vtrace.ovn.ovsdb import Database, as_tuple, uuid_ref
from vtrace.ovn.understood import understood

_REFERENCES = (
    ("Logical_Switch", "acls", "ACL"),
    ("Logical_Switch", "qos_rules", "QoS"),
    ("Logical_Router", "policies", "Logical_Router_Policy"),
)


@understood
async def dscp_users(nb: Database, inventory: Inventory) -> list[str]:
    """Rows of the task's switches and routers, and of port groups with ports of these switches, that use the DSCP."""
    found: list[str] = []
    for datapath in inventory.datapaths:
        for owner_table, column, table in _REFERENCES:
            if (owner_table == "Logical_Switch") != (datapath.kind == "vswitch"):
                continue
            owners = await nb.select(owner_table, [("_uuid", "==", uuid_ref(datapath.nb_uuid))])
            for owner in owners:
                found += await _using(nb, table, as_tuple(owner[column]), datapath.name)
                if owner_table == "Logical_Switch" and table == "ACL":
                    found += await _port_groups(nb, as_tuple(owner["ports"]))
    return list(dict.fromkeys(found))


def inheriting_tunnels(tunnels: Iterable[TunnelPort]) -> list[str]:
    """Tunnel interfaces that copy the inner TOS to the outer header."""
    return [f"tunnel {t.name} inherits the TOS byte" for t in tunnels if t.options.get("tos") == "inherit"]


async def _port_groups(nb: Database, ports: Iterable[str]) -> list[str]:
    found = []
    for group in await port_groups(nb, ports):
        found += await _using(nb, "ACL", as_tuple(group["acls"]), group["name"])
    return found


async def _using(nb: Database, table: str, uuids: Iterable[str], owner: str) -> list[str]:
    results = await nb.select_many([(table, [("_uuid", "==", uuid_ref(uuid))], ()) for uuid in uuids])
    return [
        f"{table} {row['_uuid'][:8]} of {owner} ({row.get('match', '')})"
        for rows in results
        for row in rows
        if "ip.dscp" in row.get("match", "") or (table == "QoS" and "dscp" in row["action"])
    ]
