"""Which colors were in use on a bridge lately: its datapath may hold flows that match them still.

A flow stays cached for ten seconds after its last packet (other_config:max-idle, ovs-vswitchd.conf.db(5)), and may act
by entries that are gone (docs/adr/0019). So no task takes a color that another one had just before it, if it can take
another. Where the file can't be read or written nothing is known.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from vtrace.color.registry import POOL_2

# What was that long ago is as good as never.
KEPT_S = 120.0
_LONGEST_FILE_BYTES = 4096


class RecentColors:
    """The file of one bridge, shared by all runs: a color and the second of its last use a line."""

    def __init__(self, rundir: str, bridge: str) -> None:
        self._path = Path(rundir) / f"vtrace.{bridge}.colors"

    def ages_s(self) -> dict[int, float]:
        """How long ago colors were last in use, of those that were lately; 0 and more."""
        try:
            with self._path.open("rb") as file:
                return _ages_s(file.read(_LONGEST_FILE_BYTES), _now_s())
        except OSError:
            return {}

    def note(self, colors: Iterable[int]) -> None:
        """Notes that colors are in use, or were until now."""
        with contextlib.suppress(OSError), _locked(self._path) as descriptor:
            now_s = _now_s()
            found = _ages_s(os.read(descriptor, _LONGEST_FILE_BYTES), now_s) | dict.fromkeys(colors, 0.0)
            text = "".join(f"{color} {now_s - age_s:.3f}\n" for color, age_s in sorted(found.items()))
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text.encode(), 0)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The open file, locked; raises OSError where another run has it just now, which takes microseconds."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


def _now_s() -> float:
    """Seconds since the machine started, which no clock step changes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _ages_s(content: bytes, now_s: float) -> dict[int, float]:
    found = {}
    for line in content.split(b"\n"):
        words = line.split()
        with contextlib.suppress(ValueError):
            color, at_s = (int(words[0]), float(words[1])) if len(words) == 2 else (0, 0.0)
            if color in POOL_2 and 0 <= now_s - at_s < KEPT_S:
                found[color] = now_s - at_s
    return found
