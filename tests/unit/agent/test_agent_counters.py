"""How much a queue's counters grew, also where somebody put another queue in meanwhile."""

from __future__ import annotations

import pytest

from vtrace.agent.counters import queue_growth
from vtrace.ovs.queues import DeviceQueue

OLD = DeviceQueue(kind="tbf", dropped=10, packets=100)


@pytest.mark.parametrize(
    ("before", "now", "growth"),
    [
        (OLD, DeviceQueue(kind="tbf", dropped=12, packets=130), (2, 30)),
        (OLD, DeviceQueue(kind="htb", dropped=12, packets=130), (12, 130)),
        (OLD, DeviceQueue(kind="tbf", dropped=0, packets=3), (0, 3)),
        (None, DeviceQueue(kind="tbf", dropped=4, packets=5), (4, 5)),
        (OLD, None, (0, 0)),
    ],
    ids=["the same", "of another kind", "made anew", "made meanwhile", "gone"],
)
def test_growth(before: DeviceQueue | None, now: DeviceQueue | None, growth: tuple[int, int]) -> None:
    assert queue_growth(before, now) == growth
