"""Small synthetic clouds in files, and what every formulation says of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vtrace.measuring import by_duckdb, by_kernel, by_pandas, by_polars
from vtrace.measuring.tally import Tally
from vtrace.synthetic.generating import build_world, generate
from vtrace.synthetic.options import Options
from vtrace.synthetic.output import BlobSink, ParquetSink
from vtrace.synthetic.truth import TruthFile

LAB = Path(__file__).parents[1] / "synthetic" / "data" / "lab.parquet"
FORMS: dict[str, Callable[[Path, int], Tally]] = {
    "kernel": by_kernel.run,
    "kernel-paths": by_kernel.run_paths,
    "polars": by_polars.run,
    "pandas": by_pandas.run,
    "duckdb": by_duckdb.run,
}
# Everything that may happen to packets and records, but for the loss of records.
EVENTFUL: dict[str, Any] = {
    "faults": 0.4,
    "floods": 0.1,
    "loops": 0.1,
    "moves": 0.5,
    "identical": 0.2,
    "repeat": 0.1,
    "late": 0.1,
    "restarts": 0.3,
    "skew_s": 3600.0,
    "shuffle": True,
}


def make_cloud(path: Path, truth: Path | None = None, **options: Any) -> Path:
    """Writes the records of a small cloud: a blob store or a Parquet file, as the name ends."""
    given = Options(**{"servers": 30, "vpcs": 12, "tasks": 4, "pairs": 8, "packets": 160, **options})
    if path.suffix == ".blobs":
        sink: BlobSink | ParquetSink = BlobSink(path, buckets=4, blob_records=500, shuffle=given.shuffle)
    else:
        sink = ParquetSink(path)
    generate(build_world(given), sink, TruthFile(truth))
    return path


def shaken(table: pa.Table, path: Path, seed: int) -> Path:
    """Writes the records in another order, some of them several times."""
    chance = np.random.default_rng(seed)
    rows = np.concatenate([np.arange(len(table)), chance.integers(0, len(table), len(table) // 5)])
    pq.write_table(table.take(pa.array(chance.permutation(rows))), path)
    return path
