"""Whether the run behind entries on a bridge still lives: a file that each run keeps locked until it ends.

The kernel gives the lock back however a process ends. Without the file nothing is known: such a run is let be.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
from collections.abc import Sequence
from pathlib import Path

from vtrace.color import registry
from vtrace.model.openflow import InstalledEntry


class RunMark:
    """The file of one run on one bridge."""

    def __init__(self, rundir: str, bridge: str) -> None:
        self._rundir = rundir
        self._bridge = bridge
        self._path: Path | None = None
        self._descriptor = -1

    def hold(self, generation: int) -> None:
        """Shows that the run of a generation lives; where the file can't be made it only is not shown."""
        path = _path(self._rundir, self._bridge, generation)
        with contextlib.suppress(OSError):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._path = path
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def drop(self) -> None:
        """Takes the file away: nothing of the run is left."""
        if self._descriptor >= 0:
            if self._path is not None:
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def dead(self, ours: Sequence[InstalledEntry]) -> list[int]:
        """The generations among entries of all runs whose runs have died. Hold the bridge's lock.

        Files that dead runs left go.
        """
        standing = {registry.generation_of(e.cookie) for e in ours if registry.is_ours(e.cookie)}
        found = []
        for path in Path(self._rundir).glob(f"vtrace.{glob.escape(self._bridge)}.*.run"):
            generation = path.name.removesuffix(".run").rpartition(".")[2]
            with contextlib.suppress(OSError):
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                finally:
                    os.close(descriptor)
                if generation.isdecimal() and int(generation) in standing:
                    found.append(int(generation))
        return sorted(found)


def _path(rundir: str, bridge: str, generation: int) -> Path:
    return Path(rundir) / f"vtrace.{bridge}.{generation}.run"
