"""One end of a measured traffic: a program of its own, standard library only, run by path.

`stream.py JSON` opens its sockets inside network namespaces, prints a line when it is ready, and works until it is
ended. JSON: role, and with it:

- flood: namespace, source, destination, dport, flows (source ports), ttls, size: sends datagrams as fast as it can;
  with `follows`, the counts of a sink, as many together only as go by one call, the next when these have arrived
- bulk: namespace, source, destination, dport: one TCP connection, as fast as it can
- sink: namespace, address, dport: counts datagrams, and the bytes of TCP connections
- probe: namespace, source, destination, dport, rate, most: sends numbered datagrams, and notes when each came back
- echo: namespace, address, dport: sends back what it gets
- paced: rate (of all together), ttls, ways [[namespace, source, destination namespace, destination, dport], …]

`counts`: a file of two unsigned 64-bit numbers in the machine's order (packets, bytes) that it keeps up to date; a
probe writes of each packet when it was sent, when it came back (0: not yet; both monotonic ns), and as which one.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import selectors
import socket
import struct
import sys
import time
from typing import Any

CLONE_NEWNET = 0x40000000
TOGETHER = 64
"""Datagrams sent or taken by one call."""
CHUNK_BYTES = 1 << 18
LOST_AFTER_S = 0.2
QUEUE_BYTES = 1 << 22
MSG_WAITFORONE = 0x10000
COUNTS = struct.Struct("=QQ")
PROBED = struct.Struct("=QQQ")
NUMBER = struct.Struct("!Q")

_libc = ctypes.CDLL(None, use_errno=True)
Options = dict[str, Any]


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Header(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)),
        ("count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Message(ctypes.Structure):
    _fields_ = [("header", _Header), ("length", ctypes.c_uint32)]


class Batch:
    """So many equal buffers for sendmmsg(2) and recvmmsg(2)."""

    def __init__(self, size: int) -> None:
        self.buffer = ctypes.create_string_buffer(size)
        self.vector = _Vector(ctypes.cast(self.buffer, ctypes.c_void_p), size)
        self.messages = (_Message * TOGETHER)()
        for message in self.messages:
            message.header.vectors = ctypes.pointer(self.vector)
            message.header.count = 1

    def send(self, descriptor: int) -> int:
        """How many were sent; none where the queue is full."""
        return max(0, int(_libc.sendmmsg(descriptor, self.messages, TOGETHER, 0)))

    def receive(self, descriptor: int) -> int:
        """How many came; waits for one."""
        return max(0, int(_libc.recvmmsg(descriptor, self.messages, TOGETHER, MSG_WAITFORONE, None)))


class Counts:
    """The file that tells others how far we are."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self.packets = self.size_bytes = 0

    def add(self, packets: int, size_bytes: int) -> None:
        self.packets += packets
        self.size_bytes += size_bytes
        COUNTS.pack_into(self._map, 0, self.packets, self.size_bytes)

    def probed(self, number: int, sent_ns: int, back_ns: int, place: int) -> None:
        PROBED.pack_into(self._map, number * PROBED.size, sent_ns, back_ns, place)

    def sent_ns(self, number: int) -> int:
        found: int = PROBED.unpack_from(self._map, number * PROBED.size)[0]
        return found


def enter(namespace: str) -> None:
    """Sockets made from now on belong to this network namespace."""
    with open(f"/run/netns/{namespace}", "rb") as file:
        if _libc.setns(file.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), namespace)


def datagrams(namespace: str, address: str, port: int, ttl: int = 64) -> socket.socket:
    """A bound UDP socket."""
    enter(namespace)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, QUEUE_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUFFORCE if hasattr(socket, "SO_RCVBUFFORCE") else 33, QUEUE_BYTES)
    sock.bind((address, port))
    return sock


def ready() -> None:
    print("ready", flush=True)


