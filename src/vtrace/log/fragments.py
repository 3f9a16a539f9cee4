"""Which fragments belong to the traffic that a task names by protocol or ports.

Open vSwitch matches no ports of any fragment, of the first neither (ovs-vswitchd's default fragment handling,
"normal"), and in IPv6 no protocol of a later one. So fragments are colored by their addresses, and it is told here,
where a first fragment's ports can be read, which of them were asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

from vtrace.log.packet import FIRST_FRAGMENT, LATER_FRAGMENT, Headers

# Datagrams remembered at once; the oldest is forgotten first. An IPv4 sender reuses an id after 65,536 at the latest.
DATAGRAMS = 1024

# Protocol, addresses and id: what fragments of one datagram share (RFC 791, RFC 8200).
_Datagram: TypeAlias = tuple[int, str, str, int]


class Fragments:
    """The datagrams in fragments that one server saw at first hops."""

    def __init__(self) -> None:
        self._wanted: OrderedDict[_Datagram, bool] = OrderedDict()

    def is_wanted(
        self, headers: Headers, *, proto: int | None = None, sport: int | None = None, dport: int | None = None
    ) -> bool:
        """Whether a packet is of the protocol and ports; None stands for any.

        A later fragment is what the first of its datagram was, which has to come before it.
        """
        if proto is not None and headers.proto != proto:
            return False
        if headers.fragment == LATER_FRAGMENT and (sport, dport) != (None, None):
            return self._wanted.get(_datagram(headers), False)
        wanted = sport in (None, headers.sport) and dport in (None, headers.dport)
        if headers.fragment == FIRST_FRAGMENT:
            self._wanted[_datagram(headers)] = wanted
            while len(self._wanted) > DATAGRAMS:
                self._wanted.popitem(last=False)
        return wanted


def _datagram(headers: Headers) -> _Datagram:
    return headers.proto, headers.src, headers.dst, headers.ip_id
