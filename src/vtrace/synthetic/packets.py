"""The packets of the pairs: headers, key, when they are sent, and what becomes of them. A row for each packet."""

from __future__ import annotations

import msgspec
import numpy as np

from vtrace.synthetic import templates
from vtrace.synthetic.chance import Bools, Chance, Ints, Purpose
from vtrace.synthetic.kinds import LOOP
from vtrace.synthetic.pairs import ICMP, ICMP6, TCP, Pairs, kind_number
from vtrace.synthetic.tasks import GROUP, TICK_NS, Tasks
from vtrace.synthetic.ways import Ways

DELIVERED, DROPPED, LOST_BETWEEN, LEFT_DOMAIN = "delivered", "dropped", "lost_between", "left_domain"
DISPOSITIONS = (DELIVERED, DROPPED, LOST_BETWEEN, LEFT_DOMAIN)

# Sent within the first half of a tick; the longest loop has ended within the other half.
_SENDING_NS = TICK_NS // 2
_WIRES_NS = 3_000_000
_LEAST_WIRE_NS, _WIRE_NS = 20_000, 280_000
_LEAST_STEP_NS, _STEP_NS = 2_000, 4_000
_FIRST_PORT, _PORTS = 32_768, 28_000
_SYN, _ACK, _PSH = 0x02, 0x10, 0x08
# Conntrack state bits of ovs-fields(7): trk with new, est, and est and rpl.
_NEW, _ESTABLISHED, _ANSWER = 0x21, 0x22, 0x2A


