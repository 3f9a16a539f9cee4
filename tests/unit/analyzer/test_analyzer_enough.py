"""When a task with several pairs has seen enough."""

from __future__ import annotations

import pytest
from builders import HV1, HV2, INVENTORY, WEB, WEB1, WEB2, Recorder, pair
from msgspec.structs import replace

from vtrace.analyzer.enough import ONE_ENDING_S, SAME_ENDING_S, Enough
from vtrace.analyzer.follow import LOST_AFTER_S, Followed, Follower
from vtrace.analyzer.neighbors import UNANSWERED_S, Neighbors
from vtrace.collect.link import NeighborSeen
from vtrace.model.record import LogRecord, Point
from vtrace.model.task import Direction, Pair, TrafficFilter

FORWARD, REPLY = pair(), pair("web2", "web1", index=1, direction=Direction.REPLY)
SOON_S = 0.5


class Shown:
    """A slow path that shows a cause for every packet of some pairs, and what keeps others from being colored."""

    def __init__(self, *, causes: tuple[int, ...] = (), kept: tuple[int, ...] = ()) -> None:
        self.causes, self.kept = causes, kept

    def cause_shown(self, pair: int, packet: Followed) -> bool:
        return pair in self.causes

    def kept_from_color(self, pair: int) -> bool:
        return pair in self.kept


class Run:
    """A task of some pairs, N = 3."""

    def __init__(
        self, *pairs: Pair, both: bool = True, shown: Shown | None = None, waiting: tuple[int, ...] = ()
    ) -> None:
        self.pairs = pairs
        self.follow = Follower(pairs, INVENTORY, 3)
        self.neighbors = Neighbors(pairs, INVENTORY)
        self.stopped: set[int] = set()
        self.enough = Enough(
            pairs, self.follow, shown or Shown(), self.neighbors, stopped=self.stopped, waiting=waiting, both=both
        )

    def take(self, records: list[LogRecord], at_s: float = 0.0) -> None:
        for record in records:
            self.follow.add(record, at_s)
        self.stopped.update(p.index for p in self.pairs if self.follow.has_enough(p.index))

    def at(self, now_s: float) -> list[int]:
        """The pairs that have enough."""
        return [p.index for p in self.pairs if self.enough.pair(p.index, now_s)]


def delivered(*keys: int) -> list[LogRecord]:
    log = Recorder()
    for key in keys:
        log.switched(key)
    return log.records


def lost(*keys: int) -> list[LogRecord]:
    log = Recorder()
    for key in keys:
        log.first(key)
    return log.records


def answers(*keys: int) -> list[LogRecord]:
    """Packets of the reply from web2 to web1."""
    log = Recorder(epoch=2)
    for key in keys:
        log.write(HV2, Point.FIRST_HOP, WEB, key, pair=1, in_key=WEB2, src="10.0.1.2", dst="10.0.1.1")
        log.write(HV1, Point.EGRESS, WEB, key, in_key=WEB2, out_key=WEB1, src="10.0.1.2", dst="10.0.1.1")
    return log.records


def test_a_silent_pair_is_waited_for() -> None:
    run = Run(FORWARD, pair("web1", "db1", index=1))
    run.take(delivered(1, 2, 3))
    assert run.at(99.0) == [0]


def test_nothing_is_lost_in_the_reply_to_packets_that_did_not_arrive() -> None:
    run = Run(FORWARD, REPLY)
    run.take(lost(1, 2, 3))
    assert run.at(SOON_S) == []
    assert run.at(LOST_AFTER_S) == [0, 1]


def test_a_connection_that_only_repeats_its_syn_is_answered_in_both_directions() -> None:
    run = Run(FORWARD, REPLY, shown=Shown(causes=(0,)))
    run.take(lost(1))
    assert run.at(ONE_ENDING_S - 0.1) == []
    assert run.at(ONE_ENDING_S) == [0, 1]


def test_a_guest_has_a_while_to_answer() -> None:
    run = Run(FORWARD, REPLY)
    run.take(delivered(1, 2, 3))
    assert run.at(SAME_ENDING_S - 0.1) == [0]
    assert run.at(SAME_ENDING_S) == [0, 1]


