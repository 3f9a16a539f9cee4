"""Holds the kernel's answer about each packet, and about each pair, against the truth that a generator wrote down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vtrace.analyzer.stored import gather, open_stored
from vtrace.collect.blobs import row_numbers
from vtrace.collect.store import read_records
from vtrace.reconstruct.answers import KINDS, LOST_KINDS, Answers, answers
from vtrace.reconstruct.gathering import PLACE_FIELDS, Gathered
from vtrace.reconstruct.missing import flag_missing
from vtrace.reconstruct.parts import FLAG_AMBIGUOUS, FLAG_MISSING
from vtrace.reconstruct.schema import Goal
from vtrace.reconstruct.streams import Streams

# Whoever knows of no topology can't tell these two apart: in both the packet was handed to a port.
_ALIKE = {"left_domain": "delivered"}
_LOST_BETWEEN, _FLOOD = "lost_between", "flood"
RIGHT, EVIDENCE_MISSING, UNCLAIMED, WRONG = range(4)
ENDS = ("right", "evidence_missing", "unclaimed", "wrong")
"""What is to be said of an answer about a packet, by these numbers."""
_KEY = ("color", "epoch", "key")
_OUTCOME = (*_KEY, "task", "pair", "word", "chassis", "datapath", "peer")
"""What has to be right about a packet: `word` says what became of it."""
_IDENTITY = ("chassis", "incarnation", "color", "epoch", "seq")


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """How many packets were answered how.

    Attributes:
        without_goal: packets of floods that have no one receiver, since it moved: which of the copies is shown is left
            open, so nobody can be held to it. They are in none of the other counts.
        packets: all others of the truth. They are `right`; `evidence_missing`: so the answer says; `unclaimed`: nobody
            has the first-hop record; or `wrong`: something else is said than what became of them, or where.
        false_losses: arrived, and said to be lost; missed_losses: lost, and said to have arrived.
        phantoms: answers about packets that there were not.
        ambiguous: packets among several of one key, by the answer's own word; wrong_ambiguous: of the wrong ones those
            whose key several packets have.
        by_kind: of each kind of traffic, and by_disposition: of what became of packets, the same counts.
        pairs: how many pairs' `loss` is right, unknown, a false alarm, or misses a loss.
    """

    records: int
    records_missing: int
    without_goal: int
    packets: int
    right: int
    evidence_missing: int
    unclaimed: int
    wrong: int
    false_losses: int
    missed_losses: int
    phantoms: int
    ambiguous: int
    wrong_ambiguous: int
    by_kind: dict[str, dict[str, int]]
    by_disposition: dict[str, dict[str, int]]
    pairs: dict[str, int]


def accuracy(path: Path, truth: Path, goals: Mapping[tuple[str, int], Goal], cores: int = 1) -> Accuracy:
    """Reconstructs a file and holds the answers against its truth.

    Args:
        goals: where the packets of each (task, pair) should come out, if that is one place.
    """
    stored = open_stored(path)
    with gather(stored, cores=cores, goals=goals) as (gathered, streams):
        found = answers(gathered, streams, stored.evidence)
        told = _told(gathered, streams, read_records(path))
    known = _known(pq.read_table(truth))
    left_out = _floods_without(known, goals)
    judged = _compared(_others(known, left_out), _others(told, left_out), found)
    return msgspec.structs.replace(judged, without_goal=len(known) - judged.packets)


def _floods_without(known: pa.Table, goals: Mapping[tuple[str, int], Goal]) -> pa.Table:
    """The pairs of floods that have no goal."""
    pairs = known.filter(pc.equal(known["kind"], _FLOOD)).group_by(["task", "pair"]).aggregate([])
    rows = pairs.to_pylist()
    return pairs.filter(pa.array([(row["task"], row["pair"]) not in goals for row in rows], pa.bool_()))


def _others(table: pa.Table, pairs: pa.Table) -> pa.Table:
    """The rows of all other pairs."""
    own, left_out = _numbers(table, pairs, ("task", "pair"))
    return table.filter(pa.array(~np.isin(own, left_out)))


def _told(gathered: Gathered, streams: Streams, records: pa.Table) -> pa.Table:
    """A row for each packet of the answer: what it says of it. A packet's key is that of its last record."""
    rows = gathered.rows()
    flag_missing(gathered, rows, streams, streams.holes())
    arrays = [pa.array(values) for values in zip(*gathered.places.names, strict=True)]
    places = pa.table(arrays, names=list(PLACE_FIELDS)).take(pa.array(rows.last_place))
    pairs = pa.table([pa.array(values) for values in zip(*gathered.pairs.names, strict=True)], names=["task", "pair"])
    pairs = pairs.take(pa.array(rows.pair))
    words = pa.array([_ALIKE.get(KINDS[number], KINDS[number]) for number in range(len(KINDS))])
    word = words.take(pa.array(rows.disposition))
    identity = places.select(_IDENTITY[:-1]).append_column("seq", pa.array(rows.last_seq))
    return pa.table(
        {
            "color": places["color"],
            "epoch": places["epoch"],
            "key": pa.array(_keys(records, identity)),
            "task": pairs["task"],
            "pair": pairs["pair"],
            "word": word,
            "chassis": places["chassis"],
            "datapath": places["datapath"],
            "peer": pc.if_else(pc.equal(word, _LOST_BETWEEN), places["peer"], ""),
            "missing": pa.array(rows.flags & FLAG_MISSING != 0),
            "ambiguous": pa.array(rows.flags & FLAG_AMBIGUOUS != 0),
        }
    )