class Packets(msgspec.Struct, frozen=True, kw_only=True):
    """A column each.

    Attributes:
        number: in its task; pair: the row of its pair; way: of its way.
        content: the number in its task of the packet that it is a copy of, or its own; copies: how many have it.
        key, color, epoch; sent_ns: since the beginning; step_ns, wire_ns: how long each device and each tunnel takes.
        made: how many stops it makes; last: the row of the last stop on its way; disposition: row of `DISPOSITIONS`.
        ct_state: where conntrack has it, without the bits of translations.
        ports: source and destination port, before their translation and after it.
    """

    number: Ints
    pair: Ints
    way: Ints
    content: Ints
    copies: Ints
    key: Ints
    color: Ints
    epoch: Ints
    sent_ns: Ints
    step_ns: Ints
    wire_ns: Ints
    made: Ints
    last: Ints
    disposition: Ints
    ttl: Ints
    ip_id: Ints
    length_bytes: Ints
    tcp_flags: Ints
    ct_state: Ints
    ports: tuple[tuple[Ints, Ints], tuple[Ints, Ints]]


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of work: the tasks from `low` up to `high`, and of each the packets from `begin` up to `end`."""

    low: int
    high: int
    begin: int
    end: int


class _Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """What the other columns are drawn from."""

    task: Ints
    number: Ints
    in_pair: Ints
    pair: Ints
    couple: Ints
    flow: Ints
    phase: Ints


def draw_packets(chance: Chance, tasks: Tasks, pairs: Pairs, ways: Ways, span: Span, identical: float) -> Packets:
    """All packets of a span."""
    drawn = _drawn(tasks, pairs, span)
    task, pair = drawn.task, drawn.pair
    content, copies = _contents(chance, tasks, pairs, drawn, identical)
    backend = chance.below(ways.backends[pair], Purpose.BACKEND, drawn.couple, drawn.flow)
    way = ways.first[pair] + drawn.phase * ways.backends[pair] + backend
    color, epoch = tasks.color[task], tasks.epoch[task] + drawn.phase
    made, last, disposition = _fates(chance, pairs, ways, drawn, way)
    original = _drawn(tasks, pairs, span, content) if identical else drawn
    flags = _flags(chance, pairs, original)
    pace = tasks.pace[task]
    moment = (drawn.in_pair % pace + chance.share(Purpose.SENT, task, drawn.number)) / pace
    wires = np.maximum(templates.WIRES[ways.template[way]], 1)
    wire_ns = _LEAST_WIRE_NS + chance.below(_WIRE_NS, Purpose.LATENCY, task, drawn.number)
    return Packets(
        number=drawn.number,
        pair=pair,
        way=way,
        content=content,
        copies=copies,
        key=chance.bits(Purpose.KEY, task, color, epoch, content).view(np.int64),
        color=color,
        epoch=epoch,
        sent_ns=tasks.tick(task, drawn.in_pair) * TICK_NS + (moment * _SENDING_NS).astype(np.int64),
        step_ns=_LEAST_STEP_NS + chance.below(_STEP_NS, Purpose.JITTER, task, drawn.number),
        wire_ns=np.minimum(wire_ns, _WIRES_NS // wires),
        made=made,
        last=last,
        disposition=disposition,
        ttl=pairs.ttl[pair],
        ip_id=_ip_ids(chance, pairs, original, flags),
        length_bytes=_lengths(chance, pairs, original, flags),
        tcp_flags=flags,
        ct_state=np.where(pairs.reply[pair], _ANSWER, np.where(_opens(pairs, original), _NEW, _ESTABLISHED)),
        ports=_ports(chance, pairs, drawn),
    )


def _drawn(tasks: Tasks, pairs: Pairs, span: Span, numbers: Ints | None = None) -> _Drawn:
    """Of all packets of a span; or of packets with other numbers in the same tasks."""
    each = span.end - span.begin
    row = np.arange((span.high - span.low) * each)
    number = span.begin + row % each if numbers is None else numbers
    pair = row // each * tasks.pairs + number % tasks.pairs
    in_pair = number // tasks.pairs
    task = span.low + row // each
    phase = (tasks.uses[task] > 1) & (in_pair >= tasks.move)
    flow = in_pair // GROUP % pairs.flows[pair]
    couple = pairs.couple[pair]
    return _Drawn(
        task=task, number=number, in_pair=in_pair, pair=pair, couple=couple, flow=flow, phase=phase.astype(np.int64)
    )


def _contents(chance: Chance, tasks: Tasks, pairs: Pairs, drawn: _Drawn, identical: float) -> tuple[Ints, Ints]:
    """Which packet each is a copy of, and how many copies there are of it. The first of a group is of none."""
    ones = np.ones_like(drawn.number)
    if not identical:
        return drawn.number, ones
    place = drawn.in_pair % GROUP
    rate = identical * GROUP / (GROUP - 1)
    copied = (place > 0) & chance.happens(rate, Purpose.IDENTICAL, drawn.task, drawn.number)
    leader = drawn.number - place * tasks.pairs
    # The same datagram of two pairs: that of the pair before in the same direction, if it has the same protocol.
    other = np.maximum(drawn.pair - 2, 0)
    alike = (pairs.task[other] == drawn.task) & (pairs.number[drawn.pair] >= 2)
    alike &= (pairs.proto[other] == pairs.proto[drawn.pair]) & (pairs.six[other] == pairs.six[drawn.pair])
    elsewhere = alike & (chance.below(4, Purpose.IDENTICAL, drawn.task, drawn.number, ones) == 0)
    content = np.where(copied, leader - np.where(elsewhere, 2, 0), drawn.number)
    identity = (drawn.task - drawn.task[0]) * tasks.packets + content
    _, found, counts = np.unique(identity, return_inverse=True, return_counts=True)
    return content, counts[found]


def _fates(chance: Chance, pairs: Pairs, ways: Ways, drawn: _Drawn, way: Ints) -> tuple[Ints, Ints, Ints]:
    """How many stops each packet makes, which is the last on its way, and its disposition."""
    template, length = ways.template[way], ways.length[way]
    lost = chance.share(Purpose.LOST_PACKET, drawn.task, drawn.number) < pairs.loss[drawn.pair]
    lost &= ways.cut[way] < length
    loops = pairs.kind[drawn.pair] == kind_number(LOOP)
    turns = templates.BEFORE_TTL[template, np.minimum(pairs.ttl[drawn.pair], templates.MAX_LOOP_TTL)]
    made = np.where(loops, turns, np.where(lost, ways.cut[way], length))
    # Of a flooded packet the last stop is not the one that it left a record at last.
    cut_row = templates.START[template] + np.minimum(made, length - 1)
    last = ways.start[way] + np.where(made < length, templates.COLUMNS.before[cut_row], length - 1)
    whole = np.where(templates.LEAVES[template], DISPOSITIONS.index(LEFT_DOMAIN), DISPOSITIONS.index(DELIVERED))
    gone = np.where(ways.between[way], DISPOSITIONS.index(LOST_BETWEEN), DISPOSITIONS.index(DROPPED))
    return made, last, np.where(loops, DISPOSITIONS.index(DROPPED), np.where(lost, gone, whole))


def _opens(pairs: Pairs, drawn: _Drawn) -> Bools:
    """Whether each is the first packet of its five-tuple."""
    return (drawn.in_pair % GROUP == 0) & (drawn.in_pair // GROUP < pairs.flows[drawn.pair])


def _flags(chance: Chance, pairs: Pairs, drawn: _Drawn) -> Ints:
    """A five-tuple's first packet opens the connection; of the others every second one pushes."""
    pushes = chance.below(2, Purpose.FLAGS, drawn.task, drawn.number) == 1
    opening = np.where(pairs.reply[drawn.pair], _SYN | _ACK, _SYN)
    flags = np.where(_opens(pairs, drawn), opening, np.where(pushes, _ACK | _PSH, _ACK))
    return np.where(pairs.proto[drawn.pair] == TCP, flags, 0)


