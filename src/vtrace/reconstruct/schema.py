"""What reconstruction gives: the seam that any implementation of it (plain or columnar) has to keep."""

from __future__ import annotations

import msgspec
import pyarrow as pa

PACKET_SCHEMA: pa.Schema = pa.schema(
    [
        ("color", pa.int16()),
        ("epoch", pa.int64()),
        ("key", pa.int64()),
        ("copy", pa.int32()),
        ("task", pa.string()),
        ("pair", pa.int64()),
        ("order", pa.int64()),
        ("path", pa.int32()),
        ("disposition", pa.string()),
        ("gap", pa.bool_()),
        ("ambiguous", pa.bool_()),
        ("hops", pa.list_(pa.int64())),
        ("others", pa.list_(pa.int64())),
    ]
)
"""One row a packet. `copy` numbers packets with one key; `order` is the rank of its first-hop record within its
chassis; `path` a row of `PATH_SCHEMA`; `hops` are rows of the records table, in path order; `gap` says that hops
between them are missing; `ambiguous` that several packets had this key; `others` are rows of copies of the packet
that went elsewhere (broadcast, multicast)."""

PATH_SCHEMA: pa.Schema = pa.schema(
    [
        ("pair", pa.int64()),
        ("disposition", pa.string()),
        ("packets", pa.int64()),
        ("hops", pa.list_(pa.int64())),
    ]
)
"""One row a distinct path of a pair: `packets` took it; `hops` are the rows of one of them."""


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """The port that a pair's packets are meant for, and the chassis that has it."""

    datapath: int
    key: int
    chassis: str


class Reconstruction(msgspec.Struct, frozen=True, kw_only=True):
    """The result.

    Attributes:
        records: the records, each once, in canonical order (chassis, incarnation, seq).
        packets: `PACKET_SCHEMA`.
        paths: `PATH_SCHEMA`.
        unclaimed: packets that have records but none of the first hop; counted, never answered.
    """

    records: pa.Table
    packets: pa.Table
    paths: pa.Table
    unclaimed: int
