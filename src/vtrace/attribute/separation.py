"""Whether a value tells lost packets from delivered ones, and how likely chance alone would make it look so.

A value that separates by chance is worse than none, so each split has to pass three tests: it errs on few packets,
it would come about by chance (packets or five-tuples lost at random) in fewer than `CHANCE` of such tasks, and it is
not just the time at which packets were sent that tells them apart.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise
from math import comb
from typing import Literal

import msgspec

# Fewer packets than this of one kind say nothing.
FEWEST = 3
# At most this share of the lost packets, and of the delivered ones, may be on the wrong side; the answer says it.
ERRS = 0.05
# Chance gives a split with a smaller probability than this, over all fields and pairs that were tried.
CHANCE = 0.001
# Lost and delivered packets take turns so many times at least: fewer, and a loss that came and went explains it too.
TURNS = 6
# More classes than this always have a union that separates.
_CLASSES = 64


Evidence = Literal["within", "units", "packets"]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A packet: its value, the five-tuple it is of, and whether it was lost. Points stand in the order of sending."""

    value: Hashable
    unit: Hashable
    lost: bool


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """A division of the values in two, and how it fits.

    Attributes:
        lost_values, delivered_values: those seen on each side, sorted.
        lost_right, lost: lost packets on the lost side, and all; likewise delivered.
        chance: how likely it comes about by chance, for one field.
        evidence: the best that speaks for it: "within" five-tuples that have packets on both sides, whole five-tuples
            ("units"), or packets alone ("packets"): then each of few five-tuples is on one side, and something else of
            theirs may be what matters.
    """

    lost_values: tuple[Hashable, ...]
    delivered_values: tuple[Hashable, ...]
    lost_right: int
    lost: int
    delivered_right: int
    delivered: int
    chance: float
    evidence: Evidence

    @property
    def errors(self) -> int:
        return self.lost - self.lost_right + self.delivered - self.delivered_right


def by_threshold(points: Sequence[Point]) -> tuple[frozenset[Hashable], int]:
    """The values on the lost side of the best threshold, and how many thresholds there were to choose from."""
    values = _weights(points)
    ordered = sorted(values)  # type: ignore[type-var]
    best: tuple[float, frozenset[Hashable]] = (0.0, frozenset())
    above = sum(values.values())
    for cut in range(1, len(ordered)):
        above -= values[ordered[cut - 1]]
        side = ordered[cut:] if above >= 0 else ordered[:cut]
        if abs(above) > best[0] + 1e-12:
            best = (abs(above), frozenset(side))
    return best[1], 2 * (len(ordered) - 1)


def by_range(points: Sequence[Point]) -> tuple[frozenset[Hashable], int]:
    """The values of the best range, or of all outside of one, and among how many of its length it was chosen."""
    values = _weights(points)
    ordered = sorted(values)  # type: ignore[type-var]
    inside, outside = (_heaviest([sign * values[v] for v in ordered]) for sign in (1, -1))
    # As many ranges, and gaps, have the same number of values.
    count = 2 * len(ordered)
    if inside[0] >= outside[0] - 1e-12:
        return frozenset(ordered[inside[1] : inside[2]]), count
    return frozenset([*ordered[: outside[1]], *ordered[outside[2] :]]), count


def by_class(points: Sequence[Point]) -> tuple[frozenset[Hashable], int]:
    """The values that lost packets have more often, and how many unions of values there were to choose from."""
    values = _weights(points)
    if len(values) > _CLASSES:
        return frozenset(), 1
    return frozenset(v for v, weight in values.items() if weight > 0), int(2 ** len(values)) - 2


def judge(points: Sequence[Point], side: frozenset[Hashable], alternatives: int, tries: int) -> Split | None:
    """Holds a split against chance.

    Args:
        points: the packets, in the order in which they were sent.
        side: the values on the lost side.
        alternatives: among how many splits this one was chosen as the best.
        tries: how many fields and pairs were tried beside.

    Returns:
        None where it errs too often, or chance or time may well have made it.
    """
    sides = [p.value in side for p in points]
    lost = sum(p.lost for p in points)
    delivered = len(points) - lost
    lost_right = sum(p.lost and on for p, on in zip(points, sides, strict=True))
    delivered_right = sum(not p.lost and not on for p, on in zip(points, sides, strict=True))
    if min(lost, delivered) < FEWEST or not lost_right or not delivered_right:
        return None
    if lost - lost_right > ERRS * lost or delivered - delivered_right > ERRS * delivered:
        return None
    errors = len(points) - lost_right - delivered_right
    # Each error that is allowed lets more splits fit.
    alternatives *= 1 + 2 * errors
    time = _by_time([p.lost for p in points]) if not errors else _by_turns(points, sides) * alternatives
    by_evidence: dict[Evidence, float] = {
        "within": _within_units(points, sides) * alternatives,
        "units": _by_unit(points, sides) * alternatives,
        "packets": blind_chance(len(points), sum(sides), lost, lost_right) * alternatives,
    }
    for evidence, chance in by_evidence.items():
        if max(chance, time) < CHANCE / tries:
            return Split(
                lost_values=_sorted({p.value for p in points if p.value in side}),
                delivered_values=_sorted({p.value for p in points if p.value not in side}),
                lost_right=lost_right,
                lost=lost,
                delivered_right=delivered_right,
                delivered=delivered,
                chance=max(chance, time),
                evidence=evidence,
            )
    return None


