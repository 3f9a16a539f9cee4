"""Which fragments belong to the traffic that a task names by protocol or ports.

Open vSwitch matches no ports of any fragment, of the first neither (ovs-vswitchd's default fragment handling,
"normal"), and in IPv6 no protocol of a later one. So fragments are colored by their addresses, and it is told here,
where a first fragment's ports can be read, which of them were asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeAlias

from vtrace.log.packet import FIRST_FRAGMENT, LATER_FRAGMENT, Headers

# Datagrams remembered at once; the oldest is forgotten first. An IPv4 sender reuses an id after 65,536 at the latest.
DATAGRAMS = 1024

# Protocol, addresses and id: what fragments of one datagram share (RFC 791, RFC 8200).
_Datagram: TypeAlias = tuple[int, str, str, int]
# Protocol, source and destination port (of ICMP type and code); None stands for any.
Asked: TypeAlias = tuple[int | None, int | None, int | None]


class Fragments:
    """The datagrams in fragments that one server saw at first hops."""

    def __init__(self) -> None:
        self._wanted: OrderedDict[_Datagram, bool] = OrderedDict()

    def is_wanted(self, headers: Headers, asked: Sequence[Asked]) -> bool:
        """Whether a packet is of one of the kinds asked for.

        A later fragment is what the first of its datagram was, which has to come before it.
        """
        if headers.fragment == LATER_FRAGMENT and all((sport, dport) != (None, None) for _, sport, dport in asked):
            return self._wanted.get(_datagram(headers), False)
        wanted = any(
            proto in (None, headers.proto) and sport in (None, headers.sport) and dport in (None, headers.dport)
            for proto, sport, dport in asked
        )
        if headers.fragment == FIRST_FRAGMENT:
            self._wanted[_datagram(headers)] = wanted
            while len(self._wanted) > DATAGRAMS:
                self._wanted.popitem(last=False)
        return wanted


def _datagram(headers: Headers) -> _Datagram:
    return headers.proto, headers.src, headers.dst, headers.ip_id
