"""A small OpenFlow 1.3 controller beside VTrace and ovn-controller: it has things of its own and keeps what it is sent.

It speaks the protocol by itself (OpenFlow 1.3.5, nicira-ext.h), so that a mistake in VTrace's own encoding can't hide
here. It connects to the bridge's management socket, or listens where the bridge is told to find its controller.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

VERSION = 4
HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY, EXPERIMENTER, FEATURES_REQUEST, FEATURES_REPLY = 0, 1, 2, 3, 4, 5, 6
SET_CONFIG, PACKET_IN, FLOW_REMOVED, PORT_STATUS, FLOW_MOD, MULTIPART_REQUEST, MULTIPART_REPLY = (
    9,
    10,
    11,
    12,
    14,
    18,
    19,
)
BARRIER_REQUEST, BARRIER_REPLY, ROLE_REQUEST, ROLE_REPLY, METER_MOD, SET_ASYNC = 20, 21, 24, 25, 29, 28
NOCHANGE, EQUAL, MASTER, SLAVE = 0, 1, 2, 3
ONF, NX = 0x4F4E4600, 0x2320
ROLE_STATUS, FLOW_MONITOR = 1911, 1870
SEND_FLOW_REM = 1
ANY = 0xFFFF_FFFF
ADDED, DELETED = 0, 1
ASKED_FOR = (HELLO, ECHO_REQUEST, FEATURES_REPLY, BARRIER_REPLY, ROLE_REPLY)


class Received(NamedTuple):
    """A message from the bridge."""

    kind: int
    xid: int
    body: bytes


class SecondController:
    """Connected from `with` on.

    Args:
        path: the bridge's management socket; or with `listens` a socket that the bridge connects to.
    """

    def __init__(self, path: Path, *, listens: bool = False) -> None:
        self._path = path
        self._listens = listens
        self._socket: socket.socket
        self._listener: socket.socket | None = None
        self._xid = 100
        self._changed = threading.Condition()
        self.received: list[Received] = []

    def __enter__(self) -> Self:
        found = socket.socket(socket.AF_UNIX)
        found.settimeout(10)
        if self._listens:
            found.bind(str(self._path))
            found.listen()
            self._listener = found
        else:
            found.connect(str(self._path))
            self._begin(found)
        return self

    def accept(self) -> None:
        """Takes the bridge's connection, once it was told of us."""
        assert self._listener is not None
        found, _ = self._listener.accept()
        self._begin(found)

    def _begin(self, found: socket.socket) -> None:
        found.settimeout(None)
        self._socket = found
        threading.Thread(target=self._read, daemon=True).start()
        self.send(HELLO, struct.pack("!HHI", 1, 8, 1 << VERSION))
        self.send(FEATURES_REQUEST)
        # Packet-ins of any length, and fragments as they are.
        self.send(SET_CONFIG, struct.pack("!HH", 0, 0xFFFF))
        self.barrier()

    def __exit__(self, *_: object) -> None:
        for one in (getattr(self, "_socket", None), self._listener):
            if one is not None:
                one.close()
        if self._listener is not None:
            self._path.unlink(missing_ok=True)

    def send(self, kind: int, body: bytes = b"") -> int:
        self._xid += 1
        self._socket.sendall(struct.pack("!BBHI", VERSION, kind, 8 + len(body), self._xid) + body)
        return self._xid

    def _read(self) -> None:
        buffer = bytearray()
        while True:
            try:
                data = self._socket.recv(65536)
            except OSError:
                return
            if not data:
                return
            buffer += data
            while len(buffer) >= 8 and len(buffer) >= (length := int.from_bytes(buffer[2:4], "big")):
                _, kind, _, xid = struct.unpack_from("!BBHI", buffer)
                body = bytes(buffer[8:length])
                del buffer[:length]
                if kind == ECHO_REQUEST:
                    with contextlib.suppress(OSError):
                        self._socket.sendall(struct.pack("!BBHI", VERSION, ECHO_REPLY, 8 + len(body), xid) + body)
                with self._changed:
                    self.received.append(Received(kind, xid, body))
                    self._changed.notify_all()

    def wait(self, what: str, condition: Callable[[Received], bool], timeout_s: float = 10) -> Received:
        """The first message of a kind, which may have come already."""
        until = time.monotonic() + timeout_s
        with self._changed:
            while not (found := [m for m in self.received if condition(m)]):
                left_s = until - time.monotonic()
                assert left_s > 0, f"no {what} within {timeout_s} s; got {self.kinds()}"
                self._changed.wait(left_s)
        return found[0]

    def barrier(self) -> None:
        """Until the bridge has done all that was asked; what it refused fails."""
        xid = self.send(BARRIER_REQUEST)
        self.wait("barrier", lambda m: m.kind == BARRIER_REPLY and m.xid == xid)
        refused = [m.body[:4].hex() for m in self.received if m.kind == ERROR]
        assert not refused, refused

    def kinds(self) -> list[int]:
        return [message.kind for message in self.received]

    def unasked(self) -> list[Received]:
        """What the bridge sent by itself: packet-ins, removed entries, status of ports and roles, monitors."""
        return [m for m in self.received if m.kind not in ASKED_FOR and not (m.kind == MULTIPART_REPLY and m.xid)]

    def ask_role(self, role: int, generation: int = 1) -> int:
        """Takes a role, or with NOCHANGE asks for the one it has; the role it has then."""
        xid = self.send(ROLE_REQUEST, struct.pack("!I4xQ", role, generation))
        reply = self.wait("role", lambda m: m.kind in (ROLE_REPLY, ERROR) and m.xid == xid)
        assert reply.kind == ROLE_REPLY, reply
        return int.from_bytes(reply.body[:4], "big")

    def meter(self, command: int, meter_id: int, rate: int, burst: int = 10) -> None:
        """OFPT_METER_MOD of packets/s: 0 adds, 1 modifies, 2 deletes."""
        band = struct.pack("!HHII4x", 1, 16, rate, burst)
        self.send(METER_MOD, struct.pack("!HHI", command, 0b1110, meter_id) + (band if command != 2 else b""))
        self.barrier()

    def entry(
        self,
        *,
        cookie: int,
        table: int,
        priority: int,
        ether_type: int,
        copies: bool = True,
        flags: int = SEND_FLOW_REM,
    ) -> None:
        """Adds an entry for an ethernet type; it sends to the controller, or drops."""
        action = struct.pack("!HHIH6x", 0, 16, 0xFFFF_FFFD, 0xFFFF)
        instructions = struct.pack("!HH4x", 4, 8 + len(action)) + action if copies else b""
        oxm = struct.pack("!IH", 0x8000 << 16 | 5 << 9 | 2, ether_type)
        match = struct.pack("!HH", 1, 4 + len(oxm)) + oxm
        match += bytes(-len(match) % 8)
        fixed = struct.pack("!QQBBHHHIIIH2x", cookie, 0, table, 0, 0, 0, priority, ANY, ANY, ANY, flags)
        self.send(FLOW_MOD, fixed + match + instructions)
        self.barrier()

    def delete(self, cookie: int) -> None:
        """Deletes entries by their cookie."""
        match = bytes.fromhex("0001000400000000")
        fixed = struct.pack("!QQBBHHHIIIH2x", cookie, 2**64 - 1, 0xFF, 3, 0, 0, 0, ANY, ANY, ANY, 0)
        self.send(FLOW_MOD, fixed + match)
        self.barrier()

    def monitor(self, monitor_id: int, table: int) -> None:
        """Wants to be told of every change in one table."""
        head = struct.pack("!HH4xII", 0xFFFF, 0, ONF, FLOW_MONITOR)
        fixed = struct.pack("!IHHIB3x", monitor_id, 0b11110, 4, ANY, table)
        self.send(MULTIPART_REQUEST, head + fixed + bytes.fromhex("0001000400000000"))
        self.barrier()


def updates(message: Received) -> list[tuple[int, int]]:
    """(event, cookie) of each entry that a flow monitor tells of."""
    assert message.kind == MULTIPART_REPLY
    found, position = [], 16
    while position < len(message.body):
        length, event = struct.unpack_from("!HH", message.body, position)
        found.append((event, int.from_bytes(message.body[position + 16 : position + 24], "big")))
        position += length
    return found
