"""Reads what translates addresses in the switches and routers of a task: NAT rows, and load balancers' VIPs."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from vtrace.model.inventory import Backend, LogicalPort, Nat, Route, Rule, Vip
from vtrace.ovn.databases import OvnDatabases, port_groups
from vtrace.ovn.endpoints import address_and_port
from vtrace.ovn.ovsdb import Row, as_tuple, uuid_ref
from vtrace.ovn.templates import vips_of


async def read_nats(databases: OvnDatabases, routers: Mapping[int, Row]) -> tuple[Nat, ...]:
    """The NAT rows of logical routers, by the routers' tunnel keys."""
    wanted = [(key, uuid) for key, router in routers.items() for uuid in as_tuple(router["nat"])]
    results = await databases.nb.select_many([("NAT", [("_uuid", "==", uuid_ref(uuid))], ()) for _, uuid in wanted])
    return tuple(
        Nat(
            router=key,
            kind=row["type"],
            external=row["external_ip"],
            logical=row["logical_ip"],
            uuid=row["_uuid"],
            port=next(iter(as_tuple(row["logical_port"])), "") if as_tuple(row["external_mac"]) else "",
            port_range=row.get("external_port_range", ""),
            partial=bool(as_tuple(row.get("allowed_ext_ips", ())) or as_tuple(row.get("exempted_ext_ips", ()))),
        )
        for (key, _), rows in zip(wanted, results, strict=True)
        for row in rows
    )


async def read_routes(
    databases: OvnDatabases, routers: Mapping[int, Row], addresses: Iterable[str]
) -> tuple[Route, ...]:
    """The static routes, of logical routers by their tunnel keys, that match any of the addresses or networks."""
    ends = [ipaddress.ip_network(address, strict=False) for address in addresses]
    wanted = [(key, uuid) for key, router in routers.items() for uuid in as_tuple(router["static_routes"])]
    columns = ("_uuid", "ip_prefix", "nexthop")
    results = await databases.nb.select_many(
        [("Logical_Router_Static_Route", [("_uuid", "==", uuid_ref(uuid))], columns) for _, uuid in wanted]
    )
    return tuple(
        Route(router=key, prefix=row["ip_prefix"], nexthop=row["nexthop"], uuid=row["_uuid"])
        for (key, _), rows in zip(wanted, results, strict=True)
        for row in rows
        if any(_overlap(row["ip_prefix"], end) for end in ends)
    )


def _overlap(prefix: str, end: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_network(prefix, strict=False).overlaps(end)
    except (ValueError, TypeError):
        # The other IP version, or no prefix: `overlaps` takes only its own kind.
        return False


async def read_rules(
    databases: OvnDatabases, datapaths: Mapping[int, Row], ports: Sequence[LogicalPort]
) -> tuple[tuple[Rule, ...], tuple[str, ...]]:
    """The ACLs, QoS rows and router policies of datapaths by their tunnel keys, and of the ports' port groups.

    Returns:
        The rules, and the uuids of the port groups.
    """
    found = [
        Rule(datapath=key, table=table, uuid=uuid)
        for key, row in datapaths.items()
        for column, table in (("acls", "ACL"), ("qos_rules", "QoS"), ("policies", "Logical_Router_Policy"))
        for uuid in as_tuple(row.get(column, ()))
    ]
    groups: list[str] = []
    for port in ports:
        for group in await port_groups(databases.nb, [port.nb_uuid]):
            groups.append(group["_uuid"])
            found += [Rule(datapath=port.datapath, table="ACL", uuid=uuid) for uuid in as_tuple(group["acls"])]
    return tuple(dict.fromkeys(found)), tuple(dict.fromkeys(groups))


async def read_vips(databases: OvnDatabases, datapaths: Mapping[int, Row]) -> tuple[Vip, ...]:
    """The VIPs of the load balancers that are set on switches and routers, by these datapaths' tunnel keys."""
    users: dict[str, set[int]] = defaultdict(set)
    groups: dict[str, set[int]] = defaultdict(set)
    for key, row in datapaths.items():
        for uuid in as_tuple(row.get("load_balancer", ())):
            users[uuid].add(key)
        for uuid in as_tuple(row.get("load_balancer_group", ())):
            groups[uuid].add(key)
    for uuid, keys in groups.items():
        for group in await databases.nb.select(
            "Load_Balancer_Group", [("_uuid", "==", uuid_ref(uuid))], ("load_balancer",)
        ):
            for balancer in as_tuple(group["load_balancer"]):
                users[balancer] |= keys
    found: list[Vip] = []
    results = await databases.nb.select_many(
        [("Load_Balancer", [("_uuid", "==", uuid_ref(uuid))], ()) for uuid in sorted(users)]
    )
    for row in (row for rows in results for row in rows):
        for vip, texts in await vips_of(databases.nb, row):
            found.append(await _vip(databases, row, vip, texts, tuple(sorted(users[row["_uuid"]]))))
    return tuple(found)


async def _vip(databases: OvnDatabases, row: Row, vip: str, texts: str, datapaths: tuple[int, ...]) -> Vip:
    address, port = address_and_port(vip)
    proto = (next(iter(as_tuple(row["protocol"])), "") or "tcp") if port else ""
    backends = []
    for text in filter(None, texts.split(",")):
        backend, backend_port = address_and_port(text)
        logical_port = row["ip_port_mappings"].get(backend, "").partition(":")[0]
        status = await _status(databases, logical_port, backend, backend_port) if logical_port else ""
        backends.append(Backend(address=backend, port=backend_port, logical_port=logical_port, status=status))
    return Vip(
        balancer=row["name"] or row["_uuid"],
        uuid=row["_uuid"],
        address=address,
        proto=proto,
        port=port,
        backends=tuple(backends),
        datapaths=datapaths,
    )


async def _status(databases: OvnDatabases, logical_port: str, address: str, port: int) -> str:
    """What the service monitor of a backend says; empty where there is none."""
    rows = await databases.sb.select(
        "Service_Monitor", [("logical_port", "==", logical_port), ("ip", "==", address), ("port", "==", port)]
    )
    return next((status for row in rows for status in as_tuple(row["status"])), "")
