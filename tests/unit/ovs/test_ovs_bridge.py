"""What the database of a chassis says of its ports, also while ovs-vswitchd has not filled it in again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from vtrace.model.openflow import BridgePort
from vtrace.ovs import bridge

NONE: list[Any] = ["set", []]
Read = Callable[..., dict[str, BridgePort]]


def uuid(name: str) -> list[str]:
    return ["uuid", name]


def interface(name: str, kind: str = "", **columns: object) -> dict[str, object]:
    row: dict[str, object] = {"_uuid": uuid(f"i-{name}"), "name": name, "type": kind, "ofport": 1, "mtu": 1500}
    maps = {"options": ["map", []], "external_ids": ["map", []], "statistics": ["map", []]}
    return {**row, **maps, "admin_state": "up", "link_state": "up", "error": NONE, **columns}


def port(name: str) -> dict[str, object]:
    made = {"_uuid": uuid(f"p-{name}"), "name": name, "interfaces": ["set", [uuid(f"i-{name}")]]}
    return {**made, "external_ids": ["map", []], "qos": NONE}


def switch(name: str, *ports: str) -> dict[str, object]:
    members = ["set", [uuid(f"p-{one}") for one in ports]]
    return {"name": name, "ports": members, "datapath_id": NONE, "datapath_type": "netdev", "protocols": NONE}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """The ports of br-int: a VM's, and a patch to a provider's bridge that has one network card."""

    def ports(vm: dict[str, object], card: dict[str, object]) -> dict[str, BridgePort]:
        patch = interface("patch", "patch", options=["map", [["peer", "back"]]])
        rows = [vm, patch, interface("back", "patch"), card]
        root = {"external_ids": ["map", [["system-id", "c1"]]], "other_config": ["map", []], "ovs_version": "3.1.0"}
        bridges = [switch("br-int", "vm", "patch"), switch("br-public", "back", "card")]
        tables = [[root], bridges, [port(n) for n in ("vm", "patch", "back", "card")], rows, []]

        async def select(*_: object, **__: object) -> list[dict[str, object]]:
            return [{"rows": table} for table in tables]

        monkeypatch.setattr(bridge, "select", select)
        return {one.name: one for one in anyio.run(bridge.read_bridge, "/run/openvswitch").ports}

    return ports


def test_states_that_are_not_written_yet_are_not_down(read: Read) -> None:
    unwritten = {"admin_state": NONE, "link_state": NONE}
    found = read(interface("vm", **unwritten), interface("card", **unwritten))
    assert (found["vm"].admin_up, found["vm"].link_up, found["patch"].cut_off) == (True, True, False)


def test_what_is_down_is_told(read: Read) -> None:
    found = read(interface("vm", admin_state="down", link_state="down"), interface("card", link_state="down"))
    assert (found["vm"].admin_up, found["vm"].link_up, found["patch"].cut_off) == (False, False, True)


def test_a_card_that_could_not_be_opened_leads_nowhere(read: Read) -> None:
    found = read(interface("vm"), interface("card", link_state=NONE, error="could not open network device card"))
    assert found["patch"].cut_off
