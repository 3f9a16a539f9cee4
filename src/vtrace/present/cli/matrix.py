"""The loss matrix of a task with several pairs: who to whom, how much, and a letter for why.

Made for 80 columns and for people: where there are many rows or columns, those that are all the same are one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from string import ascii_lowercase
from textwrap import wrap

import msgspec

from vtrace.model.answer import Answer, PairAnswer, Verdict

WIDTH = 80
# More rows than this, and those that are the same become one.
MANY_ROWS = 12
# More rows than this are never printed, nor causes.
MOST_ROWS = 30
MOST_CAUSES = 20
MOST_GROUPS = 6
MOST_LINES_OF_NAMES = 3
MARGIN = "  "
NOT_ASKED, SILENT, UNANSWERED, UNKNOWN, LOST = "·", "–", "!", "?", "✗"
# What a cell says by a mark of its own.
_MARKED = ("source_silent", "guest_not_answering")
_LOST_KINDS = ("dropped", "lost_between")
_LEGEND = {
    SILENT: "nothing sent",
    UNANSWERED: "delivered, and nothing came back",
    UNKNOWN: "not enough evidence",
    LOST: "lost, without a share",
    NOT_ASKED: "not asked for",
}


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """What several pairs' verdicts have in common: how it ended, where and why.

    Attributes:
        verdicts: those of the pairs, the one with most packets first.
    """

    letter: str
    verdicts: tuple[Verdict, ...]

    @property
    def packets(self) -> int:
        return sum(verdict.packets for verdict in self.verdicts)


def has_several_pairs(answer: Answer) -> bool:
    """Whether the answer is about more than one pair; one in both directions needs no matrix."""
    return len({(pair.from_, pair.to) for pair in answer.pairs}) > 1


def causes(answer: Answer) -> tuple[Cause, ...]:
    """All that went wrong, each with a letter, in the order of the verdicts."""
    found: dict[object, list[Verdict]] = defaultdict(list)
    for verdict in answer.verdicts:
        if _needs_letter(verdict):
            found[_cause_key(verdict)].append(verdict)
    return tuple(
        Cause(letter=letter(number), verdicts=tuple(verdicts)) for number, verdicts in enumerate(found.values())
    )


def letter(number: int) -> str:
    """a to z, aa, ab and so on."""
    rest, last = divmod(number, len(ascii_lowercase))
    return (letter(rest - 1) if rest else "") + ascii_lowercase[last]


def matrix(answer: Answer, found: Sequence[Cause]) -> list[str]:
    """The matrix and what its marks mean, as plain text."""
    table = _Table(answer, found)
    lines = [table.title()]
    for block in table.blocks():
        lines += block
    lines += [MARGIN + line for line in table.key()]
    for cause in found[:MOST_CAUSES]:
        lines += wrap(_footnote(cause), WIDTH, initial_indent=MARGIN, subsequent_indent=MARGIN * 2)
    return lines


def _footnote(cause: Cause) -> str:
    """A letter's reason and place."""
    first = cause.verdicts[0]
    where = first.where
    place = f"{where.vfd or 'unknown'} on {where.server or 'unknown'}"
    if where.next_server:
        place += f" to {where.next_server}"
    elif where.port:
        place += f", port {where.port}"
    passing = f" ({first.pattern})" if first.pattern in ("transient", "unclear") else ""
    return f"{cause.letter} {first.why.code if first.why else first.kind}: {place}{passing}"


def _needs_letter(verdict: Verdict) -> bool:
    if verdict.why is not None and verdict.why.code in _MARKED:
        return False
    return verdict.pattern is not None or verdict.kind in _LOST_KINDS or verdict.why is not None


def _cause_key(verdict: Verdict) -> tuple[object, ...]:
    why = verdict.why
    thing = (why.code, why.object and (why.object.type, why.object.uuid, why.object.name)) if why else None
    return (verdict.kind, verdict.pattern, verdict.where, thing)


