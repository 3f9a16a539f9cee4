"""Log streams: which of the records that agents wrote are at hand, and when those that are not were written.

Sequence numbers tell a lost record from a lost packet. The records of a stream (chassis, incarnation, color, epoch)
are numbered from 1; a *hole* is a run of numbers that nobody has. When it was written is known from its neighbors, by
the clock of that chassis alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import numpy as np
import pyarrow as pa

from vtrace.compiled import compiled
from vtrace.model.record import StreamEnd

Name = tuple[str, int, int, int]
NAMES = ("chassis", "incarnation", "color", "epoch")

# A stream that claims so many more records than there are is not believed: all of it counts as a hole.
_CREDIBLE = 64
_CREDIBLE_AT_LEAST = 1 << 22
_FAR_NS = np.int64(1 << 62)
# Times are kept as so much more than they are: 0, which new memory holds, stands for a record that was not seen.
_ORIGIN_NS = _FAR_NS


class Holes(msgspec.Struct, frozen=True, kw_only=True):
    """The holes of all streams, by stream and then by number.

    Attributes:
        stream: number of the stream; first, last: the numbers that are missing; after_ns, before_ns: they were written
            after and before these times of the chassis's monotonic clock.
    """

    stream: np.ndarray
    first: np.ndarray
    last: np.ndarray
    after_ns: np.ndarray
    before_ns: np.ndarray


class Streams:
    """What is at hand of each stream.

    Attributes:
        names: of the streams, by number; written: how many records each has, as far as is known.
        spans: int64, two columns: when the first and the last of a stream's records at hand were written, by its
            chassis's monotonic clock.
    """

    def __init__(
        self, ends: Iterable[StreamEnd] = (), *, records: int = 0, zeros: Callable[[int], np.ndarray] | None = None
    ) -> None:
        """Makes room.

        Args:
            ends: what agents say that they have written.
            records: how many records there are at hand: far more than that nobody is believed.
            zeros: gives room for so many numbers, all 0 (default: memory of this process). In shared memory processes
                that are forked once there is room for all take note of records where this one does.
        """
        self._zeros = zeros or (lambda length: np.zeros(length, np.int64))
        self.names: list[Name] = []
        self.written = np.zeros(0, np.int64)
        self.spans = np.zeros((0, 2), np.int64)
        # Where each stream's numbers stand in `_times` (-1: it is not believed), how many there is room for, and how
        # many before them are settled for good.
        self._bases, self._room, self._settled = (np.zeros(0, np.int64) for _ in range(3))
        self._times = np.zeros(0, np.int64)
        self._old_holes: list[np.ndarray] = []
        self._numbers: dict[Name, int] = {}
        self._most = 0
        self.believe(records)
        self.expect({(e.chassis, e.incarnation, e.color, e.epoch): e.written for e in ends})

    def believe(self, records: int) -> None:
        """Takes note of how many records there are: of a stream that claims far more all is a hole."""
        self._most = max(_CREDIBLE_AT_LEAST, _CREDIBLE * records)

    def expect(self, written: dict[Name, int]) -> None:
        """Takes note that streams have so many records at least, and makes room for them."""
        for name in written:
            if name not in self._numbers:
                self._numbers[name] = len(self.names)
                self.names.append(name)
        new = len(self.names) - len(self.written)
        if new:
            nothing = np.zeros(new, np.int64)
            self.written, self._bases, self._room, self._settled = (
                np.concatenate((own, nothing)) for own in (self.written, self._bases, self._room, self._settled)
            )
            self.spans = np.concatenate((self.spans, np.tile([_FAR_NS, -_FAR_NS], (new, 1))))
        numbers = np.array([self._numbers[name] for name in written], np.int64)
        np.maximum.at(self.written, numbers, np.array(list(written.values()), np.int64))
        self._make_room()

    def _make_room(self) -> None:
        needed = self.written - self._settled
        self._bases[(needed > self._most) | (self.written < 0)] = -1
        if np.all((self._bases < 0) | (needed <= self._room)):
            return
        # A stream that grows gets twice the room, so that it moves seldom.
        grown = np.where((self._room > 0) & (needed > self._room), 2 * needed, np.maximum(needed, self._room))
        self._lay(np.where(self._bases < 0, 0, grown), np.zeros(len(self.names), np.int64))

    def _lay(self, room: np.ndarray, dropped: np.ndarray) -> None:
        """Lays the streams out anew, with so much room each, and so many numbers at the beginning of each left out."""
        bases = np.concatenate(([0], np.cumsum(room)))
        times = self._zeros(int(bases[-1]))
        for stream in np.flatnonzero(self._bases >= 0).tolist():
            kept = min(self._room[stream] - dropped[stream], room[stream])
            begin = self._bases[stream] + dropped[stream]
            if kept > 0:
                times[bases[stream] : bases[stream] + kept] = self._times[begin : begin + kept]
        self._bases = np.where(self._bases < 0, -1, bases[:-1])
        self._room, self._times = room, times
        self._settled = self._settled + dropped

    def numbers(self, places: pa.Table) -> np.ndarray:
        """The stream of each row of a table of places; new ones are added."""
        names = list(zip(*(places.column(name).to_pylist() for name in NAMES), strict=True))
        unknown = {name: 0 for name in names if name not in self._numbers}
        if unknown:
            self.expect(unknown)
        return np.array([self._numbers[name] for name in names], np.int64)

    def reach(self, stream: np.ndarray, place: np.ndarray, seq: np.ndarray) -> None:
        """Makes room for records whose numbers are higher than what was known to be written."""
        highest = np.zeros(len(self.names), np.int64)
        _highest(stream, place, seq, highest)
        self.written = np.maximum(self.written, highest)
        self._make_room()

    def mark(
        self, stream: np.ndarray, place: np.ndarray, seq: np.ndarray, mono: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Takes note of records. Several processes may do so at once, if they share the room for all.

        Args:
            stream: of each place; place, seq, mono: of each record.

        Returns:
            For each record whether it had not been there before; and the spans of these records, for `widen`.
        """
        new = np.empty(len(seq), np.bool_)
        spans = np.tile([_FAR_NS, -_FAR_NS], (len(self.names), 1))
        _mark(stream, place, seq, mono, self._bases, self._room, self._settled, self._times, spans, new)
        return new, spans

    def widen(self, spans: np.ndarray) -> None:
        """Takes note of when records were written, as `mark` found it."""
        own = self.spans[: len(spans)]
        own[:, 0] = np.minimum(own[:, 0], spans[:, 0])
        own[:, 1] = np.maximum(own[:, 1], spans[:, 1])

    def widen_by_name(self, names: list[Name], spans: np.ndarray) -> None:
        """As `widen`, for streams that may have other numbers elsewhere.

        Args:
            names, spans: of each stream.
        """
        self.expect(dict.fromkeys(names, 0))
        own = np.tile([_FAR_NS, -_FAR_NS], (len(self.names), 1))
        own[[self._numbers[name] for name in names]] = spans
        self.widen(own)

    def missing(self, holes: Holes) -> np.ndarray:
        """How many records of each stream nobody has; -1 where it is not believed.

        Args:
            holes: of these streams.
        """
        found = np.zeros(len(self.names), np.int64)
        believed = self._bases[holes.stream] >= 0
        np.add.at(found, holes.stream[believed], (holes.last - holes.first + 1)[believed])
        return np.where(self._bases < 0, -1, found)

    def holes(self) -> Holes:
        """All runs of missing numbers."""
        runs = self._runs()
        unbelieved = np.flatnonzero(self._bases < 0)
        whole = np.tile([0, 1, np.iinfo(np.int64).max, -_FAR_NS, _FAR_NS], (len(unbelieved), 1))
        whole[:, 0] = unbelieved
        runs = np.concatenate((runs, whole))
        runs = runs[np.lexsort((runs[:, 1], runs[:, 0]))]
        return Holes(stream=runs[:, 0], first=runs[:, 1], last=runs[:, 2], after_ns=runs[:, 3], before_ns=runs[:, 4])

    def settle(self, before_ns: dict[str, int]) -> None:
        """Forgets the numbers of records that were written before a time of each chassis, save for their holes.

        What of them still comes is late: it changes no answer any more.
        """
        dropped = np.zeros(len(self.names), np.int64)
        for stream in np.flatnonzero(self._bases >= 0).tolist():
            limit = before_ns.get(self.names[stream][0])
            base = self._bases[stream]
            held = self._times[base : base + self.written[stream] - self._settled[stream]]
            if limit is not None and len(held):
                old = np.flatnonzero((held != 0) & (held < limit + _ORIGIN_NS))
                dropped[stream] = old[-1] if len(old) else 0
        if int(dropped.sum()) > len(self._times) // 2:
            self._old_holes.append(self._runs(dropped))
            self._lay(self.written - self._settled - dropped, dropped)

    def _runs(self, until: np.ndarray | None = None) -> np.ndarray:
        """Rows of stream, first and last number, and the times before and behind; up to so many numbers, if given."""
        lengths = self.written - self._settled
        seen = self.spans[:, 0] != _FAR_NS
        limits = lengths if until is None else until
        runs = _missing_runs(self._times, self._bases, lengths, seen, self._settled, limits)
        return np.concatenate([runs, *(self._old_holes if until is None else ())])


