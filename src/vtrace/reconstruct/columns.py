"""Makes the columns and tables that compiled code looks at of records in the compact form. Whole columns at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vtrace.compiled import compiled
from vtrace.model.inventory import FIRST_MULTICAST_KEY
from vtrace.model.plain import FIRST_BRIDGE
from vtrace.model.record import Point
from vtrace.model.record_schema import COMPACT_SCHEMA, HEADERS, PLACE, group_fields, struct_type
from vtrace.reconstruct import layout
from vtrace.reconstruct.layout import Columns, Tables
from vtrace.reconstruct.numbering import row_numbers
from vtrace.reconstruct.schema import Goal

# The group bit of an Ethernet address (IEEE 802).
GROUP_BIT = 1 << 40
# What tells one place of a path from another.
SPOT_FIELDS = ("chassis", "point", "datapath", "in_key", "out_key", "in_ofport", "peer")


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """Records, ready for the kernel.

    Attributes:
        places, headers: the distinct ones, as tables of the fields of `place` and `headers`; the rows of
            `tables.places` and `tables.headers` are the same.
        pairs: (task, pair) of each number in the column PAIR.
    """

    columns: Columns
    tables: Tables
    places: pa.Table
    headers: pa.Table
    pairs: pa.Table


def prepare(batches: Sequence[pa.RecordBatch], goals: Mapping[tuple[str, int], Goal] | None = None) -> Prepared:
    """Joins batches of the compact form.

    Args:
        goals: where the packets of each (task, pair) should come out, if that is one place.
    """
    places, place_rows = _unified(batches, PLACE)
    headers, header_rows = _unified(batches, HEADERS)
    place_table, pairs = _place_table(places)
    return Prepared(
        columns=Columns(
            key=column(batches, "key"),
            place=place_rows,
            header=header_rows,
            sport=column(batches, "sport"),
            dport=column(batches, "dport"),
            ttl=column(batches, "ttl"),
            seq=column(batches, "seq"),
            mono_ns=column(batches, "mono_ns"),
        ),
        tables=Tables(
            places=place_table,
            headers=_header_table(headers),
            goals=_goal_table(places, place_table, pairs, goals or {}),
        ),
        places=places,
        headers=headers,
        pairs=pairs,
    )


def column(batches: Sequence[pa.RecordBatch], name: str) -> np.ndarray:
    """A column of all batches, one after the other."""
    # Blobs hold the narrowest integers that will do.
    arrays = [batch.column(name).to_numpy() for batch in batches]
    return np.concatenate(arrays, dtype=COMPACT_SCHEMA.field(name).type.to_pandas_dtype())


def _unified(batches: Sequence[pa.RecordBatch], group: str) -> tuple[pa.Table, np.ndarray]:
    """The distinct values of a dictionary column of all batches, and for each record its row among them."""
    encoded = [batch.column(group) for batch in batches]
    type_ = struct_type(group)
    rows = pa.concat_arrays([_as(one.dictionary, type_) for one in encoded])
    # All but the clock, which is no part of a place.
    names = [field.name for field in group_fields(group)]
    table = pa.Table.from_arrays([rows.field(type_.get_field_index(name)) for name in names], names)
    numbers, first = row_numbers(table.columns)
    found, at, offset = np.empty(sum(map(len, encoded)), np.int32), 0, 0
    for one in encoded:
        _look_up(numbers[offset : offset + len(one.dictionary)], one.indices.to_numpy(), found[at : at + len(one)])
        at += len(one)
        offset += len(one.dictionary)
    return table.take(pa.array(first)), found


@compiled
def _look_up(numbers: np.ndarray, indices: np.ndarray, found: np.ndarray) -> None:
    for row in range(len(indices)):
        found[row] = numbers[indices[row]]


def _as(values: pa.StructArray, type_: pa.StructType) -> pa.StructArray:
    """The known fields of a struct: a newer writer may have more of them, in another order."""
    if values.type.equals(type_):
        return values
    return pa.StructArray.from_arrays([values.field(f.name).cast(f.type) for f in type_], fields=list(type_))


def _numbers(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    return row_numbers([table.column(name) for name in names])[0]


def addresses(headers: pa.Table) -> list[str]:
    """The addresses of packets, at the numbers that the table of headers has for them."""
    found: list[str] = pc.unique(_together(headers, "src", "dst")).to_pylist()
    return found


def _shared_numbers(table: pa.Table, one: str, two: str) -> tuple[np.ndarray, np.ndarray]:
    """A number for each text, the same in both columns; in the order of their first rows."""
    first, second = np.split(row_numbers([_together(table, one, two)])[0], 2)
    return first, second


def _together(table: pa.Table, one: str, two: str) -> pa.ChunkedArray:
    return pa.chunked_array([*table.column(one).chunks, *table.column(two).chunks], pa.string())


def _place_table(places: pa.Table) -> tuple[np.ndarray, pa.Table]:
    rows = np.zeros((places.num_rows, layout.PLACE_COLUMNS), np.int32)
    values = {name: places.column(name).to_numpy() for name in ("point", "datapath", "in_key", "out_key", "pair")}
    own, peer = _shared_numbers(places, "chassis", "peer")
    has_peer = pc.not_equal(places.column("peer"), "").to_numpy()
    rows[:, layout.SOURCE] = _source_order(places)
    rows[:, layout.CHASSIS] = own
    rows[:, layout.PEER] = np.where(has_peer, peer, layout.NO_CHASSIS)
    rows[:, layout.POINT] = values["point"]
    # Numbers of datapaths begin with 1: 0 stands for what is not across a tunnel.
    rows[:, layout.DATAPATH] = _numbers(places, ["datapath"]) + 1
    rows[:, layout.CROSSES] = np.where(values["datapath"] < FIRST_BRIDGE, rows[:, layout.DATAPATH], 0)
    rows[:, layout.CROSSES][values["datapath"] == 0] = 0
    for name, column in (("in_key", layout.IN_KEY), ("out_key", layout.OUT_KEY)):
        rows[:, column] = np.where(values[name] == 0, 0, _numbers(places, [name]) + 1)
    rows[:, layout.USE] = _numbers(places, ["color", "epoch"])
    first = values["point"] == Point.FIRST_HOP
    numbers, some = row_numbers([places.column("task"), places.column("pair")])
    rows[:, layout.PAIR] = np.where(first, numbers, -1)
    spot = _numbers(places, SPOT_FIELDS)
    rows[:, layout.SPOT] = spot
    rows[:, layout.VISIT] = row_numbers([spot, places.column("incarnation")])[0]
    sent = (values["point"] == Point.REMOTE_OUTPUT) & has_peer
    grouped = values["out_key"] >= FIRST_MULTICAST_KEY
    rows[:, layout.FLAGS] = sent * layout.SENT + grouped * layout.GROUP
    return rows, places.select(["task", "pair"]).take(pa.array(some))


def _source_order(places: pa.Table) -> np.ndarray:
    """Numbers agents in the order of their chassis' names and incarnations, whichever order they come in."""
    numbers, first = row_numbers([places.column("chassis"), places.column("incarnation")])
    sources = places.select(["chassis", "incarnation"]).take(pa.array(first))
    order = pc.sort_indices(sources, [("chassis", "ascending"), ("incarnation", "ascending")]).to_numpy()
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    return ranks[numbers]


