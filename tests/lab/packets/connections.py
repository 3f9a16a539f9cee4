"""A TCP connection between two VMs, opened before anything else happens."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

from faults.facts import Facts
from faults.model import Pair
from faults.running import namespace

from vtrace.bench.capture import inside

CONNECT_TIMEOUT_S = 5.0
CHUNK_BYTES = 1 << 20


class Connection:
    """Open from the start; sends only between `busy` and the end.

    Args:
        pair: from its source to its destination.
        size_bytes, rate: of what it sends, and how often in a second.
    """

    def __init__(self, facts: Facts, pair: Pair, port: int, *, size_bytes: int, rate: float) -> None:
        family = socket.AF_INET6 if pair.ip == 6 else socket.AF_INET
        with inside(namespace(facts, pair.destination)):
            listener = socket.socket(family)
        with inside(namespace(facts, pair.source)):
            self._client = socket.socket(family)
        with listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((pair.dst, port))
            listener.listen()
            listener.settimeout(CONNECT_TIMEOUT_S)
            self._client.settimeout(CONNECT_TIMEOUT_S)
            self._client.connect((pair.dst, port))
            self._server, _ = listener.accept()
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client.setblocking(False)
        self._server.setblocking(False)
        self._message, self._interval_s = bytes(size_bytes), 1 / rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def busy(self) -> None:
        """Begins to send."""
        self._thread.start()

    def rest(self) -> None:
        """Sends no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.rest()
        self._client.close()
        self._server.close()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            with contextlib.suppress(BlockingIOError):
                self._client.send(self._message)
            with contextlib.suppress(BlockingIOError):
                self._server.recv(CHUNK_BYTES)
