"""Figures and report of outcomes."""

from __future__ import annotations

import pytest

from vtrace.bench.drawing import Case, Mode
from vtrace.bench.figures import interval, percentile
from vtrace.bench.judging import Expected, ExpectedVerdict, Judgement
from vtrace.bench.report import confusion, figures, markdown
from vtrace.bench.running import Outcome


def outcome(
    number: int,
    code: str = "acl_drop",
    *given: str,
    right: tuple[bool, bool, bool] = (True, True, True),
    loss: str = "yes",
    took_s: float = 1.0,
    mode: Mode = "fault",
    codes: tuple[str, ...] | None = None,
) -> Outcome:
    faults = (f"{code}_here",) if code else ()
    verdicts = tuple(
        ExpectedVerdict(kind="dropped", server="s", vfd="v", vfd_kind="vswitch", code=c) for c in codes or (code,)
    )
    told = given or (code,)
    return Outcome(
        case=Case(number=number, seed=1, kind="vpc", batch=0, mode=mode, faults=faults, busy=False),
        codes=codes or ((code,) if code else ()),
        way=("switched-local",),
        ip=4,
        proto="udp",
        right=Expected(loss=loss, verdicts=verdicts),
        judgement=Judgement(
            loss=right[0],
            where=right[1],
            why=right[2],
            unknown="unknown" in told,
            false_alarm=loss == "no" and not right[0],
            given=told,
        ),
        took_s=took_s,
        commit="0123456789abcdef",
    )


def void(number: int) -> Outcome:
    case = Case(number=number, seed=1, kind="vpc", batch=0, mode="fault", faults=("acl_drop_here",), busy=False)
    return Outcome(case=case, codes=("acl_drop",), void="nothing came about")


def test_figures() -> None:
    outcomes = [
        outcome(0, took_s=2.0),
        outcome(1, "no_route", "unknown", right=(True, True, False), took_s=4.0),
        outcome(2, "physical_loss", right=(True, False, True), took_s=1.0),
        outcome(3, "", "acl_drop", right=(False, False, False), loss="no", took_s=3.0, mode="healthy"),
        void(4),
    ]
    found = figures(outcomes)
    assert (found["cases"], found["void"]) == (4, 1)
    assert (found["all_three_right"], found["loss_right"]) == (0.25, 0.75)
    assert (found["where_right"], found["why_right"]) == (0.5, 0.5)
    assert (found["unknown"], found["false_alarms"], found["without_loss"]) == (0.25, 1, 1)
    assert (found["time_to_verdict_median_s"], found["time_to_verdict_p95_s"]) == (2.0, 4.0)
    assert found["commits"] == ["0123456789ab"]


def test_figures_of_nothing() -> None:
    found = figures([])
    assert (found["cases"], found["all_three_right"], found["time_to_verdict_p95_s"]) == (0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # Newcombe 1998, table I, method 3, without continuity correction.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_interval(right: int, count: int, low: float, high: float) -> None:
    assert interval(right, count) == (low, high)


def test_percentile() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.95), percentile(values, 1.0)) == (50.0, 95.0, 100.0)
    assert percentile([7.0], 0.95) == 7.0


def test_confusion_is_of_single_faults() -> None:
    outcomes = [
        outcome(0),
        outcome(1),
        outcome(2, "acl_drop", "port_security"),
        outcome(3, "", "", loss="no", mode="near-miss"),
        outcome(4, codes=("acl_drop", "no_route"), mode="two faults"),
        void(5),
    ]
    assert confusion(outcomes) == {"acl_drop": {"acl_drop": 2, "port_security": 1}, "": {"": 1}}


def test_the_report_lists_wrong_and_void_cases() -> None:
    outcomes = [
        outcome(0),
        outcome(1, "no_route", "unknown", right=(True, True, False)),
        void(2),
        outcome(3, "", "", loss="no", mode="near-miss"),
    ]
    text = markdown(outcomes, "vtrace bench faults --cases 4")
    assert "| 1 | fault: no_route_here | vpc, switched-local, udp4 | why | unknown |" in text
    assert "| 2 | acl_drop_here | nothing came about |" in text
    assert "| no_route | 1 | 0.0% | 0 | unknown 1 |" in text
    assert "| acl_drop | 1 | 100.0% | 1 |  |" in text
    assert "| healthy | 1 | 100.0% | 1 |  |" in text
    assert "| mode: near-miss | 1 | 100.0% |" in text
    assert "acl_drop_here | vpc" not in text
