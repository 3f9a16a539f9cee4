"""The truth about generated packets: what became of each, as the generator knows it and not as its records tell."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vtrace.collect.store import writing
from vtrace.synthetic.chance import Ints
from vtrace.synthetic.kinds import ALL_KINDS, LOOP
from vtrace.synthetic.packets import DISPOSITIONS, LOST_BETWEEN
from vtrace.synthetic.records import Records, World

_WORD = pa.dictionary(pa.int8(), pa.string())
TRUTH_SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("color", pa.uint8(), nullable=False),
        pa.field("epoch", pa.int64(), nullable=False),
        pa.field("key", pa.int64(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("pair", pa.int32(), nullable=False),
        pa.field("packet", pa.int64(), nullable=False),
        pa.field("kind", _WORD, nullable=False),
        pa.field("disposition", _WORD, nullable=False),
        pa.field("chassis", pa.string(), nullable=False),
        pa.field("datapath", pa.int64(), nullable=False),
        pa.field("peer", pa.string(), nullable=False),
        pa.field("goal_chassis", pa.string(), nullable=False),
        pa.field("goal_datapath", pa.int64(), nullable=False),
        pa.field("goal_key", pa.int64(), nullable=False),
        pa.field("hops", pa.int32(), nullable=False),
        pa.field("copies", pa.int32(), nullable=False),
        pa.field("lost_records", pa.int32(), nullable=False),
    ]
)
"""A row for each packet.

`packet` is its number in its task. `chassis` and `datapath` are of the last record that was written on its way, which
for a flooded packet is the way to its receiver. `peer` is the server that a packet lost between two servers was sent
to, else empty. `goal_*` is the port that it was meant for, which may be one to a physical network; nothing where it
goes round in a loop. `hops` is the number of records that were written of it, on all its ways; `copies` how many
packets of this color and epoch have its key, itself included; `lost_records` how many of its records were lost.
"""


def truth_of(world: World, records: Records, lost: Ints) -> pa.Table:
    """The truth about the packets of a span.

    Args:
        lost: of each packet, how many of its records were lost.
    """
    packets, pairs, ways, stops, cloud = records.packets, records.pairs, records.ways, records.stops, world.cloud
    pair = packets.pair
    is_between = packets.disposition == DISPOSITIONS.index(LOST_BETWEEN)
    following = np.minimum(ways.start[packets.way] + packets.made, len(stops.server) - 1)
    peer = np.where(is_between, stops.server[following], cloud.size)
    goal = ways.start[packets.way] + ways.length[packets.way] - 1
    has_goal = pairs.kind[pair] != ALL_KINDS.index(LOOP)
    columns = (
        packets.color,
        packets.epoch,
        packets.key,
        world.tasks.names.take(pa.array(pairs.task[pair])),
        pairs.number[pair],
        packets.number,
        pa.DictionaryArray.from_arrays(pairs.kind[pair].astype(np.int8), list(ALL_KINDS)),
        pa.DictionaryArray.from_arrays(packets.disposition.astype(np.int8), list(DISPOSITIONS)),
        cloud.chassis.take(pa.array(stops.server[packets.last])),
        stops.datapath[packets.last],
        cloud.chassis.take(pa.array(peer)),
        cloud.chassis.take(pa.array(np.where(has_goal, stops.server[goal], cloud.size))),
        np.where(has_goal, stops.datapath[goal], 0),
        np.where(has_goal, stops.out_key[goal], 0),
        packets.made,
        packets.copies,
        lost,
    )
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column.astype(field.type.to_pandas_dtype()))
        for column, field in zip(columns, TRUTH_SCHEMA, strict=True)
    ]
    return pa.table(arrays, schema=TRUTH_SCHEMA)


class TruthFile:
    """Writes the truth, or without a path only counts it.

    Attributes:
        packets: how many there are; dispositions: how many of each; kinds: likewise.
    """

    def __init__(self, path: Path | None) -> None:
        self.packets = 0
        self.dispositions = dict.fromkeys(DISPOSITIONS, 0)
        self.kinds: Counter[str] = Counter()
        self._path = path
        self._writer: Any = None
        if path:
            with writing(path):
                self._writer = pq.ParquetWriter(path, TRUTH_SCHEMA, compression="zstd")

    def add(self, world: World, records: Records, lost: Ints) -> None:
        """Adds the packets of a span."""
        packets = records.packets
        self.packets += len(packets.number)
        for number, word in enumerate(DISPOSITIONS):
            self.dispositions[word] += int(np.count_nonzero(packets.disposition == number))
        counts = np.bincount(records.pairs.kind[packets.pair], minlength=len(ALL_KINDS)).tolist()
        self.kinds.update({kind: count for kind, count in zip(ALL_KINDS, counts, strict=True) if count})
        if self._path:
            with writing(self._path):
                self._writer.write_table(truth_of(world, records, lost))

    def close(self) -> None:
        """Completes the file."""
        if self._path:
            with writing(self._path):
                self._writer.close()

    def abandon(self) -> None:
        """Leaves nothing."""
        if self._path:
            with suppress(OSError):
                self._writer.close()
            self._path.unlink(missing_ok=True)