class _Cells:
    """The text of each cell: `part` of a pair and direction, `text` of a row and a column."""

    def __init__(self, answer: Answer, found: Sequence[Cause]) -> None:
        self._answer = answer
        self._letters = {_cause_key(cause.verdicts[0]): cause.letter for cause in found}
        self._pairs = {(p.from_, p.to, p.direction): p for p in answer.pairs}
        self._directions = {"both": ("forward", "reply")}.get(answer.task.direction, (answer.task.direction,))

    def text(self, row: str, column: str) -> str:
        parts = [self._pairs.get((row, column, direction)) for direction in self._directions]
        if len(parts) > 1 and parts[0] and not parts[1]:
            # What one VM answers another is, without a port named, the other pair's forward direction.
            parts[1] = self._pairs.get((column, row, "forward"))
        if not any(parts):
            return NOT_ASKED
        return "/".join(self.part(pair) if pair else NOT_ASKED for pair in parts)

    def part(self, pair: PairAnswer) -> str:
        """How much of a pair's packets is lost in a direction, and the letters of why."""
        verdicts = [self._answer.verdicts[number] for number in pair.verdicts]
        letters = "".join(sorted({self._letters.get(_cause_key(v), "") for v in verdicts}, key=_in_order))
        codes = {v.why.code for v in verdicts if v.why}
        unanswered = UNANSWERED if "guest_not_answering" in codes else ""
        if not pair.colored:
            silent = any(v.kind == "no_traffic" for v in verdicts)
            mark = LOST if pair.loss == "yes" else unanswered or (SILENT if silent else UNKNOWN)
            return mark + letters
        share = _percent(pair.loss_ratio)
        if pair.loss == "yes" and not pair.loss_ratio:
            share = LOST
        doubt = UNKNOWN if pair.loss == "unknown" and share != UNKNOWN else ""
        return share + doubt + letters + unanswered


def _in_order(letters: str) -> tuple[int, str]:
    return len(letters), letters


def _percent(ratio: float | None) -> str:
    """A share in %, never rounded to none or all."""
    if ratio is None:
        return UNKNOWN
    rounded = round(ratio * 100)
    if ratio and not rounded:
        return "<1"
    return ">99" if rounded == 100 and ratio < 1 else str(rounded)