@compiled
def _missing_runs(
    times: np.ndarray,
    bases: np.ndarray,
    lengths: np.ndarray,
    seen: np.ndarray,
    settled: np.ndarray,
    until: np.ndarray,
) -> np.ndarray:
    """The runs of missing numbers of all streams that are believed, as rows of `Streams._runs`.

    Args:
        seen: of each stream whether any of its records is at hand: if not, its room was never touched, nor is it here.
        until: of each stream only runs that begin before so many of its numbers.
    """
    found = np.empty((64, 5), np.int64)
    count = 0
    for stream in range(len(bases)):
        base = bases[stream]
        end = base + lengths[stream] if base >= 0 else base
        at = _end_of_run(times, base, end, False) if seen[stream] else base
        while at < end and at - base < until[stream]:
            behind = _end_of_run(times, at, end, True) if seen[stream] else end
            if count == len(found):
                wider = np.empty((2 * count, 5), np.int64)
                wider[:count] = found
                found = wider
            found[count, 0] = stream
            found[count, 1] = at - base + 1 + settled[stream]
            found[count, 2] = behind - base + settled[stream]
            found[count, 3] = times[at - 1] - _ORIGIN_NS if at > base else -_FAR_NS
            found[count, 4] = times[behind] - _ORIGIN_NS if behind < end else _FAR_NS
            count += 1
            at = _end_of_run(times, behind, end, False)
    return found[:count]


