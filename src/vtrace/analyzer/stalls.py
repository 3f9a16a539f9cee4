"""Notices when this process stood still for so long that copies of packets may have been dropped meanwhile."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable

import anyio

# Open vSwitch keeps so many copies for a process that does not read, and drops what comes then. Which ones, and how
# many, it does not tell: where so many come at once after a while without reading, more may have been there.
KEPT_COPIES = 1000
STALL_S = 0.3
LOOK_EVERY_S = 0.2
# Until what had to wait is read.
READ_S = 1.0


class Stalls:
    """Watches this process for one task.

    Args:
        tell: is given the chassis whose copies may have been dropped, and for how long nothing was read.

    Attributes:
        longest_s: for how long nothing was read at most.
    """

    def __init__(self, tell: Callable[[str, float], None]) -> None:
        self._tell = tell
        self.longest_s = 0.0
        self._taken: dict[str, int] = defaultdict(int)

    def take(self, chassis: str) -> None:
        """Counts a copy."""
        self._taken[chassis] += 1

    async def watch(self) -> None:
        """Looks until it is cancelled."""
        since_s, before = time.monotonic(), dict(self._taken)
        while True:
            await anyio.sleep(LOOK_EVERY_S)
            stalled_s = time.monotonic() - since_s - LOOK_EVERY_S
            self.longest_s = max(self.longest_s, stalled_s)
            if stalled_s > STALL_S:
                await anyio.sleep(READ_S)
                for chassis in self.full(before):
                    self._tell(chassis, stalled_s)
            since_s, before = time.monotonic(), dict(self._taken)

    def full(self, before: dict[str, int]) -> Iterable[str]:
        """The chassis of which more copies came since these counts than wait for a process that does not read."""
        return [name for name, count in self._taken.items() if count - before.get(name, 0) >= KEPT_COPIES]
