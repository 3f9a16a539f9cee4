"""Packets as they stand on the wire, written out by hand from RFC 791, 8200, 9293, 768, 792, 4443, 826, 4861."""

from __future__ import annotations

import pytest
from builders import PROPERTY
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from vtrace.log.packet import Arp, Headers, decode, decode_arp

ETHERNET = "0a0000000002 0a0000000001 "
ETH_DST, ETH_SRC = 0x0A0000000002, 0x0A0000000001
# DSCP 11, ECN 1; 32 bytes; id 0x1234; don't fragment; TTL 63; 192.0.2.1 to 198.51.100.2.
IPV4_UDP = "0800 45 2d 0020 1234 4000 3f 11 beef c0000201 c6336402 "
UDP = "1388 0035 000c 0000 61626364"
# Traffic class 0xba (DSCP 46, ECN 2), flow label 0x12345; hop limit 64; 2001:db8::1 to 2001:db8::2.
IPV6_WORD = "86dd 6ba12345 "
IPV6_ADDRESSES = "20010db8000000000000000000000001 20010db8000000000000000000000002 "


def frame(text: str) -> bytes:
    return bytes.fromhex(text)


def ipv6(next_header: str, length: str, rest: str) -> bytes:
    return frame(f"{ETHERNET}{IPV6_WORD}{length} {next_header} 40 {IPV6_ADDRESSES}{rest}")


def fields(headers: Headers | None) -> dict[str, object]:
    """All that was read but the key's input."""
    assert headers is not None
    return {name: getattr(headers, name) for name in Headers.__struct_fields__ if name != "invariant"}


def test_udp_over_ipv4() -> None:
    assert fields(decode(frame(ETHERNET + IPV4_UDP + UDP))) == {
        "eth_src": ETH_SRC,
        "eth_dst": ETH_DST,
        "proto": 17,
        "src": "192.0.2.1",
        "dst": "198.51.100.2",
        "sport": 5000,
        "dport": 53,
        "ttl": 63,
        "dscp": 11,
        "ecn": 1,
        "ip_id": 0x1234,
        "fragment": 0,
        "vlan": -1,
        "length_bytes": 32,
        "tcp_flags": 0,
    }


def test_tcp_over_ipv4_with_ip_and_tcp_options() -> None:
    # Header length 6 words: 4 bytes of IP options (NOP). Flags CWR ECE … SYN all set once: 0xff.
    ip = "0800 46 ff 0034 ffff 0000 ff 06 ffff ffffffff 7f000001 01010101 "
    tcp = "ffff fffe 89abcdef 01234567 60 ff 1000 0000 0000 020405b4 6869"
    found = decode(frame(ETHERNET + ip + tcp))
    assert found is not None
    assert (found.proto, found.sport, found.dport, found.tcp_flags) == (6, 65535, 65534, 0xFF)
    assert (found.src, found.dst) == ("255.255.255.255", "127.0.0.1")
    assert (found.dscp, found.ecn, found.ttl, found.ip_id, found.length_bytes) == (63, 3, 255, 0xFFFF, 0x34)


def test_icmp_type_and_code_stand_in_place_of_ports() -> None:
    ip = "0800 45 00 001c 0001 0000 40 01 0000 0a000001 0a000002 "
    found = decode(frame(f"{ETHERNET}{ip} 03 04 0000 0000 0578"))
    assert found is not None
    assert (found.proto, found.sport, found.dport) == (1, 3, 4)


@pytest.mark.parametrize("tags", ["8100 2064 ", "88a8 0064 8100 2065 "], ids=["802.1Q", "QinQ"])
def test_vlan_tags_are_passed_over(tags: str) -> None:
    plain = decode(frame(ETHERNET + IPV4_UDP + UDP))
    assert plain is not None
    outer = {"8100": 0x64, "88a8": 0x64}[tags[:4]]
    assert decode(frame(ETHERNET + tags + IPV4_UDP + UDP)) == replace(plain, vlan=outer)


def test_first_fragment_has_ports_and_a_later_one_has_none() -> None:
    first = decode(frame(f"{ETHERNET}0800 45 00 0020 0007 2000 40 11 0000 0a000001 0a000002 {UDP}"))
    later = decode(frame(f"{ETHERNET}0800 45 00 0020 0007 0001 40 11 0000 0a000001 0a000002 {UDP}"))
    assert first is not None
    assert later is not None
    assert (first.fragment, first.sport, first.dport) == (1, 5000, 53)
    assert (later.fragment, later.sport, later.dport) == (2, 0, 0)
    assert first.invariant != later.invariant


def test_udp_over_ipv6() -> None:
    assert fields(decode(ipv6("11", "000c", UDP))) == {
        "eth_src": ETH_SRC,
        "eth_dst": ETH_DST,
        "proto": 17,
        "src": "2001:db8::1",
        "dst": "2001:db8::2",
        "sport": 5000,
        "dport": 53,
        "ttl": 64,
        "dscp": 46,
        "ecn": 2,
        "ip_id": 0,
        "fragment": 0,
        "vlan": -1,
        "length_bytes": 52,
        "tcp_flags": 0,
    }


def test_ipv6_extension_headers_are_passed_over() -> None:
    # Hop-by-hop (8 bytes), routing (16 bytes), destination options (8 bytes), then UDP.
    extensions = "2b 00 010400000000 3c 01 0000000000000000000000000000 11 00 010400000000 "
    found = decode(ipv6("00", "002c", extensions + UDP))
    assert found is not None
    assert (found.proto, found.sport, found.dport, found.fragment) == (17, 5000, 53, 0)


