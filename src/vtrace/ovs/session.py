"""One OpenFlow connection as asyncio sees it: bytes in, events and answers out. `OpenFlowChannel` is its face."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal, TypeAlias

import msgspec

from vtrace.errors import CannotWorkError, ProtocolError, VTraceError
from vtrace.log.packet import COPY_BYTES
from vtrace.model.openflow import Cookie, PacketIn, TableId
from vtrace.ovs import openflow13 as of
from vtrace.ovs.packet_in import decode_packet_in

QUEUE_MAX_PACKET_INS = 65536  # about 30 MB, since of each packet no more is kept than is read
# Of removals and the like, which are never dropped: a bridge that sends so many more than are read is not well.
QUEUE_MAX_EVENTS = 2 * QUEUE_MAX_PACKET_INS
# What waits to be sent is answers to echo requests: a peer that sends those and reads nothing is not well either.
UNSENT_MAX_BYTES = 1 << 20
# Of one multipart reply, each up to 64 KiB: what is asked for has few bytes.
REPLY_MAX_PARTS = 64
RemovalReason: TypeAlias = Literal[
    "idle_timeout", "hard_timeout", "delete", "group_delete", "meter_delete", "eviction", "modified", "unknown"
]
# ofp_flow_removed_reason, OpenFlow 1.4 names.
_REASONS: dict[int, RemovalReason] = {
    0: "idle_timeout",
    1: "hard_timeout",
    2: "delete",
    3: "group_delete",
    4: "meter_delete",
    5: "eviction",
}


class EntriesRemoved(msgspec.Struct, frozen=True, kw_only=True):
    """Entries with a watched cookie went away or were changed, and not by this connection.

    `reason` is "hard_timeout" where they simply ran out; "delete" where somebody deleted them.
    """

    cookies: tuple[Cookie, ...]
    reason: RemovalReason


class OtherEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody added or changed an entry that names a watched register, or has a watched cookie.

    Our own are among them: they come to the bridge by connections of their own.
    """

    table: TableId
    priority: int
    cookie: Cookie
    hard_timeout_s: int


class MonitorPaused(msgspec.Struct, frozen=True, kw_only=True):
    """The bridge could not keep up: removals may be missing until `resumed` (look at the entries then)."""

    resumed: bool = False


Event: TypeAlias = PacketIn | EntriesRemoved | OtherEntry | MonitorPaused


class ConnectionLostError(CannotWorkError):
    """The bridge closed our connection: vswitchd ended, the bridge was deleted, or it reconfigured."""


