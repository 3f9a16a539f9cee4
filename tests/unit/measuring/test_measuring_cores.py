"""Parts worked on by several processes: the answers of one, errors of theirs as ours, and nobody is left behind."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from clouds import EVENTFUL, make_cloud

from vtrace.analyzer import stored as stored_records
from vtrace.analyzer import working
from vtrace.analyzer.stored import OfBlobs, Stored, gather, open_stored, reconstruct_stored
from vtrace.errors import CannotWorkError, UsageError
from vtrace.reconstruct.answers import KINDS, answers


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stored:
    monkeypatch.setattr(stored_records, "PART_RECORDS", 300)
    found = open_stored(make_cloud(tmp_path / "x.blobs", **EVENTFUL | {"log_loss": 0.02}))
    assert len(found.parts) > 10
    return found


class Strange(NamedTuple):
    """A part that makes its reader end as it says."""

    how: str

    def read(self) -> Sequence[pa.RecordBatch]:
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "memory":
            raise MemoryError("no more")
        raise UsageError("This is no blob of log records", "there", "", "")


@pytest.mark.parametrize("cores", [2, 3, 50])
@pytest.mark.parametrize("told", [True, False])
def test_processes_give_the_answer_of_one(cloud: Stored, cores: int, told: bool) -> None:
    given = cloud if told else msgspec.structs.replace(cloud, ends=())
    whole = reconstruct_stored(given)
    assert whole.records_missing or not told
    assert {pair.loss for task in whole.tasks for pair in task.pairs} >= {"yes", "no"}
    assert reconstruct_stored(given, cores=cores) == whole
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("parts", [1, 999, 1000, 1001, 2500, 123_456])
def test_each_part_is_taken_once(parts: int) -> None:
    # With more parts than a pipe has room for numbers, several are taken at once.
    with working._turns(parts) as turns:
        run = working._run_of(parts)
        taken: list[int] = []
        while number := os.read(turns, 4):
            first = int.from_bytes(number)
            taken += range(parts)[first : first + run]
    assert taken == list(range(parts))


def test_a_stream_that_nobody_told_of_counts_alike(cloud: Stored) -> None:
    given = msgspec.structs.replace(cloud, ends=cloud.ends[1:])
    assert reconstruct_stored(given, cores=2) == reconstruct_stored(given)


def test_packets_can_be_asked_for_again(cloud: Stored) -> None:
    with gather(cloud, cores=2) as (found, streams):
        first, again = found.rows(), found.rows()
        packets = [sorted(zip(rows.pair, rows.order_ns, strict=True)) for rows in (first, again)]
        assert packets[0] == packets[1]
        assert len(first.pair) == found.counts[:, list(KINDS)].sum() > 500
        none = found.rows(np.zeros(len(found.pairs.names), np.bool_))
        assert len(none.pair) == 0
        assert answers(found, streams) == answers(found, streams)


def test_findings_are_put_together_in_any_grouping(cloud: Stored) -> None:
    # A worker's worker: what was put together from findings is findings again.
    with gather(cloud) as (whole, streams), gather(cloud, cores=2) as (found, _):
        outer = type(found)()
        outer.join(found.findings(), found)
        assert answers(outer, streams) == answers(whole, streams)


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ("refused", UsageError, "no blob"),
        ("memory", MemoryError, "no more"),
        ("killed", CannotWorkError, "exit code -9"),
    ],
)
def test_what_ends_a_worker_ends_all_and_is_told(cloud: Stored, how: str, error: type[Exception], says: str) -> None:
    parts = [*cloud.parts[:5], Strange(how), *cloud.parts[5:]]
    with pytest.raises(error, match=says):
        reconstruct_stored(msgspec.structs.replace(cloud, parts=parts), cores=2)
    assert multiprocessing.active_children() == []


def test_who_is_interrupted_leaves_no_worker_behind(cloud: Stored) -> None:
    def interrupted() -> None:
        with gather(cloud, cores=2):
            assert len(multiprocessing.active_children()) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert multiprocessing.active_children() == []


class Counted(NamedTuple):
    """A part that tells when it is read; the first that is ends who started the reader."""

    pipe: int
    part: OfBlobs
    kills: bool

    def read(self) -> Sequence[pa.RecordBatch]:
        os.write(self.pipe, b".")
        if self.kills:
            os.kill(os.getppid(), signal.SIGKILL)
        return self.part.read()


@pytest.mark.parametrize("kills", [True, False])
def test_workers_end_when_who_started_them_is_killed(cloud: Stored, kills: bool) -> None:
    ours, theirs = os.pipe()
    first = cloud.parts[0]
    assert isinstance(first, OfBlobs)
    parts = [Counted(theirs, first, kills and number == 0) for number in range(900)]
    if (parent := os.fork()) == 0:
        try:
            os.close(ours)
            with gather(msgspec.structs.replace(cloud, parts=parts), cores=2):
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.close(theirs)
    assert os.waitpid(parent, 0)[1] == signal.SIGKILL
    # The workers have the other end, too: it is closed when they have ended.
    told = b""
    while piece := os.read(ours, 1000):
        told += piece
    os.close(ours)
    assert len(told) < 100 if kills else len(told) == 900


def test_a_worker_that_ends_after_it_told_its_findings_is_named(cloud: Stored) -> None:
    with gather(cloud, cores=2) as (found, _):
        for child in multiprocessing.active_children():
            assert child.pid
            os.kill(child.pid, signal.SIGKILL)
            child.join()
        with pytest.raises(CannotWorkError, match="exit code -9"):
            found.rows()


def test_a_table_is_worked_on_by_several_processes(cloud: Stored, tmp_path: Path) -> None:
    path = make_cloud(tmp_path / "x.parquet", **EVENTFUL)
    given = open_stored(path)
    assert len(given.parts) > 10
    assert reconstruct_stored(given, cores=3) == reconstruct_stored(given)


def test_log_streams_that_say_too_much_take_no_memory(cloud: Stored) -> None:
    many = tuple(
        msgspec.structs.replace(cloud.ends[0], chassis=f"no{number}", written=4 << 20) for number in range(999)
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, hard))
    try:
        for cores in (1, 2):
            with pytest.raises(MemoryError):
                reconstruct_stored(msgspec.structs.replace(cloud, ends=(*cloud.ends, *many)), cores=cores)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def test_a_part_is_one_of_the_files_blobs(cloud: Stored) -> None:
    assert all(isinstance(part, OfBlobs) for part in cloud.parts)
    assert sum(one.records for part in cloud.parts for one in part.stored) == cloud.records
