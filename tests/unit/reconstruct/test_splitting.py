"""Several packets with one key: NAT and backends, two paths, losses, gateways that took over, copies."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from builders import DB, DB1, GW, HV1, HV2, PROPERTY, R1, R1_DB, R1_WEB, TO_ROUTER, WEB, WEB1, WEB2, Recorder
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from reference_chaining import chain

from vtrace.model.record import LogRecord, Point
from vtrace.model.record_schema import from_table, to_table
from vtrace.reconstruct.schema import Goal, Reconstruction

Implementation = Callable[..., Reconstruction]
Place = tuple[str, int, int]
MS = 1_000_000
CLIENT, OTHER, VIP = "10.0.1.1", "10.0.1.9", "10.0.9.9"
BACKENDS = {HV2: "10.0.2.1", GW: "10.0.2.2"}
FLOOD = 0x8000
BROADCAST = 0xFFFF_FFFF_FFFF


def run(implementation: Implementation, records: Iterable[LogRecord], **goals: Goal) -> Reconstruction:
    return implementation(to_table(records), {("t1", int(pair[1:])): goal for pair, goal in goals.items()})


def packets(found: Reconstruction) -> list[dict[str, Any]]:
    return found.packets.to_pylist()


def hops(found: Reconstruction, row: dict[str, Any], column: str = "hops") -> list[LogRecord]:
    records = from_table(found.records)
    return [records[number] for number in row[column]]


def place(record: LogRecord) -> Place:
    return record.chassis, record.point, record.datapath


def places(found: Reconstruction) -> list[tuple[Place, ...]]:
    return sorted(tuple(place(r) for r in hops(found, row)) for row in packets(found))


# --- ways of a packet -------------------------------------------------------------------------------------


def switched(log: Recorder) -> None:
    log.switched(1)


def routed(log: Recorder) -> None:
    log.routed(1)


def hairpin(log: Recorder) -> None:
    log.hairpin(1)


def by_gateway(log: Recorder) -> None:
    """To db1 by the gateway's router (ECMP), the gateway being reached from the switch."""
    log.first(1)
    log.sent(1, HV1, GW, out_key=TO_ROUTER)
    log.came(1, GW, HV1)
    log.passed(1, GW, WEB, WEB1, TO_ROUTER)
    log.passed(1, GW, R1, R1_WEB, R1_DB, 63)
    log.sent(1, GW, HV2, DB, in_key=TO_ROUTER, out_key=DB1, ttl=63)
    log.came(1, HV2, GW, DB, ttl=63)
    log.out(1, HV2, DB, in_key=TO_ROUTER, out_key=DB1, ttl=63)


def balanced(log: Recorder, backend: str, client: str = CLIENT) -> None:
    """To a VIP; the switch of the client takes a backend behind the router, on that chassis."""
    before: dict[str, Any] = {"src": client, "dst": VIP, "sport": 4000, "dport": 80}
    after = before | {"dst": BACKENDS[backend], "dport": 8080}
    log.write(HV1, Point.FIRST_HOP, WEB, 1, pair=0, in_key=WEB1, in_ofport=5, ttl=64, **before)
    log.write(HV1, Point.LOGICAL_EGRESS, WEB, 1, in_key=WEB1, out_key=TO_ROUTER, ttl=64, **after)
    log.write(HV1, Point.LOGICAL_EGRESS, R1, 1, in_key=R1_WEB, out_key=R1_DB, ttl=63, **after)
    out_key = DB1 if backend == HV2 else DB1 + 1
    log.sent(1, HV1, backend, DB, in_key=TO_ROUTER, out_key=out_key, ttl=63, **after)
    log.came(1, backend, HV1, DB, ttl=63, **after)
    log.out(1, backend, DB, in_key=TO_ROUTER, out_key=out_key, ttl=63, **after)


def to_one(log: Recorder) -> None:
    balanced(log, HV2)


def to_other(log: Recorder) -> None:
    balanced(log, GW)


