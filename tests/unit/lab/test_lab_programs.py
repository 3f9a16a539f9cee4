"""Running programs: failures come with what was run and why; waiting says what it waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vtrace.errors import CannotWorkError
from vtrace.lab import namespaces, programs
from vtrace.lab.lock import locked
from vtrace.lab.programs import ProgramError


def test_a_failing_program_is_named_with_its_message() -> None:
    with pytest.raises(ProgramError, match=r"sh -c.*boom"):
        programs.run(["sh", "-c", "echo boom >&2; exit 3"])
    with pytest.raises(ProgramError, match="no-such-program"):
        programs.run(["no-such-program"])
    with pytest.raises(ProgramError, match=r"0\.05 s"):
        programs.run(["sleep", "5"], timeout_s=0.05)


def test_waiting_says_for_what_where_and_what_was_seen() -> None:
    with pytest.raises(CannotWorkError, match=r"waited 0 s for a miracle \(hv1\): none"):
        programs.wait_for(
            lambda: False, what="a miracle", where="hv1", patience=programs.Patience(0), seen=lambda: "none"
        )


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PACKAGES", {"sh": "dash", "no-such-program": "some-package"})
    with pytest.raises(CannotWorkError, match=r"no-such-program.*apt-get install .*some-package"):
        programs.require_programs()


def test_a_lab_has_one_change_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTRACE_LAB_DIR", str(tmp_path))
    with locked("demo"), pytest.raises(CannotWorkError, match="another command"), locked("demo", timeout_s=0.05):
        pass
    with locked("demo"):
        pass


def test_a_process_is_told_from_a_later_one_of_its_id() -> None:
    assert namespaces.start_time(os.getpid()) == namespaces.start_time(os.getpid()) is not None
    assert namespaces.start_time(2**22 + 1) is None
