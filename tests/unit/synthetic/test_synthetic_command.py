"""`vtrace generate`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from vtrace.collect.store import BlobStore, read_records
from vtrace.errors import UsageError
from vtrace.present.cli import generate
from vtrace.synthetic.truth import TRUTH_SCHEMA

SMALL = ("--servers", "12", "--vpcs", "4", "--tasks", "3", "--packets", "60")


def run(*words: str) -> int:
    parser = argparse.ArgumentParser(exit_on_error=False)
    generate.add_parser(parser.add_subparsers())
    args = parser.parse_args(["generate", *words])
    return int(args.func(args))


def test_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, truth = tmp_path / "x.parquet", tmp_path / "x.truth.parquet"
    assert run(*SMALL, "--out", str(out), "--truth", str(truth), "--json", "--seed", "7", "--faults", "0.5") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    table, rows = read_records(out), pq.read_table(truth)
    assert rows.schema.equals(TRUTH_SCHEMA)
    assert (found["records"], found["packets"]) == (len(table), len(rows)) == (found["written"], 180)
    assert (found["tasks"], found["servers"], found["seed"]) == (3, 12, 7)
    assert found["bytes"] == out.stat().st_size
    counts = dict(zip(*(part.to_pylist() for part in rows["disposition"].value_counts().flatten()), strict=True))
    assert {word: count for word, count in found["dispositions"].items() if count} == counts
    assert sum(found["kinds"].values()) == 180
    assert {path.name for path in tmp_path.iterdir()} == {"x.parquet", "x.truth.parquet"}


def test_summary_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SMALL, "--out", str(tmp_path / "x.blobs"), "--buckets", "2") == 0
    text = capsys.readouterr().out
    assert "of 180 packets" in text
    assert "3 tasks, 12 servers" in text
    assert {stored.bucket for stored in BlobStore(tmp_path / "x.blobs")} == {0, 1}


def test_all_options_together(tmp_path: Path) -> None:
    shares = "--faults --floods --loops --moves --identical --log-loss --repeat --late --restarts"
    words = [word for name in shares.split() for word in (name, "0.1")]
    given = (*words, "--skew", "5", "--shuffle", "--records", "5000", "--regions", "4", "--kinds", "slb,vpc-vpc")
    assert run("--servers", "40", "--tasks", "10", *given, "--out", str(tmp_path / "x.parquet")) == 0
    assert read_records(tmp_path / "x.parquet").num_rows > 4000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--servers 2", "--servers 2 is out of range"),
        ("--servers 100001", "--servers 100001 is out of range"),
        ("--servers 10 --regions 4", "10 servers are too few"),
        ("--vpcs 1", "--vpcs 1 is out of range"),
        ("--vpcs 10000000", "10000000 VPCs are too many"),
        ("--switches 1", "--switches 1 is out of range"),
        ("--tasks 0", "--tasks 0 is out of range"),
        ("--pairs 0", "--pairs 0 is out of range"),
        ("--packets 0", "--packets 0 is out of range"),
        ("--records -1", "--records -1 is out of range"),
        ("--records 10 --packets 10", "--records and --packets both say how much"),
        ("--seed -1", "--seed -1 is out of range"),
        ("--faults 1.5", "--faults 1.5 is out of range"),
        ("--log-loss -0.1", "--log-loss -0.1 is out of range"),
        ("--identical 0.8", "from 0 to 0.75"),
        ("--floods 0.6 --loops 0.6", "floods and loops take more than all pairs"),
        ("--repeat nan", "--repeat nan is out of range"),
        ("--skew -1", "--skew"),
        ("--kinds slb,magic", "there is no kind of traffic 'magic'"),
        ("--buckets 3", "--buckets 3 can't be"),
        ("--blob-records 0", "--blob-records 0 is out of range"),
        ("--out x.csv", "--out names no kind of file"),
        ("--out none/x.parquet", "can't be written"),
        ("--out none/x.blobs", "can't be written"),
        ("--truth none/x.parquet", "can't be written"),
        ("--truth x.parquet", "records and truth can't be in one file"),
    ],
)
def test_wrong_usage(words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        run("--out", "x.parquet", *words.split())
    assert said in str(caught.value)
    assert caught.value.next_step
    assert not list(tmp_path.iterdir())