def floated(log: Recorder) -> None:
    """From outside to a floating IP: the gateway's router translates and sends to the VM's chassis."""
    before: dict[str, Any] = {"src": "192.0.2.77", "dst": "192.0.2.1"}
    after = before | {"dst": "10.0.2.1"}
    log.write(GW, Point.FIRST_HOP, WEB, 1, pair=0, in_key=9, in_ofport=9, ttl=64, **before)
    log.write(GW, Point.LOGICAL_EGRESS, WEB, 1, in_key=9, out_key=TO_ROUTER, ttl=64, **before)
    log.write(GW, Point.LOGICAL_EGRESS, R1, 1, in_key=R1_WEB, out_key=R1_DB, ttl=63, **after)
    log.sent(1, GW, HV2, DB, in_key=TO_ROUTER, out_key=DB1, ttl=63, **after)
    log.came(1, HV2, GW, DB, ttl=63, **after)
    log.out(1, HV2, DB, in_key=TO_ROUTER, out_key=DB1, ttl=63, **after)


def flooded(log: Recorder) -> None:
    """A broadcast on hv1's switch: a port there, the router, and a port on each of two other chassis."""
    frame: dict[str, Any] = {"eth_dst": BROADCAST, "dst": "10.0.1.255"}
    log.write(HV1, Point.FIRST_HOP, WEB, 1, pair=0, in_key=WEB1, in_ofport=5, ttl=64, **frame)
    log.write(HV1, Point.REMOTE_OUTPUT, WEB, 1, in_key=WEB1, out_key=FLOOD, ttl=64, **frame)
    log.out(1, HV1, out_key=7, **frame)
    log.write(HV1, Point.LOGICAL_EGRESS, WEB, 1, in_key=WEB1, out_key=TO_ROUTER, ttl=64, **frame)
    for chassis, keys in ((HV2, (WEB2, WEB2 + 9)), (GW, (8,))):
        log.came(1, chassis, HV1, **frame)
        for key in keys:
            log.out(1, chassis, out_key=key, **frame)


WAYS: tuple[Callable[[Recorder], None], ...] = (switched, routed, hairpin, by_gateway, to_one, to_other, floated)
# Without those that are at one place in one state and part there: which went on which way nobody can tell.
DISTINCT_WAYS = (switched, routed, to_one, to_other, floated)


def walked(ways: Sequence[Callable[[Recorder], None]], seed: int | None = None) -> list[LogRecord]:
    """The records of packets of one key. With a seed those of packets at once, as their servers wrote them."""
    walks = []
    for way in ways:
        log = Recorder()
        way(log)
        walks.append(log.records)
    if seed is None:
        merged = [record for walk in walks for record in walk]
    else:
        draw, merged = random.Random(seed), []
        while any(walks):
            merged.append(draw.choice([walk for walk in walks if walk]).pop(0))
    count: Counter[str] = Counter()
    found = []
    for record in merged:
        count[record.chassis] += 1
        found.append(replace(record, seq=count[record.chassis], mono_ns=len(found) * MS))
    return found


def way_places(way: Callable[[Recorder], None]) -> tuple[Place, ...]:
    return tuple(place(record) for record in walked([way]))


def is_part(part: Sequence[Place], whole: Sequence[Place]) -> bool:
    """Whether it is the whole with some left out."""
    return not Counter(part) - Counter(whole)


# --- cases by hand ----------------------------------------------------------------------------------------


def test_two_equal_packets_to_two_backends(implementation: Implementation) -> None:
    found = run(implementation, walked([to_one, to_other]))
    assert places(found) == sorted([way_places(to_one), way_places(to_other)])
    assert {row["disposition"] for row in packets(found)} == {"egress"}
    for row in packets(found):
        after = {(r.dst, r.dport) for r in hops(found, row)[1:]}
        assert len(after) == 1, "one packet has one backend"


def test_a_packet_to_one_backend_is_lost_and_its_like_to_another_is_not(implementation: Implementation) -> None:
    records = [r for r in walked([to_one, to_other]) if r.chassis != HV2]
    found = run(implementation, records)
    assert {row["disposition"]: hops(found, row)[-1].dst for row in packets(found)} == {
        "sent": BACKENDS[HV2],
        "egress": BACKENDS[GW],
    }


def test_like_packets_of_two_clients_to_one_vip(implementation: Implementation) -> None:
    log = Recorder()
    balanced(log, HV2)
    balanced(log, GW, OTHER)
    found = run(implementation, log.records)
    for row in packets(found):
        assert len({r.src for r in hops(found, row)}) == 1
        assert len(row["hops"]) == 6


