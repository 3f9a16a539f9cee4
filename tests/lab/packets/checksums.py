"""Checks the checksums of captured frames, byte by byte: of the IPv4 header, UDP, TCP, ICMP and ICMPv6."""

from __future__ import annotations

import struct

from packets.frames import TCP, UDP, checksum

ICMP, ICMPV6 = 1, 58
IPV4, IPV6 = 0x0800, 0x86DD
# Hop-by-hop, routing and destination options (RFC 8200): what follows is the next header and a length in 8 bytes.
_EXTENSIONS = (0, 43, 60)


def wrong(frame: bytes) -> str:
    """What is wrong with a frame's checksums; empty if nothing is. Fragments have only a header's."""
    (ethertype,) = struct.unpack_from("!H", frame, 12)
    packet = frame[14:]
    if ethertype == IPV4:
        header_bytes = (packet[0] & 15) * 4
        if checksum(packet[:header_bytes]):
            return "IPv4 header"
        (total,) = struct.unpack_from("!H", packet, 2)
        if struct.unpack_from("!H", packet, 6)[0] & 0x3FFF:
            return ""
        body, proto = packet[header_bytes:total], packet[9]
        pseudo = packet[12:20] + struct.pack("!BBH", 0, proto, len(body))
    elif ethertype == IPV6:
        proto, at, total = packet[6], 40, 40 + struct.unpack_from("!H", packet, 4)[0]
        while proto in _EXTENSIONS:
            proto, at = packet[at], at + 8 + packet[at + 1] * 8
        body = packet[at:total]
        pseudo = packet[8:40] + struct.pack("!II", len(body), proto)
    else:
        return ""
    if proto == UDP:
        # 0 says that there is none (RFC 768).
        return "UDP" if body[6:8] != b"\0\0" and checksum(pseudo + body) else ""
    if proto == TCP:
        return "TCP" if checksum(pseudo + body) else ""
    if proto == ICMP and ethertype == IPV4:
        return "ICMP" if checksum(body) else ""
    return "ICMPv6" if proto == ICMPV6 and checksum(pseudo + body) else ""


def header_sum(frame: bytes) -> int:
    """The IPv4 header's sum with its checksum: 0 where that is right, and else what a router must leave as it is."""
    return checksum(frame[14 : 14 + (frame[14] & 15) * 4])
