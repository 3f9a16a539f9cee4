"""The channel and unixctl against peers that misbehave: silence, garbage, hang-ups, long paths."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from vtrace.errors import CannotWorkError, ProtocolError
from vtrace.model.openflow import PacketIn
from vtrace.ovs import openflow13 as of
from vtrace.ovs import unixctl
from vtrace.ovs.channel import ConnectionLostError, EntriesRemoved, MonitorPaused, OpenFlowChannel
from vtrace.ovs.session import QUEUE_MAX_EVENTS, REPLY_MAX_PARTS, Session
from vtrace.ovs.sockets import connectable

pytestmark = pytest.mark.anyio

ID = 77
DROP_FRAGMENTS = struct.pack("!HH", 1, 128)
PACKET_IN = struct.pack("!IIHH6s2x", of.NX_VENDOR_ID, of.NXT_PACKET_IN2, 0, 10, b"packet")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def peer(path: str, handler: Handler) -> AsyncIterator[None]:
    """Serves `path` with `handler` for each connection, and leaves nothing open."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                await handler(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(serve(reader, writer)))

    with connectable(path) as name:
        server = await asyncio.start_unix_server(accept, name)
        try:
            yield
        finally:
            server.close()
            with anyio.CancelScope(shield=True), anyio.fail_after(5):
                await asyncio.gather(*tasks)
                await server.wait_closed()


def switch(*after_barrier: bytes, refuse: int | None = None, hang_up: bool = False) -> Handler:
    """A switch that greets, answers barriers and echoes, and says `after_barrier` once it is configured, by the second.

    It answers the message number `refuse` (1: the first after the hello) with an error. Its fragments are dropped.
    """

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(of.hello(1))
        buffer = bytearray()
        barriers = 0
        number = -1
        while data := await reader.read(4096):
            buffer += data
            for message in of.split_messages(buffer):
                number += 1
                if number == refuse:
                    writer.write(of.encode(of.OFPT_ERROR, message.xid, struct.pack("!HH", 1, 8)))
                if message.kind == of.OFPT_BARRIER_REQUEST:
                    writer.write(of.encode(of.OFPT_BARRIER_REPLY, message.xid))
                    barriers += 1
                    if barriers == 2:
                        writer.write(b"".join(after_barrier))
                    if barriers == 2 and hang_up:
                        return
                if message.kind == of.OFPT_GET_CONFIG_REQUEST:
                    writer.write(of.encode(of.OFPT_GET_CONFIG_REPLY, message.xid, DROP_FRAGMENTS))
                if message.kind == of.OFPT_SET_CONFIG:
                    assert message.body[:2] == DROP_FRAGMENTS[:2]
                if message.kind == 3:
                    assert message.body == b"alive?"
                    writer.write(of.encode(of.OFPT_EXPERIMENTER, 0, PACKET_IN))

    return handler


async def first(channel: OpenFlowChannel) -> object:
    with anyio.fail_after(2):
        async for event in channel.events():
            return event
    return None


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "br0.mgmt")


async def test_echo_requests_are_answered(path: str) -> None:
    echo = of.encode(of.OFPT_ECHO_REQUEST, 5, b"alive?")
    async with peer(path, switch(echo)), OpenFlowChannel.open(path, ID) as channel:
        event = await first(channel)
    assert isinstance(event, PacketIn)
    assert event.packet == b"packet"


async def test_leaving_the_loop_loses_no_event(path: str) -> None:
    paused = of.encode(of.OFPT_EXPERIMENTER, 0, struct.pack("!II", of.ONF_VENDOR_ID, 1871))
    resumed = of.encode(of.OFPT_EXPERIMENTER, 0, struct.pack("!II", of.ONF_VENDOR_ID, 1872))
    copy = of.encode(of.OFPT_EXPERIMENTER, 0, PACKET_IN)
    async with peer(path, switch(copy, paused, resumed)), OpenFlowChannel.open(path, ID) as channel:
        assert isinstance(await first(channel), PacketIn)
        assert await first(channel) == MonitorPaused()
        assert await first(channel) == MonitorPaused(resumed=True)


async def test_a_peer_that_asks_and_reads_nothing_is_given_up(path: str) -> None:
    """Its answers would wait in memory without end."""
    echo = of.encode(of.OFPT_ECHO_REQUEST, 5, bytes(60_000))

    async def asks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(of.hello(1))
        while True:
            writer.write(echo)
            await writer.drain()

    async with peer(path, asks):
        with pytest.raises(ProtocolError, match="reads nothing"):
            async with OpenFlowChannel.open(path, ID):
                pass


async def test_a_reply_without_end_ends_the_connection() -> None:
    session = Session("/nowhere.mgmt")
    session.hello.set()
    session.replies[3] = []
    session.data_received(of.encode(of.OFPT_MULTIPART_REPLY, 3, bytes(32)) * (REPLY_MAX_PARTS + 1))
    assert len(session.replies[3]) == REPLY_MAX_PARTS
    assert "no end" in str(session.failure)


async def test_events_that_nobody_can_read_end_the_connection(path: str) -> None:
    """Removals are never dropped, so they may not be without end either."""
    paused = of.encode(of.OFPT_EXPERIMENTER, 0, struct.pack("!II", of.ONF_VENDOR_ID, 1871))
    many = paused * (QUEUE_MAX_EVENTS + 1)
    async with peer(path, switch(many)), OpenFlowChannel.open(path, ID) as channel:
        # Nothing is read while they come.
        with anyio.fail_after(20):
            while channel._session.failure is None:  # noqa: ASYNC110  # `ready` tells of each event
                await anyio.sleep(0.01)
        assert len(channel._session.queue) == QUEUE_MAX_EVENTS
        assert "more events than can be read" in str(channel._session.failure)


