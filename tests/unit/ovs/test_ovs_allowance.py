"""The bound of control calls: no order of calls and answers gets past it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtrace.ovs.allowance import BURST_CALLS, BURST_S, CALLS_PER_S, SHARE, Allowance

# Each: how long the caller does something else first, and how long the answer takes, in seconds.
Calls = list[tuple[float, float]]

calls = st.lists(st.tuples(st.floats(0, 2), st.floats(0, 3)), max_size=60)


def made(wanted: Calls) -> list[tuple[float, float]]:
    """When each call began and how long it took, of a caller that waits when it is told to."""
    now_s, found = 1000.0, []
    allowance = Allowance(now_s)
    for pause_s, took_s in wanted:
        now_s += pause_s
        now_s += allowance.ask(now_s)
        found.append((now_s, took_s))
        now_s += took_s
        allowance.spend(now_s, took_s)
    return found


@given(calls)
def test_answers_take_no_more_than_their_share(wanted: Calls) -> None:
    found = made(wanted)
    for first in range(len(found)):
        for last in range(first, len(found)):
            window_s = found[last][0] - found[first][0]
            # The last one's own time is known only when it is over.
            assert sum(took_s for _, took_s in found[first:last]) <= BURST_S + SHARE * window_s + 1e-6


@given(st.lists(st.floats(0, 0.1), min_size=1, max_size=20), st.integers(0, 200))
def test_calls_are_counted_however_fast_they_are(pauses_s: list[float], more: int) -> None:
    wanted = [(pauses_s[number % len(pauses_s)], 0.0) for number in range(BURST_CALLS + more)]
    found = made(wanted)
    began_s = found[0][0]
    for number, (at_s, _) in enumerate(found, 1):
        assert number <= BURST_CALLS + CALLS_PER_S * (at_s - began_s) + 1e-6


def test_a_task_of_one_pair_never_waits() -> None:
    # As `vtrace bench agent` counts them, on a busy machine: 26 calls, of which the longest took 83 ms.
    wanted = [(0.03, 0.083)] + [(0.03, 0.01)] * 25
    found = made(wanted)
    alone = [1000.0]
    for pause_s, took_s in wanted:
        alone.append(alone[-1] + pause_s + took_s)
    assert found[-1][0] == pytest.approx(alone[-1] - wanted[-1][1])


def test_what_was_left_unused_does_not_pile_up() -> None:
    allowance = Allowance(0.0)
    waits_s = [allowance.ask(1e6) for _ in range(BURST_CALLS + 1)]
    assert waits_s[-2] == 0.0
    assert waits_s[-1] == pytest.approx(1 / CALLS_PER_S)


def test_a_clock_that_stands_still_gives_nothing() -> None:
    allowance = Allowance(5.0)
    allowance.spend(5.0, BURST_S + 1.0)
    assert allowance.ask(5.0) == pytest.approx(1.0 / SHARE)
    assert allowance.ask(4.0) == pytest.approx(1.0 / SHARE)
