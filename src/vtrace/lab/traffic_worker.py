"""One end of a traffic: a program of its own, standard library only, run inside a VM by path.

`traffic_worker.py JSON` opens its sockets, detaches, prints the process id of what stays behind, and ends by
itself after `seconds`. JSON: role (send or serve), proto, source, destination, sport, dport, rate, size, dscp,
seconds, stats (file the sender reports to).
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


def open_socket(options: Options, local: tuple[str, int]) -> socket.socket:
    """A non-blocking socket of the traffic's kind, bound to an address of this VM."""
    version = 6 if ":" in local[0] else 4
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    icmp = socket.IPPROTO_ICMPV6 if version == 6 else socket.IPPROTO_ICMP
    kind = socket.SOCK_STREAM if options["proto"] == "tcp" else socket.SOCK_DGRAM
    sock = socket.socket(family, kind, icmp if options["proto"] == "icmp" else 0)
    if options["proto"] == "tcp":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(DEAD_AFTER_S * 1000))
    if options["role"] == "serve":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    tos = options["dscp"] << 2
    if version == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tos)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
    sock.bind(local)
    sock.setblocking(False)
    return sock


class Sender:
    """Sends at a steady rate, and counts what comes back."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.sent = self.received = self.connects = self.received_bytes = 0
        self.peer = (options["destination"], options["dport"])
        self.version = 6 if ":" in options["destination"] else 4
        self.sock: socket.socket | None = None
        self.connected = False
        self.give_up = 0.0
        self.retry = 0.0
        if options["proto"] != "tcp":
            self.sock = open_socket(options, (options["source"], options["sport"]))
            self.connected = True

    def run(self) -> None:
        """Send until the time is over."""
        interval = 1.0 / self.options["rate"]
        end = time.monotonic() + self.options["seconds"]
        due = report = time.monotonic()
        while (now := time.monotonic()) < end:
            if now >= report:
                self.report()
                report = now + REPORT_S
            if self.sock is None and now >= self.retry:
                self.connect(now)
            if now >= due:
                self.send()
                due += interval
                if now - due > MAX_LATE_S:
                    due = now + interval
            self.wait(max(0.0, min(due, report) - time.monotonic()))
        self.report()

    def connect(self, now: float) -> None:
        """Begin a connection attempt."""
        self.give_up = now + CONNECT_TIMEOUT_S
        try:
            self.sock = open_socket(self.options, (self.options["source"], self.options["sport"]))
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

    def send(self) -> None:
        """Send one message, unless the connection can't take it."""
        if self.sock is None or not self.connected:
            return
        message = payload(self.sent, self.options["size"])
        try:
            if self.options["proto"] == "tcp":
                self.sock.send(message)
            elif self.options["proto"] == "icmp":
                header = struct.pack("!BBHHH", ECHO_REQUEST[self.version], 0, 0, 0, self.sent & 0xFFFF)
                self.sock.sendto(header + message, self.peer)
            else:
                self.sock.sendto(message, self.peer)
            self.sent += 1
        except BlockingIOError:
            return
        except OSError:  # an ICMP error from before, or a dead connection
            if self.options["proto"] == "tcp":
                self.close()
            else:
                self.sent += 1

    def wait(self, timeout_s: float) -> None:
        """Take what arrives until the next message is due."""
        if self.sock is None:
            time.sleep(min(timeout_s, max(0.0, self.retry - time.monotonic()) or timeout_s))
            return
        writable = [] if self.connected else [self.sock]
        ready, connected, _ = select.select([self.sock], writable, [], timeout_s)
        if connected and self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0:
            self.close()
        elif connected:
            self.connected = True
            self.connects += 1
        elif ready:
            self.receive()
        elif not self.connected and time.monotonic() > self.give_up:
            self.close()

    def receive(self) -> None:
        """Count one reply (TCP: as many messages as its bytes make)."""
        assert self.sock is not None
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
            if self.options["proto"] != "tcp":
                return
        if self.options["proto"] != "tcp":
            self.received += 1
        elif data:
            self.received_bytes += len(data)
            self.received = self.received_bytes // self.options["size"]
        else:
            self.close()

    def report(self) -> None:
        """Write the counts for `lab traffic list`."""
        counts = {"sent": self.sent, "received": self.received, "connects": self.connects}
        with contextlib.suppress(OSError):  # the lab goes down
            with open(self.options["stats"] + ".new", "w") as file:
                json.dump(counts, file)
            os.replace(self.options["stats"] + ".new", self.options["stats"])


class Server:
    """Sends back what it gets."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.sock = open_socket(options, (options["destination"], options["dport"]))
        if options["proto"] == "tcp":
            self.sock.listen(64)

    def run(self) -> None:
        """Echo until the time is over."""
        end = time.monotonic() + self.options["seconds"]
        clients: set[socket.socket] = set()
        while (left := end - time.monotonic()) > 0:
            ready, _, _ = select.select([self.sock, *clients], [], [], min(left, 1.0))
            for sock in ready:
                if sock is not self.sock:
                    self.echo(sock, clients)
                elif self.options["proto"] == "tcp":
                    self.accept(clients)
                else:
                    with contextlib.suppress(OSError):
                        data, peer = sock.recvfrom(65536)
                        sock.sendto(data, peer)

    def accept(self, clients: set[socket.socket]) -> None:
        """Take one connection."""
        with contextlib.suppress(OSError):
            client, _ = self.sock.accept()
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
