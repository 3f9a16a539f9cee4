"""How many bytes a record takes: in blobs, and as it would be sent one by one."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import msgspec
import pyarrow as pa

from vtrace.collect import blobs
from vtrace.collect.store import BlobStore

# So many records, from blobs all over the file, tell what the others would take as MessagePack.
_SAMPLE = 20_000
_SAMPLED_BLOBS = 20
_TOGETHER = 1_000


def bytes_per_record(path: Path) -> dict[str, float]:
    """Sizes of a blob store's records, in bytes a record.

    Returns:
        "blobs": compressed, as stored; "store": the file with what it says of blobs; "msgpack_arrays": each record
        an array of its fields in MessagePack; "msgpack_arrays_zstd": a thousand of these compressed together.
    """
    stored = list(BlobStore(path))
    records = sum(one.records for one in stored)
    if not records:
        return {}
    arrays: list[bytes] = []
    for one in stored[:: max(1, len(stored) // _SAMPLED_BLOBS)]:
        table = blobs.flat(pa.Table.from_batches([blobs.decode(one.blob)]))
        rows = zip(*(column.to_pylist() for column in table.slice(0, _SAMPLE // _SAMPLED_BLOBS).columns), strict=True)
        arrays += map(msgspec.msgpack.encode, rows)
    codec = pa.Codec("zstd", compression_level=1)
    begins = iter(arrays)
    together = iter(lambda: list(islice(begins, _TOGETHER)), [])
    compressed = sum(len(codec.compress(b"".join(some), asbytes=True)) for some in together)
    found = {
        "blobs": sum(one.blob.size for one in stored) / records,
        "store": path.stat().st_size / records,
        "msgpack_arrays": sum(map(len, arrays)) / len(arrays),
        "msgpack_arrays_zstd": compressed / len(arrays),
    }
    return {name: round(size, 1) for name, size in found.items()}