def _keys(records: pa.Table, identity: pa.Table) -> np.ndarray:
    """The keys of some records, named by log stream and number."""
    of_all, of_some = _numbers(records, identity, _IDENTITY)
    keys = np.zeros(max(of_all.max(initial=-1), of_some.max(initial=-1)) + 1, np.int64)
    keys[of_all] = records["key"].to_numpy()
    found: np.ndarray = keys[of_some]
    return found


def _known(truth: pa.Table) -> pa.Table:
    """The truth, in the words of an answer from records alone."""
    kind, word = (truth[name].cast(pa.string()) for name in ("kind", "disposition"))
    for one, other in _ALIKE.items():
        word = pc.if_else(pc.equal(word, one), other, word)
    # The one copy of a flood that is sent into tunnels names no peer.
    named = pc.and_(pc.equal(word, _LOST_BETWEEN), pc.not_equal(kind, _FLOOD))
    columns = {name: truth[name] for name in ("color", "epoch", "key", "task", "pair", "chassis", "datapath", "copies")}
    peer = pc.if_else(named, truth["peer"], "")
    return pa.table({**columns, "word": word, "peer": peer, "kind": kind, "disposition": truth["disposition"]})


def _compared(known: pa.Table, told: pa.Table, found: Answers) -> Accuracy:
    matched = _match(known, told)
    lost, said_lost = _is_lost(known["word"]), matched.said_lost
    wrong = matched.end == WRONG
    counts = np.bincount(matched.end, minlength=len(ENDS)).tolist()
    return Accuracy(
        records=found.records,
        records_missing=found.records_missing,
        without_goal=0,
        packets=len(known),
        **dict(zip(ENDS, counts, strict=True)),
        false_losses=int(np.count_nonzero(wrong & ~lost & said_lost)),
        missed_losses=int(np.count_nonzero(wrong & lost & ~said_lost)),
        phantoms=matched.phantoms,
        ambiguous=int(np.count_nonzero(told["ambiguous"].to_numpy())),
        wrong_ambiguous=int(np.count_nonzero(wrong & (known["copies"].to_numpy() > 1))),
        by_kind=_by(known["kind"], matched.end),
        by_disposition=_by(known["disposition"].cast(pa.string()), matched.end),
        pairs=_pairs(known, found),
    )


class _Matched(msgspec.Struct, frozen=True, kw_only=True):
    """For each packet of the truth its end (RIGHT, …), and whether the wrong answer that it got says that it was lost.

    `phantoms` counts answers that no packet is left for.
    """

    end: np.ndarray
    said_lost: np.ndarray
    phantoms: int


def _match(known: pa.Table, told: pa.Table) -> _Matched:
    """Matches packets and answers of each key: those that are equal first, then as well as can be."""
    key, own_key = _numbers(known, told, _KEY)
    outcome, own_outcome = _numbers(known, told, _OUTCOME)
    missing = told["missing"].to_numpy()
    count = max(outcome.max(initial=-1), own_outcome.max(initial=-1)) + 1
    sure = np.flatnonzero(~missing)
    right = _ranks(outcome) < np.bincount(own_outcome[sure], minlength=count)[outcome]
    taken = _ranks(own_outcome[sure]) < np.bincount(outcome, minlength=count)[own_outcome[sure]]
    # Of what is left an answer without evidence is taken for a lost packet first, and so is one that says a loss.
    left = np.flatnonzero(~right)
    left = left[np.lexsort((~_is_lost(known["word"])[left], key[left]))]
    others = sure[~taken]
    others = others[np.lexsort((~_is_lost(told["word"])[others], own_key[others]))]
    keys = max(key.max(initial=-1), own_key.max(initial=-1)) + 1
    without, wrong = (np.bincount(own_key[rows], minlength=keys) for rows in (np.flatnonzero(missing), others))
    rank = _ranks(key[left])
    end = np.zeros(len(known), np.int64)
    before = without[key[left]]
    end[left] = np.where(rank < before, EVIDENCE_MISSING, np.where(rank < before + wrong[key[left]], WRONG, UNCLAIMED))
    said_lost = np.zeros(len(known), np.bool_)
    is_wrong = end[left] == WRONG
    begins = np.searchsorted(own_key[others], np.arange(keys))
    answer = begins[key[left]] + rank - before
    said_lost[left[is_wrong]] = _is_lost(told["word"])[others[answer[is_wrong]]]
    phantoms = np.maximum(without + wrong - np.bincount(key[left], minlength=keys), 0)
    return _Matched(end=end, said_lost=said_lost, phantoms=int(phantoms.sum()))


