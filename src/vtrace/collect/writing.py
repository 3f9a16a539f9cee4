"""Writes log records to a file in the flat form, with what their writers wrote in all and what chassis said of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vtrace.errors import UsageError
from vtrace.model.record import EvidenceRecord, StreamEnd
from vtrace.model.record_schema import with_evidence, with_streams

SUFFIXES = (".parquet", ".arrow")


def check_path(path: Path) -> None:
    """Checks that records can be written there.

    Raises:
        UsageError: the name's ending says no form, or the folder is not there.
    """
    if path.suffix not in SUFFIXES:
        what = f"The ending of {path.name!r} does not say in which form to write"
        raise UsageError(what, str(path), "", f"Let it end in {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise UsageError("There is no such folder", str(path.parent), "", "Make it, or name another")


def write_records(
    path: Path, table: pa.Table, ends: Iterable[StreamEnd] = (), evidence: Iterable[EvidenceRecord] = ()
) -> None:
    """Writes a table of `RECORD_SCHEMA` as Parquet or an Arrow IPC file, by the path's ending: whole, or not at all.

    Raises:
        UsageError: it can't be written there.
    """
    check_path(path)
    schema = with_evidence(with_streams(table.schema, ends), evidence)
    part = path.with_name(path.name + ".part")
    try:
        if path.suffix == ".parquet":
            pq.write_table(table.replace_schema_metadata(schema.metadata), part, compression="zstd")
        else:
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, schema, options=options) as writer:
                writer.write_table(table.replace_schema_metadata(schema.metadata))
        os.replace(part, path)
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError("Records can't be written", str(path), why, "Name a folder that may be written") from error
    finally:
        part.unlink(missing_ok=True)
