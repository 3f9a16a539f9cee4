"""Answers held against the truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clouds import make_cloud

from vtrace.measuring.accuracy import Accuracy, accuracy

PLAIN = {"tasks": 6, "faults": 0.5, "loops": 0.1, "identical": 0.1, "repeat": 0.1, "shuffle": True}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("cloud")
    truth = folder / "truth.parquet"
    return make_cloud(folder / "x.blobs", truth, **PLAIN), truth


def tampered(made: tuple[Path, Path], tmp_path: Path, change: Callable[[list[dict[str, object]]], object]) -> Accuracy:
    table = pq.read_table(made[1])
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), tmp_path / "truth.parquet")
    return accuracy(made[0], tmp_path / "truth.parquet", {})


def one(rows: list[dict[str, object]], disposition: str) -> dict[str, object]:
    return next(row for row in rows if row["disposition"] == disposition and row["copies"] == 1)


def test_with_all_records_every_answer_is_right(made: tuple[Path, Path]) -> None:
    found = accuracy(*made, {}, cores=2)
    assert (found.right, found.wrong, found.evidence_missing, found.unclaimed) == (found.packets, 0, 0, 0)
    assert found.packets == 6 * 160
    assert found.phantoms == found.records_missing == found.without_goal == 0
    assert found.ambiguous > 0
    assert sum(counts["right"] for counts in found.by_kind.values()) == found.packets
    assert found.by_disposition["dropped"]["right"] > 0
    assert found.pairs == {"right": 48, "unknown": 0, "false_alarms": 0, "missed": 0}


def test_a_loss_that_is_said_of_a_packet_that_arrived_is_false(made: tuple[Path, Path], tmp_path: Path) -> None:
    found = tampered(made, tmp_path, lambda rows: one(rows, "dropped").update(disposition="delivered"))
    assert (found.wrong, found.false_losses, found.missed_losses) == (1, 1, 0)
    assert found.by_disposition["delivered"]["wrong"] == 1


def test_a_loss_that_is_not_said_is_missed(made: tuple[Path, Path], tmp_path: Path) -> None:
    found = tampered(made, tmp_path, lambda rows: one(rows, "delivered").update(disposition="lost_between", peer="x"))
    assert (found.wrong, found.false_losses, found.missed_losses) == (1, 0, 1)


@pytest.mark.parametrize("field", ["chassis", "datapath", "pair"])
def test_the_place_has_to_be_right_too(field: str, made: tuple[Path, Path], tmp_path: Path) -> None:
    wrong = {"chassis": "elsewhere", "datapath": 1_000_000, "pair": 77}
    found = tampered(made, tmp_path, lambda rows: one(rows, "dropped").update({field: wrong[field]}))
    assert (found.wrong, found.right, found.false_losses, found.missed_losses) == (1, found.packets - 1, 0, 0)


def test_the_server_that_a_lost_packet_was_sent_to_has_to_be_right(made: tuple[Path, Path], tmp_path: Path) -> None:
    assert tampered(made, tmp_path, lambda rows: one(rows, "lost_between").update(peer="elsewhere")).wrong == 1
    assert tampered(made, tmp_path, lambda rows: one(rows, "dropped").update(peer="elsewhere")).wrong == 0


def test_an_answer_about_no_packet_is_a_phantom(made: tuple[Path, Path], tmp_path: Path) -> None:
    found = tampered(made, tmp_path, lambda rows: rows.pop())
    assert (found.phantoms, found.wrong, found.right) == (1, 0, found.packets)


def test_a_packet_without_an_answer_is_unclaimed(made: tuple[Path, Path], tmp_path: Path) -> None:
    found = tampered(made, tmp_path, lambda rows: rows.append({**rows[0], "key": 12345, "copies": 1}))
    assert (found.unclaimed, found.wrong, found.phantoms) == (1, 0, 0)


def test_pairs_are_judged_by_whether_one_of_their_packets_was_lost(made: tuple[Path, Path], tmp_path: Path) -> None:
    def heal(rows: list[dict[str, object]]) -> None:
        lost = one(rows, "dropped")
        for row in rows:
            if (row["task"], row["pair"]) == (lost["task"], lost["pair"]):
                row["disposition"] = "delivered"

    pairs = tampered(made, tmp_path, heal).pairs
    assert (pairs["right"], pairs["false_alarms"], pairs["missed"]) == (47, 1, 0)


def test_lost_records_never_make_a_packet_that_arrived_a_lost_one(tmp_path: Path) -> None:
    truth = tmp_path / "truth.parquet"
    options = {**PLAIN, "identical": 0.0, "packets": 800, "tasks": 4}
    found = accuracy(make_cloud(tmp_path / "x.blobs", truth, **options, log_loss=0.1), truth, {})
    assert found.records_missing > 0
    assert (found.false_losses, found.missed_losses, found.phantoms) == (0, 0, 0)
    assert found.right + found.evidence_missing + found.unclaimed + found.wrong == found.packets
    assert found.unclaimed > 0
    assert found.evidence_missing > 0
    assert found.wrong == 0


def test_floods_without_one_receiver_are_left_out(tmp_path: Path) -> None:
    truth = tmp_path / "truth.parquet"
    path = make_cloud(tmp_path / "x.blobs", truth, floods=0.5)
    found = accuracy(path, truth, {})
    assert found.packets + found.without_goal == 4 * 160
    assert found.without_goal > 0
    assert "flood" not in found.by_kind
    assert found.wrong == 0
