"""Holds an answer against what was injected: is the loss right, the place, and the cause?

The answer is read as its published JSON document, nothing else of VTrace's is known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from vtrace.bench.fault import Right

UNKNOWN = ("unknown", "")


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """The right answer of a case, with the uuids of its rows.

    Attributes:
        loss: of the task.
        verdicts: for each fault, or for the healthy flow, what has to be said.
    """

    loss: str
    verdicts: tuple[ExpectedVerdict, ...]


class ExpectedVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict; an empty code stands for no cause."""

    kind: str
    server: str
    vfd: str
    vfd_kind: str
    next_server: str = ""
    direction: str = "forward"
    code: str = ""
    object: str = ""
    uuid: str = ""

    def place(self) -> tuple[str, ...]:
        return (self.kind, self.direction, self.server, self.vfd, self.vfd_kind, self.next_server)


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What of an answer was right.

    Attributes:
        given: the codes that were given, "" for no cause; for the confusion matrix.
        unknown: it said that it does not know, where that is not the right answer.
        false_alarm: loss "yes" where nothing was lost.
    """

    loss: bool
    where: bool
    why: bool
    unknown: bool
    false_alarm: bool
    given: tuple[str, ...]

    @property
    def all_three(self) -> bool:
        return self.loss and self.where and self.why


def expected(rights: Sequence[tuple[Right, str, str]]) -> Expected:
    """The right answer, of (right, code, uuid) of every fault."""
    verdicts = tuple(
        ExpectedVerdict(
            kind=right.kind,
            server=right.server,
            vfd=right.vfd,
            vfd_kind=right.vfd_kind,
            next_server=right.next_server,
            direction=right.direction or "forward",
            code=code,
            object=right.object or (right.row.table if right.row else ""),
            uuid=uuid,
        )
        for right, code, uuid in rights
    )
    losses = {right.loss for right, _, _ in rights}
    return Expected(loss=next(loss for loss in ("yes", "unknown", "no") if loss in losses), verdicts=verdicts)


def judge(right: Expected, document: Mapping[str, Any]) -> Judgement:
    """One fault is judged on `verdicts[0]`; several on the set of verdicts that say a loss."""
    verdicts: list[dict[str, Any]] = list(document.get("verdicts", ()))
    loss = document.get("loss", "unknown")
    if len(right.verdicts) == 1:
        wanted = right.verdicts[0]
        # Where nothing is lost all packets arrive first; an unanswered direction is told beside that.
        first = next((v for v in verdicts if v["direction"] == wanted.direction), None) if right.loss == "no" else None
        pairs = [(wanted, first or (verdicts[0] if verdicts else None))]
        given: tuple[str, ...] = (_code(pairs[0][1]),)
    else:
        lost = [v for v in verdicts if v["pattern"] == "persistent" or v["kind"] == "no_traffic"]
        pairs = _matched(right.verdicts, lost)
        given = tuple(_code(v) for v in lost)
    return Judgement(
        loss=loss == right.loss,
        where=all(found is not None and _place(found) == wanted.place() for wanted, found in pairs),
        why=all(found is not None and _is_cause(wanted, found) for wanted, found in pairs),
        unknown=(loss == "unknown" and right.loss != "unknown") or "unknown" in given,
        false_alarm=loss == "yes" and right.loss == "no",
        given=given,
    )


def _matched(
    wanted: Sequence[ExpectedVerdict], lost: Sequence[dict[str, Any]]
) -> list[tuple[ExpectedVerdict, dict[str, Any] | None]]:
    """Each that is wanted with one of its own: the right one, else one of the same place; one too many is wrong."""
    left, found = list(lost), []
    for right in sorted(wanted, key=lambda right: not any(_is_right(right, v) for v in left)):
        own = next((v for v in left if _is_right(right, v)), None)
        own = own or next((v for v in left if _place(v) == right.place()), None)
        if own is not None:
            left.remove(own)
        found.append((right, own))
    return [*found, *((wanted[0], None) for _ in left[:1])]


def _is_right(wanted: ExpectedVerdict, verdict: Mapping[str, Any]) -> bool:
    return _place(verdict) == wanted.place() and _is_cause(wanted, verdict)


def _place(verdict: Mapping[str, Any]) -> tuple[str, ...]:
    where = verdict["where"]
    beyond = where["next_server"] if verdict["kind"] == "lost_between" else ""
    words = (verdict["kind"], verdict["direction"], where["server"], where["vfd"], where["vfd_kind"], beyond)
    return tuple(word or "" for word in words)


def _code(verdict: Mapping[str, Any] | None) -> str:
    why = verdict["why"] if verdict else None
    return str(why["code"]) if why else ""


def _is_cause(wanted: ExpectedVerdict, verdict: Mapping[str, Any]) -> bool:
    if _code(verdict) != wanted.code:
        return False
    named = (verdict["why"] or {}).get("object") or {}
    if wanted.uuid and named.get("uuid") != wanted.uuid:
        return False
    return not wanted.object or named.get("type") == wanted.object
