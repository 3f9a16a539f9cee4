"""Tallies: adding up parts, and finding differences."""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pytest

from vtrace.measuring.tally import APART, FIRST_HOPS, TALLY_SCHEMA, UNCLAIMED, Tally, differences, tally_of
from vtrace.reconstruct.layout import AT_EGRESS, AT_SENT

Row = tuple[str, int, int, int, int, int]


def part(*rows: Row) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table(
        [pa.array(values, field.type) for values, field in zip(columns, TALLY_SCHEMA, strict=True)], schema=TALLY_SCHEMA
    )


@pytest.fixture
def two_parts() -> Tally:
    return tally_of(
        [
            part(("t", 0, FIRST_HOPS, 0, 5, 0), ("t", 0, AT_EGRESS, 7, 4, 20), ("", -1, APART, 0, 1, 9)),
            part(
                ("t", 0, FIRST_HOPS, 0, 3, 0),
                ("t", 0, AT_EGRESS, 7, 1, 5),
                ("t", 0, AT_SENT, 7, 2, 4),
                ("", -1, UNCLAIMED, 0, 6, 7),
            ),
        ]
    )


def test_parts_are_added_up_by_path(two_parts: Tally) -> None:
    (pair,) = two_parts.pairs
    assert (two_parts.records, two_parts.unclaimed, two_parts.packets, two_parts.paths) == (45, 6, 8, 2)
    assert (pair.packets, pair.apart, pair.delivered, pair.lost_between, pair.dropped) == (8, 1, 5, 2, 0)
    assert pair.paths == (("delivered", 5), ("lost_between", 2))
    assert pair.loss_ratio == 2 / 7


def test_nothing_is_no_pairs() -> None:
    assert tally_of([]) == Tally(records=0, unclaimed=0, pairs=())


def changed(tally: Tally, **fields: object) -> Tally:
    (pair,) = tally.pairs
    return msgspec.structs.replace(tally, pairs=(msgspec.structs.replace(pair, **fields),))


def test_differences_are_told(two_parts: Tally) -> None:
    assert differences(two_parts, two_parts) == []
    assert differences(two_parts, changed(two_parts, packets=9)) == ["task t pair 0: 8 and 9 packets"]
    assert differences(two_parts, msgspec.structs.replace(two_parts, pairs=())) == ["task t pair 0: only one has it"]
    assert differences(two_parts, msgspec.structs.replace(two_parts, records=1)) == ["records: 45 and 1"]


def test_paths_are_compared_where_nothing_is_put_apart(two_parts: Tally) -> None:
    paths = (("delivered", 5), ("dropped", 2))
    assert differences(two_parts, changed(two_parts, paths=paths, apart=None)) == []
    one, other = changed(two_parts, apart=0), changed(two_parts, apart=None, paths=paths)
    (told,) = differences(one, other)
    assert "lost_between" in told
    assert "dropped" in told
