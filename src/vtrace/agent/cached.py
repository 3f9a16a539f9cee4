"""Which cached flows of the datapath a packet took, or packets that nobody colored may have taken."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Sequence

import msgspec

from vtrace.collect.link import SiteQuestion
from vtrace.model.openflow import DatapathFlow
from vtrace.ovs import datapath
from vtrace.ovs.flowtext import is_decimal, masked, seconds

_MAX_PASSES = 16
# A load balancer's connections part in their later passes.
_MAX_CHAINS = 256

# What `dpctl/dump-flows` prints of a flow that matches the TOS byte or traffic class, all of it or by a mask.
_TOS_MATCH = re.compile(r"\bipv[46]\([^()]*?\bt(?:os|class)=(0x[0-9a-f]+|\d+)(?:/(0x[0-9a-f]+|\d+))?[,)]")

# Source and destination port; None stands for any.
Ports = tuple[int | None, int | None]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Headers that a cached flow has to take in; an empty text, no ports or 0 stand for any.

    Attributes:
        proto: IP protocol number, as the datapath has it (44 for later fragments of IPv6).
        ports: pairs of ports, one of which the flow has to take in.
    """

    src: str = ""
    dst: str = ""
    proto: int = 0
    ports: tuple[Ports, ...] = ()

    @classmethod
    def of(cls, question: SiteQuestion) -> Wanted:
        """What packets of a question carry where they come in."""
        ports = question.ports[:1] if question.headers else question.ports
        return cls(src=question.src, dst=question.dst, proto=question.proto, ports=ports)

    def may_be(self, flow: DatapathFlow) -> bool:
        """Whether what a datapath flow matches takes these headers in; what it leaves open, it takes in."""
        for family in ("ipv4(", "ipv6("):
            fields = _fields(flow, family)
            if fields is not None:
                ends = _within(self.src, fields.get("src", "")) and _within(self.dst, fields.get("dst", ""))
                return ends and _takes(self.proto or None, fields.get("proto", ""), 8) and self._ports_fit(flow)
        return True

    def _ports_fit(self, flow: DatapathFlow) -> bool:
        for protocol in ("udp(", "tcp("):
            fields = _fields(flow, protocol)
            if fields is not None and self.ports:
                return any(
                    _takes(source, fields.get("src", ""), 16) and _takes(destination, fields.get("dst", ""), 16)
                    for source, destination in self.ports
                )
        return True


def likely_passes(flows: Sequence[DatapathFlow], question: SiteQuestion, color: int) -> list[DatapathFlow]:
    """The passes that a question's packet most likely took, of an in-port's cached flows; none where one is missing.

    Connections share their first pass and part in later ones, protocols too: protocol, addresses and ports tell them
    apart, and that one was lost.
    """
    tos = color << 2
    first = [f for f in flows if f.recirc_id == 0 and Wanted.of(question).may_be(f)]
    # Once N are colored their flows go: the same connection goes on, uncolored, and meets the same.
    chains = [[f] for f in first if _is_entry(f, tos)] or [[f] for f in first]
    whole: list[list[DatapathFlow]] = []
    while chains and len(whole) < _MAX_CHAINS:
        passes = chains.pop()
        wanted = set(datapath.recirculations(passes[-1])) if len(passes) < _MAX_PASSES else ()
        here = [f for f in flows if f.recirc_id in wanted and f.recirc_id and Wanted(proto=question.proto).may_be(f)]
        here = [f for f in here if _fits_seen(f, question)] or here
        here = [f for f in here if Wanted(ports=question.ports).may_be(f) or _continues(f, question)] or here
        chains += [[*passes, f] for f in here]
        if not wanted:
            whole.append(passes)
    return max(
        whole,
        key=lambda c: (question.lost and datapath.ends_in_drop(c[-1]), min(f.packets for f in c)),
        default=[],
    )


def _fits_seen(flow: DatapathFlow, question: SiteQuestion) -> bool:
    """Whether a later pass may be of the question's packet, by the addresses that the packet had.

    As long as it was seen with one pair of addresses only, what translates it may give it another source or destination
    in the pass where it is lost.
    """
    if len(question.seen) > 1:
        return any(Wanted(src=src, dst=dst).may_be(flow) for src, dst in question.seen)
    return any(Wanted(src=src).may_be(flow) or Wanted(dst=dst).may_be(flow) for src, dst in question.seen)


def _continues(flow: DatapathFlow, question: SiteQuestion) -> bool:
    """Whether a later pass is of a connection to where the packet was sent, whatever port it was given since.

    Conntrack's original tuple tells; where a flow leaves it open, that of the packet it was made for.
    """
    tuple_ = _fields(flow, "ct_tuple4(") or _fields(flow, "ct_tuple6(") or {}
    dst = tuple_.get("dst", "").partition("/")[0]
    port = (tuple_.get("tp_dst") or tuple_.get("dst_port", "")).partition("/")[0]
    sent = {destination for _, destination in question.ports}
    return any(dst == seen for _, seen in question.seen) and is_decimal(port) and int(port) in sent


def _is_entry(flow: DatapathFlow, tos: int) -> bool:
    """Whether a datapath flow is the first pass of colored packets: it colors them, or matches the color."""
    matches = bool(flow.tos_mask) and flow.tos & 0xFC == tos
    return matches or colors(flow, tos)


def is_neighbor_discovery(flow: DatapathFlow) -> bool:
    """Whether it is for neighbor solicitations or advertisements (RFC 4861)."""
    return "icmpv6(type=135" in flow.key or "icmpv6(type=136" in flow.key


def dscps_matched(dump: str) -> dict[int, float]:
    """The DSCPs that flows of a dump match, but 0, and how many seconds ago the last packet of one came.

    Of a flow that leaves bits of the DSCP open, none. One whose only packet is the one that it was made for does not
    say when that came: it counts as just now. `datapath.parse_dump` reads all else too, and takes ten times as long.
    """
    found: dict[int, float] = {}
    for line in dump.splitlines():
        match, _, rest = line.partition(" packets:")
        for value, mask in _TOS_MATCH.findall(match):
            dscp = int(value, 0) >> 2
            if dscp and (not mask or int(mask, 0) & 0xFC == 0xFC):
                used = rest.partition(" used:")[2].partition(",")[0]
                found[dscp] = min(found.get(dscp, math.inf), 0.0 if used == "never" else seconds(used))
    return found


def colors(flow: DatapathFlow, tos: int) -> bool:
    """Whether a datapath flow gives its packets this DSCP."""
    return f"tos={tos:#x}/0xfc" in flow.actions or f"tclass={tos:#x}/0xfc" in flow.actions


def _fields(flow: DatapathFlow, name: str) -> dict[str, str] | None:
    """The fields of one part of a flow's key ("ipv4(", "udp("); None where it has no such part."""
    before, found, rest = flow.key.partition(name)
    if not found or (before and not before.endswith(",")):
        return None
    return dict(_split(term) for term in rest.partition(")")[0].split(","))


def _split(term: str) -> tuple[str, str]:
    name, _, value = term.partition("=")
    return name, value


def _takes(number: int | None, matched: str, width_bits: int) -> bool:
    """Whether a matched value, perhaps with a mask, takes in a number."""
    if number is None or not matched:
        return True
    value, mask = masked(matched, width_bits)
    return (number ^ value) & mask == 0


def _within(address: str, matched: str) -> bool:
    try:
        return (
            not matched or not address or ipaddress.ip_address(address) in ipaddress.ip_network(matched, strict=False)
        )
    except ValueError:
        return True
