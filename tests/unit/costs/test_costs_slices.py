"""The order of slices, and the interval of their ratio: held against distributions whose mean is known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from vtrace.costs import slices

SLICES = 40
TRIALS = 400
# 95 % of 400 trials: within four standard deviations (1.1 %) of what an exact interval would cover.
LEAST_COVERED, MOST_COVERED = 0.91, 0.99

Draw = Callable[[np.random.Generator], list[float]]


def noisy(effect: float, noise: Callable[[np.random.Generator], np.ndarray], drift: float = 0.0) -> Draw:
    """Slices whose B is `effect` times A, with noise and a drift over the whole run."""
    labels = slices.order(SLICES)

    def draw(random: np.random.Generator) -> list[float]:
        trend = 1.0 + drift * np.arange(SLICES) / SLICES
        truth = np.array([effect if label == "B" else 1.0 for label in labels])
        return list(1e5 * trend * truth * noise(random))

    return draw


def gauss(random: np.random.Generator) -> np.ndarray:
    return np.exp(random.normal(0.0, 0.02, SLICES))


def skewed(random: np.random.Generator) -> np.ndarray:
    """Now and then something else takes the processor."""
    return np.exp(-random.exponential(0.02, SLICES))


def heavy(random: np.random.Generator) -> np.ndarray:
    return np.exp(0.01 * random.standard_t(4, SLICES))


@pytest.mark.parametrize("noise", [gauss, skewed, heavy])
@pytest.mark.parametrize(("effect", "drift"), [(1.0, 0.0), (0.99, -0.2)])
def test_the_interval_covers_what_is_true(
    noise: Callable[[np.random.Generator], np.ndarray], effect: float, drift: float
) -> None:
    random = np.random.default_rng(7)
    draw, labels = noisy(effect, noise, drift), slices.order(SLICES)
    found = [slices.ratio(draw(random), labels) for _ in range(TRIALS)]
    covered = sum(e.low is not None and e.high is not None and e.low <= effect <= e.high for e in found) / TRIALS
    assert LEAST_COVERED <= covered <= MOST_COVERED, covered
    assert np.mean([e.value for e in found]) == pytest.approx(effect, abs=0.002)


def test_the_interval_narrows_as_the_root_of_their_number() -> None:
    random = np.random.default_rng(3)

    def width(count: int) -> float:
        found = slices.mean(random.normal(0.0, 1.0, count))
        assert found.low is not None
        assert found.high is not None
        return found.high - found.low

    narrow = np.mean([width(160) for _ in range(50)])
    wide = np.mean([width(40) for _ in range(50)])
    # Student's t for 39 and 159 degrees of freedom makes it 2.05.
    assert wide / narrow == pytest.approx(2.05, rel=0.1)


def test_half_of_the_toggles_are_saved_and_drift_cancels() -> None:
    labels = slices.order(SLICES)
    assert labels == "ABBA" * 10
    assert sum(a != b for a, b in pairwise(labels)) == 20
    drifting = [100.0 - number for number in range(SLICES)]
    assert slices.difference(drifting, labels).value == pytest.approx(0.0)


def test_a_known_difference_is_found() -> None:
    labels = slices.order(SLICES)
    found = slices.difference([5.0 if label == "B" else 2.0 for label in labels], labels)
    assert (found.value, found.low, found.high, found.pairs) == (3.0, 3.0, 3.0, 20)


def test_few_pairs_have_no_interval() -> None:
    found = slices.ratio([1.0, 0.9, 0.9, 1.0], "ABBA")
    assert (found.pairs, found.low, found.high) == (2, None, None)
    assert found.value == pytest.approx(0.9)
    assert slices.cost(found) is None
    assert "too few" in slices.claim(found)


@pytest.mark.parametrize("count", [0, 2, 6, 41])
def test_only_whole_rounds(count: int) -> None:
    with pytest.raises(ValueError, match="ABBA"):
        slices.order(count)


def test_neighbors_have_to_differ() -> None:
    with pytest.raises(ValueError, match="both A"):
        slices.ratio([1.0, 1.0], "AA")


def test_nothing_has_no_ratio() -> None:
    with pytest.raises(ValueError, match="has no ratio"):
        slices.ratio([1.0, 0.0, 1.0, 1.0], "ABBA")


@pytest.mark.parametrize(
    ("low", "high", "said", "worst"),
    [
        (0.985, 0.995, "costs at most 1.50%", 0.015),
        (0.998, 1.003, "not resolved below 0.20%", 0.002),
        (1.001, 1.004, "no cost", 0.0),
    ],
)
def test_the_claim_is_the_worse_end(low: float, high: float, said: str, worst: float) -> None:
    found = slices.Estimate(pairs=20, value=(low + high) / 2, low=low, high=high)
    assert said in slices.claim(found)
    assert slices.cost(found) == pytest.approx(worst)
