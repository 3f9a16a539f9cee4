"""Orders the records of one packet by what they say of where it came from and where it goes next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from vtrace.model.plain import is_bridge
from vtrace.model.record import LogRecord, Point
from vtrace.reconstruct.schema import Goal

Row = tuple[int, LogRecord]
Segment = list[Row]

# Tunnel keys of multicast groups begin here (ovn-sb(5), Multicast_Group).
FIRST_MULTICAST_KEY = 32768
# The group bit of an Ethernet address (IEEE 802).
_GROUP_BIT = 1 << 40


def chain(copy: Sequence[Row], goal: Goal | None = None) -> tuple[list[Row], bool]:
    """Orders the records of one packet, first hop first.

    Of a packet that was copied to several ports (broadcast, multicast) only the hops of one copy: that for the
    goal, or else the one that came furthest.

    Args:
        copy: the packet's records, that of its first hop among them.
        goal: the port that the packet is meant for.

    Returns:
        The hops, and whether hops between them are missing.
    """
    if is_flooded(copy):
        return _Tree(copy).path(goal)
    segments = _segments(copy)
    hops: list[Row] = []
    gap = False
    current: Segment | None = segments.pop(0)
    while current is not None:
        hops.extend(current)
        following = _next_segment(hops, segments)
        if following is None and segments:
            following = _first_of_rest(segments)
            gap = True
        if following is not None:
            segments.remove(following)
        current = following
    return hops, gap


def is_sent(record: LogRecord) -> bool:
    """Whether it says to which chassis the packet was sent."""
    return record.point == Point.REMOTE_OUTPUT and bool(record.peer)


def is_for_group(record: LogRecord) -> bool:
    """Whether it was output to all ports of a multicast group at once."""
    return record.out_key >= FIRST_MULTICAST_KEY


def is_flooded(rows: Sequence[Row]) -> bool:
    """Whether these records may be of several copies of one packet (broadcast, multicast, an unknown receiver)."""
    return any(is_for_group(record) or record.eth_dst & _GROUP_BIT for _, record in rows)


def crosses(record: LogRecord) -> int:
    """The datapath that a packet is in on both sides of a tunnel; 0 between bridges without OVN: each is its own."""
    return 0 if is_bridge(record.datapath) else record.datapath


def leads_to(sent: LogRecord, came: LogRecord, *, exact: bool) -> bool:
    """Whether what one record says was sent is what another says came in.

    Where not `exact` the receiver may be another than the sender's record names: a gateway that took over since the
    task began. It says itself where the packet came from.
    """
    if sent.point != Point.REMOTE_OUTPUT or came.point != Point.INGRESS or crosses(sent) != crosses(came):
        return False
    if is_sent(sent) and exact:
        return came.chassis == sent.peer and came.peer in ("", sent.chassis)
    return (is_sent(sent) or is_for_group(sent)) and came.peer == sent.chassis


def _segments(copy: Sequence[Row]) -> list[Segment]:
    """Stretches of records that one chassis wrote between a packet's coming in and its going out again."""
    by_chassis: dict[tuple[str, int], Segment] = defaultdict(list)
    for row in copy:
        by_chassis[(row[1].chassis, row[1].incarnation)].append(row)
    segments: list[Segment] = []
    for rows in by_chassis.values():
        before: LogRecord | None = None
        for row in sorted(rows, key=lambda r: r[1].seq):
            if before is None or _begins(row[1], before):
                segments.append([])
            segments[-1].append(row)
            before = row[1]
    # In the order of the chassis's names, whichever order the records were found in.
    return sorted(segments, key=lambda s: (s[0][1].point != Point.FIRST_HOP, s[0][0]))


def _begins(record: LogRecord, before: LogRecord) -> bool:
    """Whether a record is the first after the packet came in; also where the record of its coming in is missing."""
    return record.point in (Point.FIRST_HOP, Point.INGRESS) or is_sent(before)


