"""What is watched: the rows of the task, and no others."""

from __future__ import annotations

import pytest
from builders import INVENTORY
from msgspec.structs import replace

from vtrace.model.inventory import Backend, Rule, Vip
from vtrace.ovn.databases import OvnDatabases
from vtrace.ovn.ovsdb import Database, TableUpdates
from vtrace.ovn.watch import TopologyWatch, northbound, southbound

FULL = replace(
    INVENTORY,
    ports=tuple(replace(p, sb_uuid=f"sb-{p.name}") for p in INVENTORY.ports),
    vips=(Vip(balancer="lb", uuid="nb-lb", address="10.0.9.1", backends=(Backend(address="a", logical_port="db1"),)),),
    rules=(Rule(datapath=2, table="ACL", uuid="nb-acl"),),
    port_groups=("nb-group",),
)


def test_only_rows_of_the_task_are_watched() -> None:
    wanted = northbound(FULL, ("web1", "db1", "web1"))
    assert {table: conditions for table, (_, conditions) in wanted.items()} == {
        "Logical_Switch": [("_uuid", "==", ["uuid", "nb-web"]), ("_uuid", "==", ["uuid", "nb-db"])],
        "Logical_Router": [("_uuid", "==", ["uuid", "nb-r1"])],
        "Logical_Switch_Port": [("name", "==", "db1"), ("name", "==", "web1")],
        "Load_Balancer": [("_uuid", "==", ["uuid", "nb-lb"])],
        "Port_Group": [("_uuid", "==", ["uuid", "nb-group"])],
        "ACL": [("_uuid", "==", ["uuid", "nb-acl"])],
    }
    conditions = {table: found for table, (_, found) in southbound(FULL).items()}
    assert conditions == {
        "Port_Binding": [("datapath", "==", ["uuid", f"sb-{name}"]) for name in ("web", "db", "r1")],
        "Service_Monitor": [("logical_port", "==", "db1")],
    }


def test_no_table_is_watched_whole() -> None:
    """A table with no condition would be sent as a whole."""
    empty = replace(FULL, datapaths=(), ports=(), vips=(), rules=(), port_groups=())
    assert northbound(empty, ()) == {}
    assert southbound(empty) == {}
    for conditions in (*northbound(FULL, ("web1",)).values(), *southbound(FULL).values()):
        assert conditions[1]


@pytest.fixture
def watch() -> TopologyWatch:
    found = TopologyWatch(OvnDatabases(Database("unix:/nowhere", "OVN_Northbound"), Database("unix:/nowhere", "SB")))
    found.expect(FULL, ("web1", "db1"))
    return found


@pytest.mark.parametrize(
    ("update", "matters", "moves"),
    [
        ({"ACL": {"x": {"modify": {"action": "drop"}}}}, True, False),
        ({"Port_Binding": {"sb-db1": {"modify": {"chassis": ["uuid", "c"]}}}}, True, True),
        ({"Port_Binding": {"sb-db1": {"modify": {"up": True}}}}, True, False),
        ({"Port_Binding": {"sb-db1": {"delete": None}}}, True, True),
        ({"Port_Binding": {"sb-other-vm": {"modify": {"chassis": ["uuid", "c"]}}}}, False, False),
        ({"Port_Binding": {"sb-other-vm": {"insert": {"logical_port": "web7", "type": ""}}}}, False, False),
        ({"Port_Binding": {"sb-new": {"insert": {"logical_port": "db1", "type": ""}}}}, True, False),
        ({"Port_Binding": {"sb-new": {"insert": {"logical_port": "web-r2", "type": "patch"}}}}, True, False),
    ],
)
def test_other_vms_are_nobodys_business(
    watch: TopologyWatch, update: TableUpdates, *, matters: bool, moves: bool
) -> None:
    assert (watch.matters(update), watch.moves(update)) == (matters, moves)
