"""One frame of each odd kind: what a tenant may send, and nobody on the way may change."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable
from dataclasses import dataclass

from packets import frames
from packets.checksums import ICMP, ICMPV6
from packets.frames import ACK, DONT, MORE, SYN, TCP, UDP, Way, checksum, ethernet, mac

MTU = 1400
BROADCAST = "ff:ff:ff:ff:ff:ff"
IPIP, IGMP, GRE, ESP, AH, SCTP, UDPLITE, EXPERIMENT, NOTHING = 4, 2, 47, 50, 51, 132, 136, 253, 59
HOP_BY_HOP, DESTINATION_OPTIONS = 0, 60
_SECRET = bytes(range(7, 135))
"""Stands for what is encrypted."""


@dataclass(frozen=True)
class Odd:
    """A kind of frame.

    Attributes:
        make: from the way and a number that makes each frame another one.
        good: whether its checksums are right.
        of_the_pair: whether it is IP from the one end to the other, so that it is colored.
    """

    name: str
    make: Callable[[Way, int], list[bytes]]
    good: bool = True
    of_the_pair: bool = True


def ipv4(
    w: Way, proto: int, body: bytes, n: int, *, tos: int = 0, flags: int = 0, ttl: int = 64, options: bytes = b""
) -> bytes:
    """An IPv4 frame with what `frames.ip` does not offer: ECN bits and options."""
    length = 20 + len(options)
    head = struct.pack("!BBHHHBBH", 0x40 | length // 4, tos, length + len(body), n, flags, ttl, proto, 0)
    head += ipaddress.ip_address(w.src).packed + ipaddress.ip_address(w.dst).packed + options
    return ethernet(w) + head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def ipv6(w: Way, proto: int, body: bytes, *, tos: int = 0, label: int = 0, ttl: int = 64) -> bytes:
    head = struct.pack("!IHBB", 6 << 28 | tos << 20 | label, len(body), proto, ttl)
    return ethernet(w) + head + ipaddress.ip_address(w.src).packed + ipaddress.ip_address(w.dst).packed + body


def _ip(w: Way, proto: int, body: bytes, n: int, *, tos: int = 0, ttl: int = 64) -> bytes:
    return ipv6(w, proto, body, tos=tos, ttl=ttl) if w.six else ipv4(w, proto, body, n, tos=tos, ttl=ttl)


def _datagram(w: Way, n: int, size: int = 64) -> bytes:
    return frames.udp(w, frames.numbered(n, size))


def _echo(w: Way, n: int) -> bytes:
    """An echo request, with its checksum."""
    body = struct.pack("!BBHHH", 128 if w.six else 8, 0, 0, 77, n) + frames.numbered(n)
    pseudo = b""
    if w.six:
        ends = ipaddress.ip_address(w.src).packed + ipaddress.ip_address(w.dst).packed
        pseudo = ends + struct.pack("!II", len(body), ICMPV6)
    return body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]


def _spoilt(frame: bytes, at: int) -> bytes:
    """With one byte of a checksum that is not right."""
    return frame[:at] + bytes([frame[at] ^ 0x5A]) + frame[at + 1 :]


def _body_at(w: Way) -> int:
    return 54 if w.six else 34


def _numbered(prefix: bytes) -> Callable[[Way, int], bytes]:
    return lambda w, n: prefix + struct.pack("!I", n) + _SECRET


def _protocol(proto: int, prefix: bytes) -> Callable[[Way, int], list[bytes]]:
    body = _numbered(prefix)
    return lambda w, n: [_ip(w, proto, body(w, n), n)]


def _behind(extension: bytes, kind: int) -> Callable[[Way, int], list[bytes]]:
    """A UDP datagram behind an extension header."""
    return lambda w, n: [ipv6(w, kind, bytes([UDP]) + extension + _datagram(w, n))]


def _with_options(options: bytes) -> Callable[[Way, int], list[bytes]]:
    return lambda w, n: [ipv4(w, UDP, _datagram(w, n), n, options=options)]


def _in_pieces(proto: int) -> Callable[[Way, int], list[bytes]]:
    def make(w: Way, n: int) -> list[bytes]:
        body = _datagram(w, n, 900) if proto == UDP else struct.pack("!II", 0x1234, n) + _SECRET * 7
        pieces = [body[at : at + 400] for at in range(0, len(body), 400)]
        return [
            frames.ip(w, proto, p, ident=n, flags_offset=(MORE if k < len(pieces) - 1 else 0) | k * 50)
            for k, p in enumerate(pieces)
        ]

    return make


def _ecn(w: Way, n: int) -> list[bytes]:
    """All four codepoints (RFC 3168)."""
    return [_ip(w, UDP, _datagram(w, n * 4 + e), n, tos=e) for e in range(4)]


_BOTH = (
    Odd("ECN", _ecn),
    Odd(
        "empty UDP", lambda w, n: [_ip(w.changed(sport=40000 + n), UDP, frames.udp(w.changed(sport=40000 + n), b""), n)]
    ),
    Odd("UDP checksum wrong", lambda w, n: [_spoilt(_ip(w, UDP, _datagram(w, n), n), _body_at(w) + 6)], good=False),
    Odd(
        "TCP checksum wrong",
        lambda w, n: [_spoilt(_ip(w, TCP, frames.tcp(w, n, 5, ACK, b"x" * 20), n), _body_at(w) + 16)],
        good=False,
    ),
    Odd("ICMP checksum wrong", lambda w, n: [_spoilt(_ip(w, _icmp(w), _echo(w, n), n), _body_at(w) + 2)], good=False),
    Odd("TCP", lambda w, n: [_ip(w, TCP, frames.tcp(w, n, 0, SYN), n)]),
    Odd("echo", lambda w, n: [_ip(w, _icmp(w), _echo(w, n), n)]),
    Odd("largest", lambda w, n: [_ip(w, UDP, _datagram(w, n, MTU - (48 if w.six else 28)), n)]),
    Odd("UDP in fragments", _in_pieces(UDP)),
    Odd("ESP", _protocol(ESP, struct.pack("!I", 0x1234))),
    Odd("ESP in fragments", _in_pieces(ESP)),
    Odd("GRE", _protocol(GRE, struct.pack("!HH", 0x2000, 0x0800))),
    Odd("SCTP", _protocol(SCTP, struct.pack("!HHII", 5000, 5001, 7, 0xDEADBEEF))),
    Odd("UDP-Lite", _protocol(UDPLITE, struct.pack("!HHHH", 5000, 5001, 8, 0x1234))),
    Odd("a protocol for experiments", _protocol(EXPERIMENT, b"")),
    Odd("TTL 255", lambda w, n: [_ip(w, UDP, _datagram(w, n), n, ttl=255)]),
    Odd("TTL 2", lambda w, n: [_ip(w, UDP, _datagram(w, n), n, ttl=2)]),
    Odd("TTL 1", lambda w, n: [_ip(w, UDP, _datagram(w, n), n, ttl=1)]),
)
_IPV4 = (
    Odd("AH", _protocol(AH, struct.pack("!BBHI", UDP, 4, 0, 0x1234))),
    Odd("IP in IP", lambda w, n: [ipv4(w, IPIP, ipv4(w.changed(dscp=0), UDP, _datagram(w, n), n, tos=0xB8)[14:], n)]),
    Odd("IGMP to one", _protocol(IGMP, b"\x11\x64\xee\x9b")),
    Odd("header checksum wrong", lambda w, n: [_spoilt(ipv4(w, UDP, _datagram(w, n), n), 24)], good=False),
    Odd("no UDP checksum", lambda w, n: [_without_checksum(ipv4(w, UDP, _datagram(w, n), n))]),
    Odd("IP id 0", lambda w, n: [ipv4(w, UDP, _datagram(w, n), 0)]),
    Odd("IP id 0, do not fragment", lambda w, n: [ipv4(w, UDP, _datagram(w, n), 0, flags=DONT)]),
    Odd("reserved bit", lambda w, n: [ipv4(w, UDP, _datagram(w, n), n, flags=0x8000)]),
    Odd("record route", _with_options(b"\x07\x0b\x04" + bytes(8) + b"\x00")),
    Odd("router alert", _with_options(b"\x94\x04\x00\x00")),
    Odd("timestamp", _with_options(b"\x01\x01\x01\x01\x44\x08\x05\x00" + bytes(4))),
)
_IPV6 = (
    Odd("flow label", lambda w, n: [ipv6(w, UDP, _datagram(w, n), label=0xABCDE)]),
    Odd("hop-by-hop options", _behind(b"\x00\x01\x04" + bytes(4), HOP_BY_HOP)),
    Odd("destination options", _behind(b"\x00\x01\x04" + bytes(4), DESTINATION_OPTIONS)),
    Odd("nothing behind the header", lambda w, n: [ipv6(w, NOTHING, struct.pack("!I", n))]),
)


def _icmp(w: Way) -> int:
    return ICMPV6 if w.six else ICMP


def _without_checksum(frame: bytes) -> bytes:
    return frame[:40] + b"\0\0" + frame[42:]


def _other(ethertype: int, body: bytes, to: str | None = None) -> Callable[[Way, int], list[bytes]]:
    return lambda w, n: [
        mac(to or w.eth_dst) + mac(w.eth_src) + struct.pack("!H", ethertype) + body + struct.pack("!I", n) + bytes(50)
    ]


def _multicast(group: str, eth_dst: str, proto: int, body: bytes, ttl: int = 1) -> Callable[[Way, int], list[bytes]]:
    return lambda w, n: [_ip(w.changed(dst=group, eth_dst=eth_dst), proto, body + struct.pack("!I", n), n, ttl=ttl)]


def _arp(w: Way, n: int) -> list[bytes]:
    """A reply that nobody asked for, with a number behind it."""
    ends = mac(w.eth_src) + ipaddress.ip_address(w.src).packed + mac(w.eth_dst) + ipaddress.ip_address(w.dst).packed
    return [
        mac(w.eth_dst)
        + mac(w.eth_src)
        + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 2)
        + ends
        + bytes(14)
        + struct.pack("!I", n)
    ]


def _tagged(w: Way, n: int) -> list[bytes]:
    return [_ip(w.changed(vlan=7), UDP, _datagram(w, n), n)]


_ETHERNET = (
    Odd("ethertype for experiments", _other(0x88B5, b"")),
    Odd("ethertype to all", _other(0x88B5, b"", BROADCAST)),
    Odd("MPLS", _other(0x8847, b"\x00\x01\x01\x40")),
    Odd("a length instead of an ethertype", _other(0x0036, b"\xaa\xaa\x03\x00\x00\x00")),
    Odd("tagged", _tagged),
    Odd("IPv4 with an IPv6 ethertype", _other(0x86DD, b"\x45\x00\x00\x1c")),
)
_ON_A_SWITCH = {
    4: (
        Odd("ARP", _arp),
        Odd("IGMP", _multicast("224.0.0.22", "01:00:5e:00:00:16", IGMP, b"\x22\x00\xdd\x03")),
        Odd("multicast", _multicast("239.1.2.3", "01:00:5e:01:02:03", EXPERIMENT, b"", 7)),
        Odd("broadcast", _multicast("255.255.255.255", BROADCAST, EXPERIMENT, b"", 64)),
    ),
    6: (
        Odd("MLD", _multicast("ff02::16", "33:33:00:00:00:16", ICMPV6, b"\x8f\x00\x12\x34")),
        Odd("multicast", _multicast("ff05::1234", "33:33:00:00:12:34", EXPERIMENT, b"", 7)),
    ),
}


def kinds(w: Way, *, switched: bool) -> tuple[Odd, ...]:
    """All kinds that make sense on a way."""
    found = (*_BOTH, *(_IPV6 if w.six else _IPV4))
    if not switched:
        return found
    beside = (*_ETHERNET, *_ON_A_SWITCH[6 if w.six else 4])
    return (*found, *(Odd(odd.name, odd.make, good=False, of_the_pair=False) for odd in beside))
