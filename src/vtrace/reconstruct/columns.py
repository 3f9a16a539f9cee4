"""Makes the columns and tables that compiled code looks at of records in the compact form. Whole columns at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vtrace.collect.blobs import check_bounds, check_values
from vtrace.collect.clocks import MOST_NS
from vtrace.compiled import compiled
from vtrace.errors import UsageError
from vtrace.model.inventory import FIRST_MULTICAST_KEY
from vtrace.model.plain import FIRST_BRIDGE
from vtrace.model.record import Point
from vtrace.model.record_schema import (
    GROUPS,
    HEADERS,
    MONO_DELTA_FIELD,
    MONO_FIELD,
    MONO_OFFSET_FIELD,
    PACKET,
    PLACE,
    group_fields,
    struct_type,
)
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
        packets: fields of `packet` by name; the rows of `tables.keys` are the same.
        pairs: (task, pair) of each number in the column PAIR.
    """

    columns: Columns
    tables: Tables
    places: pa.Table
    headers: pa.Table
    packets: dict[str, np.ndarray]
    pairs: pa.Table


def prepare(batches: Sequence[pa.RecordBatch], goals: Mapping[tuple[str, int], Goal] | None = None) -> Prepared:
    """Joins batches of the compact form, and looks whether all that compiled code relies on is there, and can be.

    Args:
        goals: where the packets of each (task, pair) should come out, if that is one place.

    Raises:
        UsageError: records lack values, or say what can't be.
    """
    rows = {group: _joined(batches, group) for group in GROUPS}
    places, place_numbers = _unified(rows[PLACE], PLACE)
    headers, header_numbers = _unified(rows[HEADERS], HEADERS)
    packets = {field.name: rows[PACKET].field(field.name).to_numpy() for field in rows[PACKET].type}
    columns = Columns(
        place=_indices(batches, PLACE),
        header=_indices(batches, HEADERS),
        packet=_indices(batches, PACKET),
        seq=_column(batches, "seq"),
        mono_ns=_column(batches, MONO_DELTA_FIELD),
    )
    base_ns, offset_ns = rows[PLACE].field(MONO_FIELD).to_numpy(), packets[MONO_OFFSET_FIELD]
    for name, part_ns in ((MONO_FIELD, base_ns), (MONO_OFFSET_FIELD, offset_ns), (MONO_DELTA_FIELD, columns.mono_ns)):
        check_bounds(name, part_ns, -MOST_NS, MOST_NS)
    lengths = [(len(batch), *(len(batch.column(group).dictionary) for group in GROUPS)) for batch in batches]
    begins = np.cumsum([(0,) * (len(GROUPS) + 1), *lengths], axis=0)
    _resolve(columns, begins, place_numbers, header_numbers, base_ns, offset_ns)
    check_values(places.column("point").to_numpy(), columns.mono_ns)
    place_table, pairs = _place_table(places)
    return Prepared(
        columns=columns,
        tables=Tables(
            places=place_table,
            headers=_header_table(headers),
            keys=packets["key"],
            ports=packets["sport"].astype(np.int64) << 16 | packets["dport"],
            goals=_goal_table(places, place_table, pairs, goals or {}),
        ),
        places=places,
        headers=headers,
        packets=packets,
        pairs=pairs,
    )


def _joined(batches: Sequence[pa.RecordBatch], group: str) -> pa.StructArray:
    """The dictionaries of a group of all batches, one after the other; each value is there."""
    type_ = struct_type(group)
    rows = pa.concat_arrays([_as(batch.column(group).dictionary, type_) for batch in batches])
    empty = [name for name in type_.names if rows.field(name).null_count]
    if empty or rows.null_count:
        raise _empty(", ".join(empty) or group)
    return rows


def _empty(where: str) -> UsageError:
    return UsageError("Log records have empty values", where, "", "They need those of docs/records.md")


def _indices(batches: Sequence[pa.RecordBatch], group: str) -> np.ndarray:
    """Each record's row in its own batch's dictionary."""
    return _together(group, (batch.column(group).indices for batch in batches), np.int32)


def _column(batches: Sequence[pa.RecordBatch], name: str) -> np.ndarray:
    """A column of all batches, one after the other. Blobs hold the narrowest integers that will do."""
    return _together(name, (batch.column(name) for batch in batches), np.int64)


def _together(name: str, arrays: Iterable[pa.Array], type_: type[np.int32 | np.int64]) -> np.ndarray:
    try:
        return np.concatenate([array.to_numpy() for array in arrays], dtype=type_)
    except pa.ArrowInvalid as error:
        raise _empty(name) from error


def _unified(rows: pa.StructArray, group: str) -> tuple[pa.Table, np.ndarray]:
    """The distinct ones of the structs of a group, and of each struct its row there."""
    # All but the clocks, which are no part of a place.
    names = [field.name for field in group_fields(group)]
    table = pa.Table.from_arrays([rows.field(name) for name in names], names)
    numbers, first = row_numbers(table.columns)
    return table.take(pa.array(first)), numbers


@compiled
def _resolve(
    columns: Columns,
    begins: np.ndarray,
    place_numbers: np.ndarray,
    header_numbers: np.ndarray,
    base_ns: np.ndarray,
    offset_ns: np.ndarray,
) -> None:
    """Makes rows of the dictionaries of each batch rows of the tables, and adds the parts of clocks up; in place.

    Args:
        begins: where the records, places, headers and packets of each batch begin, and at last end.
    """
    place, header, packet, _, mono_ns = columns
    for batch in range(len(begins) - 1):
        first_place, first_header, first_packet = begins[batch, 1], begins[batch, 2], begins[batch, 3]
        for row in range(begins[batch, 0], begins[batch + 1, 0]):
            own, sent = first_place + place[row], first_packet + packet[row]
            mono_ns[row] += base_ns[own] + offset_ns[sent]
            place[row] = place_numbers[own]
            header[row] = header_numbers[first_header + header[row]]
            packet[row] = sent


def _as(values: pa.StructArray, type_: pa.StructType) -> pa.StructArray:
    """The known fields of a struct: a newer writer may have more of them, in another order."""
    if values.type.equals(type_):
        return values
    return pa.StructArray.from_arrays([values.field(f.name).cast(f.type) for f in type_], fields=list(type_))


def _numbers(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    return row_numbers([table.column(name) for name in names])[0]


def addresses(headers: pa.Table) -> list[str]:
    """The addresses of packets, at the numbers that the table of headers has for them."""
    found: list[str] = pc.unique(_both(headers, "src", "dst")).to_pylist()
    return found


def _shared_numbers(table: pa.Table, one: str, two: str) -> tuple[np.ndarray, np.ndarray]:
    """A number for each text, the same in both columns; in the order of their first rows."""
    first, second = np.split(row_numbers([_both(table, one, two)])[0], 2)
    return first, second


def _both(table: pa.Table, one: str, two: str) -> pa.ChunkedArray:
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
    rows = np.zeros((headers.num_rows, layout.HEADER_COLUMNS), np.int32)
    rows[:, layout.SRC], rows[:, layout.DST] = _shared_numbers(headers, "src", "dst")
    rows[:, layout.TO_GROUP] = (headers.column("eth_dst").to_numpy() & GROUP_BIT) != 0
    rows[:, layout.TTL] = headers.column("ttl").to_numpy()
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
