"""The packet key is the same at every hop of one packet, and another for another packet (design.md, "Log")."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from builders import PROPERTY
from hypothesis import given
from hypothesis import strategies as st

from vtrace.log.packet import decode, packet_key

SECRET = b"s" * 32


def ipv4(
    proto: int, upper: bytes, *, src: int = 0x0A000001, dst: int = 0x0A000002, tos: int = 0, ttl: int = 64,
    ip_id: int = 7, frag: int = 0, total: int | None = None, tag: bytes = b"", pad: bytes = b"",
) -> bytes:  # fmt: skip
    total = 20 + len(upper) if total is None else total
    header = struct.pack("!BBHHHBBHII", 0x45, tos, total, ip_id, frag, ttl, proto, 0, src, dst)
    return bytes(12) + tag + b"\x08\x00" + header + upper + pad


def ipv6(next_header: int, upper: bytes, *, tos: int = 0, ttl: int = 64, source: int = 1) -> bytes:
    header = struct.pack("!IHBB", 6 << 28 | tos << 20, len(upper), next_header, ttl)
    addresses = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(2).packed
    return bytes(12) + b"\x86\xdd" + header + addresses + upper


def tcp(
    payload: bytes = b"GET / HTTP/1.1\r\nHost: a", *, sport: int = 1000, dport: int = 80, seq: int = 1, ack: int = 2,
    flags: int = 0x10, check: int = 0,
) -> bytes:  # fmt: skip
    return struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 0x50, flags, 1024, check, 0) + payload


def udp(payload: bytes = b"payload of a datagram", *, sport: int = 1000, dport: int = 53, check: int = 0) -> bytes:
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), check) + payload


def icmp(kind: int = 8, *, identifier: int = 1, sequence: int = 1, check: int = 0, payload: bytes = b"ping") -> bytes:
    return struct.pack("!BBHHH", kind, 0, check, identifier, sequence) + payload


def key(frame: bytes, secret: bytes = SECRET) -> int:
    headers = decode(frame)
    assert headers is not None
    return packet_key(headers, secret)


PORT = st.integers(0, 0xFFFF)
ADDRESS = st.integers(0, 0xFFFFFFFF)
TOS = st.integers(0, 255)


@PROPERTY
@given(ADDRESS, ADDRESS, PORT, PORT, TOS, st.integers(0, 255), PORT)
def test_tcp_over_ipv4_survives_nat_routing_and_coloring(
    src: int, dst: int, sport: int, dport: int, tos: int, ttl: int, check: int
) -> None:
    changed = ipv4(6, tcp(sport=sport, dport=dport, check=check), src=src, dst=dst, tos=tos, ttl=ttl)
    assert key(changed) == key(ipv4(6, tcp()))


@PROPERTY
@given(ADDRESS, ADDRESS, PORT, PORT, TOS, st.integers(0, 255), PORT)
def test_udp_over_ipv4_survives_nat_routing_and_coloring(
    src: int, dst: int, sport: int, dport: int, tos: int, ttl: int, check: int
) -> None:
    changed = ipv4(17, udp(sport=sport, dport=dport, check=check), src=src, dst=dst, tos=tos, ttl=ttl)
    assert key(changed) == key(ipv4(17, udp()))


@PROPERTY
@given(st.integers(1, 2**128 - 1), PORT, TOS, st.integers(0, 255))
def test_ipv6_survives_nat_routing_and_coloring(source: int, sport: int, tos: int, ttl: int) -> None:
    assert key(ipv6(6, tcp(sport=sport), tos=tos, ttl=ttl, source=source)) == key(ipv6(6, tcp()))


def test_nat_rewrites_the_identifier_of_an_echo() -> None:
    assert key(ipv4(1, icmp(identifier=77, check=9))) == key(ipv4(1, icmp()))


@pytest.mark.parametrize("flags", [0x18, 0x11, 0x90, 0x99], ids=["PSH", "FIN", "CWR", "PSH+FIN+CWR"])
def test_segmentation_moves_psh_fin_and_cwr(flags: int) -> None:
    assert key(ipv4(6, tcp(flags=flags))) == key(ipv4(6, tcp(flags=0x10)))


def test_segmentation_changes_the_length() -> None:
    whole = ipv4(6, tcp(b"x" * 1000))
    assert key(ipv4(6, tcp(b"x" * 100))) == key(whole)
    assert key(ipv4(6, tcp(b"x" * 1000), total=0)) == key(whole)


def test_a_vlan_tag_is_no_part_of_it() -> None:
    assert key(ipv4(17, udp(), tag=b"\x81\x00\x20\x64")) == key(ipv4(17, udp()))


@pytest.mark.parametrize(
    "other",
    [
        ipv4(6, tcp(seq=3)),
        ipv4(6, tcp(ack=3)),
        ipv4(6, tcp(), ip_id=8),
        ipv4(6, tcp(b"HEAD / HTTP/1.1")),
        ipv4(17, tcp()),
    ],
    ids=["seq", "ack", "ip id", "payload", "protocol"],
)
def test_another_packet_has_another_key(other: bytes) -> None:
    assert key(other) != key(ipv4(6, tcp()))


def test_another_echo_has_another_key() -> None:
    assert key(ipv4(1, icmp(sequence=2))) != key(ipv4(1, icmp()))
    assert key(ipv4(1, icmp(kind=0))) != key(ipv4(1, icmp(kind=8))), "a reply is no request"


def test_fragments_of_one_datagram_have_different_keys() -> None:
    keys = {key(ipv4(17, udp(), frag=frag)) for frag in (0x2000, 0x2001, 0x0002)}
    assert len(keys) == 3


def test_the_secret_changes_every_key() -> None:
    assert key(ipv4(6, tcp()), b"a") != key(ipv4(6, tcp()), b"b")


@PROPERTY
@given(st.binary(max_size=64), st.binary(min_size=1, max_size=64))
def test_a_key_is_a_signed_64_bit_integer(payload: bytes, secret: bytes) -> None:
    assert -(2**63) <= key(ipv4(17, udp(payload)), secret) < 2**63


def test_the_key_shows_nothing_of_the_payload_without_the_secret() -> None:
    # 64 bits of a keyed hash: the bytes of the payload must not stand in it.
    found = key(ipv4(17, udp(b"\x42" * 32))) & (2**64 - 1)
    assert b"\x42\x42\x42" not in found.to_bytes(8, "big")


def test_ethernet_padding_is_no_part_of_it() -> None:
    # A NIC pads to 60 bytes; conntrack of the kernel datapath trims the padding off again.
    assert key(ipv4(17, udp(b"abcd"), pad=bytes(14))) == key(ipv4(17, udp(b"abcd")))


def test_sctp_survives_nat() -> None:
    # RFC 9260: source port, destination port, verification tag, checksum; OVN translates and balances SCTP.
    chunk = struct.pack("!BBHI", 0, 3, 20, 1) + b"data of a chunk"
    before = struct.pack("!HHII", 1000, 2000, 0xABCD, 0x11111111) + chunk
    after = struct.pack("!HHII", 3000, 2000, 0xABCD, 0x22222222) + chunk
    assert key(ipv4(132, before)) == key(ipv4(132, after))


def test_an_icmp_error_survives_nat() -> None:
    # RFC 5508, 4.1: a NAT rewrites the address and checksum of the packet that an error quotes.
    def error(source: int, check: int) -> bytes:
        quoted = struct.pack("!BBHHHBBHII", 0x45, 0, 40, 9, 0, 60, 17, check, source, 0x0A000002) + bytes(8)
        return struct.pack("!BBHHH", 3, 3, 0, 0, 0) + quoted

    assert key(ipv4(1, error(0x0A000001, 1))) == key(ipv4(1, error(0xC0000201, 2)))


@pytest.mark.parametrize("six", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("proto", [6, 17, 1], ids=["TCP", "UDP", "echo"])
def test_an_icmp_error_survives_nat_of_ports_too(proto: int, six: bool) -> None:
    """Ports or identifier of the quoted packet, and the checksum that covers them, are translated back."""

    def error(port: int, check: int) -> bytes:
        quoted = {6: tcp(sport=port, check=check), 17: udp(sport=port, check=check)}.get(
            proto, icmp(identifier=port, check=check)
        )
        if six:
            header = struct.pack("!IHBB", 6 << 28, len(quoted), 58 if proto == 1 else proto, 60)
            header += ipaddress.IPv6Address(port).packed + ipaddress.IPv6Address(2).packed
            return ipv6(58, struct.pack("!BBHI", 1, 4, check, 0) + header + quoted)
        header = struct.pack("!BBHHHBBHII", 0x45, 0, 20 + len(quoted), 9, 0, 60, proto, check, port, 0x0A000002)
        return ipv4(1, struct.pack("!BBHHH", 3, 3, check, 0, 0) + header + quoted)

    assert key(error(1000, 1)) == key(error(40000, 0xFFFF))


def test_errors_about_two_datagrams_have_two_keys() -> None:
    def error(payload: bytes) -> bytes:
        quoted = struct.pack("!BBHHHBBHII", 0x45, 0, 40, 0, 0, 60, 17, 0, 1, 2) + udp(payload)
        return ipv4(1, struct.pack("!BBHHH", 3, 3, 0, 0, 0) + quoted)

    assert key(error(b"one datagram ...")) != key(error(b"another datagram"))


def test_a_first_fragment_too_short_for_ports_survives_nat() -> None:
    """RFC 1858: eight bytes of a TCP header are enough for a fragment."""
    before, after = (ipv4(6, tcp(sport=port)[:8], frag=0x2000) for port in (1000, 40000))
    assert key(before) == key(after)
    assert key(before) != key(ipv4(6, tcp(seq=9)[:8], frag=0x2000))
    assert key(ipv4(17, udp(sport=1)[:6], frag=0x2000)) == key(ipv4(17, udp(sport=2)[:6], frag=0x2000))


def test_later_fragments_have_keys_of_their_own_by_their_32_bit_id() -> None:
    def fragment(ident: int) -> bytes:
        return ipv6(44, struct.pack("!BBHI", 17, 0, 8 << 3, ident) + bytes(24))

    assert key(fragment(1)) != key(fragment(0x10001))
