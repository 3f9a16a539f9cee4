"""Sends frames from a VM at a steady rate, and counts what passes a VM's interface."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from vtrace.bench.capture import BUFFER_BYTES, ETH_P_ALL, PACKET_OUTGOING, SO_RCVBUFFORCE, inside

SOL_PACKET = 263
PACKET_AUXDATA = 8
VLAN_VALID = 0x10
_AUXDATA = struct.Struct("=IIIHHHH")


@dataclass(frozen=True)
class Seen:
    """A frame with IP, as it passed the interface. `body` is all behind the IP header."""

    outgoing: bool
    src: str
    dst: str
    proto: int
    dscp: int
    ident: int
    fragment: int
    vlan: int | None
    length: int
    body: bytes


class Tap:
    """All IP packets at a VM's interface since it was opened or last read."""

    def __init__(self, namespace: str, interface: str = "eth0") -> None:
        with inside(namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
            self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            self._socket.bind((interface, ETH_P_ALL))
        self._socket.setblocking(False)

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.close()

    def read(self) -> list[Seen]:
        """What passed since the last call."""
        seen = [_seen(frame, tag, outgoing) for frame, tag, outgoing in self._frames()]
        return [packet for packet in seen if packet is not None]

    def read_frames(self) -> list[tuple[bool, bytes]]:
        """The whole frames that passed since the last call, and whether they went out; with their VLAN tags."""
        return [
            (outgoing, frame if tag is None else frame[:12] + struct.pack("!HH", 0x8100, tag) + frame[12:])
            for frame, tag, outgoing in self._frames()
        ]

    def _frames(self) -> Iterator[tuple[bytes, int | None, bool]]:
        """Frames, the tags that the kernel took off, and whether they went out."""
        while True:
            try:
                frame, ancillary, _, address = self._socket.recvmsg(65536, socket.CMSG_SPACE(_AUXDATA.size))
            except BlockingIOError:
                return
            yield frame, _tag(ancillary), address[2] == PACKET_OUTGOING


def _tag(ancillary: Sequence[tuple[int, int, bytes]]) -> int | None:
    """The VLAN tag that the kernel took off the frame (packet(7), PACKET_AUXDATA)."""
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, tci = _AUXDATA.unpack(data)[0], _AUXDATA.unpack(data)[5]
            return tci & 0xFFF if status & VLAN_VALID else None
    return None


def _seen(frame: bytes, tag: int | None, outgoing: bool) -> Seen | None:
    at = 12
    (ethertype,) = struct.unpack_from("!H", frame, at)
    if ethertype == 0x8100:
        tag = struct.unpack_from("!H", frame, at + 2)[0] & 0xFFF
        at += 4
        (ethertype,) = struct.unpack_from("!H", frame, at)
    packet = frame[at + 2 :]
    if ethertype == 0x0800:
        _, tos, length, ident, fragment, _, proto = struct.unpack_from("!BBHHHBB", packet)
        source, destination = packet[12:16], packet[16:20]
        body = packet[(packet[0] & 15) * 4 : length]
    elif ethertype == 0x86DD:
        word, payload, proto = struct.unpack_from("!IHB", packet)
        tos, ident, fragment, length = word >> 20 & 0xFF, 0, 0, payload + 40
        source, destination, body = packet[8:24], packet[24:40], packet[40:length]
        if proto == 44:
            proto, _, offset, ident = struct.unpack_from("!BBHI", body)
            fragment, body = offset >> 3 | (offset & 1) << 13, body[8:]
    else:
        return None
    return Seen(
        outgoing=outgoing,
        src=str(ipaddress.ip_address(source)),
        dst=str(ipaddress.ip_address(destination)),
        proto=proto,
        dscp=tos >> 2,
        ident=ident,
        fragment=fragment & 0x3FFF,
        vlan=tag,
        length=length,
        body=body,
    )


class Sender:
    """Sends bursts of frames from a VM's interface at a steady rate until it is left.

    Args:
        namespace: of the VM.
        make: the frames of the k-th burst.
        rate: bursts a second.
        limit: how many bursts at most.
    """

    def __init__(
        self,
        namespace: str,
        make: Callable[[int], Sequence[bytes]],
        rate: float,
        limit: int | None = None,
        interface: str = "eth0",
    ) -> None:
        with inside(namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            self._socket.bind((interface, 0))
        self._make, self._rate, self._limit = make, rate, limit
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.bursts = 0

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        due = time.monotonic()
        while (self._limit is None or self.bursts < self._limit) and not self._stop.wait(
            max(0.0, due - time.monotonic())
        ):
            for frame in self._make(self.bursts):
                self._socket.send(frame)
            self.bursts += 1
            due += 1 / self._rate
