"""Reads from the OVN databases the part of the topology that a task can touch.

Every query names what it looks for (a name, a uuid, a reference), so that what is transferred grows with the
task and not with the cloud. The one exception: an endpoint given as an address is looked for in the addresses
of all logical switch ports.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from vtrace.errors import CannotWorkError
from vtrace.model.inventory import OUTWARD, Chassis, Inventory, LogicalDatapath, LogicalPort, claims
from vtrace.model.task import Endpoint
from vtrace.ovn.databases import LSP_COLUMNS, OvnDatabases, vpc_name
from vtrace.ovn.ovsdb import Row, as_tuple, map_of, uuid_ref
from vtrace.ovn.translation import read_nats, read_routes, read_rules, read_vips
from vtrace.ovn.understood import understood

_MAX_DATAPATHS = 512
_PORT_KINDS = ("patch", "chassisredirect", "l3gateway", *OUTWARD, "external", "virtual")
# A VPC of up to so many switches and routers is armed whole, a larger one along the shortest paths.
MAX_ARMED_WHOLE = 12


class InventoryReader:
    """Collects datapaths, ports and chassis around the endpoints of a task."""

    def __init__(self, databases: OvnDatabases) -> None:
        self._databases = databases
        self._nb = databases.nb
        self._sb = databases.sb
        self._borders: set[str] = set()
        self._switches: dict[str, Row] = {}
        self._routers: dict[str, Row] = {}
        self._links: dict[str, set[str]] = {}
        self._switch_ports: dict[str, list[Row]] = {}

    @understood
    async def read(self, endpoints: Sequence[tuple[Endpoint, Endpoint]]) -> Inventory:
        """The inventory of the VPCs of all ends; of larger ones what lies on a shortest path between them."""
        wanted: set[str] = set()
        for source, destination in endpoints:
            wanted |= await self._around_pair(source, destination)
        datapaths = [await self._datapath(uuid) for uuid in sorted(wanted)]
        names = {port for pair in endpoints for e in pair for port in e.ports}
        ports = [p for d in datapaths for p in await self._ports(d, names)]
        rivals = self._rivals(datapaths, ports, names)
        ports += [p for d in datapaths for p in await self._ports(d, rivals, ()) if d.key in rivals.values()]
        ports = await self._with_peers(ports)
        bound = {d.key: await self._bound(d) for d in datapaths}
        uuids = {c for p in ports for c in (p.chassis, *p.standby) if c}.union(*bound.values())
        chassis = await self._chassis(sorted(uuids))
        datapaths = [
            replace(d, chassis=tuple(sorted(chassis[u].name for u in bound[d.key] if u in chassis))) for d in datapaths
        ]
        names_of = {uuid: c.name for uuid, c in chassis.items()}
        ports = [
            replace(
                p,
                chassis=names_of.get(p.chassis, ""),
                standby=tuple(sorted(names_of[u] for u in p.standby if u in names_of and u != p.chassis)),
            )
            for p in ports
        ]
        rows = {d.key: self._switches.get(d.nb_uuid) or self._routers[d.nb_uuid] for d in datapaths}
        routers = {d.key: rows[d.key] for d in datapaths if d.kind != "vswitch"}
        used = tuple(sorted(chassis.values(), key=lambda c: c.name))
        addresses = {a for pair in endpoints for e in pair for a in (e.address, *e.addresses)}
        rules, groups = await read_rules(self._databases, rows, [p for p in ports if p.name in names])
        return Inventory(
            datapaths=tuple(datapaths),
            ports=tuple(ports),
            chassis=used,
            nats=await read_nats(self._databases, routers),
            vips=await read_vips(self._databases, rows),
            routes=await read_routes(self._databases, routers, sorted(addresses)),
            rules=rules,
            port_groups=groups,
            rivals=tuple(sorted(rivals)),
        )

    async def _around_pair(self, source: Endpoint, destination: Endpoint) -> set[str]:
        """The datapaths that packets between two ends may pass."""
        ends = [await self._starts(end) for end in (source, destination)]
        inside = [switch for switches in ends for switch in switches]
        components = {switch: await self._component(switch) for switch in dict.fromkeys(inside)}
        found: set[str] = set().union(*components.values())
        if all(ends):
            for one in dict.fromkeys(ends[0]):
                for other in dict.fromkeys(ends[1]):
                    if not components[one] & components[other]:
                        found |= await self._between(one, other)
        for switch, component in components.items():
            if not component:
                # Too large to watch whole. What leads out is found on the nearest ways to a border.
                found |= await self._around(switch)
                found |= await self._towards_border(switch) if not all(ends) else set()
        return found

    async def _starts(self, end: Endpoint) -> list[str]:
        """The switches of an end's ports; of a VIP without backends the switches and routers that have it."""
        if end.ports:
            return [switch for port in end.ports if (switch := await self._switch_of(port))]
        found = []
        for uuid in end.set_on:
            for table, known in (("Logical_Switch", self._switches), ("Logical_Router", self._routers)):
                for row in await self._nb.select(table, [("_uuid", "==", uuid_ref(uuid))]):
                    known[uuid] = row
                    found.append(uuid)
        return found

    async def _switch_of(self, port: str) -> str:
        """The switch that has a port; empty where the port is no more."""
        rows = await self._nb.select("Logical_Switch_Port", [("name", "==", port)], ("_uuid",))
        if not rows:
            return ""
        switches = await self._nb.select("Logical_Switch", [("ports", "includes", uuid_ref(rows[0]["_uuid"]))])
        if not switches:
            return ""
        self._switches[switches[0]["_uuid"]] = switches[0]
        return str(switches[0]["_uuid"])

    async def _component(self, start: str) -> set[str]:
        """The VPC around a switch, its borders included; empty where it is more than a task should arm."""
        found = {start}
        frontier = [start]
        while frontier:
            node = frontier.pop()
            around = await self._neighbors(node)
            if node in self._borders and node != start:
                continue
            frontier += around - found
            found |= around
            if len(found) > MAX_ARMED_WHOLE:
                return set()
        return found

    async def _towards_border(self, start: str) -> set[str]:
        """All datapaths on the shortest paths from a switch to the borders that are nearest to it."""
        seen = {start}
        frontier = [start]
        while frontier and len(seen) <= _MAX_DATAPATHS:
            frontier = [n for node in frontier for n in sorted(await self._neighbors(node)) if n not in seen]
            seen.update(frontier)
            for node in frontier:
                await self._neighbors(node)
            borders = [node for node in frontier if node in self._borders]
            if borders:
                return set().union(*[await self._between(start, border) for border in borders[:MAX_ARMED_WHOLE]])
        return set()

    async def _around(self, node: str) -> set[str]:
        """A datapath and its neighbors."""
        return {node} | await self._neighbors(node)

    async def _between(self, start: str, goal: str) -> set[str]:
        """All datapaths on the shortest paths from one switch to another (breadth first, both ends included)."""
        distance = {start: 0}
        before: dict[str, set[str]] = {start: set()}
        frontier = [start]
        while frontier and goal not in distance:
            following: list[str] = []
            for node in frontier:
                for neighbor in await self._neighbors(node):
                    if neighbor not in distance:
                        distance[neighbor] = distance[node] + 1
                        before[neighbor] = set()
                        following.append(neighbor)
                    if distance[neighbor] == distance[node] + 1:
                        before[neighbor].add(node)
            frontier = following
            if len(distance) > _MAX_DATAPATHS:
                raise CannotWorkError("The logical topology between the endpoints is too large", "", f"{len(distance)}")
        if goal not in distance:
            return {goal} | await self._around(start)
        found: set[str] = set()
        stack = [goal]
        while stack:
            node = stack.pop()
            if node not in found:
                found.add(node)
                stack.extend(before[node])
        return found

    async def _neighbors(self, node: str) -> set[str]:
        if node not in self._links:
            reader = self._switch_neighbors if node in self._switches else self._router_neighbors
            self._links[node] = await reader(node)
        return self._links[node]

    async def _switch_neighbors(self, node: str) -> set[str]:
        row = self._switches[node]
        # One transaction: the switch's own ports.
        results = await self._nb.select_many(
            [("Logical_Switch_Port", [("_uuid", "==", uuid_ref(p))], LSP_COLUMNS) for p in as_tuple(row["ports"])]
        )
        self._switch_ports[node] = ports = [port for rows in results for port in rows]
        if is_transit(row) or any(port["type"] in OUTWARD for port in ports):
            self._borders.add(node)
        found = set()
        for port in ports:
            if port["type"] == "router":
                found.update(await self._router_with_port(port["options"].get("router-port", "")))
        return found

    async def _router_with_port(self, name: str) -> list[str]:
        rows = await self._nb.select("Logical_Router_Port", [("name", "==", name)], ("_uuid",))
        if not rows:
            return []
        routers = await self._nb.select("Logical_Router", [("ports", "includes", uuid_ref(rows[0]["_uuid"]))])
        for router in routers:
            self._routers[router["_uuid"]] = router
        return [router["_uuid"] for router in routers]

    async def _router_neighbors(self, node: str) -> set[str]:
        found: set[str] = set()
        for uuid in as_tuple(self._routers[node]["ports"]):
            (lrp,) = await self._nb.select("Logical_Router_Port", [("_uuid", "==", uuid_ref(uuid))], ("name", "peer"))
            peers = as_tuple(lrp["peer"])
            if peers:
                found.update(await self._router_with_port(peers[0]))
            lsps = await self._nb.select(
                "Logical_Switch_Port", [("options", "includes", map_of(router_port=lrp["name"]))], ("_uuid",)
            )
            for lsp in lsps:
                switches = await self._nb.select("Logical_Switch", [("ports", "includes", uuid_ref(lsp["_uuid"]))])
                for switch in switches:
                    self._switches[switch["_uuid"]] = switch
                    found.add(switch["_uuid"])
        return found

    async def _datapath(self, uuid: str) -> LogicalDatapath:
        is_switch = uuid in self._switches
        row = self._switches[uuid] if is_switch else self._routers[uuid]
        ids = map_of(logical_switch=uuid) if is_switch else map_of(logical_router=uuid)
        bindings = await self._sb.select("Datapath_Binding", [("external_ids", "includes", ids)])
        if not bindings:
            bindings = await self._sb.select("Datapath_Binding", [("nb_uuid", "==", uuid)])
        if not bindings:
            raise CannotWorkError(
                f"The southbound database does not know {row['name']!r} yet",
                self._sb.remote,
                "ovn-northd lags or is dead",
            )
        return LogicalDatapath(
            key=bindings[0]["tunnel_key"],
            name=row["name"],
            kind="vswitch" if is_switch else router_kind(row),
            nb_uuid=uuid,
            sb_uuid=bindings[0]["_uuid"],
            vpc=vpc_name(row),
            border=uuid in self._borders,
            forced=() if is_switch else forced_sources(row),
        )

    async def _bound(self, datapath: LogicalDatapath) -> set[str]:
        """The uuids of the chassis that have bound VIFs of the datapath."""
        here = [("datapath", "==", uuid_ref(datapath.sb_uuid)), ("type", "==", "")]
        rows = await self._sb.select("Port_Binding", here, ("chassis",))
        return {uuid for row in rows for uuid in as_tuple(row["chassis"])}

    def _rivals(
        self, datapaths: Sequence[LogicalDatapath], ports: Sequence[LogicalPort], names: set[str]
    ) -> dict[str, int]:
        """Other ports, with their switch's key, that claim a MAC or IP address of an endpoint's or a router's port."""
        peers = {p.peer: p for p in ports if p.peer}
        found = {}
        for datapath in datapaths:
            own = [p for p in ports if p.datapath == datapath.key and p.name in names]
            routers = [peers[p.name] for p in ports if p.datapath == datapath.key and p.name in peers]
            claimed = set().union(*(p.claims for p in (*own, *routers)))
            for row in self._switch_ports.get(datapath.nb_uuid, ()):
                texts = [*as_tuple(row["addresses"]), *as_tuple(row["dynamic_addresses"])]
                if row["name"] not in names and not row["type"] and claimed & claims(texts):
                    found[row["name"]] = datapath.key
        return found

    async def _ports(
        self, datapath: LogicalDatapath, names: Iterable[str], kinds: Sequence[str] = _PORT_KINDS
    ) -> list[LogicalPort]:
        """The datapath's router-side ports, and those of the names."""
        here = ("datapath", "==", uuid_ref(datapath.sb_uuid))
        queries: list[Any] = [("Port_Binding", [here, ("type", "==", kind)], ()) for kind in kinds]
        queries += [("Port_Binding", [here, ("logical_port", "==", name)], ()) for name in sorted(names)]
        rows = {row["_uuid"]: row for result in await self._sb.select_many(queries) for row in result}
        return [await self._port(datapath.key, row) for row in rows.values()]

    async def _port(self, datapath: int, row: Row) -> LogicalPort:
        nb = await self._nb.select("Logical_Switch_Port", [("name", "==", row["logical_port"])], LSP_COLUMNS)
        peer = row["options"].get("peer", "")
        first = nb[0] if nb else None
        router_port = (
            []
            if first
            else await self._nb.select(
                "Logical_Router_Port",
                [("name", "==", row["logical_port"].removeprefix("cr-"))],
                ("_uuid", "ha_chassis_group"),
            )
        )
        groups = [
            *(g for r in router_port for g in as_tuple(r["ha_chassis_group"])),
            *as_tuple(row["ha_chassis_group"]),
        ]
        return LogicalPort(
            name=row["logical_port"],
            key=row["tunnel_key"],
            datapath=datapath,
            type=row["type"],
            chassis=next(iter(as_tuple(row["chassis"])), ""),
            standby=await self._standby(row),
            ha_group=next(iter(groups), ""),
            pinned=row["options"].get("l3gateway-chassis", ""),
            peer=peer,
            mac=(as_tuple(row["mac"]) or ("",))[0].split(" ")[0],
            addresses=tuple(as_tuple(first["addresses"])) if first else tuple(as_tuple(row["mac"])),
            port_security=tuple(as_tuple(first["port_security"])) if first else (),
            nb_uuid=next((r["_uuid"] for r in (*nb, *router_port)), ""),
            sb_uuid=row["_uuid"],
            enabled=as_tuple(first["enabled"]) != (False,) if first else True,
            up=as_tuple(row.get("up", True)) != (False,),
        )

    async def _standby(self, row: Row) -> tuple[str, ...]:
        """The uuids of the chassis that may have a port beside or after the one that has it."""
        found = [*as_tuple(row.get("additional_chassis", ())), *as_tuple(row.get("requested_chassis", ()))]
        found += as_tuple(row.get("requested_additional_chassis", ()))
        for group in as_tuple(row["ha_chassis_group"]):
            (members,) = await self._sb.select("HA_Chassis_Group", [("_uuid", "==", uuid_ref(group))], ("ha_chassis",))
            for member in as_tuple(members["ha_chassis"]):
                rows = await self._sb.select("HA_Chassis", [("_uuid", "==", uuid_ref(member))], ("chassis",))
                found += [uuid for row in rows for uuid in as_tuple(row["chassis"])]
        return tuple(dict.fromkeys(found))

    async def _with_peers(self, ports: list[LogicalPort]) -> list[LogicalPort]:
        known = {p.name: p for p in ports}
        missing = sorted({p.peer for p in ports if p.peer and p.peer not in known})
        results = await self._sb.select_many(
            [("Port_Binding", [("logical_port", "==", name)], ("logical_port", "datapath")) for name in missing]
        )
        uuids = {row["logical_port"]: row["datapath"] for rows in results for row in rows}
        keys: dict[str, int] = {}
        for name, uuid in uuids.items():
            (row,) = await self._sb.select("Datapath_Binding", [("_uuid", "==", uuid_ref(uuid))], ("tunnel_key",))
            keys[name] = row["tunnel_key"]
        keys.update({p.name: p.datapath for p in ports})
        return [replace(p, peer_datapath=keys.get(p.peer, 0)) for p in ports]

    async def _chassis(self, uuids: Sequence[str]) -> dict[str, Chassis]:
        columns = ("_uuid", "name", "hostname", "encaps")
        encap_columns = ("_uuid", "type", "ip", "options")
        results = await self._sb.select_many([("Chassis", [("_uuid", "==", uuid_ref(u))], columns) for u in uuids])
        found = {}
        for row in (row for rows in results for row in rows):
            encaps = [
                encap
                for uuid in as_tuple(row["encaps"])
                for encap in await self._sb.select("Encap", [("_uuid", "==", uuid_ref(uuid))], encap_columns)
            ]
            hostname = row["hostname"]
            same = await self._sb.select("Chassis", [("hostname", "==", hostname)], ("_uuid",)) if hostname else []
            found[row["_uuid"]] = Chassis(
                name=row["name"],
                server=hostname if len(same) == 1 else row["name"],
                hostname=hostname,
                encap_ips=tuple(dict.fromkeys(e["ip"] for e in encaps)),
                encap_types=tuple(dict.fromkeys(e["type"] for e in encaps)),
                encap_uuid=next((str(e["_uuid"]) for e in encaps), ""),
                encap_port=next((str(p) for e in encaps if (p := e["options"].get("dst_port"))), ""),
                uuid=row["_uuid"],
            )
        return found


def is_transit(row: Row) -> bool:
    """Whether a switch joins the routers of several VPCs: OVN interconnection's mark (ovn-nb(5)), or ours."""
    return "interconn-ts" in row.get("other_config", {}) or row["external_ids"].get("vtrace:kind") == "transit"


def forced_sources(router: Row) -> tuple[str, ...]:
    """What a router makes the source of packets that it balances or translates (ovn-nb(5), Logical_Router.options)."""
    options = ("lb_force_snat_ip", "dnat_force_snat_ip")
    return tuple(dict.fromkeys(word for name in options for word in router["options"].get(name, "").split()))


def router_kind(row: Row) -> str:
    """vbrouter or vrouter, by the rule of the answer's format: an external id, or a gateway router without NAT."""
    if row["external_ids"].get("vtrace:kind") == "vbrouter":
        return "vbrouter"
    return "vbrouter" if "chassis" in row["options"] and not as_tuple(row["nat"]) else "vrouter"
