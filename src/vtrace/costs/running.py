"""Measures one condition: a stream that does not stop, slices with and without entries in turn."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from vtrace.costs import readings
from vtrace.costs.children import Stream, probed
from vtrace.costs.readings import Ours
from vtrace.costs.setting import Progress, Setting
from vtrace.costs.switching import Switch
from vtrace.errors import CannotWorkError

# After a switch, for cached flows to follow; as long after "off" as after "on".
SETTLE_S = 0.5


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """What one slice saw.

    Attributes:
        label: "A" without, "B" with; began_ns, ended_ns: by the machine's monotonic clock.
        packets, size_bytes: that the sink took; background: packets that the senders of other pairs sent.
        forwarding_ns: processor time of the threads that forward, of each server; holder_ns: of the process that
            holds what is on, its children included.
        before, after: our entries, of both servers together; ours are counted outside of the slice.
        colored: packets that entries of ours colored meanwhile, as far as Open vSwitch has counted them by then (it is
            up to a second behind) and the entries stayed (`vtrace diagnose` colors fast streams in pulses).
    """

    label: str
    began_ns: int
    ended_ns: int
    packets: int
    size_bytes: int
    background: int
    forwarding_ns: tuple[int, ...]
    holder_ns: int
    before: dict[str, int]
    after: dict[str, int]
    colored: int

    @property
    def seconds(self) -> float:
        return (self.ended_ns - self.began_ns) / 1e9

    @property
    def ns_per_packet(self) -> float:
        """Processor time of the threads that forward for each packet that arrived."""
        return sum(self.forwarding_ns) / max(1, self.packets)


class _Mark(msgspec.Struct, frozen=True, kw_only=True):
    at_ns: int
    counts: tuple[int, int]
    background: int
    forwarding_ns: tuple[int, ...]
    holder_ns: int


class Watch:
    """What is read at the ends of each slice.

    Args:
        stream: what is measured (its sink, or its probe); background: the senders of other pairs.
    """

    def __init__(self, setting: Setting, stream: Stream, background: Sequence[Stream]) -> None:
        self.setting = setting
        self.stream = stream
        self._background = background
        self._pids = setting.pids()
        # By label, as they were at the end of the first slice of it: counts of both servers together.
        self.cache: dict[str, dict[str, int]] = {}
        self.lookups: dict[str, dict[str, float]] = {}

    def mark(self, holder: int | None) -> _Mark:
        return _Mark(
            at_ns=time.monotonic_ns(),
            counts=self.stream.counts(),
            background=sum(one.counts()[0] for one in self._background),
            forwarding_ns=tuple(readings.main_thread_ns(pid) for pid in self._pids),
            holder_ns=readings.process_ns(holder) + readings.children_ns(holder) if holder else 0,
        )

    def look(self, label: str) -> None:
        """Cached flows and masks, entries of ours, and how many subtables a look-up takes; once for each label."""
        if label in self.cache:
            return
        state = self.setting.state
        held = [readings.cached(state, server) for server in self.setting.servers]
        self.cache[label] = {
            "flows": sum(len(one.flows) for one in held),
            "masks": sum(one.masks for one in held),
            "copying": sum(one.copying for one in held),
        }
        self.cache[label] |= {f"entries_{role}": length for role, length in _together(self.ours()).items()}
        for server in self.setting.servers:
            self.lookups[f"{label} {server.name}"] = readings.lookups(state, server)

    def ours(self) -> list[Ours]:
        return [readings.ours(self.setting.state, server) for server in self.setting.servers]


def measure(watch: Watch, switch: Switch, labels: str, seconds: float, say: Progress) -> list[Slice]:
    """All slices; what is on is off at the end.

    Raises:
        CannotWorkError: entries of ours are there that must not be, or are not there.
    """
    found: list[Slice] = []
    is_on = False
    try:
        for number, label in enumerate(labels):
            if (label == "B") != is_on:
                is_on = label == "B"
                (switch.on if is_on else switch.off)()
                time.sleep(SETTLE_S)
            found.append(_slice(watch, switch, label, seconds))
            watch.look(label)
            one = found[-1]
            rate = f"{one.packets / one.seconds:,.0f} packets/s" if one.packets else ""
            say(f"{number + 1} of {len(labels)}, {label}: {rate} {sum(one.before.values())} entries of ours")
    finally:
        if is_on:
            switch.off()
    return found


def _slice(watch: Watch, switch: Switch, label: str, seconds: float) -> Slice:
    before = watch.ours()
    began = watch.mark(switch.pid())
    time.sleep(seconds)
    ended = watch.mark(switch.pid())
    after = watch.ours()
    if label == "A" and any(one.length for one in (*before, *after)):
        raise CannotWorkError(
            "Entries of VTrace are there in a slice without", "", str(before), "Wait, or end its tasks"
        )
    return Slice(
        label=label,
        began_ns=began.at_ns,
        ended_ns=ended.at_ns,
        packets=ended.counts[0] - began.counts[0],
        size_bytes=ended.counts[1] - began.counts[1],
        background=ended.background - began.background,
        forwarding_ns=tuple(b - a for a, b in zip(began.forwarding_ns, ended.forwarding_ns, strict=True)),
        holder_ns=ended.holder_ns - began.holder_ns,
        before=_together(before),
        after=_together(after),
        colored=max(0, sum(one.colored for one in after) - sum(one.colored for one in before)),
    )


def _together(found: Sequence[Ours]) -> dict[str, int]:
    roles = sorted({role for one in found for role in one.entries})
    return {role: sum(one.entries.get(role, 0) for one in found) for role in roles}


class Trip(msgspec.Struct, frozen=True, kw_only=True):
    """A probe's packets of one slice.

    `lost` did not come back, `overtaken` came back after a later one; `times_us` of those that came back.
    """

    sent: int
    lost: int
    overtaken: int
    times_us: tuple[float, ...]


def trips(stream: Stream, slices: Sequence[Slice]) -> tuple[list[Trip], Trip]:
    """The probe's packets of each slice, by when they were sent; and those between slices, while things changed."""
    packets = probed(stream.path)
    inside: list[list[tuple[int, int, int]]] = [[] for _ in slices]
    between: list[tuple[int, int, int]] = []
    at = 0
    for packet in packets:
        while at < len(slices) and packet[0] >= slices[at].ended_ns:
            at += 1
        if at < len(slices) and packet[0] >= slices[at].began_ns:
            inside[at].append(packet)
        elif 0 < at < len(slices) or (at == 0 and slices and packet[0] >= slices[0].began_ns):
            between.append(packet)
    return [_trip(one) for one in inside], _trip(between)


def _trip(packets: Sequence[tuple[int, int, int]]) -> Trip:
    back = [packet for packet in packets if packet[1]]
    places = [place for _, _, place in back]
    latest = 0
    overtaken = 0
    for place in places:
        overtaken += place < latest
        latest = max(latest, place)
    times = tuple((back_ns - sent_ns) / 1e3 for sent_ns, back_ns, _ in back)
    return Trip(sent=len(packets), lost=len(packets) - len(back), overtaken=overtaken, times_us=times)
