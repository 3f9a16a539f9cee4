"""The records that the agents write of a piece of work, numbered as they do; and as a table."""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa

from vtrace.model.record import Point
from vtrace.model.record_schema import FIELDS, RECORD_SCHEMA
from vtrace.synthetic.chance import Chance, Ints
from vtrace.synthetic.clocks import Clocks
from vtrace.synthetic.cloud import Cloud
from vtrace.synthetic.options import Options
from vtrace.synthetic.packets import Packets, Span, draw_packets
from vtrace.synthetic.pairs import draw_pairs
from vtrace.synthetic.tasks import TICK_NS, Tasks
from vtrace.synthetic.ways import lay_ways

# Less than what a stop takes at least, so that records of one packet on one server stay in order.
_JITTER_BITS = 10
# Of a stream's sort key so many bits are time: more than a piece of work takes.
_TIME_BITS = 41


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What all pieces of work have in common."""

    options: Options
    chance: Chance
    cloud: Cloud
    clocks: Clocks
    tasks: Tasks


class Streams(msgspec.Struct, frozen=True, kw_only=True):
    """Log streams, a column each: servers as numbers. `written` counts what was written so far."""

    server: Ints
    incarnation: Ints
    color: Ints
    epoch: Ints
    written: Ints

    def names(self) -> list[tuple[int, int, int, int]]:
        """What tells each from all others: server, incarnation, color, epoch."""
        return list(zip(*(c.tolist() for c in (self.server, self.incarnation, self.color, self.epoch)), strict=True))


Written = dict[tuple[int, int, int, int], int]
"""How many records streams have, by their names."""


class Records:
    """The records of a span, stream by stream, each in the order of `seq`.

    Attributes:
        pairs, ways, stops, packets: what they are of.
        packet, stop: rows of `packets` and `stops`; time_ns: since the run's beginning; incarnation; seq.
        streams: those that the span has records of.
    """

    def __init__(self, world: World, span: Span, written: Written) -> None:
        """Args:
        written: of the streams that go on from spans before.
        """
        options, chance, tasks = world.options, world.chance, world.tasks
        self._world = world
        self._span = span
        self.pairs = draw_pairs(options, chance, tasks, span.low, span.high)
        self.ways, self.stops = lay_ways(options.switches, world.cloud, chance, tasks, self.pairs)
        self.packets: Packets = draw_packets(chance, tasks, self.pairs, self.ways, span, options.identical)
        made = self.packets.made
        packet = np.repeat(np.arange(len(made)), made)
        inside = np.arange(len(packet)) - np.repeat(np.cumsum(made) - made, made)
        stop = self.ways.start[self.packets.way][packet] + inside
        time_ns = self._times(packet, stop, inside)
        stream, lives, order = self._streams(packet, stop, time_ns)
        self.packet, self.stop, self.time_ns = packet[order], stop[order], time_ns[order]
        self._number(stream[order], lives, written)

    def __len__(self) -> int:
        return len(self.packet)

    def _times(self, packet: Ints, stop: Ints, inside: Ints) -> Ints:
        packets = self.packets
        jitter_ns = (packets.key[packet] >> (inside & 31)) & ((1 << _JITTER_BITS) - 1)
        steps_ns = packets.step_ns[packet] * inside + packets.wire_ns[packet] * self.stops.wires[stop]
        return np.asarray(packets.sent_ns[packet] + steps_ns + jitter_ns)

    def _streams(self, packet: Ints, stop: Ints, time_ns: Ints) -> tuple[Ints, Ints, Ints]:
        """A number for each record's stream, how often its agent restarted before, and the order by stream and time."""
        stops, ways, span, tasks = self.stops, self.ways, self._span, self._world.tasks
        pair = ways.pair[stops.way]
        phase = (stops.way - ways.first[pair]) // ways.backends[pair]
        use = (self.pairs.task[pair] - span.low) * 2 + phase
        stream = np.unique(use * self._world.cloud.size + stops.server, return_inverse=True)[1][stop]
        lives = self._world.clocks.lives(stops.server[stop], time_ns)
        if self._world.clocks.restart:
            low, high = int(lives.min()), int(lives.max())
            stream = np.unique(stream * (high - low + 1) + lives - low, return_inverse=True)[1]
        each = np.arange(span.low, span.high)
        begin_ns = tasks.tick(each, np.full_like(each, span.begin // tasks.pairs)) * TICK_NS
        since_ns = time_ns - begin_ns[self.pairs.task[self.packets.pair] - span.low][packet]
        return stream, lives, np.argsort((stream << _TIME_BITS) + since_ns, kind="stable")

    def _number(self, stream: Ints, lives: Ints, written: Written) -> None:
        begins = np.flatnonzero(np.diff(stream, prepend=-1))
        counts = np.diff(begins, append=len(stream))
        packet = self.packet[begins]
        server = self.stops.server[self.stop[begins]]
        streams = Streams(
            server=server,
            incarnation=self._world.clocks.incarnation(server, self._world.clocks.lives(server, self.time_ns[begins])),
            color=self.packets.color[packet],
            epoch=self.packets.epoch[packet],
            written=counts,
        )
        before = np.zeros_like(counts)
        if written:
            before = np.array([written.get(name, 0) for name in streams.names()], np.int64)
        self.streams = msgspec.structs.replace(streams, written=before + counts)
        self.seq = np.arange(1, len(stream) + 1) - np.repeat(begins - before, counts)
        self.incarnation = np.repeat(streams.incarnation, counts)

    def regions(self, rows: Ints) -> Ints:
        """The number of the region that each of some records is of."""
        return self._world.cloud.region_of[self.stops.server[self.stop[rows]]]

    def table(self, rows: Ints) -> pa.Table:
        """Some of the records, in the flat form."""
        packet, stop = self.packet[rows], self.stop[rows]
        columns = {
            **self._place(packet, stop),
            **self._headers(packet, stop),
            "key": self.packets.key[packet],
            "seq": self.seq[rows],
            "incarnation": self.incarnation[rows],
            **self._times_of(rows, stop),
        }
        return pa.table([_array(columns[f.name], f.type) for f in FIELDS], schema=RECORD_SCHEMA)

    def _place(self, packet: Ints, stop: Ints) -> dict[str, Ints | pa.Array]:
        stops, packets, cloud, tasks = self.stops, self.packets, self._world.cloud, self._world.tasks
        server, peer, point = stops.server[stop], stops.peer[stop], stops.point[stop]
        first = point == Point.FIRST_HOP
        tunnel_from = stops.tunnel_from[stop]
        pair = packets.pair[packet]
        task = self.pairs.task[pair]
        none, no_task = cloud.size, len(tasks.names) - 1
        return {
            "region": _texts(cloud.regions, server),
            "chassis": _texts(cloud.chassis, server),
            "task": _texts(tasks.names, np.where(first, task, no_task)),
            "pair": np.where(first, self.pairs.number[pair], -1),
            "peer": _texts(cloud.chassis, np.where(peer < 0, none, peer)),
            "tunnel_src": _texts(cloud.encaps, np.where(tunnel_from < 0, none, tunnel_from)),
            "tunnel_dst": _texts(cloud.encaps, np.where(tunnel_from < 0, none, server)),
            "tunnel_id": stops.tunnel_id[stop],
            "color": packets.color[packet],
            "epoch": packets.epoch[packet],
            "point": point,
            "datapath": stops.datapath[stop],
            "in_key": stops.in_key[stop],
            "out_key": stops.out_key[stop],
            "in_ofport": stops.in_ofport[stop],
            "dscp": tasks.dscp[task],
        }

    def _headers(self, packet: Ints, stop: Ints) -> dict[str, Ints | pa.Array]:
        stops, packets = self.stops, self.packets
        nothing = np.zeros(len(packet), np.int64)
        translated, tracked = stops.translated[stop] == 1, stops.tracked[stop]
        (sport, dport), (later_sport, later_dport) = packets.ports
        return {
            "src": _texts(stops.addresses, stops.src[stop]),
            "dst": _texts(stops.addresses, stops.dst[stop]),
            "eth_src": stops.eth_src[stop],
            "eth_dst": stops.eth_dst[stop],
            "vlan": nothing - 1,
            "proto": self.pairs.proto[packets.pair[packet]],
            "sport": np.where(translated, later_sport[packet], sport[packet]),
            "dport": np.where(translated, later_dport[packet], dport[packet]),
            "ttl": packets.ttl[packet] - stops.routed[stop],
            "ip_id": packets.ip_id[packet],
            "length_bytes": packets.length_bytes[packet],
            "tcp_flags": packets.tcp_flags[packet],
            "ecn": nothing,
            "fragment": nothing,
            "ct_state": np.where(tracked > 0, packets.ct_state[packet] | tracked, 0),
            "ct_zone": stops.zone[stop],
        }

    def _times_of(self, rows: Ints, stop: Ints) -> dict[str, Ints | pa.Array]:
        server, time_ns, clocks = self.stops.server[stop], self.time_ns[rows], self._world.clocks
        return {"mono_ns": clocks.mono_ns(server, time_ns), "wall_ns": clocks.wall_ns(server, time_ns)}


def _texts(dictionary: pa.Array, numbers: Ints) -> pa.Array:
    return dictionary.take(pa.array(numbers))


def _array(values: Ints | pa.Array, type_: pa.DataType) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    return pa.array(values.astype(type_.to_pandas_dtype(), copy=False))
