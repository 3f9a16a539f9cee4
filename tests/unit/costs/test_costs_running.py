"""A probe's packets in the slices they were sent in; tasks; calls in the busiest second."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import cast

import pytest

from vtrace.costs import agent, running, setting
from vtrace.costs.children import Stream, probed
from vtrace.costs.running import Slice
from vtrace.costs.stream import PROBED


class Kept:
    """A probe that has ended: its file."""

    def __init__(self, path: Path, packets: list[tuple[int, int, int]]) -> None:
        self.path = path
        path.write_bytes(b"".join(PROBED.pack(*packet) for packet in packets) + bytes(PROBED.size * 3))


def slices(*ends: tuple[int, int]) -> list[Slice]:
    return [
        Slice(
            label="A", began_ns=began, ended_ns=ended, packets=0, size_bytes=0, background=0, forwarding_ns=(0, 0),
            holder_ns=0, before={}, after={}, colored=0,
        )
        for began, ended in ends
    ]  # fmt: skip


def test_packets_belong_to_the_slice_they_were_sent_in(tmp_path: Path) -> None:
    packets = [
        (50, 60, 1),  # before the first slice: nobody's
        (100, 4100, 2),
        (199, 0, 0),  # lost in the first
        (200, 5200, 3),  # between
        (250, 0, 0),  # lost between
        (300, 2300, 5),
        (310, 3310, 4),  # came back before the one that was sent before it
        (399, 1399, 6),
        (400, 500, 7),  # after the last
    ]
    stream = cast(Stream, Kept(tmp_path / "probe", packets))
    assert probed(stream.path) == packets
    found, between = running.trips(stream, slices((100, 200), (300, 400)))
    assert [(t.sent, t.lost, t.overtaken) for t in found] == [(2, 1, 0), (3, 0, 1)]
    assert found[0].times_us == (4.0,)
    assert found[1].times_us == (2.0, 3.0, 1.0)
    assert (between.sent, between.lost) == (2, 1)


@pytest.mark.parametrize(("asked", "tasks", "pairs"), [(1, 1, 1), (10, 10, 10), (16, 16, 16), (100, 16, 100)])
def test_tasks_are_as_many_pairs_as_asked_for(asked: int, tasks: int, pairs: int) -> None:
    found = setting.tasks(asked)
    ways = [(s, d, one.dport) for one in found for s, d in itertools.product(one.sources, one.destinations)]
    assert (len(found), len(ways), len(set(ways))) == (tasks, pairs, pairs)


def test_more_pairs_than_there_are_places_are_refused() -> None:
    with pytest.raises(ValueError, match="more than this lab has"):
        setting.tasks(1000)


@pytest.mark.parametrize(
    ("times", "most"), [([], 0), ([1.0], 1), ([0.0, 0.9, 1.0], 2), ([5.0, 0.5, 0.1, 1.05, 1.6], 3), ([2.0] * 4, 4)]
)
def test_the_busiest_second(times: list[float], most: int) -> None:
    assert agent.busiest(times) == most


def test_an_idle_agent_loads_nothing_heavy() -> None:
    assert agent.loaded() == ()
