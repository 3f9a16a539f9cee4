"""Our own OpenFlow connection to a bridge: packet-ins, foreign removals of our entries, deletion by cookie.

What the bridge is told, in this order (facts: a `controller` action without an id reaches every connection of
id 0, ovn-controller's included, so ours has an id of its own and our entries name it):

1. OFPT_HELLO, OpenFlow 1.3 alone.
2. NXT_SET_CONTROLLER_ID, before anything could be delivered.
3. NXT_SET_PACKET_IN_FORMAT: NXT_PACKET_IN2.
4. OFPT_SET_CONFIG with a miss_send_len above 0, without which a management connection gets no packet-ins; with the
   bridge's own flags, asked for before, since they say for all what becomes of fragments.

OFPT_SET_ASYNC is left alone: under OpenFlow 1.3 it can only take away the reasons that 1.4 added, and with them
the copies from within a group's bucket. What else a connection gets by default (port status) is passed over.

Events wait in a bounded queue. When it is full, packet-ins are dropped and counted (`packet_ins_dropped`);
every other event is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import anyio

from vtrace.errors import CannotWorkError
from vtrace.ovs import openflow13 as of
from vtrace.ovs.session import ConnectionLostError, EntriesRemoved, Event, MonitorPaused, OtherEntry, Session
from vtrace.ovs.sockets import connectable, silent, unreachable

__all__ = ["ConnectionLostError", "EntriesRemoved", "Event", "MonitorPaused", "OpenFlowChannel", "OtherEntry"]


class RefusedRequestError(CannotWorkError):
    """The bridge answered a request with an error."""


class OpenFlowChannel:
    """An open connection; get one with `OpenFlowChannel.open`."""

    def __init__(self, session: Session, timeout_s: float) -> None:
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
        session = Session(mgmt_path)
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

    async def watch_others(self, register: int) -> None:
        """Yields OtherEntry from now on for added or changed entries that name a register or have a watched cookie.

        The bridge tells of every entry that somebody adds, with its actions: only those of interest are read further.

        Raises:
            CannotWorkError: the bridge refused.
        """
        self._session.marks = of.register_marks(register)
        self._monitors += 1
        xid = self._session.new_xid()
        flags = of.FMF_ADD | of.FMF_MODIFY | of.FMF_ACTIONS
        request = of.monitor_request(xid, self._monitors, of.OFPTT_ALL, of.OFPP_ANY, flags=flags)
        await self._request("the monitor of other entries", [(xid, request)])

    async def meter(self, meter_id: int) -> tuple[int, int] | None:
        """(packets/s, burst) of a meter; rate 0 for one of another kind, None if there is none.

        Raises:
            CannotWorkError: the bridge did not answer in time.
        """
        xid = self._session.new_xid()
        try:
            replies = await self._ask("a meter", xid, of.meter_config_request(xid, meter_id))
        except RefusedRequestError:
            return None
        return {k: v for body in replies for k, v in of.meter_configs(body).items()}.get(meter_id)

    async def count(self, cookie: int, mask: int, table: int) -> int:
        """How many entries of a table have a cookie that equals `cookie` under `mask`.

        Raises:
            CannotWorkError: the bridge refused or did not answer in time.
        """
        xid = self._session.new_xid()
        replies = await self._ask("to count entries", xid, of.aggregate_request(xid, cookie, mask, table))
        return sum(map(of.aggregate_count, replies))

    async def _ask(self, doing: str, xid: int, message: bytes) -> list[bytes]:
        replies = self._session.replies[xid] = []
        try:
            await self._request(doing, [(xid, message)])
        finally:
            del self._session.replies[xid]
        return replies

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
        xid = session.new_xid()
        await self._request("to tell its configuration", [(xid, of.get_config(xid))])
        steps = []
        xid = session.new_xid()
        steps.append((xid, of.set_controller_id(xid, controller_id)))
        xid = session.new_xid()
        steps.append((xid, of.set_packet_in_format(xid)))
        xid = session.new_xid()
        steps.append((xid, of.set_config(xid, 0xFFFF, session.config_flags)))
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
            raise RefusedRequestError(
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


async def _connect(session: Session, timeout_s: float) -> None:
    loop = asyncio.get_running_loop()
    try:
        with connectable(session.path) as name, anyio.fail_after(timeout_s):
            await loop.create_unix_connection(lambda: session, name)
    except TimeoutError as error:
        raise silent(session.path, timeout_s, "the connection") from error
    except OSError as error:
        raise unreachable(session.path, error) from error
