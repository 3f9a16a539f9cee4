"""Which cases are run: the core always, of the whole matrix a sample (VTRACE_SAMPLE_SEED) or all (VTRACE_SOAK=1)."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

from faults.catalogue import LOGICAL, Entry
from faults.conflicts import CONFLICTS
from faults.lagging import LAGGING
from faults.physical import FOREIGN, FOREIGN_CORE, PHYSICAL
from faults.sizes import SIZES
from faults.tunnels import TUNNELS

DEFAULT_SEED = 20260101
SAMPLE_SIZE = 12
DSCPS = (0, 10, 46)

Coordinates = dict[str, object]
_Case = TypeVar("_Case")


def entries() -> dict[str, Entry]:
    return {entry.name: entry for entry in (*LOGICAL, *PHYSICAL, *LAGGING, *CONFLICTS, *TUNNELS, *SIZES, *FOREIGN)}


def seed() -> int:
    return int(os.environ.get("VTRACE_SAMPLE_SEED") or DEFAULT_SEED)


def coordinates(entry: Entry, number: int, *, near: bool) -> Coordinates:
    """One case of an entry: where, which protocol and so on go round with the number."""
    return {
        "name": entry.name,
        "placement": entry.placements[-1 - number % len(entry.placements)],
        "proto": entry.protos[number % len(entry.protos)],
        "ip": 6 if number % 5 in (1, 4) and 6 in entry.ips else 4,
        "opened_before": number % 4 != 3,
        "dscp": DSCPS[number // 2 % len(DSCPS)],
        "near_miss": near,
    }


def core() -> list[Coordinates]:
    """Every kind of fault once, and its near-miss; of the entries put in by hand, every other near-miss."""
    known = entries()
    names = [entry.name for entry in (*LOGICAL, *PHYSICAL, *LAGGING, *CONFLICTS, *TUNNELS)] + list(FOREIGN_CORE)
    names += [entry.name for entry in SIZES]
    cases = []
    for number, name in enumerate(names):
        cases.append(coordinates(known[name], number, near=False))
        if known[name].near and (name not in FOREIGN_CORE or number % 2):
            cases.append(coordinates(known[name], number, near=True))
    return cases


def whole() -> Iterator[Coordinates]:
    """Every fault at every place with every protocol, and every near-miss."""
    draw = random.Random(seed())
    for entry in entries().values():
        nears = (False, True) if entry.near else (False,)
        for placement, proto, ip, near in itertools.product(entry.placements, entry.protos, entry.ips, nears):
            yield {
                "name": entry.name,
                "placement": placement,
                "proto": proto,
                "ip": ip,
                "opened_before": draw.random() < 0.75,
                "dscp": draw.choice(DSCPS),
                "near_miss": near,
            }


def chosen() -> list[Coordinates]:
    """The cases of this run."""
    if os.environ.get("VTRACE_SOAK", "0") == "1":
        return list(whole())
    always = core()
    return always + random.Random(seed()).sample(list(whole()), SAMPLE_SIZE)


def name_of(case: Coordinates) -> str:
    near = "-near" if case["near_miss"] else ""
    when = "open" if case["opened_before"] else "new"
    return f"{case['name']}{near}-{case['placement']}-{case['proto']}{case['ip']}-{when}-dscp{case['dscp']}"


def apart(sample: Iterable[_Case], ends: Callable[[_Case], Hashable]) -> tuple[_Case, ...]:
    """The cases that can run at once: of those with echoes between the same two ends only the first.

    Args:
        ends: of a case the two ends of its packets and the IP version, if they are echoes; else None. Echoes have no
            port that tells whose they are.
    """
    found = []
    taken: set[Hashable] = set()
    for case in sample:
        own = ends(case)
        if own is None or own not in taken:
            found.append(case)
            taken.add(own)
    return tuple(found)
