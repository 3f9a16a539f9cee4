"""One packet while its records still come in: where it is now. By the same compiled code as the whole answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from vtrace.model.inventory import FIRST_MULTICAST_KEY
from vtrace.model.plain import is_bridge
from vtrace.model.record import LogRecord, Point
from vtrace.reconstruct import layout
from vtrace.reconstruct.columns import GROUP_BIT, SPOT_FIELDS
from vtrace.reconstruct.layout import Columns, Tables
from vtrace.reconstruct.ordering import ordered

_NO_GOALS = np.full((0, 3), -1, np.int32)


def hops_of(records: Sequence[LogRecord]) -> list[LogRecord]:
    """The records of one packet in path order, as far as they are there.

    Args:
        records: each once, in any order; that of the first hop among them.
    """
    rows = sorted(records, key=lambda r: (r.chassis, r.incarnation, r.seq))
    columns, tables = _numbered(rows)
    hops = np.empty(len(rows), np.int32)
    length, _ = ordered(columns, tables, np.arange(len(rows), dtype=np.int32), -1, hops)
    return [rows[number] for number in hops[:length]]


class _Numbers:
    """Numbers values of one kind in the order in which they come, from 1."""

    def __init__(self) -> None:
        self._known: dict[Hashable, int] = defaultdict(lambda: len(self._known) + 1)

    def __call__(self, value: Hashable) -> int:
        return self._known[value]


def _numbered(rows: Sequence[LogRecord]) -> tuple[Columns, Tables]:
    places = np.zeros((len(rows), layout.PLACE_COLUMNS), np.int32)
    headers = np.zeros((len(rows), layout.HEADER_COLUMNS), np.int32)
    chassis, datapaths, spots, visits, addresses = (_Numbers() for _ in range(5))
    sources = {name: number for number, name in enumerate(sorted({(r.chassis, r.incarnation) for r in rows}))}
    for number, r in enumerate(rows):
        sent = r.point == Point.REMOTE_OUTPUT and bool(r.peer)
        spot = spots(tuple(getattr(r, name) for name in SPOT_FIELDS))
        datapath = datapaths(r.datapath)
        places[number, : layout.FLAGS + 1] = (
            sources[r.chassis, r.incarnation],
            chassis(r.chassis),
            chassis(r.peer) if r.peer else layout.NO_CHASSIS,
            r.point,
            datapath,
            0 if is_bridge(r.datapath) or not r.datapath else datapath,
            _key(r.in_key),
            _key(r.out_key),
            0,
            r.pair,
            spot,
            visits((spot, r.incarnation)),
            sent * layout.SENT + (r.out_key >= FIRST_MULTICAST_KEY) * layout.GROUP,
        )
        headers[number] = addresses(r.src), addresses(r.dst), (r.eth_dst & GROUP_BIT) != 0, r.ttl
    own = np.arange(len(rows), dtype=np.int32)
    columns = Columns(
        place=own,
        header=own,
        packet=own,
        seq=np.array([r.seq for r in rows], np.int64),
        mono_ns=np.array([r.mono_ns for r in rows], np.int64),
    )
    tables = Tables(
        places=places,
        headers=headers,
        keys=np.array([r.key for r in rows], np.int64),
        ports=np.array([r.sport << 16 | r.dport for r in rows], np.int64),
        goals=_NO_GOALS,
    )
    return columns, tables


def _key(value: int) -> int:
    """A port's key as compiled code may hold it: it looks whether there is one, and whether two are equal."""
    return value & 0x7FFFFFFF
