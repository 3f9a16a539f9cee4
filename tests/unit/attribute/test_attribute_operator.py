"""Reasons on bridges without OVN: the entry, the table, the port, and what lies between two bridges."""

from __future__ import annotations

import pytest
from builders import inspection, logical, step

from vtrace.attribute.between import link_cause
from vtrace.attribute.case import TunnelCheck
from vtrace.attribute.causes import find_cause
from vtrace.model.answer import Evidence
from vtrace.model.inventory import Chassis, Inventory, LogicalDatapath, OvnObject
from vtrace.model.plain import FIRST_BRIDGE

OPERATOR = OvnObject(kind="operator")
INVENTORY = Inventory(
    datapaths=(LogicalDatapath(key=FIRST_BRIDGE, name="br0", kind="vswitch", nb_uuid="", sb_uuid=""),),
    ports=(),
    chassis=(Chassis(name="a/br0", server="a"),),
    plain=True,
)


def operators(actions: tuple[str, ...], **fields: object) -> object:
    return step(OPERATOR, actions, datapath=FIRST_BRIDGE, table=7, match="udp,tp_dst=80", cookie=0xBAD, **fields)


@pytest.mark.parametrize(
    ("actions", "fields", "outcome", "errors", "says"),
    [
        ((), {}, "drop", (), "the entry table=7,priority=100,udp,tp_dst=80 actions=drop of the bridge br0 on a d"),
        (("drop",), {}, "drop", (), "drops it"),
        ((), {"priority": -1}, "drop", (), "table 7 of the bridge br0 on a has no entry for it"),
        (("output:77",), {}, "drop", ("Nonexistent output port",), "outputs it to port 77: Nonexistent output port"),
        (("load:0x1->NXM_NX_REG0[]",), {}, "drop", (), "is the last that it met, and outputs it nowhere"),
        (("CONTROLLER:65535",), {}, "controller", (), "sends it to a controller"),
    ],
)
def test_what_ended_it(
    actions: tuple[str, ...], fields: dict[str, object], outcome: str, errors: tuple[str, ...], says: str
) -> None:
    seen = inspection(
        operators(actions, **fields), outcome=outcome, chassis="a/br0", bridge="br0", errors=errors, real_drop=None
    )
    cause = find_cause(seen, INVENTORY)
    assert cause is not None
    assert (cause.code, cause.actor) == ("foreign_flow_entry", "provider")
    assert cause.object is not None
    assert (cause.object.type, cause.object.uuid) == ("OpenFlow entry", "0xbad")
    assert says in cause.summary
    assert cause.confidence == (0.5 if outcome == "controller" else 0.8)
    assert cause.fix is not None
    assert "br0" in cause.fix
    assert "br-int" not in cause.fix
    assert cause.evidence[-1].source.startswith("ovs-appctl ofproto/trace br0 ")


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (inspection(operators(("output:1",)), outcome="output", chassis="a/br0"), None),
        (
            inspection(operators(("resubmit(,9)",)), outcome="drop", errors=("resubmit depth",)),
            "vswitch_pipeline_error",
        ),
        (inspection(step(logical("ls_in_acl"), datapath=1), outcome="drop"), "unknown"),
    ],
)
def test_what_is_no_entry_of_an_operator(seen: object, code: str | None) -> None:
    cause = find_cause(seen, INVENTORY)
    assert (cause.code if cause else None) == code


SEEN = Evidence(source="log records", text="", chassis="a", at="")


@pytest.mark.parametrize(
    ("check", "code", "object_type", "says"),
    [
        (
            TunnelCheck(sender="a", receiver="b", tunnel="eth1", kind="wire"),
            "physical_loss",
            "Interface",
            "the wire eth1",
        ),
        (TunnelCheck(sender="a", receiver="b", tunnel="tun"), "physical_loss", "Tunnel", "the tunnel tun"),
        (
            TunnelCheck(sender="a", receiver="b", tunnel="tun", mismatch="keys"),
            "tunnel_misconfigured",
            "Interface",
            "keys",
        ),
        (None, "physical_loss", "Interface", "the link"),
    ],
)
def test_between_two_bridges(check: TunnelCheck | None, code: str, object_type: str, says: str) -> None:
    cause = link_cause(check, "a", "b", SEEN)
    assert cause.object is not None
    assert (cause.code, cause.object.type) == (code, object_type)
    assert says in cause.summary
