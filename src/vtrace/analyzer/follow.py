"""Follows colored packets while a task runs: which are settled, which are overdue, when there is enough."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from msgspec.structs import replace

from vtrace.model.inventory import Inventory
from vtrace.model.record import LogRecord, Point, flow_id
from vtrace.model.task import Pair

# A packet is lost when nothing of it was seen for this long after its last record.
LOST_AFTER_S = 1.0
# And worth a question to the slow path after this long.
OVERDUE_AFTER_S = 0.12
# Behind a shared address (a VIP, a source NAT's) so many times N are colored at most to find N of the pair's own.
SHARED_FACTOR = 20


class Followed:
    """The packets of a pair that have one key: their records so far, and whether all of them arrived.

    Attributes:
        start: the first of their first-hop records; None while that is missing.
        flow_id: name of its flow; empty till then.
        beyond: they were colored beyond N; unsure: they may turn out to be (`pulses`).
    """

    __slots__ = (
        "_last",
        "arrived",
        "beyond",
        "first",
        "flow_id",
        "for_another",
        "last_s",
        "pair",
        "records",
        "start",
        "started_s",
        "unsure",
    )

    def __init__(self, now_s: float) -> None:
        self.pair = -1
        self.start: LogRecord | None = None
        self.flow_id = ""
        self.beyond = False
        self.unsure = False
        self._last: LogRecord | None = None
        self.records: list[LogRecord] = []
        self.first = 0
        self.arrived = 0
        self.for_another = False
        self.started_s = now_s
        self.last_s = now_s

    def take(self, record: LogRecord, now_s: float) -> None:
        """Adds a record."""
        self.records.append(record)
        self.last_s = now_s
        self._last = None

    def leave(self, records: list[LogRecord]) -> None:
        """Keeps only these records."""
        self.records = records
        self._last = None

    @property
    def complete(self) -> bool:
        return self.first > 0 and (self.arrived >= self.first or self.for_another)

    def settled(self, now_s: float) -> bool:
        return self.first > 0 and (self.complete or now_s - self.last_s >= LOST_AFTER_S)

    @property
    def last(self) -> LogRecord:
        """The furthest record on its way. Not the one that came in last: each chassis reports on its own."""
        if not self.first:
            return self.records[-1]
        if self._last is None:
            # Compiled code is loaded while the first packets are being colored.
            from vtrace.reconstruct.live import hops_of

            self._last = hops_of(self.records)[-1]
        return self._last

    def begin(self, start: LogRecord) -> None:
        """Takes the first of its first-hop records for its name and pair."""
        self.pair, self.start, self.flow_id = start.pair, start, flow_id(start)

    def ending(self) -> tuple[object, ...]:
        """Where it is now: what has to be the same for two packets to have ended at the same place."""
        last = self.last
        return (last.chassis, last.point, last.datapath, last.out_key, last.peer, self.complete)


class Follower:
    """All packets of a task. Times are the analyzer's own clock, in seconds."""

    def __init__(self, pairs: Sequence[Pair], inventory: Inventory, packets: int) -> None:
        self._packets = packets
        self._pairs = {pair.index: pair for pair in pairs}
        self._goals: dict[int, set[tuple[int, int]]] = defaultdict(set)
        self._add_goals(inventory)
        # By color, epoch and key: packets of several pairs may have one key, as when one datagram is sent to all.
        self._alike: dict[tuple[int, int, int], list[Followed]] = {}
        self.colored: dict[int, int] = defaultdict(int)
        self._unsure: dict[int, int] = defaultdict(int)
        self.records: list[LogRecord] = []
        self._by_pair: dict[int, list[Followed]] = defaultdict(list)
        # Of each pair, by identity: two of them are never equal.
        self._open: dict[int, dict[int, Followed]] = defaultdict(dict)
        self.for_others: dict[int, int] = defaultdict(int)
        # Packets that another pair's entry colored, at an address that the pairs share.
        self._handed: dict[int, int] = defaultdict(int)
        # The latest packet that arrived, of each pair and flow.
        self.arrived_flows: dict[tuple[int, str], Followed] = {}

    def change(self, pairs: Sequence[Pair], inventory: Inventory) -> None:
        """Takes note of a changed topology: packets may arrive at other places, too."""
        self._pairs = {pair.index: pair for pair in pairs}
        self._add_goals(inventory)

    def _add_goals(self, inventory: Inventory) -> None:
        for pair in self._pairs.values():
            self._goals[pair.index] |= {(port.datapath, port.key) for port in inventory.ends(pair.destination)}

    @property
    def packets(self) -> list[Followed]:
        """All that were seen, in the order in which their keys were."""
        return [packet for alike in self._alike.values() for packet in alike if not packet.beyond]

    def add(self, record: LogRecord, now_s: float, *, counts: bool = True, unsure: bool = False) -> None:
        """Takes a record in. What was colored beyond N is counted, not followed.

        Args:
            counts, unsure: of a first-hop record, whether its packet is one of the N, and may yet turn out not to be.
        """
        alike = self._alike.setdefault((record.color, record.epoch, record.key), [])
        if record.point == Point.FIRST_HOP:
            packet = self._begun(alike, record, now_s, counts)
            packet.unsure = unsure
            self._unsure[record.pair] += unsure
        else:
            best = _best(alike, record)
            # Else of a packet whose first hop is not known yet: an answer with the key of what it answers, say.
            packet = best if best and _takes(best, record) else self._pending(alike, now_s)
        if packet.beyond:
            return
        self.records.append(record)
        packet.take(record, now_s)
        if record.point == Point.FIRST_HOP:
            packet.first += 1
            self._open[packet.pair][id(packet)] = packet
            # What is known of it already may have come from another server.
            packet.arrived = sum(1 for r in packet.records if self._is_arrival(packet, r))
        elif self._is_arrival(packet, record):
            packet.arrived += 1
        self._notice_other(packet, record)
        if packet.complete:
            self._open[packet.pair].pop(id(packet), None)
        if packet.complete and not packet.for_another:
            self.arrived_flows[(packet.pair, packet.flow_id)] = packet

    def _begun(self, alike: list[Followed], record: LogRecord, now_s: float, counts: bool) -> Followed:
        """What a first-hop record belongs to: the packets of its pair and key, with what was seen of them before."""
        self.colored[record.pair] += counts
        found = next((p for p in alike if p.pair == record.pair), None)
        if found is not None:
            return found
        found = self._pending(alike, now_s)
        found.begin(record)
        enough = self.own(record.pair) > self._packets or self.colored[record.pair] > self._limit(record.pair)
        found.beyond = enough or not counts
        if not found.beyond:
            self._by_pair[record.pair].append(found)
        else:
            before = found.records
            found.leave([r for r in before if _takes(found, r)])
            self._forget(found.records)
            for foreign in before:
                if not _takes(found, foreign):
                    self._pending(alike, now_s).take(foreign, now_s)
        for other in alike:
            if other is not found:
                self._give(other, found, alike)
        return found

    def _give(self, other: Followed, packet: Followed, alike: list[Followed]) -> None:
        """Gives a packet the records that were another's only because its own beginning was not known yet."""
        own = [
            r for r in other.records if r.point != Point.FIRST_HOP and _best(alike, r) is packet and _takes(packet, r)
        ]
        if own:
            other.leave([r for r in other.records if r not in own])
            other.arrived = sum(1 for r in other.records if self._is_arrival(other, r))
            if other.start and not other.complete and not other.beyond:
                self._open[other.pair][id(other)] = other
            for record in own:
                packet.take(record, packet.last_s)
            if packet.beyond:
                self._forget(own)

    @staticmethod
    def _pending(alike: list[Followed], now_s: float) -> Followed:
        """What has the records of a key whose first hop is not known yet."""
        found = next((p for p in alike if p.start is None), None)
        if found is None:
            found = Followed(now_s)
            alike.append(found)
        return found

    def _forget(self, records: Sequence[LogRecord]) -> None:
        """Leaves out records that came in before the one that says that their packet was colored beyond N."""
        gone = {id(record) for record in records}
        if gone:
            self.records = [record for record in self.records if id(record) not in gone]

    def set_aside(self, pair: int) -> None:
        """Takes the packets of a pair that were not sure to count for such as were colored beyond N."""
        for packet in [packet for packet in self._by_pair[pair] if packet.unsure]:
            packet.beyond = True
            self._by_pair[pair].remove(packet)
            self._open[pair].pop(id(packet), None)
            self.for_others[pair] -= packet.for_another
            self._forget(packet.records)
        # More may have been colored than were followed.
        self.colored[pair] -= self._unsure.pop(pair, 0)
        self.arrived_flows = {name: packet for name, packet in self.arrived_flows.items() if not packet.beyond}

    def _is_arrival(self, packet: Followed, record: LogRecord) -> bool:
        """Whether a record says that its packet came out at its own pair's destination."""
        return record.point == Point.EGRESS and (record.datapath, record.out_key) in self._goals[packet.pair]

    def _notice_other(self, packet: Followed, record: LogRecord) -> None:
        """Counts a packet that turns out to be for another endpoint: it is over as far as the task is concerned."""
        pair = self._pairs.get(packet.pair)
        if pair is None or packet.for_another or not any(a.shared for a in pair.destination.aliases):
            return
        if packet.start and any(pair.is_for_another(packet.start.dst, r.dst) for r in packet.records):
            self.for_others[packet.pair] += 1
            other = self._whose(pair, packet.start, packet)
            if other is None or packet.first > 1 or self.own(other) >= self._packets:
                packet.for_another = True
            else:
                self._hand_over(packet, packet.start, other)

    def _whose(self, pair: Pair, start: LogRecord, packet: Followed) -> int | None:
        """The number of the pair that a packet is of, though the entry of another one colored it."""
        for other in self._pairs.values():
            if other.index == pair.index or (other.direction, other.source) != (pair.direction, pair.source):
                continue
            shares = any(a.shared and a.address == start.dst for a in other.destination.aliases)
            if shares and any(r.dst in other.destination.addresses for r in packet.records):
                return other.index
        return None

    def _hand_over(self, packet: Followed, start: LogRecord, pair: int) -> None:
        """Makes a packet one of another pair's, as if that one's entry had colored it."""
        self._by_pair[packet.pair].remove(packet)
        self._open[packet.pair].pop(id(packet), None)
        first = replace(start, pair=pair)
        for records in (self.records, packet.records):
            # One of the last, and there once only: from the end it is soon found.
            at = next(number for number in range(len(records) - 1, -1, -1) if records[number] is start)
            records[at] = first
        packet.begin(first)
        packet.leave(packet.records)
        packet.arrived = sum(1 for r in packet.records if self._is_arrival(packet, r))
        self._handed[pair] += 1
        self._by_pair[pair].append(packet)
        self._open[pair][id(packet)] = packet

    def has_enough(self, pair: int) -> bool:
        """Whether N packets of the pair are colored, or of a shared address so many that more would be too many."""
        if max(self.own(pair), self.colored[pair]) < self._packets:
            return False
        return self.own(pair) >= self._packets or self.colored[pair] >= self._limit(pair)

    def _limit(self, pair: int) -> int:
        """How many packets are colored at most: more than N where a shared address brings those of others too."""
        shared = any(alias.shared for alias in self._pairs[pair].destination.aliases)
        return self._packets * (SHARED_FACTOR if shared else 1)

    def own(self, pair: int) -> int:
        """Packets of the pair: all that are colored and not known to be for another endpoint."""
        return self.colored[pair] - self.for_others[pair] + self._handed[pair]

    def of_pair(self, pair: int) -> list[Followed]:
        """The pair's packets, in the order in which they were first seen; not those for other endpoints."""
        return [packet for packet in self._by_pair[pair] if not packet.for_another]

    def settled(self, pair: int, now_s: float) -> list[Followed]:
        return [p for p in self.of_pair(pair) if p.settled(now_s)]

    def all_settled(self, now_s: float) -> bool:
        """Whether every packet that was colored has ended."""
        return all(self.pair_settled(pair, now_s) for pair in tuple(self._open))

    def pair_settled(self, pair: int, now_s: float) -> bool:
        """Whether every colored packet of the pair has ended."""
        return all(p.settled(now_s) for p in self._open[pair].values())

    def overdue(self, now_s: float) -> list[Followed]:
        """Packets without a record for a while that have not arrived, oldest first."""
        return [p for found in self._open.values() for p in found.values() if now_s - p.last_s >= OVERDUE_AFTER_S]


def _best(alike: Sequence[Followed], record: LogRecord) -> Followed | None:
    """Whose record it is, of packets with one key: that whose addresses and ports it has most of.

    NAT and load balancers leave a part of them alone.
    """
    if len(alike) < 2:
        return alike[0] if alike else None
    return max(alike, key=lambda packet: _likeness(packet.start, record) if packet.start else -1)


def _takes(packet: Followed, record: LogRecord) -> bool:
    """Whether a record is taken for a packet's: what was colored beyond N takes only what shares an address with it.

    NAT may change both addresses on the way; but what is taken there is lost for all others.
    """
    start = packet.start
    return not packet.beyond or start is None or record.src == start.src or record.dst == start.dst


def _likeness(one: LogRecord, two: LogRecord) -> int:
    return (one.src == two.src) + (one.dst == two.dst) + (one.sport == two.sport) + (one.dport == two.dport)