def _numbers(one: pa.Table, two: pa.Table, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers equal rows of two tables alike."""
    types = [one.schema.field(name).type for name in names]
    columns = [
        pa.chunked_array([*one[name].chunks, *two[name].cast(type_).chunks], type_)
        for name, type_ in zip(names, types, strict=True)
    ]
    numbers, _ = row_numbers(columns)
    return numbers[: len(one)], numbers[len(one) :]


def _ranks(groups: np.ndarray) -> np.ndarray:
    """The place of each row among those of its group, from 0."""
    order = np.argsort(groups, kind="stable")
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.searchsorted(groups[order], groups[order])
    return ranks


def _is_lost(words: pa.ChunkedArray) -> np.ndarray:
    lost: np.ndarray = pc.is_in(words, value_set=pa.array(LOST_KINDS)).to_numpy()
    return lost


def _by(words: pa.ChunkedArray, end: np.ndarray) -> dict[str, dict[str, int]]:
    """For each word how many ends of each sort."""
    encoded = words.combine_chunks().dictionary_encode()
    table = np.zeros((len(encoded.dictionary), len(ENDS)), np.int64)
    np.add.at(table, (encoded.indices.to_numpy(), end), 1)
    rows = zip(encoded.dictionary.to_pylist(), table.tolist(), strict=True)
    return {word: dict(zip(ENDS, counts, strict=True)) for word, counts in sorted(rows)}


def _pairs(known: pa.Table, found: Answers) -> dict[str, int]:
    """A pair is said to lose packets for good: one of the truth does, or it does not."""
    lost = pa.table({"task": known["task"], "pair": known["pair"], "lost": pa.array(_is_lost(known["word"]))})
    truth = lost.group_by(["task", "pair"]).aggregate([("lost", "max")]).to_pylist()
    said = {(task.task, pair.pair): pair.loss for task in found.tasks for pair in task.pairs}
    counts = dict.fromkeys(("right", "unknown", "false_alarms", "missed"), 0)
    for row in truth:
        loss = said.get((row["task"], row["pair"]), "unknown")
        if loss == "unknown":
            counts["unknown"] += 1
        elif (loss == "yes") == row["lost_max"]:
            counts["right"] += 1
        else:
            counts["missed" if row["lost_max"] else "false_alarms"] += 1
    return counts


def document(by_loss: Mapping[str, Accuracy]) -> dict[str, Any]:
    """The figures: for each share of lost records the counts, and the shares of all packets."""
    return {loss: {**msgspec.to_builtins(found), "shares": _shares(found)} for loss, found in by_loss.items()}


def _shares(found: Accuracy) -> dict[str, float]:
    return {name: round(getattr(found, name) / max(found.packets, 1), 6) for name in ENDS}


def text(document: Mapping[str, Any]) -> Iterator[str]:
    """The figures for people, line by line."""
    yield "share of packets by share of lost records; a loss that is said of a packet that arrived is false"
    words = "right", "no evid.", "unclaimed", "wrong"
    yield f"{'lost':>6} {'packets':>9} {' '.join(f'{word:>9}' for word in words)} {'false':>6} {'missed':>6}"
    for loss, found in document["figures"].items():
        shares = " ".join(f"{100 * found['shares'][name]:8.3f}%" for name in ENDS)
        yield f"{loss:>6} {found['packets']:>9,} {shares} {found['false_losses']:>6} {found['missed_losses']:>6}"
    for loss, found in document["figures"].items():
        yield ""
        yield f"{loss} of the records lost; pairs: {', '.join(f'{n} {word}' for word, n in found['pairs'].items())}"
        for word, counts in (*found["by_disposition"].items(), *found["by_kind"].items()):
            yield f"  {word:22} {', '.join(f'{count:,} {end}' for end, count in counts.items() if count)}"