@pytest.mark.parametrize("lost", [(1, 3, 5, 7, 9), (0, 1, 2), (7, 8, 9), (4,), ()], ids=str)
def test_which_of_equal_packets_were_lost_between_servers(
    implementation: Implementation, lost: tuple[int, ...]
) -> None:
    """The receiver's clock is another: the pauses say which came, to the pattern of the loss."""
    log = Recorder()
    for number in range(10):
        at = number * 10 * MS
        log.first(1)
        log.sent(1, mono_ns=at + number % 3 * MS)
        if number not in lost:
            log.came(1, mono_ns=777_000 * MS + at + number % 2 * MS)
            log.out(1)
    rows = sorted(packets(run(implementation, log.records)), key=lambda row: int(row["order"]))
    gone = [number for number, row in enumerate(rows) if row["disposition"] == "sent"]
    if lost and (lost[0] == 0 or lost[-1] == 9) and len(lost) == lost[-1] - lost[0] + 1:
        assert len(gone) == len(lost)
        assert gone[-1] - gone[0] == len(lost) - 1, "one run, at an end: which end can't be known"
    elif lost == (1, 3, 5, 7, 9):
        assert gone in ([1, 3, 5, 7, 9], [0, 2, 4, 6, 8], [0, 1, 3, 5, 7], [0, 2, 4, 6, 9])
    else:
        assert gone == list(lost)


def test_which_of_equal_packets_were_lost_within_a_server(implementation: Implementation) -> None:
    log = Recorder()
    for number in range(6):
        log.first(1)
        if number not in (1, 4):
            log.sent(1)
            log.came(1)
            log.out(1)
    rows = sorted(packets(run(implementation, log.records)), key=lambda row: int(row["order"]))
    assert [row["order"] for row in rows if row["disposition"] == "stopped"] == [1, 4]


def taken_over(key: int = 1) -> list[LogRecord]:
    """Sent to the gateway that was active when the task began; it comes in at another, which sends it on."""
    log = Recorder()
    log.first(key)
    log.passed(key, HV1, WEB, WEB1, TO_ROUTER)
    log.sent(key, HV1, GW, R1, in_key=R1_WEB, out_key=9, ttl=63)
    log.came(key, "c-aa", HV1, R1, ttl=63)
    log.passed(key, "c-aa", R1, R1_WEB, R1_DB, 63)
    log.sent(key, "c-aa", HV2, DB, in_key=TO_ROUTER, out_key=DB1, ttl=63)
    log.came(key, HV2, "c-aa", DB, ttl=63)
    log.out(key, HV2, DB, in_key=TO_ROUTER, out_key=DB1, ttl=63)
    return log.records


def test_a_gateway_that_took_over_leaves_no_gap(implementation: Implementation) -> None:
    found = run(implementation, taken_over())
    (row,) = packets(found)
    assert [r.chassis for r in hops(found, row)] == [HV1] * 3 + ["c-aa"] * 3 + [HV2] * 2
    assert (row["gap"], row["disposition"]) == (False, "egress")


def test_equal_packets_before_and_after_a_failover(implementation: Implementation) -> None:
    log = Recorder()
    log.hairpin(1)
    count: Counter[str] = Counter()
    records = []
    for record in [*log.records, *taken_over()]:
        count[record.chassis] += 1
        records.append(replace(record, seq=count[record.chassis]))
    found = run(implementation, records)
    assert sorted({r.chassis for r in hops(found, row)} for row in packets(found)) == [{HV1, GW}, {HV1, "c-aa", HV2}]
    assert {(row["gap"], row["disposition"]) for row in packets(found)} == {(False, "egress")}


def test_the_chassis_that_was_named_comes_before_one_that_took_over() -> None:
    log = Recorder()
    log.first(1)
    log.sent(1, HV1, GW)
    log.came(1, HV2, HV1)
    log.came(1, GW, HV1)
    order, gap = chain(list(enumerate(log.records)))
    assert [r.chassis for _, r in order][:3] == [HV1, HV1, GW]
    assert gap is False or len(order) == 4


