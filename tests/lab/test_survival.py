"""What VTrace survives: a fixed core of the survival matrix, and a sample of the rest; all of it with VTRACE_SOAK=1.

VTRACE_SURVIVAL names the file that keeps the outcomes: cases that it has are not run again. A page of them stands
beside it (`.md`) when the run is over.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from faults.running import IN_FLIGHT, is_soak
from survival import events, judging, outcome, report, trial
from survival.cases import KNOWN, Case, chosen, whole
from survival.outcome import Outcome, Results
from survival.trial import Found
from test_lab import on, vtrace

from vtrace.lab import state as lab_state

pytestmark = pytest.mark.lab

DISK = "size=96m"
"""Of the file system that a lab of these has for itself, so that it can be full."""
CONTROL_STEP_S = 1.5
LOGS = outcome.ROOT / "out" / "survival-logs"
UNHURT = ("analyzer",)
"""Places where an event is nobody's business but VTrace's: what it costs tenants needs no trial."""


class Labs:
    """One lab at a time, on a small file system; another after a case that went wrong. What events cost on it."""

    def __init__(self) -> None:
        self._directory = ""
        self.name = ""
        self.versions = ""
        self.controls: dict[tuple[str, str, float], Found] = {}

    def ready(self) -> str:
        if not self.name:
            self._directory = tempfile.mkdtemp(prefix="vs", dir="/run")
            subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "none", self._directory], check=True)
            os.environ["VTRACE_LAB_DIR"] = self._directory
            self.name = f"s{secrets.token_hex(2)}"
            vtrace(self.name, "up", "internet")
            self.versions = self._versions()
        return self.name

    def _versions(self) -> str:
        switch, controller = (on(self.name, "hv1", name, "--version") for name in ("ovs-vswitchd", "ovn-controller"))
        return f"Open vSwitch {switch.split()[3]}, OVN {controller.split()[1]}"

    def control(self, case: Case, event_s: float) -> Found | None:
        """The case's event with nothing of ours there, for as long or a little longer."""
        if case.place in UNHURT:
            return None
        longer_s = CONTROL_STEP_S * math.ceil(event_s / CONTROL_STEP_S)
        key = (case.event, case.place, longer_s)
        if key not in self.controls:
            self.controls[key] = trial.control(self.ready(), case, longer_s)
        return self.controls[key]

    def keep_logs(self, to: Path) -> None:
        """What the daemons wrote, for whoever looks into a case that went wrong."""
        to.mkdir(parents=True, exist_ok=True)
        for log in lab_state.directory(self.name).glob("nodes/*/*.log") if self.name else ():
            shutil.copy(log, to / f"{log.parent.name}-{log.name}")

    def down(self) -> None:
        """Takes the lab down, in whatever state it is."""
        name, self.name = self.name, ""
        self.controls.clear()
        if name:
            try:
                vtrace(name, "down")
            finally:
                # Lazily: what a case killed may still have a file open.
                subprocess.run(["umount", "--lazy", self._directory], check=True)
                shutil.rmtree(self._directory, ignore_errors=True)
                os.environ.pop("VTRACE_LAB_DIR", None)


@pytest.fixture(scope="module")
def labs() -> Iterator[Labs]:
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    found = Labs()
    try:
        yield found
    finally:
        found.down()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """Kept from run to run in the whole matrix, or where a file is named."""
    if is_soak() or os.environ.get("VTRACE_SURVIVAL"):
        found = outcome.opened()
    else:
        found = Results(tmp_path_factory.mktemp("survival") / "results.jsonl", any_commit=False)
    try:
        yield found
    finally:
        found.close()
        found.path.with_suffix(".md").write_text(report.page(found.outcomes, list(whole())))


@pytest.mark.timeout(400)
@pytest.mark.parametrize("case", chosen(), ids=lambda case: case.name)
def test_survives(labs: Labs, results: Results, case: Case) -> None:
    if results.passed(case):
        return
    if case.event.startswith("clock-") and not events.FAKETIME.exists():
        pytest.skip("faketime is not there")
    began = datetime.now(UTC).isoformat(timespec="seconds")
    found, control = None, None
    try:
        found = trial.run(labs.ready(), case)
        if found.lost > IN_FLIGHT:
            control = labs.control(case, found.event_s)
        said = judging.complaints(case, found, control)
    except Exception as error:
        said = [f"{type(error).__name__}: {error}"]
        raise
    finally:
        results.add(made(case, said, found, control, began, labs.versions))
        if said:
            labs.keep_logs(LOGS / case.name)
            labs.down()
    if said and case.name in KNOWN:
        pytest.xfail(KNOWN[case.name])
    text = found.told.text() if found.told else ""
    assert not said, "\n".join([*said, text])


def in_words(verdict: dict[str, Any]) -> str:
    """A verdict in a few words."""
    where, why = verdict["where"], verdict["why"] or {}
    return f"{verdict['packets']} {verdict['kind']} {where['server']} {why.get('code', '')} {why.get('summary', '')}"[
        :240
    ]


def made(case: Case, said: list[str], found: Found | None, control: Found | None, date: str, versions: str) -> Outcome:
    """The outcome of a case, as it is kept."""
    if found is None or found.told is None:
        return Outcome(case=case, complaints=tuple(said), date=date, versions=versions)
    document = found.told.document
    error = document.get("error")
    words = [f"{error['what']}: {error['why']}"] if error else document.get("notes", [])
    return Outcome(
        case=case,
        complaints=tuple(said),
        date=date,
        versions=versions,
        exit_code=found.told.exit_code,
        state=document.get("task", {}).get("state", ""),
        loss=document.get("loss", ""),
        says=tuple(words),
        verdicts=tuple(map(in_words, document.get("verdicts", ()))),
        took_s=round(found.told.took_s, 2),
        event_s=round(found.event_s, 2),
        sent=found.sent,
        lost=found.lost,
        control_lost=control.lost if control else 0,
        control_s=round(control.event_s, 2) if control else 0.0,
        colored=found.colored.total(),
        left_s=round(found.left_s, 2),
    )
