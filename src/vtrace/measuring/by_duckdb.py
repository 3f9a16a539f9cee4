"""Reconstruction in SQL (DuckDB): commutative, as in Polars, so that no window and no order is needed."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa

from vtrace.analyzer.stored import open_stored
from vtrace.measuring.parts import SPOT, STREAM, USE, PartTables, over_parts
from vtrace.measuring.tally import APART, FIRST_HOPS, TALLY_SCHEMA, UNCLAIMED, Tally, tally_of
from vtrace.model.inventory import FIRST_MULTICAST_KEY
from vtrace.model.record import Point
from vtrace.reconstruct.layout import AT_EGRESS, AT_SENT, AT_STOPPED, AT_UNPLANNED

# Sums of 64-bit hashes are 128 bits wide there: what is above 64 is cut off, as it is elsewhere.
_SQL = f"""
WITH named AS (
    SELECT
        place,
        dense_rank() OVER (ORDER BY {", ".join(USE)}) AS use,
        dense_rank() OVER (ORDER BY {", ".join(STREAM)}) AS stream,
        task,
        pair,
        CASE WHEN point = {Point.FIRST_HOP} THEN dense_rank() OVER (ORDER BY task, pair) ELSE 0 END AS owner,
        point = {Point.FIRST_HOP} AS first_hop,
        point = {Point.INGRESS} AS came,
        point = {Point.REMOTE_OUTPUT} AND peer <> '' AS sent,
        point = {Point.REMOTE_OUTPUT} AND peer = '' AS went,
        point = {Point.EGRESS} AS delivered,
        out_key >= {FIRST_MULTICAST_KEY} AS grouped,
        hash({", ".join(SPOT)}) AS spot
    FROM places
), distinct_records AS (
    SELECT DISTINCT
        use, key, stream, seq, owner, first_hop, came, sent, went, delivered, grouped OR to_group AS flooded, spot
    FROM records JOIN named USING (place)
), packets AS (
    SELECT
        count(*) AS records,
        count(*) FILTER (first_hop) AS first_hops,
        count(*) FILTER (sent) AS sent,
        count(*) FILTER (came) AS came,
        bool_or(went) AS went,
        bool_or(delivered) AS delivered,
        bool_or(flooded) AS flooded,
        (sum(spot) % 18446744073709551616)::UBIGINT AS signature,
        max(owner) AS owner
    FROM distinct_records
    GROUP BY use, key
), known AS (
    SELECT
        records,
        first_hops = 1 AND NOT flooded AS plain,
        CASE
            WHEN first_hops = 0 THEN {UNCLAIMED}
            WHEN NOT plain THEN {APART}
            WHEN delivered THEN {AT_EGRESS}
            WHEN sent > came THEN {AT_SENT}
            WHEN went THEN {AT_UNPLANNED}
            ELSE {AT_STOPPED}
        END AS kind,
        CASE WHEN plain THEN signature ELSE 0 END AS signature,
        CASE WHEN plain THEN owner ELSE 0 END AS owner
    FROM packets
), found AS (
    SELECT owner, kind, signature, count(*) AS packets, sum(records) AS records
    FROM known
    GROUP BY owner, kind, signature
    UNION ALL
    SELECT owner, {FIRST_HOPS}, 0, count(*), 0
    FROM distinct_records
    WHERE first_hop
    GROUP BY owner
), owners AS (
    SELECT DISTINCT owner, task, pair FROM named WHERE first_hop
)
SELECT coalesce(task, '') AS task, coalesce(pair, -1) AS pair, kind, signature, packets, records
FROM found LEFT JOIN owners USING (owner)
"""


def run(path: Path, threads: int) -> Tally:
    """Reconstructs a file."""
    with duckdb.connect(config={"threads": threads}) as connection:
        return tally_of(over_parts(open_stored(path), threads, lambda tables: part(tables, connection)))


def part(tables: PartTables, connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """A part's rows of `TALLY_SCHEMA`."""
    with connection.cursor() as own:
        own.register("records", tables.records)
        own.register("places", tables.places)
        return own.sql(_SQL).to_arrow_table().cast(TALLY_SCHEMA)
