"""Divides the records of one key among the packets that have it.

Several packets may have one key: a retransmission, an equal datagram with IP id 0, the same datagram of two pairs.
Records are first joined to stretches within a chassis, in the order of its sequence numbers; stretches are joined
where one says that it sent to the other; what is left over because records between are missing goes to a packet that
it can belong to, or to none.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from reference_chaining import Row, Segment, crosses, is_flooded, is_for_group, is_sent, leads_to

from vtrace.model.record import LogRecord, Point

# How many ways to lay the pauses of two servers on each other are tried at most.
_ALIGNMENTS = 50
_BEST_RANK = (4, 2)


def split_copies(group: Sequence[Row]) -> list[list[Row]]:
    """The packets of one key: as many as there are first-hop records, in their order.

    Counts are right, though with losses which of several equal packets was lost is inferred: of a chassis's own
    records the nearest belong together, and between two servers the pauses between packets are compared, each by its
    own server's clock. A record that can belong to no packet (its first-hop record is missing) is left out.

    Args:
        group: records of one key, in canonical order.
    """
    strands = _strands(_segments(group))
    packets = [strand for strand in strands if strand[0][1].point == Point.FIRST_HOP]
    visits = [{_visit(record) for _, record in packet} for packet in packets]
    for orphan in strands:
        if orphan[0][1].point == Point.FIRST_HOP:
            continue
        own = {_visit(record) for _, record in orphan}
        free = [n for n, taken in enumerate(visits) if not own & taken and not _is_answered(packets[n], orphan)]
        chosen = free[0] if free and len(packets) == 1 else _owner(packets, free, orphan)
        if chosen is not None:
            packets[chosen] += orphan
            visits[chosen] |= own
    return [sorted(packet, key=lambda row: (row[1].point != Point.FIRST_HOP, row[0])) for packet in packets]


def place(record: LogRecord) -> tuple[object, ...]:
    """Where a record was made."""
    return (
        record.chassis,
        record.point,
        record.datapath,
        record.in_key,
        record.out_key,
        record.in_ofport,
        record.peer,
    )


def _is_answered(packet: Sequence[Row], orphan: Sequence[Row]) -> bool:
    """Whether a stretch goes back where a packet came from: it is of an answer that has the same key."""
    reversed_ = {(r.dst, r.src) for _, r in packet if r.dst != r.src}
    return any((r.src, r.dst) in reversed_ for _, r in orphan)


def _visit(record: LogRecord) -> tuple[object, ...]:
    """A packet has one record of each visit of a place. The TTL tells a second visit (a loop) from a second packet."""
    return (record.incarnation, record.ttl, *place(record))


def _owner(packets: Sequence[Sequence[Row]], free: Sequence[int], orphan: Sequence[Row]) -> int | None:
    """Which of several packets a stretch belongs to whose beginning is missing; None where that can't be told.

    One that ends where the stretch begins; or else any that it can belong to, if they are all alike so far.
    """
    start = orphan[0][1]
    near = [n for n in free if _is_near(packets[n][-1][1], start)]
    if near:
        return max(near, key=lambda n: (_likeness(packets[n][-1][1], start), -n))
    alike = {(*_tuple(packets[n][0][1]), *(place(record) for _, record in packets[n])) for n in free}
    if len(alike) != 1 or is_sent(packets[free[0]][-1][1]) or packets[free[0]][-1][1].point == Point.EGRESS:
        return None
    return free[0]


def _is_near(last: LogRecord, start: LogRecord) -> bool:
    """Whether only the record of an output or an ingress is missing between a packet's last and a stretch."""
    if start.point == Point.INGRESS:
        return not is_sent(last) and start.peer == last.chassis and follows(last, start)
    return is_sent(last) and (start.chassis, *_on_the_wire(start)) == (last.peer, *_on_the_wire(last))


def _tuple(record: LogRecord) -> tuple[object, ...]:
    return (record.src, record.dst, record.sport, record.dport)


def _likeness(one: LogRecord, two: LogRecord) -> int:
    """How many of addresses and ports are the same: NAT leaves a part of them alone."""
    return (one.src == two.src) + (one.dst == two.dst) + (one.sport == two.sport) + (one.dport == two.dport)


# --- within a chassis -------------------------------------------------------------------------------------


def _segments(group: Iterable[Row]) -> list[Segment]:
    """The stretches within each chassis, each of one packet; in the order of their first records."""
    segments: list[Segment] = []
    open_here: dict[tuple[str, int], list[Segment]] = defaultdict(list)
    for row in group:
        record = row[1]
        here = open_here[(record.chassis, record.incarnation)]
        begins = record.point in (Point.FIRST_HOP, Point.INGRESS)
        segment = None if begins else _continued(here, record)
        if segment is None:
            segment = []
            segments.append(segment)
            here.append(segment)
        segment.append(row)
        if (record.point == Point.EGRESS or is_sent(record)) and not is_flooded(segment):
            # By identity: two stretches are never equal, but comparing them takes long.
            here[:] = [other for other in here if other is not segment]
    return segments


def _continued(segments: Sequence[Segment], record: LogRecord) -> Segment | None:
    """The stretch that a record continues; of several that it continues equally well the youngest."""
    best: Segment | None = None
    best_rank = (-1, 0)
    for segment in reversed(segments):
        rank = _rank(segment, record)
        if rank is not None and rank > best_rank:
            best, best_rank = segment, rank
            if rank == _BEST_RANK:
                break
    return best