class Session(asyncio.Protocol):
    """Reads the connection: answers echoes, sorts replies to their waiters and events into the queue."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.queue: deque[Event] = deque()
        self.dropped = 0
        self.failure: VTraceError | None = None
        self.watched: tuple[tuple[int, int], ...] = ()
        # The headers of a register that entries of others must not name.
        self.marks: tuple[bytes, ...] = ()
        # Multipart replies by the xid of their request, for those that wait for them.
        self.replies: dict[int, list[bytes]] = {}
        self.errors: dict[int, str] = {}
        self.loose_errors = 0
        self.config_flags = 0
        self.barriers: dict[int, asyncio.Event] = {}
        self.hello = asyncio.Event()
        self.ready = asyncio.Event()
        self.closed = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._xid = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self.fail(
            ConnectionLostError(
                "lost the OpenFlow connection to the bridge",
                where=self.path,
                why=str(exc) if exc else "the other side closed it",
                next_step="Check that ovs-vswitchd runs and that the bridge is still there",
            )
        )

    def data_received(self, data: bytes) -> None:
        if self.failure is not None:
            return
        self._buffer += data
        try:
            for message in of.split_messages(self._buffer):
                self._handle(message)
        except ProtocolError as error:
            error.where = error.where or self.path
            self.fail(error)

    def fail(self, error: VTraceError) -> None:
        """Ends the session; the first error stays."""
        if self.failure is None:
            self.failure = error
        self.abort()
        self.hello.set()
        self.ready.set()
        for event in self.barriers.values():
            event.set()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def send(self, *messages: bytes) -> None:
        """Raises the session's failure if it is over."""
        if self._transport is None:
            raise self.failure or ConnectionLostError("the OpenFlow connection is closed", where=self.path)
        self._transport.write(b"".join(messages))

    def new_xid(self) -> int:
        # Monitor notifications have xid 0, so 0 is never ours.
        self._xid = self._xid % 0xFFFF_FFFF + 1
        return self._xid

    def take(self) -> list[Event]:
        """All waiting events."""
        taken = list(self.queue)
        self.queue.clear()
        return taken

    def _put(self, event: Event) -> None:
        if len(self.queue) >= QUEUE_MAX_EVENTS:
            raise ProtocolError("the bridge sends more events than can be read", why=f"{len(self.queue)} wait")
        self.queue.append(event)
        self.ready.set()

    def _handle(self, message: of.Message) -> None:
        kind = message.kind
        if not self.hello.is_set():
            of.check_hello(message)
            self.hello.set()
        elif kind == of.OFPT_EXPERIMENTER:
            self._experimenter(message.body)
        elif kind == of.OFPT_ECHO_REQUEST:
            self._echo(message)
        elif kind == of.OFPT_MULTIPART_REPLY:
            if (waiting := self.replies.get(message.xid)) is not None:
                if len(waiting) >= REPLY_MAX_PARTS:
                    raise ProtocolError("a reply of the bridge has no end", why=f"{len(waiting)} parts")
                waiting.append(message.body)
            else:
                self._updates(message.body)
        elif kind == of.OFPT_BARRIER_REPLY:
            if (event := self.barriers.get(message.xid)) is not None:
                event.set()
        elif kind == of.OFPT_GET_CONFIG_REPLY:
            self.config_flags = of.config_flags(message.body)
        elif kind == of.OFPT_ERROR:
            self._error(message)

    def _echo(self, message: of.Message) -> None:
        if self._transport is not None and self._transport.get_write_buffer_size() > UNSENT_MAX_BYTES:
            raise ProtocolError("the bridge reads nothing of what is sent to it", why=f"{UNSENT_MAX_BYTES} bytes wait")
        self.send(of.echo_reply(message))

    def _experimenter(self, body: bytes) -> None:
        vendor, subtype = of.experimenter(body)
        if (vendor, subtype) == (of.NX_VENDOR_ID, of.NXT_PACKET_IN2):
            if len(self.queue) >= QUEUE_MAX_PACKET_INS:
                self.dropped += 1
            else:
                self._put(decode_packet_in(body, most_bytes=COPY_BYTES))
        elif vendor == of.ONF_VENDOR_ID and subtype == of.ONFT_FLOW_MONITOR_PAUSED:
            self._put(MonitorPaused())
        elif vendor == of.ONF_VENDOR_ID and subtype == of.ONFT_FLOW_MONITOR_RESUMED:
            self._put(MonitorPaused(resumed=True))

    def _updates(self, body: bytes) -> None:
        removed: dict[RemovalReason, list[Cookie]] = {}
        for update in of.flow_updates(body):
            if update.event != of.FME_DELETED and self._is_of_interest(update):
                self._put(
                    OtherEntry(
                        table=TableId(update.table),
                        priority=update.priority,
                        cookie=Cookie(update.cookie),
                        hard_timeout_s=update.hard_timeout_s,
                    )
                )
            if update.event == of.FME_ADDED or not self._is_watched(update.cookie):
                continue
            deleted = update.event == of.FME_DELETED
            reason = _REASONS.get(update.reason, "unknown") if deleted else "modified"
            removed.setdefault(reason, []).append(Cookie(update.cookie))
        for reason, cookies in removed.items():
            self._put(EntriesRemoved(cookies=tuple(cookies), reason=reason))

    def _is_of_interest(self, update: of.FlowUpdate) -> bool:
        return bool(self.marks) and (self._is_watched(update.cookie) or any(mark in update.body for mark in self.marks))

    def _is_watched(self, cookie: int) -> bool:
        return any(cookie & mask == value & mask for value, mask in self.watched)

    def _error(self, message: of.Message) -> None:
        text = of.error_text(message.body)
        if message.xid in self.errors:
            self.errors[message.xid] = text
        else:
            self.loose_errors += 1
