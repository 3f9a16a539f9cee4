"""The order of slices with and without entries, and what their ratio says: an interval, and a claim made of it.

A is without, B with. Neighbors are compared: each A with the B beside it, and A comes first as often as B, so that
what drifts slowly cancels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

RESAMPLES = 4_000
# Fewer pairs say too little of how much they vary: no interval is given then.
LEAST_PAIRS = 8
_CONFIDENCE = 0.95
_SEED = 20200810


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A mean of `pairs` differences or ratios, and its 95 % interval (None where there are too few)."""

    pairs: int
    value: float
    low: float | None
    high: float | None


def order(slices: int) -> str:
    """So many slices as ABBA ABBA …

    Raises:
        ValueError: it is no multiple of four, or none.
    """
    if slices < 4 or slices % 4:
        raise ValueError(f"{slices} slices are no whole number of ABBA")
    return "ABBA" * (slices // 4)


def pairs(values: Sequence[float], labels: str) -> tuple[Array, Array]:
    """The values of A and of B, each with the one that was measured beside it.

    Raises:
        ValueError: two neighbors have the same label.
    """
    without, within = [], []
    for at in range(0, len(labels) - 1, 2):
        both = dict(zip(labels[at : at + 2], values[at : at + 2], strict=True))
        if set(both) != {"A", "B"}:
            raise ValueError(f"slices {at} and {at + 1} are both {labels[at]}")
        without.append(both["A"])
        within.append(both["B"])
    return np.asarray(without, float), np.asarray(within, float)


def ratio(values: Sequence[float], labels: str) -> Estimate:
    """B over A: the geometric mean of the pairs' ratios.

    Raises:
        ValueError: a value is not positive.
    """
    without, within = pairs(values, labels)
    if not (without > 0).all() or not (within > 0).all():
        raise ValueError("a slice without anything in it has no ratio")
    found = mean(np.log(within) - np.log(without))
    return Estimate(
        pairs=found.pairs,
        value=math.exp(found.value),
        low=None if found.low is None else math.exp(found.low),
        high=None if found.high is None else math.exp(found.high),
    )


def difference(values: Sequence[float], labels: str) -> Estimate:
    """B less A: the mean of the pairs' differences, in the unit of the values."""
    without, within = pairs(values, labels)
    return mean(within - without)


def mean(values: Array) -> Estimate:
    """The mean of independent values with its interval, by the symmetric bootstrap of the studentized mean (Hall 1992,
    section 3.6): with some twenty values percentiles of the mean alone are too narrow.
    """
    count = len(values)
    middle = float(values.mean())
    if count < LEAST_PAIRS:
        return Estimate(pairs=count, value=middle, low=None, high=None)
    error = float(values.std(ddof=1)) / math.sqrt(count)
    if error == 0.0:
        return Estimate(pairs=count, value=middle, low=middle, high=middle)
    drawn = values[np.random.default_rng(_SEED).integers(0, count, (RESAMPLES, count))]
    errors = drawn.std(axis=1, ddof=1) / math.sqrt(count)
    # One value drawn each time has no spread: such a draw says nothing.
    usable = errors > error * 1e-9
    students = (drawn.mean(axis=1)[usable] - middle) / errors[usable]
    half = float(np.quantile(np.abs(students), _CONFIDENCE)) * error
    return Estimate(pairs=count, value=middle, low=middle - half, high=middle + half)


def cost(estimate: Estimate) -> float | None:
    """The share of throughput that may be lost at worst: what the interval's lower end leaves; None without one."""
    return None if estimate.low is None else max(0.0, 1.0 - estimate.low)


def claim(estimate: Estimate) -> str:
    """What a ratio of throughputs allows to say."""
    worst = cost(estimate)
    if estimate.low is None or estimate.high is None or worst is None:
        return f"{estimate.pairs} pairs are too few for an interval"
    ends = f"ratio {estimate.value:.5f}, 95 % interval {estimate.low:.5f} to {estimate.high:.5f}"
    if estimate.high < 1.0:
        return f"costs at most {worst:.2%} ({ends})"
    if estimate.low > 1.0:
        return f"no cost: faster than without, by noise or order ({ends})"
    return f"not resolved below {worst:.2%} ({ends})"
