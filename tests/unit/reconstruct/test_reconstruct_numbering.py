"""Numbers of equal rows: held against a dictionary."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from vtrace.reconstruct.numbering import row_numbers

ROWS = st.lists(st.tuples(st.sampled_from(["", "a", "b", "ab"]), st.sampled_from([0, 1, -1, 1 << 62])), max_size=60)


@settings(deadline=None)  # the first call compiles
@given(ROWS)
def test_equal_rows_have_one_number_in_the_order_of_their_first(rows: list[tuple[str, int]]) -> None:
    texts, numbers = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [])
    columns = [pa.chunked_array([pa.array(texts, pa.string())]), pa.array(numbers, pa.int64())]
    found, first = row_numbers(columns)
    known: dict[tuple[str, int], int] = {}
    assert found.tolist() == [known.setdefault(row, len(known)) for row in rows]
    assert first.tolist() == [rows.index(row) for row in known]


def test_rows_that_differ_in_one_column_differ() -> None:
    count = 5000
    one, two = pa.array([row // 50 for row in range(count)]), pa.array([row % 50 for row in range(count)])
    found, first = row_numbers([one, two])
    assert found.tolist() == first.tolist() == list(range(count))
