"""What goes over the wire between two servers: the packets inside the tunnels, as they are there."""

from __future__ import annotations

import struct
from types import TracebackType

from vtrace.bench.capture import Packet, Sniffer, decode

GENEVE = 6081


class Underlay:
    """The packets that a server sends another through a Geneve tunnel (RFC 8926).

    Args:
        namespace: of the sending server.
        towards: the name of the other.
    """

    def __init__(self, namespace: str, towards: str) -> None:
        self._sniffer = Sniffer(namespace, f"to-{towards}")

    def __enter__(self) -> Underlay:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._sniffer.__exit__(kind, error, tb)

    def read(self) -> list[Packet]:
        """The inner IP packets that were sent since the last call."""
        found = [_inner(packet) for packet in self._sniffer.read() if packet.outgoing and packet.proto == "udp"]
        return [packet for packet in found if packet is not None]


def _inner(outer: Packet) -> Packet | None:
    if struct.unpack_from("!H", outer.body, 2)[0] != GENEVE:
        return None
    options_bytes = (outer.body[8] & 0x3F) * 4
    return decode(outer.body[16 + options_bytes :], outgoing=True)
