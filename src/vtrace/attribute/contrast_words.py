"""A contrast in words: the values on either side, and a sentence that counts what goes against it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from enum import Enum

import msgspec

from vtrace.attribute.case import Case
from vtrace.attribute.policing import Limit
from vtrace.attribute.separation import Split
from vtrace.attribute.traits import Traits
from vtrace.model.answer import Contrast
from vtrace.model.inventory import Inventory
from vtrace.model.task import Direction, Pair

# More values than this are not listed.
_LISTED = 4


class Hedge(Enum):
    """What a finding leaves open, as the end of its sentence."""

    NONE = ""
    TIED = "; each connection has packets on one side only, so something else of the connection may be what matters"
    EFFECT = "; a connection whose packets are all lost stays in this state, so this may come of the loss"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A field that separates, and how.

    Attributes:
        names: how many values it takes to say which are lost: the fewer, the simpler.
        known: whether the value of every packet is known.
        server: of the field "server", the one that the lost packets have in common.
    """

    field: str
    split: Split
    names: int = 1
    hedge: Hedge = Hedge.NONE
    known: bool = True
    server: str = ""


def finding_words(
    case: Case, found: Finding, packets: Sequence[Traits], pair: Pair | None = None, cause: str = ""
) -> Contrast:
    """A finding as the answer has it; of one pair, or of several together. `cause` names that of the lost packets
    (" to acl_drop on hv3"), where others were lost for another."""
    lost, delivered, verbs = _sides(found, packets, case.inventory)
    split = found.split
    what = f"packets lost{cause}" if cause else "lost packets"
    which = "" if found.known else " of which it is known"
    text = (
        f"{_of(split.lost_right, split.lost)} {what}{which} {verbs[0]} {lost}, "
        f"{_of(split.delivered_right, split.delivered)} delivered ones {verbs[1]}{delivered}{found.hedge.value}"
    )
    return _contrast(found.field, lost, delivered, text, pair)


def rate_words(found: Limit, pair: Pair) -> Contrast:
    """A rate limit as the answer has it."""
    passed, sent = _rounded(found.passed_pps), _rounded(found.sent_pps)
    text = f"about {passed} of {sent} packets a second pass: those that follow too soon on others are lost"
    return _contrast("rate", f"above {passed} packets/s", f"about {passed} packets/s", text, pair)


def direction_words(packets: Sequence[Traits], lost: Direction, ends: tuple[str, str] | None) -> Contrast:
    """A direction that is lost while the other arrives; between two ends, or (None) between all."""
    names = {Direction.FORWARD: "packets forward", Direction.REPLY: "replies"}
    other = Direction(1 - lost)
    lost_ones = [t.lost for t in packets if t.direction is lost]
    others = [not t.lost for t in packets if t.direction is other]
    text = (
        f"{_of(sum(lost_ones), len(lost_ones))} {names[lost]} are lost, "
        f"{_of(sum(others), len(others))} {names[other]} arrive"
    )
    start, end = ends or (None, None)
    return Contrast(field="direction", lost=lost.word, delivered=other.word, text=text, from_=start, to=end)


def _contrast(field: str, lost: str, delivered: str, text: str, pair: Pair | None) -> Contrast:
    start, end = pair.task_ends if pair else (None, None)
    direction = pair.direction.word if pair else None
    return Contrast(field=field, lost=lost, delivered=delivered, text=text, from_=start, to=end, direction=direction)


# What packets do to have a value: lost ones, delivered ones.
_VERBS = {
    "size": ("are", ""),
    "fragment": ("are", "are "),
    "conntrack_state": ("are of connections in the state", "in "),
    "tcp_flags": ("have the flags", ""),
    "protocol": ("are", "are "),
    "destination_port": ("go to port", "to "),
    "backend": ("went to the backend", "to "),
    "ecmp_member": ("went by the next hop", "by "),
    "server": ("were on their way over server", "went over "),
    "source_port": ("have source ports", ""),
}
_FROM_BACKEND = ("came from the backend", "from ")


def _sides(found: Finding, packets: Sequence[Traits], inventory: Inventory) -> tuple[str, str, tuple[str, str]]:
    """The values on either side, and what packets do to have them."""
    field, lost, delivered = found.field, found.split.lost_values, found.split.delivered_values
    verbs = _VERBS[field]
    if field == "size":
        return (*_sizes(lost, delivered), verbs)
    if field == "source_port":
        return (*_ranges(lost, delivered), verbs)
    if field == "server":
        common = frozenset.intersection(*(t.servers for t in packets))
        others = {name for t in packets if not t.lost for name in t.servers} - {found.server}
        return found.server, ", ".join(sorted(others - common or others)), verbs
    if field == "fragment":
        return *(("fragments", "whole packets") if lost[0] else ("whole packets", "fragments")), verbs
    if field in ("backend", "ecmp_member"):
        reply = field == "backend" and all(t.direction is Direction.REPLY for t in packets)
        lost, delivered = (tuple(_named(str(value), inventory) for value in side) for side in (lost, delivered))
        return _listed(lost), _listed(delivered), _FROM_BACKEND if reply else verbs
    return _listed(lost), _listed(delivered), verbs


def _of(right: int, count: int) -> str:
    return f"all {count}" if right == count else f"{right} of {count}"


def _sizes(lost: Sequence[Hashable], delivered: Sequence[Hashable]) -> tuple[str, str]:
    """Of the IP packet, as it was at the first hop."""
    small, large = sorted((lost, delivered))  # type: ignore[type-var]
    low, high = f"{small[-1]} bytes or shorter", f"{large[0]} bytes or longer"
    return (low, high) if small is lost else (high, low)


def _ranges(lost: Sequence[Hashable], delivered: Sequence[Hashable]) -> tuple[str, str]:
    """Two sets of numbers, one of which is all within a gap of the other."""
    spans = [(values[0], values[-1]) for values in (lost, delivered)]
    texts = [f"{first} to {last}" if first != last else f"{first}" for first, last in spans]
    for number, (first, last) in enumerate(spans):
        inner = (lost, delivered)[1 - number]
        if first < inner[0] and inner[-1] < last:  # type: ignore[operator]
            texts[number] = f"below {inner[0]} or above {inner[-1]}"
    return texts[0], texts[1]


def _listed(values: Sequence[Hashable]) -> str:
    shown = ", ".join(str(value) for value in values[:_LISTED])
    return shown if len(values) <= _LISTED else f"{shown} and {len(values) - _LISTED} more"


def _named(address: str, inventory: Inventory) -> str:
    """An address, of IP or Ethernet, with the port that has it."""
    for port in inventory.ports:
        if address in {word for text in (*port.addresses, port.mac) for word in text.split()}:
            return f"{address} ({port.name})"
    return address


def _rounded(rate_pps: float) -> str:
    """A number with two digits that count."""
    return f"{float(f'{rate_pps:.2g}'):g}"
