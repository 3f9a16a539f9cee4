"""Tells a packet that was lost from one whose next record was: by holes in the log streams where it could have gone on.

A packet's next record is written on the same chassis, or on the one that it was sent to. Where a hole of that agent's
stream was written at a time at which it can have been, nothing is known of the packet: its evidence is missing. Times
are always those of the one chassis that wrote the stream. When a packet that chassis A sent would have been logged at B
is taken from the packets that B did log: by how much B's clock was ahead of A's for them, whatever the two clocks say.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import numpy as np

from vtrace.model.inventory import FIRST_MULTICAST_KEY
from vtrace.model.record import Point
from vtrace.reconstruct.distinct import LONGEST, SHORTEST
from vtrace.reconstruct.gathering import PLACE_FIELDS, Gathered
from vtrace.reconstruct.layout import AT_SENT, AT_STOPPED
from vtrace.reconstruct.parts import FLAG_AMBIGUOUS, FLAG_COPIED, FLAG_MISSING, PacketRows
from vtrace.reconstruct.streams import Holes, Streams

# A packet's next record on the same chassis comes so many times as late, at most, as the latest that was seen there …
FACTOR = 4
# … but this late it always may be, …
AT_LEAST_NS = 5_000_000
# … and this late where none was seen.
UNKNOWN_NS = 120_000_000

_FAR_NS = 1 << 62
_CHASSIS, _INCARNATION, _COLOR, _EPOCH, _POINT, _PEER, _OUT_KEY = (
    PLACE_FIELDS.index(name) for name in ("chassis", "incarnation", "color", "epoch", "point", "peer", "out_key")
)
# A stream, less the incarnation: what follows may have been written by the agent that was started next.
_Use = tuple[str, int, int]


def flag_missing(gathered: Gathered, rows: PacketRows, streams: Streams, holes: Holes) -> None:
    """Sets FLAG_MISSING for packets that may have gone on where records are missing.

    Args:
        rows: all packets; `flags` is changed.
        holes: with their times.
    """
    looked_at = np.flatnonzero((rows.disposition == AT_SENT) | (rows.disposition == AT_STOPPED))
    if not len(looked_at):
        return
    windows = _Windows(gathered, streams, holes)
    places = rows.last_place[looked_at]
    for place in np.unique(places):
        own = looked_at[places == place]
        if windows.any_missing(int(place)):
            # Whose the last record is, and which copy's, is inferred: any record may be the one that would tell.
            inferred = (rows.flags[own] & (FLAG_AMBIGUOUS | FLAG_COPIED)) != 0
            found = inferred | windows.missing(int(place), rows.last_seq[own], rows.last_ns[own])
            rows.flags[own[found]] |= FLAG_MISSING


class _Windows:
    """The holes by stream, and how late a record can be."""

    def __init__(self, gathered: Gathered, streams: Streams, holes: Holes) -> None:
        self._gathered = gathered
        self._streams = streams
        self._holes = holes
        self._begins = np.searchsorted(holes.stream, np.arange(len(streams.names) + 1))
        self._of_use: dict[_Use, list[int]] = defaultdict(list)
        for number, (chassis, _, color, epoch) in enumerate(streams.names):
            self._of_use[chassis, color, epoch].append(number)
        self._known_chassis = {name[0] for name in streams.names}
        restarted = {use[1:] for use, of_use in self._of_use.items() if len(of_use) > 1}
        self._incomplete = restarted | {streams.names[number][2:] for number in np.unique(holes.stream).tolist()}
        self._delays: dict[str, int] = {}
        self._ahead: dict[tuple[str, str], tuple[int, int]] = {}
        self._measure()

    def _measure(self) -> None:
        """From all paths: the longest time between two records of a chassis, and how far clocks are apart."""
        for path in self._gathered.paths:
            hops = [self._gathered.places.names[place] for place in path.places.tolist()]
            for (before, after), delay in zip(pairwise(hops), path.delays[1:].tolist(), strict=True):
                assert isinstance(before, tuple)
                assert isinstance(after, tuple)
                here, there = before[_CHASSIS], after[_CHASSIS]
                if before[_POINT] == Point.REMOTE_OUTPUT and after[_POINT] == Point.INGRESS:
                    low, high = self._ahead.get((here, there), (_FAR_NS, -_FAR_NS))
                    self._ahead[here, there] = min(low, delay[SHORTEST]), max(high, delay[LONGEST])
                elif here == there:
                    self._delays[here] = max(self._delays.get(here, 0), delay[LONGEST])

    def any_missing(self, place: int) -> bool:
        """Whether any record of the color and epoch of a place is missing, or may be."""
        name = self._gathered.places.names[place]
        assert isinstance(name, tuple)
        return name[_PEER] not in ("", *self._known_chassis) or (name[_COLOR], name[_EPOCH]) in self._incomplete

    def _late_ns(self, chassis: str) -> int:
        seen = self._delays.get(chassis)
        return UNKNOWN_NS if seen is None else max(AT_LEAST_NS, FACTOR * seen)

    def missing(self, place: int, seq: np.ndarray, at_ns: np.ndarray) -> np.ndarray:
        """Whether the next record of packets whose last one is of this place may be missing."""
        name = self._gathered.places.names[place]
        assert isinstance(name, tuple)
        use = (name[_CHASSIS], name[_COLOR], name[_EPOCH])
        if name[_POINT] == Point.REMOTE_OUTPUT and name[_PEER]:
            return self._at_peer(name[_PEER], use, at_ns)
        if name[_POINT] == Point.REMOTE_OUTPUT and name[_OUT_KEY] >= FIRST_MULTICAST_KEY:
            # To a group: to any of the others.
            peers = [chassis for chassis, *rest in self._of_use if tuple(rest) == use[1:] and chassis != use[0]]
            return np.any([np.zeros(len(seq), np.bool_), *(self._at_peer(p, use, at_ns) for p in peers)], axis=0)
        late_ns = self._late_ns(name[_CHASSIS])
        found = np.zeros(len(seq), np.bool_)
        for stream in self._of_use[use]:
            own = self._streams.names[stream][1] == name[_INCARNATION]
            found |= self._in_holes(stream, at_ns, at_ns + late_ns, seq if own else None)
        return found | self._while_down(self._of_use[use], at_ns, at_ns + late_ns)

    def _at_peer(self, peer: str, use: _Use, at_ns: np.ndarray) -> np.ndarray:
        streams = self._of_use.get((peer, *use[1:]), [])
        if not streams:
            # An agent that wrote of nothing was there and saw nothing; where there is none, nobody looked.
            return np.full(len(at_ns), bool(self._known_chassis) and peer not in self._known_chassis)
        ahead = self._ahead.get((use[0], peer))
        if ahead is None:
            low, high = np.full(len(at_ns), -_FAR_NS), np.full(len(at_ns), _FAR_NS)
        else:
            slack_ns = ahead[1] - ahead[0] + self._late_ns(peer)
            low, high = at_ns + ahead[0] - slack_ns, at_ns + ahead[1] + slack_ns
        found = np.zeros(len(at_ns), np.bool_)
        for stream in streams:
            found |= self._in_holes(stream, low, high, None)
        return found | self._while_down(streams, low, high)

    def _while_down(self, streams: list[int], low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Whether an agent that was started anew was down between two times: what it missed has no number."""
        found = np.zeros(len(low), np.bool_)
        spans = self._streams.spans[streams]
        spans = spans[np.argsort(spans[:, 0])]
        for (_, last), (first, _) in pairwise(spans):
            found |= (low <= first) & (high >= last)
        return found

    def _in_holes(self, stream: int, low: np.ndarray, high: np.ndarray, seq: np.ndarray | None) -> np.ndarray:
        """Whether a hole of a stream can have been written between two times, and behind a number if one is given."""
        cut = slice(self._begins[stream], self._begins[stream + 1])
        after, before, last = self._holes.after_ns[cut], self._holes.before_ns[cut], self._holes.last[cut]
        if not len(last):
            return np.zeros(len(low), np.bool_)
        # Holes of a stream are in the order of its clock, which only goes forward: both kinds of times rise.
        first = np.searchsorted(np.maximum.accumulate(before), low, side="left")
        if seq is not None:
            first = np.maximum(first, np.searchsorted(last, seq, side="right"))
        lowest_after = np.append(after, _FAR_NS)
        return (first < len(last)) & (lowest_after[np.minimum(first, len(last))] <= high)
