"""When a task has seen enough (docs/answer.md, "When a task ends")."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from vtrace.analyzer.follow import Followed, Follower
from vtrace.model.task import Direction, Pair

# Settled packets with one ending that are enough, if nothing else happened for a while.
SAME_ENDING_PACKETS = 3
SAME_ENDING_S = 2.0
# A single packet whose cause was seen is enough after this long (a TCP connection that only repeats its SYN).
ONE_ENDING_S = 7.0


class Shown(Protocol):
    """What the slow paths have shown so far."""

    def cause_shown(self, pair: int, packet: Followed) -> bool:
        """Why a packet ended where it did."""
        ...

    def kept_from_color(self, pair: int) -> bool:
        """What keeps a pair's packets from being colored."""
        ...


class Asked(Protocol):
    """What the sources have asked by ARP or ND."""

    def stays_unanswered(self, pair: int, now_s: float) -> bool:
        """Whether a pair's source can't send, since nobody answers it."""
        ...


class Enough:
    """Whether each pair of a task has what its answer needs.

    Args:
        stopped: the pairs that are colored no more, since they have their packets.
        waiting: those that are not colored yet.
        both: the task asks for both directions.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        follow: Follower,
        shown: Shown,
        asked: Asked,
        *,
        stopped: Collection[int],
        waiting: Collection[int] = (),
        both: bool,
    ) -> None:
        self._follow = follow
        self._shown = shown
        self._asked = asked
        self._stopped = stopped
        self._waiting = waiting
        self._forward: Mapping[int, int] = _answered_by(pairs) if both else {}
        self.started_s = 0.0

    def pair(self, index: int, now_s: float) -> bool:
        """Whether nothing more need be waited for."""
        if index in self._stopped:
            # Also where all that were colored turned out to be for others.
            return self._follow.pair_settled(index, now_s)
        if index in self._waiting:
            return False
        packets = self._follow.of_pair(index)
        if not packets:
            return (
                self._asked.stays_unanswered(index, now_s)
                or self._shown.kept_from_color(index)
                or self._stays_unanswered(index, now_s)
            )
        return self._one_ending(index, packets, now_s)

    def _one_ending(self, index: int, packets: Sequence[Followed], now_s: float) -> bool:
        """Whether the last packets all ended at one place, for a cause that was seen."""
        settled = [p for p in packets if p.settled(now_s)]
        last = settled[-SAME_ENDING_PACKETS:]
        if not last or not self._shown.cause_shown(index, last[-1]):
            return False
        if any(p.ending() != last[-1].ending() for p in last):
            return False
        since_s = now_s - min(p.started_s for p in last)
        same_for_s = now_s - max((p.last_s for p in packets if p.ending() != last[-1].ending()), default=self.started_s)
        enough = SAME_ENDING_S if len(last) >= SAME_ENDING_PACKETS else ONE_ENDING_S
        return same_for_s >= enough and (since_s >= 1.0)

    def _stays_unanswered(self, index: int, now_s: float) -> bool:
        """Whether nothing comes back for packets that have ended: there is nothing to answer, or nobody who does.

        Without this the reply of a connection that only repeats its SYN would keep the task to its time limit.
        """
        forward = self._forward.get(index)
        packets = self._follow.of_pair(forward) if forward is not None else []
        if forward is None or not packets or not self.pair(forward, now_s):
            return False
        arrived = [p.last_s for p in packets if p.complete]
        return not arrived or now_s - min(arrived) >= SAME_ENDING_S


def _answered_by(pairs: Sequence[Pair]) -> dict[int, int]:
    """For each pair of the reply direction, the number of the one whose packets it answers.

    Between VMs on both sides of a task the one's forward direction is the other's reply (`admission.make_pairs`).
    """
    forward = {(p.source, p.destination): p.index for p in pairs if p.direction is Direction.FORWARD}
    replied = {(p.destination, p.source) for p in pairs if p.direction is Direction.REPLY}
    found = {}
    for pair in pairs:
        other = forward.get((pair.destination, pair.source))
        stands_for_both = pair.direction is Direction.FORWARD and (pair.destination, pair.source) not in replied
        if other is not None and (pair.direction is Direction.REPLY or stands_for_both):
            found[pair.index] = other
    return found
