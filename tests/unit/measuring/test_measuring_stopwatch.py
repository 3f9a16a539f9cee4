"""The stopwatch around the kernel's stages."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from clouds import FORMS, make_cloud

from vtrace.measuring.stopwatch import STAGES, Stopwatch, resolve, stopwatch

NAMES = [name for names in STAGES.values() for name in names]


@pytest.mark.parametrize("name", NAMES)
def test_stages_name_what_there_is(name: str) -> None:
    owner, attribute = resolve(name)
    assert callable(getattr(owner, attribute))


def test_every_stage_is_passed_and_everything_put_back(tmp_path: Path) -> None:
    path = make_cloud(tmp_path / "x.blobs", faults=0.5, log_loss=0.1)
    before = [getattr(*resolve(name)) for name in NAMES]
    with stopwatch() as watch:
        found = FORMS["kernel"](path, 2)
    assert all(one is getattr(*resolve(name)) for one, name in zip(before, NAMES, strict=True))
    assert found == FORMS["kernel"](path, 1)
    assert {stage for stage, spent in watch.spent.items() if not spent.calls} == set()
    assert watch.spent["decode"].calls > watch.spent["kernel"].calls > 0


def test_time_spent_inside_counts_once() -> None:
    watch = Stopwatch()

    def burn(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    inner = watch.around("decode", lambda: burn(0.05))

    def outside() -> None:
        burn(0.02)
        inner()
        inner()

    watch.around("prepare", outside)()
    assert (watch.spent["decode"].calls, watch.spent["prepare"].calls) == (2, 1)
    assert watch.spent["decode"].wall_s >= 0.1
    assert watch.spent["prepare"].wall_s >= 0.02
    whole_s = watch.spent["decode"].wall_s + watch.spent["prepare"].wall_s
    assert watch.whole_s["prepare"] == pytest.approx(whole_s)


def test_it_is_put_back_after_a_failure() -> None:
    before = [getattr(*resolve(name)) for name in NAMES]
    with pytest.raises(FileNotFoundError), stopwatch():
        raise FileNotFoundError
    assert all(one is getattr(*resolve(name)) for one, name in zip(before, NAMES, strict=True))
