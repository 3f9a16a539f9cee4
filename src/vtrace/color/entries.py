"""Coloring entries: what gives a task's packets their color at the first hop, and what watches beside them."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from vtrace.color import guard
from vtrace.color.registry import (
    GENERATION_BITS,
    PRIORITY_COLOR,
    PRIORITY_COLOR_REST,
    PRIORITY_COUNT_BASE,
    PRIORITY_PROBE_BASE,
    Role,
    Stage,
    cookie,
)
from vtrace.model.inventory import LogicalDatapath
from vtrace.model.openflow import FlowEntry, TableId, TunnelPort
from vtrace.model.plan import Claim, ColorUse, FirstHop, Hook, LocalVif, PlannedEntry, Scope
from vtrace.model.record import Point
from vtrace.model.task import Direction, Pair
from vtrace.task.carried import Carried, carried

COPY_BYTES = 192
_TABLE_0 = TableId(0)
# Resets and errors stand above the replies of every run, below the probes.
_ERROR_PRIORITY = 1 << GENERATION_BITS
# ICMPv6 types of neighbor solicitations and advertisements (RFC 4861).
_NEIGHBOR_DISCOVERY = (135, 136)


def ip_match(version: int) -> str:
    return "ip" if version == 4 else "ipv6"


def pair_matches(pair: Pair) -> list[str]:
    """The matches of a pair's packets as they carry their headers at the first hop, in ovs-fields(7) syntax."""
    return list(dict.fromkeys(_pair_match(pair, headers) for headers in carried(pair)))


def fragment_matches(pair: Pair) -> list[str]:
    """The matches of fragments of the pair that `pair_matches` can't hold, by their addresses.

    Open vSwitch matches no ports of any fragment, and in IPv6 no protocol of a later one. All of a datagram's
    fragments are taken, or none: conntrack's reassembly would let the color of some through.
    """
    six = pair.traffic.ip_version == 6
    found = []
    for headers in carried(pair):
        addresses = _addresses(headers, six=six)
        _, sport, dport = _asked(pair, headers)
        if six and headers.proto:
            found.append(f"ipv6,{addresses},ip_frag=yes")
        elif not six and (sport, dport, pair.traffic.tcp_flags) != (None, None, None):
            found.append(f"{headers.proto},{addresses},ip_frag=yes")
    return list(dict.fromkeys(found))


def asked(pair: Pair) -> tuple[tuple[int | None, int | None, int | None], ...]:
    """Protocol and ports (or ICMP type) that the pair's packets carry: of fragments they are read from the first."""
    return tuple(dict.fromkeys(_asked(pair, headers) for headers in carried(pair)))


def _asked(pair: Pair, headers: Carried) -> tuple[int | None, int | None, int | None]:
    six = pair.traffic.ip_version == 6
    proto = {"tcp": 6, "udp": 17, "icmp": 58 if six else 1}.get(headers.proto)
    sport = headers.sport
    if pair.direction is Direction.FORWARD and pair.traffic.icmp_type is not None:
        sport = pair.traffic.icmp_type
    return proto, sport, headers.dport


def _pair_match(pair: Pair, headers: Carried) -> str:
    traffic = pair.traffic
    six = traffic.ip_version == 6
    proto = {"": "ipv6" if six else "ip", "icmp": "icmp6" if six else "icmp"}.get(headers.proto)
    terms = [proto or headers.proto + ("6" if six else ""), _addresses(headers, six=six)]
    if headers.sport is not None:
        terms.append(f"{headers.proto}_src={headers.sport}")
    if headers.dport is not None:
        terms.append(f"{headers.proto}_dst={headers.dport}")
    if pair.direction is Direction.FORWARD:
        if traffic.tcp_flags:
            terms.append(f"tcp_flags={traffic.tcp_flags}")
        if traffic.icmp_type is not None:
            terms.append(f"{'icmpv6_type' if six else 'icmp_type'}={traffic.icmp_type}")
    return ",".join(terms)


def _addresses(headers: Carried, *, six: bool) -> str:
    from_field, to_field = ("ipv6_src", "ipv6_dst") if six else ("nw_src", "nw_dst")
    start = f"{from_field}={headers.src}," if headers.src else ""
    return f"{start}{to_field}={headers.dst}"


def copy_action(claim: Claim, meter: int) -> str:
    """The action that sends a copy to our agent, through one of its meters, to nobody else."""
    return f"controller(max_len={COPY_BYTES},id={claim.controller_id},meter_id={meter})"


