"""Endpoints and names from rows of the northbound database (ovn-nb(5)); a database in memory stands for it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from vtrace.errors import UsageError
from vtrace.model.task import Direction, Endpoint, Pair, TrafficFilter
from vtrace.ovn.databases import OvnDatabases, vpc_name
from vtrace.ovn.endpoints import EndpointResolver, address_and_port, addresses_of
from vtrace.ovn.topology import router_kind

MAC = "0a:00:00:00:00:01"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"addresses": ()}, []),
        ({"addresses": MAC}, [(MAC, ())]),
        ({"addresses": f"{MAC} 10.0.0.1"}, [(MAC, ("10.0.0.1",))]),
        ({"addresses": f"{MAC.upper()} 10.0.0.1 fd00::1"}, [(MAC, ("10.0.0.1", "fd00::1"))]),
        ({"addresses": (f"{MAC} 10.0.0.1", "unknown")}, [(MAC, ("10.0.0.1",))]),
        ({"addresses": "router"}, []),
        ({"addresses": "unknown"}, []),
        ({"addresses": "dynamic", "dynamic_addresses": f"{MAC} 10.0.0.7"}, [(MAC, ("10.0.0.7",))]),
        ({"addresses": "dynamic 10.0.0.7", "dynamic_addresses": f"{MAC} 10.0.0.7"}, [(MAC, ("10.0.0.7",))]),
        ({"addresses": "dynamic", "dynamic_addresses": ()}, []),
        pytest.param(
            {"addresses": f"{MAC} dynamic", "dynamic_addresses": f"{MAC} 10.0.0.7"},
            [(MAC, ("10.0.0.7",))],
        ),
    ],
)
def test_addresses_of(row: dict[str, Any], expected: list[tuple[str, tuple[str, ...]]]) -> None:
    assert addresses_of(row) == expected


@pytest.mark.parametrize(
    ("ids", "name"),
    [
        ({}, "web"),
        ({"other": "x"}, "web"),
        ({"vtrace:vpc": "blue"}, "blue"),
        ({"vtrace:vpc": "blue", "neutron:vpc": "green"}, "blue"),
    ],
)
def test_vpc_name(ids: dict[str, str], name: str) -> None:
    assert vpc_name({"name": "web", "external_ids": ids}) == name


@pytest.mark.parametrize(
    ("ids", "options", "nat", "kind"),
    [
        ({}, {}, (), "vrouter"),
        ({"vtrace:kind": "vbrouter"}, {}, ("n",), "vbrouter"),
        ({}, {"chassis": "gw"}, (), "vbrouter"),
        ({}, {"chassis": "gw"}, "one-nat-row", "vrouter"),
        ({}, {"chassis": "gw"}, ("a", "b"), "vrouter"),
        ({}, {"other": "x"}, (), "vrouter"),
    ],
)
def test_router_kind(ids: dict[str, str], options: dict[str, str], nat: Any, kind: str) -> None:
    # design.md: vtrace:kind=vbrouter, or options:chassis and no NAT row.
    assert router_kind({"external_ids": ids, "options": options, "nat": nat}) == kind


class Memory:
    """Tables of rows, with the two conditions of RFC 7047 that the reader uses."""

    remote = "memory"

    def __init__(self, tables: dict[str, list[dict[str, Any]]]) -> None:
        self._tables = tables

    async def select(self, table: str, where: Any = (), columns: Any = ()) -> list[dict[str, Any]]:
        return [row for row in self._tables.get(table, []) if all(self._meets(row, *term) for term in where)]

    async def select_many(self, queries: Any) -> list[list[dict[str, Any]]]:
        return [await self.select(*query) for query in queries]

    @staticmethod
    def _meets(row: dict[str, Any], column: str, function: str, value: Any) -> bool:
        wanted = value[1] if isinstance(value, list) and value[0] == "uuid" else value
        held = row[column]
        if function == "==":
            return bool(held == wanted)
        return wanted in (held if isinstance(held, tuple) else (held,))


def lsp(name: str, *addresses: str, port_security: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "_uuid": f"uuid-{name}",
        "name": name,
        "type": "",
        "addresses": tuple(addresses),
        "dynamic_addresses": (),
        "port_security": port_security,
    }


def switch(name: str, vpc: str, *ports: str) -> dict[str, Any]:
    return {
        "name": name,
        "external_ids": {"vtrace:vpc": vpc},
        "ports": tuple(f"uuid-{port}" for port in ports),
        "load_balancer": (),
    }


TABLES = {
    "Logical_Switch_Port": [
        lsp("blue1", f"{MAC} 10.0.0.1 fd00::1"),
        lsp("blue2", f"{MAC} 10.0.0.2", port_security=(f"{MAC} 10.0.0.2 10.0.0.22",)),
        lsp("green1", f"{MAC} 10.0.0.1"),
        lsp("noip", MAC),
    ],
    "Logical_Switch": [switch("s1", "blue", "blue1", "blue2", "noip"), switch("s2", "green", "green1")],
}


def resolver(tables: dict[str, list[dict[str, Any]]] | None = None) -> EndpointResolver:
    database = Memory(tables or TABLES)
    return EndpointResolver(OvnDatabases(database, database))  # type: ignore[arg-type]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("text", "version", "found"),
    [
        ("blue1", 4, [("blue1", "10.0.0.1", "blue")]),
        ("blue1", 6, [("blue1", "fd00::1", "blue")]),
        ("blue/10.0.0.1", 4, [("blue1", "10.0.0.1", "blue")]),
        ("green/10.0.0.1", 4, [("green1", "10.0.0.1", "green")]),
        ("10.0.0.2", 4, [("blue2", "10.0.0.2", "blue")]),
        ("fd00:0::1", 6, [("blue1", "fd00::1", "blue")]),
        ("10.0.0.22", 4, [("blue2", "10.0.0.22", "blue")]),
        ("10.0.0.2/31", 4, [("blue2", "10.0.0.2", "blue")]),
        ("blue/10.0.0.0/31", 4, [("blue1", "10.0.0.1", "blue")]),
    ],
)
async def test_an_endpoint(text: str, version: int, found: list[tuple[str, str, str]]) -> None:
    assert [(e.name, e.address, e.vpc) for e in await resolver().resolve(text, version)] == found


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("source", "destination", "found"),
    [
        # green1 has the address of blue1: what blue2 sends there is for blue1.
        ("blue2", "green1", ("10.0.0.1",)),
        # Nobody in green has that of blue2: what green1 sends there can only be meant for it.
        ("green1", "blue2", ()),
        ("blue2", "blue1", ()),
    ],
)
async def test_which_addresses_are_anothers_where_the_source_is(
    source: str, destination: str, found: tuple[str, ...]
) -> None:
    (start,), (end,) = await resolver().resolve(source, 4), await resolver().resolve(destination, 4)
    pair = Pair(index=0, direction=Direction.FORWARD, source=start, destination=end, traffic=TrafficFilter())
    assert await resolver().elsewhere(pair) == found
    assert replace(pair, elsewhere=found).unreachable == bool(found)
    outside = Endpoint(name="198.51.100.1", port="", address="198.51.100.1", addresses=("198.51.100.1",))
    assert await resolver().elsewhere(replace(pair, destination=outside)) == ()


@pytest.mark.anyio
async def test_a_cidr_names_every_vm_of_a_vpc_in_it() -> None:
    found = await resolver().resolve("blue/10.0.0.0/30", 4)
    assert {(e.name, e.address) for e in found} == {("blue1", "10.0.0.1"), ("blue2", "10.0.0.2")}


@pytest.mark.anyio
async def test_a_cidr_of_two_vpcs_is_refused() -> None:
    with pytest.raises(UsageError) as error:
        await resolver().resolve("10.0.0.0/30", 4)
    assert all(word in str(error.value) for word in ("ambiguous", "blue/10.0.0.1", "green/10.0.0.1"))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("text", "version", "words"),
    [
        ("10.0.0.1", 4, ("ambiguous", "blue/10.0.0.1", "green/10.0.0.1")),
        ("nobody", 4, ("nobody",)),
        ("red/10.0.0.1", 4, ("red/10.0.0.1",)),
        ("green1", 6, ("green1", "IPv6")),
        ("noip", 4, ("noip", "IPv4")),
    ],
)
async def test_what_names_no_one_endpoint_is_wrong_usage(text: str, version: int, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        await resolver().resolve(text, version)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["198.51.100.7", "198.51.100.0/24"])
async def test_what_nothing_here_has_is_outside(text: str) -> None:
    (found,) = await resolver().resolve(text, 4)
    assert (found.port, found.address, found.name, found.outside) == ("", text, text, True)
    with pytest.raises(UsageError):
        await resolver().resolve(f"nowhere/{text}", 4)


@pytest.mark.anyio
async def test_a_port_whose_address_is_not_given_out_yet_disturbs_no_other() -> None:
    # ovn-nb(5): "MAC dynamic" asks for an address of the switch's subnet.
    tables = {**TABLES, "Logical_Switch_Port": [*TABLES["Logical_Switch_Port"], lsp("late", f"{MAC} dynamic")]}
    assert [e.name for e in await resolver(tables).resolve("10.0.0.2", 4)] == ["blue2"]


def router(
    name: str, vpc: str, *, ports: tuple[str, ...] = (), nat: tuple[str, ...] = (), **columns: Any
) -> dict[str, Any]:
    return {
        "_uuid": f"uuid-{name}",
        "name": name,
        "external_ids": {"vtrace:vpc": vpc},
        "ports": ports,
        "static_routes": (),
        "nat": nat,
        "load_balancer": (),
    }


def nat(uuid: str, kind: str, external: str, logical: str) -> dict[str, Any]:
    return {"_uuid": uuid, "type": kind, "external_ip": external, "logical_ip": logical}


# Both VPCs have 10.0.0.1: whose NAT row it is tells which is meant.
TRANSLATED = {
    **TABLES,
    "Logical_Switch": [
        {**switch("s1", "blue", "blue1", "blue2", "noip"), "load_balancer": ("lb1",), "_uuid": "uuid-s1"},
        switch("s2", "green", "green1"),
    ],
    "Logical_Router": [
        router("r1", "blue", nat=("n1", "n3")),
        router("r2", "green", nat=("n2",)),
    ],
    "NAT": [
        nat("n1", "dnat_and_snat", "203.0.113.1", "10.0.0.1"),
        nat("n2", "dnat_and_snat", "203.0.113.2", "10.0.0.1"),
        nat("n3", "snat", "203.0.113.3", "10.0.0.0/24"),
    ],
    "Load_Balancer": [
        {
            "_uuid": "lb1",
            "name": "front",
            "protocol": ("udp",),
            "vips": {"10.9.0.1:53": "10.0.0.1:5353,10.0.0.2:5353", "[fd00:9::1]:53": "[fd00::1]:5353", "10.9.0.2": ""},
        }
    ],
}


@pytest.mark.anyio
@pytest.mark.parametrize(("text", "port"), [("203.0.113.1", "blue1"), ("203.0.113.2", "green1")])
async def test_a_floating_ip_is_its_vm(text: str, port: str) -> None:
    (found,) = await resolver(TRANSLATED).resolve(text, 4)
    assert (found.name, found.port, found.addresses, found.only) == (text, port, ("10.0.0.1",), text)
    assert [(a.address, a.kind, a.shared) for a in found.aliases] == [(text, "floating", False)]


ROUTED = {
    **TABLES,
    "Logical_Router": [
        {**router("r1", "blue"), "static_routes": ("wide", "narrow", "default", "discarded")},
        {**router("r2", "green"), "static_routes": ("greens",)},
    ],
    "Logical_Router_Static_Route": [
        {"_uuid": "wide", "ip_prefix": "10.7.0.0/16", "nexthop": "10.0.0.1"},
        {"_uuid": "narrow", "ip_prefix": "10.7.1.0/24", "nexthop": "10.0.0.2"},
        {"_uuid": "default", "ip_prefix": "0.0.0.0/0", "nexthop": "10.0.0.2"},
        {"_uuid": "discarded", "ip_prefix": "10.6.0.0/24", "nexthop": "discard"},
        {"_uuid": "greens", "ip_prefix": "10.8.0.0/24", "nexthop": "10.0.0.1"},
    ],
}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("text", "port"),
    [("10.7.1.5", "blue2"), ("10.7.9.5", "blue1"), ("blue/10.7.1.5", "blue2"), ("green/10.8.0.3", "green1")],
)
async def test_an_address_behind_a_vm_is_found_by_the_route_to_it(text: str, port: str) -> None:
    (found,) = await resolver(ROUTED).resolve(text, 4)
    assert (found.port, found.address, found.addresses) == (port, text.split("/")[-1], (text.split("/")[-1],))


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["10.6.0.1", "198.51.100.7"])
async def test_a_default_route_or_one_to_no_vm_leads_outside(text: str) -> None:
    (found,) = await resolver(ROUTED).resolve(text, 4)
    assert (found.port, found.outside) == ("", True)


@pytest.mark.anyio
async def test_the_address_of_a_source_nat_is_nobody_in_particular() -> None:
    with pytest.raises(UsageError) as error:
        await resolver(TRANSLATED).resolve("203.0.113.3", 4)
    assert all(word in str(error.value) for word in ("r1", "10.0.0.0/24"))


@pytest.mark.anyio
async def test_a_vip_is_all_its_backends() -> None:
    (found,) = await resolver(TRANSLATED).resolve("10.9.0.1", 4)
    assert (found.port, found.members, found.outside) == ("", ("blue1", "blue2"), False)
    assert found.addresses == ("10.0.0.1", "10.0.0.2")
    assert [(a.kind, a.proto, a.port, a.own_port) for a in found.aliases] == [("vip", "udp", 53, 5353)]
    (six,) = await resolver(TRANSLATED).resolve("blue/fd00:9::1", 6)
    assert (six.members, six.addresses) == (("blue1",), ("fd00::1",))


@pytest.mark.anyio
async def test_a_vip_without_backends_is_still_no_address_outside() -> None:
    (found,) = await resolver(TRANSLATED).resolve("10.9.0.2", 4)
    assert (found.members, found.only, found.outside) == ((), "10.9.0.2", False)
    assert found.set_on == ("uuid-s1",)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("10.0.0.1", ("10.0.0.1", 0)),
        ("10.0.0.1:80", ("10.0.0.1", 80)),
        ("[fd00::1]:80", ("fd00::1", 80)),
        ("[fd00::1]", ("fd00::1", 0)),
        ("fd00::1", ("fd00::1", 0)),
        (" 10.0.0.1:80", ("10.0.0.1", 80)),
    ],
)
def test_address_and_port(text: str, end: tuple[str, int]) -> None:
    assert address_and_port(text) == end
