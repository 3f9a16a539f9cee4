"""What came in of pairs without any record: packets that were not copied, and such as another task colored first."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Collection

import anyio

from vtrace.analyzer.arming import Arming
from vtrace.analyzer.follow import Follower
from vtrace.color.registry import Role
from vtrace.errors import VTraceError


class Unseen:
    """Counts of pairs without records, by their numbers.

    Attributes:
        entered: packets that our entries at the first hop counted, where copies were cut, or some of them came late.
        taken: packets that other runs of VTrace colored there.
    """

    def __init__(self, arming: Arming, follow: Follower) -> None:
        self._arming = arming
        self._follow = follow
        self.entered: dict[int, int] = {}
        self.taken: dict[int, int] = {}

    async def count(self, pairs: Collection[int], within_s: float) -> list[str]:
        """Counts, while the entries stand.

        Args:
            within_s: for each server.

        Returns:
            What could not be counted, in words.
        """
        silent = {index for index in pairs if not self._follow.of_pair(index)}
        notes: list[str] = []
        entered: dict[int, int] = defaultdict(int)
        taken: dict[int, int] = defaultdict(int)
        late: Counter[int] = Counter()
        for agent in self._arming.scopes.live.values() if silent else ():
            try:
                cost = await agent.cost()
                # Alone such a count says little: when entries change, Open vSwitch counts what a cached flow carried
                # in the last half second on the new ones.
                cut = cost.first_copies_cut + cost.copies_cut + cost.records_lost
                for role in (Role.COLOR, Role.PROBE) if cut else ():
                    for index, packets in (await agent.counts(role)).items():
                        entered[index] += packets
            except VTraceError as error:
                notes.append(f"{self._arming.scopes.inventory.server(agent.chassis)}: not counted: {error}")
            with contextlib.suppress(VTraceError, TimeoutError), anyio.fail_after(within_s):
                hits = await agent.first_hits()
                for index, packets in hits.taken.items():
                    taken[index] += packets
                late.update(hits.own)
        for index, packets in late.items():
            # What turned out to be for others was seen.
            if index not in entered and not self._follow.colored[index]:
                entered[index] = packets
        self.entered = {index: packets for index, packets in entered.items() if index in silent}
        self.taken = {index: packets for index, packets in taken.items() if index in silent}
        return notes
