"""What all formulations of reconstruction say: per task and pair the packets, what became of them, and their paths."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec
import pyarrow as pa

from vtrace.reconstruct.answers import KINDS, Answers
from vtrace.reconstruct.layout import AT_EGRESS, AT_SENT, AT_STOPPED, AT_UNPLANNED

# Kinds of rows of `TALLY_SCHEMA` beside the dispositions (`layout.AT_…`).
FIRST_HOPS, APART, UNCLAIMED = 4, 5, 6

TALLY_SCHEMA: pa.Schema = pa.schema(
    [
        pa.field("task", pa.string()),
        pa.field("pair", pa.int32()),
        pa.field("kind", pa.int8()),
        pa.field("signature", pa.uint64()),
        pa.field("packets", pa.int64()),
        pa.field("records", pa.int64()),
    ]
)
"""What a formulation finds in a part, all parts' rows together.

`kind` is a disposition, and the row is of the packets of a pair that ended so by one path: `signature` tells one path
of a pair from another, and `records` is how many records they have. Or it is FIRST_HOPS: `packets` counts the pair's
first-hop records. APART: keys with several of those, and of floods, are only counted, without task and pair; UNCLAIMED:
keys with none, likewise.
"""


class PairTally(msgspec.Struct, frozen=True, kw_only=True):
    """A pair.

    Attributes:
        packets: all of them; apart: those that only the kernel takes apart (several of one key, floods), None if the
            formulation does not say. The four counts are without these.
        paths: of each path how its packets ended (`answers.KINDS`) and how many took it, sorted.
    """

    task: str
    pair: int
    packets: int
    apart: int | None
    delivered: int
    dropped: int
    lost_between: int
    left_domain: int
    paths: tuple[tuple[str, int], ...]

    @property
    def loss_ratio(self) -> float:
        """The share of the packets that were lost."""
        told = self.delivered + self.dropped + self.lost_between + self.left_domain
        return (self.dropped + self.lost_between) / told if told else 0.0


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """All pairs, by task and number.

    Attributes:
        records: distinct ones; unclaimed: keys without a first hop.
    """

    records: int
    unclaimed: int
    pairs: tuple[PairTally, ...]

    @property
    def packets(self) -> int:
        """Of all pairs."""
        return sum(pair.packets for pair in self.pairs)

    @property
    def paths(self) -> int:
        """Distinct ones of all pairs."""
        return sum(len(pair.paths) for pair in self.pairs)


def tally_of(parts: Iterable[pa.Table]) -> Tally:
    """Adds up what was found in parts, tables of `TALLY_SCHEMA`."""
    table = pa.concat_tables([TALLY_SCHEMA.empty_table(), *parts])
    summed = table.group_by(["task", "pair", "kind", "signature"]).aggregate([("packets", "sum"), ("records", "sum")])
    packets: dict[tuple[str, int], int] = {}
    paths: dict[tuple[str, int], list[tuple[str, int]]] = defaultdict(list)
    records = unclaimed = 0
    for row in summed.to_pylist():
        name, count = (row["task"], row["pair"]), row["packets_sum"]
        records += row["records_sum"]
        if row["kind"] in KINDS:
            paths[name].append((KINDS[row["kind"]], count))
        elif row["kind"] == FIRST_HOPS:
            packets[name] = count
        elif row["kind"] == UNCLAIMED:
            unclaimed += count
    pairs = tuple(pair_tally(name, packets[name], paths[name]) for name in sorted(packets))
    return Tally(records=records, unclaimed=unclaimed, pairs=pairs)


def tally_of_answers(found: Answers) -> Tally:
    """The same of the kernel's answers, which hold more."""
    pairs = []
    for task in found.tasks:
        for pair in task.pairs:
            paths = [(path.disposition, path.packets) for path in pair.paths]
            pairs.append(pair_tally((task.task, pair.pair), pair.packets, paths, says_apart=False))
    return Tally(records=found.records - found.repeated, unclaimed=found.unclaimed, pairs=tuple(pairs))


def pair_tally(
    name: tuple[str, int], packets: int, paths: Sequence[tuple[str, int]], *, says_apart: bool = True
) -> PairTally:
    """The tally of a (task, pair).

    Args:
        paths: of each path how its packets ended, and how many took it.
        says_apart: whether packets that are of no path are put apart.
    """
    counts = dict.fromkeys(KINDS.values(), 0)
    for kind, count in paths:
        counts[kind] += count
    return PairTally(
        task=name[0],
        pair=name[1],
        packets=packets,
        apart=packets - sum(counts.values()) if says_apart else None,
        delivered=counts[KINDS[AT_EGRESS]],
        dropped=counts[KINDS[AT_STOPPED]],
        lost_between=counts[KINDS[AT_SENT]],
        left_domain=counts[KINDS[AT_UNPLANNED]],
        paths=tuple(sorted(paths)),
    )


def differences(one: Tally, two: Tally) -> list[str]:
    """In what two formulations don't agree, in words.

    Of a pair of which one of them puts packets apart only the number of packets is compared.
    """
    found = []
    for word in ("records", "unclaimed"):
        if getattr(one, word) != getattr(two, word):
            found.append(f"{word}: {getattr(one, word)} and {getattr(two, word)}")
    first, second = ({(p.task, p.pair): p for p in tally.pairs} for tally in (one, two))
    for name in sorted(first.keys() | second.keys()):
        a, b = first.get(name), second.get(name)
        if a is None or b is None:
            found.append(f"task {name[0]} pair {name[1]}: only one has it")
        elif a.packets != b.packets:
            found.append(f"task {name[0]} pair {name[1]}: {a.packets} and {b.packets} packets")
        elif not a.apart and not b.apart and a.paths != b.paths:
            found.append(f"task {name[0]} pair {name[1]}: {a.paths} and {b.paths}")
    return found
