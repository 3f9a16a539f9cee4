"""Per task and pair: what became of the packets, by which paths, where they were lost, and what sets the lost apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import msgspec
import numpy as np

from vtrace.model.record import EvidenceRecord, Point
from vtrace.reconstruct.contrasting import Difference, differences
from vtrace.reconstruct.distinct import LONGEST, SHORTEST, SUM
from vtrace.reconstruct.gathering import PLACE_FIELDS, Gathered, Path
from vtrace.reconstruct.layout import AT_EGRESS, AT_SENT, AT_STOPPED, AT_UNPLANNED
from vtrace.reconstruct.missing import flag_missing
from vtrace.reconstruct.parts import AMBIGUOUS, FLAG_MISSING, WITH_GAP, PacketRows
from vtrace.reconstruct.runs import ARRIVED_AFTER, RUNS, runs
from vtrace.reconstruct.streams import Streams

# What a disposition means where nobody knows of the topology; a missing record makes it "evidence_missing".
KINDS = {AT_EGRESS: "delivered", AT_SENT: "lost_between", AT_STOPPED: "dropped", AT_UNPLANNED: "left_domain"}
LOST_KINDS = ("dropped", "lost_between")
# As in the answers of `vtrace diagnose` (docs/answer.md).
TRANSIENT_AFTER = 20
MOST_MISSING = 0.1


class Hop(msgspec.Struct, frozen=True, kw_only=True):
    """A place of a path; delay_ns: the time since the hop before on the same chassis (shortest, mean, longest)."""

    chassis: str
    point: str
    datapath: int
    in_key: int
    out_key: int
    peer: str = ""
    delay_ns: tuple[int, int, int] | None = None


class PathAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A distinct path of a pair; `disposition` says how its records end."""

    packets: int
    disposition: str
    hops: tuple[Hop, ...]


class LossAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Packets of a pair that ended at one place: `why` is what that chassis said of their flow, if it said anything."""

    kind: str
    packets: int
    where: Hop
    why: EvidenceRecord | None = None


class PairAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the packets of a pair. The counts add up to `packets`; the two after them are among these."""

    pair: int
    packets: int
    delivered: int
    dropped: int
    lost_between: int
    left_domain: int
    evidence_missing: int
    ambiguous: int
    with_gaps: int
    loss: str
    loss_ratio: float | None
    pattern: str | None
    losses: tuple[LossAnswer, ...]
    contrast: tuple[Difference, ...]
    paths: tuple[PathAnswer, ...]


class TaskAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The pairs of a task, by number."""

    task: str
    pairs: tuple[PairAnswer, ...]


class StreamAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A log stream of which records are missing; -1: it claims more than can be."""

    chassis: str
    incarnation: str
    color: int
    epoch: int
    written: int
    missing: int


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """All tasks, by name.

    Attributes:
        records, repeated: that were there, and how many of them more than once.
        packets: with a first-hop record; unclaimed: keys without one, and their records: counted, never answered.
        records_missing: that agents wrote and nobody has; incomplete: the streams concerned.
    """

    records: int
    repeated: int
    packets: int
    unclaimed: int
    unclaimed_records: int
    records_missing: int
    incomplete: tuple[StreamAnswer, ...]
    tasks: tuple[TaskAnswer, ...]


def answers(gathered: Gathered, streams: Streams, evidence: Iterable[EvidenceRecord] = ()) -> Answers:
    """The answer of all that was gathered.

    Args:
        evidence: what chassis said of flows.
    """
    # Of a pair of which nothing was lost no packet has to be looked at again.
    rows = gathered.rows((gathered.counts[:, AT_SENT] > 0) | (gathered.counts[:, AT_STOPPED] > 0))
    holes = streams.holes()
    flag_missing(gathered, rows, streams, holes)
    missing = streams.missing(holes)
    return Answers(
        records=gathered.records,
        repeated=gathered.repeated,
        packets=int(gathered.counts[:, list(KINDS)].sum()),
        unclaimed=gathered.unclaimed,
        unclaimed_records=gathered.unclaimed_records,
        records_missing=int(missing[missing > 0].sum()),
        incomplete=tuple(
            sorted(
                (
                    StreamAnswer(
                        chassis=name[0],
                        incarnation=str(name[1]),
                        color=name[2],
                        epoch=name[3],
                        written=int(streams.written[number]),
                        missing=int(missing[number]),
                    )
                    for number, name in enumerate(streams.names)
                    if missing[number]
                ),
                key=lambda s: (s.chassis, s.color, s.epoch, s.incarnation),
            )
        ),
        tasks=_Tasks(gathered, rows, evidence).all(),
    )


