"""From records to paths, for every implementation: cases by hand, and what must hold for any records."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa
import pytest
from builders import DB, GW, HV1, HV2, PROPERTY, R1, R1_DB, TO_ROUTER, WEB, WEB1, Recorder
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from vtrace.model.record import LogRecord, Point
from vtrace.model.record_schema import RECORD_SCHEMA, from_table, to_table
from vtrace.reconstruct.schema import PACKET_SCHEMA, PATH_SCHEMA, Reconstruction

Implementation = Callable[[pa.Table], Reconstruction]
Seen = list[tuple[str, str]]
SWITCHED: Seen = [(HV1, "first_hop"), (HV1, "remote_output"), (HV2, "ingress"), (HV2, "egress")]


def run(implementation: Implementation, records: Iterable[LogRecord]) -> Reconstruction:
    return implementation(to_table(records))


def packets(found: Reconstruction) -> list[dict[str, Any]]:
    return found.packets.to_pylist()


def hops(found: Reconstruction, row: dict[str, Any]) -> list[LogRecord]:
    records = from_table(found.records)
    return [records[number] for number in row["hops"]]


def seen(found: Reconstruction, row: dict[str, Any]) -> Seen:
    return [(record.chassis, Point(record.point).word) for record in hops(found, row)]


def only(found: Reconstruction) -> dict[str, Any]:
    (row,) = packets(found)
    return row


# --- cases by hand ---------------------------------------------------------------------------------------


def test_no_records_no_packets(implementation: Implementation) -> None:
    found = run(implementation, [])
    assert (found.records.num_rows, found.packets.num_rows, found.paths.num_rows, found.unclaimed) == (0, 0, 0, 0)


def test_tables_have_the_schemas_of_the_seam(implementation: Implementation) -> None:
    log = Recorder()
    log.switched(1)
    found = run(implementation, log.records)
    assert found.records.schema.equals(RECORD_SCHEMA)
    assert found.packets.schema.equals(PACKET_SCHEMA)
    assert found.paths.schema.equals(PATH_SCHEMA)


def test_one_switch_two_servers(implementation: Implementation) -> None:
    log = Recorder()
    log.switched(-5, 3)
    found = run(implementation, log.records)
    row = only(found)
    assert seen(found, row) == SWITCHED
    assert (row["color"], row["epoch"], row["key"], row["copy"]) == (7, 1, -5, 0)
    assert (row["task"], row["pair"], row["order"], row["disposition"]) == ("t1", 3, 0, "egress")
    assert (row["gap"], row["ambiguous"]) == (False, False)
    (path,) = found.paths.to_pylist()
    assert path == {"pair": 3, "disposition": "egress", "packets": 1, "hops": row["hops"]}
    assert row["path"] == 0
    assert found.unclaimed == 0


def test_across_a_router(implementation: Implementation) -> None:
    log = Recorder()
    log.routed(1)
    found = run(implementation, log.records)
    row = only(found)
    assert [(r.chassis, r.datapath, r.ttl) for r in hops(found, row)] == [
        (HV1, WEB, 64),
        (HV1, WEB, 64),
        (HV1, R1, 63),
        (HV1, DB, 63),
        (HV2, DB, 63),
        (HV2, DB, 63),
    ]
    assert (row["disposition"], row["gap"]) == ("egress", False)


def test_a_hairpin_visits_one_chassis_twice(implementation: Implementation) -> None:
    log = Recorder()
    log.hairpin(1)
    found = run(implementation, log.records)
    row = only(found)
    assert [(r.chassis, r.datapath, Point(r.point).word) for r in hops(found, row)] == [
        (HV1, WEB, "first_hop"),
        (HV1, WEB, "logical_egress"),
        (HV1, R1, "remote_output"),
        (GW, R1, "ingress"),
        (GW, R1, "logical_egress"),
        (GW, DB, "remote_output"),
        (HV1, DB, "ingress"),
        (HV1, DB, "egress"),
    ]
    assert (row["disposition"], row["gap"]) == ("egress", False)


@pytest.mark.parametrize(
    ("length", "disposition"), [(1, "stopped"), (2, "sent"), (3, "stopped"), (4, "egress")], ids=str
)
def test_how_it_ends(implementation: Implementation, length: int, disposition: str) -> None:
    log = Recorder()
    log.switched(1)
    found = run(implementation, log.records[:length])
    row = only(found)
    assert seen(found, row) == SWITCHED[:length]
    assert (row["disposition"], row["gap"]) == (disposition, False)


def test_sent_to_no_armed_place(implementation: Implementation) -> None:
    log = Recorder()
    log.first(1)
    log.write(HV1, Point.REMOTE_OUTPUT, WEB, 1, in_key=WEB1, out_key=99, peer="")
    assert only(run(implementation, log.records))["disposition"] == "unplanned"


@pytest.mark.parametrize("missing", [1, 2], ids=["remote output", "ingress"])
def test_a_missing_record_between_two_servers_is_a_gap(implementation: Implementation, missing: int) -> None:
    log = Recorder()
    log.switched(1)
    del log.records[missing]
    found = run(implementation, log.records)
    row = only(found)
    assert seen(found, row) == SWITCHED[:missing] + SWITCHED[missing + 1 :]
    assert (row["gap"], row["disposition"]) == (True, "egress")


def test_a_server_that_is_missing_altogether_is_a_gap(implementation: Implementation) -> None:
    log = Recorder()
    log.hairpin(1)
    found = run(implementation, [r for r in log.records if r.chassis != GW])
    row = only(found)
    assert [Point(r.point).word for r in hops(found, row)][-2:] == ["ingress", "egress"]
    assert (row["gap"], row["disposition"]) == (True, "egress")


def test_without_its_first_hop_a_packet_is_counted_and_not_answered(implementation: Implementation) -> None:
    log = Recorder()
    log.switched(1)
    log.switched(2)
    found = run(implementation, [r for r in log.records if (r.key, r.point) != (2, Point.FIRST_HOP)])
    assert [row["key"] for row in packets(found)] == [1]
    assert found.unclaimed == 1


def test_packets_of_one_pair_are_numbered_in_first_hop_order(implementation: Implementation) -> None:
    log = Recorder()
    for key in (50, -7, 12):
        log.switched(key)
    assert {row["key"]: row["order"] for row in packets(run(implementation, log.records))} == {50: 0, -7: 1, 12: 2}


def test_paths_are_counted(implementation: Implementation) -> None:
    log = Recorder()
    for key in range(5):
        log.switched(key)
    log.first(9)
    log.sent(9)
    found = run(implementation, log.records)
    assert sorted((p["disposition"], p["packets"]) for p in found.paths.to_pylist()) == [("egress", 5), ("sent", 1)]
    for row in packets(found):
        assert found.paths.to_pylist()[row["path"]]["disposition"] == row["disposition"]


def test_a_retransmission_is_a_packet_of_its_own(implementation: Implementation) -> None:
    log = Recorder()
    log.switched(1)
    log.switched(1)
    found = run(implementation, log.records)
    assert [seen(found, row) for row in packets(found)] == [SWITCHED, SWITCHED]
    assert [(row["copy"], row["ambiguous"]) for row in packets(found)] == [(0, True), (1, True)]


@pytest.mark.parametrize("lost", [0, 1, 2, 3])
def test_identical_packets_of_which_some_are_lost_are_counted_right(implementation: Implementation, lost: int) -> None:
    log = Recorder()
    for number in range(3):
        log.first(1)
        log.sent(1)
        if number >= lost:
            log.came(1)
            log.out(1)
    counts = Counter(row["disposition"] for row in packets(run(implementation, log.records)))
    assert counts == Counter({"sent": lost, "egress": 3 - lost})


def test_identical_packets_on_two_paths_do_not_mix(implementation: Implementation) -> None:
    # Two equal datagrams of one pair, the second by way of the gateway (ECMP): both arrive.
    log = Recorder()
    log.switched(1)
    log.first(1)
    log.sent(1, HV1, GW)
    log.came(1, GW, HV1)
    log.passed(1, GW, WEB, WEB1, TO_ROUTER)
    log.sent(1, GW, HV2, R1, ttl=63)
    log.came(1, HV2, GW, R1, ttl=63)
    log.out(1, datapath=R1, ttl=63)
    found = packets(run(implementation, log.records))
    assert sorted((row["disposition"], len(row["hops"])) for row in found) == [("egress", 4), ("egress", 7)]


def test_identical_packets_of_two_pairs_do_not_mix(implementation: Implementation) -> None:
    # web1 to web2 and web1 to db1, the same datagram with IP id 0: the key knows no addresses.
    log = Recorder()
    log.switched(1, 0)
    log.routed(1, 1)
    records = log.records[:4] + [replace(r, dst="10.0.2.1") for r in log.records[4:]]
    found = run(implementation, records)
    assert {row["pair"]: (row["disposition"], len(row["hops"])) for row in packets(found)} == {
        0: ("egress", 4),
        1: ("egress", 6),
    }


def test_one_key_in_two_colors_epochs_and_tasks_is_two_packets(implementation: Implementation) -> None:
    one, two, three = Recorder(task="t1"), Recorder(color=11, task="t2"), Recorder(epoch=2, task="t3")
    one.switched(1)
    two.routed(1)
    three.first(1)
    # One agent a chassis: it numbers the records of all tasks.
    records = numbered([*one.records, *two.records, *three.records])
    found = run(implementation, records)
    assert {(r["color"], r["epoch"], r["task"], r["disposition"], len(r["hops"])) for r in packets(found)} == {
        (7, 1, "t1", "egress", 4),
        (11, 1, "t2", "egress", 6),
        (7, 2, "t3", "stopped", 1),
    }


def test_a_clock_that_is_wrong_changes_nothing(implementation: Implementation) -> None:
    log = Recorder()
    log.switched(1)
    skewed = [replace(r, wall_ns=0, mono_ns=0) if r.chassis == HV1 else r for r in log.records]
    found = run(implementation, skewed)
    assert seen(found, only(found)) == SWITCHED


def test_an_agent_that_started_again_is_one_chassis(implementation: Implementation) -> None:
    log = Recorder()
    log.switched(1)
    log.switched(2)
    restarted = [replace(r, incarnation=2, seq=r.seq - 2) if r.key == 2 else r for r in log.records]
    found = run(implementation, restarted)
    assert [seen(found, row) for row in packets(found)] == [SWITCHED, SWITCHED]


def test_a_hairpin_that_arrived_is_not_lost_when_its_ingress_record_is(implementation: Implementation) -> None:
    log = Recorder()
    log.hairpin(1)
    del log.records[6]
    assert only(run(implementation, log.records))["disposition"] == "egress"


def test_a_middle_server_without_its_ingress_record_stays_in_the_middle(implementation: Implementation) -> None:
    # As above by a middle server, which is last in the alphabet; TTL does not tell the two stretches apart.
    log = Recorder()
    log.first(1)
    log.sent(1, HV1, "c-zz")
    log.came(1, "c-zz", HV1)
    log.sent(1, "c-zz", HV2)
    log.came(1, HV2, "c-zz")
    log.out(1)
    found = run(implementation, [r for r in log.records if (r.chassis, r.point) != ("c-zz", Point.INGRESS)])
    row = only(found)
    assert [r.chassis for r in hops(found, row)] == [HV1, HV1, "c-zz", HV2, HV2]
    assert row["disposition"] == "egress"


def test_a_lost_first_hop_record_adds_no_hop_to_an_identical_packet(implementation: Implementation) -> None:
    log = Recorder()
    log.switched(1)
    log.switched(1)
    del log.records[4]
    found = run(implementation, log.records)
    assert len(only(found)["hops"]) == 4


def test_a_loop_between_two_servers_ends_where_its_last_record_is(implementation: Implementation) -> None:
    # Two gateway routers send the packet to each other until its TTL ends at one of them (reasons.md, ttl_exceeded).
    log = Recorder()
    log.first(1)
    for ttl in (4, 2):
        log.sent(1, HV1, GW, R1, in_key=R1_DB, out_key=9, ttl=ttl)
        log.came(1, GW, HV1, R1, ttl=ttl)
        log.sent(1, GW, HV1, DB, in_key=9, out_key=8, ttl=ttl - 1)
        log.came(1, HV1, GW, DB, ttl=ttl - 1)
    found = run(implementation, log.records)
    row = only(found)
    assert [(r.chassis, r.ttl) for r in hops(found, row)] == [
        (HV1, 64),
        *((HV1, 4), (GW, 4), (GW, 3), (HV1, 3)),
        *((HV1, 2), (GW, 2), (GW, 1), (HV1, 1)),
    ]
    assert row["disposition"] == "stopped"


# --- what holds for any records --------------------------------------------------------------------------

WALKS = ("switched", "routed", "hairpin")


def numbered(records: Sequence[LogRecord]) -> list[LogRecord]:
    """The records with one sequence number for each chassis, in their order."""
    count: Counter[str] = Counter()
    found = []
    for record in records:
        count[record.chassis] += 1
        found.append(replace(record, seq=count[record.chassis]))
    return found


def walked(walks: Sequence[tuple[str, int]]) -> list[LogRecord]:
    log = Recorder()
    for name, key in walks:
        getattr(log, name)(key, WALKS.index(name))
    return log.records


ANY_WALKS = st.lists(st.tuples(st.sampled_from(WALKS), st.integers(0, 3)), max_size=6)
# Every key once: then no packet is ambiguous.
CLEAR_WALKS = st.lists(st.sampled_from(WALKS), max_size=5).map(lambda names: [(n, k) for k, n in enumerate(names)])
# At most one visit of each chassis.
LINEAR_WALKS = st.lists(st.sampled_from(WALKS[:2]), max_size=5).map(lambda names: [(n, k) for k, n in enumerate(names)])


def equal(one: Reconstruction, two: Reconstruction) -> bool:
    return (
        one.records.equals(two.records)
        and one.packets.equals(two.packets)
        and one.paths.equals(two.paths)
        and one.unclaimed == two.unclaimed
    )


@PROPERTY
@given(walks=ANY_WALKS, seed=st.integers(0, 2**16), data=st.data())
def test_order_and_repetition_do_not_matter(
    implementation: Implementation, walks: list[tuple[str, int]], seed: int, data: st.DataObject
) -> None:
    records = [r for r in walked(walks) if data.draw(st.booleans())]
    mixed = records + records[: len(records) // 2]
    random.Random(seed).shuffle(mixed)
    assert equal(run(implementation, mixed), run(implementation, records))


@PROPERTY
@given(walks=CLEAR_WALKS)
def test_whole_evidence_gives_the_whole_path(implementation: Implementation, walks: list[tuple[str, int]]) -> None:
    records = walked(walks)
    found = run(implementation, records)
    for row in packets(found):
        assert hops(found, row) == [r for r in records if r.key == row["key"]]
        assert (row["disposition"], row["gap"], row["ambiguous"]) == ("egress", False, False)
    assert len(packets(found)) == len(walks)


@PROPERTY
@given(walks=CLEAR_WALKS, data=st.data())
def test_losing_records_adds_no_hop(
    implementation: Implementation, walks: list[tuple[str, int]], data: st.DataObject
) -> None:
    records = walked(walks)
    rest = [r for r in records if data.draw(st.booleans())]
    found = run(implementation, rest)
    for row in packets(found):
        mine = [r for r in rest if r.key == row["key"]]
        assert sorted(hops(found, row), key=lambda r: (r.chassis, r.seq)) == sorted(
            mine, key=lambda r: (r.chassis, r.seq)
        )
        assert hops(found, row)[0].point == Point.FIRST_HOP
    claimed = {r.key for r in rest if r.point == Point.FIRST_HOP}
    assert {row["key"] for row in packets(found)} == claimed
    assert found.unclaimed == len({r.key for r in rest} - claimed)


@PROPERTY
@given(walks=LINEAR_WALKS, data=st.data())
def test_losing_records_between_leaves_an_arrival_an_arrival(
    implementation: Implementation, walks: list[tuple[str, int]], data: st.DataObject
) -> None:
    records = walked(walks)
    rest = [r for r in records if r.point in (Point.FIRST_HOP, Point.EGRESS) or data.draw(st.booleans())]
    found = run(implementation, rest)
    for row in packets(found):
        kept = [r for r in rest if r.key == row["key"]]
        assert row["disposition"] == "egress"
        assert hops(found, row) == kept, "hops that are left keep their order"
        lost_between = {Point.REMOTE_OUTPUT, Point.INGRESS} - {r.point for r in kept}
        assert row["gap"] or not lost_between
        assert not row["gap"] or len(kept) < len([r for r in records if r.key == row["key"]])


@PROPERTY
@given(walks=ANY_WALKS, data=st.data())
def test_each_record_is_a_hop_of_at_most_one_packet(
    implementation: Implementation, walks: list[tuple[str, int]], data: st.DataObject
) -> None:
    rest = [r for r in walked(walks) if data.draw(st.booleans())]
    found = run(implementation, rest)
    used = [number for row in packets(found) for number in row["hops"]]
    assert len(used) == len(set(used))
    first_hops = [r for r in rest if r.point == Point.FIRST_HOP]
    assert len(packets(found)) == len(first_hops)
    assert sum(p["packets"] for p in found.paths.to_pylist()) == len(packets(found))


@PROPERTY
@given(one=ANY_WALKS, two=ANY_WALKS, data=st.data())
def test_two_colors_never_mix(
    implementation: Implementation,
    one: list[tuple[str, int]],
    two: list[tuple[str, int]],
    data: st.DataObject,
) -> None:
    first = [r for r in walked(one) if data.draw(st.booleans())]
    second = [replace(r, color=11, task=r.task and "t2", seq=r.seq + 10_000) for r in walked(two)]
    alone, both = run(implementation, first), run(implementation, [*first, *second])

    def told(found: Reconstruction) -> list[tuple[Any, ...]]:
        return [
            (row["key"], row["copy"], row["disposition"], row["gap"], tuple(hops(found, row)))
            for row in packets(found)
            if row["color"] == 7
        ]

    assert told(both) == told(alone)
    assert all(row["task"] == {7: "t1", 11: "t2"}[row["color"]] for row in packets(both))
