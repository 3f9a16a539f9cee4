"""Which colors were in use on a bridge lately: its datapath may hold flows that match them still.

A flow stays cached for ten seconds after its last packet (other_config:max-idle, ovs-vswitchd.conf.db(5)), and may act
by entries that are gone (docs/adr/0019). So no task takes a color that another one had just before it, if it can take
another. Where the file can't be read or written nothing is known.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from vtrace.color.registry import POOL_2

# What was that long ago is as good as never.
KEPT_S = 120.0
# A line for each color, in the order of POOL_2: the second of its last use, since the machine started. As each has its
# own place and length, runs that write at once don't disturb one another.
_LINE_BYTES = 20
_ROUNDED_S = 0.001


class RecentColors:
    """The file of one bridge, shared by all runs."""

    def __init__(self, rundir: str, bridge: str) -> None:
        self._path = Path(rundir) / f"vtrace.{bridge}.colors"

    def ages_s(self) -> dict[int, float]:
        """How long ago colors were last in use, of those that were lately; 0 and more."""
        content = b""
        with contextlib.suppress(OSError):
            descriptor = self._open(os.O_RDONLY)
            try:
                content = os.read(descriptor, _LINE_BYTES * len(POOL_2))
            finally:
                os.close(descriptor)
        found, now_s = {}, _now_s()
        for number, color in enumerate(POOL_2):
            with contextlib.suppress(ValueError):
                age_s = now_s - float(content[number * _LINE_BYTES : (number + 1) * _LINE_BYTES])
                # What was written just now may be rounded up.
                if -_ROUNDED_S <= age_s < KEPT_S:
                    found[color] = max(0.0, age_s)
        return found

    def note(self, colors: Iterable[int]) -> None:
        """Notes that colors are in use, or were until now."""
        with contextlib.suppress(OSError):
            try:
                descriptor = self._open(os.O_WRONLY | os.O_CREAT)
            except PermissionError:
                # Another user's, in a directory that is ours.
                self._path.unlink()
                descriptor = self._open(os.O_WRONLY | os.O_CREAT)
            try:
                line = f"{_now_s():{_LINE_BYTES - 1}.3f}\n".encode()
                for color in colors:
                    os.pwrite(descriptor, line, POOL_2.index(color) * _LINE_BYTES)
            finally:
                os.close(descriptor)

    def _open(self, flags: int) -> int:
        return os.open(self._path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)


def _now_s() -> float:
    """Seconds since the machine started, which no clock step changes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