def find(points: Sequence[Point], choose: Chooser, tries: int) -> Split | None:
    """The best split of the values, if it holds."""
    if len({p.value for p in points}) < 2:
        return None
    side, alternatives = choose(points)
    return judge(points, side, alternatives, tries) if side else None


Chooser = Callable[[Sequence[Point]], tuple[frozenset[Hashable], int]]


def _weights(points: Sequence[Point]) -> dict[Hashable, float]:
    """For each value its share of the lost packets less its share of the delivered ones."""
    lost = Counter(p.value for p in points if p.lost)
    delivered = Counter(p.value for p in points if not p.lost)
    both = (max(lost.total(), 1), max(delivered.total(), 1))
    return {value: lost[value] / both[0] - delivered[value] / both[1] for value in {**lost, **delivered}}


def _heaviest(weights: Sequence[float]) -> tuple[float, int, int]:
    """The heaviest run of neighbors, as (weight, first, behind the last)."""
    best, here, first = (0.0, 0, 0), 0.0, 0
    for number, weight in enumerate(weights):
        if here <= 0:
            here, first = 0.0, number
        here += weight
        if here > best[0] + 1e-12:
            best = (here, first, number + 1)
    return best


def _sorted(values: set[Hashable]) -> tuple[Hashable, ...]:
    return tuple(sorted(values))  # type: ignore[type-var]


# --- chance -----------------------------------------------------------------------------------------------


def blind_chance(count: int, chosen: int, lost: int, both: int) -> float:
    """Fisher: how likely so many (`both`) or more of the lost are among the chosen, if they were drawn blindly."""
    ways = sum(comb(chosen, n) * comb(count - chosen, lost - n) for n in range(both, min(chosen, lost) + 1))
    return ways / comb(count, lost)


def _by_unit(points: Sequence[Point], sides: Sequence[bool]) -> float:
    """Chance, if five-tuples were lost at random as a whole; what is on both sides counts once on each."""
    packets: dict[tuple[Hashable, bool], list[bool]] = defaultdict(list)
    for point, on in zip(points, sides, strict=True):
        packets[(point.unit, on)].append(point.lost)
    outcomes = [(on, 2 * sum(losses) > len(losses)) for (_, on), losses in packets.items()]
    return _of_units(outcomes)


def _within_units(points: Sequence[Point], sides: Sequence[bool]) -> float:
    """Chance, of those packets whose five-tuple has some on either side: there nothing else of it explains the loss."""
    on_sides: dict[Hashable, set[bool]] = defaultdict(set)
    for point, on in zip(points, sides, strict=True):
        on_sides[point.unit].add(on)
    return _of_units(
        [(on, point.lost) for point, on in zip(points, sides, strict=True) if len(on_sides[point.unit]) == 2]
    )


def _by_turns(points: Sequence[Point], sides: Sequence[bool]) -> float:
    """Chance, if packets sent one after the other on one side share their fate."""
    runs: list[tuple[bool, list[bool]]] = []
    for point, on in zip(points, sides, strict=True):
        if not runs or runs[-1][0] != on:
            runs.append((on, []))
        runs[-1][1].append(point.lost)
    return _of_units([(on, 2 * sum(losses) > len(losses)) for on, losses in runs])


def _by_time(lost: Sequence[bool]) -> float:
    """Chance, of a split without error: that its changes from packet to packet fall together with those of a loss
    that comes and goes. Too few turns are no evidence at all."""
    turns = sum(one != two for one, two in pairwise(lost))
    return 1.0 if turns + 1 < TURNS else 1 / comb(len(lost) - 1, min(turns, (len(lost) - 1) // 2))


def _of_units(outcomes: Sequence[tuple[bool, bool]]) -> float:
    chosen = sum(on for on, _ in outcomes)
    lost = sum(was_lost for _, was_lost in outcomes)
    both = sum(on and was_lost for on, was_lost in outcomes)
    if not 0 < lost < len(outcomes):
        return 1.0
    return blind_chance(len(outcomes), chosen, lost, both)
