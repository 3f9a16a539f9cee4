"""What the other formulations start from: a part's blobs as two Arrow tables, records and the places they point to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from vtrace.analyzer.stored import Stored
from vtrace.analyzer.working import Source
from vtrace.model.record_schema import HEADERS, PACKET, PLACE

# The group bit of a 48-bit Ethernet address (IEEE 802).
GROUP_BIT = 40
STREAM = ("chassis", "incarnation", "color", "epoch")
USE = ("color", "epoch")
SPOT = ("chassis", "point", "datapath", "in_key", "out_key", "in_ofport", "peer")
_FIELDS = ("place", *dict.fromkeys((*STREAM, *SPOT, "task", "pair")))


class PartTables(NamedTuple):
    """A part.

    Attributes:
        records: key, seq (int64); place (int32): a row of `places`; to_group: to a group's Ethernet address.
        places: `_FIELDS`. Several may be alike: each blob has its own.
    """

    records: pa.Table
    places: pa.Table


def tables_of(batches: Sequence[pa.RecordBatch]) -> PartTables:
    """Joins batches of the compact form; their columns may be of narrower types than the schema's."""
    rows, to_group, places, offset = [], [], [], 0
    for batch in batches:
        place, headers = batch.column(PLACE), batch.column(HEADERS)
        rows.append(place.indices.to_numpy().astype(np.int32) + np.int32(offset))
        offset += len(place.dictionary)
        is_group = headers.dictionary.field("eth_dst").to_numpy() >> GROUP_BIT & 1 == 1
        to_group.append(is_group[headers.indices.to_numpy()])
        places.append(pa.Table.from_struct_array(place.dictionary))
    records = {
        "key": np.concatenate([_keys(batch.column(PACKET)) for batch in batches]),
        "seq": np.concatenate([batch.column("seq").to_numpy().astype(np.int64, copy=False) for batch in batches]),
        "place": np.concatenate(rows),
        "to_group": np.concatenate(to_group),
    }
    table = pa.concat_tables(places).append_column("place", pa.array(np.arange(offset, dtype=np.int32)))
    arrays = {name: pa.array(values) for name, values in records.items()}
    return PartTables(records=pa.table(arrays), places=table.select(_FIELDS))


def _keys(packets: pa.DictionaryArray) -> np.ndarray:
    keys: np.ndarray = packets.dictionary.field("key").to_numpy().astype(np.int64)[packets.indices.to_numpy()]
    return keys


def over_parts(stored: Stored, threads: int, work: Callable[[PartTables], pa.Table]) -> list[pa.Table]:
    """What a formulation finds in each part, several parts at once."""

    def one(source: Source) -> pa.Table:
        return work(tables_of(source.read()))

    if threads <= 1:
        return list(map(one, stored.parts))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, stored.parts))
