"""Cases filled in: every field of every fault's file stands for something, and the same case always gets the same."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence

import pytest

from vtrace.bench import filling, topologies
from vtrace.bench.drawing import Case, Mode
from vtrace.bench.fault import Fault, Traffic, catalogue
from vtrace.bench.filling import Ready, fill
from vtrace.lab.plan import make_state
from vtrace.lab.state import LabState
from vtrace.lab.topology import parse

FAULTS = {fault.name: fault for fault in catalogue()}
INSIDE = tuple(fault.name for fault in FAULTS.values() if "vpc" in fault.traffic)
UUID = "0a0b0c0d-0000-4000-8000-000000000000"


@pytest.fixture
def state() -> LabState:
    return make_state("x", parse(topologies.vpcs(random.Random(4)), "drawn"), "drawn.toml", "2026-01-01T00:00:00Z")


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the programs of a lab would print."""

    def run_on(state: LabState, node: str, argv: Sequence[str]) -> str:
        assert state.node(node)
        if "dump-flows" in argv:
            return "cookie=0xa0b0c0d, table=31, priority=100 actions=drop\n"
        number = zlib.crc32(" ".join(argv).encode())
        return {"--columns=tunnel_key": f"{number}\n", "--columns=_uuid": f"{UUID}\n"}.get(argv[2], f"found{number}\n")

    monkeypatch.setattr(filling, "run_on", run_on)


def case(*names: str, number: int = 0, mode: Mode = "fault") -> Case:
    return Case(number=number, seed=9, kind="vpc", batch=0, mode=mode, faults=names, busy=False)


def filled(state: LabState, *names: str, number: int = 0) -> Ready:
    return fill(case(*names, number=number), FAULTS, state, None)


@pytest.mark.parametrize("name", INSIDE)
@pytest.mark.parametrize("number", range(4))
def test_every_field_stands_for_something(state: LabState, name: str, number: int) -> None:
    ready = filled(state, name, number=number)
    (one,) = ready.faults
    nodes = {node.name for node in state.nodes}
    commands = [*one.prepare, *one.inject, *one.near]
    assert {command.on for command in commands} <= nodes
    words = [word for command in commands for line in (command.run, *command.undo) for word in line]
    assert "" not in words
    assert one.near
    assert one.near != one.inject
    assert one.right.server in {server.name for server in state.servers}
    assert one.right.vfd in {vm.switch for vm in state.vms} | {vm.router for vm in state.vms}


@pytest.mark.parametrize("name", INSIDE)
def test_the_same_case_is_filled_in_the_same(state: LabState, name: str) -> None:
    assert filled(state, name, number=3) == filled(state, name, number=3)


def test_another_case_gets_other_values(state: LabState) -> None:
    commands = {filled(state, "acl_drop_to_lport", number=number).faults[0].inject for number in range(20)}
    assert len(commands) == 20


def test_the_pair_is_what_the_fault_needs(state: LabState) -> None:
    for number in range(20):
        ready = filled(state, "no_route_alias", number=number)
        (flow,) = ready.flows
        receiver = state.vm(flow.way.server)
        sender = state.vm(flow.way.client)
        assert flow.way.direction == "forward"
        assert sender.switch != receiver.switch
        assert flow.way.towards[flow.ip == 6] == f"{receiver.name}:{receiver.aliases[flow.ip == 6]}"
        hung = filled(state, "tunnel_unreachable_port", number=number)
        assert hung.flows[0].ip == 4
        assert len({place.server for place in hung.flows[0].way.places}) == 2


def test_an_address_that_no_row_ties_to_the_port_is_asked_about_itself(state: LabState) -> None:
    for number in range(30):
        (flow,) = filled(state, "port_security_alias", number=number).flows
        receiver = next(vm for vm in state.vms if vm.name == flow.way.server)
        assert flow.way.asked[flow.ip == 6][1].rpartition("/")[2] in receiver.aliases


def test_two_faults_are_in_two_pairs_of_one_sender_and_direction(state: LabState) -> None:
    """The second one needs the forward direction, which the first one alone would not."""
    for number in range(30):
        ready = filled(state, "acl_drop_from_lport", "port_unbound_interface", number=number)
        one, other = (flow.way for flow in ready.flows)
        assert one.client == other.client
        assert one.server != other.server
        assert (one.direction, other.direction) == ("forward", "forward")


def test_two_faults_get_packets_that_are_right_for_both(state: LabState) -> None:
    for number in range(20):
        ready = filled(state, "acl_drop_from_lport", "qos_rate_limit_to_lport", number=number)
        wish = FAULTS["qos_rate_limit_to_lport"].packets
        assert wish != Traffic()
        assert wish.size_bytes[0] <= ready.size_bytes <= wish.size_bytes[1]
        assert wish.rate_pps[0] <= ready.rate_pps <= wish.rate_pps[1]


def test_a_task_names_ports_where_an_address_is_ambiguous(state: LabState) -> None:
    fault: Fault = FAULTS["address_conflict_mac"]
    assert fault.by_name
    for number in range(10):
        (flow,) = filled(state, fault.name, number=number).flows
        assert flow.way.asked == ((flow.way.client, flow.way.server),) * 2
