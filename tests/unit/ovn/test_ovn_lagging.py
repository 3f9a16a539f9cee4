"""Rows that have no entry on the way of a lost packet, and what looks like that and is not."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from builders import (
    DEFAULT,
    GW,
    HV1,
    HV2,
    INVENTORY,
    LAYOUT,
    PHYSICAL,
    TO_ROUTER,
    WEB,
    WEB1,
    WEB2,
    inspection,
    port,
    step,
    tunnel,
    without,
)
from msgspec.structs import replace

from vtrace.collect.link import Standing, Survey
from vtrace.model.inspection import Inspection, PortReading
from vtrace.model.openflow import BridgePort, OfPort
from vtrace.ovn.databases import OvnDatabases
from vtrace.ovn.lagging import LagFinder, missing_port_entry, orphans, sent_elsewhere

TRACE = f"""Flow: udp,in_port=5,reg14=0x{WEB1:x},metadata=0x{WEB:x},dl_src=0a:00:00:00:00:01,dl_dst=0a:00:00:00:00:09,nw_src=10.0.1.1,nw_dst=10.0.2.1,nw_ttl=64,tp_dst=53

bridge("br-int")
----------------
 9. metadata=0x1, priority 0, cookie 0x11111111
    resubmit(,10)
10. metadata=0x1, priority 50, cookie 0x22222222
    drop
"""  # noqa: E501
ROUTE = "ip4.dst == 10.0.2.0/24"


def flow(uuid: str, table_id: int, priority: int, match: str) -> dict[str, Any]:
    ids = {"stage-name": "ls_in_some"}
    return {"_uuid": uuid, "pipeline": "ingress", "table_id": table_id, "priority": priority, "match": match} | {
        "external_ids": ids
    }


HIT = (flow("11111111-0000", 1, 0, "1"), flow("22222222-0000", 2, 50, "ip4"))
INSTALLED = ((9, 0, 0x11111111), (10, 50, 0x22222222))


class Southbound:
    def __init__(self, rows: tuple[dict[str, Any], ...]) -> None:
        self.rows = rows

    async def select(self, table: str, where: object, columns: object) -> list[dict[str, Any]]:
        assert table == "Logical_DP_Group"
        return []

    async def select_many(self, queries: list[Any]) -> list[list[dict[str, Any]]]:
        return [list(self.rows) for _ in queries]


def missing(*rows: dict[str, Any], installed: tuple[tuple[int, int, int], ...] = INSTALLED) -> str:
    finder = LagFinder(OvnDatabases(Southbound(()), Southbound((*HIT, *rows))))  # type: ignore[arg-type]
    standing = Standing(entries=installed)
    asked = replace(inspection(step(DEFAULT)), text=TRACE)

    async def find() -> str:
        return await finder.missing_row(asked, standing, LAYOUT, INVENTORY)

    return anyio.run(find)


def test_a_logical_flow_that_the_packet_fits_and_that_has_no_entry() -> None:
    text = missing(flow("deadbeef-1", 2, 60, ROUTE))
    assert "Logical_Flow deadbeef-1" in text
    assert "table 10" in text
    assert "stage ls_in_some" in text


@pytest.mark.parametrize(
    ("row", "installed"),
    [
        (flow("deadbeef-1", 2, 60, "ip4.dst == 10.0.9.0/24"), INSTALLED),
        (flow("deadbeef-1", 2, 60, "ip4.dst == $someset"), INSTALLED),
        (flow("deadbeef-1", 2, 40, ROUTE), INSTALLED),
        (flow("deadbeef-1", 2, 50, ROUTE), INSTALLED),
        (flow("deadbeef-1", 3, 60, ROUTE), INSTALLED),
        (flow("deadbeef-1", 2, 60, ROUTE), (*INSTALLED, (10, 60, 0xDEADBEEF))),
        (flow("deadbeef-1", 2, 60, 'inport == "web2" && ip4'), INSTALLED),
    ],
    ids=["another address", "not known", "lower", "as high", "another stage", "has an entry", "another port"],
)
def test_a_row_that_would_not_have_changed_anything(
    row: dict[str, Any], installed: tuple[tuple[int, int, int], ...]
) -> None:
    assert missing(row, installed=installed) == ""


def test_of_two_rows_that_say_the_same_one_entry_is_enough() -> None:
    same = (flow("deadbeef-1", 2, 60, ROUTE), flow("cafecafe-1", 2, 60, ROUTE.replace(" ", "")))
    assert missing(*same, installed=(*INSTALLED, (10, 60, 0xCAFECAFE))) == ""


# --- physical tables ---------------------------------------------------------------------------------------

READING = PortReading(
    name="tap2",
    iface_id="web2",
    ofport=6,
    kind="",
    admin_up=True,
    link_up=True,
    error="",
    tx_dropped=0,
    rx_dropped=0,
    tx_errors=0,
)
INTERFACE = BridgePort(
    name="tap1", ofport=OfPort(5), kind="", iface_id="web1", admin_up=True, link_up=True, error="", statistics={}
)
SURVEY = Survey(chassis=HV1, layout=LAYOUT, vifs=(), ports=(INTERFACE,), tunnels=(tunnel(HV2, 20),))


def ended(table: int, out_key: int, datapath: int = WEB, **fields: object) -> Inspection:
    last = step(DEFAULT, table=table, cookie=0, priority=0, datapath=datapath, out_key=out_key)
    return inspection(last, **fields)


def test_a_port_of_this_server_without_an_entry() -> None:
    asked = ended(65, WEB2, chassis=HV2, ports=(READING,))
    assert missing_port_entry(asked, replace(SURVEY, chassis=HV2), INVENTORY).startswith("the port web2 (")


@pytest.mark.parametrize(
    "ports", [(), (replace(READING, ofport=-1),), (replace(READING, error="no such device"),)], ids=str
)
def test_a_port_without_an_interface_is_not_the_bridges_fault(ports: tuple[PortReading, ...]) -> None:
    assert missing_port_entry(ended(65, WEB2, chassis=HV2, ports=ports), SURVEY, INVENTORY) == ""


def test_a_port_of_another_server_without_an_entry() -> None:
    text = missing_port_entry(ended(40, WEB2), SURVEY, INVENTORY)
    assert "web2" in text
    assert "table 39, though it is on hv2" in text


def test_what_went_to_another_server_ends_at_local_outputs_default_too() -> None:
    """As where the tunnel's next hop does not answer: then nothing was output."""
    known = without(INVENTORY, web2=port("web2", chassis=HV2, sb_uuid="411797eb-2f2f-455f-9d57-393da4b89ab5"))
    default = step(DEFAULT, table=40, cookie=0, priority=0, datapath=WEB, out_key=WEB2)
    sent = step(PHYSICAL, table=39, cookie=0x411797EB, datapath=WEB, out_key=WEB2)
    other = step(PHYSICAL, table=39, cookie=0x411797EC, datapath=WEB, out_key=WEB2)
    assert missing_port_entry(inspection(sent, default), SURVEY, known) == ""
    assert "web2" in missing_port_entry(inspection(other, default), SURVEY, known)


