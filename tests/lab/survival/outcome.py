"""What became of a case, kept in a file with one JSON document a line, so that a run can be resumed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from pathlib import Path
from typing import TextIO

import msgspec

from survival.cases import Case

ROOT = Path(__file__).parents[3]
DEFAULT_RESULTS = ROOT / "out" / "survival.jsonl"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A case that was run.

    Attributes:
        complaints: what was not as it has to be; none if all was.
        date: when it began, UTC. `versions` of Open vSwitch and OVN.
        exit_code, state, loss: of the answer; `says` its notes, or its error; `verdicts` in a few words each.
        took_s: from the diagnosis' start to its end; `event_s` how long the event lasted.
        sent, lost: packets of the tenant over the whole case, as its ends saw them.
        control_lost: of the same event with nothing of ours there; `control_s` how long that one lasted.
        colored: packets that an end saw with a DSCP that is not its own.
        left_s: how long after the answer, or after the event, the last entry of ours was there; 0 if at once.
    """

    case: Case
    complaints: tuple[str, ...] = ()
    date: str = ""
    commit: str = ""
    versions: str = ""
    exit_code: int | None = None
    state: str = ""
    loss: str = ""
    says: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    took_s: float = 0.0
    event_s: float = 0.0
    sent: int = 0
    lost: int = 0
    control_lost: int = 0
    control_s: float = 0.0
    colored: int = 0
    left_s: float = 0.0


def commit() -> str:
    """The commit at hand; with a plus sign if the tree has changes of the program or of these tests."""

    def git(*words: str) -> str:
        argv = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", "src", "tests/lab")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


class Results:
    """The file of outcomes; one process at a time.

    Args:
        any_commit: whether outcomes of other commits count.
    """

    def __init__(self, path: Path, *, any_commit: bool) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("a+")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._commit = commit()
        self._any_commit = any_commit
        self.outcomes = read(path)

    def passed(self, case: Case) -> bool:
        """Whether it need not be run again."""
        found = self.outcomes.get(case.name)
        if found is None or found.complaints:
            return False
        return self._any_commit or (found.commit == self._commit and not found.commit.endswith("+"))

    def add(self, outcome: Outcome) -> None:
        outcome = msgspec.structs.replace(outcome, commit=self._commit)
        self.outcomes[outcome.case.name] = outcome
        self._file.write(msgspec.json.encode(outcome).decode() + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> dict[str, Outcome]:
    """The last outcome of every case in a file."""
    found: dict[str, Outcome] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        # A run that was killed may have left half a line: that case is run again.
        with contextlib.suppress(msgspec.DecodeError):
            outcome = msgspec.json.decode(line, type=Outcome)
            found[outcome.case.name] = outcome
    return found


def opened() -> Results:
    """The results that VTRACE_SURVIVAL names; those of other commits count if VTRACE_SURVIVAL_ANY is 1."""
    path = Path(os.environ.get("VTRACE_SURVIVAL") or DEFAULT_RESULTS)
    return Results(path, any_commit=os.environ.get("VTRACE_SURVIVAL_ANY") == "1")
