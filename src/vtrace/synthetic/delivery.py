"""What of the records reaches us, and in which order: losses, repetitions, and agents that deliver late."""

from __future__ import annotations

import msgspec
import numpy as np

from vtrace.synthetic.chance import Bools, Chance, Ints, Purpose
from vtrace.synthetic.options import Options
from vtrace.synthetic.records import Records

# An agent sends what it has so often; it takes up to so long.
_FLUSH_NS = 100_000_000
_TRANSIT_NS = 50_000_000


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """Some records of a span, in the order in which they come.

    Attributes:
        rows: of the records; a record that comes twice is in it twice.
        order: a random number for each, for those who want them in no order.
    """

    records: Records
    rows: Ints
    order: Ints


def deliver(options: Options, chance: Chance, records: Records) -> tuple[Delivery, Delivery, Ints]:
    """What comes of a span's records at its time, what comes late, and for each of its packets how many were lost."""
    packet = records.packet
    identity = _identities(records)
    rows = np.arange(len(records))
    lost_by_packet = np.zeros(len(records.packets.number), np.int64)
    if options.log_loss:
        lost = chance.happens(options.log_loss, Purpose.LOG_LOSS, identity)
        lost_by_packet = np.bincount(packet[lost], minlength=len(lost_by_packet))
        rows = rows[~lost]
    again = rows[:0]
    if options.repeat:
        again = rows[chance.happens(options.repeat, Purpose.REPEAT, identity[rows])]
    is_again = np.repeat([0, 1], [len(rows), len(again)])
    rows = np.concatenate([rows, again])
    arrival_ns, late = _arrivals(options, chance, records, rows, is_again)
    # Records are in the order of their streams, and an agent's batch is of one stream after the other.
    sent = np.argsort(arrival_ns, kind="stable")
    order = chance.bits(Purpose.SHUFFLE, identity[rows], is_again).view(np.int64) if options.shuffle else rows
    found = []
    for chosen in (~late[sent], late[sent]):
        here = sent[chosen]
        found.append(Delivery(records=records, rows=rows[here], order=order[here]))
    return found[0], found[1], lost_by_packet


def _identities(records: Records) -> Ints:
    """A number for each record that depends on nothing but the record. Two may have the same, but hardly ever do."""
    return records.packets.key[records.packet] + records.time_ns * 0x9E3779B1 + records.stops.number[records.stop]


def _arrivals(options: Options, chance: Chance, records: Records, rows: Ints, is_again: Ints) -> tuple[Ints, Bools]:
    """When each comes, and whether that is long after the others of its time."""
    server = records.stops.server[records.stop[rows]]
    # What is sent once more was in the batch of a later time.
    flush = records.time_ns[rows] // _FLUSH_NS + 1 + 5 * is_again
    transit_ns = chance.below(_TRANSIT_NS, Purpose.DELAY, server, flush)
    late = np.zeros(len(rows), bool)
    if options.late:
        late = chance.happens(options.late, Purpose.LATE, server, flush, is_again)
    return flush * _FLUSH_NS + transit_ns, late