@pytest.mark.parametrize(
    ("goal", "way", "others"),
    [
        (Goal(datapath=WEB, key=WEB2, chassis=HV2), [(HV1, 0), (HV1, 2), (HV2, 1), (HV2, 4)], 5),
        (Goal(datapath=WEB, key=8, chassis=GW), [(HV1, 0), (HV1, 2), (GW, 1), (GW, 4)], 5),
        (Goal(datapath=WEB, key=7, chassis=HV1), [(HV1, 0), (HV1, 4)], 7),
    ],
    ids=["on hv2", "on gw", "here"],
)
def test_of_a_broadcast_the_copy_for_the_destination_is_shown(
    implementation: Implementation, goal: Goal, way: list[tuple[str, int]], others: int
) -> None:
    found = run(implementation, walked([flooded, flooded]), p0=goal)
    assert len(packets(found)) == 2
    for row in packets(found):
        assert [(r.chassis, r.point) for r in hops(found, row)] == way
        assert (row["disposition"], row["gap"], len(row["others"])) == ("egress", False, others)


def test_of_a_broadcast_without_a_destination_the_longest_way_is_shown(implementation: Implementation) -> None:
    (row,) = packets(run(implementation, walked([flooded])))
    assert (row["disposition"], len(row["hops"]), len(row["others"])) == ("egress", 4, 5)


@pytest.mark.parametrize(
    ("without", "disposition", "length"),
    [((HV2, Point.EGRESS), "stopped", 3), ((HV2, None), "sent", 2), ((HV1, None), "sent", 2)],
    ids=["not handed over", "never came", "only the first server's"],
)
def test_a_broadcast_that_the_destination_did_not_get(
    implementation: Implementation, without: tuple[str, Point | None], disposition: str, length: int
) -> None:
    chassis, point = without
    records = walked([flooded])
    if chassis == HV1:
        records = records[:2]
    else:
        records = [r for r in records if (r.chassis, r.point) != without and (point or r.chassis != chassis)]
    found = run(implementation, records, p0=Goal(datapath=WEB, key=WEB2, chassis=HV2))
    (row,) = packets(found)
    assert (row["disposition"], len(row["hops"])) == (disposition, length)


def test_a_broadcast_whose_color_was_taken_off_at_the_group_is_not_called_stopped(
    implementation: Implementation,
) -> None:
    """Where not all servers of the group are armed nothing behind its output is seen, here neither."""
    (row,) = packets(run(implementation, walked([flooded])[:2], p0=Goal(datapath=WEB, key=7, chassis=HV1)))
    assert (row["disposition"], len(row["hops"])) == ("sent", 2)


# --- what holds for any records ---------------------------------------------------------------------------

ANY_WAYS = st.lists(st.sampled_from(WAYS), max_size=5)
APART = st.lists(st.sampled_from(DISTINCT_WAYS), min_size=1, max_size=5)


@PROPERTY
@given(ways=APART, seed=st.integers(0, 2**16))
def test_whole_evidence_of_equal_packets_gives_every_path(
    implementation: Implementation, ways: list[Callable[[Recorder], None]], seed: int
) -> None:
    """Packets that are on their way at once, of one key, by whichever way: paths are whole and none is mixed."""
    found = run(implementation, walked(ways, seed))
    assert places(found) == sorted(way_places(way) for way in ways)
    assert {(row["disposition"], row["gap"]) for row in packets(found)} == {("egress", False)}


@PROPERTY
@given(ways=ANY_WAYS)
def test_whole_evidence_of_equal_packets_one_after_another(
    implementation: Implementation, ways: list[Callable[[Recorder], None]]
) -> None:
    found = run(implementation, walked(ways))
    assert places(found) == sorted(way_places(way) for way in ways)


@PROPERTY
@given(ways=APART, seed=st.integers(0, 2**16), data=st.data())
def test_losing_records_of_equal_packets_invents_no_way(
    implementation: Implementation, ways: list[Callable[[Recorder], None]], seed: int, data: st.DataObject
) -> None:
    records = [r for r in walked(ways, seed) if r.point == Point.FIRST_HOP or data.draw(st.booleans())]
    found = run(implementation, records)
    assert len(packets(found)) == len(ways)
    for row in packets(found):
        way = tuple(place(r) for r in hops(found, row))
        assert any(is_part(way, way_places(possible)) for possible in ways), way
    used = [number for row in packets(found) for number in (*row["hops"], *row["others"])]
    assert len(used) == len(set(used))


