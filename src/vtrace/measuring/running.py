"""Runs every formulation on every store and number of cores, each time in a process of its own, by turns."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import msgspec

from vtrace.errors import CannotWorkError, UsageError
from vtrace.measuring.child import KERNEL, STAGES
from vtrace.measuring.tally import Tally

# Time limit of one run: for its start and compilation, and per record.
_START_S = 300.0
_SECONDS_PER_RECORD = 1e-4
_READ_AHEAD = 1 << 24


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured.

    Attributes:
        form: of `child.FORMS`, or STAGES; cores: how many; order: in which order the records are.
    """

    form: str
    cores: int
    order: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What a run took, and what it found.

    Attributes:
        import_s: to import it; warm_s: the first small run, which compiles or loads what was compiled.
        inner_s: from the file to the answers; cpu_s: of all threads and processes; system_s: in the system, most of it
            to get memory.
        again_s: the same once more in the same process, which has its memory by then.
        before_mb, peak_mb: memory in use before the run, and at most during it, that of workers included; mapped_mb:
            how much more of files was mapped into memory at its end, which is in `peak_mb` and belongs to the page
            cache.
        stages: [wall, CPU] seconds of each stage; parts_s: how long parts were worked on.
        load: the machine's load average before the run: others may use it, too.
    """

    import_s: float
    warm_s: float
    inner_s: float
    again_s: float
    cpu_s: float
    system_s: float
    before_mb: float
    peak_mb: float
    mapped_mb: float
    tally: Tally
    stages: dict[str, tuple[float, float]]
    parts_s: float
    load: float


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """A file of records, and how many it has."""

    order: str
    path: Path
    records: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be measured; warm: a small store."""

    forms: tuple[str, ...]
    cores: tuple[int, ...]
    stores: tuple[Store, ...]
    warm: Path
    runs: int

    def setups(self) -> list[Setup]:
        """In the order of the first round."""
        measured = list(product(self.forms, self.cores))
        # A stopwatch sees what its own process does: all of it on one core.
        measured += [(STAGES, 1)] if KERNEL in self.forms else []
        return [Setup(form=form, cores=cores, order=store.order) for store in self.stores for form, cores in measured]


def available_cores(wanted: Sequence[int]) -> list[int]:
    """The cores that this process may use.

    Raises:
        UsageError: more are wanted.
    """
    cores = sorted(os.sched_getaffinity(0))
    if max(wanted) > len(cores):
        why = f"there are {len(cores)}"
        raise UsageError(f"{max(wanted)} cores are more than there are", "--cores", why, "Ask for fewer")
    return cores


def measure(plan: Plan, say: Callable[[str], None]) -> dict[Setup, list[Run]]:
    """All rounds. A round has one run of every setup; the next begins with another one, on another core."""
    cores = available_cores(plan.cores)
    paths = {store.order: store for store in plan.stores}
    for store in plan.stores:
        _into_page_cache(store.path)
    found: dict[Setup, list[Run]] = {setup: [] for setup in plan.setups()}
    for number in range(plan.runs):
        setups = plan.setups()
        begin = number * len(setups) // plan.runs
        for setup in [*setups[begin:], *setups[:begin]]:
            chosen = [cores[(number + n) % len(cores)] for n in range(setup.cores)]
            run = run_once(setup.form, chosen, paths[setup.order], plan.warm)
            found[setup].append(run)
            rate = paths[setup.order].records / run.inner_s / 1e6
            where = f"{setup.order}, {setup.form} on {setup.cores}"
            say(f"round {number + 1} of {plan.runs}, {where}: {run.inner_s:.2f} s, {rate:.1f} M records/s")
    return found


def compile_s(plan: Plan) -> float:
    """How long the kernel's first run takes where nothing is compiled yet, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(order="", path=plan.warm, records=0)
        cores = available_cores((1,))[:1]
        return run_once(KERNEL, cores, store, plan.warm, {"NUMBA_CACHE_DIR": folder}).warm_s


def run_once(
    form: str, cores: Sequence[int], store: Store, warm: Path, environment: dict[str, str] | None = None
) -> Run:
    """One run in a process of its own.

    Raises:
        CannotWorkError: it failed or took too long.
    """
    words = [form, str(store.path), "--cores", ",".join(map(str, cores)), "--warm", str(warm)]
    command = [sys.executable, "-m", "vtrace.measuring.child", *words]
    threads = {"POLARS_MAX_THREADS": str(len(cores)), "OMP_NUM_THREADS": str(len(cores))}
    timeout_s = _START_S + _SECONDS_PER_RECORD * store.records
    what = f"The run of {form} failed"
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=timeout_s,
            check=True,
            env={**os.environ, **threads, **(environment or {})},
        )
    except subprocess.TimeoutExpired as error:
        why = f"it took more than {timeout_s:.0f} s"
        raise CannotWorkError(what, str(store.path), why, "Ask for fewer records") from error
    except subprocess.CalledProcessError as error:
        why = error.stderr.decode(errors="replace")[-2000:]
        raise CannotWorkError(what, str(store.path), f"exit code {error.returncode}: {why}", "") from error
    return msgspec.json.decode(done.stdout, type=Run)


def _into_page_cache(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(_READ_AHEAD):
            pass
