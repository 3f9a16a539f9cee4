"""Which cases a seed has."""

from __future__ import annotations

from collections import Counter

import pytest

from vtrace.bench.drawing import BATCH, batches, draw
from vtrace.bench.fault import Actor, Anomaly, Fault, Right, Traffic, catalogue
from vtrace.errors import UsageError

RIGHT = Right(server="s", vfd="v", vfd_kind="vswitch")


def one(name: str, anomaly: Anomaly = "network misconfiguration", *, code: str = "acl_drop", **more: object) -> Fault:
    actor: Actor = "tenant"
    return Fault(name=name, text=name, code=code, actor=actor, anomaly=anomaly, right=RIGHT, **more)  # type: ignore[arg-type]


def test_a_seed_names_the_same_cases_again() -> None:
    faults = catalogue()
    assert draw(faults, 50, 7) == draw(faults, 50, 7)
    assert draw(faults, 50, 7) != draw(faults, 50, 8)


def test_more_cases_only_add() -> None:
    faults = catalogue()
    assert draw(faults, 200, 3)[:60] == draw(faults, 60, 3)


def test_numbers_are_in_order_and_batches_share_labs() -> None:
    cases = draw(catalogue(), 150, 5)
    assert [case.number for case in cases] == list(range(150))
    groups = batches(cases)
    assert sorted(case.number for group in groups for case in group) == list(range(150))
    for group in groups:
        assert len({(case.kind, case.batch) for case in group}) == 1
        assert len(group) <= BATCH
    # What else is drawn differs for each case, and is the same for all of a lab.
    assert len({case.rng.random() for case in cases}) == 150
    assert len({case.lab_rng.random() for case in cases}) == len(groups)


def test_frequent_anomalies_are_drawn_more_often() -> None:
    faults = (one("often"), one("seldom", "hypervisor exception"))
    found = Counter(case.faults[0] for case in draw(faults, 1000, 1, mode="fault"))
    assert 20 < found["often"] / found["seldom"] < 45  # 90 to 3


def test_faults_of_one_code_share_its_weight() -> None:
    faults = (one("a1"), one("a2"), one("a3"), one("b", code="no_route"))
    found = Counter(case.faults[0] for case in draw(faults, 1000, 1, mode="fault"))
    assert 400 < found["b"] < 600


def test_modes() -> None:
    near = one("near", near={"a": "b"}, inject=())
    faults = (near, one("far", code="no_route"))
    healthy = draw(faults, 20, 1, mode="healthy")
    assert all(case.faults == () and case.mode == "healthy" for case in healthy)
    assert all(case.faults == ("near",) for case in draw(faults, 20, 1, mode="near-miss"))
    two = draw(faults, 20, 1, mode="two faults")
    assert all(sorted(case.faults) == ["far", "near"] for case in two)
    assert {case.mode for case in draw(faults, 300, 1)} == {"fault", "two faults", "near-miss", "healthy"}


@pytest.mark.parametrize("more", [{"alone": True}, {"packets": Traffic(to_alias=True)}, {"needs": ("reply",)}])
def test_a_fault_that_touches_others_gets_no_second_one(more: dict[str, object]) -> None:
    cases = draw((one("a", **more), one("b", code="no_route")), 40, 1, mode="two faults")
    assert all(case.faults in (("a",), ("b",)) for case in cases)


def test_two_faults_can_meet_the_same_packets() -> None:
    """Packets of one protocol and IP version: so the two need one in common."""
    faults = (one("four", versions=(4,)), one("six", versions=(6,), code="no_route"))
    assert all(len(case.faults) == 1 for case in draw(faults, 40, 1, mode="two faults"))


def test_a_kind_of_traffic_without_a_fault() -> None:
    assert all(case.kind == "vpc" for case in draw((one("a"),), 30, 1))
    with pytest.raises(UsageError, match="no fault to inject"):
        draw((one("a"),), 3, 1, kinds=("slb",))
