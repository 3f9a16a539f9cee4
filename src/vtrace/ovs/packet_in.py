"""Decodes NXT_PACKET_IN2 (nicira-ext.h, "NXT_PACKET_IN2"): one pass, no copies but the packet's.

The body is a list of properties (16-bit type, 16-bit length without padding, padded to 8 bytes). The metadata
property is a list of OXM fields (meta-flow.h names them); fields we have no use for are skipped.
"""

from __future__ import annotations

import struct
from socket import AF_INET, AF_INET6, inet_ntop

from vtrace.errors import ProtocolError
from vtrace.model.openflow import Cookie, PacketIn, TableId

# ofp_packet_in_props (nx_packet_in2_prop_type)
NXPINT_PACKET = 0
NXPINT_FULL_LEN = 1
NXPINT_TABLE_ID = 3
NXPINT_COOKIE = 4
NXPINT_REASON = 5
NXPINT_METADATA = 6
NXPINT_USERDATA = 7

_PROPERTY = struct.Struct("!HH")
_OXM = struct.Struct("!I")

# (class << 7 | field) of an OXM header, that is header >> 9.
_IN_PORT = 0x8000 << 7 | 0
_IN_PORT_NXM = 0x0000 << 7 | 0
_METADATA = 0x8000 << 7 | 2
_TUNNEL_ID = 0x8000 << 7 | 38
_TUNNEL_ID_NXM = 0x0001 << 7 | 16
_TUN_IPV4_SRC = 0x0001 << 7 | 31
_TUN_IPV4_DST = 0x0001 << 7 | 32
_TUN_IPV6_SRC = 0x0001 << 7 | 109
_TUN_IPV6_DST = 0x0001 << 7 | 110
_PKT_MARK = 0x0001 << 7 | 33
_CT_STATE = 0x0001 << 7 | 105
_CT_ZONE = 0x0001 << 7 | 106
_CT_MARK = 0x0001 << 7 | 107
_REG0 = 0x0001 << 7 | 0
_REG15 = _REG0 + 15
_XREG0 = 0x8001 << 7 | 0
_XXREG0 = 0x0001 << 7 | 111

# Name in PacketIn and length of the fields that are plain integers.
_INTEGERS: dict[int, tuple[str, int]] = {
    _IN_PORT: ("in_port", 4),
    _IN_PORT_NXM: ("in_port", 2),
    _METADATA: ("metadata", 8),
    _TUNNEL_ID: ("tunnel_id", 8),
    _TUNNEL_ID_NXM: ("tunnel_id", 8),
    _PKT_MARK: ("pkt_mark", 4),
    _CT_STATE: ("ct_state", 4),
    _CT_ZONE: ("ct_zone", 2),
    _CT_MARK: ("ct_mark", 4),
}
_ADDRESSES: dict[int, tuple[str, int]] = {
    _TUN_IPV4_SRC: ("tunnel_src", 4),
    _TUN_IPV4_DST: ("tunnel_dst", 4),
    _TUN_IPV6_SRC: ("tunnel_src", 16),
    _TUN_IPV6_DST: ("tunnel_dst", 16),
}
# First register and number of 32-bit registers of a wide one (OXM_OF_PKT_REGn, NXM_NX_XXREGn).
_WIDE: dict[int, tuple[int, int]] = {
    **{_XREG0 + n: (2 * n, 2) for n in range(8)},
    **{_XXREG0 + n: (4 * n, 4) for n in range(4)},
}


def decode_packet_in(body: bytes, offset: int = 8, *, most_bytes: int = 0xFFFF) -> PacketIn:
    """Decodes the properties of an NXT_PACKET_IN2.

    Args:
        body: the message after its OpenFlow header.
        offset: where the properties begin (8: after vendor and subtype).
        most_bytes: to keep of the packet, and of the userdata; `length_bytes` is what it was.

    Raises:
        ProtocolError: a malformed message, or one without a packet.
    """
    packet: bytes | None = None
    userdata = b""
    full_length = sent = table = cookie = 0
    fields: dict[str, int | str] = {}
    registers: dict[int, int] = {}
    end = len(body)
    while offset < end:
        if end - offset < 4:
            raise _malformed("a property is cut short")
        kind, length = _PROPERTY.unpack_from(body, offset)
        stop = offset + length
        if length < 4 or stop > end:
            raise _malformed(f"property {kind} has length {length}")
        if kind == NXPINT_PACKET:
            packet = body[offset + 4 : min(stop, offset + 4 + most_bytes)]
            sent = length - 4
        elif kind == NXPINT_METADATA:
            _decode_oxm(body, offset + 4, stop, fields, registers)
        elif kind == NXPINT_COOKIE:
            # 64-bit properties are aligned: 4 bytes of padding after the header (ofp-prop.h).
            cookie = _integer(body, offset + 8, stop, 8)
        elif kind == NXPINT_TABLE_ID:
            table = _integer(body, offset + 4, stop, 1)
        elif kind == NXPINT_USERDATA:
            userdata = body[offset + 4 : min(stop, offset + 4 + most_bytes)]
        elif kind == NXPINT_FULL_LEN:
            full_length = _integer(body, offset + 4, stop, 4)
        offset = stop + (-length & 7)
    if packet is None:
        raise _malformed("it holds no packet")
    return PacketIn(
        cookie=Cookie(cookie),
        table=TableId(table),
        packet=packet,
        length_bytes=full_length or sent,
        userdata=userdata,
        registers=registers,
        **fields,  # type: ignore[arg-type]
    )


def _decode_oxm(body: bytes, position: int, stop: int, fields: dict[str, int | str], registers: dict[int, int]) -> None:
    """Reads OXM fields into `fields` and `registers`. Masks (has-mask bit) are left aside."""
    while position < stop:
        if stop - position < 4:
            raise _malformed("an OXM header is cut short")
        (header,) = _OXM.unpack_from(body, position)
        position += 4
        length = header & 0xFF
        if position + length > stop:
            raise _malformed(f"OXM field 0x{header:08x} is cut short")
        field = header >> 9
        width = length >> 1 if header & 0x100 else length
        if _REG0 <= field <= _REG15:
            if width != 4:
                raise _bad_width(header)
            registers[field - _REG0] = int.from_bytes(body[position : position + 4], "big")
        elif (known := _INTEGERS.get(field)) is not None:
            if width != known[1]:
                raise _bad_width(header)
            fields[known[0]] = int.from_bytes(body[position : position + width], "big")
        elif field in _ADDRESSES:
            name, expected = _ADDRESSES[field]
            if width != expected:
                raise _bad_width(header)
            fields[name] = _address(body[position : position + width])
        elif field in _WIDE:
            first, count = _WIDE[field]
            if width != 4 * count:
                raise _bad_width(header)
            for index, value in enumerate(struct.unpack_from(f"!{count}I", body, position)):
                registers[first + index] = value
        position += length


def _address(raw: bytes) -> str:
    return inet_ntop(AF_INET if len(raw) == 4 else AF_INET6, raw)


def _integer(body: bytes, start: int, stop: int, width: int) -> int:
    if stop - start < width:
        raise _malformed(f"a property is too short for its {width} bytes")
    return int.from_bytes(body[start : start + width], "big")


def _malformed(why: str) -> ProtocolError:
    return ProtocolError("the switch sent a malformed NXT_PACKET_IN2", why=why)


def _bad_width(header: int) -> ProtocolError:
    return _malformed(f"OXM field 0x{header:08x} has a width of its own")