@PROPERTY
@given(ways=st.lists(st.sampled_from((*WAYS, flooded)), max_size=4), seed=st.integers(0, 2**16), data=st.data())
def test_the_order_and_repetition_of_records_change_nothing(
    implementation: Implementation, ways: list[Callable[[Recorder], None]], seed: int, data: st.DataObject
) -> None:
    records = [r for r in walked(ways, seed) if data.draw(st.booleans())]
    mixed = records + records[::2]
    random.Random(seed).shuffle(mixed)
    one, two = run(implementation, records), run(implementation, mixed)
    assert one.packets.equals(two.packets)
    assert one.paths.equals(two.paths)


@PROPERTY
@given(count=st.integers(1, 4), seed=st.integers(0, 2**16))
def test_equal_broadcasts_are_as_many_packets(implementation: Implementation, count: int, seed: int) -> None:
    goal = Goal(datapath=WEB, key=WEB2, chassis=HV2)
    found = run(implementation, walked([flooded] * count, seed), p0=goal)
    assert [row["disposition"] for row in packets(found)] == ["egress"] * count
    assert {len(row["hops"]) for row in packets(found)} == {4}


def test_thousands_of_equal_packets_take_no_time(implementation: Implementation) -> None:
    log = Recorder()
    for number in range(1000):
        log.first(1)
        log.sent(1)
        if number % 3:
            log.came(1)
            log.out(1)
    counts = Counter(row["disposition"] for row in packets(run(implementation, log.records)))
    assert counts == {"egress": 666, "sent": 334}


def stopped_in_a_second_router(log: Recorder) -> None:
    """Lost on its own server in a second router, as at the border of another VPC."""
    log.first(1)
    log.passed(1, HV1, WEB, WEB1, TO_ROUTER)
    log.passed(1, HV1, R1, R1_WEB, R1_DB, 63)
    log.passed(1, HV1, DB, R1_DB, TO_ROUTER, 63)


def test_equal_packets_that_end_on_one_server_are_not_put_together(implementation: Implementation) -> None:
    found = run(implementation, walked([stopped_in_a_second_router] * 3))
    assert places(found) == [way_places(stopped_in_a_second_router)] * 3


def rewritten(log: Recorder) -> None:
    """To the VIP of a gateway router that also has SNAT: both addresses change at once."""
    before: dict[str, Any] = {"src": CLIENT, "dst": VIP}
    after: dict[str, Any] = {"src": "100.64.0.2", "dst": "10.0.2.1", "ttl": 63}
    log.write(HV1, Point.FIRST_HOP, WEB, 1, pair=0, in_key=WEB1, in_ofport=5, ttl=64, **before)
    log.sent(1, HV1, GW, in_key=WEB1, out_key=TO_ROUTER, **before)
    log.came(1, GW, HV1, **before)
    log.write(GW, Point.LOGICAL_EGRESS, WEB, 1, in_key=WEB1, out_key=TO_ROUTER, ttl=64, **before)
    log.write(GW, Point.LOGICAL_EGRESS, R1, 1, in_key=R1_WEB, out_key=R1_DB, **after)
    log.sent(1, GW, HV2, DB, in_key=TO_ROUTER, out_key=DB1, **after)
    log.came(1, HV2, GW, DB, **after)
    log.out(1, HV2, DB, in_key=TO_ROUTER, out_key=DB1, **after)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_device_that_changes_both_addresses_ends_no_path(implementation: Implementation, count: int) -> None:
    found = run(implementation, walked([rewritten] * count))
    assert places(found) == [way_places(rewritten)] * count
    assert [row["disposition"] for row in packets(found)] == ["egress"] * count


def test_an_answer_with_the_same_key_is_not_taken_for_the_packet(implementation: Implementation) -> None:
    """An echo has the payload of its request. Its first hop's record may be the last to come in, or never."""
    request, echo = Recorder(), Recorder()
    request.switched(1)
    back = {"src": "10.0.1.2", "dst": "10.0.1.1"}
    echo.sent(1, HV2, HV1, in_key=WEB2, out_key=WEB1, **back)
    echo.came(1, HV1, HV2, **back)
    echo.out(1, HV1, in_key=WEB2, out_key=WEB1, **back)
    count: Counter[str] = Counter(r.chassis for r in request.records)
    later = []
    for record in echo.records:
        count[record.chassis] += 1
        later.append(replace(record, seq=count[record.chassis]))
    (row,) = packets(run(implementation, [*request.records, *later]))
    assert (row["disposition"], len(row["hops"]), row["others"]) == ("egress", 4, [])
