"""One end of a traffic: a program of its own, standard library only, run inside a VM by path.

`traffic_worker.py JSON` opens its sockets, detaches, prints the process id of what stays behind, and ends by
itself after `seconds`. JSON: role (send or serve), seconds, dscp; to send: proto, source, destination, sport, dport,
flows (that many source ports from sport on, used in turn), rate, size, stats (file it reports to); to serve: listens,
a list of [proto, address, port].
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time
from typing import Any

ECHO_REQUEST = {4: 8, 6: 128}
CONNECT_TIMEOUT_S = 30.0
DEAD_AFTER_S = 20.0
"""A connection whose data nobody acknowledges that long is dead: connect anew."""
RECONNECT_S = 0.5
REPORT_S = 0.2
MAX_LATE_S = 1.0
"""A sender that fell further behind than this gives the packets up rather than bursting."""
PREFIX = struct.Struct("!IQ4s")

Options = dict[str, Any]


def payload(sequence: int, size: int) -> bytes:
    """A message of `size` bytes that begins with its number and the wall clock in ns."""
    return (PREFIX.pack(sequence & 0xFFFFFFFF, time.time_ns(), b"vtrl") + bytes(max(0, size - PREFIX.size)))[:size]


def open_socket(options: Options, proto: str, local: tuple[str, int]) -> socket.socket:
    """A non-blocking socket of the traffic's kind, bound to an address of this node."""
    version = 6 if ":" in local[0] else 4
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    icmp = socket.IPPROTO_ICMPV6 if version == 6 else socket.IPPROTO_ICMP
    kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
    sock = socket.socket(family, kind, icmp if proto == "icmp" else 0)
    if proto == "tcp":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(DEAD_AFTER_S * 1000))
    if options["role"] == "serve":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    tos = options.get("dscp", 0) << 2
    if version == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tos)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
    sock.bind(local)
    sock.setblocking(False)
    return sock


class Channel:
    """One source port's way to the destination: a socket, or a connection that is made anew when it dies."""

    def __init__(self, options: Options, number: int) -> None:
        self.options = options
        self.proto: str = options["proto"]
        self.sport = options["sport"] + number if options["sport"] else 0
        self.peer = (options["destination"], options["dport"])
        self.version = 6 if ":" in options["destination"] else 4
        self.sent = self.received = self.connects = self.received_bytes = 0
        self.sock: socket.socket | None = None
        self.connected = False
        self.give_up = 0.0
        self.retry = 0.0
        if self.proto != "tcp":
            self.sock = self.open()
            self.connected = True

    def open(self) -> socket.socket:
        """A socket at the channel's source port."""
        return open_socket(self.options, self.proto, (self.options["source"], self.sport))

    def connect(self, now: float) -> None:
        """Begin a connection attempt."""
        self.give_up = now + CONNECT_TIMEOUT_S
        try:
            self.sock = self.open()
            self.sock.connect(self.peer)
        except BlockingIOError:
            return
        except OSError:
            self.close()

    def close(self) -> None:
        """Drop the connection; the next attempt follows."""
        if self.sock is not None:
            self.sock.close()
        self.sock, self.connected = None, False
        self.retry = time.monotonic() + RECONNECT_S

    def send(self, sequence: int) -> bool:
        """Send one message, unless the connection can't take it; whether it was sent."""
        if self.sock is None or not self.connected:
            return False
        message = payload(sequence, self.options["size"])
        try:
            if self.proto == "tcp":
                self.sock.send(message)
            elif self.proto == "icmp":
                header = struct.pack("!BBHHH", ECHO_REQUEST[self.version], 0, 0, 0, sequence & 0xFFFF)
                self.sock.sendto(header + message, self.peer)
            else:
                self.sock.sendto(message, self.peer)
        except BlockingIOError:
            return False
        except OSError:  # an ICMP error from before, or a dead connection
            if self.proto == "tcp":
                self.close()
                return False
        self.sent += 1
        return True

    def settle(self) -> None:
        """Take the outcome of a connection attempt."""
        if self.sock is not None and self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0:
            self.close()
        else:
            self.connected = True
            self.connects += 1

    def receive(self) -> None:
        """Count one reply (TCP: as many messages as its bytes make)."""
        assert self.sock is not None
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
            if self.proto != "tcp":
                return
        if self.proto != "tcp":
            self.received += 1
        elif data:
            self.received_bytes += len(data)
            self.received = self.received_bytes // self.options["size"]
        else:
            self.close()