class Arrivals:
    """What a sink has counted since now."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (as long as the program)
        self._lost = -self._packets()

    def _packets(self) -> int:
        found: int = COUNTS.unpack(os.pread(self._file.fileno(), COUNTS.size, 0))[0]
        return found

    def wait(self, sent: int) -> None:
        """Waits until all that were sent have arrived; those that take too long are lost."""
        ends_s = time.monotonic() + LOST_AFTER_S
        while (missing := sent - self._packets() - self._lost) > 0:
            if time.monotonic() > ends_s:
                self._lost += missing
                return
            time.sleep(1e-4)


def flood(options: Options, counts: Counts) -> None:
    socks = []
    for number in range(options["flows"]):
        ttls = options["ttls"]
        sock = datagrams(options["namespace"], options["source"], 0, ttls[number % len(ttls)])
        sock.connect((options["destination"], options["dport"]))
        socks.append(sock)
    batch = Batch(options["size"])
    arrived = Arrivals(options["follows"]) if "follows" in options else None
    ready()
    while True:
        for sock in socks:
            if arrived is not None:
                arrived.wait(counts.packets)
            sent = batch.send(sock.fileno())
            counts.add(sent, sent * options["size"])


def bulk(options: Options, counts: Counts) -> None:
    enter(options["namespace"])
    sock = socket.create_connection((options["destination"], options["dport"]), 10, (options["source"], 0))
    sock.settimeout(None)
    chunk = bytes(CHUNK_BYTES)
    ready()
    while True:
        counts.add(0, sock.send(chunk))


def sink(options: Options, counts: Counts) -> None:
    address = (options["address"], options["dport"])
    sock = datagrams(options["namespace"], *address)
    listener = socket.create_server(address)
    selector = selectors.DefaultSelector()
    selector.register(sock, selectors.EVENT_READ)
    selector.register(listener, selectors.EVENT_READ)
    batch, buffer = Batch(2048), bytearray(CHUNK_BYTES)
    ready()
    while True:
        for key, _ in selector.select():
            if key.fileobj is sock:
                came = batch.receive(sock.fileno())
                counts.add(came, came * batch.messages[0].length)
            elif key.fileobj is listener:
                selector.register(listener.accept()[0], selectors.EVENT_READ)
            elif isinstance(key.fileobj, socket.socket):
                came = key.fileobj.recv_into(buffer)
                counts.add(0, came)
                if not came:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()


def echo(options: Options, _counts: Counts) -> None:
    sock = datagrams(options["namespace"], options["address"], options["dport"])
    ready()
    while True:
        data, sender = sock.recvfrom(2048)
        sock.sendto(data, sender)


def probe(options: Options, counts: Counts) -> None:
    sock = datagrams(options["namespace"], options["source"], 0)
    sock.connect((options["destination"], options["dport"]))
    sock.setblocking(False)
    interval_ns = int(1e9 / options["rate"])
    poller = selectors.DefaultSelector()
    poller.register(sock, selectors.EVENT_READ)
    number = place = 0
    ready()
    due_ns = time.monotonic_ns()
    while number < options["most"]:
        now_ns = time.monotonic_ns()
        if now_ns >= due_ns:
            counts.probed(number, now_ns, 0, 0)
            sock.send(NUMBER.pack(number).ljust(64, b"\0"))
            number += 1
            # One that fell behind does not catch up: a burst would be another traffic.
            due_ns = max(due_ns + interval_ns, now_ns)
        for _ in poller.select(max(0, due_ns - time.monotonic_ns()) / 1e9):
            back = NUMBER.unpack(sock.recv(2048)[: NUMBER.size])[0]
            place += 1
            counts.probed(back, counts.sent_ns(back), time.monotonic_ns(), place)


def paced(options: Options, counts: Counts) -> None:
    """Each datagram goes another way, in turn; at the other end nobody reads, and the kernel drops."""
    ways, ends = [], {}
    for namespace, source, there, destination, dport in options["ways"]:
        if (there, dport) not in ends:
            ends[there, dport] = datagrams(there, destination, dport)
        for ttl in options.get("ttls", [64]):
            sock = datagrams(namespace, source, 0, ttl)
            sock.connect((destination, dport))
            ways.append(sock)
    message = bytes(64)
    ready()
    due_s = time.monotonic()
    number = 0
    while True:
        ways[number % len(ways)].send(message)
        counts.add(1, len(message))
        number += 1
        due_s = max(due_s + 1.0 / options["rate"], time.monotonic() - 0.1)
        time.sleep(max(0.0, due_s - time.monotonic()))


ROLES = {"flood": flood, "bulk": bulk, "sink": sink, "echo": echo, "probe": probe, "paced": paced}


def main() -> None:
    options: Options = json.loads(sys.argv[1])
    ROLES[options["role"]](options, Counts(options["counts"]))


if __name__ == "__main__":
    main()
