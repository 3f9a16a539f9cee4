"""A small synthetic cloud, made as often as a test asks for one."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vtrace.collect.store import read_records
from vtrace.model.record import Point
from vtrace.model.record_schema import StreamEnd, streams_of
from vtrace.synthetic.generating import SPAN_RECORDS, Totals, build_world, generate
from vtrace.synthetic.options import Options
from vtrace.synthetic.output import BlobSink, ParquetSink, ShuffledSink, Sink
from vtrace.synthetic.truth import TruthFile

Row = dict[str, Any]


class Made(NamedTuple):
    """What was generated, and where."""

    path: Path
    truth_path: Path
    table: pa.Table
    truth: list[Row]
    ends: tuple[StreamEnd, ...]
    totals: Totals

    def records(self) -> dict[tuple[int, int, int], list[Row]]:
        """The records of each key, each once, in the order of their agents."""
        found: dict[tuple[int, int, int], dict[tuple[str, int, int], Row]] = defaultdict(dict)
        for row in self.table.to_pylist():
            identity = (row["chassis"], row["incarnation"], row["seq"])
            found[row["color"], row["epoch"], row["key"]][identity] = row
        return {key: [rows[identity] for identity in sorted(rows)] for key, rows in found.items()}


class Generator:
    """Generates clouds into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def __call__(self, suffix: str = ".parquet", span_records: int = SPAN_RECORDS, **options: Any) -> Made:
        """One with these options; `suffix` says in which form, `span_records` in which pieces."""
        self._count += 1
        path = self._folder / f"{self._count}{suffix}"
        truth_path = self._folder / f"{self._count}.truth.parquet"
        given = Options(**{"servers": 30, "vpcs": 12, "tasks": 6, "packets": 200, **options})
        world = build_world(given)
        totals = generate(world, _sink(path, given), TruthFile(truth_path), span_records)
        table = read_records(path)
        truth = pq.read_table(truth_path).to_pylist()
        return Made(path, truth_path, table, truth, streams_of(table.schema.metadata), totals)


def _sink(path: Path, given: Options) -> Sink:
    if path.suffix == ".blobs":
        return BlobSink(path, buckets=4, blob_records=300, shuffle=given.shuffle)
    return ShuffledSink(ParquetSink(path), parts=3) if given.shuffle else ParquetSink(path)


def sorted_rows(table: pa.Table) -> pa.Table:
    """The rows in an order that does not depend on how they were made."""
    by = [(name, "ascending") for name in ("color", "epoch", "chassis", "incarnation", "seq")]
    return table.sort_by(by).combine_chunks()


def way(rows: list[Row]) -> list[Row]:
    """One packet's records in the order of its way, from what they say of each other."""
    by_server: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_server[row["chassis"]].append(row)
    (first,) = [row for row in rows if row["point"] == Point.FIRST_HOP]
    found: list[Row] = []
    server, came_from = first["chassis"], ""
    while by_server[server]:
        here = by_server[server]
        assert not came_from or (here[0]["point"], here[0]["peer"]) == (Point.INGRESS, came_from)
        sent = next((n for n, row in enumerate(here) if row["point"] == Point.REMOTE_OUTPUT), len(here) - 1)
        found += here[: sent + 1]
        by_server[server] = here[sent + 1 :]
        if here[sent]["point"] != Point.REMOTE_OUTPUT:
            break
        server, came_from = here[sent]["peer"], server
    return found
