"""`vtrace reconstruct`: what people and programs see of a file of records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders import HV2, Recorder
from msgspec.structs import replace

from vtrace.collect.writing import write_records
from vtrace.model.record import EvidenceRecord, Point, StreamEnd
from vtrace.model.record_schema import to_table
from vtrace.present.cli.main import main


@pytest.fixture(params=[".parquet", ".arrow"])
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Thirty packets across a router, of which the last five were not sent on by hv2, which said why."""
    log = Recorder()
    for key in range(30):
        log.routed(key)
    # The last records that hv2 wrote: none is missing before them.
    records = [r for r in log.records if not (r.key >= 25 and r.point == Point.EGRESS)]
    numbers = {r: n for n, r in enumerate((r for r in records if r.chassis == HV2), start=1)}
    records = [replace(r, seq=numbers[r]) if r in numbers else r for r in records]
    ends = [
        StreamEnd(chassis=name, incarnation=1, color=7, epoch=1, written=sum(r.chassis == name for r in records))
        for name in {r.chassis for r in records}
    ]
    said = EvidenceRecord(
        task="t1", pair=0, chassis=HV2, wall_ns=1, mono_ns=1, outcome="drop", code="acl_drop", summary="an ACL did it"
    )
    path = tmp_path / f"records{request.param}"
    write_records(path, to_table(records), ends, [said])
    return path


def test_text(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reconstruct", str(file)]) == 3
    out = capsys.readouterr().out
    assert "30 packets of 1 task, from 175 records" in out
    assert "30 = 25 delivered + 5 dropped" in out
    assert "5 dropped by datapath 2 of c-hv2" in out
    assert "because: an ACL did it (acl_drop)" in out


def test_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reconstruct", str(file), "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    (task,) = document["tasks"]
    (pair,) = task["pairs"]
    assert (document["schema"], document["records"], task["task"]) == (1, 175, "t1")
    assert (pair["delivered"], pair["dropped"], pair["loss"], pair["pattern"]) == (25, 5, "unknown", "unclear")
    assert pair["losses"][0]["why"]["code"] == "acl_drop"
    assert pair["paths"][0]["hops"][0]["point"] == "first_hop"


def test_one_task(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reconstruct", str(file), "--task", "t1"]) == 3
    assert main(["reconstruct", str(file), "--task", "t2"]) == 2
    assert "There is no task 't2'" in capsys.readouterr().err


def test_what_is_no_file_of_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "x"
    other.write_text("hello")
    assert main(["reconstruct", str(other)]) == 2
    assert main(["reconstruct", str(tmp_path / "none")]) == 2
    err = capsys.readouterr().err
    assert "neither Parquet nor Arrow IPC" in err
    assert "can't be read" in err


def test_a_file_that_was_cut_off(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = file.read_bytes()
    for length in (len(whole) // 2, len(whole) - 5, 9):
        file.write_bytes(whole[:length])
        assert main(["reconstruct", str(file)]) == 2
        assert str(file) in capsys.readouterr().err
