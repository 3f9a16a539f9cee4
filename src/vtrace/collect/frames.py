"""Compressed frames that say how large their content is: LZ4 (frame format 1.6.4) and zstd (RFC 8878).

`lz4 -d`, `zstd -d` and Arrow read them. Arrow writes LZ4 frames without the size, so the frame is made here around the
blocks that Arrow compresses.
"""

from __future__ import annotations

import struct
from typing import Literal

import pyarrow as pa

CodecName = Literal["lz4", "zstd"]

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_LEVEL = 1
# Magic number, descriptor and size of the smallest, and the header and end of an empty block.
_ZSTD_HEAD_BYTES = 9
_LZ4_MAGIC = b"\x04\x22\x4d\x18"
# Version 1, independent blocks, content size; blocks of up to 4 MiB.
_LZ4_FLAGS, _LZ4_BLOCK_SIZE = 0x68, 0x70
_LZ4_BLOCK_BYTES = 4 << 20
_LZ4_STORED = 1 << 31
# XXH32, for data below 16 bytes.
_PRIME_1, _PRIME_2, _PRIME_3, _PRIME_4, _PRIME_5 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1
_WORD = 0xFFFFFFFF


def compress(data: pa.Buffer, codec: CodecName) -> bytes:
    """A frame of the data."""
    if codec == "zstd":
        return bytes(pa.Codec("zstd", compression_level=_ZSTD_LEVEL).compress(data, asbytes=True))
    descriptor = struct.pack("<BBQ", _LZ4_FLAGS, _LZ4_BLOCK_SIZE, data.size)
    parts = [_LZ4_MAGIC, descriptor, bytes([_xxh32(descriptor) >> 8 & 0xFF])]
    raw = pa.Codec("lz4_raw")
    for begin in range(0, data.size, _LZ4_BLOCK_BYTES):
        block = data.slice(begin, min(_LZ4_BLOCK_BYTES, data.size - begin))
        packed = raw.compress(block, asbytes=True)
        if len(packed) < block.size:
            parts += [struct.pack("<I", len(packed)), packed]
        else:
            parts += [struct.pack("<I", block.size | _LZ4_STORED), bytes(block)]
    return b"".join([*parts, struct.pack("<I", 0)])


def decompress(frame: pa.Buffer, *, most: int) -> pa.Buffer:
    """The content of a frame.

    Args:
        most: bytes that it may have; one that says more is not believed.

    Raises:
        ValueError: it is no such frame, says nothing of its size, or says too much.
        OSError: it is broken.
    """
    head = bytes(frame[:18])
    if head[:4] == _ZSTD_MAGIC:
        name, size = "zstd", _zstd_size(head)
    elif head[:4] == _LZ4_MAGIC and len(head) >= 15 and head[4] & 0xC8 == 0x48:
        name, size = "lz4", int.from_bytes(head[6:14], "little")
    else:
        raise ValueError("it is neither an LZ4 frame nor a zstd frame that says how large it is")
    if size > most:
        raise ValueError(f"it says that it has {size:,} bytes")
    return pa.Codec(name).decompress(frame, decompressed_size=size)


def _zstd_size(head: bytes) -> int:
    """The size that a zstd frame says its content has (RFC 8878, 3.1.1.1)."""
    if len(head) < _ZSTD_HEAD_BYTES:
        raise ValueError("it is cut short")
    descriptor = head[4]
    single = descriptor >> 5 & 1
    at = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
    width = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    if not width:
        raise ValueError("it does not say how large its content is")
    return int.from_bytes(head[at : at + width], "little") + (256 if width == 2 else 0)


def _xxh32(data: bytes) -> int:
    """XXH32 (xxHash specification) of less than 16 bytes, with seed 0."""
    value = (_PRIME_5 + len(data)) & _WORD
    whole = len(data) // 4 * 4
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        value = _turned((value + word * _PRIME_3) & _WORD, 17) * _PRIME_4 & _WORD
    for byte in data[whole:]:
        value = _turned((value + byte * _PRIME_5) & _WORD, 11) * _PRIME_1 & _WORD
    value = (value ^ value >> 15) * _PRIME_2 & _WORD
    value = (value ^ value >> 13) * _PRIME_3 & _WORD
    return value ^ value >> 16


def _turned(value: int, bits: int) -> int:
    return (value << bits | value >> 32 - bits) & _WORD
