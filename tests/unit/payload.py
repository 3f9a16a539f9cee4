"""A payload that is told from everything else, and the forms in which bytes of it could be stored or sent."""

from __future__ import annotations

import base64
from collections.abc import Iterator

# No eight bytes of it in a row are anywhere else by chance. The packet key takes in its first 16.
MARKER = b"tEnAnT-s3cr3t-PaYl0aD-\x8e\xf0\x9d"
SHORTEST = 6


def forms(marker: bytes = MARKER) -> Iterator[tuple[str, bytes]]:
    """(name, bytes to look for): pieces of the marker, as they are and as programs write bytes."""
    for begin in range(0, len(marker) - SHORTEST + 1):
        piece = marker[begin : begin + SHORTEST]
        where = f"bytes {begin} to {begin + SHORTEST}"
        yield where, piece
        yield f"{where}, backwards", piece[::-1]
        yield f"{where}, as UTF-16", b"".join(bytes([byte, 0]) for byte in piece)
        yield f"{where}, in hexadecimal", piece.hex().encode()
        yield f"{where}, in hexadecimal capitals", piece.hex().upper().encode()
        for separator in (b" ", b":", b"\\x", b", 0x"):
            yield f"{where}, in hexadecimal with {separator!r}", separator.join(b"%02x" % byte for byte in piece)
        yield f"{where}, in decimal", b", ".join(b"%d" % byte for byte in piece)
        yield f"{where}, as a number", str(int.from_bytes(piece, "big")).encode()
    for begin in range(3):
        # Base64 takes three bytes at a time: one of three beginnings is right.
        whole = (len(marker) - begin) // 3 * 3
        yield f"base64 from byte {begin}", base64.b64encode(marker[begin : begin + whole])[:8]


FORMS = tuple(forms())


def found_in(data: bytes) -> list[str]:
    """The forms of the marker that are in some bytes."""
    return [name for name, form in FORMS if form in data]
