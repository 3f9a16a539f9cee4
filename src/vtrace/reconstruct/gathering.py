"""Puts the findings of many parts together: pairs, places and paths get numbers of their own, packets are added up.

What was put together is findings again: several processes may each gather parts of their own, and one of them theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, Protocol

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


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in some of the records, in numbers of its own.

    Attributes:
        pairs: (task, pair) by number; places: tuples of `PLACE_FIELDS`; chassis, backends: names and addresses.
        paths: int64, a row each (`distinct.PATH_…`); path_places, delays: hop by hop, as in `layout.Packets`.
        counts: of each pair, as `Part.counts`.
        records, repeated, unclaimed, unclaimed_records: how many.
    """

    pairs: list[Hashable]
    places: list[Hashable]
    chassis: list[Hashable]
    backends: list[Hashable]
    paths: np.ndarray
    path_places: np.ndarray
    delays: np.ndarray
    counts: np.ndarray
    records: int
    repeated: int
    unclaimed: int
    unclaimed_records: int


PendingPackets = Callable[[], dict[str, np.ndarray]]
"""Waits for columns of packets by name (`PacketRows.columns`): several can be asked for before one is waited for."""


class PacketSource(Protocol):
    """Has the packets of findings, in their numbers."""

    def cut(self, wanted: np.ndarray) -> PendingPackets:
        """Asks for the packets of the pairs that are wanted."""
        ...


class _OfPart(NamedTuple):
    """The packets of a part."""

    columns: dict[str, np.ndarray]

    def cut(self, wanted: np.ndarray) -> PendingPackets:
        def take() -> dict[str, np.ndarray]:
            rows = np.flatnonzero(wanted[self.columns["pair"]])
            return {name: values[rows] for name, values in self.columns.items()}

        return take


class _Kept(NamedTuple):
    """Packets of findings; and what to make of the numbers in some of the columns."""

    source: PacketSource
    numbers: dict[str, np.ndarray]

    def cut(self, wanted: np.ndarray) -> PendingPackets:
        own = self.source.cut(wanted[self.numbers["pair"]])

        def take() -> dict[str, np.ndarray]:
            found = own()
            return found | {name: numbers[found[name]] for name, numbers in self.numbers.items() if name in found}

        return take


def findings_of(part: Part) -> Findings:
    """What was found in a part."""
    prepared, found = part.prepared, part.found
    columns = [prepared.places.column(name).to_pylist() for name in PLACE_FIELDS]
    own = prepared.tables.places[:, CHASSIS]
    # Numbers of chassis are not dense: peers have some of them.
    chassis: list[Hashable] = [""] * (int(own.max(initial=-1)) + 1)
    for number, name in zip(own.tolist(), columns[PLACE_FIELDS.index("chassis")], strict=True):
        chassis[number] = name
    pairs = prepared.pairs
    return Findings(
        pairs=list(zip(pairs.column("task").to_pylist(), pairs.column("pair").to_pylist(), strict=True)),
        places=list(zip(*columns, strict=True)),
        chassis=chassis,
        backends=list(part.backends),
        paths=found.paths,
        path_places=found.path_places,
        delays=found.delays,
        counts=part.counts,
        records=part.records,
        repeated=int(found.counts[0]),
        unclaimed=int(found.counts[1]),
        unclaimed_records=int(found.counts[2]),
    )


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
        self.join(findings_of(part), _OfPart(part.rows.columns()))

    def join(self, found: Findings, packets: PacketSource) -> None:
        """Takes findings in, whose packets somebody has."""
        self.records += found.records
        self.repeated += found.repeated
        self.unclaimed += found.unclaimed
        self.unclaimed_records += found.unclaimed_records
        pairs = self.pairs.of(found.pairs)
        places = self._place_numbers(found)
        new = len(self.pairs.names) - len(self.counts)
        self.counts = np.concatenate((self.counts, np.zeros((new, COUNTS), np.int64)))
        self.counts[pairs] += found.counts
        numbers = {
            "pair": pairs,
            "path": self._path_numbers_of(found, pairs, places),
            "last_place": places,
            "first_chassis": self.chassis.of(found.chassis),
            "backend": self.backends.of(found.backends),
        }
        self._rows.append(_Kept(packets, numbers))

    def findings(self) -> Findings:
        """All of it, for another one to join; it has the packets (`cut`)."""
        lengths = [len(path.places) for path in self.paths]
        paths = np.zeros((len(self.paths), 5), np.int64)
        paths[:, PATH_START] = np.cumsum([0, *lengths])[:-1]
        paths[:, PATH_LENGTH] = lengths
        for column, name in ((PATH_PAIR, "pair"), (PATH_DISPOSITION, "disposition"), (PATH_PACKETS, "packets")):
            paths[:, column] = [getattr(path, name) for path in self.paths]
        return Findings(
            pairs=self.pairs.names,
            places=self.places.names,
            chassis=self.chassis.names,
            backends=self.backends.names,
            paths=paths,
            path_places=np.concatenate([np.zeros(0, np.int32), *(path.places for path in self.paths)]),
            delays=np.concatenate([np.zeros((0, 3), np.int64), *(path.delays for path in self.paths)]),
            counts=self.counts,
            records=self.records,
            repeated=self.repeated,
            unclaimed=self.unclaimed,
            unclaimed_records=self.unclaimed_records,
        )

    def cut(self, wanted: np.ndarray) -> PendingPackets:
        """Asks for the packets of the pairs that are wanted, in no order that means anything."""
        asked = [kept.cut(wanted) for kept in self._rows]

        def take() -> dict[str, np.ndarray]:
            # Who took no part has no columns.
            parts = [part for one in asked if (part := one())]
            return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}

        return take

    def rows(self, chosen: np.ndarray | None = None) -> PacketRows:
        """Packets, in no order that means anything.

        Args:
            chosen: of each pair whether its packets are wanted; None: all.
        """
        own = self.cut(np.ones(len(self.pairs.names), np.bool_) if chosen is None else chosen)()
        if not own:
            empty = {name: np.zeros(0, np.int64) for name in PacketRows.__struct_fields__ if name != "traits"}
            return PacketRows(**empty, traits={})
        traits = {name.removeprefix("trait_"): own.pop(name) for name in list(own) if name.startswith("trait_")}
        return PacketRows(**own, traits=traits)

    def spot(self, place: int) -> int:
        """The number of the place as paths tell it apart."""
        return self._spot_of_place[place]

    def _place_numbers(self, found: Findings) -> np.ndarray:
        numbers = self.places.of(found.places)
        for number in range(len(self._spot_of_place), len(self.places.names)):
            self._spot_of_place.append(int(self._spots.of([_spot(self.places.names[number])])[0]))
        return numbers

    def _path_numbers_of(self, found: Findings, pairs: np.ndarray, places: np.ndarray) -> np.ndarray:
        numbers = np.zeros(len(found.paths), np.int32)
        spots = np.array(self._spot_of_place, np.int32)
        hops = places[found.path_places]
        hop_spots = spots[hops]
        for number, row in enumerate(found.paths.tolist()):
            cut = slice(row[PATH_START], row[PATH_START] + row[PATH_LENGTH])
            pair = int(pairs[row[PATH_PAIR]])
            name = (pair, row[PATH_DISPOSITION], hop_spots[cut].tobytes())
            known = self._path_numbers.get(name)
            delays = found.delays[cut]
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
