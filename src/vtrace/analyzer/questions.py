"""What to ask an agent's slow path about a packet, from the records of it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from vtrace.collect.link import NeighborSeen, SiteQuestion, Survey
from vtrace.color.entries import asked
from vtrace.model.inventory import Inventory
from vtrace.model.openflow import TunnelPort
from vtrace.model.plan import LocalVif
from vtrace.model.record import LogRecord, Point, flow_id
from vtrace.model.task import Pair

LATER_FRAGMENT = 2
IPV6_FRAGMENT = 44
ICMP = 1
ICMP6 = 58
_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}


def mac(value: int) -> str:
    """A 48-bit address as text."""
    return ":".join(f"{value >> shift & 0xFF:02x}" for shift in range(40, -1, -8))


def headers(record: LogRecord) -> str:
    """The packet as the tenant sent it to this place, uncolored, in ovs-fields(7) syntax."""
    six = ":" in record.src
    later = record.fragment == LATER_FRAGMENT
    proto = _protocol(record)
    name = _NAMES.get(proto, "")
    words = [(name + "6" if six and name in ("tcp", "udp") else name) or ("ipv6" if six else "ip")]
    words += [f"dl_src={mac(record.eth_src)}", f"dl_dst={mac(record.eth_dst)}"]
    source, destination = ("ipv6_src", "ipv6_dst") if six else ("nw_src", "nw_dst")
    words += [f"{source}={record.src}", f"{destination}={record.dst}"]
    if not name:
        words.append(f"nw_proto={proto}")
    if record.vlan >= 0:
        words.append(f"dl_vlan={record.vlan}")
    if record.fragment:
        words.append(f"ip_frag={'later' if later else 'first'}")
    words += [f"nw_tos={record.dscp << 2}", f"nw_ecn={record.ecn}", f"nw_ttl={record.ttl}"]
    if record.fragment:
        # Of no fragment Open vSwitch matches ports, type or flags.
        return ",".join(words)
    if record.proto in (6, 17):
        # Not tp_src: ofproto/trace takes it for TCP only.
        words += [f"{name}_src={record.sport}", f"{name}_dst={record.dport}"]
    elif record.proto == 1:
        words += [f"icmp_type={record.sport}", f"icmp_code={record.dport}"]
    elif record.proto == 58:
        words += [f"icmpv6_type={record.sport}", f"icmpv6_code={record.dport}"]
    if record.proto == 6 and record.tcp_flags:
        words.append(f"tcp_flags=0x{record.tcp_flags:x}")
    return ",".join(words)


def _protocol(record: LogRecord) -> int:
    """For Open vSwitch a later fragment of IPv6 is of the protocol "fragment" (ovs-fields(7), nw_proto)."""
    later = record.fragment == LATER_FRAGMENT
    return IPV6_FRAGMENT if ":" in record.src and later else record.proto


def tunnel_entry(tunnel: TunnelPort, datapath: int, in_key: int, out_key: int, src: str, dst: str) -> str:
    """How a packet comes in by a tunnel: OVN's encoding of the logical datapath and ports (ovn-architecture(7))."""
    if tunnel.kind == "vxlan":
        identity = f"tun_id=0x{out_key << 12 | datapath:x}"
    else:
        identity = f"tun_id=0x{datapath:x},tun_metadata0=0x{in_key << 16 | out_key:x}"
    family = ("tun_ipv6_src", "tun_ipv6_dst") if ":" in src else ("tun_src", "tun_dst")
    return f"in_port={tunnel.ofport},{identity},{family[0]}={src},{family[1]}={dst}"


def _as_it_came(ofport: int, tunnel_id: int, src: str, dst: str) -> str:
    """How a packet comes in by a port of a bridge without OVN."""
    words = [f"in_port={ofport}"]
    if src and src != "flow":
        six = ":" in src
        words += [f"tun_id=0x{tunnel_id:x}", f"{'tun_ipv6_src' if six else 'tun_src'}={src}"]
        words += [f"{'tun_ipv6_dst' if six else 'tun_dst'}={dst}"] if dst and dst != "flow" else []
    return ",".join(words)


def about_packet(
    hops: Sequence[LogRecord], chassis: str, pair: Pair, surveys: dict[str, Survey], *, lost: bool = True
) -> SiteQuestion | None:
    """The question about a packet on a chassis where it has records; None where its way in is not among them."""
    # The last time that it came there: a packet may come by more than once.
    start = next(
        (r for r in reversed(hops) if r.chassis == chassis and r.point in (Point.FIRST_HOP, Point.INGRESS)),
        None,
    )
    if start is None:
        return None
    if start.point == Point.FIRST_HOP:
        entry = f"in_port={start.in_ofport}"
    elif surveys[chassis].plain is not None:
        entry = _as_it_came(start.in_ofport, start.tunnel_id, start.tunnel_src, start.tunnel_dst)
    else:
        tunnel = next((t for t in surveys[chassis].tunnels if t.ofport == start.in_ofport), None)
        out = [r for r in hops if r.point == Point.REMOTE_OUTPUT]
        # A gateway port of several servers: it may have come to another one than that which has the port now.
        sent = next((r for r in (*[r for r in out if r.peer == chassis], *out) if r.datapath == start.datapath), None)
        beyond = next((r for r in hops if r.chassis == chassis and r.point > Point.INGRESS), None)
        known = sent or beyond
        if tunnel is None or known is None:
            return None
        entry = tunnel_entry(tunnel, start.datapath, known.in_key, known.out_key, start.tunnel_src, start.tunnel_dst)
    return replace(_question(start, entry, pair, hops, start.in_ofport), lost=lost)


