"""Fast pairs are colored in pulses: which of their packets count is told by their first hops alone."""

from __future__ import annotations

import pytest
from builders import CLAIM, HV1, HV2, WEB, Recorder
from msgspec.structs import replace

from vtrace.analyzer.pulses import (
    BEYOND,
    COPIES,
    ENOUGH_WHOLE,
    PULSE_S,
    REST_S,
    SHARE,
    Allowed,
    Counted,
    Pulses,
    cuts_of_counted,
)
from vtrace.model.record import LogRecord, Point
from vtrace.model.record_schema import to_table
from vtrace.reconstruct.whole import reconstruct

ALLOWED = Allowed(first=25, copies=50, first_pps=1000, copies_pps=3000)
AT_ONCE = int(ALLOWED.copies * SHARE // COPIES)


def first(log: Recorder, number: int, at_s: float, pair: int = 0) -> LogRecord:
    return replace(log.write(HV1, Point.FIRST_HOP, WEB, number, pair=pair), mono_ns=int(at_s * 1e9))


def send(pulses: Pulses, count: int, rate_pps: float, *, since_s: float = 100.0, pair: int = 0) -> list[bool]:
    """Of which of so many packets it is sure that they count."""
    log = Recorder()
    times = [since_s + number / rate_pps for number in range(count)]
    found = [pulses.take(first(log, number, at_s, pair), at_s) for number, at_s in enumerate(times)]
    return [one is Counted.YES for one in found]


def suspect(pulses: Pulses, pair: int = 0) -> None:
    send(pulses, AT_ONCE + BEYOND, 10_000, pair=pair)
    assert pulses.must_rest(pair)
    assert pulses.is_suspected(pair)


def make_fast(pulses: Pulses, pair: int = 0) -> None:
    suspect(pulses, pair)
    pulses.confirm(pair)
    assert not pulses.is_suspected(pair)


def started(**changed: int) -> Pulses:
    pulses = Pulses()
    pulses.start(replace(ALLOWED, **changed))
    return pulses


def test_all_packets_of_a_slow_pair_count() -> None:
    pulses = started()
    assert all(send(pulses, 300, ALLOWED.copies_pps * SHARE / COPIES))
    assert not pulses.must_rest(0)
    assert pulses.beyond == 0


def test_of_a_fast_pair_the_first_few_count() -> None:
    pulses = started()
    found = send(pulses, 200, 10_000)
    assert found == [True] * AT_ONCE + [False] * (200 - AT_ONCE)
    assert pulses.beyond == 0, "as far as is known it may not be fast"
    assert pulses.must_rest(0)
    pulses.confirm(0)
    assert pulses.beyond == 200 - AT_ONCE


def test_a_pair_of_which_no_copy_was_cut_is_not_fast() -> None:
    pulses = started()
    suspect(pulses)
    assert pulses.next(200.0) is None, "it is not known yet"
    pulses.clear(0)
    assert (pulses.beyond, pulses.is_suspected(0), pulses.next(200.0)) == (0, False, None)
    # It looks fast again: next time it takes twice as many.
    send(pulses, AT_ONCE + BEYOND, 10_000, since_s=200.0)
    assert not pulses.must_rest(0)
    send(pulses, BEYOND, 10_000, since_s=200.002)
    assert pulses.must_rest(0)


def test_the_meters_with_least_room_decide() -> None:
    least = Allowed.by([CLAIM, replace(CLAIM, first_burst=2, copy_rate_pps=100)])
    assert least == Allowed(first=2, copies=CLAIM.copy_burst, first_pps=CLAIM.first_rate_pps, copies_pps=100)
    found = send(started(first=2), 20, 10_000)
    assert sum(found) == 1, "of two at once three quarters are counted on"


def test_one_packet_counts_where_the_meters_hold_less_than_its_copies() -> None:
    found = send(started(copies=2), 20, 10_000)
    assert found == [True] + [False] * 19


def test_where_packets_make_fewer_copies_more_of_them_count() -> None:
    pulses, log = started(), Recorder()
    log.switched(1)
    pulses.learn(0, [log.records])
    assert sum(send(pulses, 200, 1e6)) == ALLOWED.first * SHARE // 1, "two copies each: the first meter decides"


def test_fragments_with_one_key_are_colored_each_for_itself() -> None:
    pulses, log = started(), Recorder()
    for _ in range(3):
        log.switched(1)
    pulses.learn(0, [log.records])
    assert sum(send(pulses, 200, 1e6)) == ALLOWED.first * SHARE // 1, "two copies each, as of whole packets"


def test_a_fast_pair_rests_until_nothing_came_for_a_while() -> None:
    pulses = started()
    make_fast(pulses)
    last_s = 100.0 + (AT_ONCE + BEYOND - 1) / 10_000
    assert pulses.next(last_s + REST_S / 2) is None
    assert pulses.next(last_s + 2 * REST_S) == 0
    assert pulses.next(last_s + 9) is None, "it is colored already"
    assert sum(send(pulses, 50, 10_000, since_s=last_s + 2 * REST_S)) == AT_ONCE
    assert pulses.must_rest(0)
    assert not pulses.must_rest(0), "once"
    assert not pulses.is_suspected(0), "that is known"


def test_after_a_pause_packets_count_again() -> None:
    pulses = started()
    send(pulses, AT_ONCE + BEYOND - 1, 10_000)
    send(pulses, 1, 1.0, since_s=100.1)
    assert not pulses.must_rest(0)


def test_what_is_colored_while_coloring_is_being_stopped_does_not_count() -> None:
    pulses = started()
    make_fast(pulses)
    before = pulses.beyond
    assert send(pulses, 3, 1.0, since_s=200.0) == [False] * 3
    assert pulses.beyond == before + 3


def test_fast_pairs_take_turns() -> None:
    pulses = started()
    for pair in (0, 1):
        make_fast(pulses, pair)
    assert pulses.next(101.0) == 0
    assert pulses.next(101.0) is None
    assert pulses.overdue(101.0 + PULSE_S / 2) is None
    assert pulses.overdue(101.0 + PULSE_S) == 0, "it sends nothing, and another waits"
    assert pulses.next(102.0) == 1
    pulses.done(1)
    assert pulses.next(103.0) == 0
    assert pulses.overdue(200.0) is None, "nobody waits"


@pytest.mark.parametrize("cut_at", [HV1, HV2])
def test_cut_copies_are_those_that_packets_lack_that_arrived(cut_at: str) -> None:
    log = Recorder()
    for key in range(ENOUGH_WHOLE + 1):
        log.routed(key)
    lacks = {HV1: Point.REMOTE_OUTPUT, HV2: Point.INGRESS}[cut_at]
    records = [record for record in log.records if (record.key, record.point) != (0, lacks)]
    found = reconstruct(to_table(records))
    assert found.packets.column("gap").to_pylist().count(True) == 1
    other = HV2 if cut_at == HV1 else HV1
    assert cuts_of_counted({HV1: 1000, HV2: 2000}, found) == {cut_at: 1, other: 0}


def test_too_few_packets_that_arrived_tell_nothing() -> None:
    log = Recorder()
    for key in range(ENOUGH_WHOLE - 1):
        log.routed(key)
    assert cuts_of_counted({HV1: 1000, HV2: 2000}, reconstruct(to_table(log.records))) == {HV1: 1000, HV2: 2000}
