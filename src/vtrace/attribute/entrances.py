"""In which order a pair's packets came in where that was at several servers (docs/answer.md, "Pattern and loss")."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from vtrace.attribute.case import Case
from vtrace.attribute.endings import Ending
from vtrace.model.record import LogRecord


def in_first_hop_order(case: Case, found: Sequence[Ending]) -> list[Ending]:
    """The endings of one pair in first-hop order, with `order` as their places in it.

    Each server orders its own packets, by its own clock. Between servers the epochs do, and within one the flows: those
    that came in by one server before it, and by another for the first time in it, have changed over. What neither
    orders is put side by side, as if both servers had begun at once.

    Args:
        found: by the orders of their own servers.
    """
    firsts = [case.records[ending.hops[0]] for ending in found]
    if len({first.chassis for first in firsts}) < 2 or len({first.dscp for first in firsts}) > 1:
        # Each DSCP has epochs of its own.
        return list(found)
    turns = _turns(found, firsts)
    places = {
        number: (first.epoch, turns[first.epoch, first.chassis], ending.order)
        for number, (ending, first) in enumerate(zip(found, firsts, strict=True))
    }
    numbers = sorted(range(len(found)), key=lambda number: (places[number], number))
    return [replace(found[number], order=place) for place, number in enumerate(numbers)]


def _turns(found: Sequence[Ending], firsts: Sequence[LogRecord]) -> Mapping[tuple[int, str], int]:
    """By epoch and chassis: 1 for those that flows have changed over to in it."""
    flows: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    since: dict[str, int] = {}
    for ending, first in zip(found, firsts, strict=True):
        flows[first.epoch][first.chassis].add(ending.flow)
        since[first.chassis] = min(first.epoch, since.get(first.chassis, first.epoch))
    turns: dict[tuple[int, str], int] = defaultdict(int)
    for epoch, by_chassis in flows.items():
        new = [chassis for chassis in by_chassis if since[chassis] == epoch]
        old = [chassis for chassis in by_chassis if since[chassis] < epoch]
        changed = set().union(*(by_chassis[chassis] for chassis in new))
        if new and old and all(by_chassis[chassis] <= changed for chassis in old):
            turns.update({(epoch, chassis): 1 for chassis in new})
    return turns
