"""In which pattern packets of a pair were lost: how many runs, and how many arrived after the last of them.

Where they came in by several servers each of them orders its own: nothing is said of the order between two of them.
"""

from __future__ import annotations

import numpy as np

from vtrace.compiled import compiled

# Columns of the result.
LOST, RUNS, ARRIVED_AFTER = range(3)


@compiled
def runs(pair: np.ndarray, chassis: np.ndarray, order_ns: np.ndarray, lost: np.ndarray, pairs: int) -> np.ndarray:
    """Counts runs of lost packets in first-hop order.

    Args:
        pair, chassis, order_ns: of each packet that counts; packets of one chassis are in the order of its clock.
        lost: of each packet.
        pairs: how many pairs there are.

    Returns:
        For each pair LOST; RUNS, of several servers that with most; ARRIVED_AFTER, of those that lost any that with
        fewest.
    """
    found = np.zeros((pairs, 3), np.int64)
    begins = np.zeros(pairs + 1, np.int64)
    for one in range(len(pair)):
        begins[pair[one] + 1] += 1
        found[pair[one], LOST] += lost[one]
    for one in range(pairs):
        begins[one + 1] += begins[one]
    at = begins[:pairs].copy()
    order = np.empty(len(pair), np.int64)
    for one in range(len(pair)):
        order[at[pair[one]]] = one
        at[pair[one]] += 1
    for number in range(pairs):
        length = begins[number + 1] - begins[number]
        if found[number, LOST] == 0:
            continue
        if found[number, LOST] == length:
            found[number, RUNS] = 1
            continue
        own = order[begins[number] : begins[number + 1]]
        rows = own[np.argsort(order_ns[own], kind="mergesort")]
        if len(rows) and chassis[rows].min() != chassis[rows].max():
            rows = rows[np.argsort(chassis[rows], kind="mergesort")]
        begin = 0
        fewest = length
        while begin < length:
            end = begin
            found_runs, after, before = 0, 0, False
            while end < length and chassis[rows[end]] == chassis[rows[begin]]:
                if lost[rows[end]]:
                    found_runs += not before
                    after = 0
                else:
                    after += 1
                before = lost[rows[end]]
                end += 1
            found[number, RUNS] = max(found[number, RUNS], found_runs)
            if found_runs and after < fewest:
                fewest = after
            begin = end
        found[number, ARRIVED_AFTER] = fewest
    return found