def _next_segment(hops: Sequence[Row], segments: Sequence[Segment]) -> Segment | None:
    """The segment that begins where the last tunnel output went."""
    for exact in (True, False):
        for _, sent in reversed(hops):
            for segment in segments:
                if leads_to(sent, segment[0][1], exact=exact):
                    return segment
    return None


def _first_of_rest(segments: Sequence[Segment]) -> Segment:
    """Where records between are missing: of what is left the stretch that no other of it leads to.

    Falling TTL decides among several; it only bounds the order.
    """
    led_to = {(r.peer, r.chassis) for segment in segments for _, r in segment if is_sent(r)}
    roots = [s for s in segments if (s[0][1].chassis, s[0][1].peer) not in led_to]
    unreached = [s for s in roots if s[0][1].point == Point.INGRESS or s[0][1].chassis not in {p for p, _ in led_to}]
    return max(unreached or roots or segments, key=lambda s: (s[0][1].ttl, -s[0][0]))


class _Tree:
    """The records of a packet that was copied, each with the one before it.

    Args:
        copy: the packet's records, that of its first hop among them.
    """

    def __init__(self, copy: Sequence[Row]) -> None:
        self._rows = sorted(copy, key=lambda row: row[0])
        self._root = next(row for row in self._rows if row[1].point == Point.FIRST_HOP)
        self._before: dict[int, Row] = {}
        self._guessed: set[int] = set()
        for row in self._rows:
            if row is not self._root:
                known = self._sender(row[1]) if row[1].point == Point.INGRESS else self._trunk(row)
                self._before[row[0]] = known or self._root
                if known is None:
                    self._guessed.add(row[0])

    def path(self, goal: Goal | None) -> tuple[list[Row], bool]:
        """The hops of the copy for the goal, or of the one that came furthest, and whether some are missing."""
        hops = self._way_to(self._end(goal))
        return hops, any(row[0] in self._guessed for row in hops)

    def _sender(self, came: LogRecord) -> Row | None:
        for exact in (True, False):
            for row in self._rows:
                if leads_to(row[1], came, exact=exact):
                    return row
        return None

    def _trunk(self, row: Row) -> Row | None:
        """The record on the same chassis that this one continues: outputs to ports are ends of their own."""
        record = row[1]
        for earlier in reversed(self._rows):
            before = earlier[1]
            same = (before.chassis, before.incarnation) == (record.chassis, record.incarnation)
            if earlier[0] >= row[0] or not same or before.point in (Point.EGRESS, Point.REMOTE_OUTPUT):
                continue
            if (before.point == Point.LOGICAL_EGRESS) != (before.datapath == record.datapath):
                return earlier
        return None

    def _end(self, goal: Goal | None) -> Row:
        """The last record of the copy to be shown."""
        if goal is not None:
            there = [row for row in self._rows if row[1].datapath == goal.datapath]
            at_port = [row for row in there if row[1].point == Point.EGRESS and row[1].out_key == goal.key]
            in_it = [row for row in there if row[1].chassis == goal.chassis and row[1].point <= Point.INGRESS]
            towards = [row for row in there if is_for_group(row[1]) or row[1].peer == goal.chassis != row[1].chassis]
            # If no copy is seen after the output to the group, then it was the last place that logs or colors.
            blind = all(row[1].point in (Point.FIRST_HOP, Point.REMOTE_OUTPUT) for row in self._rows)
            for found in (at_port, towards if blind else in_it, in_it if blind else towards):
                if found:
                    return found[-1]
        return max(self._rows, key=lambda row: (row[1].point == Point.EGRESS, len(self._way_to(row)), -row[0]))

    def _way_to(self, end: Row) -> list[Row]:
        way = [end]
        while way[-1][0] in self._before and len(way) < len(self._rows):
            way.append(self._before[way[-1][0]])
        return way[::-1]
