"""The two OVN databases of a cloud, and what several readers of them share."""

from __future__ import annotations

from collections.abc import Iterable

from vtrace.ovn.ovsdb import Database, Row, uuid_ref

LSP_COLUMNS = (
    "_uuid",
    "name",
    "type",
    "addresses",
    "dynamic_addresses",
    "port_security",
    "options",
    "enabled",
    "up",
    "external_ids",
)


class OvnDatabases:
    """The northbound and southbound databases of one cloud."""

    def __init__(self, nb: Database, sb: Database) -> None:
        self.nb = nb
        self.sb = sb

    def close(self) -> None:
        self.nb.close()
        self.sb.close()


def vpc_name(row: Row) -> str:
    """What a switch or router row says of its VPC: the name given to VTrace, or OpenStack's, or its own."""
    ids = row.get("external_ids", {})
    return str(ids.get("vtrace:vpc") or ids.get("neutron:vpc") or row["name"])


async def port_groups(nb: Database, ports: Iterable[str]) -> list[Row]:
    """The port groups that have any of these logical switch ports (uuids), each once."""
    results = await nb.select_many([("Port_Group", [("ports", "includes", uuid_ref(port))], ()) for port in ports])
    return list({row["_uuid"]: row for rows in results for row in rows}.values())
