"""The entries an agent has on its bridge: so that they can be told from anybody else's, and removed one by one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from vtrace.color import registry
from vtrace.model.openflow import FlowEntry

_SOON_S = 3.0


class OwnEntries:
    """What was added and not removed. OpenFlow knows an entry by table, priority and match (OpenFlow 1.3.5, 6.4).

    Attributes:
        version: changes with every change of ours.
    """

    def __init__(self) -> None:
        self.version = 0
        self._entries: dict[tuple[int, int, str], tuple[FlowEntry, float]] = {}
        self._known: Counter[tuple[int, int, int]] = Counter()

    def add(self, entries: Iterable[FlowEntry]) -> None:
        """Notes entries that are about to be added."""
        self.version += 1
        for entry in entries:
            key = (entry.table, entry.priority, entry.match)
            self._forget(key)
            self._entries[key] = (entry, time.monotonic() + entry.hard_timeout_s)
            self._known[entry.table, entry.priority, entry.cookie] += 1

    def remove(self, cookie: int, mask: int) -> list[FlowEntry]:
        """Forgets, and gives, the entries whose cookie equals `cookie` under `mask`."""
        self.version += 1
        gone = [(key, e) for key, (e, _) in self._entries.items() if e.cookie & mask == cookie & mask]
        for key, _ in gone:
            self._forget(key)
        return [entry for _, entry in gone]

    def _forget(self, key: tuple[int, int, str]) -> None:
        known = self._entries.pop(key, None)
        if known is not None:
            entry = known[0]
            self._known[entry.table, entry.priority, entry.cookie] -= 1

    def has(self, table: int, priority: int, cookie: int) -> bool:
        """Whether an entry of ours has this place and cookie."""
        return self._known[table, priority, cookie] > 0

    def tables(self) -> list[int]:
        """Where entries of ours are."""
        return sorted({table for table, _, _ in self._entries})

    def expiring(self) -> bool:
        """Whether the time of some entry is over, or nearly: the bridge removes it then."""
        return any(until - _SOON_S < time.monotonic() for _, until in self._entries.values())


def is_of_another_run(cookie: int, hard_timeout_s: int, generation: int) -> bool:
    """Whether an entry is one of VTrace's, of a run that has not this generation."""
    return registry.is_our_entry(cookie, hard_timeout_s) and registry.generation_of(cookie) != generation
