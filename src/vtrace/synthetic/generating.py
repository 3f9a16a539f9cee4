"""Makes records and their truth, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from vtrace.model.record_schema import StreamEnd
from vtrace.synthetic.chance import Chance
from vtrace.synthetic.clocks import Clocks
from vtrace.synthetic.cloud import Cloud
from vtrace.synthetic.delivery import Delivery, deliver
from vtrace.synthetic.options import Options
from vtrace.synthetic.output import Sink
from vtrace.synthetic.packets import Span, draw_packets
from vtrace.synthetic.pairs import draw_pairs
from vtrace.synthetic.records import Records, Streams, World, Written
from vtrace.synthetic.tasks import GROUP, Tasks
from vtrace.synthetic.truth import TruthFile
from vtrace.synthetic.ways import lay_ways

# Records of a piece of work: as many as processors' caches hold parts of.
SPAN_RECORDS = 250_000
# Packets of a piece at most, for the time that it takes (`records`).
_MOST_PACKETS = 1 << 16
# Of how many packets the mean number of records is taken, to know how many packets to make.
_SAMPLE_PAIRS = 4_000
_LEAST_RESTART_TICKS = 2


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What was made.

    Attributes:
        written: records that the agents wrote; delivered: records in the file, repeated ones included.
        lost: records that were lost on their way. streams: log streams.
    """

    packets: int
    written: int
    delivered: int
    lost: int
    repeated: int
    streams: int
    dispositions: dict[str, int]
    kinds: dict[str, int]


def build_world(options: Options) -> World:
    """The cloud, its clocks and its tasks.

    Raises:
        UsageError: options that can't be.
    """
    options.check()
    chance = Chance(options.seed)
    cloud = Cloud(options, chance)
    tasks = Tasks(options, chance, options.packets)
    if options.records:
        packets = round(options.records / options.tasks / mean_records(options, chance, cloud, tasks))
        tasks = Tasks(options, chance, max(1, packets))
    ticks = int(tasks.start[-1]) + tasks.ticks
    restart_ticks = max(_LEAST_RESTART_TICKS, tasks.per_pair // 2)
    clocks = Clocks(options, chance, ticks, restart_ticks)
    return World(options=options, chance=chance, cloud=cloud, clocks=clocks, tasks=tasks)


def mean_records(options: Options, chance: Chance, cloud: Cloud, tasks: Tasks) -> float:
    """How many records a packet leaves, on the average of a sample."""
    count = max(1, min(options.tasks, _SAMPLE_PAIRS // tasks.pairs))
    pairs = draw_pairs(options, chance, tasks, 0, count)
    ways, _ = lay_ways(options.switches, cloud, chance, tasks, pairs)
    span = Span(low=0, high=count, begin=0, end=GROUP * tasks.pairs)
    return float(draw_packets(chance, tasks, pairs, ways, span, 0.0).made.mean())


def spans(world: World, span_records: int = SPAN_RECORDS) -> Iterator[Span]:
    """The pieces of work: some whole tasks each; or a part of one, which ends between two groups of packets."""
    tasks = world.tasks
    mean = mean_records(world.options, world.chance, world.cloud, tasks)
    packets = int(min(max(span_records / mean, 1), _MOST_PACKETS))
    count = len(tasks.color)
    if tasks.packets <= packets:
        each = packets // tasks.packets
        for low in range(0, count, each):
            yield Span(low=low, high=min(low + each, count), begin=0, end=tasks.packets)
        return
    step = max(1, packets // (GROUP * tasks.pairs)) * GROUP * tasks.pairs
    for task in range(count):
        for begin in range(0, tasks.packets, step):
            yield Span(low=task, high=task + 1, begin=begin, end=min(begin + step, tasks.packets))


def generate(world: World, sink: Sink, truth: TruthFile, span_records: int = SPAN_RECORDS) -> Totals:
    """Makes everything, and closes both files. If it fails neither is left.

    Args:
        span_records: about so many records are made at once; which records are made does not depend on it.
    """
    try:
        return _generate(world, sink, truth, span_records)
    except BaseException:
        sink.abandon()
        truth.abandon()
        raise


def _generate(world: World, sink: Sink, truth: TruthFile, span_records: int) -> Totals:
    ends = _Ends(world)
    late: Delivery | None = None
    delivered = lost = 0
    for span in spans(world, span_records):
        records = Records(world, span, ends.written)
        now, later, lost_of_packets = deliver(world.options, world.chance, records)
        for delivery in (now, late):
            if delivery is not None:
                sink.add(delivery)
        late = later
        truth.add(world, records, lost_of_packets)
        delivered += len(now.rows) + len(later.rows)
        lost += int(lost_of_packets.sum())
        ends.add(records.streams, complete=span.end == world.tasks.packets, part=span.begin > 0)
        if span.end == world.tasks.packets:
            sink.end_task()
    if late is not None:
        sink.add(late)
    found = ends.found()
    sink.close(found)
    truth.close()
    written = sum(end.written for end in found)
    return Totals(
        packets=truth.packets,
        written=written,
        delivered=delivered,
        lost=lost,
        repeated=delivered + lost - written,
        streams=len(found),
        dispositions=truth.dispositions,
        kinds=dict(truth.kinds),
    )


class _Ends:
    """How many records the agents have written in all.

    Attributes:
        written: of the streams of the task that is being made, where it is made in parts.
    """

    def __init__(self, world: World) -> None:
        self.written: Written = {}
        self._chassis = world.cloud.chassis.to_pylist()
        self._ends: list[StreamEnd] = []

    def add(self, streams: Streams, *, complete: bool, part: bool) -> None:
        """Adds the streams of a span: of a part of a task, or `complete` up to its end."""
        counts = dict(zip(streams.names(), streams.written.tolist(), strict=True))
        if part or not complete:
            self.written.update(counts)
            counts = self.written
        if complete:
            for (server, incarnation, color, epoch), written in counts.items():
                self._ends.append(
                    StreamEnd(
                        chassis=self._chassis[server],
                        incarnation=incarnation,
                        color=color,
                        epoch=epoch,
                        written=written,
                    )
                )
            self.written = {}

    def found(self) -> list[StreamEnd]:
        """Of all streams, in the order of their names."""
        return sorted(self._ends, key=lambda e: (e.chassis, e.incarnation, e.color, e.epoch))
