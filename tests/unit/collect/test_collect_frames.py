"""Compressed frames: what other programs make of them, and what can't be believed."""

from __future__ import annotations

import io
import struct

import pyarrow as pa
import pytest
from builders import PROPERTY
from hypothesis import given
from hypothesis import strategies as st

from vtrace.collect.frames import CodecName, _xxh32, compress, decompress

CODECS: list[CodecName] = ["lz4", "zstd"]
MOST = 1 << 24


@PROPERTY
@given(data=st.binary(max_size=5000), codec=st.sampled_from(CODECS))
def test_what_was_compressed_comes_back(data: bytes, codec: CodecName) -> None:
    assert bytes(decompress(pa.py_buffer(compress(pa.py_buffer(data), codec)), most=MOST)) == data


@pytest.mark.parametrize("codec", CODECS)
def test_data_of_many_blocks(codec: CodecName) -> None:
    data = b"".join(number.to_bytes(4, "little") for number in range(3 << 20))
    assert bytes(decompress(pa.py_buffer(compress(pa.py_buffer(data), codec)), most=MOST)) == data


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("data", [b"", b"a", b"hello " * 1000, bytes(range(256)) * 3])
def test_arrow_reads_a_frame_as_any_program_would(codec: CodecName, data: bytes) -> None:
    with pa.CompressedInputStream(io.BytesIO(compress(pa.py_buffer(data), codec)), codec) as stream:
        assert stream.read() == data


# Made of 100 times "a" by the format's own program: lz4 -1 --content-size -BI --no-frame-crc (1.9.4).
GOLDEN = bytes.fromhex("04224d18 6840 6400000000000000 23 0b000000 1f6101004b506161616161 00000000".replace(" ", ""))


def test_golden_bytes() -> None:
    assert bytes(decompress(pa.py_buffer(GOLDEN), most=MOST)) == b"a" * 100
    assert _xxh32(GOLDEN[4:14]) >> 8 & 0xFF == GOLDEN[14]
    own = compress(pa.py_buffer(b"a" * 100), "lz4")
    # Ours allows for larger blocks; that and the checksum of it is all that differs.
    assert (own[:5], own[5], own[6:14], own[15:]) == (GOLDEN[:5], 0x70, GOLDEN[6:14], GOLDEN[15:])


def test_the_vectors_of_xxh32() -> None:
    assert [_xxh32(data) for data in (b"", b"a", b"abc")] == [0x02CC5D05, 0x550D7456, 0x32D153FF]


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_broken_is_told(codec: CodecName) -> None:
    frame = compress(pa.py_buffer(bytes(range(256)) * 40), codec)
    for length in (0, 3, 4, 10, len(frame) // 2):
        with pytest.raises((ValueError, OSError, IndexError)):
            decompress(pa.py_buffer(frame[:length]), most=MOST)


def test_a_size_that_can_not_be_is_not_believed() -> None:
    frame = compress(pa.py_buffer(b"a" * 100), "lz4")
    with pytest.raises(ValueError, match="says that it has"):
        decompress(pa.py_buffer(frame[:6] + struct.pack("<Q", 1 << 60) + frame[14:]), most=MOST)