@pytest.mark.parametrize(
    ("offset_and_more", "fragment", "sport"),
    [("0001", 1, 5000), ("00a9", 2, 0), ("00a8", 2, 0), ("0000", 0, 5000)],
    ids=["first", "middle", "last", "atomic"],
)
def test_ipv6_fragments(offset_and_more: str, fragment: int, sport: int) -> None:
    found = decode(ipv6("2c", "0014", f"11 00 {offset_and_more} deadbeef {UDP}"))
    assert found is not None
    assert (found.proto, found.fragment, found.sport) == (17, fragment, sport)


def test_icmp6_type_and_code_stand_in_place_of_ports() -> None:
    found = decode(ipv6("3a", "0008", "80 00 0000 1234 0005"))
    assert found is not None
    assert (found.proto, found.sport, found.dport) == (58, 128, 0)


ARP = "0806 0001 0800 06 04 000{} 0a0000000001 0a000001 000000000000 0a000002"


@pytest.mark.parametrize("operation", [1, 2], ids=["request", "reply"])
def test_arp(operation: int) -> None:
    found = decode_arp(frame(ETHERNET + ARP.format(operation)))
    assert found == Arp(operation=operation, eth_src=ETH_SRC, sender_ip="10.0.0.1", target_ip="10.0.0.2")


def test_arp_of_another_kind_is_none() -> None:
    assert decode_arp(frame(ETHERNET + "0806 0006 0800 06 04 0001 0a0000000001 0a000001 000000000000 0a000002")) is None
    assert decode_arp(frame(ETHERNET + "0806 0001 86dd 06 10 0001 0a0000000001 0a000001 000000000000 0a000002")) is None


@pytest.mark.parametrize(("kind", "operation"), [("87", 1), ("88", 2)], ids=["solicitation", "advertisement"])
def test_neighbor_discovery(kind: str, operation: int) -> None:
    found = decode_arp(ipv6("3a", "0018", f"{kind} 00 0000 00000000 20010db8000000000000000000000099"))
    assert found == Arp(operation=operation, eth_src=ETH_SRC, sender_ip="2001:db8::1", target_ip="2001:db8::99")


def test_a_frame_is_ip_or_arp_never_both() -> None:
    assert decode_arp(frame(ETHERNET + IPV4_UDP + UDP)) is None
    assert decode_arp(ipv6("11", "000c", UDP)) is None
    assert decode_arp(ipv6("3a", "0008", "80 00 0000 1234 0005" + 16 * "00")) is None
    assert decode(frame(ETHERNET + ARP.format(1))) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0a",
        ETHERNET,
        ETHERNET + "8100",
        ETHERNET + "88cc 0207",
        ETHERNET + "0800",
        ETHERNET + "0800 45 00 0014 0001 0000 40 11 0000 0a000001 0a0000",
        ETHERNET + "0800 44 00 0014 0001 0000 40 11 0000 0a000001 0a000002",
        ETHERNET + "0800 65 00 0014 0001 0000 40 11 0000 0a000001 0a000002",
        ETHERNET + "86dd 40000000 0000 11 40 " + IPV6_ADDRESSES,
        ETHERNET + "86dd 60000000 0000 11 40 20010db8",
        ETHERNET + IPV6_WORD + "0008 00 40 " + IPV6_ADDRESSES + "2c",
    ],
    ids=[
        "empty",
        "one byte",
        "no type",
        "no type after a tag",
        "LLDP",
        "no IPv4 header",
        "short IPv4 header",
        "header length 4",
        "version 6 in IPv4",
        "version 4 in IPv6",
        "short IPv6 header",
        "cut extension",
    ],
)
def test_what_is_no_whole_ip_header_is_none(text: str) -> None:
    assert decode(frame(text)) is None


@pytest.mark.parametrize("length", range(14 + 20, 14 + 20 + 8))
def test_a_cut_upper_layer_still_gives_the_ip_header(length: int) -> None:
    found = decode(frame(ETHERNET + IPV4_UDP + UDP)[:length])
    assert found is not None
    assert (found.src, found.dst, found.sport) == ("192.0.2.1", "198.51.100.2", 0)


ETHERTYPES = st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00\x00\x01\x08\x00", b"\x81\x00"])


@PROPERTY
@given(st.one_of(st.binary(max_size=200), st.builds(lambda t, b: bytes(12) + t + b, ETHERTYPES, st.binary())))
def test_no_bytes_make_it_fail(data: bytes) -> None:
    assert isinstance(decode(data), Headers | None)
    assert isinstance(decode_arp(data), Arp | None)


WHOLE = [
    frame(ETHERNET + IPV4_UDP + UDP),
    frame(ETHERNET + ARP.format(1)),
    ipv6("2c", "0014", f"11 00 0001 deadbeef {UDP}"),
    ipv6("3a", "0018", "87 00 0000 00000000 20010db8000000000000000000000099"),
]


@pytest.mark.parametrize("whole", WHOLE, ids=["udp", "arp", "fragment", "nd"])
def test_no_cut_makes_it_fail(whole: bytes) -> None:
    for length in range(len(whole)):
        decode(whole[:length])
        decode_arp(whole[:length])
