"""Refresh entries: they change no packet, but have the userspace datapath forget its cached flows of some places.

When entries change, Open vSwitch gives a cached flow that matches all it has to its new actions where it is. Its
userspace datapath looks for that flow by a packet's headers (3.1, lib/dpif-netdev.c, flow_put_on_pmd): where another
cached flow takes in the same packet it may find that one, and the first keeps its old actions for as long as packets
come. We saw pairs that were never colored, and colored packets that the next server did not log. A cached flow that
matches too little is removed instead, by its own name. So what none matches yet is asked for: bits of the packet mark.
"""

from __future__ import annotations

from collections.abc import Iterable

from vtrace.color import guard
from vtrace.color.registry import PRIORITY_COLOR, Role, Stage, cookie
from vtrace.model.openflow import FlowEntry, GuardBits, TableId
from vtrace.model.plan import Claim

_IPV4 = ("ip", "tcp", "udp", "icmp", "sctp")
_IPV6 = ("ipv6", "tcp6", "udp6", "icmp6", "sctp6")
_PLACE = ("in_port", "tun_id")


def places_of(entries: Iterable[FlowEntry]) -> list[str]:
    """Where packets come in that entries of table 0 are about: matches of port, tunnel id and family."""
    return list(dict.fromkeys(place for entry in entries if entry.table == 0 and (place := _place(entry.match))))


def refresh_entries(
    places: Iterable[str], bits: GuardBits, claim: Claim, index: int, mark: int, hard_timeout_s: int
) -> list[FlowEntry]:
    """What makes the datapath forget its flows of some places.

    A packet that has all bits of `mark` set goes uncolored, and on as ever.
    """
    return [
        FlowEntry(
            table=TableId(0),
            priority=PRIORITY_COLOR,
            cookie=cookie(Role.REFRESH, claim.generation, index=index),
            match=f"{place},pkt_mark=0x{mark:x}/0x{mark:x},{guard.match_none(bits)}",
            actions=f"{guard.load(bits, Stage.TABLE_0)},resubmit(,0)",
            hard_timeout_s=hard_timeout_s,
        )
        for place in places
    ]


def _place(match: str) -> str:
    """Where an entry's packets come in, and their family; empty for entries without a port, and for ARP."""
    words = match.split(",")
    where = [word for word in words if word.partition("=")[0] in _PLACE]
    family = "ip" if any(w in _IPV4 for w in words) else "ipv6" if any(w in _IPV6 for w in words) else ""
    has_port = any(word.startswith("in_port=") for word in where)
    return ",".join((*where, family)) if has_port and family else ""
