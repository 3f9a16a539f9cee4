"""OpenFlow 1.3 messages as bytes: framing, what we send, and what we read besides packet-ins.

Sources: OpenFlow 1.3.5 (message names are kept), nicira-ext.h and openflow-1.3.h of Open vSwitch.
All integers are big-endian. Decoders raise ProtocolError for anything they can't read, and nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from vtrace.errors import ProtocolError

VERSION = 0x04
HEADER_BYTES = 8
MESSAGE_MAX_BYTES = 0xFFFF

# ofp_type (OpenFlow 1.3.5, 7.1)
OFPT_HELLO = 0
OFPT_ERROR = 1
OFPT_ECHO_REQUEST = 2
OFPT_ECHO_REPLY = 3
OFPT_EXPERIMENTER = 4
OFPT_GET_CONFIG_REQUEST = 7
OFPT_GET_CONFIG_REPLY = 8
OFPT_SET_CONFIG = 9
OFPT_FLOW_MOD = 14
OFPT_MULTIPART_REQUEST = 18
OFPT_MULTIPART_REPLY = 19
OFPT_BARRIER_REQUEST = 20
OFPT_BARRIER_REPLY = 21

NX_VENDOR_ID = 0x00002320
ONF_VENDOR_ID = 0x4F4E4600

NXT_SET_PACKET_IN_FORMAT = 16
NXT_SET_CONTROLLER_ID = 20
NXT_PACKET_IN2 = 30
NXPIF_NXT_PACKET_IN2 = 2

ONFT_FLOW_MONITOR_PAUSED = 1871
ONFT_FLOW_MONITOR_RESUMED = 1872
ONFST_FLOW_MONITOR = 1870
OFPMP_AGGREGATE = 2
OFPMP_METER_CONFIG = 10
OFPMP_EXPERIMENTER = 0xFFFF

# nx_flow_monitor_flags, nx_flow_update_event
FMF_ADD = 1 << 1
FMF_DELETE = 1 << 2
FMF_MODIFY = 1 << 3
FMF_ACTIONS = 1 << 4
FME_ADDED = 0
FME_DELETED = 1
FME_MODIFIED = 2
FME_ABBREV = 3

OFPMF_PKTPS = 1 << 1
OFPMBT_DROP = 1
OFPFC_DELETE = 3
OFPTT_ALL = 0xFF
OFPP_CONTROLLER = 0xFFFF_FFFD
OFPP_ANY = 0xFFFF_FFFF
OFPG_ANY = 0xFFFF_FFFF
OFP_NO_BUFFER = 0xFFFF_FFFF

# NXM_NX_REG10 with a mask: class 1, field 10, has-mask, 8 bytes.
_NXM_NX_REG10_W = (1 << 16) | (10 << 9) | (1 << 8) | 8

_HEADER = struct.Struct("!BBHI")
_EXPERIMENTER = struct.Struct("!II")
_FLOW_MOD = struct.Struct("!QQBBHHHIIIH2x")
_MONITOR = struct.Struct("!IHHIB3x")
_UPDATE_HEADER = struct.Struct("!HH")
_UPDATE_FULL = struct.Struct("!HHHHHHHBxQ")


class Message(NamedTuple):
    """One OpenFlow message; `body` is what follows the 8-byte header."""

    version: int
    kind: int
    xid: int
    body: bytes


class FlowUpdate(NamedTuple):
    """One full update of a flow monitor (nx_flow_update_full); `body`: its match and, where asked for, actions."""

    event: int
    reason: int
    table: int
    priority: int
    cookie: int
    hard_timeout_s: int = 0
    body: bytes = b""


def encode(kind: int, xid: int, body: bytes = b"", version: int = VERSION) -> bytes:
    """A message with its header."""
    return _HEADER.pack(version, kind, HEADER_BYTES + len(body), xid) + body


def hello(xid: int) -> bytes:
    """OFPT_HELLO with a version bitmap of 1.3 alone (OFPHET_VERSIONBITMAP)."""
    return encode(OFPT_HELLO, xid, struct.pack("!HHI", 1, 8, 1 << VERSION))


def get_config(xid: int) -> bytes:
    return encode(OFPT_GET_CONFIG_REQUEST, xid)


def config_flags(body: bytes) -> int:
    """The flags of an OFPT_GET_CONFIG_REPLY (ofp_config_flags): what the bridge does with fragments."""
    if len(body) < 4:
        raise ProtocolError("an OFPT_GET_CONFIG_REPLY is too short", why=f"{len(body)} bytes")
    flags: int = struct.unpack_from("!H", body)[0]
    return flags


def set_config(xid: int, miss_send_len: int, flags: int) -> bytes:
    """OFPT_SET_CONFIG; a management connection gets packet-ins only with a `miss_send_len` above 0.

    The flags are the whole bridge's: what fragments meet is to stay as it is.
    """
    return encode(OFPT_SET_CONFIG, xid, struct.pack("!HH", flags, miss_send_len))


def set_packet_in_format(xid: int, packet_in_format: int = NXPIF_NXT_PACKET_IN2) -> bytes:
    return encode(
        OFPT_EXPERIMENTER,
        xid,
        _EXPERIMENTER.pack(NX_VENDOR_ID, NXT_SET_PACKET_IN_FORMAT) + struct.pack("!I", packet_in_format),
    )


def set_controller_id(xid: int, controller_id: int) -> bytes:
    return encode(
        OFPT_EXPERIMENTER,
        xid,
        _EXPERIMENTER.pack(NX_VENDOR_ID, NXT_SET_CONTROLLER_ID) + struct.pack("!6xH", controller_id),
    )


def barrier_request(xid: int) -> bytes:
    return encode(OFPT_BARRIER_REQUEST, xid)


def echo_reply(request: Message) -> bytes:
    return encode(OFPT_ECHO_REPLY, request.xid, request.body)


def delete_by_cookie(xid: int, cookie: int, mask: int) -> bytes:
    """OFPT_FLOW_MOD, OFPFC_DELETE: every table, port and group, any match, `cookie` under `mask`."""
    fixed = _FLOW_MOD.pack(cookie, mask, OFPTT_ALL, OFPFC_DELETE, 0, 0, 0, OFP_NO_BUFFER, OFPP_ANY, OFPG_ANY, 0)
    return encode(OFPT_FLOW_MOD, xid, fixed + oxm_match(b""))


def oxm_match(oxm_fields: bytes) -> bytes:
    """ofp_match of type OFPMT_OXM, padded to a multiple of 8."""
    length = 4 + len(oxm_fields)
    return struct.pack("!HH", 1, length) + oxm_fields + bytes(-length % 8)


def reg10_field(value: int, mask: int) -> bytes:
    """A match on some bits of reg10."""
    return struct.pack("!III", _NXM_NX_REG10_W, value & mask, mask)


def monitor_request(
    xid: int, monitor_id: int, table: int, out_port: int, oxm_fields: bytes = b"", flags: int = FMF_DELETE | FMF_MODIFY
) -> bytes:
    """ONFST_FLOW_MONITOR: tell of deleted and modified entries, or what the flags say, own changes abbreviated."""
    fixed = _MONITOR.pack(monitor_id, flags, 4 + len(oxm_fields), out_port, table)
    multipart = struct.pack("!HH4xII", OFPMP_EXPERIMENTER, 0, ONF_VENDOR_ID, ONFST_FLOW_MONITOR)
    return encode(OFPT_MULTIPART_REQUEST, xid, multipart + fixed + oxm_match(oxm_fields))


def register_marks(register: int) -> tuple[bytes, ...]:
    """The OXM headers by which a match or an action names a register, alone or within a wider one (ovs-fields(7))."""
    fields = ((1, register, 4), (0x8001, register // 2, 8), (1, 111 + register // 4, 16))
    return tuple(
        struct.pack("!I", kind << 16 | number << 9 | has_mask << 8 | size * (1 + has_mask))
        for kind, number, size in fields
        for has_mask in (0, 1)
    )


def meter_config_request(xid: int, meter_id: int) -> bytes:
    """OFPMP_METER_CONFIG of one meter; an error answers where there is none."""
    return encode(OFPT_MULTIPART_REQUEST, xid, struct.pack("!HH4xI4x", OFPMP_METER_CONFIG, 0, meter_id))


def meter_configs(body: bytes) -> dict[int, tuple[int, int]]:
    """Meter id to (packets/s, burst) of a reply; rate 0 for a meter that is not one band of packets that drops.

    Raises:
        ProtocolError: a malformed reply.
    """
    found: dict[int, tuple[int, int]] = {}
    position = 8
    while position < len(body):
        if len(body) - position < 8:
            raise ProtocolError("a meter's configuration is cut short", why=f"{len(body) - position} bytes left")
        length, flags, meter_id = struct.unpack_from("!HHI", body, position)
        if length < 8 or position + length > len(body):
            raise ProtocolError("a meter's configuration has a bad length", why=f"length {length}")
        found[meter_id] = (0, 0)
        if length == 24:
            kind, _, rate, burst = struct.unpack_from("!HHII", body, position + 8)
            if kind == OFPMBT_DROP and flags & OFPMF_PKTPS:
                found[meter_id] = (rate, burst)
        position += length
    return found


def aggregate_request(xid: int, cookie: int, mask: int, table: int) -> bytes:
    """OFPMP_AGGREGATE of a table's entries whose cookie equals `cookie` under `mask`."""
    fixed = struct.pack("!HH4xB3xII4xQQ", OFPMP_AGGREGATE, 0, table, OFPP_ANY, OFPG_ANY, cookie, mask)
    return encode(OFPT_MULTIPART_REQUEST, xid, fixed + oxm_match(b""))


