"""Which entries are OVN's own: real traces of OVN 23.03.1, and forgeries beside them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from builders import LAYOUT

from vtrace.model.openflow import BridgeLayout, Cookie, GuardBits, InstalledEntry, TableId, TraceStep
from vtrace.ovn.objects import is_default, logical_table
from vtrace.ovs.flowtext import parse_dump
from vtrace.ovs.trace import parse_trace

DATA = Path(__file__).parents[1] / "ovs" / "data"
HEALTHY = (
    "acl_drop",
    "flood",
    "flood_tunnel",
    "load_balancer",
    "nat_out",
    "no_route",
    "remote",
    "routed",
    "same_switch",
)


@pytest.mark.parametrize(
    ("table", "place"),
    [
        (0, ("", 0)),
        (8, ("ingress", 0)),
        (31, ("ingress", 23)),
        (39, ("", 0)),
        (40, ("", 0)),
        (41, ("", 0)),
        (42, ("egress", 0)),
        (51, ("egress", 9)),
        (64, ("", 0)),
        (65, ("", 0)),
        (66, ("", 0)),
    ],
)
def test_logical_table(table: int, place: tuple[str, int]) -> None:
    assert logical_table(table, LAYOUT) == place


def step(table: int, priority: int, match: str, *actions: str) -> TraceStep:
    return TraceStep(
        depth=0, bridge="br-int", table=table, match=match, priority=priority, cookie=Cookie(0), actions=actions
    )


@pytest.mark.parametrize("name", HEALTHY)
def test_no_cookie_0_entry_of_a_real_trace_is_foreign(name: str) -> None:
    found = parse_trace((DATA / f"trace_{name}.txt").read_text())
    bridge = found.steps[0].bridge
    steps = [s for s in found.steps if s.bridge == bridge and s.table >= 0 and s.priority >= 0 and s.cookie == 0]
    assert [s for s in steps if not is_default(s, LAYOUT)] == []


def as_step(entry: InstalledEntry) -> TraceStep:
    # At commas that stand in no parentheses.
    return step(entry.table, entry.priority, entry.match, *re.split(r",(?![^(]*\))", entry.actions))


def dumped() -> list[InstalledEntry]:
    entries = parse_dump((DATA / "dump_23.03.1.txt").read_text())
    return [e for e in entries if e.cookie == 0 and (e.table in (0, 37, 38) or e.table >= 39)]


@pytest.mark.parametrize("entry", dumped(), ids=lambda e: f"{e.table}-{e.priority}-{e.match}")
def test_no_cookie_0_entry_of_a_real_bridge_is_foreign(entry: InstalledEntry) -> None:
    assert is_default(as_step(entry), LAYOUT)


@pytest.mark.parametrize(
    "forged",
    [
        step(0, 100, "in_port=5", "drop"),
        step(0, 65535, "ip", "drop"),
        step(0, 0, "", "NORMAL"),
        step(8, 0, "", "drop"),
        step(20, 65535, "ip", "drop"),
        step(42, 100, "ip", "drop"),
        step(39, 150, "ip,reg10=0x10/0x10", "resubmit(,40)"),
        step(39, 150, "reg10=0x10/0x10", "drop"),
        step(39, 200, "reg10=0x10/0x10", "resubmit(,40)"),
        step(40, 0, "", "resubmit(,41)"),
        step(40, 100, "reg15=0x3,metadata=0x1", "drop"),
        step(41, 0, "", "drop"),
        step(64, 100, "ip", "resubmit(,65)"),
        step(64, 0, "", "drop"),
        step(65, 200, "ip", "drop"),
        step(65, 0, "", "output:7"),
        step(67, 100, "ip", "drop"),
    ],
    ids=lambda s: f"{s.table}-{s.priority}-{s.match}-{s.actions}",
)
def test_an_entry_made_by_hand_is_foreign(forged: TraceStep) -> None:
    assert not is_default(forged, LAYOUT)


def test_an_entry_of_table_0_without_actions_is_foreign() -> None:
    assert not is_default(step(0, 100, "in_port=5"), LAYOUT)


# Of a real bridge of OVN 25.03.0.
LAYOUT_25_03 = BridgeLayout(
    ingress_first=TableId(8),
    remote_output=TableId(42),
    local_output=TableId(43),
    check_loopback=TableId(44),
    egress_first=TableId(45),
    save_inport=TableId(64),
    log_to_physical=TableId(65),
    guard=GuardBits(register=10, lsb=26),
)


def dumped_25_03() -> list[InstalledEntry]:
    return [e for e in parse_dump((DATA / "dump_25.03.0.txt").read_text()) if e.cookie == 0]


@pytest.mark.parametrize("entry", dumped_25_03(), ids=lambda e: f"{e.table}-{e.priority}-{e.match}")
def test_no_cookie_0_entry_of_25_03_is_foreign(entry: InstalledEntry) -> None:
    assert is_default(as_step(entry), LAYOUT_25_03)


def test_the_hidden_entries_of_open_vswitch_are_not_foreign() -> None:
    assert is_default(step(254, 2, "recirc_id=0", "drop"), LAYOUT_25_03)


@pytest.mark.parametrize(
    "forged",
    [
        step(0, 120, "icmp,in_port=5,icmp_type=3,icmp_code=4", "drop"),
        step(0, 120, "icmp,icmp_type=3", "move:NXM_NX_TUN_ID[0..23]->OXM_OF_METADATA[0..23]", "resubmit(,43)"),
        step(0, 120, "icmp,in_port=5", "move:NXM_NX_TUN_ID[0..23]->OXM_OF_METADATA[0..23]", "output:7"),
        step(40, 100, "ip", "drop"),
        step(42, 40000, "udp,metadata=0x2", "drop"),
        step(43, 40000, "udp,metadata=0x2", "drop"),
        step(80, 100, "ip", "drop"),
        step(81, 100, "ct_state=+est+trk,ip", "drop"),
        step(81, 200, "ip", "move:NXM_NX_CT_NW_DST[]->NXM_NX_REG1[]"),
    ],
    ids=lambda s: f"{s.table}-{s.priority}-{s.match}-{s.actions}",
)
def test_an_entry_made_by_hand_is_foreign_in_25_03(forged: TraceStep) -> None:
    assert not is_default(forged, LAYOUT_25_03)


def test_the_layout_of_another_release_is_followed() -> None:
    # 25.09: remote output 43, local output 45, check loopback 46, egress 47.
    newer = BridgeLayout(
        ingress_first=TableId(8),
        remote_output=TableId(43),
        local_output=TableId(45),
        check_loopback=TableId(46),
        egress_first=TableId(47),
        save_inport=TableId(64),
        log_to_physical=TableId(65),
        guard=GuardBits(register=10, lsb=26),
    )
    assert logical_table(40, newer) == ("ingress", 32)
    assert logical_table(47, newer) == ("egress", 0)
    assert is_default(step(45, 0, "", "drop"), newer)
    assert not is_default(step(40, 0, "", "drop"), newer)
