"""Ethernet frames made by hand: what no ordinary program would send on purpose."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, replace
from typing import Any

UDP, TCP = 17, 6
IPV6_FRAGMENT = 44
SYN, PSH, ACK = 0x02, 0x08, 0x10
MORE = 0x2000
DONT = 0x4000


@dataclass(frozen=True)
class Way:
    """From where to where a frame goes; `vlan` is the tag it bears, if any."""

    eth_src: str
    eth_dst: str
    src: str
    dst: str
    sport: int = 40000
    dport: int = 5432
    dscp: int = 0
    vlan: int | None = None

    @property
    def six(self) -> bool:
        return ":" in self.src

    def changed(self, **fields: Any) -> Way:
        return replace(self, **fields)


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp(way: Way, payload: bytes) -> bytes:
    """A UDP datagram without its IP header."""
    head = struct.pack("!HHHH", way.sport, way.dport, 8 + len(payload), 0)
    summed = checksum(_pseudo(way, UDP, 8 + len(payload)) + head + payload) or 0xFFFF
    return head[:6] + struct.pack("!H", summed) + payload


def tcp(way: Way, sequence: int, acknowledgment: int, flags: int, payload: bytes = b"") -> bytes:
    """A TCP segment without its IP header."""
    head = struct.pack("!HHIIBBHHH", way.sport, way.dport, sequence, acknowledgment, 5 << 4, flags, 65535, 0, 0)
    summed = checksum(_pseudo(way, TCP, 20 + len(payload)) + head + payload)
    return head[:16] + struct.pack("!H", summed) + head[18:] + payload


def ip(way: Way, proto: int, body: bytes, *, ident: int = 0, flags_offset: int = 0, ttl: int = 64) -> bytes:
    """A frame of one IP packet. `flags_offset` is IPv4's field (RFC 791); of it IPv6 makes a fragment header."""
    source, destination = (ipaddress.ip_address(a).packed for a in (way.src, way.dst))
    if way.six:
        if flags_offset & ~DONT:
            more, offset = bool(flags_offset & MORE), flags_offset & 0x1FFF
            body = struct.pack("!BBHI", proto, 0, offset << 3 | more, ident) + body
            proto = IPV6_FRAGMENT
        head = struct.pack("!IHBB", 6 << 28 | way.dscp << 22, len(body), proto, ttl) + source + destination
    else:
        fields = struct.pack("!BBHHHBBH", 0x45, way.dscp << 2, 20 + len(body), ident, flags_offset, ttl, proto, 0)
        head = fields + source + destination
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return ethernet(way) + head + body


def ethernet(way: Way) -> bytes:
    """The frame's own header, with its VLAN tag."""
    tag = b"" if way.vlan is None else struct.pack("!HH", 0x8100, way.vlan)
    return mac(way.eth_dst) + mac(way.eth_src) + tag + struct.pack("!H", 0x86DD if way.six else 0x0800)


def fragments(way: Way, payload: bytes, ident: int, size: int) -> list[bytes]:
    """A UDP datagram in fragments with `size` bytes of its body each (a multiple of 8)."""
    body = udp(way, payload)
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return [
        ip(way, UDP, piece, ident=ident, flags_offset=(MORE if number < len(pieces) - 1 else 0) | number * size // 8)
        for number, piece in enumerate(pieces)
    ]


def numbered(number: int, size: int = 64) -> bytes:
    """A payload that no other packet has."""
    return struct.pack("!I", number) + bytes(size - 4)


def _pseudo(way: Way, proto: int, length: int) -> bytes:
    source, destination = (ipaddress.ip_address(a).packed for a in (way.src, way.dst))
    if way.six:
        return source + destination + struct.pack("!II", length, proto)
    return source + destination + struct.pack("!BBH", 0, proto, length)