def _ip_ids(chance: Chance, pairs: Pairs, drawn: _Drawn, flags: Ints) -> Ints:
    """In IPv6 only fragments have one. In IPv4 some senders set none in what is not to be fragmented (RFC 6864)."""
    numbers = 1 + chance.below(0xFFFF, Purpose.IP_ID, drawn.task, drawn.number)
    none = pairs.six[drawn.pair] | (flags == _SYN | _ACK)
    none |= chance.below(4, Purpose.IP_ID, drawn.couple, drawn.flow) == 0
    return np.where(none, 0, numbers)


def _lengths(chance: Chance, pairs: Pairs, drawn: _Drawn, flags: Ints) -> Ints:
    proto = pairs.proto[drawn.pair]
    payload = 16 + chance.below(1200, Purpose.SIZE, drawn.task, drawn.number)
    # With and without the options of a SYN; acknowledgments carry nothing.
    tcp = np.where(flags & _SYN, 60, np.where(flags & _PSH, 52 + payload, 52))
    echo = (proto == ICMP) | (proto == ICMP6)
    length = np.where(proto == TCP, tcp, np.where(echo, 84, 28 + payload))
    return length + np.where(pairs.six[drawn.pair], 20, 0)


def _ports(chance: Chance, pairs: Pairs, drawn: _Drawn) -> tuple[tuple[Ints, Ints], tuple[Ints, Ints]]:
    pair, proto, reply = drawn.pair, pairs.proto[drawn.pair], pairs.reply[drawn.pair]
    asks = _FIRST_PORT + chance.below(_PORTS, Purpose.PORT, drawn.couple, drawn.flow)
    shares = pairs.kind[pair] == kind_number("internet-snat")
    renamed = shares & (chance.below(2, Purpose.SNAT_PORT, drawn.couple, drawn.flow) == 0)
    outer = _FIRST_PORT + chance.below(_PORTS, Purpose.SNAT_PORT, drawn.couple, drawn.flow, np.ones_like(pair))
    outer = np.where(renamed, outer, asks)
    asked = pairs.server_port[pair]
    balanced = (pairs.kind[pair] == kind_number("slb")) & (asked == 8080)
    outer_asked = np.where(balanced, 80, asked)
    echo = (proto == ICMP) | (proto == ICMP6)
    kind = np.where(proto == ICMP, np.where(reply, 0, 8), np.where(reply, 129, 128))
    found = []
    for translated in (False, True):
        # The outer port of a source NAT is seen after it on the way out, and before it on the way back; with a VIP's
        # port it is the other way round.
        client = np.where(reply != translated, outer, asks)
        server = np.where(reply != translated, asked, outer_asked)
        sport, dport = np.where(reply, server, client), np.where(reply, client, server)
        found.append((np.where(echo, kind, sport), np.where(echo, 0, dport)))
    return found[0], found[1]
