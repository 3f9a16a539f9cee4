"""What the destinations of a task's pairs answer: counted at their VIFs, without color or copy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from vtrace.analyzer.arming import Arming
from vtrace.analyzer.follow import Follower
from vtrace.analyzer.questions import about_replies
from vtrace.attribute.case import ReplyCount
from vtrace.color.registry import Role
from vtrace.model.task import Direction, Pair

# By the lowest two bits of a counting entry's index: packets, ICMP errors, TCP resets.
_KINDS = 3


class Replies:
    """The counts of all forward pairs so far."""

    def __init__(self, arming: Arming, follow: Follower) -> None:
        self._arming = arming
        self._follow = follow
        self._counts: dict[int, int] = defaultdict(int)

    async def read(self) -> None:
        """Adds what our entries have counted: before they go, and at the end.

        Raises:
            VTraceError: a bridge could not be asked.
        """
        for counting in self._arming.scopes.live.values():
            for index, packets in (await counting.counts(Role.COUNT)).items():
                self._counts[index] += packets

    async def finish(self, pairs: Mapping[int, Pair]) -> None:
        """Reads for the last time; where there is none another run's may have stood above ours: the cache knows.

        Raises:
            VTraceError: a bridge could not be asked.
        """
        await self.read()
        answered = {
            (p.destination, p.source)
            for p in pairs.values()
            if p.direction is Direction.REPLY and self._follow.own(p.index)
        }
        for index, pair in pairs.items():
            counted = pair.direction is Direction.FORWARD and (pair.source, pair.destination) not in answered
            if counted and self._follow.of_pair(index):
                await self._count_cached(pair)

    async def _count_cached(self, pair: Pair) -> None:
        """Looks for a pair's replies in the datapaths' caches, where no entry of ours counted any."""
        # Behind a VIP answers have another source.
        source = pair.destination.address if pair.destination.outside else ""
        addresses = [*pair.source.addresses, *(a.address for a in pair.source.aliases if a.kind != "vip")]
        for name, agent in self._arming.scopes.live.items():
            for vif in self._arming.scopes.answers_of(pair, name):
                for address in addresses:
                    if any(self._counts[pair.index << 2 | number] for number in range(_KINDS)):
                        return
                    for question in about_replies(pair, vif, source, address):
                        self._counts[pair.index << 2] += await agent.cached_packets(question)

    def all(self, pairs: Mapping[int, Pair]) -> tuple[ReplyCount, ...]:
        """What was counted of each forward pair."""
        found = []
        for index, pair in pairs.items():
            if pair.direction is Direction.FORWARD:
                packets, errors, resets = (self._counts.get(index << 2 | number, 0) for number in range(_KINDS))
                found.append(ReplyCount(pair=index, packets=packets, errors=errors, resets=resets))
        return tuple(found)

    def notes(self, pairs: Mapping[int, Pair]) -> list[str]:
        """Resets and errors of guests count as answers, and are shown."""
        return [
            f"{pairs[reply.pair].destination.name} answered {pairs[reply.pair].source.name} with {what}"
            for reply in self.all(pairs)
            for what in (
                f"{reply.resets} TCP resets" if reply.resets else "",
                f"{reply.errors} ICMP errors" if reply.errors else "",
            )
            if what
        ]
