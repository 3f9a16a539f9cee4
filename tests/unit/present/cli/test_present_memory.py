"""A small file can unpack to any size: that ends as an error, and takes no memory from others."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from vtrace.model.record import LogRecord
from vtrace.model.record_schema import RECORD_SCHEMA, to_table

ROWS, TIMES = 100_000, 30
MOST_BYTES = 500 << 20


def test_a_file_that_unpacks_to_more_than_there_is(tmp_path: Path) -> None:
    record = LogRecord(
        chassis="a", incarnation=1, seq=1, color=3, epoch=1, key=1, point=0, datapath=1, proto=17, src="a", dst="b"
    )
    table = to_table([record]).take([0] * ROWS)
    file = tmp_path / "bomb.parquet"
    with pq.ParquetWriter(file, RECORD_SCHEMA) as writer:
        for _ in range(TIMES):
            writer.write_table(table)
    assert file.stat().st_size < 1 << 20
    done = subprocess.run(
        [sys.executable, "-m", "vtrace.present.cli.main", "reconstruct", str(file), "--json", "--cores", "1"],
        capture_output=True,
        text=True,
        timeout=100,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES)),
    )
    assert done.returncode == 2, done.stderr
    assert json.loads(done.stdout)["error"]["where"].startswith(str(file))
    assert "Traceback" not in done.stderr