def _rank(segment: Segment, record: LogRecord) -> tuple[int, int] | None:
    """How well a record continues a stretch: likeness, and how sure. None: it can't, or one between is missing."""
    last = segment[-1][1]
    if is_flooded(segment):
        there = any(_visit(other) == _visit(record) for _, other in segment)
        return None if there else (_likeness(last, record), 2)
    if not follows(last, record) or not (last.src == record.src or last.dst == record.dst):
        return None
    if any(_visit(other) == _visit(record) for _, other in segment):
        return None
    if last.point == Point.LOGICAL_EGRESS:
        sure = last.ttl == record.ttl
    else:
        sure = not last.in_key or record.in_key in (0, last.in_key)
    return _likeness(last, record), 1 + sure


def follows(last: LogRecord, record: LogRecord) -> bool:
    """Whether a record can be the next one on the same chassis: it says in which datapath the packet was.

    A router takes one off the TTL before it logs; a switch takes none.
    """
    if last.point == Point.EGRESS or is_sent(last):
        return False
    again = record.point == Point.INGRESS or (record.point == Point.REMOTE_OUTPUT and crosses(record))
    if last.point == Point.INGRESS and again:
        # OVN sends nothing on by a tunnel in the datapath in which it came by one (ovn-architecture(7)).
        return False
    fell = last.ttl - record.ttl
    if last.point == Point.LOGICAL_EGRESS:
        return last.datapath != record.datapath and fell in (0, 1)
    return last.datapath == record.datapath and fell >= 0


# --- between chassis --------------------------------------------------------------------------------------


def _strands(segments: Sequence[Segment]) -> list[list[Row]]:
    """Joins each stretch to those that begin where it was sent."""
    after: dict[int, list[int]] = defaultdict(list)
    begun: set[int] = set()
    for exact in (True, False):
        for receivers in _alike(segments, begun):
            senders = [n for n, segment in enumerate(segments) if _leads(segment, segments[receivers[0]], exact=exact)]
            free = [n for n in senders if _is_free(segments, n, after[n], segments[receivers[0]])]
            for sender, receiver in _aligned(segments, free, receivers):
                after[sender].append(receiver)
                begun.add(receiver)
    return [
        [row for number in _reached(first, after) for row in segments[number]]
        for first in range(len(segments))
        if first not in begun
    ]


def _reached(first: int, after: dict[int, list[int]]) -> Iterator[int]:
    """A stretch and all that follow it, each once."""
    seen = {first}
    waiting = [first]
    while waiting:
        number = waiting.pop(0)
        yield number
        waiting += [n for n in after[number] if n not in seen]
        seen.update(after[number])


def _alike(segments: Sequence[Segment], begun: set[int]) -> list[list[int]]:
    """Stretches that begin with an ingress nobody's output led to so far, those of like packets together."""
    found: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for number, segment in enumerate(segments):
        start = segment[0][1]
        if start.point == Point.INGRESS and number not in begun:
            found[(start.chassis, start.peer, *_on_the_wire(start))].append(number)
    return list(found.values())


def _on_the_wire(record: LogRecord) -> tuple[object, ...]:
    """What a tunnel does not change."""
    return (crosses(record), record.ttl, *_tuple(record))


def _leads(segment: Segment, receiver: Segment, *, exact: bool) -> bool:
    came = receiver[0][1]
    return any(leads_to(r, came, exact=exact) and _on_the_wire(r) == _on_the_wire(came) for _, r in segment)


def _is_free(segments: Sequence[Segment], number: int, after: Sequence[int], receiver: Segment) -> bool:
    """Whether what a stretch sent has not been found there yet: one packet, or one copy for each chassis."""
    if any(is_for_group(record) for _, record in segments[number]):
        return all(segments[n][0][1].chassis != receiver[0][1].chassis for n in after)
    return not after


def _aligned(segments: Sequence[Segment], senders: Sequence[int], receivers: Sequence[int]) -> list[tuple[int, int]]:
    """Which of several equal packets that were sent are those that came: in order, and where some were lost those
    between which the pauses are most alike."""
    missing = len(senders) - len(receivers)
    if missing <= 0:
        return list(zip(senders, receivers, strict=False))
    left_ns = [segments[n][-1][1].mono_ns for n in senders]
    came_ns = [segments[n][0][1].mono_ns for n in receivers]
    tries = (_laid(left_ns, came_ns, first) for first in range(min(missing, _ALIGNMENTS) + 1))
    _, chosen = min(tries)
    return [(senders[index], receiver) for index, receiver in zip(chosen, receivers, strict=True)]


def _laid(left_ns: Sequence[int], came_ns: Sequence[int], first: int) -> tuple[int, list[int]]:
    """If the first that came is the one with this index: which the others are, and by how much the pauses differ."""
    chosen = [first]
    differs = 0
    for number, at in enumerate(came_ns[1:], start=1):
        lowest, highest = chosen[-1] + 1, len(left_ns) - (len(came_ns) - number)
        wanted = left_ns[chosen[-1]] + at - came_ns[number - 1]
        index = min(max(bisect_left(left_ns, wanted, lowest, highest + 1), lowest), highest)
        if index > lowest and abs(left_ns[index - 1] - wanted) <= abs(left_ns[index] - wanted):
            index -= 1
        differs += abs(left_ns[index] - wanted)
        chosen.append(index)
    return differs, chosen