def about_arrival(
    sent: LogRecord, hops: Sequence[LogRecord], pair: Pair, surveys: dict[str, Survey], inventory: Inventory
) -> SiteQuestion | None:
    """The question to the receiver about a packet that it has no record of: what would become of it there?"""
    survey = surveys.get(sent.peer)
    tunnel = next((t for t in survey.tunnels if t.chassis == sent.chassis), None) if survey else None
    ends = [inventory.chassis_named(name) for name in (sent.chassis, sent.peer)]
    if survey is not None and survey.plain is not None and tunnel is not None:
        entry = _as_it_came(tunnel.ofport, 0, tunnel.remote_ip, tunnel.options.get("local_ip", ""))
        return _question(sent, entry, pair, hops, tunnel.ofport)
    if tunnel is None or not all(end and end.encap_ips for end in ends):
        return None
    addresses = [end.encap_ips[0] for end in ends if end]
    entry = tunnel_entry(tunnel, sent.datapath, sent.in_key, sent.out_key, addresses[0], addresses[1])
    return _question(sent, entry, pair, hops, tunnel.ofport)


def _question(record: LogRecord, entry: str, pair: Pair, hops: Sequence[LogRecord], in_ofport: int) -> SiteQuestion:
    first = next((r for r in hops if r.point == Point.FIRST_HOP), record)
    return SiteQuestion(
        pair=pair.index,
        direction=pair.direction,
        entry=entry,
        headers=headers(record),
        in_ofport=in_ofport,
        color=record.color,
        flow_id=flow_id(first),
        src=record.src,
        dst=record.dst,
        seen=tuple(dict.fromkeys((r.src, r.dst) for r in hops)),
        ports=tuple(dict.fromkeys((r.sport, r.dport) for r in (record, *hops) if r.proto in (6, 17))),
        proto=_protocol(record),
        lost=True,
    )


def about_unseen(pair: Pair, vif: LocalVif, *, translated: bool = False) -> tuple[SiteQuestion, ...]:
    """The questions about a pair of which nothing could be colored: what the datapath does with what comes in.

    One for each address that packets for the destination carry; of a port that the user named also those of its port
    security. What is lost at a VIP before a backend is chosen counts as its own.

    Args:
        translated: ask about a source NAT's address too.
    """
    end = pair.destination
    kinds = {"floating", *([] if end.only else ["vip"]), *(["translated"] if translated else [])}
    own = [alias.address for alias in end.aliases if alias.kind in kinds or alias.address == end.only]
    own += [address for address in end.addresses if end.by_port and address not in pair.elsewhere]
    source = "" if pair.source.by_port else pair.source.address
    return tuple(
        replace(_about_cached(pair, vif, source, address, proto), ports=ports)
        for address in dict.fromkeys((end.address, *own))
        for proto, ports in _asked(pair).items()
    )


def about_answered(pair: Pair, vif: LocalVif) -> tuple[SiteQuestion, ...]:
    """The questions about what a reply pair's destination sends at its interface: what the pair's packets answer."""
    ends = (pair.destination.address, pair.source.address)
    return tuple(
        replace(_about_cached(pair, vif, *ends, proto), ports=tuple((dport, sport) for sport, dport in ports))
        for proto, ports in _asked(pair).items()
    )


def about_replies(pair: Pair, vif: LocalVif, src: str, dst: str) -> tuple[SiteQuestion, ...]:
    """The questions about what the datapath caches of the answers to a pair's packets: its protocol, and errors."""
    error = ICMP6 if pair.traffic.ip_version == 6 else ICMP
    protos = _asked(pair)
    return tuple(_about_cached(pair, vif, src, dst, proto) for proto in ({0} if 0 in protos else {*protos, error}))


def _asked(pair: Pair) -> dict[int, tuple[tuple[int | None, int | None], ...]]:
    """By IP protocol number, 0 for any, the source and destination ports that a pair's packets may carry."""
    found: dict[int, list[tuple[int | None, int | None]]] = {}
    for proto, sport, dport in asked(pair):
        ports = found.setdefault(proto or 0, [])
        if proto in (6, 17):
            ports.append((sport, dport))
    return {proto: tuple(ports) for proto, ports in found.items()}


def _about_cached(pair: Pair, vif: LocalVif, src: str, dst: str, proto: int) -> SiteQuestion:
    return SiteQuestion(
        pair=pair.index,
        direction=pair.direction,
        entry=f"in_port={vif.ofport}",
        headers="",
        in_ofport=vif.ofport,
        src=src,
        dst=dst,
        proto=proto,
    )


def about_request(seen: NeighborSeen, pair: Pair, vif: LocalVif) -> SiteQuestion:
    """The question about an ARP or ND request of the pair's source; its pair number is -1 - index."""
    if ":" in seen.target_ip:
        text = (
            f"icmp6,dl_src={mac(seen.eth_src)},dl_dst=33:33:ff:00:00:01,ipv6_src={seen.sender_ip},"
            f"ipv6_dst={seen.target_ip},nw_ttl=255,icmpv6_type=135,icmpv6_code=0,nd_target={seen.target_ip},"
            f"nd_sll={mac(seen.eth_src)}"
        )
    else:
        text = (
            f"arp,dl_src={mac(seen.eth_src)},dl_dst=ff:ff:ff:ff:ff:ff,arp_op=1,arp_spa={seen.sender_ip},"
            f"arp_tpa={seen.target_ip},arp_sha={mac(seen.eth_src)}"
        )
    return SiteQuestion(pair=-1 - pair.index, direction=pair.direction, entry=f"in_port={vif.ofport}", headers=text)
