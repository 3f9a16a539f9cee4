"""Reconstruction in Polars: commutative. A packet's fate is made of counts, sums and maxima over its records.

No order is made, so records of several regions could be added up apart from each other. What needs an order can't be
said so: which of several packets of one key a record is of, and which copy of a flood went where.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa

from vtrace.analyzer.stored import open_stored
from vtrace.measuring.parts import SPOT, STREAM, USE, PartTables, over_parts
from vtrace.measuring.tally import APART, FIRST_HOPS, TALLY_SCHEMA, UNCLAIMED, Tally, tally_of
from vtrace.model.inventory import FIRST_MULTICAST_KEY
from vtrace.model.record import Point
from vtrace.reconstruct.layout import AT_EGRESS, AT_SENT, AT_STOPPED, AT_UNPLANNED


def run(path: Path, threads: int) -> Tally:
    """Reconstructs a file. Polars' own threads are set when it is imported (POLARS_MAX_THREADS)."""
    return tally_of(over_parts(open_stored(path), threads, part))


def part(tables: PartTables) -> pa.Table:
    """A part's rows of `TALLY_SCHEMA`."""
    named = pl.DataFrame(tables.places)
    places = _places(named)
    records = pl.DataFrame(tables.records).join(places, on="place").unique(["stream", "seq"], maintain_order=False)
    packets = records.group_by("use", "key").agg(
        pl.len().cast(pl.Int64).alias("records"),
        pl.col("first_hop").sum(),
        pl.col("sent").sum(),
        pl.col("came").sum(),
        pl.col("left").max(),
        pl.col("out").max(),
        (pl.col("group") | pl.col("to_group")).max().alias("flooded"),
        pl.col("spot").sum().alias("signature"),
        pl.col("owner").max(),
    )
    known = _kinds(packets).group_by("owner", "kind", "signature").agg(pl.len().alias("packets"), pl.sum("records"))
    first_hops = (
        records.filter("first_hop")
        .group_by("owner")
        .agg(pl.len().alias("packets"))
        .with_columns(kind=pl.lit(FIRST_HOPS), signature=pl.lit(0, pl.UInt64), records=pl.lit(0, pl.Int64))
    )
    owners = _numbered(named.filter(pl.col("point") == Point.FIRST_HOP), ("task", "pair"), "owner")
    names = owners.select("owner", "task", "pair").unique()
    found = pl.concat([known, first_hops.select(known.columns)], how="vertical_relaxed")
    rows = found.join(names, on="owner", how="left").with_columns(
        task=pl.col("task").fill_null(""), pair=pl.col("pair").fill_null(-1)
    )
    return rows.select(TALLY_SCHEMA.names).to_arrow().cast(TALLY_SCHEMA)


def _places(named: pl.DataFrame) -> pl.DataFrame:
    """What a record's place says of it."""
    numbered = _numbered(_numbered(named, USE, "use"), STREAM, "stream")
    owners = _numbered(named.filter(pl.col("point") == Point.FIRST_HOP), ("task", "pair"), "owner")
    point, has_peer = pl.col("point"), pl.col("peer") != ""
    return numbered.join(owners.select("place", "owner"), on="place", how="left").select(
        "place",
        "use",
        "stream",
        pl.col("owner").fill_null(-1),
        (point == Point.FIRST_HOP).alias("first_hop"),
        (point == Point.INGRESS).alias("came"),
        ((point == Point.REMOTE_OUTPUT) & has_peer).alias("sent"),
        ((point == Point.REMOTE_OUTPUT) & ~has_peer).alias("left"),
        (point == Point.EGRESS).alias("out"),
        (pl.col("out_key") >= FIRST_MULTICAST_KEY).alias("group"),
        pl.struct(SPOT).hash().alias("spot"),
    )


def _numbered(places: pl.DataFrame, names: Sequence[str], as_: str) -> pl.DataFrame:
    """With a number for each distinct combination of some columns, from 0."""
    distinct = places.select(names).unique(maintain_order=True).with_columns(pl.int_range(pl.len()).alias(as_))
    return places.join(distinct, on=names, maintain_order="left")


def _kinds(packets: pl.DataFrame) -> pl.DataFrame:
    """What became of each packet. Those that are put apart have no owner and no signature."""
    ended = (
        pl.when("out")
        .then(AT_EGRESS)
        .when(pl.col("sent") > pl.col("came"))
        .then(AT_SENT)
        .when("left")
        .then(AT_UNPLANNED)
        .otherwise(AT_STOPPED)
    )
    plain = (pl.col("first_hop") == 1) & ~pl.col("flooded")
    return packets.select(
        "records",
        kind=pl.when(pl.col("first_hop") == 0).then(UNCLAIMED).when(plain).then(ended).otherwise(APART),
        signature=pl.when(plain).then("signature").otherwise(0),
        owner=pl.when(plain).then("owner").otherwise(-1),
    )
