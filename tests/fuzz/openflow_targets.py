"""OpenFlow as a switch sends it, and packets as tenants send them."""

from __future__ import annotations

import asyncio
import struct

from fuzzing import Target, check, or_refused

from vtrace.agent.logger import RecordLogger
from vtrace.color.registry import Role
from vtrace.log.fragments import Fragments
from vtrace.log.packet import COPY_BYTES, Arp, Headers, decode, decode_arp, packet_key
from vtrace.model.openflow import PacketIn
from vtrace.model.plan import Hook
from vtrace.model.record_schema import to_table
from vtrace.ovs import openflow13 as of
from vtrace.ovs.packet_in import decode_packet_in
from vtrace.ovs.session import QUEUE_MAX_PACKET_INS, Session

OUR_COOKIE = 0x5654_1001_0000_0001


def _property(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("!HH", kind, length) + payload + bytes(-length % 8)


def _oxm(klass: int, field: int, value: bytes) -> bytes:
    return struct.pack("!I", klass << 16 | field << 9 | len(value)) + value


def _ipv4(proto: int, upper: bytes, *, frag: int = 0, options: bytes = b"") -> bytes:
    ihl = 5 + len(options) // 4
    total = 4 * ihl + len(upper)
    fixed = struct.pack("!BBHHHBBH4s4s", 0x40 | ihl, 12, total, 7, frag, 64, proto, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    return fixed + options + upper


def _ipv6(next_header: int, rest: bytes) -> bytes:
    return struct.pack("!IHBB", 0x60C00000, len(rest), next_header, 64) + bytes(15) + b"\1" + bytes(15) + b"\2" + rest


_TCP = struct.pack("!HHIIBBHHH", 1234, 80, 1, 2, 0x50, 0x18, 512, 0, 0) + b"GET / HTTP/1.1\r\n"
_UDP = struct.pack("!HHHH", 53, 53, 24, 0) + bytes(16)
_ICMP_ERROR = bytes([3, 4, 0, 0, 0, 0, 5, 0]) + _ipv4(17, _UDP)
_EXTENSIONS = (
    bytes([43, 0, *bytes(6)])
    + bytes([60, 0, *bytes(6)])
    + bytes([44, 0, *bytes(6)])
    + struct.pack("!BBHI", 17, 0, 1, 0xDEAD)
)
_MACS = bytes.fromhex("0a0000000001 0a0000000002")
_TAGS = struct.pack("!HHHH", 0x88A8, 5, 0x8100, 6)
FRAMES = (
    _MACS + b"\x08\x00" + _ipv4(6, _TCP),
    _MACS + _TAGS + b"\x08\x00" + _ipv4(17, _UDP, frag=0x2000),
    _MACS + b"\x08\x00" + _ipv4(17, _UDP, frag=5, options=bytes(8)),
    _MACS + b"\x08\x00" + _ipv4(1, _ICMP_ERROR),
    _MACS + b"\x08\x00" + _ipv4(132, bytes(40)),
    _MACS + b"\x86\xdd" + _ipv6(0, _EXTENSIONS + _UDP),
    _MACS + b"\x86\xdd" + _ipv6(58, bytes([135, 0, *bytes(6)]) + bytes(16)),
    _MACS + b"\x86\xdd" + _ipv6(58, bytes([2, 0, *bytes(6)]) + _ipv6(6, _TCP)),
    _MACS + b"\x08\x06" + struct.pack("!HHHH", 1, 0x800, 0x0604, 1) + bytes(20),
)
_METADATA = b"".join(
    (
        _oxm(0x8000, 0, b"\0\0\0\5"),
        _oxm(0x8000, 2, bytes(7) + b"\1"),
        _oxm(0x8000, 38, bytes(7) + b"\1"),
        _oxm(1, 31, b"\xc0\0\2\1"),
        _oxm(1, 109, bytes(16)),
        _oxm(1, 105, b"\0\0\0\x21"),
        _oxm(1, 14, b"\0\0\0\2"),
        _oxm(0x8001, 7, bytes(8)),
        _oxm(1, 111, bytes(16)),
        struct.pack("!I", 1 << 16 | 15 << 9 | 1 << 8 | 8) + bytes(8),
    )
)
_PACKET_IN = struct.pack("!II", of.NX_VENDOR_ID, of.NXT_PACKET_IN2) + b"".join(
    (
        _property(0, FRAMES[0]),
        _property(1, struct.pack("!I", 1500)),
        _property(3, b"\x41"),
        _property(4, bytes(4) + struct.pack("!Q", OUR_COOKIE)),
        _property(6, _METADATA),
        _property(7, b"\1\2\3"),
    )
)
_UPDATE = struct.pack("!HHHHHHHBxQ", 32, of.FME_DELETED, 2, 65535, 0, 0, 8, 65, OUR_COOKIE) + struct.pack("!HH4x", 1, 4)
_UPDATES = struct.pack("!HH4xII", of.OFPMP_EXPERIMENTER, 0, of.ONF_VENDOR_ID, of.ONFST_FLOW_MONITOR) + _UPDATE
_METERS = struct.pack("!HH4x", 10, 0) + struct.pack("!HHI", 24, 5, 7) + struct.pack("!HHII4x", 1, 16, 100, 50)[:16]
_COUNT = struct.pack("!HH4xQQI4x", 2, 0, 5, 500, 3)
_PAUSED = struct.pack("!II", of.ONF_VENDOR_ID, of.ONFT_FLOW_MONITOR_PAUSED)
_SWITCH = b"".join(
    (
        of.hello(1),
        of.encode(of.OFPT_GET_CONFIG_REPLY, 2, struct.pack("!HH", 1, 128)),
        of.encode(of.OFPT_BARRIER_REPLY, 3),
        of.encode(of.OFPT_EXPERIMENTER, 0, _PACKET_IN),
        of.encode(of.OFPT_MULTIPART_REPLY, 0, _UPDATES),
        of.encode(of.OFPT_EXPERIMENTER, 0, _PAUSED),
        of.encode(of.OFPT_MULTIPART_REPLY, 3, _COUNT),
        of.encode(of.OFPT_ECHO_REQUEST, 9, b"ping"),
        of.encode(of.OFPT_ERROR, 3, struct.pack("!HH", 5, 1)),
    )
)


class _Wire(asyncio.Transport):
    """Takes what is sent, and forgets it."""

    def write(self, data: object) -> None:
        pass

    def abort(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


def channel(data: bytes) -> None:
    """The bytes of a connection, in pieces whose lengths the first byte says."""
    session = Session("/fuzz.mgmt")
    session.connection_made(_Wire())
    session.watched = ((0x5654 << 48, 0xFFFF << 48),)
    session.marks = of.register_marks(10)
    session.replies[3] = []
    size = max(1, data[0] if data else 1)
    for begin in range(1, len(data), size):
        session.data_received(data[begin : begin + size])
    assert len(session.queue) <= QUEUE_MAX_PACKET_INS
    assert session.failure is None or isinstance(session.failure.as_dict(), dict)
    for event in session.take():
        check(event)


def packet_in(data: bytes) -> PacketIn:
    """One NXT_PACKET_IN2, after its OpenFlow header."""
    found = decode_packet_in(data)
    assert len(found.packet) <= len(data)
    assert all(0 <= number < 16 and 0 <= value < 1 << 32 for number, value in found.registers.items())
    return found


def multipart(data: bytes) -> list[of.FlowUpdate]:
    """Everything else that is decoded from a message's body, its kind by the first byte."""
    kind, body = data[0] % 7 if data else 0, data[1:]
    if kind == 0:
        return list(of.flow_updates(body))
    if kind == 1:
        of.check_hello(of.Message(4, of.OFPT_HELLO, 1, body))
    elif kind == 2:
        of.error_text(body)
    elif kind == 3:
        of.experimenter(body)
    elif kind == 4:
        of.config_flags(body)
    elif kind == 5:
        assert all(rate >= 0 and burst >= 0 for rate, burst in of.meter_configs(body).values())
    else:
        assert of.aggregate_count(body) >= 0
    return []


def packet(data: bytes) -> None:
    """A frame as a tenant sends it, whole and cut."""
    for frame in (data, data[:COPY_BYTES]):
        headers, arp = decode(frame), decode_arp(frame)
        check([found for found in (headers, arp) if found is not None])
        if headers is not None:
            _holds(headers)
            assert -(1 << 63) <= packet_key(headers, b"secret") < 1 << 63
            Fragments().is_wanted(headers, [(17, 53, None)])
        assert arp is None or _arp_holds(arp)


def _holds(headers: Headers) -> None:
    """What `Headers` and the record's columns promise."""
    assert 0 <= headers.sport <= 0xFFFF
    assert 0 <= headers.dport <= 0xFFFF
    assert 0 <= headers.ttl <= 0xFF
    assert 0 <= headers.dscp < 64
    assert 0 <= headers.ecn < 4
    assert 0 <= headers.ip_id < 1 << 32
    assert headers.fragment in (0, 1, 2)
    assert -1 <= headers.vlan < 4096
    assert 0 <= headers.length_bytes < 1 << 32
    # The longest: what is quoted of a UDP datagram in an ICMP error. Payload is at most the documented prefix.
    assert len(headers.invariant) <= 48


def _arp_holds(arp: Arp) -> bool:
    return arp.operation >= 0 and bool(arp.sender_ip and arp.target_ip)


def logged(data: bytes) -> None:
    """A packet-in that names an entry of ours: what becomes of it fits the columns of a record."""
    logger = RecordLogger(region="r", task_id="t", secret=bytes(32), incarnation=1)
    for index, role in enumerate((Role.COLOR, Role.NEIGHBOR, Role.PROBE, Role.DOUBT)):
        logger.hooks[OUR_COOKIE + index, 0] = Hook(
            role=role, point=0 if role == Role.COLOR else -1, color=3, epoch=1, original_dscp=0
        )
    event = logger.event(decode_packet_in(data), 1, 2)
    if event is not None:
        check(event)
    if logger.written:
        to_table([event])  # type: ignore[list-item]


TARGETS = (
    Target("openflow_channel", channel, (b"\xff" + _SWITCH, b"\x07" + _SWITCH), (of.hello(1), _PAUSED)),
    Target("packet_in", or_refused(packet_in), (_PACKET_IN,), (_METADATA, b"\xff\xff", b"\0\0")),
    Target(
        "openflow_bodies",
        or_refused(multipart),
        (
            b"\0" + _UPDATES,
            b"\1" + of.hello(1)[8:],
            b"\2\xff\xff\0\1" + bytes(8),
            b"\3" + _PACKET_IN,
            b"\4\0\1\0\2",
            b"\5" + _METERS,
            b"\6" + _COUNT,
        ),
        (_UPDATE, b"\xff\xff", b"\0\x08"),
    ),
    Target("packet", packet, FRAMES, (b"\x81\0\0\1", b"\x08\0", b"\x86\xdd", bytes([44, 0]), b"\xff\xff"), 512),
    Target("logged", or_refused(logged), (_PACKET_IN,), (*FRAMES[:2], b"\xff" * 8)),
)
