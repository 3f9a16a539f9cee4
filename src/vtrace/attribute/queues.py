"""Packets that were handed to an interface, and dropped by its queue: how many is counted, and which ones is not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction

from vtrace.attribute.case import Case
from vtrace.attribute.cause import CONCLUDED, SEEN_ACTING, Cause, rfc3339
from vtrace.model.answer import Evidence, ObjectRef
from vtrace.model.inspection import Inspection, PortReading

# Queues that hold packets back to a rate (tc(8)).
_SHAPERS = ("tbf", "htb", "hfsc", "cake", "cbq", "drr", "qfq")
# So many times the queue's share may have been lost of the task's packets, of a sample as small as that.
_MUCH_MORE = 2


def dropped_by_queues(case: Case, handed: Mapping[int, tuple[str, str]]) -> dict[int, Cause]:
    """Which of the packets that were handed to interfaces are counted as dropped there, and why.

    An interface counts what it dropped, whosever it was: of a task's packets the same share is taken, spread evenly
    over them. So many were dropped, or about so many; that it was these very packets is not said.

    Args:
        case: the evidence.
        handed: by the number of a packet in first-hop order the chassis and logical port that it was handed to.
    """
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, place in sorted(handed.items()):
        groups[place].append(number)
    found: dict[int, Cause] = {}
    for (chassis, port), numbers in groups.items():
        last = _last_reading(case, chassis, port)
        if last is None:
            continue
        inspection, reading = last
        share = _share(reading)
        chosen = _spread(numbers, round(share * len(numbers)))
        cause = _cause(case, inspection, reading, len(chosen), len(numbers))
        found.update(dict.fromkeys(chosen, cause))
    return found


def dropped_by_sender(case: Case, sender: str, pairs: Collection[int], lost: int, passed: int) -> Cause | None:
    """A limit of the device that a server sends to another by, if that explains what did not come in there.

    Its queue has to have dropped as many at least, and of all that was sent to it no much smaller share than was lost
    of the task's packets: else something else lost them, too.

    Args:
        pairs: those whose packets they were.
    """
    for inspection in reversed(case.inspections):
        if inspection.chassis != sender or inspection.pair not in pairs or inspection.outcome != "tunnel":
            continue
        if len(inspection.exits) != 1:
            return None
        device = inspection.exits[0]
        if not (device.limit or device.queue in _SHAPERS) or device.queue_dropped < max(lost, 1):
            return None
        all_sent = device.queue_dropped + device.queue_passed
        if lost * all_sent > _MUCH_MORE * device.queue_dropped * (lost + passed):
            return None
        return _limited(case, inspection, device)
    return None


def _limited(case: Case, inspection: Inspection, device: PortReading) -> Cause:
    server = case.inventory.server(inspection.chassis)
    all_sent = device.queue_dropped + device.queue_passed
    return Cause(
        code="qos_rate_limit",
        actor="tenant",
        summary=f"the interface {device.name} of {server}, by which it sends them, is limited "
        f"({device.limit or device.queue}), and its queue dropped {device.queue_dropped} of {all_sent} packets while "
        "the task ran",
        object=ObjectRef(type="Interface", name=device.name),
        fix=f"on {server}: tc -s qdisc show dev {device.name}; ovs-vsctl list QoS",
        confidence=CONCLUDED,
        evidence=(
            Evidence(
                source=f"tc -s qdisc show dev {device.name}",
                text=f"{device.queue_dropped} more dropped, {device.queue_passed} more sent since the task began",
                chassis=server,
                at=rfc3339(inspection.wall_ns),
            ),
        ),
    )


def _last_reading(case: Case, chassis: str, port: str) -> tuple[Inspection, PortReading] | None:
    """The latest reading of the interface behind a logical port: counters only grow."""
    for inspection in reversed(case.inspections):
        if inspection.chassis == chassis:
            for reading in inspection.ports:
                if reading.iface_id == port:
                    return inspection, reading
    return None


def _share(reading: PortReading) -> Fraction:
    """The part that the interface dropped of all that was sent to it since the task began."""
    dropped = reading.tx_dropped + reading.queue_dropped
    if dropped <= 0:
        return Fraction(0)
    return Fraction(dropped, dropped + max(0, reading.tx_packets))


def _spread(numbers: Sequence[int], wanted: int) -> list[int]:
    """So many of the numbers, evenly spread over them.

    Where most are wanted the others are spread, from the middle of their steps: a single one that stood first would
    look as if the loss had begun behind it, which is not known.
    """
    total = len(numbers)
    left = total - wanted
    if left < wanted:
        others = {(2 * number + 1) * total // (2 * left) for number in range(left)}
        return [n for at, n in enumerate(numbers) if at not in others]
    return [n for at, n in enumerate(numbers) if (at + 1) * wanted // total > at * wanted // total]


def _cause(case: Case, inspection: Inspection, reading: PortReading, counted: int, handed: int) -> Cause:
    server = case.inventory.server(inspection.chassis)
    dropped = reading.tx_dropped + reading.queue_dropped
    sent = dropped + reading.tx_packets
    queue = f" (queue {reading.queue})" if reading.queue else ""
    which = "" if counted == handed else f"; which ones is not known: {counted} of the {handed} of this traffic"
    limited = bool(reading.limit)
    what = f"is limited by its QoS ({reading.limit}) and" if limited else f"{queue.strip()}".strip()
    at = rfc3339(inspection.wall_ns)
    evidence = []
    if reading.queue_dropped:
        text = f"{reading.queue_dropped} more dropped by {reading.queue} since the task began"
        command = f"tc -s qdisc show dev {reading.name}"
        evidence.append(Evidence(source=command, text=text, chassis=server, at=at))
    if reading.tx_dropped:
        text = f"tx drop {reading.tx_dropped} more since the task began, tx pkts {reading.tx_packets} more"
        command = f"ovs-ofctl dump-ports {inspection.bridge} {reading.ofport}"
        evidence.append(Evidence(source=command, text=text, chassis=server, at=at))
    return Cause(
        code="qos_rate_limit" if limited else "vif_queue_full",
        actor="tenant" if limited else "guest",
        summary=f"the interface {reading.name} {what} dropped {dropped} of {sent} packets that were sent to it while "
        f"the task ran{which}".replace("  ", " "),
        object=ObjectRef(type="Interface", name=reading.name),
        fix=f"on {server}: ovs-vsctl list QoS; ovs-vsctl list Port {reading.name}"
        if limited
        else f"on {server}: tc -s qdisc show dev {reading.name}; ip -s link show {reading.name}: does the guest read "
        "from its interface, and is that fast, or its MTU large, enough?",
        confidence=SEEN_ACTING if counted == handed else CONCLUDED,
        evidence=tuple(evidence),
    )
