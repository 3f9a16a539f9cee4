"""Our own OpenFlow connection to a bridge: packet-ins, foreign removals of our entries, deletion by cookie.

What the bridge is told, in this order (facts: a `controller` action without an id reaches every connection of
id 0, ovn-controller's included, so ours has an id of its own and our entries name it):

1. OFPT_HELLO, OpenFlow 1.3 alone.
2. NXT_SET_CONTROLLER_ID, before anything could be delivered.
3. NXT_SET_PACKET_IN_FORMAT: NXT_PACKET_IN2.
4. OFPT_SET_CONFIG with a miss_send_len above 0, without which a management connection gets no packet-ins.

OFPT_SET_ASYNC is left alone: under OpenFlow 1.3 it can only take away the reasons that 1.4 added, and with them
the copies from within a group's bucket. What else a connection gets by default (port status) is passed over.

Events wait in a bounded queue. When it is full, packet-ins are dropped and counted (`packet_ins_dropped`);
every other event is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Literal, TypeAlias

import anyio
import msgspec

from vtrace.errors import CannotWorkError, ProtocolError, VTraceError
from vtrace.model.openflow import Cookie, PacketIn
from vtrace.ovs import openflow13 as of
from vtrace.ovs.packet_in import decode_packet_in
from vtrace.ovs.sockets import connectable, silent, unreachable

QUEUE_MAX_PACKET_INS = 65536  # about 30 MB of small packets
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


class MonitorPaused(msgspec.Struct, frozen=True, kw_only=True):
    """The bridge could not keep up: removals may be missing until `resumed` (look at the entries then)."""

    resumed: bool = False


Event: TypeAlias = PacketIn | EntriesRemoved | MonitorPaused


class ConnectionLostError(CannotWorkError):
    """The bridge closed our connection: vswitchd ended, the bridge was deleted, or it reconfigured."""


class _Session(asyncio.Protocol):
    """Reads the connection: answers echoes, sorts replies to their waiters and events into the queue."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.queue: deque[Event] = deque()
        self.dropped = 0
        self.failure: VTraceError | None = None
        self.watched: tuple[tuple[int, int], ...] = ()
        self.errors: dict[int, str] = {}
        self.loose_errors = 0
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
            self.send(of.echo_reply(message))
        elif kind == of.OFPT_MULTIPART_REPLY:
            self._updates(message.body)
        elif kind == of.OFPT_BARRIER_REPLY:
            if (event := self.barriers.get(message.xid)) is not None:
                event.set()
        elif kind == of.OFPT_ERROR:
            self._error(message)

    def _experimenter(self, body: bytes) -> None:
        vendor, subtype = of.experimenter(body)
        if (vendor, subtype) == (of.NX_VENDOR_ID, of.NXT_PACKET_IN2):
            if len(self.queue) >= QUEUE_MAX_PACKET_INS:
                self.dropped += 1
            else:
                self._put(decode_packet_in(body))
        elif vendor == of.ONF_VENDOR_ID and subtype == of.ONFT_FLOW_MONITOR_PAUSED:
            self._put(MonitorPaused())
        elif vendor == of.ONF_VENDOR_ID and subtype == of.ONFT_FLOW_MONITOR_RESUMED:
            self._put(MonitorPaused(resumed=True))

    def _updates(self, body: bytes) -> None:
        removed: dict[RemovalReason, list[Cookie]] = {}
        for update in of.flow_updates(body):
            if update.event == of.FME_ADDED or not self._is_watched(update.cookie):
                continue
            deleted = update.event == of.FME_DELETED
            reason = _REASONS.get(update.reason, "unknown") if deleted else "modified"
            removed.setdefault(reason, []).append(Cookie(update.cookie))
        for reason, cookies in removed.items():
            self._put(EntriesRemoved(cookies=tuple(cookies), reason=reason))

    def _is_watched(self, cookie: int) -> bool:
        return any(cookie & mask == value & mask for value, mask in self.watched)

    def _error(self, message: of.Message) -> None:
        text = of.error_text(message.body)
        if message.xid in self.errors:
            self.errors[message.xid] = text
        else:
            self.loose_errors += 1


