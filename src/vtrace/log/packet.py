"""Decodes the first bytes of a copied packet, and computes its key.

The payload is read only to compute the key, on the host that saw it; it is kept nowhere.
"""

from __future__ import annotations

import hashlib
import ipaddress
import struct

import msgspec

PROTO_ICMP = 1
PROTO_TCP = 6
PROTO_UDP = 17
PROTO_ICMP6 = 58
PROTO_SCTP = 132
_ICMP_ERRORS = (3, 4, 5, 11, 12)
_ICMP6_ERRORS = (1, 2, 3, 4)
_ETH_VLAN = (0x8100, 0x88A8)
_ETH_IPV4 = 0x0800
_ETH_IPV6 = 0x86DD
_ETH_ARP = 0x0806
# IPv6 extension headers that stand before the upper layer (RFC 8200): hop-by-hop, routing, destination options.
_IPV6_SKIP = (0, 43, 60)
_IPV6_FRAGMENT = 44
KEY_PREFIX_BYTES = 16
# Values of `Headers.fragment`.
WHOLE, FIRST_FRAGMENT, LATER_FRAGMENT = 0, 1, 2
# Enough for Ethernet, two VLAN tags, the longest IPv4 and TCP headers, and the prefix.
COPY_BYTES = 192


class Headers(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of one packet. For ICMP `sport` is the type and `dport` the code.

    `fragment` is one of `WHOLE`, `FIRST_FRAGMENT` and `LATER_FRAGMENT`; a later one carries no ports. `ip_id` has 32
    bits in IPv6, and only fragments have one. `vlan` is the outer tag's VLAN, -1 where there is no tag.
    `invariant` is what the packet key is computed from: fields that no hop changes.
    """

    eth_src: int
    eth_dst: int
    proto: int
    src: str
    dst: str
    sport: int = 0
    dport: int = 0
    ttl: int = 0
    dscp: int = 0
    ecn: int = 0
    ip_id: int = 0
    fragment: int = WHOLE
    vlan: int = -1
    length_bytes: int = 0
    tcp_flags: int = 0
    invariant: bytes = b""


class Arp(msgspec.Struct, frozen=True, kw_only=True):
    """An ARP packet (RFC 826) or an IPv6 neighbor solicitation or advertisement (RFC 4861).

    `operation` is 1 for a request or solicitation, 2 for a reply or advertisement.
    """

    operation: int
    eth_src: int
    sender_ip: str
    target_ip: str


def decode(frame: bytes) -> Headers | None:
    """Reads an Ethernet frame that carries IPv4 or IPv6.

    Args:
        frame: the frame from the destination address on; may be cut after `COPY_BYTES` bytes.

    Returns:
        The headers, or None where the frame is no IP or too short to say.
    """
    try:
        ethertype, offset = _ethertype(frame)
        if ethertype == _ETH_IPV4:
            return _ipv4(frame, offset)
        if ethertype == _ETH_IPV6:
            return _ipv6(frame, offset)
    except (struct.error, IndexError):
        return None
    return None


def decode_arp(frame: bytes) -> Arp | None:
    """Reads an ARP packet over Ethernet and IPv4, or an IPv6 neighbor solicitation or advertisement."""
    try:
        ethertype, offset = _ethertype(frame)
        eth_src = int.from_bytes(frame[6:12], "big")
        if ethertype == _ETH_ARP:
            hardware, protocol, sizes, operation = struct.unpack_from("!HHHH", frame, offset)
            if (hardware, protocol, sizes) != (1, _ETH_IPV4, 0x0604) or len(frame) < offset + 28:
                return None
            sender = _ip4_text(frame[offset + 14 : offset + 18])
            target = _ip4_text(frame[offset + 24 : offset + 28])
            return Arp(operation=operation, eth_src=eth_src, sender_ip=sender, target_ip=target)
        if ethertype == _ETH_IPV6 and frame[offset + 6] == PROTO_ICMP6 and frame[offset + 40] in (135, 136):
            if len(frame) < offset + 64:
                return None
            operation = 1 if frame[offset + 40] == 135 else 2
            target = _ip6_text(frame[offset + 48 : offset + 64])
            sender = _ip6_text(frame[offset + 8 : offset + 24])
            return Arp(operation=operation, eth_src=eth_src, sender_ip=sender, target_ip=target)
    except (struct.error, IndexError):
        return None
    return None


def packet_key(headers: Headers, secret: bytes) -> int:
    """The packet's key: 64 bits, keyed with the secret of its color and epoch, as a signed integer.

    Built from protocol, IP id, TCP sequence and acknowledgement numbers, ICMP sequence number and a short
    payload prefix: NAT, load balancing, routing, segmentation and tunnels leave them alone. Lengths, ports,
    addresses, TTL, PSH, FIN and CWR are left out.
    """
    digest = hashlib.blake2b(headers.invariant, digest_size=8, key=secret).digest()
    return int.from_bytes(digest, "big", signed=True)


def _ethertype(frame: bytes) -> tuple[int, int]:
    offset = 12
    (ethertype,) = struct.unpack_from("!H", frame, offset)
    while ethertype in _ETH_VLAN:
        offset += 4
        (ethertype,) = struct.unpack_from("!H", frame, offset)
    return ethertype, offset + 2


def _vlan(frame: bytes) -> int:
    ethertype, tag = struct.unpack_from("!HH", frame, 12)
    return tag & 0xFFF if ethertype in _ETH_VLAN else -1


def _fragment(offset: int, more: int) -> int:
    if offset:
        return LATER_FRAGMENT
    return FIRST_FRAGMENT if more else WHOLE


def _ipv4(frame: bytes, offset: int) -> Headers | None:
    version_ihl, tos, total, ip_id, frag, ttl, proto = struct.unpack_from("!BBHHHBB", frame, offset)
    if version_ihl >> 4 != 4 or version_ihl & 0xF < 5 or len(frame) < offset + 20:
        return None
    # Short frames are padded (RFC 894): what stands behind the packet is no part of it.
    frame = frame[: offset + total] if total >= 20 else frame
    later = frag & 0x1FFF
    upper = b"" if later else frame[offset + (version_ihl & 0xF) * 4 :]
    sport, dport, flags, rest = _upper(proto, upper)
    fragment = _fragment(later, frag & 0x2000)
    invariant = struct.pack("!BHH", proto, ip_id, frag & 0x1FFF) + rest
    if later:
        body = frame[offset + (version_ihl & 0xF) * 4 :][:KEY_PREFIX_BYTES]
        invariant += body
    return Headers(
        eth_src=int.from_bytes(frame[6:12], "big"),
        eth_dst=int.from_bytes(frame[0:6], "big"),
        proto=proto,
        src=_ip4_text(frame[offset + 12 : offset + 16]),
        dst=_ip4_text(frame[offset + 16 : offset + 20]),
        sport=sport,
        dport=dport,
        ttl=ttl,
        dscp=tos >> 2,
        ecn=tos & 3,
        ip_id=ip_id,
        fragment=fragment,
        vlan=_vlan(frame),
        length_bytes=total,
        tcp_flags=flags,
        invariant=invariant,
    )


def _ipv6(frame: bytes, offset: int) -> Headers | None:
    word, payload_length, next_header, ttl = struct.unpack_from("!IHBB", frame, offset)
    if word >> 28 != 6 or len(frame) < offset + 40:
        return None
    frame = frame[: offset + 40 + payload_length] if payload_length else frame
    at = offset + 40
    proto = next_header
    fragment = WHOLE
    ip_id = 0
    later = 0
    while proto in _IPV6_SKIP or proto == _IPV6_FRAGMENT:
        following, length = struct.unpack_from("!BB", frame, at)
        if proto == _IPV6_FRAGMENT:
            offset_flags, ip_id = struct.unpack_from("!HI", frame, at + 2)
            later = offset_flags >> 3
            fragment = _fragment(later, offset_flags & 1)
            at += 8
        else:
            at += 8 * (length + 1)
        proto = following
        if later:
            break
    sport, dport, flags, rest = (0, 0, 0, frame[at : at + KEY_PREFIX_BYTES]) if later else _upper(proto, frame[at:])
    traffic_class = (word >> 20) & 0xFF
    return Headers(
        eth_src=int.from_bytes(frame[6:12], "big"),
        eth_dst=int.from_bytes(frame[0:6], "big"),
        proto=proto,
        src=_ip6_text(frame[offset + 8 : offset + 24]),
        dst=_ip6_text(frame[offset + 24 : offset + 40]),
        sport=sport,
        dport=dport,
        ttl=ttl,
        dscp=traffic_class >> 2,
        ecn=traffic_class & 3,
        ip_id=ip_id,
        fragment=fragment,
        vlan=_vlan(frame),
        length_bytes=payload_length + 40,
        tcp_flags=flags,
        invariant=struct.pack("!BIH", proto, ip_id, later) + rest,
    )


def _upper(proto: int, upper: bytes) -> tuple[int, int, int, bytes]:
    """Ports (or type and code), TCP flags, and the invariant bytes of the upper layer."""
    if proto == PROTO_TCP and len(upper) >= 20:
        sport, dport, seq, ack, offset, flags = struct.unpack_from("!HHIIBB", upper)
        body = upper[(offset >> 4) * 4 :][:KEY_PREFIX_BYTES]
        return sport, dport, flags, struct.pack("!II", seq, ack) + body
    if proto == PROTO_UDP and len(upper) >= 8:
        sport, dport = struct.unpack_from("!HH", upper)
        return sport, dport, 0, upper[8 : 8 + KEY_PREFIX_BYTES]
    if proto in (PROTO_ICMP, PROTO_ICMP6) and len(upper) >= 8:
        return upper[0], upper[1], 0, bytes([upper[0]]) + _icmp_body(proto, upper)
    if proto == PROTO_SCTP and len(upper) >= 12:
        # Ports and the checksum that covers them are left out: the verification tag and the first chunk stay.
        return 0, 0, 0, upper[4:8] + upper[12 : 12 + KEY_PREFIX_BYTES]
    if proto == PROTO_TCP:
        # A first fragment too short for ports to be read (RFC 1858): what stands behind them, less the checksum.
        return 0, 0, 0, upper[4:12]
    return 0, 0, 0, b"" if proto == PROTO_UDP else upper[:KEY_PREFIX_BYTES]


def _icmp_body(proto: int, upper: bytes) -> bytes:
    """What NAT leaves alone of an ICMP message: of an echo all but the identifier, of an error the quoted packet's."""
    if upper[0] not in (_ICMP_ERRORS if proto == PROTO_ICMP else _ICMP6_ERRORS):
        return upper[6:8] + upper[8 : 8 + KEY_PREFIX_BYTES]
    quoted = upper[8:]
    if len(quoted) >= 20 and quoted[0] >> 4 == 4:
        return quoted[4:6] + _quoted(quoted[9], quoted[(quoted[0] & 0xF) * 4 :])
    return _quoted(quoted[6], quoted[40:]) if len(quoted) >= 40 else b""


def _quoted(proto: int, transport: bytes) -> bytes:
    """Of the quoted transport header what NAT leaves alone: no ports, no identifier, no checksum that covers them."""
    if proto == PROTO_UDP:
        return transport[4:6] + transport[8 : 8 + KEY_PREFIX_BYTES]
    if proto in (PROTO_ICMP, PROTO_ICMP6):
        return transport[:1] + transport[6 : 8 + KEY_PREFIX_BYTES]
    return transport[4:8]


def _ip4_text(raw: bytes) -> str:
    return f"{raw[0]}.{raw[1]}.{raw[2]}.{raw[3]}"


def _ip6_text(raw: bytes) -> str:
    return ipaddress.IPv6Address(raw).compressed
