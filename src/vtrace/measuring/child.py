"""One measured run, in a process of its own: prints what it took as JSON.

    python -m vtrace.measuring.child FORM --cores 0,1 --warm SMALL.blobs X.blobs

What is imported and compiled is timed apart: a run on a small file comes first. Memory is that of this program alone:
`ru_maxrss` would tell of the program that started it, too. Where it has workers, theirs is added.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from vtrace.memory import bytes_told, keep_freed_memory

if TYPE_CHECKING:
    from vtrace.measuring.tally import Tally

    Form = Callable[[Path, int], Tally]

KERNEL = "kernel"
STAGES = "stages"
FORMS = {
    KERNEL: "vtrace.measuring.by_kernel:run",
    "kernel-paths": "vtrace.measuring.by_kernel:run_paths",
    "polars": "vtrace.measuring.by_polars:run",
    "pandas": "vtrace.measuring.by_pandas:run",
    "duckdb": "vtrace.measuring.by_duckdb:run",
}
"""Each formulation and the function that is it. STAGES is the kernel with a stopwatch in it."""

_MEBI = 1 << 20
_LOOK_S = 0.01


def main() -> int:
    """Runs one formulation once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("form", choices=(*FORMS, STAGES))
    parser.add_argument("file", type=Path)
    parser.add_argument("--cores", required=True, help="numbers of the cores that it may use")
    parser.add_argument("--warm", type=Path, required=True, help="a small file for the first run")
    args = parser.parse_args()
    cores = [int(core) for core in args.cores.split(",")]
    # Before anything is imported that makes a thread for each core.
    os.sched_setaffinity(0, cores)
    keep_freed_memory()
    sys.stdout.buffer.write(msgspec.json.encode(_run(args.form, args.file, args.warm, len(cores))))
    return 0


def _run(name: str, file: Path, warm: Path, cores: int) -> dict[str, Any]:
    """The fields of `running.Run`."""
    began = time.perf_counter()
    form = _form(name)
    import_s = time.perf_counter() - began
    form(warm, cores)
    warm_s = time.perf_counter() - began - import_s
    gc.collect()
    _forget_peak()
    before, cpu_s, load = _memory(), _cpu_s(), os.getloadavg()[0]
    stages: dict[str, Any] = {}
    parts_s = 0.0
    began = time.perf_counter()
    if name == STAGES:
        from vtrace.measuring.stopwatch import stopwatch

        with stopwatch() as watch:
            began = time.perf_counter()
            tally = form(file, cores)
            inner_s = time.perf_counter() - began
        stages = {stage: (spent.wall_s, spent.cpu_s) for stage, spent in watch.spent.items()}
        parts_s = watch.whole_s["parts"]
    else:
        tally = form(file, cores)
        inner_s = time.perf_counter() - began
    after, used = _memory(), _cpu_s()
    began = time.perf_counter()
    form(file, cores)
    again_s = time.perf_counter() - began
    # To look at workers' memory takes time: that is done in a run of its own.
    peak_mb = _highest_mb(lambda: form(file, cores)) if _had_workers() else after["VmHWM"]
    return {
        "import_s": import_s,
        "warm_s": warm_s,
        "inner_s": inner_s,
        "again_s": again_s,
        "cpu_s": sum(used) - sum(cpu_s),
        "system_s": used[1] - cpu_s[1],
        "before_mb": before["VmRSS"],
        "peak_mb": peak_mb,
        "mapped_mb": after["RssFile"] - before["RssFile"],
        "tally": tally,
        "stages": stages,
        "parts_s": parts_s,
        "load": load,
    }


def _form(name: str) -> Form:
    module, _, function = FORMS[KERNEL if name == STAGES else name].partition(":")
    form: Form = getattr(importlib.import_module(module), function)
    return form


def _forget_peak() -> None:
    """Lets VmHWM begin again from what is in use now (proc(5), /proc/pid/clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def _memory() -> dict[str, float]:
    """What /proc/self/status says of this process's memory, in MiB."""
    return {name: told / _MEBI for name, told in bytes_told("self/status").items()}


def _cpu_s() -> tuple[float, float]:
    """The CPU time of all threads and of processes that have ended, in the program and in the system."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime for used in both), sum(used.ru_stime for used in both)


def _had_workers() -> bool:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0


def _highest_mb(work: Callable[[], object]) -> float:
    """The most memory that this process and its children use, in MiB, looked at every 10 ms while it works.

    What they share counts once (Pss, proc(5)).
    """
    highest, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(_LOOK_S):
            used = 0
            for process in [*Path(f"/proc/self/task/{os.getpid()}/children").read_text().split(), "self"]:
                # It may have ended.
                with contextlib.suppress(OSError):
                    used += bytes_told(f"{process}/smaps_rollup").get("Pss", 0)
            highest.append(used)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        work()
    finally:
        done.set()
        looking.join()
    return max(highest) / _MEBI


if __name__ == "__main__":
    sys.exit(main())
