"""Puts the findings of many parts together: pairs, places and paths get numbers of their own, packets are added up."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import NamedTuple

import msgspec
import numpy as np

from vtrace.model.record_schema import PLACE, group_fields
from vtrace.reconstruct.columns import SPOT_FIELDS
from vtrace.reconstruct.distinct import (
    LONGEST,
    PATH_DISPOSITION,
    PATH_LENGTH,
    PATH_PACKETS,
    PATH_PAIR,
    PATH_START,
    SHORTEST,
    SUM,
)
from vtrace.reconstruct.layout import CHASSIS
from vtrace.reconstruct.parts import COUNTS, PacketRows, Part


class Path(msgspec.Struct, kw_only=True):
    """A distinct path of a pair.

    Attributes:
        pair: number of the pair; disposition: `layout.AT_…`; packets: how many took it.
        places: numbers of its places, hop by hop.
        delays: int64, three columns (`distinct`), hop by hop: the time since the hop before.
    """

    pair: int
    disposition: int
    packets: int
    places: np.ndarray
    delays: np.ndarray


class Numbers:
    """Numbers what comes, from 0, in the order in which it comes first. `names` has it by number."""

    def __init__(self) -> None:
        self.names: list[Hashable] = []
        self._known: dict[Hashable, int] = {}

    def of(self, names: Iterable[Hashable]) -> np.ndarray:
        """The numbers of these."""
        known = self._known
        found = []
        for name in names:
            number = known.get(name)
            if number is None:
                number = known[name] = len(self.names)
                self.names.append(name)
            found.append(number)
        return np.array(found, np.int32)


# What tells places of a path apart; the incarnation does not, but a later look at the log streams needs it.
PLACE_FIELDS = tuple(field.name for field in group_fields(PLACE))


class _Kept(NamedTuple):
    """The packets of a part, in its own numbers; and what to make of the numbers in some of the columns."""

    columns: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray]

    def cut(self, wanted: np.ndarray) -> dict[str, np.ndarray]:
        """The packets of the pairs that are wanted."""
        rows = np.flatnonzero(wanted[self.numbers["pair"]][self.columns["pair"]])
        found = {name: values[rows] for name, values in self.columns.items()}
        return found | {name: numbers[found[name]] for name, numbers in self.numbers.items()}


class Gathered:
    """All that was found so far.

    Attributes:
        pairs: (task, pair) by number; places: tuples of `PLACE_FIELDS`; backends: addresses; chassis: names.
        paths: by number; counts: of each pair, as `Part.counts`.
    """

    def __init__(self) -> None:
        self.pairs, self.places, self.backends, self.chassis = Numbers(), Numbers(), Numbers(), Numbers()
        self.paths: list[Path] = []
        self._path_numbers: dict[tuple[int, int, bytes], int] = {}
        self._spots = Numbers()
        self._spot_of_place: list[int] = []
        self._rows: list[_Kept] = []
        self.counts = np.zeros((0, COUNTS), np.int64)
        self.records = 0
        self.repeated = 0
        self.unclaimed = 0
        self.unclaimed_records = 0

    def add(self, part: Part) -> None:
        """Takes a part in: its packets, and how many records there were, repetitions, packets without a first hop."""
        self.records += part.records
        self.repeated += int(part.found.counts[0])
        self.unclaimed += int(part.found.counts[1])
        self.unclaimed_records += int(part.found.counts[2])
        pairs = self._pair_numbers(part)
        places = self._place_numbers(part)
        new = len(self.pairs.names) - len(self.counts)
        self.counts = np.concatenate((self.counts, np.zeros((new, COUNTS), np.int64)))
        self.counts[pairs] += part.counts
        names = part.prepared.places.column("chassis").to_pylist()
        own = part.prepared.tables.places[:, CHASSIS]
        chassis = np.zeros(int(own.max(initial=0)) + 1, np.int32)
        chassis[own] = self.chassis.of(names)
        numbers = {
            "pair": pairs,
            "path": self._path_numbers_of(part, pairs, places),
            "last_place": places,
            "first_chassis": chassis,
            "backend": self.backends.of(part.backends),
        }
        self._rows.append(_Kept(part.rows.columns(), numbers))

    def rows(self, chosen: np.ndarray | None = None) -> PacketRows:
        """Packets, in no order that means anything.

        Args:
            chosen: of each pair whether its packets are wanted; None: all.
        """
        wanted = np.ones(len(self.pairs.names), np.bool_) if chosen is None else chosen
        parts = [kept.cut(wanted) for kept in self._rows]
        if not parts:
            empty = {name: np.zeros(0, np.int64) for name in PacketRows.__struct_fields__ if name != "traits"}
            return PacketRows(**empty, traits={})
        own = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        traits = {name.removeprefix("trait_"): own.pop(name) for name in list(own) if name.startswith("trait_")}
        return PacketRows(**own, traits=traits)

    def spot(self, place: int) -> int:
        """The number of the place as paths tell it apart."""
        return self._spot_of_place[place]

    def _pair_numbers(self, part: Part) -> np.ndarray:
        pairs = part.prepared.pairs
        return self.pairs.of(zip(pairs.column("task").to_pylist(), pairs.column("pair").to_pylist(), strict=True))

    def _place_numbers(self, part: Part) -> np.ndarray:
        columns = [part.prepared.places.column(name).to_pylist() for name in PLACE_FIELDS]
        numbers = self.places.of(zip(*columns, strict=True))
        for number in range(len(self._spot_of_place), len(self.places.names)):
            self._spot_of_place.append(int(self._spots.of([_spot(self.places.names[number])])[0]))
        return numbers

    def _path_numbers_of(self, part: Part, pairs: np.ndarray, places: np.ndarray) -> np.ndarray:
        numbers = np.zeros(len(part.found.paths), np.int32)
        spots = np.array(self._spot_of_place, np.int32)
        hops = places[part.found.path_places]
        hop_spots = spots[hops]
        for number, row in enumerate(part.found.paths.tolist()):
            cut = slice(row[PATH_START], row[PATH_START] + row[PATH_LENGTH])
            pair = int(pairs[row[PATH_PAIR]])
            name = (pair, row[PATH_DISPOSITION], hop_spots[cut].tobytes())
            known = self._path_numbers.get(name)
            delays = part.found.delays[cut]
            if known is None:
                known = self._path_numbers[name] = len(self.paths)
                path = Path(
                    pair=pair,
                    disposition=row[PATH_DISPOSITION],
                    packets=row[PATH_PACKETS],
                    places=hops[cut].copy(),
                    delays=delays.copy(),
                )
                self.paths.append(path)
            else:
                _add_to(self.paths[known], row[PATH_PACKETS], delays)
            numbers[number] = known
        return numbers


def _add_to(path: Path, packets: int, delays: np.ndarray) -> None:
    path.packets += packets
    path.delays[:, SHORTEST] = np.minimum(path.delays[:, SHORTEST], delays[:, SHORTEST])
    path.delays[:, LONGEST] = np.maximum(path.delays[:, LONGEST], delays[:, LONGEST])
    path.delays[:, SUM] += delays[:, SUM]


_SPOT_COLUMNS = tuple(PLACE_FIELDS.index(name) for name in SPOT_FIELDS)


def _spot(place: Hashable) -> tuple[object, ...]:
    assert isinstance(place, tuple)
    return tuple(place[column] for column in _SPOT_COLUMNS)
