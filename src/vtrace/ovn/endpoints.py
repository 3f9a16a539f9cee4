"""Turns endpoint texts into endpoints: what a user calls a VM, an address, a VIP or a floating IP."""

from __future__ import annotations

import ipaddress
from typing import Any

from vtrace.errors import CannotWorkError, UsageError
from vtrace.model.task import Endpoint
from vtrace.ovn.databases import LSP_COLUMNS, OvnDatabases, vpc_name
from vtrace.ovn.ovsdb import Row, as_tuple, map_of, uuid_ref


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

    async def resolve(self, text: str, ip_version: int, *, outside: bool = False) -> list[Endpoint]:
        """The endpoints a text names.

        Args:
            text: as the user wrote it.
            ip_version: 4 or 6.
            outside: whether an address that no port has is an endpoint too.

        Raises:
            UsageError: nothing has that name or address, or several VPCs have it.
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
        if not found and single:
            await self._refuse_vip(str(network.network_address))
        if not found and single and outside and (not vpc or await self._is_vpc(vpc)):
            wanted = str(network.network_address)
            return [Endpoint(name=text, port="", address=wanted, addresses=(wanted,), vpc=vpc)]
        return self._one_vpc(text, found, single=single)

    async def _refuse_vip(self, address: str) -> None:
        """Packets to a VIP change their destination on the way, which tasks do not follow yet.

        Raises:
            CannotWorkError: the address is a VIP of a load balancer.
        """
        for row in await self._nb.select("Load_Balancer", (), ("name", "vips")):
            if any(_vip_address(vip) == address for vip in row["vips"]):
                raise CannotWorkError(
                    f"{address} is a VIP of the load balancer {row['name']}",
                    "endpoint",
                    "traffic through load balancers is not followed yet",
                    "Name a backend's port; packets that it gets through the VIP are not seen",
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
                f"No logical switch port has the address {text!r}",
                "endpoint",
                "",
                "Name a port, or an address that a port has",
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
        switches = await self._nb.select(
            "Logical_Switch", [("ports", "includes", uuid_ref(row["_uuid"]))], ("name", "external_ids")
        )
        if not switches:
            raise CannotWorkError(f"The port {row['name']!r} is in no logical switch", self._nb.remote)
        vpc = vpc_name(switches[0])
        return Endpoint(
            name=row["name"], port=row["name"], address=address, addresses=addresses, by_port=by_port, vpc=vpc
        )


def _vip_address(vip: str) -> str:
    """The address of a VIP, which may have a port: `192.0.2.1:80`, `[2001:db8::1]:80`."""
    if vip.startswith("["):
        return vip[1:].partition("]")[0]
    return vip.partition(":")[0] if vip.count(":") == 1 else vip


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
