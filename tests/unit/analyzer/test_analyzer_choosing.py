"""Which color a task takes, of what its servers know of colors before."""

from __future__ import annotations

import pytest

from vtrace.analyzer.choosing import longest_unused, sent_by_others
from vtrace.collect.link import ColorsBefore


@pytest.mark.parametrize(
    ("before", "chosen"),
    [
        ([], 3),
        ([ColorsBefore(ages_s={3: 1.0})], 7),
        ([ColorsBefore(ages_s={7: 1.0}), ColorsBefore(ages_s={3: 50.0})], 11),
        # All were in use lately: on no server is the chosen one's use as fresh as the others'.
        ([ColorsBefore(ages_s={3: 5.0, 7: 9.0, 11: 20.0}), ColorsBefore(ages_s={11: 8.0})], 7),
        # Cached flows match the others.
        ([ColorsBefore(ages_s={3: 9.0, 7: 5.0, 11: 1.0}, cached_s={3: 9.0, 7: 5.0})], 11),
        ([ColorsBefore(ages_s={3: 5.0, 7: 9.0, 11: 1.0}, cached_s={3: 5.0, 7: 9.0, 11: 1.0})], 7),
    ],
    ids=["none", "one", "on-different-servers", "all", "some-cached", "all-cached"],
)
def test_the_color_that_was_longest_unused_is_taken(before: list[ColorsBefore], chosen: int) -> None:
    assert longest_unused((3, 7, 11), before) == chosen


def test_colors_of_packets_that_came_after_every_task_are_tenants() -> None:
    """On any server; a task's own flows have had no packet since."""
    one = ColorsBefore(ages_s={3: 2.0, 7: 4.0}, cached_s={3: 2.1, 7: 0.3, 11: 9.0, 46: 0.0})
    other = ColorsBefore(ages_s={15: 1.0}, cached_s={15: 0.9, 19: 0.0})
    assert sent_by_others([one, other]) == {7, 11, 46, 19}
    assert sent_by_others([ColorsBefore(), ColorsBefore(ages_s={3: 100.0})]) == set()
