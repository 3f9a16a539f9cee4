"""Turns endpoint texts into endpoints: what a user calls a VM, an address, a VIP or a floating IP.

An address that no port has is looked for among the VIPs and NAT rows, and may be outside.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec.structs

from vtrace.errors import CannotWorkError, UsageError
from vtrace.model.task import Alias, Endpoint, Pair
from vtrace.ovn.databases import LSP_COLUMNS, OvnDatabases, vpc_name
from vtrace.ovn.ovsdb import Row, as_tuple, map_of, uuid_ref
from vtrace.ovn.templates import vips_of
from vtrace.ovn.understood import understood


def addresses_of(port: Row) -> list[tuple[str, tuple[str, ...]]]:
    """The (MAC, IP addresses) pairs of a Logical_Switch_Port's `addresses` column."""
    found = []
    for text in as_tuple(port["addresses"]):
        words = text.split()
        if "dynamic" in words:
            # What OVN gave out; nothing yet where that column is empty (ovn-nb(5)).
            words = " ".join(as_tuple(port.get("dynamic_addresses", ()))).split()
        if words and words[0].count(":") == 5:
            found.append((words[0].lower(), tuple(words[1:])))
    return found


def own_addresses(port: Row) -> list[str]:
    """The IP addresses of a port's `addresses` column."""
    return [address for _, addresses in addresses_of(port) for address in addresses]


def secured_addresses(port: Row) -> list[str]:
    """The single IP addresses of a port's `port_security` column: what it may use beside its own."""
    words = [word for text in as_tuple(port["port_security"]) for word in text.split()]
    return [word for word in words if word.count(":") != 5 and "/" not in word]