def aggregate_count(body: bytes) -> int:
    """The number of entries that an OFPMP_AGGREGATE reply counts.

    Raises:
        ProtocolError: a malformed reply.
    """
    if len(body) < 8 + 24:
        raise ProtocolError("an OFPMP_AGGREGATE reply is too short", why=f"{len(body)} bytes")
    count: int = struct.unpack_from("!QQI", body, 8)[2]
    return count


def split_messages(buffer: bytearray) -> list[Message]:
    """Takes all complete messages off the front of `buffer`.

    Raises:
        ProtocolError: a header with an impossible length.
    """
    messages = []
    position = 0
    end = len(buffer)
    while end - position >= HEADER_BYTES:
        version, kind, length, xid = _HEADER.unpack_from(buffer, position)
        if length < HEADER_BYTES:
            raise ProtocolError("an OpenFlow message is shorter than its header", why=f"length {length}, type {kind}")
        if end - position < length:
            break
        messages.append(Message(version, kind, xid, bytes(buffer[position + HEADER_BYTES : position + length])))
        position += length
    del buffer[:position]
    return messages


def check_hello(message: Message) -> None:
    """Whether the peer speaks OpenFlow 1.3 (OpenFlow 1.3.5, 6.3.1).

    Raises:
        ProtocolError: it does not, or the first message is no OFPT_HELLO.
    """
    if message.kind != OFPT_HELLO:
        raise ProtocolError("the peer did not begin with OFPT_HELLO", why=f"type {message.kind}")
    bitmap = _hello_bitmap(message.body)
    speaks = bitmap & (1 << VERSION) if bitmap is not None else message.version >= VERSION
    if not speaks:
        raise ProtocolError(
            "the bridge does not speak OpenFlow 1.3",
            why=f"it offers version {message.version}",
            next_step="Add OpenFlow13 to the bridge's protocols (ovs-vsctl set bridge … protocols=…)",
        )


