"""`vtrace bench reconstruct` and `vtrace bench accuracy`, from the command line to the figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from clouds import make_cloud

from vtrace.errors import UsageError
from vtrace.measuring.child import FORMS
from vtrace.measuring.wire import bytes_per_record
from vtrace.present.cli import bench_reconstruct
from vtrace.present.cli.main import parser


def run(*words: str) -> int:
    arguments = parser().parse_args(["bench", *words])
    return int(arguments.func(arguments))


def figures(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    assert set(found) == {"name", "figures", "machine", "commit", "command"}
    return found


def test_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.json"
    words = ("--records", "4000", "--runs", "1", "--cores", "1", "--only", "kernel,polars", "--no-compile")
    assert run("reconstruct", *words, "--json", str(out)) == 0
    document = figures(out)
    found = document["figures"]
    assert document["name"] == "reconstruct"
    assert document["command"].startswith("vtrace bench reconstruct --records 4000 --seed 1 --runs 1 --cores 1")
    assert found["records_per_s_1_core"] > 0
    assert found["peak_memory_mb"] > 50
    assert 5 < found["bytes_per_record"] < found["wire"]["arrival"]["msgpack_arrays"]
    assert set(found["records"]) == {"arrival", "shuffled"}
    assert 3000 < found["records"]["arrival"] < 5000
    assert [(row["order"], row["form"], row["cores"]) for row in found["measurements"]] == [
        (order, form, 1) for order in ("arrival", "shuffled") for form in ("kernel", "polars")
    ]
    assert all(row["peak_mb"] >= row["before_mb"] > 0 for row in found["measurements"])
    assert found["disagreements"] == {"arrival": {}, "shuffled": {}}
    assert [one["order"] for one in found["stages"]] == ["arrival", "shuffled"]
    assert found["stages"][0]["stages"]["kernel"]["ns_per_record"] > 0
    told = capsys.readouterr()
    assert "arrival, polars on 1" in told.out
    assert "round 1 of 1" in told.err


def test_speed_on_a_store_of_ones_own(tmp_path: Path) -> None:
    path = make_cloud(tmp_path / "own.blobs", faults=0.3)
    out = tmp_path / "x.json"
    words = ("--runs", "1", "--cores", "1", "--data", str(path), "--no-compile")
    assert run("reconstruct", *words, "--json", str(out)) == 0
    found = figures(out)["figures"]
    assert [(row["order"], row["form"]) for row in found["measurements"]] == [("own", form) for form in FORMS]
    assert found["disagreements"] == {"own": {}}
    assert found["packets"] == {"own": 640}


def test_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.json"
    assert run("accuracy", "--records", "20000", "--losses", "0,0.1", "--json", str(out)) == 0
    document = figures(out)
    assert document["name"] == "accuracy"
    whole, less = document["figures"]["0"], document["figures"]["0.1"]
    assert (whole["wrong"], whole["unclaimed"], whole["phantoms"], whole["false_losses"]) == (0, 0, 0, 0)
    assert whole["shares"]["right"] > 0.98
    assert whole["pairs"]["false_alarms"] == whole["pairs"]["missed"] == 0
    assert less["records_missing"] > 0
    assert less["unclaimed"] > 0
    assert less["shares"]["wrong"] < 0.01
    assert "0.1 of the records lost" in capsys.readouterr().out


def test_the_names_of_the_formulations_are_those_that_there_are() -> None:
    assert set(bench_reconstruct.FORMS) == set(FORMS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("reconstruct --records 0", "--records 0 is out of range"),
        ("reconstruct --runs 0", "--runs 0 is out of range"),
        ("reconstruct --cores x", "--cores x can't be"),
        ("reconstruct --cores 0", "--cores 0 is out of range"),
        ("reconstruct --cores 1000", "1000 cores are more than there are"),
        ("reconstruct --only kernel,magic", "there is no formulation 'magic'"),
        ("reconstruct --data none.blobs --only kernel", "can't be read"),
        ("reconstruct --json none/x.json", "The figures can't be written"),
        ("accuracy --losses 2", "--losses 2.0 is out of range"),
        ("accuracy --losses x", "--losses x can't be"),
        ("accuracy --records 0", "--records 0 is out of range"),
        ("accuracy --json none/x.json", "The figures can't be written"),
    ],
)
def test_wrong_usage(words: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(*words.split())
    assert said in str(caught.value)
    assert caught.value.next_step


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(UsageError) as caught:
        run("reconstruct", "--only", "kernel,polars")
    assert "polars is not installed" in str(caught.value)
    assert "vtrace-overlay[bench]" in caught.value.next_step


def test_blobs_are_smaller_than_single_records(tmp_path: Path) -> None:
    found = bytes_per_record(make_cloud(tmp_path / "x.blobs", packets=2000))
    assert found["blobs"] < found["store"] < found["msgpack_arrays"]
    assert found["msgpack_arrays_zstd"] < found["msgpack_arrays"]
