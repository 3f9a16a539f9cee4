"""What really passes a VM's interface: a packet socket in its namespace, read when the case is over."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

CLONE_NEWNET = 0x40000000
ETH_P_ALL = 0x0003
SO_RCVBUFFORCE = 33
PACKET_OUTGOING = 4
BUFFER_BYTES = 64 << 20
PROTOS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp"}
ECHO_REQUESTS = (8, 128)
ECHO_REPLIES = (0, 129)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Packet:
    """An IP packet as the VM sent or got it; `body` is all behind the IP header."""

    outgoing: bool
    src: str
    dst: str
    proto: str
    dscp: int
    ecn: int
    ttl: int
    ident: int
    body: bytes

    @property
    def sequence(self) -> int | None:
        """The number the lab's traffic writes first into each UDP message, or the ICMP echo's."""
        if self.proto == "udp" and len(self.body) >= 12:
            return int(struct.unpack_from("!I", self.body, 8)[0])
        if self.proto == "icmp" and len(self.body) >= 8:
            return int(struct.unpack_from("!H", self.body, 6)[0])
        return None


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Be in a network namespace for the time of the block: sockets made there stay there."""
    with open("/proc/self/ns/net", "rb") as home, open(f"/run/netns/{namespace}", "rb") as there:
        if _libc.setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
        try:
            yield
        finally:
            if _libc.setns(home.fileno(), CLONE_NEWNET):
                os.abort()  # every later command would run in the wrong place


class Sniffer:
    """All packets at an interface since it was opened or last read."""

    def __init__(self, namespace: str, interface: str = "eth0") -> None:
        with inside(namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
            self._socket.bind((interface, ETH_P_ALL))
        self._socket.setblocking(False)

    def __enter__(self) -> Sniffer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.close()

    def read(self) -> list[Packet]:
        """The IP packets that passed since the last call."""
        found: list[Packet] = []
        while True:
            try:
                frame, address = self._socket.recvfrom(65536)
            except BlockingIOError:
                return found
            packet = decode(frame, address[2] == PACKET_OUTGOING)
            if packet is not None:
                found.append(packet)


def decode(frame: bytes, outgoing: bool) -> Packet | None:
    """An Ethernet frame as a packet; None if it is not IP (extension headers are not looked into)."""
    ethertype = struct.unpack_from("!H", frame, 12)[0]
    ip = frame[14:]
    if ethertype == 0x0800:
        length = (ip[0] & 0x0F) * 4
        total = struct.unpack_from("!H", ip, 2)[0]
        proto, ttl, tos = ip[9], ip[8], ip[1]
        src, dst = ipaddress.ip_address(ip[12:16]), ipaddress.ip_address(ip[16:20])
        body, ident = ip[length:total], struct.unpack_from("!H", ip, 4)[0]
    elif ethertype == 0x86DD:
        tos = struct.unpack_from("!H", ip)[0] >> 4 & 0xFF
        proto, ttl, ident = ip[6], ip[7], 0
        src, dst = ipaddress.ip_address(ip[8:24]), ipaddress.ip_address(ip[24:40])
        body = ip[40 : 40 + struct.unpack_from("!H", ip, 4)[0]]
    else:
        return None
    return Packet(
        outgoing=outgoing,
        src=str(src),
        dst=str(dst),
        proto=PROTOS.get(proto, str(proto)),
        dscp=tos >> 2,
        ecn=tos & 3,
        ttl=ttl,
        ident=ident,
        body=body,
    )