class OpenFlowChannel:
    """An open connection; get one with `OpenFlowChannel.open`."""

    def __init__(self, session: _Session, timeout_s: float) -> None:
        self._session = session
        self._timeout_s = timeout_s
        self._monitors = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, mgmt_path: str, controller_id: int, *, timeout_s: float = 5.0
    ) -> AsyncIterator[OpenFlowChannel]:
        """Connects to `<rundir>/<bridge>.mgmt` and configures the connection.

        Args:
            mgmt_path: the bridge's management socket.
            controller_id: 1 to 65535; entries deliver to us with `controller(id=…)`.
            timeout_s: limit for each request on this connection.

        Raises:
            CannotWorkError: nobody serves the socket, or the bridge refused the configuration.
            ProtocolError: the bridge does not speak OpenFlow 1.3.
        """
        if not 1 <= controller_id <= 0xFFFF:
            raise ValueError(f"controller id {controller_id} is not in 1 to 65535")
        session = _Session(mgmt_path)
        await _connect(session, timeout_s)
        channel = cls(session, timeout_s)
        try:
            await channel._handshake(controller_id)
            yield channel
        finally:
            session.abort()
            with anyio.CancelScope(shield=True):
                await session.closed.wait()

    @property
    def packet_ins_dropped(self) -> int:
        """Packet-ins thrown away because `events` was not read fast enough."""
        return self._session.dropped

    async def events(self) -> AsyncIterator[Event]:
        """Events one by one; leaving the loop loses none.

        Raises:
            ConnectionLostError: the connection broke (after the events before it were yielded).
            ProtocolError: the bridge sent something that can't be read.
        """
        while True:
            await self._some()
            while self._session.queue:
                yield self._session.queue.popleft()

    async def batches(self) -> AsyncIterator[list[Event]]:
        """Events as they came, all that wait at once; raises as `events` does."""
        while True:
            await self._some()
            yield self._session.take()

    async def _some(self) -> None:
        """Waits for an event. Raises the session's failure once all events before it are taken."""
        session = self._session
        while not session.queue:
            if session.failure is not None:
                raise session.failure
            session.ready.clear()
            await session.ready.wait()

    async def watch(
        self,
        cookie: int,
        mask: int,
        *,
        tables: Sequence[int] | None = None,
        copies_only: bool = True,
        guard_lsb: int | None = None,
    ) -> None:
        """Yields EntriesRemoved from now on for entries whose cookie equals `cookie` under `mask`.

        A flow monitor has no cookie filter, so the cookie is compared here; the other arguments let the bridge
        itself leave out what can't be ours, so that a busy bridge does not send its whole churn.

        Args:
            cookie: the value; `mask`: its significant bits.
            tables: only these tables (None: all).
            copies_only: only entries with a `controller` action somewhere (also within clone).
            guard_lsb: only entries that match the two bits of reg10 from here on.

        Raises:
            CannotWorkError: the bridge has no flow monitor for OpenFlow 1.3 (before OVS 3.1).
        """
        self._session.watched += ((cookie, mask),)
        out_port = of.OFPP_CONTROLLER if copies_only else of.OFPP_ANY
        fields = [b""]
        if guard_lsb is not None:
            fields = [of.reg10_field(value << guard_lsb, 3 << guard_lsb) for value in range(4)]
        requests = []
        for table in (of.OFPTT_ALL,) if tables is None else tuple(tables):
            for oxm_fields in fields:
                self._monitors += 1
                xid = self._session.new_xid()
                requests.append((xid, of.monitor_request(xid, self._monitors, table, out_port, oxm_fields)))
        await self._request("the flow monitor", requests)

    async def delete_by_cookie(self, cookie: int, mask: int) -> None:
        """Deletes our entries in every table and waits until the bridge has done it.

        Raises:
            CannotWorkError: the bridge refused or did not answer in time.
        """
        xid = self._session.new_xid()
        await self._request("the deletion of entries", [(xid, of.delete_by_cookie(xid, cookie, mask))])

    async def barrier(self) -> None:
        """Waits until the bridge has worked off everything sent before (OFPT_BARRIER_REQUEST)."""
        await self._request("a barrier", [])

    async def _handshake(self, controller_id: int) -> None:
        session = self._session
        session.send(of.hello(session.new_xid()))
        await self._wait(session.hello, "OFPT_HELLO")
        steps = []
        xid = session.new_xid()
        steps.append((xid, of.set_controller_id(xid, controller_id)))
        xid = session.new_xid()
        steps.append((xid, of.set_packet_in_format(xid)))
        xid = session.new_xid()
        steps.append((xid, of.set_config(xid, 0xFFFF)))
        await self._request("the configuration of the connection", steps)

    async def _request(self, doing: str, messages: Sequence[tuple[int, bytes]]) -> None:
        """Sends messages and a barrier; raises if one of them was answered by an error."""
        session = self._session
        barrier_xid = session.new_xid()
        session.barriers[barrier_xid] = asyncio.Event()
        session.errors.update(dict.fromkeys((xid for xid, _ in messages), ""))
        try:
            session.send(*(data for _, data in messages), of.barrier_request(barrier_xid))
            await self._wait(session.barriers[barrier_xid], doing)
        finally:
            del session.barriers[barrier_xid]
            refusals = [text for text in (session.errors.pop(xid) for xid, _ in messages) if text]
        if refusals:
            raise CannotWorkError(
                f"the bridge refused {doing}",
                where=session.path,
                why=refusals[0],
                next_step="VTrace needs Open vSwitch 3.1 or newer",
            )

    async def _wait(self, event: asyncio.Event, doing: str) -> None:
        session = self._session
        try:
            with anyio.fail_after(self._timeout_s):
                await event.wait()
        except TimeoutError as error:
            raise silent(session.path, self._timeout_s, doing) from error
        if session.failure is not None:
            raise session.failure


async def _connect(session: _Session, timeout_s: float) -> None:
    loop = asyncio.get_running_loop()
    try:
        with connectable(session.path) as name, anyio.fail_after(timeout_s):
            await loop.create_unix_connection(lambda: session, name)
    except TimeoutError as error:
        raise silent(session.path, timeout_s, "the connection") from error
    except OSError as error:
        raise unreachable(session.path, error) from error
