"""Golden bytes of what we send, and decoding of what vswitchd sends (nicira-ext.h, openflow-1.3.h)."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtrace.errors import ProtocolError
from vtrace.model.openflow import PacketIn
from vtrace.ovs import openflow13 as of
from vtrace.ovs.packet_in import decode_packet_in


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (of.hello(0x01020304), "04000010 01020304 00010008 00000010"),
        (of.get_config(5), "04070008 00000005"),
        (of.set_config(5, 0xFFFF, 1), "0409000c 00000005 0001ffff"),
        (of.set_controller_id(6, 0x5ABC), "04040018 00000006 00002320 00000014 000000000000 5abc"),
        (of.set_packet_in_format(7), "04040014 00000007 00002320 00000010 00000002"),
        (of.barrier_request(0xFFFFFFFF), "04140008 ffffffff"),
        (
            of.delete_by_cookie(9, 0x5654100100000001, 0xFFFF0FFF00000000),
            "040e0038 00000009 5654100100000001 ffff0fff00000000 ff 03 0000 0000 0000 ffffffff ffffffff ffffffff"
            "0000 0000 0001 0004 00000000",
        ),
        (
            of.monitor_request(10, 0x11223344, 0xFE, of.OFPP_CONTROLLER, of.reg10_field(0xFFFFFFFF, 0x0C000000)),
            "04120038 0000000a ffff 0000 00000000 4f4e4600 0000074e"
            "11223344 000c 0010 fffffffd fe 000000 0001 0010 00011508 0c000000 0c000000",
        ),
        (
            of.monitor_request(11, 2, 0xFF, of.OFPP_ANY, flags=of.FMF_ADD | of.FMF_MODIFY | of.FMF_ACTIONS),
            "04120030 0000000b ffff 0000 00000000 4f4e4600 0000074e"
            "00000002 001a 0004 ffffffff ff 000000 0001 0004 00000000",
        ),
        (of.meter_config_request(12, 0x3FFFF), "04120018 0000000c 000a 0000 00000000 0003ffff 00000000"),
        (
            of.aggregate_request(13, 0x5654000100000000, 0xFFFF0FFF00000000, 65),
            "04120038 0000000d 0002 0000 00000000 41 000000 ffffffff ffffffff 00000000"
            "5654000100000000 ffff0fff00000000 0001 0004 00000000",
        ),
        (of.echo_reply(of.Message(4, 2, 0xA1B2C3D4, b"ping!")), "0403000d a1b2c3d4 70696e6721"),
    ],
)
def test_golden_bytes(message: bytes, expected: str) -> None:
    assert message.hex() == expected.replace(" ", "")


def prop(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("!HH", kind, length) + payload + bytes(-length % 8)


def oxm(klass: int, field: int, value: bytes) -> bytes:
    return struct.pack("!I", klass << 16 | field << 9 | len(value)) + value


PACKET = bytes(range(60))
METADATA = b"".join(
    [
        oxm(0x8000, 0, bytes.fromhex("01020304")),  # in_port
        oxm(0x8000, 2, bytes.fromhex("1122334455667788")),  # metadata
        oxm(0x8000, 38, bytes.fromhex("0000000000abcdef")),  # tunnel_id
        oxm(1, 31, bytes([192, 0, 2, 1])),
        oxm(1, 32, bytes([192, 0, 2, 2])),
        oxm(1, 33, bytes.fromhex("deadbeef")),  # pkt_mark
        oxm(1, 105, bytes.fromhex("00000021")),
        oxm(1, 106, bytes.fromhex("0b0c")),
        oxm(1, 107, bytes.fromhex("01020305")),
        oxm(1, 108, bytes(16)),  # ct_label: not ours to keep
        *(oxm(1, n, struct.pack("!I", 0x100 + n)) for n in range(16)),
        oxm(0xFFFF, 7, bytes(12)),  # an experimenter's field
        oxm(1, 40, bytes(4)),  # tun_metadata0
    ]
)
BODY = struct.pack("!II", of.NX_VENDOR_ID, of.NXT_PACKET_IN2) + b"".join(
    [
        prop(0, PACKET),
        prop(1, struct.pack("!I", 1500)),
        prop(3, b"\x41"),
        prop(4, bytes(4) + struct.pack("!Q", 0x5654_2ABC_FC00_0001)),
        prop(5, b"\x01"),
        prop(6, METADATA),
        prop(7, b"\xde\xad\xbe"),
        prop(8, b"private"),
    ]
)
DECODED = PacketIn(
    cookie=0x5654_2ABC_FC00_0001,  # type: ignore[arg-type]
    table=0x41,  # type: ignore[arg-type]
    packet=PACKET,
    length_bytes=1500,
    userdata=b"\xde\xad\xbe",
    in_port=0x01020304,  # type: ignore[arg-type]
    metadata=0x1122334455667788,
    registers={n: 0x100 + n for n in range(16)},
    tunnel_id=0xABCDEF,
    tunnel_src="192.0.2.1",
    tunnel_dst="192.0.2.2",
    ct_state=0x21,
    ct_zone=0x0B0C,
    ct_mark=0x01020305,
    pkt_mark=0xDEADBEEF,
)


def test_packet_in_with_every_field() -> None:
    assert decode_packet_in(BODY) == DECODED


def test_wide_registers_and_ipv6_tunnels() -> None:
    fields = (
        oxm(0x8001, 5, bytes.fromhex("0000000a0000000b"))  # OXM_OF_PKT_REG5: reg10, reg11
        + oxm(1, 112, struct.pack("!4I", 4, 5, 6, 7))  # NXM_NX_XXREG1: reg4 to reg7
        + oxm(1, 109, bytes.fromhex("20010db8" + "0" * 23 + "1"))
        + oxm(1, 110, bytes.fromhex("20010db8" + "0" * 23 + "2"))
        + oxm(0, 0, b"\x00\x0c")  # NXM_OF_IN_PORT
        + struct.pack("!III", 1 << 16 | 105 << 9 | 0x100 | 8, 0x20, 0x21)  # ct_state with a mask
    )
    body = struct.pack("!II", of.NX_VENDOR_ID, of.NXT_PACKET_IN2) + prop(6, fields) + prop(0, b"x")
    got = decode_packet_in(body)
    assert got.registers == {10: 10, 11: 11, 4: 4, 5: 5, 6: 6, 7: 7}
    assert (got.tunnel_src, got.tunnel_dst) == ("2001:db8::1", "2001:db8::2")
    assert (got.in_port, got.ct_state, got.length_bytes) == (12, 0x20, 1)


@given(st.binary(max_size=200))
def test_garbage_packet_ins_raise_protocol_errors_only(body: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert isinstance(decode_packet_in(body).packet, bytes)


@given(st.integers(0, len(BODY) - 1), st.integers(0, 255), st.integers(0, len(BODY)))
def test_a_damaged_packet_in_is_decoded_or_refused(position: int, value: int, cut: int) -> None:
    damaged = bytearray(BODY)
    damaged[position] = value
    for body in (bytes(damaged), BODY[:cut]):
        with contextlib.suppress(ProtocolError):
            decode_packet_in(body)


def update(event: int, reason: int, cookie: int, match: bytes = b"\x00\x01\x00\x04\x00\x00\x00\x00") -> bytes:
    return struct.pack("!HHHHHHHBxQ", 24 + len(match), event, reason, 65535, 7, 60, 4, 65, cookie) + match


MONITOR = struct.pack("!HH4xII", 0xFFFF, 0, of.ONF_VENDOR_ID, 1870)


def test_flow_updates_are_read_and_own_ones_left_out() -> None:
    body = MONITOR + update(1, 2, 0x5654_1001_0000_0001) + struct.pack("!HHI", 8, 3, 99) + update(2, 0, 7)
    assert list(of.flow_updates(body)) == [
        of.FlowUpdate(
            event=1,
            reason=2,
            table=65,
            priority=65535,
            cookie=0x5654_1001_0000_0001,
            hard_timeout_s=60,
            body=bytes.fromhex("0001000400000000"),
        ),
        of.FlowUpdate(
            event=2,
            reason=0,
            table=65,
            priority=65535,
            cookie=7,
            hard_timeout_s=60,
            body=bytes.fromhex("0001000400000000"),
        ),
    ]


def test_the_headers_of_a_register() -> None:
    """ovs-fields(7): reg10 is NXM class 1, field 10; the upper half of xreg5, the third quarter of xxreg2."""
    headers = {mark.hex() for mark in of.register_marks(10)}
    assert headers == {"00011404", "00011508", "80010a08", "80010b10", "0001e210", "0001e320"}


def test_replies_about_meters() -> None:
    """ofp_meter_config (OpenFlow 1.3.5, 7.3.5.11): packets/s and one band that drops, or rate 0."""
    header = bytes.fromhex("000a0000 00000000")
    ours = bytes.fromhex("0018 000e 0003ffff 0001 0010 000003f1 00000019 00000000")
    in_kbps = bytes.fromhex("0018 000d 00000007 0001 0010 000003f1 00000019 00000000")
    remarking = bytes.fromhex("0018 0002 00000008 0002 0010 000003f1 00000019 01000000")
    bare = bytes.fromhex("0008 0002 00000009")
    assert of.meter_configs(header + ours + in_kbps + remarking + bare) == {
        0x3FFFF: (1009, 25),
        7: (0, 0),
        8: (0, 0),
        9: (0, 0),
    }
    assert of.meter_configs(header) == {}


def test_replies_about_the_number_of_entries() -> None:
    """ofp_aggregate_stats_reply (OpenFlow 1.3.5, 7.3.5.3)."""
    body = bytes.fromhex("00020000 00000000 1111111111111111 2222222222222222 00000041 00000000")
    assert of.aggregate_count(body) == 0x41


@given(st.binary(max_size=80))
def test_garbage_replies_raise_protocol_errors_only(data: bytes) -> None:
    for body in (data, bytes.fromhex("000a0000 00000000") + data):
        with contextlib.suppress(ProtocolError):
            of.meter_configs(body)
        with contextlib.suppress(ProtocolError):
            of.aggregate_count(body)


@given(st.binary(max_size=80))
def test_garbage_updates_raise_protocol_errors_only(tail: bytes) -> None:
    for body in (tail, MONITOR + tail):
        with contextlib.suppress(ProtocolError):
            list(of.flow_updates(body))


@given(st.binary(max_size=80))
def test_garbage_messages_raise_protocol_errors_only(data: bytes) -> None:
    for read in (of.experimenter, of.error_text, lambda b: of.check_hello(of.Message(4, 0, 1, b))):
        with contextlib.suppress(ProtocolError):
            read(data)
    buffer = bytearray(data)
    try:
        messages = of.split_messages(buffer)
        assert sum(8 + len(m.body) for m in messages) + len(buffer) == len(data)
    except ProtocolError:
        pass


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=40))), st.integers(1, 9))
def test_messages_survive_any_cut(messages: list[tuple[int, int, bytes]], step: int) -> None:
    stream = b"".join(of.encode(*message) for message in messages)
    buffer = bytearray()
    got: list[of.Message] = []
    for start in range(0, len(stream), step):
        buffer += stream[start : start + step]
        got += of.split_messages(buffer)
    assert [(m.kind, m.xid, m.body) for m in got] == messages
    assert not buffer


@pytest.mark.parametrize(
    ("version", "body", "speaks"),
    [
        (4, b"", True),
        (6, struct.pack("!HHI", 1, 8, 1 << 4 | 1 << 6), True),
        (6, struct.pack("!HHI", 1, 8, 1 << 6), False),
        (1, b"", False),
    ],
)
def test_hello_negotiation(version: int, body: bytes, speaks: bool) -> None:
    message = of.Message(version, of.OFPT_HELLO, 1, body)
    if speaks:
        of.check_hello(message)
    else:
        with pytest.raises(ProtocolError, match=r"OpenFlow 1\.3"):
            of.check_hello(message)
