"""Which packets of a fast stream count: the first few each time its coloring begins, which the meters let through.

Nothing but the meters bounds how many copies a stream makes, and of a fast one they cut most: a packet whose copies
are partly cut tells nothing. So the copies that the packets must have cost are counted here as the meters count them,
by first-hop records alone, whatever becomes of the packets. One for which there was no room is colored *beyond*: it
is no part of N. A pair with many of these rests till the meters are full again, and then is colored once more.

Records are read late at times, and many at once, so that a slow stream looks fast for a moment. So a pair is only
suspected first: its packets count until a meter turns out to have cut a copy.
"""

from __future__ import annotations

import enum
import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from vtrace.model.plan import Claim
from vtrace.model.record import Disposition, LogRecord, Point

if TYPE_CHECKING:
    # Compiled code is loaded while the first packets are being colored.
    from vtrace.reconstruct.schema import Reconstruction

# The share of what the meters allow that is counted on: others may use them too.
SHARE = 0.75
# A packet's copies on the busiest server, where none has told yet. As many as a way over three switches and two
# routers of one server has.
COPIES = 8
_TELLING = 16
# So many packets beyond, one after the other, and the pair rests; twice as many each time it was not fast after all …
BEYOND = 4
# … for so long since the last of them came: its entries are gone by then, and the meters are full again.
REST_S = 0.1
# Of so many packets it is told whether meters cut copies of those that count.
ENOUGH_WHOLE = 5
# A pair is colored for so long at most, if others wait.
PULSE_S = 0.5


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """What the meters let through, of first hops and of all other copies: at once, and in a second."""

    first: int
    copies: int
    first_pps: int
    copies_pps: int

    @classmethod
    def by(cls, claims: Iterable[Claim]) -> Allowed:
        """What all of some claims allow."""
        found = list(claims)
        return cls(
            first=min(claim.first_burst for claim in found),
            copies=min(claim.copy_burst for claim in found),
            first_pps=min(claim.first_rate_pps for claim in found),
            copies_pps=min(claim.copy_rate_pps for claim in found),
        )


def cuts_of_counted(cut: Mapping[str, int], found: Reconstruction) -> dict[str, int]:
    """How many of the copies that meters cut were of packets that count, as far as these tell.

    Of packets beyond most are cut, which explains nothing. A packet that arrived, though a record of it is missing, had
    a copy cut on one of its servers; where enough arrived with all records, no more were cut than that.

    Args:
        cut: by chassis.
        found: the packets that count.
    """
    chassis = found.records.column("chassis").to_pylist()
    whole: dict[str, Counter[int]] = defaultdict(Counter)
    gaps: list[Counter[str]] = []
    for row in found.packets.select(["disposition", "gap", "hops"]).to_pylist():
        if row["disposition"] == Disposition.EGRESS:
            records = Counter[str](chassis[hop] for hop in row["hops"])
            if row["gap"]:
                gaps.append(records)
            for name, count in records.items() if not row["gap"] else ():
                whole[name][count] += 1
    most = {name: max(counts) for name, counts in whole.items() if counts.total() >= ENOUGH_WHOLE}
    lacking = Counter[str](name for records in gaps for name, count in most.items() if records[name] < count)
    return {name: min(count, lacking[name]) if name in most else count for name, count in cut.items()}


class _Room:
    """What the two meters would let through of a pair's packets. Times are its first chassis's monotonic clock."""

    __slots__ = ("_allowed", "_chassis", "_copies", "_first", "_last_ns")

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._first, self._copies = allowed.first * SHARE, allowed.copies * SHARE
        self._chassis = ""
        self._last_ns = 0

    def take(self, record: LogRecord, copies: int) -> bool:
        """Whether there is room for the copies of a packet whose first-hop record this is."""
        passed_s = (record.mono_ns - self._last_ns) / 1e9 if record.chassis == self._chassis else 0.0
        self._chassis, self._last_ns = record.chassis, record.mono_ns
        allowed = self._allowed
        self._first = min(allowed.first * SHARE, self._first + passed_s * allowed.first_pps * SHARE)
        self._copies = min(allowed.copies * SHARE, self._copies + passed_s * allowed.copies_pps * SHARE)
        # A meter that can't hold the copies of one packet passes those of one that comes when it is full.
        needed = min(copies, allowed.copies * SHARE)
        if self._first >= 1 and self._copies >= needed:
            self._first -= 1
            self._copies -= needed
            return True
        # Its first copies take what there is.
        self._first, self._copies = max(0.0, self._first - 1), 0.0
        return False


class Counted(enum.Enum):
    """Whether a packet is one of the N: `UNSURE` is one until its pair turns out to be fast."""

    YES = enum.auto()
    UNSURE = enum.auto()
    BEYOND = enum.auto()


