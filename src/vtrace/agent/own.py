"""The entries an agent has on its bridge: so that they can be told from anybody else's, and removed one by one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from vtrace.color import registry
from vtrace.model.openflow import FlowEntry

_SOON_S = 3.0


class OwnEntries:
    """All that a run has added. OpenFlow knows an entry by table, priority and match (OpenFlow 1.3.5, 6.4).

    What was removed is remembered too: an addition that was under way when its removal came may be on the bridge still.

    Attributes:
        version: changes with every change of ours, when it begins and when it has ended.
    """

    def __init__(self) -> None:
        self.version = 0
        self._entries: dict[tuple[int, int, str], FlowEntry] = {}
        self._known: set[tuple[int, int, int]] = set()
        # When each of those that were not removed ends by itself.
        self._until: dict[tuple[int, int, str], float] = {}

    @contextlib.contextmanager
    def adding(self, entries: Sequence[FlowEntry]) -> Iterator[None]:
        """While entries are added."""
        self.version += 1
        for entry in entries:
            key = (entry.table, entry.priority, entry.match)
            self._entries[key] = entry
            self._until[key] = time.monotonic() + entry.hard_timeout_s
            self._known.add((entry.table, entry.priority, entry.cookie))
        try:
            yield
        finally:
            self.version += 1

    @contextlib.contextmanager
    def removing(self, cookie: int, mask: int) -> Iterator[list[FlowEntry]]:
        """While the entries, which it gives, whose cookie equals `cookie` under `mask` are removed."""
        self.version += 1
        gone = {key: e for key, e in self._entries.items() if e.cookie & mask == cookie & mask}
        for key in gone:
            self._until.pop(key, None)
        try:
            yield list(gone.values())
        finally:
            self.version += 1

    def has(self, table: int, priority: int, cookie: int) -> bool:
        """Whether we added an entry with this place and cookie."""
        return (table, priority, cookie) in self._known

    def tables(self) -> list[int]:
        """Where entries of ours are or were."""
        return sorted({table for table, _, _ in self._entries})

    def expiring(self) -> bool:
        """Whether the time of some entry is over, or nearly: the bridge removes it then."""
        return any(until - _SOON_S < time.monotonic() for until in self._until.values())


def is_of_another_run(cookie: int, hard_timeout_s: int, generation: int) -> bool:
    """Whether an entry is one of VTrace's, of a run that has not this generation."""
    return registry.is_our_entry(cookie, hard_timeout_s) and registry.generation_of(cookie) != generation
