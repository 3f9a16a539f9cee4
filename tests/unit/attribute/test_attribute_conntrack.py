"""Answers that conntrack had no room for, told from connections that an ACL drops for good reason."""

from __future__ import annotations

import pytest
from builders import HV1, INVENTORY, inspection, logical, step
from msgspec.structs import replace

from vtrace.agent.standing import parse_limits
from vtrace.attribute.causes import find_cause
from vtrace.model.inspection import CtZone, Inspection

DROPPED = step(
    logical("ls_out_acl", "ip", table="ACL", action="drop", direction="to-lport", priority="1000", match="ip")
)
FULL = CtZone(zone=3, limit=10, count=10)


def answered(**fields: object) -> Inspection:
    """An answer that hv1's conntrack took for a new connection, and an ACL dropped."""
    seen = {"direction": 1, "ct_zone": 3, "ct_new": True, "ct_zones": (FULL,), "real_drop": True, **fields}
    return inspection(DROPPED, chassis=HV1, **seen)


def code(found: Inspection) -> str:
    cause = find_cause(found, INVENTORY)
    assert cause is not None
    return cause.code


def test_an_answer_whose_connection_found_no_room() -> None:
    cause = find_cause(answered(), INVENTORY)
    assert cause is not None
    assert cause.object is not None
    assert (cause.code, cause.actor, cause.object.type, cause.object.uuid) == (
        "ct_limit",
        "provider",
        "Logical_Datapath",
        "sb-web",
    )
    assert "zone 3 on hv1 is full (10 connections of at most 10)" in cause.summary
    assert "ct-get-limits zone=3" in str(cause.fix)
    assert any("10 connections of at most 10" in e.text for e in cause.evidence)


@pytest.mark.parametrize(
    "fields",
    [
        {"ct_zones": (replace(FULL, count=9),)},
        {"ct_zones": (replace(FULL, limit=0),)},
        {"ct_zones": ()},
        {"ct_new": False},
        {"direction": 0},
        {"direction": 1, "flow": "in_port=5,tcp,tcp_flags=0x2"},
    ],
    ids=["room left", "no limit", "not asked", "known", "forward", "begins a connection"],
)
def test_what_the_acl_itself_is_the_reason_of(fields: dict[str, object]) -> None:
    assert code(answered(**fields)) == "acl_drop"


@pytest.mark.parametrize("flags", ["0x12", "0x10", "0x18", "0x4"])
def test_of_tcp_the_flags_say_that_it_begins_nothing(flags: str) -> None:
    assert code(answered(direction=0, flow=f"in_port=5,tcp,tcp_flags={flags}")) == "ct_limit"


def test_a_full_zone_is_no_cause_of_another_drop() -> None:
    found = inspection(step(logical("lr_in_ip_routing")), direction=1, ct_new=True, ct_zones=(FULL,))
    assert code(found) == "no_route"


def test_invalid_packets_name_flow_zone_and_what_to_look_for() -> None:
    last = step(replace(logical("ls_out_acl", "ct.inv || (ct.est && ct.rpl)"), flow_uuid="sb-flow"))
    cause = find_cause(inspection(last, ct_zone=3, dst="10.0.1.2"), INVENTORY)
    assert cause is not None
    assert cause.object is not None
    assert (cause.code, cause.object.type, cause.object.uuid) == ("ct_invalid", "Logical_Flow", "sb-flow")
    assert "zone 3" in cause.summary
    assert "10.0.1.2" in cause.summary
    assert "dump-conntrack zone=3" in str(cause.fix)


def test_limits_as_open_vswitch_prints_them() -> None:
    text = "default limit=0\nzone=3,limit=1,count=1\nzone=7,limit=100,count=0\n"
    assert parse_limits(text) == (CtZone(zone=3, limit=1, count=1), CtZone(zone=7, limit=100, count=0))
    assert parse_limits("default limit=5\n") == ()
    assert parse_limits("") == ()
