"""Losses by a rate limit, and losses that only look like it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import losing
import pytest
from losing import fields, lose, packet, said
from msgspec.structs import replace

from vtrace.attribute.policing import Sent, limit

CHANCE = 1e-4


def passes(times_s: Sequence[float], rate_pps: float, depth: float) -> list[bool]:
    """Which packets a token bucket lets through, that is full at first."""
    level, before_s, found = depth, times_s[0], []
    for at_s in times_s:
        level = min(depth, level + (at_s - before_s) * rate_pps)
        before_s = at_s
        found.append(level >= 1)
        level -= level >= 1
    return found


def sent(times_s: Sequence[float], lost: Sequence[bool], like: int = 0) -> list[Sent]:
    return [Sent(at_ns=int(t * 1e9), like=like, lost=was) for t, was in zip(times_s, lost, strict=True)]


def policed(times_s: Sequence[float], rate_pps: float, depth: float) -> list[Sent]:
    return sent(times_s, [not passed for passed in passes(times_s, rate_pps, depth)])


def bursts(count: int = 10, length: int = 10) -> list[float]:
    return [0.1 * n + 0.001 * m for n in range(count) for m in range(length)]


def jittery(seed: int, count: int = 100, rate_pps: float = 100) -> list[float]:
    draw, times_s = random.Random(seed), [0.0]
    while len(times_s) < count:
        times_s.append(times_s[-1] + draw.expovariate(rate_pps))
    return times_s


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_bursts_that_a_bucket_cuts(depth: int) -> None:
    found = limit(policed(bursts(), 40, depth), known=False, chance=CHANCE)
    assert found is not None
    assert 20 <= found.passed_pps <= 60
    assert 95 <= found.sent_pps <= 120


@pytest.mark.parametrize("seed", range(20))
def test_packets_that_come_by_chance(seed: int) -> None:
    assert limit(policed(jittery(seed), 40, 2), known=False, chance=CHANCE) is not None


def test_some_thousand_packets() -> None:
    assert limit(policed(jittery(1, 3000), 40, 2), known=False, chance=CHANCE) is not None


def test_no_limit_is_told_by_chance() -> None:
    wrong = []
    for seed in range(150):
        draw = random.Random(seed)
        share = draw.uniform(0.1, 0.9)
        times_s = draw.choice([bursts(), jittery(seed), [0.01 * n for n in range(200)]])
        if limit(sent(times_s, [draw.random() < share for _ in times_s]), known=False, chance=CHANCE):
            wrong.append(seed)
    assert wrong == []


def test_each_third_is_a_matter_of_counting() -> None:
    times_s = [n / 300 for n in range(300)]
    each_third = sent(times_s, [n % 3 == 2 for n in range(300)])
    assert limit(each_third, known=False, chance=CHANCE) is None
    found = limit(each_third, known=True, chance=CHANCE)
    assert found is not None
    assert (round(found.passed_pps), round(found.sent_pps)) == (200, 300)


def test_one_of_three_connections_is_no_matter_of_rate() -> None:
    times_s = [n / 300 for n in range(300)]
    lost = [replace(p, like=n % 3, lost=n % 3 == 2) for n, p in enumerate(sent(times_s, [False] * 300))]
    assert limit(lost, known=True, chance=CHANCE) is None


def test_too_few() -> None:
    assert limit([], known=True, chance=CHANCE) is None
    assert limit(policed(bursts(2), 40, 3), known=True, chance=CHANCE) is None


def test_a_limit_in_words() -> None:
    packets = [replace(packet(n), at_ns=int(n * 1e9 / 300)) for n in range(300)]
    (found,) = said(lose(packets, [n % 3 != 0 for n in range(300)], "qos_rate_limit"))
    assert (found.field, found.lost, found.delivered) == ("rate", "above 100 packets/s", "about 100 packets/s")
    assert found.text == "about 100 of 300 packets a second pass: those that follow too soon on others are lost"
    assert fields(lose(packets, [n % 3 != 0 for n in range(300)], "acl_drop")) == []


def test_a_limit_that_nobody_named() -> None:
    times_s = bursts(20)
    packets = [replace(packet(n), at_ns=int(t * 1e9)) for n, t in enumerate(times_s)]
    lost = [not passed for passed in passes(times_s, 40, 3)]
    assert fields(lose(packets, lost, "unknown")) == ["rate"]
    assert fields(lose(packets, losing.at_random(random.Random(1), packets), "unknown")) == []
