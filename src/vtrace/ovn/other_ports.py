"""Reads single ports that a packet came to and that no endpoint of the task has."""

from __future__ import annotations

from vtrace.model.inventory import LogicalDatapath, LogicalPort
from vtrace.ovn.databases import LSP_COLUMNS, OvnDatabases
from vtrace.ovn.ovsdb import as_tuple, uuid_ref


async def read_port(databases: OvnDatabases, datapath: LogicalDatapath, key: int) -> list[LogicalPort]:
    """The port of a logical datapath that has a tunnel key; none where it is gone."""
    here = [("datapath", "==", uuid_ref(datapath.sb_uuid)), ("tunnel_key", "==", key)]
    found = []
    for row in await databases.sb.select("Port_Binding", here):
        names = [("name", "==", row["logical_port"])]
        nb = await databases.nb.select("Logical_Switch_Port", names, LSP_COLUMNS)
        first = nb[0] if nb else None
        chassis = ""
        for uuid in as_tuple(row["chassis"]):
            rows = await databases.sb.select("Chassis", [("_uuid", "==", uuid_ref(uuid))], ("name",))
            chassis = next((str(r["name"]) for r in rows), "")
        found.append(
            LogicalPort(
                name=row["logical_port"],
                key=key,
                datapath=datapath.key,
                type=row["type"],
                chassis=chassis,
                peer=row["options"].get("peer", ""),
                addresses=tuple(as_tuple((first or {"addresses": row["mac"]})["addresses"])),
                port_security=tuple(as_tuple(first["port_security"])) if first else (),
                nb_uuid=first["_uuid"] if first else "",
                sb_uuid=row["_uuid"],
                enabled=as_tuple(first["enabled"]) != (False,) if first else True,
                up=as_tuple(row.get("up", True)) != (False,),
            )
        )
    return found
