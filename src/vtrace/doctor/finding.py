"""What the doctor says."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from vtrace.errors import VTraceError

Level: TypeAlias = Literal["ok", "note", "warning", "problem"]
State: TypeAlias = Literal["fine", "warnings", "cannot_work"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        level: `ok` as it should be; `note` good to know; `warning` VTrace works, and something is worse for it, or was
            never run; `problem` it can't work here.
        check: which check, a name that stays.
        where: the server, and the thing on it; empty for the cloud as a whole.
        what: what was found; `why` why it matters, `next_step` what to do about it: both empty where all is well.
    """

    level: Level
    check: str
    where: str
    what: str
    why: str = ""
    next_step: str = ""


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """All findings, the worst first; the document of `vtrace doctor --json`."""

    schema: int = 1
    state: State
    servers: tuple[str, ...]
    findings: tuple[Finding, ...]


_RANK: dict[Level, int] = {"problem": 0, "warning": 1, "note": 2, "ok": 3}


def examination(servers: tuple[str, ...], findings: list[Finding]) -> Examination:
    """All findings, in order; those of one level as they were made."""
    levels = {finding.level for finding in findings}
    state: State = "cannot_work" if "problem" in levels else "warnings" if "warning" in levels else "fine"
    return Examination(state=state, servers=servers, findings=tuple(sorted(findings, key=lambda f: _RANK[f.level])))


def from_error(check: str, where: str, error: VTraceError, level: Level = "problem") -> Finding:
    """An error as a finding."""
    place = f"{where}: {error.where}" if where and error.where else where or error.where
    return Finding(
        level=level,
        check=check,
        where=place,
        what=error.what,
        why=error.why or "VTrace needs it",
        next_step=error.next_step,
    )
