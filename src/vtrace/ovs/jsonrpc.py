"""One JSON-RPC 1.0 request to an OVS daemon: unixctl sockets and ovsdb-server speak it (RFC 7047, section 4).

The wire has no framing: one request object, one reply object. The `ovs` package's client blocks without a time
limit and keeps process-wide state in its poller, so the few lines are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import msgspec

from vtrace.errors import ProtocolError
from vtrace.ovs.sockets import connectable, silent, unreachable

# `dpctl/dump-flows` of a full userspace datapath (200,000 flows) stays under this.
REPLY_MAX_BYTES = 256 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024


class Reply(msgspec.Struct, frozen=True):
    """Result and error of a reply; one of them is None."""

    result: Any = None
    error: Any = None


async def transact(path: str, method: str, params: Sequence[Any], *, daemon: str, timeout_s: float) -> Reply:
    """Sends one request to the socket `path` and waits for its reply.

    Raises:
        CannotWorkError: nobody serves the socket, or no answer within `timeout_s`.
        ProtocolError: the answer is no JSON-RPC reply.
    """
    request = msgspec.json.encode({"id": 0, "method": method, "params": list(params)})
    try:
        with anyio.fail_after(timeout_s):
            return await _exchange(path, request)
    except TimeoutError as error:
        raise silent(path, timeout_s, method, daemon) from error
    except OSError as error:
        raise unreachable(path, error, daemon) from error
    except anyio.BrokenResourceError as error:
        raise unreachable(path, "the connection broke", daemon) from error


async def _exchange(path: str, request: bytes) -> Reply:
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
                raise ProtocolError("the daemon's answer has no end", where=path, why=f"{len(received)} bytes")
            if chunk.rstrip().endswith(b"}"):
                reply = _decoded(received)
                if reply is not None:
                    return reply


def _decoded(received: bytearray) -> Reply | None:
    """The reply, or None if it is not complete yet (a "}" in the text ended a chunk by chance)."""
    try:
        return msgspec.json.decode(received, type=Reply)
    except msgspec.DecodeError:
        return None
    except (RecursionError, UnicodeDecodeError) as error:
        raise ProtocolError("the daemon's answer can't be read", why=str(error)) from None
