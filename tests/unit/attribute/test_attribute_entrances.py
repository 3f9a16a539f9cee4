"""Packets of a pair that came in by several servers: in which order, and what that says of its losses."""

from __future__ import annotations

import pytest
from builders import GW, HV1, HV2, WEB, WEB1, Recorder, case

from vtrace.attribute.verdicts import attribute
from vtrace.model.record import Point


class Entrances:
    """Writes packets that come in somewhere and go to web2 on hv2, or get lost at once."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self._key = 0

    def packets(self, count: int, chassis: str, *, epoch: int, lost: bool = False, sport: int = 1000) -> None:
        self.recorder.epoch = epoch
        for _ in range(count):
            self._key += 1
            self.recorder.write(chassis, Point.FIRST_HOP, WEB, self._key, pair=0, in_key=WEB1, ttl=64, sport=sport)
            if not lost:
                self.recorder.sent(self._key, chassis, sport=sport)
                self.recorder.came(self._key, sender=chassis, sport=sport)
                self.recorder.out(self._key, sport=sport)

    def pattern(self) -> str | None:
        return attribute(case(self.recorder.records, covered=(GW, HV1, HV2))).pattern


@pytest.mark.parametrize(("old", "new"), [(GW, HV1), (HV1, GW)], ids=["by name", "against it"])
def test_what_a_gateway_lost_before_its_flow_changed_over_has_passed(old: str, new: str) -> None:
    seen = Entrances()
    seen.packets(8, old, epoch=1)
    seen.packets(40, old, epoch=2, lost=True)
    seen.packets(100, new, epoch=2)
    assert seen.pattern() == "transient"


def test_what_changed_over_just_now_may_come_again() -> None:
    seen = Entrances()
    seen.packets(8, GW, epoch=1)
    seen.packets(40, GW, epoch=2, lost=True)
    seen.packets(19, HV1, epoch=2)
    assert seen.pattern() == "unclear"


def test_a_gateway_that_loses_all_beside_another_loses_for_good() -> None:
    seen = Entrances()
    seen.packets(40, GW, epoch=1, lost=True)
    seen.packets(100, HV1, epoch=1)
    assert seen.pattern() == "persistent"


def test_flows_that_stay_have_not_changed_over() -> None:
    seen = Entrances()
    seen.packets(8, GW, epoch=1, sport=1000)
    seen.packets(40, GW, epoch=2, lost=True, sport=1000)
    seen.packets(100, HV1, epoch=2, sport=2000)
    assert seen.pattern() == "persistent"


def test_what_is_lost_back_at_the_first_server_came_last() -> None:
    seen = Entrances()
    seen.packets(30, GW, epoch=1)
    seen.packets(30, HV1, epoch=2)
    seen.packets(30, GW, epoch=3, lost=True)
    assert seen.pattern() == "unclear"
