"""Colors that a bridge has had lately, from run to run."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vtrace.agent.recent_colors import KEPT_S, RecentColors
from vtrace.color.registry import POOL_2


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1000.0]
    monkeypatch.setattr(time, "clock_gettime", lambda _: clock[0])
    return clock


def test_another_run_knows_them(tmp_path: Path, now: list[float]) -> None:
    RecentColors(str(tmp_path), "br-int").note([3, 11])
    now[0] += 4
    RecentColors(str(tmp_path), "br-int").note([11])
    now[0] += 2
    assert RecentColors(str(tmp_path), "br-int").ages_s() == {3: 6.0, 11: 2.0}
    assert RecentColors(str(tmp_path), "br-other").ages_s() == {}
    assert [path.name for path in tmp_path.iterdir()] == ["vtrace.br-int.colors"]


def test_they_are_forgotten(tmp_path: Path, now: list[float]) -> None:
    recent = RecentColors(str(tmp_path), "br-int")
    recent.note([3])
    now[0] += KEPT_S - 1
    recent.note([7])
    now[0] += 2
    assert recent.ages_s() == {7: 2.0}


def test_what_can_not_be_read_is_not_known(tmp_path: Path, now: list[float]) -> None:
    path = tmp_path / "vtrace.br-int.colors"
    # Lines for 3, 7, 11, 15, 19, 23: of another start of the machine, no numbers, one that is right, one cut off.
    lines = ("5000.000", "nan", "inf", "\xff", "998.500", "9")
    path.write_bytes(b"".join(line.encode("latin-1").rjust(19) + b"\n" for line in lines)[:-4])
    recent = RecentColors(str(tmp_path), "br-int")
    assert recent.ages_s() == {19: 1.5}
    recent.note([63])
    assert recent.ages_s() == {19: 1.5, 63: 0.0}
    missing = RecentColors(str(tmp_path / "none"), "br-int")
    missing.note([3])
    assert missing.ages_s() == {}


def test_runs_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    runs = [RecentColors(str(tmp_path), "br-int") for _ in POOL_2]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda run, color: run.note([color]), runs, POOL_2))
    assert sorted(runs[0].ages_s()) == list(POOL_2)


def test_another_users_file_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vtrace.br-int.colors"
    path.write_text("theirs")
    really, refused = os.open, [path]

    def no(where: Path, *rest: int) -> int:
        if refused and where == path:
            raise PermissionError(refused.pop())
        return really(where, *rest)

    monkeypatch.setattr(os, "open", no)
    RecentColors(str(tmp_path), "br-int").note([3])
    assert sorted(RecentColors(str(tmp_path), "br-int").ages_s()) == [3]


def test_no_link_is_followed_and_no_pipe_is_waited_for(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(f"{time.clock_gettime(time.CLOCK_BOOTTIME):19.3f}\n")
    before = other.read_text()
    link = tmp_path / "vtrace.br-int.colors"
    link.symlink_to(other)
    RecentColors(str(tmp_path), "br-int").note([7])
    assert other.read_text() == before
    assert RecentColors(str(tmp_path), "br-int").ages_s() == {}
    link.unlink()
    os.mkfifo(link)
    RecentColors(str(tmp_path), "br-int").note([7])
    assert RecentColors(str(tmp_path), "br-int").ages_s() == {}
