"""Calls commands of an OVS daemon through its control socket (ovs-appctl(8)).

The wire is JSON-RPC 1.0 without framing: one request object, one reply object. The `ovs` package's client
blocks without a time limit and keeps process-wide state in its poller, so the few lines are ours.
"""

from __future__ import annotations

import os
from typing import Any

import anyio
import msgspec

from vtrace.errors import CannotWorkError, ProtocolError
from vtrace.ovs.sockets import connectable, silent, unreachable

# `dpctl/dump-flows` of a full userspace datapath (200,000 flows) stays under this.
REPLY_MAX_BYTES = 256 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024


class UnixctlError(CannotWorkError):
    """The daemon answered, with an error: the command is unknown or it refused the arguments."""


class _Reply(msgspec.Struct, frozen=True):
    result: Any = None
    error: Any = None


def ctl_path(rundir: str, daemon: str = "ovs-vswitchd") -> str:
    """The control socket of `daemon`, from its pidfile: `<rundir>/<daemon>.<pid>.ctl`.

    Raises:
        CannotWorkError: no pidfile, or an unreadable one.
    """
    pidfile = os.path.join(rundir, f"{daemon}.pid")
    try:
        with open(pidfile, encoding="ascii") as file:
            pid = int(file.read(64))
    except (OSError, ValueError) as error:
        raise CannotWorkError(
            f"can't tell the process id of {daemon}",
            where=pidfile,
            why=str(error),
            next_step=f"Check that {daemon} runs and that this is its run directory",
        ) from error
    return os.path.join(rundir, f"{daemon}.{pid}.ctl")


async def call(path: str, command: str, *args: str, timeout_s: float = 5) -> str:
    """Runs one command and returns its text.

    Args:
        path: the control socket.
        command: for example `ofproto/trace`; `args` are passed as they are.
        timeout_s: limit for the whole call.

    Raises:
        CannotWorkError: nobody serves the socket, or no answer within the limit.
        UnixctlError: the daemon refused the command.
        ProtocolError: the answer is no JSON-RPC reply.
    """
    request = msgspec.json.encode({"id": 0, "method": command, "params": list(args)})
    try:
        with anyio.fail_after(timeout_s):
            reply = await _transact(path, request)
    except TimeoutError as error:
        raise silent(path, timeout_s, command, _daemon(path)) from error
    except OSError as error:
        raise unreachable(path, error, _daemon(path)) from error
    except anyio.BrokenResourceError as error:
        raise unreachable(path, "the connection broke", _daemon(path)) from error
    if reply.error is not None:
        raise UnixctlError(
            f"{command} failed",
            where=path,
            why=str(reply.error).strip().splitlines()[0] if reply.error else "",
        )
    if not isinstance(reply.result, str):
        raise ProtocolError(f"{command} returned no text", where=path, why=f"result is {reply.result!r:.80}")
    return reply.result


async def _transact(path: str, request: bytes) -> _Reply:
    with connectable(path) as name:
        stream = await anyio.connect_unix(name)
    received = bytearray()
    async with stream:
        await stream.send(request)
        while True:
            try:
                chunk = await stream.receive(_CHUNK_BYTES)
            except anyio.EndOfStream:
                raise ProtocolError(
                    "the daemon closed the connection in the middle of its answer",
                    where=path,
                    why=f"{len(received)} bytes came",
                ) from None
            received += chunk
            if len(received) > REPLY_MAX_BYTES:
                raise ProtocolError("the daemon's answer has no end", where=path, why=f"{len(received)} bytes so far")
            if chunk.endswith(b"}"):
                reply = _decoded(received)
                if reply is not None:
                    return reply


def _decoded(received: bytearray) -> _Reply | None:
    """The reply, or None if it is not complete yet (a "}" in the text ended a chunk by chance)."""
    try:
        return msgspec.json.decode(received, type=_Reply)
    except msgspec.DecodeError:
        return None


def _daemon(path: str) -> str:
    return os.path.basename(path).split(".", 1)[0] or "the daemon"
