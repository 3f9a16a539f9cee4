"""The topology changes while a task runs: packets before and after are answered by their own way, and it is named.

A fixed core, and a sample of the rest (VTRACE_SAMPLE_SEED); all of it with VTRACE_SOAK=1.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from changing import catalogue, trial
from changing.trial import Change, Found
from faults import answers, matrix
from faults.running import is_soak
from test_lab import standing

pytestmark = pytest.mark.lab

CORE = ("vm-to-unarmed", "backend-added", "backend-removed", "gateway-fails-over-out", "route-removed-and-added")
SAMPLE_SIZE = 2
MISSING_SHARE = 0.15
"""Of packets whose evidence may be missing: those on their way while the entries move."""
UNDER_WAY = 12
"""Packets, of all that were lost, that the answer may count more: in a capture's last moments, say."""


def chosen() -> list[Change]:
    """The changes of this run, those of one topology together."""
    known = catalogue.known()
    others = [name for name in known if name not in CORE and not known[name].slow]
    sample = random.Random(matrix.seed()).sample(others, SAMPLE_SIZE)
    names = list(known) if is_soak() else [*CORE, *sample]
    return sorted((known[name] for name in names), key=lambda change: change.topology)


class Labs:
    """One lab at a time, of the topology that the next change needs."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._topology = ""
        self._name = ""

    def of(self, topology: str) -> str:
        if topology != self._topology:
            self.close()
            self._name = self._stack.enter_context(standing(topology))
            self._topology = topology
        return self._name

    def close(self) -> None:
        self._stack.close()
        self._topology = ""


@pytest.fixture(scope="module")
def labs() -> Iterator[Labs]:
    found = Labs()
    try:
        yield found
    finally:
        found.close()


@pytest.mark.parametrize("change", chosen(), ids=lambda change: change.name)
def test_change(labs: Labs, change: Change) -> None:
    try:
        found = trial.run(labs.of(change.topology), change)
    finally:
        if change.hangs:
            labs.close()
    check_named(found, change)
    check_counts(found, change)
    check_losses(found, change)
    assert not found.colored, found.text()
    assert not found.left, found.text()


def check_named(found: Found, change: Change) -> None:
    """Each change is named in words, with its row; what is nobody's business is not."""
    made = found.answer.document["changes"]
    for words in change.says:
        assert any(words in one["text"] for one in made), f"{words}: {found.text()}"
    for table in change.object_types:
        assert any((one["object"] or {}).get("type") == table for one in made), f"{table}: {found.text()}"
    assert not (change.silent and made), found.text()


def check_counts(found: Found, change: Change) -> None:
    """The sums are right, and no more is called lost than was."""
    # A guest whose link comes back sends at once what waited for its neighbor: more than the meters let copy.
    answers.check_sound(found.answer, change.packets, alone=not change.bursts, hung=change.hangs)
    counts = found.answer.document["packets"]
    assert counts["dropped"] + counts["lost_between"] <= found.lost + UNDER_WAY, found.text()
    assert counts["evidence_missing"] <= MISSING_SHARE * counts["colored"] + UNDER_WAY, found.text()
    assert counts["delivered"] + counts["left_domain"] <= len(found.arrived), found.text()


def check_losses(found: Found, change: Change) -> None:
    """What the change brought stands, what it healed has passed, and both are told by their reasons."""
    document = found.answer.document
    assert document["loss"] in change.loss, found.text()
    lost = [v for v in document["verdicts"] if v["kind"] in ("dropped", "lost_between")]
    if change.patterns and "no" in change.loss and found.lost <= UNDER_WAY:
        # It may lose nothing, and then nothing may be said to be lost.
        assert document["loss"] == "no", found.text()
    elif change.patterns:
        assert lost, found.text()
        assert document["pattern"] in change.patterns, found.text()
    else:
        assert {v["pattern"] for v in lost} <= {"transient"}, found.text()
    if change.codes:
        most = max(lost, key=lambda verdict: verdict["packets"])
        assert most["why"]["code"] in change.codes, found.text()
