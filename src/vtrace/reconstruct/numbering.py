"""Numbers the rows of a table: equal rows alike, from 0 in the order in which they come first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from vtrace.compiled import compiled

_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)


def row_numbers(columns: Sequence[pa.Array | pa.ChunkedArray | np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """As `collect.blobs.row_numbers`, for tables that are small and many.

    Args:
        columns: integers or text, no nulls.

    Returns:
        For each row its number (int32); and for each number the first row that has it (int64).
    """
    values = np.empty((len(columns[0]), len(columns)), np.int64)
    for number, column in enumerate(columns):
        values[:, number] = _integers(column)
    return _number(values)


def _integers(column: pa.Array | pa.ChunkedArray | np.ndarray) -> np.ndarray:
    """Integers that are equal where the values of a column are."""
    if isinstance(column, np.ndarray):
        return column
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    found: np.ndarray = (array.dictionary_encode().indices if pa.types.is_string(array.type) else array).to_numpy()
    return found


@compiled
def _number(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, width = values.shape
    bits = 4
    while 1 << bits < 2 * rows:
        bits += 1
    mask = (1 << bits) - 1
    slots = np.full(1 << bits, -1, np.int32)
    numbers, first = np.empty(rows, np.int32), np.empty(rows, np.int64)
    count = 0
    for row in range(rows):
        hashed = np.uint64(0)
        for column in range(width):
            hashed = (hashed ^ np.uint64(values[row, column])) * _SPREAD
            hashed ^= hashed >> _SHIFT
        at = np.int64(hashed) & mask
        while True:
            known = slots[at]
            if known < 0:
                slots[at] = count
                first[count] = row
                known = np.int32(count)
                count += 1
                break
            same = True
            for column in range(width):
                same = same and values[first[known], column] == values[row, column]
            if same:
                break
            at = (at + 1) & mask
        numbers[row] = known
    return numbers, first[:count].copy()