class _Tasks:
    """Args: rows: all packets of the pairs of which some were lost."""

    def __init__(self, gathered: Gathered, rows: PacketRows, evidence: Iterable[EvidenceRecord]) -> None:
        self._gathered = gathered
        self._rows = rows
        self._evidence: dict[tuple[str, int, str], list[EvidenceRecord]] = defaultdict(list)
        for one in evidence:
            self._evidence[one.task, one.pair, one.chassis].append(one)
        pairs = len(gathered.pairs.names)
        self._missing = (rows.flags & FLAG_MISSING) != 0
        known = ~self._missing
        self._lost = known & ((rows.disposition == AT_SENT) | (rows.disposition == AT_STOPPED))
        told = gathered.counts[:, list(KINDS)]
        untold = np.zeros_like(told)
        np.add.at(untold, (rows.pair[self._missing], rows.disposition[self._missing]), 1)
        self._counts = {
            **{kind: told[:, number] - untold[:, number] for number, kind in KINDS.items()},
            "evidence_missing": untold.sum(axis=1),
            "ambiguous": gathered.counts[:, AMBIGUOUS],
            "with_gaps": gathered.counts[:, WITH_GAP],
            "packets": told.sum(axis=1),
        }
        names = np.argsort(np.array([str(name) for name in gathered.chassis.names], np.str_))
        ranks = np.empty(len(names), np.int64)
        ranks[names] = np.arange(len(names))
        chassis = ranks[rows.first_chassis[known]]
        self._runs = runs(rows.pair[known].astype(np.int64), chassis, rows.order_ns[known], self._lost[known], pairs)
        self._losses = self._where(pairs)
        self._contrast = differences(gathered, rows, known, self._lost)
        self._paths: dict[int, list[Path]] = defaultdict(list)
        for path in gathered.paths:
            self._paths[path.pair].append(path)

    def all(self) -> tuple[TaskAnswer, ...]:
        found: dict[str, list[PairAnswer]] = defaultdict(list)
        for number, name in enumerate(self._gathered.pairs.names):
            assert isinstance(name, tuple)
            if self._counts["packets"][number]:
                found[name[0]].append(self._pair(number, name[0], name[1]))
        return tuple(
            TaskAnswer(task=task, pairs=tuple(sorted(found[task], key=lambda p: p.pair))) for task in sorted(found)
        )

    def _pair(self, number: int, task: str, pair: int) -> PairAnswer:
        counts = {name: int(values[number]) for name, values in self._counts.items()}
        lost = counts["dropped"] + counts["lost_between"]
        known = counts["packets"] - counts["evidence_missing"]
        pattern = self._pattern(number, lost, known)
        if pattern == "persistent":
            loss = "yes"
        elif pattern == "unclear" or counts["evidence_missing"] > MOST_MISSING * counts["packets"]:
            loss = "unknown"
        else:
            loss = "no"
        return PairAnswer(
            pair=pair,
            loss=loss,
            loss_ratio=lost / known if known else None,
            pattern=pattern,
            losses=tuple(
                sorted((self._loss(task, pair, *one) for one in self._losses.get(number, ())), key=_loss_order)
            ),
            contrast=self._contrast.get(number, ()),
            paths=tuple(sorted(map(self._path, self._paths[number]), key=_path_order)),
            **counts,
        )

    def _pattern(self, number: int, lost: int, known: int) -> str | None:
        if not lost:
            return None
        if lost == known or self._runs[number, RUNS] > 1:
            return "persistent"
        return "transient" if self._runs[number, ARRIVED_AFTER] >= TRANSIENT_AFTER else "unclear"

    def _where(self, pairs: int) -> Mapping[int, list[tuple[str, int, int]]]:
        """For each pair the kind, place and number of its losses, most packets first."""
        rows = self._rows
        kinds = np.where(self._missing, len(KINDS), rows.disposition).astype(np.int64)
        ended = np.flatnonzero(self._lost | self._missing)
        places = max(len(self._gathered.places.names), 1)
        spots = np.array([self._gathered.spot(place) for place in range(len(self._gathered.places.names))], np.int64)
        codes = (rows.pair[ended].astype(np.int64) * 8 + kinds[ended]) * places + spots[rows.last_place[ended]]
        values, first, counts = np.unique(codes, return_index=True, return_counts=True)
        found: dict[int, list[tuple[str, int, int]]] = defaultdict(list)
        names = {**KINDS, len(KINDS): "evidence_missing"}
        for code, row, count in zip(values.tolist(), ended[first].tolist(), counts.tolist(), strict=True):
            rest = code // places
            found[rest // 8].append((names[rest % 8], int(rows.last_place[row]), count))
        return found

    def _loss(self, task: str, pair: int, kind: str, place: int, packets: int) -> LossAnswer:
        where = self._hop(place)
        told = [e for e in self._evidence.get((task, pair, where.chassis), ()) if e.code]
        # Of several the one of the datapath where the packets ended; the latest, since it still stands.
        near = [e for e in told if e.datapath in (0, where.datapath)] or told
        why = max(near, key=lambda e: e.mono_ns, default=None) if kind in LOST_KINDS else None
        return LossAnswer(kind=kind, packets=packets, where=where, why=why)

    def _path(self, path: Path) -> PathAnswer:
        hops = []
        before = ""
        for place, delays in zip(path.places.tolist(), path.delays.tolist(), strict=True):
            hop = self._hop(place)
            if hop.chassis == before:
                mean = delays[SUM] // path.packets
                hop = msgspec.structs.replace(hop, delay_ns=(delays[SHORTEST], mean, delays[LONGEST]))
            hops.append(hop)
            before = hop.chassis
        return PathAnswer(packets=path.packets, disposition=KINDS[path.disposition], hops=tuple(hops))

    def _hop(self, place: int) -> Hop:
        named = dict(zip(PLACE_FIELDS, self._gathered.places.names[place], strict=True))  # type: ignore[call-overload]
        return Hop(
            chassis=named["chassis"],
            point=Point(named["point"]).word,
            datapath=named["datapath"],
            in_key=named["in_key"],
            out_key=named["out_key"],
            peer=named["peer"],
        )


def _path_order(path: PathAnswer) -> tuple[object, ...]:
    return (-path.packets, path.disposition, tuple(map(_hop_order, path.hops)))


def _loss_order(loss: LossAnswer) -> tuple[object, ...]:
    return (loss.kind not in LOST_KINDS, -loss.packets, loss.kind, _hop_order(loss.where))


def _hop_order(hop: Hop) -> tuple[object, ...]:
    return (hop.chassis, hop.point, hop.datapath, hop.in_key, hop.out_key, hop.peer)