def _hello_bitmap(body: bytes) -> int | None:
    """The first word of the version bitmap, None if the hello has none."""
    position = 0
    while position + 4 <= len(body):
        kind, length = struct.unpack_from("!HH", body, position)
        if length < 4 or position + length > len(body):
            raise ProtocolError("OFPT_HELLO has a malformed element", why=f"type {kind}, length {length}")
        if kind == 1 and length >= 8:
            return int.from_bytes(body[position + 4 : position + 8], "big")
        position += (length + 7) & ~7
    return None


def experimenter(body: bytes) -> tuple[int, int]:
    """(vendor, subtype) of an OFPT_EXPERIMENTER body."""
    if len(body) < 8:
        raise ProtocolError("an OFPT_EXPERIMENTER message is too short", why=f"{len(body)} bytes")
    vendor, subtype = _EXPERIMENTER.unpack_from(body)
    return vendor, subtype


def error_text(body: bytes) -> str:
    """OFPT_ERROR as text: type and code as numbers (openflow-1.3.h, ofp_error_type)."""
    if len(body) < 4:
        raise ProtocolError("an OFPT_ERROR message is too short", why=f"{len(body)} bytes")
    kind, code = struct.unpack_from("!HH", body)
    if kind == 0xFFFF and len(body) >= 8:
        vendor = int.from_bytes(body[4:8], "big")
        return f"experimenter error {code} of 0x{vendor:x}"
    return f"error type {kind} code {code}"


def flow_updates(body: bytes) -> Iterator[FlowUpdate]:
    """Full updates in an OFPT_MULTIPART_REPLY body; nothing for other multiparts and for own changes.

    Raises:
        ProtocolError: a malformed reply.
    """
    if len(body) < 16:
        raise ProtocolError("an OFPT_MULTIPART_REPLY is too short", why=f"{len(body)} bytes")
    kind, vendor, subtype = struct.unpack_from("!H6xII", body)
    if (kind, vendor, subtype) != (OFPMP_EXPERIMENTER, ONF_VENDOR_ID, ONFST_FLOW_MONITOR):
        return
    position = 16
    while position < len(body):
        if len(body) - position < _UPDATE_HEADER.size:
            raise ProtocolError("a flow update is cut short", why=f"{len(body) - position} bytes left")
        length, event = _UPDATE_HEADER.unpack_from(body, position)
        if length < 8 or length % 8 or position + length > len(body):
            raise ProtocolError("a flow update has a bad length", why=f"length {length}, event {event}")
        if event in (FME_ADDED, FME_DELETED, FME_MODIFIED):
            if length < _UPDATE_FULL.size:
                raise ProtocolError("a full flow update is too short", why=f"length {length}, event {event}")
            fields = _UPDATE_FULL.unpack_from(body, position)
            yield FlowUpdate(
                event=event,
                reason=fields[2],
                priority=fields[3],
                table=fields[7],
                cookie=fields[8],
                hard_timeout_s=fields[5],
                body=body[position + _UPDATE_FULL.size : position + length],
            )
        elif event != FME_ABBREV:
            raise ProtocolError("a flow update has an unknown event", why=f"event {event}")
        position += length