async def test_no_more_of_a_packet_is_kept_than_is_read(path: str) -> None:
    body = struct.pack("!IIHH1500s", of.NX_VENDOR_ID, of.NXT_PACKET_IN2, 0, 1504, bytes(range(250)) * 6)
    async with peer(path, switch(of.encode(of.OFPT_EXPERIMENTER, 0, body))), OpenFlowChannel.open(path, ID) as channel:
        event = await first(channel)
    assert isinstance(event, PacketIn)
    assert event.packet == bytes(range(192))
    assert event.length_bytes == 1500


async def test_only_watched_cookies_are_told(path: str) -> None:
    header = struct.pack("!HH4xII", 0xFFFF, 0, of.ONF_VENDOR_ID, 1870)
    full = b"".join(
        struct.pack("!HHHHHHHBxQ", 32, 1, 2, 1, 0, 0, 4, 0, cookie) + struct.pack("!HH4x", 1, 4)
        for cookie in (0xAA01, 0xBB01, 0xAA02)
    )

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(of.hello(1))
        buffer = bytearray()
        while data := await reader.read(4096):
            buffer += data
            for message in of.split_messages(buffer):
                if message.kind == of.OFPT_BARRIER_REQUEST:
                    writer.write(of.encode(of.OFPT_BARRIER_REPLY, message.xid))
                elif message.kind == of.OFPT_MULTIPART_REQUEST:
                    writer.write(of.encode(of.OFPT_MULTIPART_REPLY, 0, header + full))

    async with peer(path, handler), OpenFlowChannel.open(path, ID) as channel:
        await channel.watch(0xAA00, 0xFF00)
        assert await first(channel) == EntriesRemoved(cookies=(0xAA01, 0xAA02), reason="delete")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x04\x00\x00\x04\x00\x00\x00\x00",
        of.encode(of.OFPT_EXPERIMENTER, 0, PACKET_IN[:13]),
        of.encode(of.OFPT_EXPERIMENTER, 0, b""),
        of.encode(of.OFPT_MULTIPART_REPLY, 0, b"\xff\xff"),
        of.encode(of.OFPT_ERROR, 0, b""),
    ],
)
async def test_garbage_ends_the_session_with_a_protocol_error(path: str, garbage: bytes) -> None:
    async with peer(path, switch(garbage)):
        with pytest.raises(ProtocolError) as caught:
            async with OpenFlowChannel.open(path, ID) as channel:
                await first(channel)
    assert caught.value.where == path


async def test_a_hang_up_is_told_after_the_events_before_it(path: str) -> None:
    copy = of.encode(of.OFPT_EXPERIMENTER, 0, PACKET_IN)
    async with peer(path, switch(copy, hang_up=True)), OpenFlowChannel.open(path, ID) as channel:
        assert isinstance(await first(channel), PacketIn)
        with pytest.raises(ConnectionLostError):
            await first(channel)


@pytest.mark.parametrize(("number", "what"), [(1, "to tell"), *((number, "the configuration") for number in (3, 4, 5))])
async def test_a_refused_configuration_is_an_error(path: str, number: int, what: str) -> None:
    async with peer(path, switch(refuse=number)):
        with pytest.raises(CannotWorkError, match=f"refused {what}"):
            async with OpenFlowChannel.open(path, ID):
                pass


async def test_a_refused_monitor_is_an_error(path: str) -> None:
    async with peer(path, switch(refuse=7)), OpenFlowChannel.open(path, ID) as channel:
        with pytest.raises(CannotWorkError, match="flow monitor"):
            await channel.watch(1, 1)
        await channel.barrier()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def test_silence_has_a_limit(path: str) -> None:
    async with peer(path, silent):
        with pytest.raises(CannotWorkError, match=r"within 0\.05 s"):
            async with OpenFlowChannel.open(path, ID, timeout_s=0.05):
                pass
        with pytest.raises(CannotWorkError, match=r"within 0\.05 s"):
            await unixctl.call(path, "version", timeout_s=0.05)


async def test_nobody_there(path: str) -> None:
    with pytest.raises(CannotWorkError, match="can't reach ovs-vswitchd") as caught:
        async with OpenFlowChannel.open(path, ID):
            pass
    assert caught.value.where == path


def answering(*chunks: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
            await anyio.lowlevel.checkpoint()

    return handler


async def test_unixctl_answers_in_pieces(path: str) -> None:
    async with peer(path, answering(b'{"id":0,"error":null,"result":"a {b}', b" }", b'c"}')):
        assert await unixctl.call(path, "x") == "a {b} }c"


@pytest.mark.parametrize("chunk", [b'{"result": 5}', b"{", b"[}", b'{"id":0}'])
async def test_unixctl_garbage(path: str, chunk: bytes) -> None:
    async with peer(path, answering(chunk)):
        with pytest.raises(ProtocolError):
            await unixctl.call(path, "x")


async def test_paths_longer_than_the_kernel_takes(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    path = str(folder / "br0.mgmt")
    assert len(os.fsencode(path)) > 107
    async with peer(path, switch()), OpenFlowChannel.open(path, ID) as channel:
        await channel.barrier()


async def test_controller_id_0_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="controller id 0"):
        async with OpenFlowChannel.open(path, 0):
            pass