class _Pair:
    __slots__ = ("beyond", "fast", "last_s", "patience", "room", "row", "unsure")

    def __init__(self, allowed: Allowed) -> None:
        self.room = _Room(allowed)
        self.fast = False
        self.beyond = 0
        self.unsure = 0
        self.row = 0
        self.patience = BEYOND
        self.last_s = 0.0


class Pulses:
    """Which packets count, and which pairs rest. Times that end in `_s` are the analyzer's own clock.

    Attributes:
        beyond: how many packets of each pair were colored beyond.
    """

    def __init__(self) -> None:
        self._allowed = Allowed(first=0, copies=0, first_pps=0, copies_pps=0)
        self._pairs: dict[int, _Pair] = {}
        self._copies: dict[int, int] = {}
        # Fast pairs that rest, in the order of their turns; and the one that is colored now.
        self._resting: deque[int] = deque()
        self._active: int | None = None
        self._since_s = 0.0
        self._stopping: set[int] = set()
        # Those of them that are suspected only.
        self._suspected: set[int] = set()

    def start(self, allowed: Allowed) -> None:
        """Takes note of what the meters let through."""
        self._allowed = allowed

    def take(self, record: LogRecord, now_s: float) -> Counted:
        """Takes a first-hop record in: whether its packet counts."""
        own = self._pairs.get(record.pair)
        if own is None:
            own = self._pairs[record.pair] = _Pair(self._allowed)
        own.last_s = now_s
        has_room = own.room.take(record, self._copies.get(record.pair, COPIES))
        if has_room and record.pair not in self._stopping:
            own.row = 0
            return Counted.YES
        own.row += 1
        if own.fast:
            own.beyond += 1
            return Counted.BEYOND
        own.unsure += 1
        return Counted.UNSURE

    @property
    def beyond(self) -> int:
        """How many packets were colored beyond."""
        return sum(own.beyond for own in self._pairs.values())

    def learn(self, pair: int, packets: Sequence[Sequence[LogRecord]]) -> None:
        """Takes note of how many copies a packet of a pair has, by the records of those that count."""
        copies = 0
        for records in packets[-_TELLING:]:
            chassis = Counter(record.chassis for record in records if record.point != Point.FIRST_HOP)
            # Fragments of one datagram have one key: each of them was colored for itself.
            colored = max(1, len(records) - chassis.total())
            copies = max(copies, *(math.ceil(count / colored) for count in chassis.values()), 0)
        if copies:
            self._copies[pair] = copies

    def must_rest(self, pair: int) -> bool:
        """Whether a pair's coloring has to stop now; true once, till it has begun again."""
        own = self._pairs.get(pair)
        if own is None or own.row < own.patience or pair in self._stopping:
            return False
        self._rest(pair)
        if not own.fast:
            self._suspected.add(pair)
        return True

    def is_suspected(self, pair: int) -> bool:
        """Whether a pair rests until it is known whether meters cut copies: `confirm` or `clear` is to follow."""
        return pair in self._suspected

    def confirm(self, pair: int) -> None:
        """Takes note that meters cut copies: the packets that were not sure to count do not."""
        own = self._pairs[pair]
        own.fast, own.patience = True, BEYOND
        own.beyond, own.unsure = own.beyond + own.unsure, 0
        self._suspected.discard(pair)

    def clear(self, pair: int) -> None:
        """Takes note that no meter cut any copy: the pair is not fast, and does not rest any more."""
        own = self._pairs[pair]
        own.room = _Room(self._allowed)
        own.unsure = own.row = 0
        own.patience *= 2
        self.done(pair)

    def overdue(self, now_s: float) -> int | None:
        """The pair that is colored, where it has been for long and others wait: it rests from now on."""
        pair = self._active
        if pair is None or not self._resting or now_s - self._since_s < PULSE_S:
            return None
        self._rest(pair)
        return pair

    def _rest(self, pair: int) -> None:
        self._stopping.add(pair)
        self._resting.append(pair)
        if self._active == pair:
            self._active = None

    def next(self, now_s: float) -> int | None:
        """The pair that is to be colored again; one at a time, since they share the meters."""
        if self._active is not None or not self._resting:
            return None
        # What comes of any of them still takes room.
        if any(now_s - self._pairs[pair].last_s < REST_S for pair in self._resting if pair in self._pairs):
            return None
        pair = next((one for one in self._resting if one not in self._suspected), None)
        if pair is None:
            return None
        self._active = pair
        self._resting.remove(pair)
        self._since_s = now_s
        self._stopping.discard(pair)
        if pair in self._pairs:
            self._pairs[pair].row = 0
        return pair

    def done(self, pair: int) -> None:
        """Forgets a pair that has its packets."""
        self._suspected.discard(pair)
        if self._active == pair:
            self._active = None
        if pair in self._resting:
            self._resting.remove(pair)
        self._stopping.discard(pair)
