"""Real texts of ofproto/trace (OVS 3.1.0, OVN 23.03.1): every pass, nested look-ups, clones, errors, registers."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtrace.errors import ProtocolError
from vtrace.model.openflow import Trace, TraceStep
from vtrace.ovs.trace import parse_trace

DATA = Path(__file__).parent / "data"


def read(name: str) -> Trace:
    return parse_trace((DATA / f"trace_{name}.txt").read_text())


def only(trace: Trace, table: int, depth: int | None = None) -> TraceStep:
    found = [s for s in trace.steps if s.table == table and depth in (None, s.depth)]
    assert len(found) == 1, found
    return found[0]


def test_a_pass_resumes_in_the_bridge_that_froze_it() -> None:
    """Open vSwitch names that of the port the packet came in by."""
    text = (DATA / "trace_resumed_behind_a_provider_bridge.txt").read_text()
    assert {step.bridge for step in parse_trace(text).steps} == {"br-public"}
    resumed = parse_trace(text, frozen_in="br-int")
    assert {step.bridge for step in resumed.steps} == {"br-int"}
    assert resumed.steps[-1].actions == ("output:1",)


@pytest.mark.parametrize("path", sorted(DATA.glob("trace_*.txt")), ids=lambda p: p.stem)
def test_every_look_up_of_every_real_trace_is_a_step(path: Path) -> None:
    text = path.read_text()
    trace = parse_trace(text)
    looked_up = [line for line in text.splitlines() if line.strip().partition(".")[0].isdigit() and ". " in line]
    assert len([step for step in trace.steps if step.table >= 0]) == len(looked_up)
    assert len(trace.datapath_actions) == text.count("Datapath actions: ")
    assert all(step.bridge for step in trace.steps)
    assert all(step.actions for step in trace.steps), "each look-up has an action, if only drop"
    assert trace.text == text


def test_same_switch_passes_and_registers() -> None:
    trace = read("same_switch")
    assert len(trace.datapath_actions) == 3
    assert trace.errors == ()
    first = trace.steps[0]
    assert (first.table, first.priority, first.match, first.metadata) == (0, 100, "in_port=3", 0)
    last = trace.steps[-1]
    assert (last.table, last.actions) == (65, ("output:4",))
    assert (last.metadata, last.reg14, last.reg15) == (1, 2, 3)
    assert only(trace, 73).depth == 1
    assert only(trace, 8).actions[-1] == "resubmit(,9)"
    miss = only(trace, 68)
    assert (miss.priority, miss.cookie, miss.match, miss.actions) == (-1, 0, "No match.", ("drop",))


def test_acl_drop_is_the_last_step_with_its_cookie() -> None:
    trace = read("acl_drop")
    last = trace.steps[-1]
    assert (last.table, last.actions, last.priority) == (46, ("drop",), 2002)
    assert last.cookie != 0
    assert trace.datapath_actions[-1] == "drop"


def test_registers_follow_a_packet_through_the_router() -> None:
    trace = read("nat_out")
    seen = list(dict.fromkeys(step.metadata for step in trace.steps))
    assert seen == [0, 1, 4, 3]
    underlay = trace.steps[-1]
    assert (underlay.bridge, underlay.metadata, underlay.reg15) == ("br-phy", 0, 0)


def test_registers_come_back_after_a_clone_and_a_multicast_member() -> None:
    trace = read("flood")
    local_output = only(trace, 40)
    assert (local_output.metadata, local_output.reg14, local_output.reg15) == (1, 2, 0x8000)
    router = [step for step in trace.steps if step.metadata == 4]
    assert router
    assert all(step.reg14 == 1 for step in router)
    out_ports = [step.reg15 for step in trace.steps if step.table == 41]
    assert out_ports == [1, 2, 5, 3]


def test_tunnel_and_underlay() -> None:
    trace = read("remote")
    assert trace.errors == ()
    assert "tnl_push(" in trace.datapath_actions[-1]
    assert {step.bridge for step in trace.steps} == {"br-int", "br-phy"}
    after = [step for step in trace.steps if step.bridge == "br-int" and step.table == 40]
    assert after[-1].actions == ("drop",)
    assert after[-1].metadata == 1


def test_a_tunnel_without_a_route_is_an_error() -> None:
    trace = read("no_route")
    assert trace.errors == ("native tunnel routing failed",)
    assert "tnl_push" not in trace.datapath_actions[-1]


def test_a_tunnel_whose_next_hop_is_not_known_is_an_error() -> None:
    trace = read("no_neighbor")
    assert trace.errors == ("neighbor cache miss for 10.250.1.2 on bridge br-phy, sending ARP request",)
    assert trace.datapath_actions[-1] == "drop"


def test_load_balancer_without_buckets() -> None:
    assert read("load_balancer").errors == ("no live bucket",)


def test_too_deep() -> None:
    trace = read("too_deep")
    assert trace.errors == (
        "over max translation depth 64",
        "Translation failed (Recursion too deep), packet is dropped.",
    )


def test_buckets_are_steps_and_give_registers_back() -> None:
    trace = read("group")
    buckets = [step for step in trace.steps if step.table == -1]
    assert [step.match for step in buckets] == ["bucket 0", "bucket 1"]
    assert [step.reg15 for step in buckets] == [3, 3]
    assert only(trace, 7).metadata == 8
    after = only(trace, 8)
    assert (after.metadata, after.reg15) == (0, 3)


def test_nested_clones_and_a_learn_that_is_no_error() -> None:
    trace = read("clone_learn")
    assert [(step.table, step.reg15) for step in trace.steps] == [(0, 0), (7, 6), (7, 5), (8, 0)]
    assert trace.errors == ("Nonexistent output port",)


def test_a_copy_without_its_meter_can_be_told() -> None:
    actions = read("copy_meter").datapath_actions[0]
    assert actions.count("userspace(") == 2
    assert actions.count("meter(") == 1, "the copy whose meter does not exist is not metered"


@pytest.mark.parametrize("text", ["", "hello", "Datapath actions: drop"])
def test_what_is_no_trace_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        parse_trace(text)


@given(st.lists(st.sampled_from([
    "Flow: tcp,metadata=0x1,reg15=0x2/0xf", 'bridge("br-int")', "-----", " 0. in_port=1, priority 5, cookie 0x1",
    "    resubmit(,8)", "    clone(a,b)", "    a", "     8. No match.", "            drop", "     >> x", "thaw",
    "    bucket 0", "            set_field:0x5->reg15", "     -> NXM_NX_REG15[0..3] is now 0x2", "Final flow: u",
    "Datapath actions: drop", "  . 4", "999. priority x", "    set_field:zz->reg14", "    load:1->NXM_NX_REG14[9..]",
]), max_size=25))  # fmt: skip
def test_any_order_of_lines_is_read_or_refused(lines: list[str]) -> None:
    with contextlib.suppress(ProtocolError):
        parse_trace("\n".join(lines))