def test_a_reply_that_came_is_waited_for_to_its_n() -> None:
    run = Run(FORWARD, REPLY)
    run.take(delivered(1, 2, 3))
    run.take(answers(7, 8))
    assert run.at(99.0) == [0]
    run.take(answers(9))
    assert run.at(99.0) == [0, 1]


def test_a_reply_without_its_forward_direction_is_a_source_like_any() -> None:
    run = Run(REPLY, both=False)
    assert run.at(99.0) == []


def test_between_vms_on_both_sides_the_ones_forward_direction_is_the_others_reply() -> None:
    pairs = FORWARD, pair("web2", "web1", index=1)
    run = Run(*pairs)
    run.take(lost(1, 2, 3))
    assert run.at(LOST_AFTER_S) == [0, 1]
    alone = Run(*pairs, both=False)
    alone.take(lost(1, 2, 3))
    assert alone.at(99.0) == [0]


def test_with_a_port_named_each_direction_is_one_of_its_own() -> None:
    web = TrafficFilter(proto="tcp", dport=80)
    pairs = [replace(p, traffic=web) for p in (FORWARD, REPLY)]
    other = [replace(p, index=p.index + 2, source=p.destination, destination=p.source) for p in pairs]
    run = Run(*pairs, *other)
    run.take(lost(1, 2, 3))
    # web2 may still send to port 80 of web1, which is neither of the first two.
    assert run.at(99.0) == [0, 1]


def test_what_is_kept_from_being_colored_is_not_waited_for() -> None:
    run = Run(FORWARD, pair("web1", "db1", index=1), shown=Shown(kept=(1,)))
    assert run.at(0.1) == [1]


# --- neighbors -----------------------------------------------------------------------------------------------

TO_WEB2, TO_DB1 = pair(), pair("web1", "db1", index=1)


def seen(target: str, operation: int = 1, *, at_s: float = 0.0, sender: str = "10.0.1.1") -> NeighborSeen:
    return NeighborSeen(
        chassis=HV1,
        datapath=WEB,
        key=WEB1,
        operation=operation,
        sender_ip=sender,
        target_ip=target,
        eth_src=1,
        mono_ns=int(at_s * 1e9),
    )


@pytest.mark.parametrize(
    ("target", "pairs"),
    [("10.0.1.2", [0]), ("10.0.2.1", [1]), ("10.0.1.254", [1])],
    ids=["its own switch", "the other", "a router"],
)
def test_whom_a_source_asks_for_matters_to_the_pairs_that_need_it(target: str, pairs: list[int]) -> None:
    neighbors = Neighbors([TO_WEB2, TO_DB1], INVENTORY)
    for second in range(3):
        neighbors.take(seen(target, at_s=second))
    assert sorted(neighbors.unanswered()) == pairs
    assert [index for index in (0, 1) if neighbors.stays_unanswered(index, UNANSWERED_S)] == pairs
    assert [(w.pair, w.target, w.requests, w.answers) for w in neighbors.watches()] == [
        (index, target, 3, 0) for index in pairs
    ]


def test_an_answer_about_another_address_answers_nothing() -> None:
    neighbors = Neighbors([TO_WEB2, TO_DB1], INVENTORY)
    for second in range(3):
        neighbors.take(seen("10.0.1.2", at_s=second))
    neighbors.take(seen("10.0.1.1", 2, sender="10.0.1.254"))
    assert neighbors.stays_unanswered(0, 9.0)
    neighbors.take(seen("10.0.1.1", 2, sender="10.0.1.2"))
    assert not neighbors.stays_unanswered(0, 9.0)


def test_what_another_port_asks_is_not_the_sources() -> None:
    neighbors = Neighbors([TO_WEB2], INVENTORY)
    neighbors.take(replace(seen("10.0.1.2"), key=WEB2))
    assert not neighbors.watches()


def test_a_pair_whose_turn_has_not_come_is_waited_for() -> None:
    run = Run(FORWARD, REPLY, waiting=(1,))
    run.take(lost(1, 2, 3))
    assert run.at(99.0) == [0]