@compiled
def _end_of_run(times: np.ndarray, at: int, end: int, missing: bool) -> int:
    """Where numbers that are missing, or those that are not, come to an end."""
    while at < end and (times[at] == 0) == missing:
        at += 1
    return at


@compiled
def _highest(stream: np.ndarray, place: np.ndarray, seq: np.ndarray, highest: np.ndarray) -> None:
    for row in range(len(seq)):
        one = stream[place[row]]
        highest[one] = max(highest[one], seq[row])


@compiled
def _mark(
    stream: np.ndarray,
    place: np.ndarray,
    seq: np.ndarray,
    mono: np.ndarray,
    bases: np.ndarray,
    room: np.ndarray,
    settled: np.ndarray,
    times: np.ndarray,
    spans: np.ndarray,
    new: np.ndarray,
) -> None:
    for row in range(len(seq)):
        one, at_ns = stream[place[row]], mono[row]
        if at_ns < spans[one, 0]:
            spans[one, 0] = at_ns
        if at_ns > spans[one, 1]:
            spans[one, 1] = at_ns
        number = seq[row] - settled[one]
        if bases[one] < 0:
            new[row] = True
        elif number <= 0:
            new[row] = False
        elif number <= room[one]:
            at = bases[one] + number - 1
            new[row] = times[at] == 0
            times[at] = at_ns + _ORIGIN_NS
        else:
            new[row] = True