def halved_matches(pair: Pair, port_bit: int | None) -> list[tuple[str, int]]:
    """The matches of a pair's packets with their priorities; of TCP and UDP in two halves by a bit of a port.

    Cached flows that do not match this bit yet are deleted by their names, not changed in place (docs/adr/0019). Where
    a pair gives both ports, and for other protocols, there is no such bit.

    Args:
        port_bit: 0 to 15; None: whole, since the datapath always changes the flow that is meant.
    """
    if port_bit is None:
        return [(match, PRIORITY_COLOR) for match in pair_matches(pair)]
    found = []
    for headers in carried(pair):
        protocols = {"": ("tcp", "udp"), "tcp": ("tcp",), "udp": ("udp",)}.get(headers.proto, ())
        if None not in (headers.sport, headers.dport) or not protocols:
            found.append((_pair_match(pair, headers), PRIORITY_COLOR))
            continue
        if not headers.proto:
            found.append((_pair_match(pair, headers), PRIORITY_COLOR_REST))
        end, bit = ("src" if headers.sport is None else "dst"), f"0x{1 << port_bit:x}"
        for protocol in protocols:
            match = _pair_match(pair, replace(headers, proto=protocol))
            found += [(f"{match},{protocol}_{end}={half}/{bit}", PRIORITY_COLOR) for half in ("0", bit)]
    return list(dict.fromkeys(found))


def coloring_entries(
    hop: FirstHop, use: ColorUse, scope: Scope, claim: Claim, hard_timeout_s: int, port_bit: int | None
) -> list[PlannedEntry]:
    """Color the pair's packets that carry the color's original DSCP, and copy them. All have one cookie.

    Args:
        port_bit: another one each time, 0 to 15, or None (`halved_matches`).
    """
    fragments = [(match, PRIORITY_COLOR) for match in fragment_matches(hop.pair)]
    return [
        _coloring_entry(match, priority, hop, use, scope, claim, hard_timeout_s)
        for match, priority in (*halved_matches(hop.pair, port_bit), *fragments)
    ]


def _coloring_entry(
    match: str, priority: int, hop: FirstHop, use: ColorUse, scope: Scope, claim: Claim, hard_timeout_s: int
) -> PlannedEntry:
    bits = scope.layout.guard
    return PlannedEntry(
        entry=FlowEntry(
            table=_TABLE_0,
            priority=priority,
            cookie=cookie(Role.COLOR, claim.generation, color=use.color, index=hop.pair.index),
            match=f"{hop.vif.match},{match},nw_tos={use.original_dscp << 2},{guard.match_none(bits)},"
            f"{guard.match_run(claim.generation, hop.pair.index)}",
            actions=f"load:0x{use.color:x}->NXM_OF_IP_TOS[2..7],{guard.load(bits, Stage.TABLE_0)},"
            f"{copy_action(claim, claim.first_meter)},resubmit(,0)",
            hard_timeout_s=hard_timeout_s,
        ),
        hook=Hook(
            role=Role.COLOR,
            point=Point.FIRST_HOP,
            datapath=hop.vif.datapath,
            in_key=hop.vif.key,
            ofport=hop.vif.ofport,
            pair=hop.pair.index,
            color=use.color,
            epoch=use.epoch,
            original_dscp=use.original_dscp,
            asked=asked(hop.pair),
        ),
    )


def probe_entries(hop: FirstHop, scope: Scope, claim: Claim, hard_timeout_s: int) -> list[PlannedEntry]:
    """Copies, uncolored, of the pair's packets whose DSCP has no color yet."""
    bits = scope.layout.guard
    return [
        PlannedEntry(
            entry=FlowEntry(
                table=_TABLE_0,
                priority=PRIORITY_PROBE_BASE + claim.generation,
                cookie=cookie(Role.PROBE, claim.generation, index=hop.pair.index),
                match=f"{hop.vif.match},{match},{guard.match_none(bits)},"
                f"{guard.match_run(claim.generation, hop.pair.index)}",
                actions=f"{guard.load(bits, Stage.TABLE_0)},{copy_action(claim, claim.copy_meter)},resubmit(,0)",
                hard_timeout_s=hard_timeout_s,
            ),
            hook=Hook(
                role=Role.PROBE,
                datapath=hop.vif.datapath,
                in_key=hop.vif.key,
                ofport=hop.vif.ofport,
                pair=hop.pair.index,
                asked=asked(hop.pair),
            ),
        )
        for match in (*pair_matches(hop.pair), *fragment_matches(hop.pair))
    ]


