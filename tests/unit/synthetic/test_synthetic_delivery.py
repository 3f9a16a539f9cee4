"""Records that are lost, repeated, late or in no order, and what is told of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from making import Generator, Made, Row

Stream = tuple[str, int, int, int]


def stream(row: Row) -> Stream:
    return (row["chassis"], row["incarnation"], row["color"], row["epoch"])


def numbers(made: Made) -> dict[Stream, set[int]]:
    found: dict[Stream, set[int]] = defaultdict(set)
    for row in made.table.to_pylist():
        found[stream(row)].add(row["seq"])
    return found


@pytest.mark.parametrize("packets", [100, 3000])
def test_holes_in_the_numbers_are_what_was_lost(made: Generator, packets: int) -> None:
    whole, holed = (made(log_loss=loss, packets=packets, restarts=0.5, span_records=5000) for loss in (0.0, 0.05))
    assert whole.ends == holed.ends
    there = numbers(holed)
    ends = {(e.chassis, e.incarnation, e.color, e.epoch): e.written for e in holed.ends}
    missing = {name: set(range(1, written + 1)) - there[name] for name, written in ends.items()}
    assert all(found <= set(range(1, ends[name] + 1)) for name, found in there.items())
    lost = sum(map(len, missing.values()))
    assert lost == holed.totals.lost == sum(row["lost_records"] for row in holed.truth)
    assert lost == pytest.approx(0.05 * whole.totals.written, rel=0.15)
    # Which ones: those that are in the cloud without losses and not here.
    by_packet: Counter[tuple[int, int, int]] = Counter()
    for row in whole.table.to_pylist():
        by_packet[row["color"], row["epoch"], row["key"]] += row["seq"] in missing[stream(row)]
    assert {(r["color"], r["epoch"], r["key"]): r["lost_records"] for r in holed.truth} == dict(by_packet)


def test_losses_leave_the_truth_as_it_is(made: Generator) -> None:
    whole, holed = made(faults=0.3), made(faults=0.3, log_loss=0.2)
    for one, two in zip(whole.truth, holed.truth, strict=True):
        assert one == {**two, "lost_records": 0}


def test_what_comes_twice_is_the_same_both_times(made: Generator) -> None:
    found = made(repeat=0.1)
    rows: dict[tuple[Stream, int], list[Row]] = defaultdict(list)
    for row in found.table.to_pylist():
        rows[stream(row), row["seq"]].append(row)
    assert {len(same) for same in rows.values()} == {1, 2}
    assert all(row == same[0] for same in rows.values() for row in same)
    twice = sum(len(same) == 2 for same in rows.values())
    assert twice == found.totals.repeated == pytest.approx(0.1 * found.totals.written, rel=0.2)
    assert found.totals.delivered == len(found.table) == found.totals.written + twice


def test_nothing_is_lost_or_comes_twice_unless_asked(made: Generator) -> None:
    found = made(late=0.3)
    assert (found.totals.lost, found.totals.repeated) == (0, 0)
    assert len(found.table) == found.totals.written == sum(end.written for end in found.ends)


def test_late_records_come_among_those_of_later_tasks(made: Generator) -> None:
    def tasks_side_by_side(late: float) -> int:
        epochs = made(late=late, tasks=40, packets=500, span_records=3000).table["epoch"].to_pylist()
        last = {epoch: number for number, epoch in enumerate(epochs)}
        first = {epoch: number for number, epoch in reversed(list(enumerate(epochs)))}
        return sum(first[epoch + 1] < last[epoch] for epoch in first if epoch + 1 in first)

    assert tasks_side_by_side(0.0) == 0
    assert tasks_side_by_side(0.2) > 0


def test_in_no_order_neighbors_have_nothing_to_do_with_each_other(made: Generator) -> None:
    found = made(shuffle=True, tasks=16)
    colors = found.table["color"].to_pylist()
    same = sum(one == two for one, two in pairwise(colors))
    assert same / len(colors) == pytest.approx(1 / 16, abs=0.03)