class Sender:
    """Sends at a steady rate, and counts what comes back."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.sequence = self.turn = 0
        self.channels = [Channel(options, number) for number in range(options.get("flows", 1))]

    def run(self) -> None:
        """Send until the time is over."""
        interval = 1.0 / self.options["rate"]
        end = time.monotonic() + self.options["seconds"]
        due = report = time.monotonic()
        while (now := time.monotonic()) < end:
            if now >= report:
                self.report()
                report = now + REPORT_S
            for channel in self.channels:
                if channel.sock is None and now >= channel.retry:
                    channel.connect(now)
            if now >= due:
                self.sequence += self.channels[self.turn].send(self.sequence)
                self.turn = (self.turn + 1) % len(self.channels)
                due += interval
                if now - due > MAX_LATE_S:
                    due = now + interval
            self.wait(max(0.0, min(due, report) - time.monotonic()))
        self.report()

    def wait(self, timeout_s: float) -> None:
        """Take what arrives until the next message is due."""
        by_socket = {channel.sock: channel for channel in self.channels if channel.sock is not None}
        if not by_socket:
            retry = max(0.0, min(channel.retry for channel in self.channels) - time.monotonic())
            time.sleep(min(timeout_s, retry or timeout_s))
            return
        attempts = [sock for sock, channel in by_socket.items() if not channel.connected]
        ready, settled, _ = select.select(list(by_socket), attempts, [], timeout_s)
        for sock in settled:
            by_socket[sock].settle()
        for sock in ready:
            if sock not in settled and by_socket[sock].sock is sock:
                by_socket[sock].receive()
        now = time.monotonic()
        for sock in attempts:
            channel = by_socket[sock]
            if channel.sock is sock and not channel.connected and now > channel.give_up:
                channel.close()

    def report(self) -> None:
        """Write the counts for `lab traffic list`."""
        counts = {
            name: sum(getattr(channel, name) for channel in self.channels) for name in ("sent", "received", "connects")
        }
        with contextlib.suppress(OSError):  # the lab goes down
            with open(self.options["stats"] + ".new", "w") as file:
                json.dump(counts, file)
            os.replace(self.options["stats"] + ".new", self.options["stats"])


class Server:
    """Sends back what it gets."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.datagrams: set[socket.socket] = set()
        self.listeners: set[socket.socket] = set()
        for proto, address, port in options["listens"]:
            sock = open_socket(options, proto, (address, port))
            if proto == "tcp":
                sock.listen(64)
            (self.listeners if proto == "tcp" else self.datagrams).add(sock)

    def run(self) -> None:
        """Echo until the time is over."""
        end = time.monotonic() + self.options["seconds"]
        clients: set[socket.socket] = set()
        while (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select([*self.datagrams, *self.listeners, *clients], [], [], min(left, 3600.0))
            for sock in ready:
                if sock in self.listeners:
                    self.accept(sock, clients)
                elif sock in self.datagrams:
                    with contextlib.suppress(OSError):
                        data, peer = sock.recvfrom(65536)
                        sock.sendto(data, peer)
                else:
                    self.echo(sock, clients)

    def accept(self, listener: socket.socket, clients: set[socket.socket]) -> None:
        """Take one connection."""
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(DEAD_AFTER_S * 1000))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            clients.add(client)

    def echo(self, client: socket.socket, clients: set[socket.socket]) -> None:
        """Send back what one connection brought; what does not fit is dropped."""
        try:
            data = client.recv(65536)
            if data:
                client.send(data)
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        clients.discard(client)
        client.close()


def detach() -> None:
    """Leave the caller: it gets our process id and goes on."""
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def main() -> None:
    """Open the sockets, detach, work."""
    options: Options = json.loads(sys.argv[1])
    try:
        worker: Sender | Server = Sender(options) if options["role"] == "send" else Server(options)
    except OSError as error:
        sys.exit(f"{options['role']}: {error.strerror}")
    detach()
    worker.run()


if __name__ == "__main__":
    main()
