"""Orders the records of one packet by what they say of where it came from and where it goes next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from vtrace.model.record import LogRecord, Point

Row = tuple[int, LogRecord]
Segment = list[Row]


def chain(copy: Sequence[Row]) -> tuple[list[Row], bool]:
    """Orders the records of one packet, first hop first. The flag says whether hops are missing in between."""
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
    return sorted(segments, key=lambda s: s[0][1].point != Point.FIRST_HOP)


def _begins(record: LogRecord, before: LogRecord) -> bool:
    """Whether a record is the first after the packet came in; also where the record of its coming in is missing."""
    return record.point in (Point.FIRST_HOP, Point.INGRESS) or _is_sent(before)


def _is_sent(record: LogRecord) -> bool:
    return record.point == Point.REMOTE_OUTPUT and bool(record.peer)


def _next_segment(hops: Sequence[Row], segments: Sequence[Segment]) -> Segment | None:
    """The segment that begins where the last tunnel output went."""
    for _, sent in reversed(hops):
        if _is_sent(sent):
            for segment in segments:
                start = segment[0][1]
                if start.chassis == sent.peer and start.point == Point.INGRESS and start.peer in ("", sent.chassis):
                    return segment
    return None


def _first_of_rest(segments: Sequence[Segment]) -> Segment:
    """Where records between are missing: of what is left the stretch that no other of it leads to.

    Falling TTL decides among several; it only bounds the order.
    """
    led_to = {(r.peer, r.chassis) for segment in segments for _, r in segment if _is_sent(r)}
    roots = [s for s in segments if (s[0][1].chassis, s[0][1].peer) not in led_to]
    unreached = [s for s in roots if s[0][1].point == Point.INGRESS or s[0][1].chassis not in {p for p, _ in led_to}]
    return max(unreached or roots or segments, key=lambda s: (s[0][1].ttl, -s[0][0]))
