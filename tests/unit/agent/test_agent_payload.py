"""Of a packet's payload nothing but the keyed hash goes on: not in an event, not in its bytes, not in an error."""

from __future__ import annotations

import struct

import msgspec
import pyarrow as pa
import pytest
from payload import MARKER, found_in

from vtrace.agent.logger import RecordLogger
from vtrace.collect.blobs import encode
from vtrace.collect.frames import decompress
from vtrace.color.registry import Role
from vtrace.log.packet import decode
from vtrace.model.openflow import Cookie, PacketIn, TableId
from vtrace.model.plan import Hook
from vtrace.model.record import LogRecord
from vtrace.model.record_schema import to_table

LONG = MARKER * 8
MACS = bytes.fromhex("0a0000000001 0a0000000002")


def ipv4(proto: int, upper: bytes, frag: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBHII", 0x45, 12, 20 + len(upper), 7, frag, 64, proto, 0, 0x0A000001, 0x0A000002)
    return MACS + b"\x08\x00" + head + upper


def ipv6(proto: int, upper: bytes) -> bytes:
    return MACS + b"\x86\xdd" + struct.pack("!IHBB", 0x60C00000, len(upper), proto, 64) + bytes(32) + upper


UDP = struct.pack("!HHHH", 5, 53, 8 + len(LONG), 0)
TCP = struct.pack("!HHIIBBHHH", 5, 80, 1, 2, 0x50, 0x18, 512, 0, 0)
FRAMES = {
    "udp": ipv4(17, UDP + LONG),
    "tcp": ipv4(6, TCP + LONG),
    "echo": ipv4(1, bytes([8, 0, 0, 0, 0, 1, 0, 2]) + LONG),
    "icmp error": ipv4(1, bytes([3, 3, 0, 0, 0, 0, 0, 0]) + ipv4(17, UDP + LONG)[14:]),
    "sctp": ipv4(132, struct.pack("!HHII", 5, 6, 7, 8) + LONG),
    "esp": ipv4(50, LONG),
    "a protocol of its own": ipv4(253, LONG),
    "first fragment": ipv4(17, UDP + LONG, 0x2000),
    "later fragment": ipv4(17, LONG, 5),
    "udp over ipv6": ipv6(17, UDP + LONG),
    "fragment of ipv6": ipv6(44, struct.pack("!BBHI", 17, 0, 8 << 3, 9) + LONG),
    "arp with padding": MACS + struct.pack("!HHHHHH", 0x0806, 1, 0x800, 0x0604, 1, 0) + bytes(18) + LONG,
    "no ip": MACS + b"\x12\x34" + LONG,
    "cut in the header": ipv4(17, UDP)[:20] + LONG,
}
ROLES = {
    Role.COLOR: Hook(role=Role.COLOR, point=0, datapath=1, in_key=1, pair=0, color=3, epoch=1, original_dscp=0),
    Role.MATCH: Hook(role=Role.MATCH, point=4, datapath=1, color=3, epoch=1, original_dscp=0),
    Role.PROBE: Hook(role=Role.PROBE, pair=0),
    Role.DOUBT: Hook(role=Role.DOUBT, color=3, epoch=1),
    Role.NEIGHBOR: Hook(role=Role.NEIGHBOR, datapath=1, in_key=1),
}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_no_event_has_any_of_it(frame: bytes, role: Role) -> None:
    assert found_in(frame)
    logger = RecordLogger(region="r", task_id="t", secret=bytes(32), incarnation=1)
    logger.hooks[1, 0] = ROLES[role]
    message = PacketIn(cookie=Cookie(1), table=TableId(0), packet=frame, length_bytes=len(frame), userdata=LONG)
    event = logger.event(message, 1, 2)
    for data in (msgspec.json.encode(event), msgspec.msgpack.encode(event), repr(event).encode()):
        assert found_in(data) == []
    if isinstance(event, LogRecord):
        blob = pa.py_buffer(encode(to_table([event])))
        assert found_in(bytes(decompress(blob, most=1 << 20))) == []


def test_what_would_be_found() -> None:
    """A search that finds nothing anywhere would hold nothing."""
    headers = decode(FRAMES["udp"])
    assert headers is not None
    assert found_in(headers.invariant)
    assert found_in(repr(headers).encode())
    assert found_in(msgspec.json.encode(headers.invariant))