class EndpointResolver:
    """Turns endpoint texts into endpoints: a port name, `VPC/address`, an address, or a CIDR."""

    def __init__(self, databases: OvnDatabases) -> None:
        self._nb = databases.nb
        self._all_ports: list[Row] | None = None
        self._switch_of: dict[str, str] = {}

    @understood
    async def resolve(self, text: str, ip_version: int) -> list[Endpoint]:
        """The endpoints a text names; an address that nothing here has is outside.

        Args:
            text: as the user wrote it.
            ip_version: 4 or 6.

        Raises:
            UsageError: nothing has that name, or several VPCs have that address.
        """
        rows = await self._nb.select("Logical_Switch_Port", [("name", "==", text)], LSP_COLUMNS)
        if rows:
            return [await self._endpoint(rows[0], ip_version)]
        vpc, address = _split(text)
        network = _network(address)
        if network is None:
            raise UsageError(
                f"Nothing is called {text!r}",
                "endpoint",
                "it is neither a logical switch port's name, nor VPC/address, nor an address, nor a CIDR",
                "`ovn-nbctl show` lists the ports",
            )
        found = await self._in_network(network, vpc)
        single = network.num_addresses == 1
        if not found:
            found = await self._translated(text, str(network.network_address), vpc) if single else []
        if not found and single:
            found = await self._behind_route(network, vpc)
        if not found and (not vpc or await self._is_vpc(vpc)):
            wanted = str(network.network_address) if single else str(network)
            return [Endpoint(name=text, port="", address=wanted, addresses=(wanted,), vpc=vpc)]
        return self._one_vpc(text, found, single=single)

    @understood
    async def elsewhere(self, pair: Pair) -> tuple[str, ...]:
        """Addresses of a pair's destination that lead to another VM: one of the source's VPC, not the destination's."""
        source, destination = pair.source, pair.destination
        if not source.ports or not destination.ports or not source.vpc or source.vpc == destination.vpc:
            return ()
        found = []
        for address in destination.addresses:
            if await self._in_network(_network(address), source.vpc):
                found.append(address)
        return tuple(found)

    async def _translated(self, text: str, address: str, vpc: str) -> list[Endpoint]:
        """The endpoints behind an address that the cloud translates: a VIP, or a floating IP."""
        found = [*await self._behind_vip(text, address), *await self._behind_floating(text, address)]
        return [endpoint for endpoint in found if vpc in ("", endpoint.vpc)]

    async def _behind_vip(self, text: str, address: str) -> list[Endpoint]:
        """One endpoint for each VPC whose load balancers have the VIP: another port of it may be another one's."""
        found: dict[str, Endpoint] = {}
        for row in await self._nb.select("Load_Balancer", (), ("_uuid", "name", "vips", "protocol")):
            all_vips = await vips_of(self._nb, row)
            vips = [(vip, backends) for vip, backends in all_vips if address_and_port(vip)[0] == address]
            if not vips:
                continue
            owners = await self._owners("load_balancer", row["_uuid"])
            for group in await self._nb.select(
                "Load_Balancer_Group", [("load_balancer", "includes", uuid_ref(row["_uuid"]))], ("_uuid",)
            ):
                owners += await self._owners("load_balancer_group", group["_uuid"])
            aliases, backends = [], []
            for vip, texts in vips:
                port = address_and_port(vip)[1]
                proto = (next(iter(as_tuple(row["protocol"])), "") or "tcp") if port else ""
                ends = [address_and_port(backend) for backend in texts.split(",") if backend]
                backends += [end[0] for end in ends]
                own = next((end[1] for end in ends), 0)
                aliases.append(Alias(address=address, kind="vip", proto=proto, port=port, own_port=own))
            ports = [p for backend in dict.fromkeys(backends) for p in await self._near(backend, owners)]
            vpc = vpc_name(owners[0]) if owners else row["name"]
            known = found.get(vpc, Endpoint(name=text, port="", address=address, only=address, vpc=vpc))
            found[vpc] = msgspec.structs.replace(
                known,
                members=tuple(dict.fromkeys((*known.members, *(p.port for p in ports)))),
                addresses=tuple(dict.fromkeys((*known.addresses, *backends))),
                aliases=(*known.aliases, *aliases),
                set_on=tuple(dict.fromkeys((*known.set_on, *(owner["_uuid"] for owner in owners)))),
            )
        return list(found.values())

    async def _behind_floating(self, text: str, address: str) -> list[Endpoint]:
        """The VM of each NAT row that has the address.

        Raises:
            UsageError: many share it, as the address of a source NAT.
        """
        found = []
        for row in await self._nb.select("NAT", [("external_ip", "==", address)]):
            owners = await self._owners("nat", row["_uuid"])
            if row["type"] == "snat":
                name = owners[0]["name"] if owners else "a router"
                raise UsageError(
                    f"{address} is the address that {name} gives to all of {row['logical_ip']}",
                    "endpoint",
                    "which VM is meant can't be told from it",
                    "Name the VM: what it sends and gets under that address is found",
                )
            for end in await self._near(row["logical_ip"], owners):
                alias = Alias(address=address, kind="floating")
                found.append(msgspec.structs.replace(end, name=text, aliases=(alias,), only=address))
        return found

    async def _behind_route(self, address: Any, vpc: str) -> list[Endpoint]:
        """The VM that a static route, not a default one, sends packets for the address to; none where several do."""
        rows = await self._nb.select("Logical_Router_Static_Route", (), ("_uuid", "ip_prefix", "nexthop"))
        routes = [(_network(row["ip_prefix"]), _network(row["nexthop"]), row["_uuid"]) for row in rows]
        found: dict[str, tuple[int, Endpoint]] = {}
        for prefix, nexthop, uuid in routes:
            if prefix is None or nexthop is None or not prefix.prefixlen or prefix.version != address.version:
                continue
            for owner in await self._owners("static_routes", uuid) if address.subnet_of(prefix) else ():
                for end in await self._near(str(nexthop.network_address), [owner]):
                    if vpc in ("", end.vpc) and (end.vpc not in found or found[end.vpc][0] < prefix.prefixlen):
                        own = str(address.network_address)
                        end = msgspec.structs.replace(end, address=own, addresses=(own,))
                        found[end.vpc] = (prefix.prefixlen, end)
        return [end for _, end in found.values()] if len(found) == 1 else []

    async def _owners(self, column: str, uuid: str) -> list[Row]:
        """The switches and routers that refer to a row."""
        tables = ("Logical_Router",) if column in ("nat", "static_routes") else ("Logical_Switch", "Logical_Router")
        results = await self._nb.select_many([(table, [(column, "includes", uuid_ref(uuid))], ()) for table in tables])
        return [row for rows in results for row in rows]

    async def _near(self, address: str, owners: list[Row]) -> list[Endpoint]:
        """The ports with an address that are next to one of these switches and routers, or else in their VPC."""
        found = await self._in_network(_network(address), "")
        if len(found) < 2:
            return found
        linked: set[str] = set()
        for owner in owners:
            if "static_routes" not in owner:
                linked.add(owner["name"])
                continue
            for uuid in as_tuple(owner["ports"]):
                (port,) = await self._nb.select("Logical_Router_Port", [("_uuid", "==", uuid_ref(uuid))], ("name",))
                peers = await self._nb.select(
                    "Logical_Switch_Port", [("options", "includes", map_of(router_port=port["name"]))], ("_uuid",)
                )
                for peer in peers:
                    linked.update(row["name"] for row in await self._switches(peer["_uuid"]))
        near = [end for end in found if self._switch_of.get(end.port) in linked]
        vpcs = {vpc_name(owner) for owner in owners}
        return near or [end for end in found if end.vpc in vpcs]

    async def _switches(self, port: str) -> list[Row]:
        return await self._nb.select(
            "Logical_Switch", [("ports", "includes", uuid_ref(port))], ("name", "external_ids")
        )

    async def _is_vpc(self, name: str) -> bool:
        """Whether a switch or router is of this VPC, or called so."""
        ids = map_of(**{"vtrace:vpc": name})
        results = await self._nb.select_many(
            [
                (table, [condition], ("_uuid",))
                for table in ("Logical_Switch", "Logical_Router")
                for condition in (("external_ids", "includes", ids), ("name", "==", name))
            ]
        )
        return any(results)

    def _one_vpc(self, text: str, found: list[Endpoint], *, single: bool) -> list[Endpoint]:
        if not found:
            raise UsageError(
                f"Nothing in that VPC has the address {text!r}",
                "endpoint",
                "",
                "Name a port, or an address",
            )
        if len({e.vpc for e in found}) > 1 or (single and len(found) > 1):
            names = ", ".join(f"{e.vpc}/{e.address} (port {e.name})" for e in found)
            raise UsageError(
                f"The address {text!r} is ambiguous",
                "endpoint",
                f"{len(found)} ports have it: {names}",
                "Say which: VPC/address or the port's name",
            )
        return found

    async def _in_network(self, network: Any, vpc: str) -> list[Endpoint]:
        if self._all_ports is None:
            self._all_ports = await self._nb.select("Logical_Switch_Port", [("type", "==", "")], LSP_COLUMNS)
        found = []
        for row in self._all_ports:
            for address in dict.fromkeys((*own_addresses(row), *secured_addresses(row))):
                if ipaddress.ip_address(address) in network:
                    endpoint = await self._named(row, address, (address,))
                    if not vpc or vpc == endpoint.vpc:
                        found.append(endpoint)
        return found

    async def _endpoint(self, row: Row, ip_version: int) -> Endpoint:
        of_version = [a for a in own_addresses(row) if ipaddress.ip_address(a).version == ip_version]
        secured = [a for a in secured_addresses(row) if ipaddress.ip_address(a).version == ip_version]
        addresses = tuple(dict.fromkeys((*of_version, *secured)))
        if addresses:
            return await self._named(row, addresses[0], addresses, by_port=True)
        raise UsageError(
            f"The port {row['name']!r} has no IPv{ip_version} address",
            "endpoint",
            f"its addresses are {list(as_tuple(row['addresses']))}",
            "Give --ip 4 or --ip 6, or another port",
        )

    async def _named(self, row: Row, address: str, addresses: tuple[str, ...], *, by_port: bool = False) -> Endpoint:
        switches = await self._switches(row["_uuid"])
        if not switches:
            raise CannotWorkError(f"The port {row['name']!r} is in no logical switch", self._nb.remote)
        self._switch_of[row["name"]] = switches[0]["name"]
        vpc = vpc_name(switches[0])
        return Endpoint(
            name=row["name"], port=row["name"], address=address, addresses=addresses, by_port=by_port, vpc=vpc
        )


def address_and_port(text: str) -> tuple[str, int]:
    """A VIP or backend as (address, port): `192.0.2.1:80`, `[2001:db8::1]:80`; port 0 where it has none."""
    text = text.strip()
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        return address, int(rest.lstrip(":") or 0)
    if text.count(":") == 1:
        address, _, port = text.partition(":")
        return address, int(port or 0)
    return text, 0


def _split(text: str) -> tuple[str, str]:
    """(VPC, address or CIDR) of an endpoint's text; the VPC is empty where none is named."""
    if _network(text) is not None:
        return "", text
    vpc, _, rest = text.partition("/")
    return vpc, rest


def _network(text: str) -> Any:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
