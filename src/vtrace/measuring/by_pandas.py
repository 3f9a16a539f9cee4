"""Reconstruction in pandas, the straightforward way: sort, drop repetitions, group, aggregate. Nothing is a loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa

from vtrace.analyzer.stored import open_stored
from vtrace.measuring.parts import SPOT, STREAM, USE, PartTables, over_parts
from vtrace.measuring.tally import APART, FIRST_HOPS, TALLY_SCHEMA, UNCLAIMED, Tally, tally_of
from vtrace.model.inventory import FIRST_MULTICAST_KEY
from vtrace.model.record import Point
from vtrace.reconstruct.layout import AT_EGRESS, AT_SENT, AT_STOPPED, AT_UNPLANNED


def run(path: Path, threads: int) -> Tally:
    """Reconstructs a file. pandas itself uses one thread, so several parts are worked on at once."""
    return tally_of(over_parts(open_stored(path), threads, part))


def part(tables: PartTables) -> pa.Table:
    """A part's rows of `TALLY_SCHEMA`."""
    named = tables.places.to_pandas()
    records = tables.records.to_pandas().join(_places(named), on="place")
    records = records.sort_values(["use", "key", "stream", "seq"], ignore_index=True)
    identity = records[["stream", "seq"]]
    records = records[(identity != identity.shift()).any(axis=1)]
    packets = records.groupby(["use", "key"], sort=False).agg(
        records=("seq", "size"),
        first_hop=("first_hop", "sum"),
        sent=("sent", "sum"),
        came=("came", "sum"),
        left=("left", "max"),
        out=("out", "max"),
        group=("group", "max"),
        to_group=("to_group", "max"),
        signature=("spot", "sum"),
        owner=("owner", "max"),
    )
    known = (
        _kinds(packets)
        .groupby(["owner", "kind", "signature"], as_index=False)
        .agg(packets=("records", "size"), records=("records", "sum"))
    )
    first_hops = records[records["first_hop"]].groupby("owner", as_index=False).agg(packets=("key", "size"))
    first_hops = first_hops.assign(kind=FIRST_HOPS, signature=np.uint64(0), records=0)
    found = pd.concat([known, first_hops], ignore_index=True)
    owners = named.assign(owner=_numbers(named, ("task", "pair"))).groupby("owner")[["task", "pair"]].first()
    names = owners.reindex(found["owner"])
    found["task"], found["pair"] = names["task"].fillna("").to_numpy(), names["pair"].fillna(-1).to_numpy(np.int32)
    return pa.Table.from_pandas(found[TALLY_SCHEMA.names], preserve_index=False).cast(TALLY_SCHEMA)


def _places(named: pd.DataFrame) -> pd.DataFrame:
    """What a record's place says of it."""
    point, has_peer = named["point"], named["peer"] != ""
    return pd.DataFrame(
        {
            "use": _numbers(named, USE),
            "stream": _numbers(named, STREAM),
            "owner": np.where(point == Point.FIRST_HOP, _numbers(named, ("task", "pair")), -1),
            "first_hop": point == Point.FIRST_HOP,
            "came": point == Point.INGRESS,
            "sent": (point == Point.REMOTE_OUTPUT) & has_peer,
            "left": (point == Point.REMOTE_OUTPUT) & ~has_peer,
            "out": point == Point.EGRESS,
            "group": named["out_key"] >= FIRST_MULTICAST_KEY,
            "spot": pd.util.hash_pandas_object(named[list(SPOT)], index=False),
        }
    )


def _numbers(named: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """A number for each distinct combination of some columns, from 0."""
    numbers: np.ndarray = named.groupby(list(names), sort=False).ngroup().to_numpy()
    return numbers


def _kinds(packets: pd.DataFrame) -> pd.DataFrame:
    """What became of each packet. Those that are put apart have no owner and no signature."""
    plain = (packets["first_hop"] == 1) & ~packets["group"] & ~packets["to_group"]
    ended = [packets["out"], packets["sent"] > packets["came"], packets["left"]]
    kind = np.select(
        [packets["first_hop"] == 0, ~plain, *ended], [UNCLAIMED, APART, AT_EGRESS, AT_SENT, AT_UNPLANNED], AT_STOPPED
    )
    return pd.DataFrame(
        {
            "records": packets["records"].to_numpy(),
            "kind": kind,
            "signature": np.where(plain, packets["signature"], np.uint64(0)),
            "owner": np.where(plain, packets["owner"], -1),
        }
    )
