"""Faults are data; their steps are commands with an undoing."""

from __future__ import annotations

import pytest

from vtrace.errors import UsageError
from vtrace.lab import fault_steps, faults, plan, topology
from vtrace.lab.fault_steps import Step
from vtrace.lab.state import LabState


@pytest.fixture
def lab() -> LabState:
    declared, name = topology.read(None)
    return plan.make_state("demo", declared, name, "2026-01-01T00:00:00Z")


def steps(lab: LabState, name: str, *given: str) -> list[Step]:
    return fault_steps.STEPS[name](lab, faults.values_of(faults.find(name), list(given)))


def test_every_fault_has_steps_and_is_listed() -> None:
    assert {fault.name for fault in faults.FAULTS} == set(fault_steps.STEPS)
    for fault in faults.FAULTS:
        assert fault.name in faults.listing()


def test_an_acl_at_the_receiver_is_in_the_receivers_switch(lab: LabState) -> None:
    (step,) = steps(lab, "acl_drop", "from=red-web1", "to=red-db1", "proto=tcp", "dport=80")
    text = " ".join(step.do.argv)
    assert r"outport == \"red-db1\" && ip4.src == 10.1.1.11 && ip4.dst == 10.1.2.11" in text
    assert "tcp.dst == 80" in text
    assert text.endswith("add Logical_Switch red-db acls @row")
    assert step.undo.argv == ("ovn-nbctl", "--if-exists", "remove", "Logical_Switch", "red-db", "acls", "{out}")


def test_an_acl_at_the_sender_is_in_the_senders_switch(lab: LabState) -> None:
    (step,) = steps(lab, "acl_drop", "from=red-web1", "to=red-db1", "direction=from-lport", "ip=6", "proto=icmp")
    text = " ".join(step.do.argv)
    assert r"inport == \"red-web1\" && ip6.src == fd00:1:1::11 && ip6.dst == fd00:1:2::11 && icmp6" in text
    assert text.endswith("add Logical_Switch red-web acls @row")


def test_a_stateful_acl_brings_connection_tracking_in(lab: LabState) -> None:
    made = steps(lab, "acl_drop", "from=red-web1", "to=red-web3", "stateful=yes")
    assert ["allow-related" in " ".join(step.do.argv) for step in made] == [False, True, True]


def test_an_entry_in_table_0_is_scoped_to_the_senders_port(lab: LabState) -> None:
    (step,) = steps(lab, "foreign_flow_entry", "from=red-web1", "to=red-web3", "cookie=0x7", "priority=65535")
    assert step.do.node == "hv1"
    assert step.do.argv[-1] == (
        "cookie=0x7,table=0,priority=65535,ip,nw_src=10.1.1.11,nw_dst=10.1.1.13,in_port=red-web1,actions=drop"
    )
    assert step.undo.argv[:3] == ("ovs-ofctl", "--strict", "del-flows")
    assert step.undo.argv[-1].startswith("cookie=0x7/-1,table=0,priority=65535,")


def test_loss_on_a_wire_is_of_tunnel_packets_towards_one_end(lab: LabState) -> None:
    (step,) = steps(lab, "partial_loss", "a=hv1", "b=hv2", "direction=a-b", "mode=every")
    assert step.do.node == "wire-hv1-hv2"
    assert "ip daddr 10.250.0.2 udp dport 6081 numgen inc mod 3 == 0 counter drop" in step.do.argv[-1]
    assert "10.250.0.1" not in step.do.argv[-1]


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("acl_drop", ["from=red-web1"], "needs to="),
        ("acl_drop", ["from=red-web1", "to=red-web3", "colour=1"], "colour"),
        ("acl_drop", ["from=red-web1", "to=red-web3", "to=red-db1"], "given twice"),
        ("acl_drop", ["from=red-web1", "to=red-web3", "direction=up"], "from-lport to-lport"),
        ("acl_drop", ["from=red-web1", "to=red-web3", "dport=80"], "needs proto="),
        ("acl_drop", ["from=red-web1", "to=red-web3", "priority=x"], "priority=x"),
        ("acl_drop", ["from=red-web9", "to=red-web3"], "red-web1"),
        ("foreign_flow_entry", ["from=red-web1", "to=red-web3", "node=hv9"], "hv9"),
        ("physical_loss", ["a=hv1", "b=hv9"], "no wire"),
        ("partial_loss", ["a=hv1", "b=hv2", "ratio=1"], "ratio=1"),
        ("transient_loss", ["a=hv1", "b=hv2", "seconds=-1"], "seconds=-1"),
    ],
)
def test_a_wrong_parameter_is_named(lab: LabState, name: str, given: list[str], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        steps(lab, name, *given)


def test_an_unknown_fault_names_the_known() -> None:
    with pytest.raises(UsageError, match="acl_drop"):
        faults.find("gremlins")