class _Table:
    def __init__(self, answer: Answer, found: Sequence[Cause]) -> None:
        self._direction = answer.task.direction
        cells = _Cells(answer, found)
        rows = list(dict.fromkeys(pair.from_ for pair in answer.pairs))
        columns = list(dict.fromkeys(pair.to for pair in answer.pairs))
        columns = rows if set(columns) == set(rows) else columns
        self._text = {(row, column): cells.text(row, column) for row in rows for column in columns}
        self._rows: list[tuple[str, ...]] = [(row,) for row in rows]
        self._columns: list[tuple[str, ...]] = [(column,) for column in columns]
        self._left_out = 0
        if len(rows) > MANY_ROWS or not self._fits():
            self._group(rows, columns, alike=True) or self._group(rows, columns, alike=False)
        self._swapped = len(self._columns) > len(self._rows) and not self._fits()
        if self._swapped:
            self._rows, self._columns = self._columns, self._rows
            self._text = {(column, row): text for (row, column), text in self._text.items()}
        if len(self._rows) > MOST_ROWS:
            self._leave_out()
        self._numbered = not self._fits()

    def _group(self, rows: Sequence[str], columns: Sequence[str], *, alike: bool) -> bool:
        """Makes one of rows that are the same, and of columns; whether each cell is still that of all behind it.

        Args:
            alike: a cell that was not asked for is like any other: that of a VM's own row and column.
        """
        self._rows = _grouped(rows, {r: tuple(self._text[r, c] for c in columns) for r in rows}, alike=alike)
        self._columns = _grouped(columns, {c: tuple(self._text[r, c] for r in rows) for c in columns}, alike=alike)
        return all(len(self._texts(r, c) - {NOT_ASKED}) <= 1 for r in self._rows for c in self._columns)

    def _texts(self, row: tuple[str, ...], column: tuple[str, ...]) -> set[str]:
        return {self._text[one, other] for one in row for other in column}

    def _leave_out(self) -> None:
        """Keeps the rows that say most: those where something is wrong."""
        order = sorted(self._rows, key=lambda row: set(self._cells_of(row)) <= {"0", "0/0", NOT_ASKED, SILENT})
        shown = set(order[:MOST_ROWS])
        self._left_out = sum(len(row) for row in self._rows if row not in shown)
        self._rows = [row for row in self._rows if row in shown]

    def title(self) -> str:
        ends = "column to row" if self._swapped != (self._direction == "reply") else "row to column"
        what = "Loss of the reply" if self._direction == "reply" else "Loss"
        return f"{what} in %, {ends}{' / back' if self._direction == 'both' else ''}:"

    def _cells_of(self, row: tuple[str, ...]) -> list[str]:
        return [self._cell(row, column) for column in self._columns]

    def _cell(self, row: tuple[str, ...], column: tuple[str, ...]) -> str:
        """What the cells of a group of rows and columns all say, whatever a VM's own row and column do."""
        return next(iter(self._texts(row, column) - {NOT_ASKED}), NOT_ASKED)

    def _fits(self) -> bool:
        return self._row_width() + sum(len(MARGIN) + self._width(c, _label(c)) for c in self._columns) <= WIDTH

    def _row_width(self) -> int:
        return len(MARGIN) + max(len(_label(row)) for row in self._rows)

    def _width(self, column: tuple[str, ...], head: str) -> int:
        return max(len(head), *(len(self._cell(row, column)) for row in self._rows))

    def _heads(self) -> dict[tuple[str, ...], str]:
        """What stands above each column: its name, or its number where the names are too long."""
        if not self._numbered:
            return {column: _label(column) for column in self._columns}
        return {column: f"[{number}]" for number, column in enumerate(self._columns, 1)}

    def blocks(self) -> Iterator[list[str]]:
        """The rows of cells, in as many blocks as it takes to have all columns."""
        heads = self._heads()
        widest = max(self._width(column, head) for column, head in heads.items())
        room = max(1, (WIDTH - self._row_width()) // (widest + len(MARGIN)))
        step = room if self._numbered else len(self._columns)
        for start in range(0, len(self._columns), step):
            columns = self._columns[start : start + step]
            widths = [self._width(column, heads[column]) for column in columns]
            yield [
                self._line("", (heads[column] for column in columns), widths),
                *(self._line(_label(row), (self._cell(row, c) for c in columns), widths) for row in self._rows),
            ]

    def _line(self, name: str, texts: Iterable[str], widths: Sequence[int]) -> str:
        cells = (f"{MARGIN}{text:>{width}}" for text, width in zip(texts, widths, strict=True))
        return f"{MARGIN}{name:<{self._row_width() - len(MARGIN)}}{''.join(cells)}".rstrip()

    def key(self) -> Iterator[str]:
        """What is behind names and marks."""
        if self._left_out:
            yield f"and {self._left_out} more rows: --json has them"
        if self._numbered:
            heads = self._heads()
            yield from _packed([f"{heads[column]} {_label(column)}" for column in self._columns], MOST_ROWS)
        groups = [group for group in dict.fromkeys((*self._rows, *self._columns)) if len(group) > 1]
        for group in groups[:MOST_GROUPS]:
            yield from _packed([f"{_label(group)}: {group[0]}", *group[1:]], MOST_LINES_OF_NAMES)
        seen = "".join(self._text.values())
        marks = [f"{mark} {words}" for mark, words in _LEGEND.items() if mark in seen]
        if marks:
            yield from wrap("; ".join(marks), WIDTH - len(MARGIN))


def _grouped(names: Sequence[str], cells: Mapping[str, tuple[str, ...]], *, alike: bool) -> list[tuple[str, ...]]:
    """The names, those with the same cells together."""
    groups: list[tuple[list[str], list[str]]] = []
    for name in names:
        own = cells[name]
        for members, known in groups:
            if all(a == b or (alike and NOT_ASKED in (a, b)) for a, b in zip(own, known, strict=True)):
                members.append(name)
                known[:] = [b if a == NOT_ASKED else a for a, b in zip(own, known, strict=True)]
                break
        else:
            groups.append(([name], list(own)))
    return [tuple(members) for members, _ in groups]


def _label(group: tuple[str, ...]) -> str:
    return group[0] if len(group) == 1 else f"{group[0]} +{len(group) - 1}"


def _packed(texts: Sequence[str], most: int) -> list[str]:
    """A list in at most so many lines, each as full as can be; no text is broken."""
    lines = [texts[0]]
    for text in texts[1:]:
        longer = f"{lines[-1]}, {text}"
        if len(MARGIN) + len(longer) < WIDTH:
            lines[-1] = longer
        else:
            lines.append(text)
    return lines if len(lines) <= most else [*lines[: most - 1], "…: --json has all"]
