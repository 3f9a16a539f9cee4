"""Splits and their chances, against counts made by hand or by trying all."""

from __future__ import annotations

from itertools import combinations
from math import comb

import pytest

from vtrace.attribute.separation import Point, blind_chance, by_class, by_range, by_threshold, find, judge


def points(pattern: str, *values: object) -> list[Point]:
    """L and D: lost and delivered; each packet of a connection of its own unless there are fewer values."""
    return [Point(value=v, unit=n, lost=c == "L") for n, (c, v) in enumerate(zip(pattern, values, strict=True))]


def test_blind_chance_is_that_of_drawing() -> None:
    chosen = set(range(4))
    ways = [len(chosen & set(lost)) for lost in combinations(range(10), 5)]
    for both in range(5):
        expected = sum(w >= both for w in ways) / len(ways)
        assert blind_chance(10, 4, 5, both) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("pattern", "values", "side"),
    [("DDLL", (1, 2, 3, 4), {3, 4}), ("LLDD", (1, 2, 3, 4), {1, 2}), ("LDLD", (4, 1, 3, 2), {3, 4})],
)
def test_thresholds(pattern: str, values: tuple[int, ...], side: set[int]) -> None:
    assert by_threshold(points(pattern, *values))[0] == side


@pytest.mark.parametrize(
    ("pattern", "side"), [("DLLD", {2, 3}), ("LDDL", {1, 4}), ("LLDD", {1, 2}), ("DLLLDLD", {2, 3, 4}), ("DDDL", {4})]
)
def test_ranges(pattern: str, side: set[int]) -> None:
    assert by_range(points(pattern, *range(1, len(pattern) + 1)))[0] == side


def test_classes() -> None:
    assert by_class(points("LLDD", "a", "b", "c", "c")) == ({"a", "b"}, 6)


def test_so_many_connections_it_takes() -> None:
    """Half of them are lost: the chance of one class is 2 / (n over n / 2)."""
    found = {}
    for count in range(4, 30, 2):
        pattern, values = "LD" * (count // 2), "ab" * (count // 2)
        found[count] = find(points(pattern, *values), by_class, 1) is not None
        assert found[count] == (2 / comb(count, count // 2) < 0.001), count
    assert found[4] is False
    assert found[28] is True


def test_what_is_tried_more_often_has_to_hold_better() -> None:
    some = points("LD" * 8, *"ab" * 8)
    assert find(some, by_class, 1) is not None
    assert find(some, by_class, 100) is None


def test_some_thousand_packets() -> None:
    some = [Point(value=n % 7 % 2, unit=n % 90, lost=bool(n % 7 % 2) != (n % 100 == 0)) for n in range(5000)]
    found = find(some, by_class, 1)
    assert found is not None
    assert 0 <= found.chance < 1e-9
    assert found.errors == 50


def test_one_turn_is_no_evidence() -> None:
    assert find(points("L" * 50 + "D" * 50, *"a" * 50 + "b" * 50), by_class, 1) is None


def test_evidence_within_connections_is_preferred() -> None:
    some = [Point(value="ab"[n % 2], unit=n % 3, lost=n % 2 == 0) for n in range(60)]
    within = judge(some, frozenset("a"), 2, 1)
    assert within is not None
    assert within.evidence == "within"
    apart = [Point(value="ab"[n % 2], unit=n % 2, lost=n % 2 == 0) for n in range(60)]
    tied = judge(apart, frozenset("a"), 2, 1)
    assert tied is not None
    assert tied.evidence == "packets"
