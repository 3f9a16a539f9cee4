"""Pairs are colored in turns, so that what their packets cost stays within the meters."""

from __future__ import annotations

import pytest
from builders import HV1, HV2, WEB, Recorder, endpoint, pair
from msgspec.structs import replace

from vtrace.analyzer.turns import FIRST_PAIRS, SHARE, TURN_S, Turns
from vtrace.color.registry import COPY_RATE_PPS, FIRST_RATE_PPS
from vtrace.model.record import Point
from vtrace.model.task import Pair

MANY = [replace(pair(), index=number) for number in range(100)]


def sends(turns: Turns, pairs: int, packets: int, *, chassis: str = HV1, copies: int = 0) -> None:
    """So many pairs send so many packets each, of which the chassis makes so many copies beside the first."""
    log = Recorder()
    for number in range(pairs):
        for key in range(packets):
            turns.take(log.write(chassis, Point.FIRST_HOP, WEB, key, pair=number))
            for _ in range(copies):
                turns.take(log.write(chassis, Point.LOGICAL_EGRESS, WEB, key))


def begun(turns: Turns) -> int:
    return len(MANY) - len(turns.waiting)


def started() -> Turns:
    turns = Turns(MANY)
    turns.start(0.0)
    return turns


def test_a_few_pairs_need_no_turns() -> None:
    turns = Turns(MANY[:FIRST_PAIRS])
    assert not turns.waiting
    assert turns.next(99.0) == []


def test_silent_pairs_let_twice_as_many_begin_each_time() -> None:
    turns = started()
    assert begun(turns) == FIRST_PAIRS
    assert turns.next(TURN_S / 2) == []
    counts = []
    for turn in range(1, 6):
        turns.next(turn * TURN_S)
        turns.start(turn * TURN_S)
        counts.append(begun(turns))
    assert counts == [16, 32, 64, 100, 100]


def test_all_have_their_turn_once() -> None:
    turns = started()
    chosen: list[int] = []
    for turn in range(1, 9):
        chosen += turns.next(turn * TURN_S)
        turns.start(turn * TURN_S)
    assert sorted(chosen) == list(range(FIRST_PAIRS, 100))


@pytest.mark.parametrize(
    ("packets", "copies", "more"),
    [
        # 8 pairs of 12 packets in a quarter of a second: 384/s of 504/s, so that two more fit.
        (12, 0, 2),
        # 8 pairs of 16: 512/s are too many already.
        (16, 0, 0),
        # 8 pairs of 8 packets, 256/s, and 4 copies of each: 1,280/s of 1,505/s.
        (8, 4, 1),
        # 4 pairs' worth of nothing much: as many again as have begun, not more.
        (1, 0, 8),
    ],
)
def test_busy_pairs_let_as_many_begin_as_fit(packets: int, copies: int, more: int) -> None:
    assert (TURN_S, SHARE, FIRST_RATE_PPS, COPY_RATE_PPS) == (0.25, 0.5, 1009, 3011)
    turns = started()
    sends(turns, 8, packets, copies=copies)
    assert len(turns.next(TURN_S)) == more


def test_the_busiest_chassis_counts() -> None:
    turns = started()
    sends(turns, 8, 1, chassis=HV2)
    sends(turns, 8, 16, chassis=HV1)
    assert turns.next(TURN_S) == []


def test_the_next_turn_waits_until_those_before_are_colored() -> None:
    turns = started()
    assert turns.next(TURN_S)
    assert turns.next(99.0) == []
    turns.start(99.0)
    assert turns.next(99.0 + TURN_S)


def test_what_was_counted_before_a_turn_is_not_counted_again() -> None:
    turns = started()
    sends(turns, 8, 16)
    assert turns.next(TURN_S) == []
    assert len(turns.next(2 * TURN_S)) == 8


def test_the_first_pair_of_each_source_comes_before_the_second_of_any() -> None:
    def of(source: str, index: int) -> Pair:
        return replace(pair(), index=index, source=endpoint(source))

    pairs = [of("web1", n) for n in range(10)] + [of("web2", 10), of("db1", 11)]
    assert Turns(pairs).waiting == [6, 7, 8, 9]