def _header_table(headers: pa.Table) -> np.ndarray:
    rows = np.zeros((headers.num_rows, 3), np.int32)
    rows[:, layout.SRC], rows[:, layout.DST] = _shared_numbers(headers, "src", "dst")
    rows[:, layout.TO_GROUP] = (headers.column("eth_dst").to_numpy() & GROUP_BIT) != 0
    return rows


def _goal_table(
    places: pa.Table, rows: np.ndarray, pairs: pa.Table, goals: Mapping[tuple[str, int], Goal]
) -> np.ndarray:
    """The goals in the numbers of the table of places; what no record has stays -1."""
    table = np.full((pairs.num_rows, 3), -1, np.int32)
    if not goals:
        return table
    datapaths, keys, chassis, peers = (
        dict(zip(places.column(name).to_pylist(), rows[:, column].tolist(), strict=True))
        for name, column in (
            ("datapath", layout.DATAPATH),
            ("out_key", layout.OUT_KEY),
            ("chassis", layout.CHASSIS),
            ("peer", layout.PEER),
        )
    )
    names = zip(pairs.column("task").to_pylist(), pairs.column("pair").to_pylist(), strict=True)
    for number, name in enumerate(names):
        if goal := goals.get(name):
            where = chassis.get(goal.chassis, peers.get(goal.chassis, -2))
            table[number] = datapaths.get(goal.datapath, -1), keys.get(goal.key, -2), where
    return table
