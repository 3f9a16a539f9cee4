"""Two ends that talk in UDP, TCP and ICMP, with DSCPs and ECN codepoints that the packets themselves name."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from faults.facts import Facts
from faults.running import namespace

from vtrace.bench.capture import inside

MAGIC = b"vtos"
TOSES = (0, 1, 2, 3, 10 << 2 | 2, 46 << 2 | 1)
"""All four ECN codepoints without a DSCP, and two DSCPs that are no color."""
RATE_PPS = 80
SIZE_BYTES = 100
TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Talk:
    """From where to where.

    Attributes:
        sender, source: the node, and its address.
        to: the address it sends to.
        receivers: the nodes that may get it, with their addresses.
        task: `--from` and `--to` of the task about it.
    """

    sender: str
    source: str
    to: str
    receivers: tuple[tuple[str, str], ...]
    task: tuple[str, str]
    port: int = 21000

    @property
    def family(self) -> int:
        return socket.AF_INET6 if ":" in self.to else socket.AF_INET


def payload_tos(datagram: bytes) -> int | None:
    """What a datagram's payload says its TOS byte is; None if it is none of ours."""
    return datagram[12] if datagram[8:12] == MAGIC else None


@dataclass
class _Ends:
    """The sockets of a talk, and its threads."""

    talk: Talk
    stop: threading.Event = field(default_factory=threading.Event)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    threads: list[threading.Thread] = field(default_factory=list)

    def udp(self, node: str, address: str, port: int) -> socket.socket:
        with inside(node):
            made = self.stack.enter_context(socket.socket(self.talk.family, socket.SOCK_DGRAM))
        made.settimeout(0.1)
        made.bind((address, port))
        return made

    def tcp(self, node: str, address: str, port: int) -> socket.socket:
        with inside(node):
            made = self.stack.enter_context(socket.socket(self.talk.family, socket.SOCK_STREAM))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        self.mark(made, TOSES[-1])
        made.settimeout(TIMEOUT_S)
        return made

    def mark(self, made: socket.socket, tos: int) -> None:
        if self.talk.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tos)
        else:
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)

    def send(self, made: socket.socket) -> None:
        for number in itertools.count():
            if self.stop.wait(1 / RATE_PPS):
                return
            tos = TOSES[number % len(TOSES)]
            self.mark(made, tos)
            body = MAGIC + bytes([tos]) + struct.pack("!I", number) + bytes(SIZE_BYTES)
            with contextlib.suppress(OSError):
                made.sendto(body, (self.talk.to, self.talk.port))
            made.setblocking(False)
            with contextlib.suppress(OSError):
                made.recv(2048)

    def echo(self, made: socket.socket) -> None:
        while not self.stop.is_set():
            with contextlib.suppress(OSError):
                body, peer = made.recvfrom(2048)
                self.mark(made, body[4])
                made.sendto(body, peer)

    def chat(self, client: socket.socket, listeners: list[socket.socket]) -> None:
        """One TCP connection: small messages, each answered."""
        accepted = threading.Thread(target=self._answer, args=(listeners,), daemon=True)
        accepted.start()
        with contextlib.suppress(OSError):
            client.connect((self.talk.to, self.talk.port))
            while not self.stop.wait(0.05):
                client.send(bytes(200))
                client.recv(1000)
        accepted.join()

    def _answer(self, listeners: list[socket.socket]) -> None:
        for listener in listeners:
            listener.settimeout(0.1)
        while not self.stop.is_set():
            for listener in listeners:
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(TIMEOUT_S)
                        while not self.stop.is_set() and (message := connection.recv(1000)):
                            connection.send(message)

    def run(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        thread.start()
        self.threads.append(thread)


@contextlib.contextmanager
def talking(facts: Facts, talk: Talk) -> Iterator[None]:
    """UDP and TCP, both ways, for as long as the block lasts."""
    ends = _Ends(talk)
    with ends.stack:
        listeners = []
        for node, address in talk.receivers:
            ends.run(ends.echo, ends.udp(namespace(facts, node), address, talk.port))
            listener = ends.tcp(namespace(facts, node), address, talk.port)
            listener.listen()
            listeners.append(listener)
        sender = namespace(facts, talk.sender)
        ends.run(ends.send, ends.udp(sender, talk.source, talk.port + 1))
        ends.run(ends.chat, ends.tcp(sender, talk.source, talk.port + 2), listeners)
        try:
            yield
        finally:
            ends.stop.set()
            for thread in ends.threads:
                thread.join()
