"""What the lost packets of a pair have that the others have not: by counts over whole columns.

A field is told where each of its values had only lost or only delivered packets, and where that would hardly be so if
packets were lost whatever their values. Lengths are told as a limit.
"""

from __future__ import annotations

import math
from collections import defaultdict

import msgspec
import numpy as np

from vtrace.reconstruct.gathering import Gathered
from vtrace.reconstruct.numbering import row_numbers
from vtrace.reconstruct.parts import PacketRows

BY_CHANCE = 0.001
# A pair's field with more values than these is told by none of them.
MOST_VALUES = 4096
_SHOWN = 8
FIELDS = {
    "length_bytes": "size_bytes",
    "sport": "source_port",
    "dport": "destination_port",
    "ct_state": "conntrack_state",
    "tcp_flags": "tcp_flags",
    "fragment": "fragment",
    "proto": "protocol",
    "backend": "backend",
}


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A field by which lost and delivered packets of a pair can be told apart: the values of both (some of them)."""

    field: str
    lost: tuple[str, ...]
    delivered: tuple[str, ...]
    text: str


def differences(
    gathered: Gathered, rows: PacketRows, known: np.ndarray, lost: np.ndarray
) -> dict[int, tuple[Difference, ...]]:
    """For each pair that lost some of its packets and not all.

    Args:
        known: of which packets it is known what became; lost: those that were lost.
    """
    pairs = len(gathered.pairs.names)
    losses = np.bincount(rows.pair[lost], minlength=pairs)
    some = (losses > 0) & (losses < np.bincount(rows.pair[known], minlength=pairs))
    chosen = np.flatnonzero(known & some[rows.pair]) if len(rows.pair) else np.zeros(0, np.int64)
    found: dict[int, list[Difference]] = defaultdict(list)
    if not len(chosen):
        return {}
    own_pair, own_lost = rows.pair[chosen].astype(np.int64), lost[chosen]
    for name, word in FIELDS.items():
        values = rows.backend if name == "backend" else rows.traits[name]
        _by_field(gathered, word, own_pair, values[chosen].astype(np.int64), own_lost, found)
    return {pair: tuple(one) for pair, one in found.items()}


def _by_field(
    gathered: Gathered,
    word: str,
    pair: np.ndarray,
    values: np.ndarray,
    lost: np.ndarray,
    found: dict[int, list[Difference]],
) -> None:
    numbers, first = row_numbers([pair, values])
    losses, counts = np.bincount(numbers[lost], minlength=len(first)), np.bincount(numbers)
    order = np.lexsort((values[first], pair[first]))
    distinct = np.column_stack((pair[first], values[first]))[order]
    losses, counts = losses[order], counts[order]
    begins = np.flatnonzero(np.diff(distinct[:, 0], prepend=-1))
    for begin, end in zip(begins, [*begins[1:], len(distinct)], strict=True):
        if end - begin < 2 or end - begin > MOST_VALUES:
            continue
        own, own_lost, own_all = distinct[begin:end, 1], losses[begin:end], counts[begin:end]
        told = _limit(own, own_lost, own_all) if word == "size_bytes" else _values(own, own_lost, own_all)
        if told is not None:
            found[int(distinct[begin, 0])].append(_said(gathered, word, *told))


def _values(own: np.ndarray, lost: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The values that were lost and those that were delivered, if no value has both and chance would not do it.

    Were each packet lost with the same probability, all of a value's would seldom meet one fate.
    """
    if np.any((lost > 0) & (lost < counts)):
        return None
    rate = lost.sum() / counts.sum()
    # By logarithms: of thousands of packets the chances are too small for numbers.
    log_chance = np.logaddexp(counts * math.log(rate), counts * math.log1p(-rate)).sum()
    return (own[lost > 0], own[lost == 0]) if log_chance < math.log(BY_CHANCE) else None


def _limit(own: np.ndarray, lost: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The shortest length that was lost and the longest that was delivered, if all longer ones were lost.

    Were lengths lost at random, those lost would seldom be just the longest ones.
    """
    if np.any((lost > 0) & (lost < counts)):
        return None
    shortest, longest = own[lost > 0].min(keepdims=True), own[lost == 0].max(keepdims=True)
    orders = math.comb(len(own), int((lost > 0).sum()))
    by_chance = orders * BY_CHANCE < 1 and _values(own, lost, counts) is None
    return None if shortest[0] <= longest[0] or by_chance else (shortest, longest)


def _said(gathered: Gathered, word: str, lost: np.ndarray, delivered: np.ndarray) -> Difference:
    def shown(values: np.ndarray) -> tuple[str, ...]:
        texts = [str(v) for v in values.tolist()]
        if word == "backend":
            texts = sorted(str(gathered.backends.names[v]) for v in values.tolist())
        return (*texts[:_SHOWN], *([f"and {len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else []))

    if word == "size_bytes":
        text = f"all of {lost[0]} bytes and more were lost, all of {delivered[0]} and less were delivered"
    else:
        text = f"{word.replace('_', ' ')}: {', '.join(shown(lost))} lost, {', '.join(shown(delivered))} delivered"
    return Difference(field=word, lost=shown(lost), delivered=shown(delivered), text=text)