def neighbor_entries(
    vif: LocalVif, version: int, scope: Scope, claim: Claim, hard_timeout_s: int
) -> list[PlannedEntry]:
    """Copies of the ARP or ND requests that come in by a VIF, and of the answers that go out by it."""
    layout, bits = scope.layout, scope.layout.guard
    request, reply = ("arp,arp_op=1", "arp,arp_op=2")
    if version == 6:
        request, reply = ("icmp6,icmpv6_type=135", "icmp6,icmpv6_type=136")
    copy = copy_action(claim, claim.copy_meter)
    places = [
        (
            _TABLE_0,
            f"{vif.match},{request},{guard.match_none(bits)}",
            f"{guard.load(bits, Stage.TABLE_0)},{copy},resubmit(,0)",
        )
    ]
    for guard_match in guard.matches_before_log_to_physical(bits):
        match = f"{reply},metadata=0x{vif.datapath:x},reg15=0x{vif.key:x},{guard_match}"
        again = f"resubmit(,{layout.log_to_physical})"
        actions = f"clone({guard.load(bits, Stage.LOG_TO_PHYSICAL)},{copy},{again})"
        places.append((layout.log_to_physical, match, actions))
    return [
        PlannedEntry(
            entry=FlowEntry(
                table=table,
                priority=PRIORITY_PROBE_BASE + claim.generation,
                cookie=cookie(Role.NEIGHBOR, claim.generation, index=vif.ofport << 1 | (version == 6)),
                match=match,
                actions=actions,
                hard_timeout_s=hard_timeout_s,
            ),
            hook=Hook(role=Role.NEIGHBOR, datapath=vif.datapath, in_key=vif.key),
        )
        for table, match, actions in places
    ]


def reply_count_entries(
    pair: Pair, vif: LocalVif, scope: Scope, claim: Claim, hard_timeout_s: int
) -> tuple[PlannedEntry, ...]:
    """Counts, without color or copy, what the pair's destination answers: replies, TCP resets, ICMP errors."""
    bits = scope.layout.guard
    back = Pair(
        index=pair.index,
        direction=Direction.REPLY,
        source=pair.destination,
        destination=pair.source,
        traffic=pair.traffic,
    )
    six = pair.traffic.ip_version == 6
    base = PRIORITY_COUNT_BASE + claim.generation
    matches: list[tuple[int, int, str]] = [(0, base, match) for match in pair_matches(back)]
    for addresses in dict.fromkeys(_addresses(headers, six=six) for headers in carried(back)):
        error = f"icmp6,{addresses},icmpv6_type=1" if six else f"icmp,{addresses},icmp_type=3"
        matches.append((1, base + _ERROR_PRIORITY, error))
        if pair.traffic.proto in ("", "tcp"):
            matches.append((2, base + _ERROR_PRIORITY, f"{'tcp6' if six else 'tcp'},{addresses},tcp_flags=+rst"))
        if six:
            # Neighbor discovery is no answer.
            matches += [
                (3, base + _ERROR_PRIORITY, f"icmp6,{addresses},icmpv6_type={kind}") for kind in _NEIGHBOR_DISCOVERY
            ]
    return tuple(
        PlannedEntry(
            entry=FlowEntry(
                table=_TABLE_0,
                priority=priority,
                cookie=cookie(Role.COUNT, claim.generation, index=pair.index << 2 | number),
                match=f"{vif.match},{match},{guard.match_none(bits)},{guard.match_run(claim.generation, pair.index)}",
                actions=f"{guard.load(bits, Stage.TABLE_0)},resubmit(,0)",
                hard_timeout_s=hard_timeout_s,
            ),
            hook=Hook(role=Role.COUNT, datapath=vif.datapath, pair=pair.index),
        )
        for number, priority, match in matches
    )


def doubt_entries(
    vifs: Iterable[LocalVif], use: ColorUse, scope: Scope, claim: Claim, hard_timeout_s: int
) -> tuple[PlannedEntry, ...]:
    """Notices packets that come in with the color already: they are not ours, and make it unusable.

    They come from VIFs, or by tunnels from servers that have ports of the armed datapaths and no agent.
    """
    bits = scope.layout.guard
    places = [(vif.match, vif.datapath) for vif in vifs]
    places += [
        (tunnel_match(tunnel, datapath), datapath.key) for tunnel in scope.other_tunnels for datapath in scope.datapaths
    ]
    return tuple(
        PlannedEntry(
            entry=FlowEntry(
                table=_TABLE_0,
                priority=PRIORITY_COLOR,
                cookie=cookie(Role.DOUBT, claim.generation, color=use.color, index=number << 1 | (version == 6)),
                match=f"{place},{ip_match(version)},nw_tos={use.color << 2},{guard.match_none(bits)}",
                actions=f"{guard.load(bits, Stage.TABLE_0)},{copy_action(claim, claim.copy_meter)},resubmit(,0)",
                hard_timeout_s=hard_timeout_s,
            ),
            hook=Hook(role=Role.DOUBT, datapath=datapath, color=use.color, epoch=use.epoch),
        )
        for number, (place, datapath) in enumerate(places)
        for version in scope.ip_versions
    )


def tunnel_match(tunnel: TunnelPort, datapath: LogicalDatapath) -> str:
    """Matches what comes in by a tunnel for a logical datapath.

    OVN's VXLAN mode keeps the datapath in the lower 12 bits of the VNI (ovn-architecture(7)).
    """
    mask = "/0xfff" if tunnel.kind == "vxlan" else ""
    return f"in_port={tunnel.ofport},tun_id=0x{datapath.key:x}{mask}"
