"""What came in of pairs without any record: packets whose copies were cut, and such as another task colored first."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection

import anyio

from vtrace.analyzer.arming import Arming
from vtrace.analyzer.follow import Follower
from vtrace.color.registry import Role
from vtrace.errors import VTraceError


class Unseen:
    """Counts of pairs without records, by their numbers.

    Attributes:
        entered: packets that our entries at the first hop counted, where copies were cut.
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
                for index, packets in (await agent.taken()).items():
                    taken[index] += packets
        self.entered = {index: packets for index, packets in entered.items() if index in silent}
        self.taken = {index: packets for index, packets in taken.items() if index in silent}
        return notes