def test_without_a_tunnel_to_its_server_the_bridge_can_have_none() -> None:
    assert missing_port_entry(ended(40, WEB2), replace(SURVEY, tunnels=()), INVENTORY) == ""


def test_a_port_that_nobody_has_bound_or_that_moves_has_none_either() -> None:
    unbound = without(INVENTORY, web2=port("web2", chassis=""))
    assert missing_port_entry(ended(40, WEB2), SURVEY, unbound) == ""
    assert missing_port_entry(ended(40, WEB2), SURVEY, replace(INVENTORY, moved=("web2",))) == ""


def test_a_patch_without_an_entry() -> None:
    assert "web-r1" in missing_port_entry(ended(65, TO_ROUTER), SURVEY, INVENTORY)


def test_what_comes_in_by_a_tunnel_or_interface_without_an_entry() -> None:
    by_tunnel = missing_port_entry(ended(0, 0, datapath=0, entry="in_port=20,tun_id=0x1"), SURVEY, INVENTORY)
    assert by_tunnel.startswith("the tunnel from hv2 ")
    assert "web1" in missing_port_entry(ended(0, 0, datapath=0, entry="in_port=5"), SURVEY, INVENTORY)
    assert missing_port_entry(ended(0, 0, datapath=0, entry="in_port=6"), SURVEY, INVENTORY) == ""


@pytest.mark.parametrize("outcome", ["output", "tunnel"])
def test_what_came_through_lags_nowhere(outcome: str) -> None:
    assert missing_port_entry(ended(65, WEB2, chassis=HV2, outcome=outcome), SURVEY, INVENTORY) == ""


def test_an_entry_of_ovns_own_is_no_default() -> None:
    last = step(PHYSICAL, table=65, out_key=WEB2)
    assert missing_port_entry(inspection(last, chassis=HV2, ports=(READING,)), SURVEY, INVENTORY) == ""


def test_orphans_look_like_the_start_of_a_uuid() -> None:
    assert orphans({0x3B8AC3B1, 0xDEAD, 0}) == {0x3B8AC3B1}


def test_what_is_sent_to_a_server_that_has_the_port_no_more() -> None:
    survey = replace(SURVEY, tunnels=(tunnel(HV2, 20), tunnel(GW, 21)))
    last = step(PHYSICAL, ("output:21",), table=39, out_key=WEB2)
    text = sent_elsewhere(inspection(last, outcome="tunnel", outputs=("21",)), survey, INVENTORY)
    assert "web2" in text
    assert text.endswith("to gw, and hv2 has it")
    right = inspection(last, outcome="tunnel", outputs=("20",))
    assert sent_elsewhere(right, survey, INVENTORY) == ""
    moving = replace(INVENTORY, moved=("web2",))
    assert sent_elsewhere(replace(right, outputs=("21",)), survey, moving) == ""
