"""What coloring entries of all runs of VTrace count: packets that were not there for ours, or that hit ours."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from vtrace.color import registry
from vtrace.model.openflow import Cookie, InstalledEntry

Counted: TypeAlias = Mapping[tuple[Cookie, str], int]

# What hits an entry so long after it was put in is no packet from before: ages are told in whole seconds.
LATE_S = 2.0
# What tells the packets of two coloring entries apart (ovs-fields(7)).
_FIELDS = ("in_port", "nw_proto", "nw_tos", "nw_src", "nw_dst", "ipv6_src", "ipv6_dst", "tp_src", "tp_dst")
_PROTOCOLS = {
    "tcp": ("ip", 6),
    "udp": ("ip", 17),
    "icmp": ("ip", 1),
    "tcp6": ("ipv6", 6),
    "udp6": ("ipv6", 17),
    "icmp6": ("ipv6", 58),
    "ip": ("ip", None),
    "ipv6": ("ipv6", None),
}


def counted(ours: Sequence[InstalledEntry]) -> Counted:
    """Packets that the coloring entries of all runs count."""
    return {(e.cookie, e.match): e.n_packets for e in ours if registry.role_of(e.cookie) == registry.Role.COLOR}


def taken(ours: Sequence[InstalledEntry], generation: int, before: Counted) -> dict[int, int]:
    """Packets that other runs have colored since `before` and that ours might have: by the pair's number.

    Args:
        ours: the entries of all runs, those of this one (`generation`) among them.
    """
    coloring = [e for e in ours if registry.role_of(e.cookie) == registry.Role.COLOR]
    own = [e for e in coloring if registry.generation_of(e.cookie) == generation]
    others = [e for e in coloring if registry.generation_of(e.cookie) != generation]
    found: dict[int, dict[tuple[Cookie, str], int]] = defaultdict(dict)
    for entry in own:
        for other in others:
            name = (other.cookie, other.match)
            packets = other.n_packets - before.get(name, 0)
            if packets > 0 and may_meet(entry.match, other.match):
                found[registry.index_of(entry.cookie)][name] = packets
    return {index: sum(packets.values()) for index, packets in found.items()}


def hit(ours: Sequence[InstalledEntry], generation: int) -> dict[int, int]:
    """Packets that hit this run's coloring entries, by the pair's number, if some surely came after they were put in.

    When entries change, Open vSwitch counts what a cached flow carried in the last half second on the new ones. Of what
    hit the entries for fragments not all was asked for.
    """
    found: dict[int, int] = defaultdict(int)
    for entry in ours:
        own = registry.generation_of(entry.cookie) == generation
        if own and registry.role_of(entry.cookie) == registry.Role.COLOR and "_frag=" not in entry.match:
            late = entry.duration_s - entry.idle_s >= LATE_S
            found[registry.index_of(entry.cookie)] += entry.n_packets if late else 0
    return {index: packets for index, packets in found.items() if packets}


def may_meet(one: str, other: str) -> bool:
    """Whether a packet can match both of two entries, as far as its port, addresses and protocol say."""
    first, second = _fields(one), _fields(other)
    return all(_agree(name, first[name], second[name]) for name in first.keys() & second.keys())


def _fields(match: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in match.split(","):
        name, _, value = word.partition("=")
        if not value and name in _PROTOCOLS:
            family, number = _PROTOCOLS[name]
            found["family"] = family
            if number is not None:
                found["nw_proto"] = str(number)
        elif name in _FIELDS:
            found[name] = value
    return found


def _agree(name: str, one: str, other: str) -> bool:
    if one == other:
        return True
    if name.startswith(("nw_src", "nw_dst", "ipv6_")):
        return ipaddress.ip_network(one, strict=False).overlaps(ipaddress.ip_network(other, strict=False))
    # Ranges of ports stand as masks: two of them may meet.
    return "/" in one or "/" in other
