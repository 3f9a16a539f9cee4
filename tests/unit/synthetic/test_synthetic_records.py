"""What agents write: streams and their numbers, clocks, addresses, and the same bytes each time."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from making import Generator, Made, Row, sorted_rows

from vtrace.model.record import Point
from vtrace.model.record_schema import RECORD_SCHEMA

ALL_FAULTS = {
    "faults": 0.3,
    "floods": 0.1,
    "loops": 0.1,
    "moves": 0.3,
    "identical": 0.2,
    "log_loss": 0.02,
    "repeat": 0.02,
    "late": 0.1,
    "skew_s": 7200.0,
    "restarts": 0.3,
}
_POOL_2 = {value for value in range(64) if value & 3 == 3}


def streams(made: Made) -> dict[tuple[str, int, int, int], list[Row]]:
    """The records of each log stream, each once, in the order of `seq`."""
    found: dict[tuple[str, int, int, int], dict[int, Row]] = defaultdict(dict)
    for row in made.table.to_pylist():
        found[row["chassis"], row["incarnation"], row["color"], row["epoch"]][row["seq"]] = row
    return {stream: [rows[seq] for seq in sorted(rows)] for stream, rows in found.items()}


@pytest.mark.parametrize("suffix", [".parquet", ".blobs"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_the_same_options_give_the_same_bytes(made: Generator, suffix: str, shuffle: bool) -> None:
    one, two = (made(suffix, shuffle=shuffle, **ALL_FAULTS) for _ in range(2))
    assert one.path.read_bytes() == two.path.read_bytes()
    assert one.truth_path.read_bytes() == two.truth_path.read_bytes()


def test_another_seed_gives_other_records(made: Generator) -> None:
    one, two = made(seed=1), made(seed=2)
    assert not {row["key"] for row in one.truth} & {row["key"] for row in two.truth}


@pytest.mark.parametrize("packets", [37, 500])
def test_what_is_made_does_not_depend_on_the_pieces_it_is_made_in(made: Generator, packets: int) -> None:
    whole = made(packets=packets, **ALL_FAULTS)
    for span_records in (300, 6000):
        pieces = made(span_records=span_records, packets=packets, **ALL_FAULTS)
        assert sorted_rows(pieces.table).equals(sorted_rows(whole.table))
        assert pieces.truth == whole.truth
        assert pieces.ends == whole.ends


def test_both_forms_and_no_order_hold_the_same_records(made: Generator) -> None:
    plain = made(**ALL_FAULTS)
    for suffix, shuffle in ((".blobs", False), (".parquet", True), (".blobs", True)):
        other = made(suffix, shuffle=shuffle, **ALL_FAULTS)
        assert sorted_rows(other.table).equals(sorted_rows(plain.table))
        assert not other.table.equals(plain.table)
        assert (other.truth, other.ends) == (plain.truth, plain.ends)


@pytest.mark.parametrize("suffix", [".parquet", ".blobs"])
def test_the_schema_is_the_published_one(made: Generator, suffix: str) -> None:
    found = made(suffix, **ALL_FAULTS).table
    assert found.schema.remove_metadata().equals(RECORD_SCHEMA.remove_metadata())
    assert all(column.null_count == 0 for column in found.columns)


def test_streams_are_numbered_from_1_without_holes_in_the_order_of_time(made: Generator) -> None:
    found = made(moves=0.5, restarts=0.5, loops=0.1, packets=800)
    by_stream = streams(found)
    assert {(e.chassis, e.incarnation, e.color, e.epoch): e.written for e in found.ends} == {
        stream: len(rows) for stream, rows in by_stream.items()
    }
    for rows in by_stream.values():
        assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
        times = [row["mono_ns"] for row in rows]
        assert times == sorted(times)


def test_a_packets_records_on_one_server_are_in_the_order_of_its_way(made: Generator) -> None:
    found = made(loops=0.1, floods=0.1)
    for rows in found.records().values():
        ways: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            ways[row["chassis"]].append(row)
        for way in ways.values():
            assert [row["seq"] for row in way] == sorted(row["seq"] for row in way)
            assert all(before["mono_ns"] < after["mono_ns"] for before, after in pairwise(way))
            assert way[0]["point"] in (Point.FIRST_HOP, Point.INGRESS)


def test_only_first_hop_records_name_the_task_and_the_pair(made: Generator) -> None:
    for row in made().table.to_pylist():
        first = row["point"] == Point.FIRST_HOP
        assert (row["pair"] >= 0, bool(row["task"])) == (first, first)


def test_a_task_has_one_color_and_epoch_at_a_time(made: Generator) -> None:
    found = made(tasks=40, moves=0.3)
    uses: dict[str, set[tuple[int, int]]] = defaultdict(set)
    owner: dict[tuple[int, int], str] = {}
    for row in found.truth:
        use = (row["color"], row["epoch"])
        uses[row["task"]].add(use)
        assert owner.setdefault(use, row["task"]) == row["task"]
    assert len(uses) == 40
    assert {color for color, _ in owner} == _POOL_2
    # Epochs count the uses of a color.
    for color in _POOL_2:
        epochs = sorted(epoch for found_color, epoch in owner if found_color == color)
        assert epochs == list(range(1, len(epochs) + 1))
    moved = [sorted(found_uses) for found_uses in uses.values() if len(found_uses) > 1]
    assert len(moved) == 12
    assert all(len(both) == 2 and both[1][1] == both[0][1] + 1 and both[0][0] == both[1][0] for both in moved)


def test_vpcs_use_the_same_addresses(made: Generator) -> None:
    found = made(tasks=60, packets=16, vpcs=40, kinds=("vpc-switched",))
    sources: dict[str, set[int]] = defaultdict(set)
    for row in found.table.to_pylist():
        sources[row["src"]].add(row["datapath"])
    assert max(len(keys) for keys in sources.values()) > 1


def test_an_agent_that_restarts_begins_its_numbers_anew(made: Generator) -> None:
    found = made(restarts=1.0, packets=2000, tasks=2)
    lives: dict[tuple[str, int, int], dict[int, list[Row]]] = defaultdict(dict)
    for (chassis, incarnation, color, epoch), rows in streams(found).items():
        lives[chassis, color, epoch][incarnation] = rows
    assert any(len(by_incarnation) > 1 for by_incarnation in lives.values())
    for by_incarnation in lives.values():
        spans = sorted((rows[0]["mono_ns"], rows[-1]["mono_ns"]) for rows in by_incarnation.values())
        assert all(before[1] < after[0] for before, after in pairwise(spans))
        assert all(rows[0]["seq"] == 1 for rows in by_incarnation.values())


def test_wall_clocks_are_wrong_and_set_while_the_others_go_on(made: Generator) -> None:
    right, wrong = made(servers=60, tasks=30), made(servers=60, tasks=30, skew_s=36_000.0)
    ahead = []
    for found in (right, wrong):
        table = found.table
        by_server = pa.table(
            {
                "chassis": table["chassis"],
                "ahead_ns": pc.subtract(table["wall_ns"], table["mono_ns"]),
                "wall_ns": table["wall_ns"],
            }
        ).group_by("chassis")
        ahead.append(by_server.aggregate([("ahead_ns", "min"), ("ahead_ns", "max"), ("wall_ns", "min")]).to_pylist())
    first = [min(row["wall_ns_min"] for row in rows) for rows in ahead]
    assert max(row["wall_ns_min"] for row in ahead[1]) - first[1] > 3600e9
    steps = [row["ahead_ns_max"] - row["ahead_ns_min"] for row in ahead[1]]
    assert max(steps) > 600e9
    assert max(row["ahead_ns_max"] - row["ahead_ns_min"] for row in ahead[0]) < 1e9
    # Monotonic clocks are the same ones, and are nobody else's.
    assert sorted_rows(right.table)["mono_ns"].equals(sorted_rows(wrong.table)["mono_ns"])


def test_records_arrive_in_batches_of_one_agent(made: Generator) -> None:
    chassis = made(tasks=1, packets=2000, pairs=2).table["chassis"].to_pylist()
    changes = sum(one != two for one, two in pairwise(chassis))
    assert changes < len(chassis) / 5


def test_about_as_many_records_as_asked_for(made: Generator) -> None:
    for records in (2000, 50_000):
        found = made(records=records, tasks=10, faults=0.2)
        assert 0.9 * records < found.totals.written < 1.1 * records
