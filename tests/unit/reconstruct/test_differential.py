"""The kernel against the plain Python it replaced: the same for any records, also such as no agent would write."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
import reference_plain
from builders import DB, GW, HV1, HV2, PROPERTY, R1, WEB, WEB2, Recorder
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from test_splitting import DISTINCT_WAYS, FLOOD, WAYS, flooded

from vtrace.model.record import LogRecord, Point
from vtrace.model.record_schema import to_table
from vtrace.reconstruct import whole
from vtrace.reconstruct.schema import Goal

Way = Callable[[Recorder], None]
ALL: tuple[Way, ...] = (*WAYS, *DISTINCT_WAYS, flooded, flooded)
GOALS = {("t1", 0): Goal(datapath=WEB, key=WEB2, chassis=HV2)}
CHASSIS = (HV1, HV2, GW)


def woven(draw: random.Random, keys: Sequence[Sequence[Way]]) -> list[LogRecord]:
    """Packets of several keys at once, in the order in which their servers wrote them."""
    walks = []
    for key, ways in enumerate(keys, start=1):
        for way in ways:
            log = Recorder()
            way(log)
            walks.append([replace(r, key=key) for r in log.records])
    found, count = [], dict.fromkeys(CHASSIS, 0)
    while any(walks):
        record = draw.choice([walk for walk in walks if walk]).pop(0)
        count[record.chassis] += 1
        found.append(replace(record, seq=count[record.chassis], mono_ns=len(found) * 1_000_000))
    return found


def garbled(draw: random.Random, record: LogRecord) -> LogRecord:
    """A record that says something else than it did."""
    field = draw.choice(["point", "peer", "datapath", "ttl", "in_key", "out_key", "sport", "src", "dst", "incarnation"])
    values: dict[str, Sequence[object]] = {
        "point": [p for p in Point if p != Point.FIRST_HOP],
        "peer": ["", *CHASSIS],
        "datapath": [WEB, DB, R1, 1 << 24],
        "ttl": [1, 62, 63, 64],
        "in_key": [0, 1, 7],
        "out_key": [0, 2, 7, FLOOD],
        "sport": [0, 80, 4000],
        "src": ["10.0.1.1", "10.9.9.9"],
        "dst": ["10.0.1.2", "10.9.9.9"],
        "incarnation": [1, 2],
    }
    return replace(record, **{field: draw.choice(values[field])})


def check(records: Sequence[LogRecord], draw: random.Random) -> None:
    mixed = [*records, *(draw.choice(records) for _ in range(draw.randrange(4)) if records)]
    draw.shuffle(mixed)
    wanted = reference_plain.reconstruct(to_table(records), GOALS)
    found = whole.reconstruct(to_table(mixed), GOALS)
    assert found.unclaimed == wanted.unclaimed
    assert found.records.equals(wanted.records)
    for name in wanted.packets.column_names:
        assert found.packets.column(name).to_pylist() == wanted.packets.column(name).to_pylist(), name
    assert found.paths.equals(wanted.paths)


@PROPERTY
@given(
    keys=st.lists(st.lists(st.sampled_from(ALL), min_size=1, max_size=4), max_size=8),
    seed=st.integers(0, 1 << 30),
    lose=st.sampled_from([0, 0, 0.1, 0.5]),
)
def test_the_same_for_what_agents_write(keys: list[list[Way]], seed: int, lose: float) -> None:
    draw = random.Random(seed)
    check([r for r in woven(draw, keys) if draw.random() >= lose], draw)


@PROPERTY
@given(
    keys=st.lists(st.lists(st.sampled_from(ALL), min_size=1, max_size=3), max_size=5),
    seed=st.integers(0, 1 << 30),
    share=st.sampled_from([0.05, 0.3, 1]),
)
def test_the_same_for_what_no_agent_would_write(keys: list[list[Way]], seed: int, share: float) -> None:
    draw = random.Random(seed)
    check([garbled(draw, r) if draw.random() < share else r for r in woven(draw, keys)], draw)


@pytest.mark.parametrize("way", [flooded, *WAYS], ids=lambda way: way.__name__)
def test_the_same_for_many_packets_of_one_shape(way: Way) -> None:
    """All but the first are put in order as the one before was."""
    draw = random.Random(1)
    check(woven(draw, [[way]] * 30 + [[way, way]] * 3 + [[way]] * 5), draw)
