"""What the sources of a task ask by ARP or ND, and for which of its pairs that matters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from vtrace.attribute.case import NeighborWatch
from vtrace.collect.link import NeighborSeen
from vtrace.model.inventory import Inventory
from vtrace.model.task import Endpoint, Pair

UNANSWERED_REQUESTS = 3
UNANSWERED_S = 2.0
_REQUEST = 1


class Neighbors:
    """The requests of each pair's source, and the answers to them, by number of the pair."""

    def __init__(self, pairs: Sequence[Pair], inventory: Inventory) -> None:
        self._requests: dict[int, list[NeighborSeen]] = defaultdict(list)
        self._answers: dict[int, list[NeighborSeen]] = defaultdict(list)
        self.change(pairs, inventory)

    def change(self, pairs: Sequence[Pair], inventory: Inventory) -> None:
        """Takes note of a changed topology."""
        self._pairs = tuple(pairs)
        self._inventory = inventory
        self._sources: dict[tuple[int, int], list[Pair]] = defaultdict(list)
        for pair in self._pairs:
            for port in inventory.ends(pair.source):
                self._sources[(port.datapath, port.key)].append(pair)

    def take(self, seen: NeighborSeen) -> None:
        """Notes a request or an answer for the pairs that can't send without it."""
        for pair in self._sources[(seen.datapath, seen.key)]:
            if seen.operation == _REQUEST and self._matters(pair, seen.target_ip):
                self._requests[pair.index].append(seen)
            elif seen.operation != _REQUEST and any(
                self._matters(pair, address) for address in (seen.sender_ip, seen.target_ip)
            ):
                self._answers[pair.index].append(seen)

    def _matters(self, pair: Pair, target: str) -> bool:
        """Whether a pair's source may ask for this address in order to reach the pair's destination.

        On its own switch it asks for the destination itself, else for a next hop, which can be any address but that
        of another destination of the task.
        """
        if target in _addresses(pair.destination):
            return True
        if any(p.source == pair.source and target in _addresses(p.destination) for p in self._pairs):
            return False
        here = {port.datapath for port in self._inventory.ends(pair.source)}
        there = {port.datapath for port in self._inventory.ends(pair.destination)}
        return not there or not there <= here

    @property
    def seen(self) -> int:
        """How many requests there were, those of a source of several pairs once for each."""
        return sum(len(requests) for requests in self._requests.values())

    def unanswered(self) -> Mapping[int, Sequence[NeighborSeen]]:
        """The requests of the pairs whose source got no answer at all."""
        return {index: found for index, found in self._requests.items() if not self._answers[index]}

    def stays_unanswered(self, pair: int, now_s: float) -> bool:
        """Whether a pair's source has asked often and long enough to say that nobody answers it."""
        requests = self._requests[pair]
        if self._answers[pair] or len(requests) < UNANSWERED_REQUESTS:
            return False
        return now_s - requests[0].mono_ns / 1e9 >= UNANSWERED_S

    def watches(self) -> tuple[NeighborWatch, ...]:
        """What was asked and answered, for the case."""
        found = []
        for index, requests in sorted(self._requests.items()):
            for target in sorted({r.target_ip for r in requests}):
                answers = sum(1 for a in self._answers[index] if target in (a.sender_ip, a.target_ip))
                asked = sum(1 for r in requests if r.target_ip == target)
                found.append(NeighborWatch(pair=index, target=target, requests=asked, answers=answers))
        return tuple(found)


def _addresses(end: Endpoint) -> tuple[str, ...]:
    return (end.address, *end.addresses, *(alias.address for alias in end.aliases))
