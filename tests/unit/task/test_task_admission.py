"""Which tasks are refused, and what pairs a task comes to."""

from __future__ import annotations

import pytest
from builders import endpoint
from msgspec.structs import replace

from vtrace.errors import RefusedError, UsageError
from vtrace.model.task import Direction, Endpoint, TaskSpec, TrafficFilter
from vtrace.task.admission import MAX_PACKETS, MAX_PAIRS, check, make_pairs, refuse_dscp_conflict

SPEC = TaskSpec(task_id="t", sources=("web1",), destinations=("web2",))
BOTH = (Direction.FORWARD, Direction.REPLY)


def traffic(**fields: object) -> TaskSpec:
    return replace(SPEC, traffic=TrafficFilter(**fields))


@pytest.mark.parametrize(
    ("spec", "option"),
    [
        (replace(SPEC, sources=()), "--from"),
        (replace(SPEC, destinations=()), "--to"),
        (replace(SPEC, packets=0), "--packets"),
        (replace(SPEC, packets=-1), "--packets"),
        (replace(SPEC, packets=MAX_PACKETS + 1), "--packets"),
        (replace(SPEC, timeout_s=0.5), "--timeout"),
        (replace(SPEC, timeout_s=3601.0), "--timeout"),
        (replace(SPEC, timeout_s=float("nan")), "--timeout"),
        (traffic(sport=80), "--sport"),
        (traffic(proto="icmp", dport=80), "--dport"),
        (traffic(proto="tcp", dport=0), "--dport"),
        (traffic(proto="udp", sport=65536), "--sport"),
        (traffic(proto="udp", tcp_flags="+syn"), "--tcp-flags"),
        (traffic(tcp_flags="+syn"), "--tcp-flags"),
        (traffic(proto="tcp", icmp_type=8), "--icmp-type"),
        (traffic(proto="icmp", icmp_type=256), "--icmp-type"),
        (traffic(proto="icmp", icmp_type=-1), "--icmp-type"),
    ],
)
def test_a_task_that_makes_no_sense_names_the_option(spec: TaskSpec, option: str) -> None:
    with pytest.raises(UsageError) as caught:
        check(spec)
    assert caught.value.where == option
    assert option in caught.value.what


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        replace(SPEC, packets=1),
        replace(SPEC, packets=MAX_PACKETS),
        replace(SPEC, timeout_s=1.0),
        replace(SPEC, timeout_s=3600.0),
        traffic(proto="tcp", sport=1, dport=65535, tcp_flags="+syn"),
        traffic(proto="icmp", icmp_type=0),
        traffic(proto="icmp", icmp_type=255),
    ],
)
def test_a_task_that_makes_sense(spec: TaskSpec) -> None:
    check(spec)


def test_a_task_of_10_000_packets_is_possible() -> None:
    # design.md, "Numbers": packets of a task ≥ 10,000.
    check(replace(SPEC, packets=10_000))


def test_every_source_with_every_destination_in_every_direction() -> None:
    web1, web2, db1 = (endpoint(name) for name in ("web1", "web2", "db1"))
    pairs = make_pairs(replace(SPEC, directions=BOTH), [web1, web2], [db1])
    assert [(p.index, p.direction, p.source.name, p.destination.name) for p in pairs] == [
        (0, Direction.FORWARD, "web1", "db1"),
        (1, Direction.REPLY, "db1", "web1"),
        (2, Direction.FORWARD, "web2", "db1"),
        (3, Direction.REPLY, "db1", "web2"),
    ]


def test_an_endpoint_named_twice_is_one_and_none_is_its_own_peer() -> None:
    web1, web2 = endpoint("web1"), endpoint("web2")
    pairs = make_pairs(SPEC, [web1, web1], [web1, web2, web2])
    assert [(p.source.name, p.destination.name) for p in pairs] == [("web1", "web2")]


def test_only_itself_to_itself_is_wrong() -> None:
    with pytest.raises(UsageError, match="the same"):
        make_pairs(SPEC, [endpoint("web1")], [endpoint("web1")])


def test_too_many_pairs() -> None:
    many = [endpoint(f"vm{n}", f"10.0.{n // 256}.{n % 256}") for n in range(MAX_PAIRS + 1)]
    assert len(make_pairs(SPEC, many[:MAX_PAIRS], [endpoint("web1")])) == MAX_PAIRS
    with pytest.raises(UsageError, match="too many"):
        make_pairs(SPEC, many, [endpoint("web1")])
    with pytest.raises(UsageError, match="too many"):
        make_pairs(replace(SPEC, directions=BOTH), many[: MAX_PAIRS // 2 + 1], [endpoint("web1")])


def test_what_uses_the_dscp_refuses_the_task_unless_the_operator_says_yes() -> None:
    with pytest.raises(RefusedError, match="ACL 12345678 of web") as caught:
        refuse_dscp_conflict(["ACL 12345678 of web"], allowed=False)
    assert "--allow-dscp" in caught.value.next_step
    refuse_dscp_conflict(["ACL 12345678 of web"], allowed=True)
    refuse_dscp_conflict([], allowed=False)


def names(spec: TaskSpec, sources: list[Endpoint], destinations: list[Endpoint]) -> list[tuple[str, str, str]]:
    return [(p.source.name, p.destination.name, p.direction.word) for p in make_pairs(spec, sources, destinations)]


def test_a_vm_named_by_its_port_and_by_addresses_is_one() -> None:
    port = endpoint("web1", "10.0.1.1", by_port=True)
    (pair,) = make_pairs(SPEC, [endpoint("web2")], [endpoint("web1", "10.0.1.1"), endpoint("web1", "10.9.9.9"), port])
    assert (pair.destination.addresses, pair.destination.by_port) == (("10.0.1.1", "10.9.9.9"), True)


def test_a_vm_is_not_its_own_peer_by_another_of_its_addresses() -> None:
    other = endpoint("web1", "10.9.9.9")
    assert names(SPEC, [endpoint("web1")], [other, endpoint("web2")]) == [("web1", "web2", "forward")]
    with pytest.raises(UsageError, match="are the same"):
        make_pairs(SPEC, [endpoint("web1")], [other])


def test_between_vms_on_both_sides_no_packet_is_of_two_pairs() -> None:
    spec, ends = replace(SPEC, directions=BOTH), [endpoint("web1"), endpoint("web2")]
    assert names(spec, ends, ends) == [("web1", "web2", "forward"), ("web2", "web1", "forward")]
    reply = replace(SPEC, directions=(Direction.REPLY,))
    assert names(reply, ends, ends) == [("web2", "web1", "reply"), ("web1", "web2", "reply")]


def test_with_a_port_named_a_reply_is_not_the_other_pairs_forward_direction() -> None:
    ends = [endpoint("web1"), endpoint("web2")]
    spec = replace(SPEC, directions=BOTH, traffic=TrafficFilter(proto="tcp", dport=80))
    assert len(names(spec, ends, ends)) == 4
