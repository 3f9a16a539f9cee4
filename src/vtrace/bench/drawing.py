"""Which cases a benchmark has: drawn from the seed alone, so that any of them can be run again."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import msgspec

from vtrace.bench.fault import ANOMALIES, Fault, Kind
from vtrace.errors import UsageError

Mode = Literal["fault", "two faults", "near-miss", "healthy"]

BATCH = 20
"""Cases that share a lab, one after the other."""
KIND_SHARES: dict[Kind, int] = {"vpc": 50, "slb": 13, "internet": 17, "datacenter": 10, "vpcs": 10}
MODE_SHARES: dict[Mode, int] = {"fault": 70, "two faults": 10, "near-miss": 13, "healthy": 7}


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One case, before a lab gives it places, addresses and values.

    Attributes:
        number: of the case; with the seed it names the case.
        batch: cases of one kind with one batch share a lab.
        faults: names; of a healthy case none.
        busy: whether other VMs of the lab send meanwhile.
    """

    number: int
    seed: int
    kind: Kind
    batch: int
    mode: Mode
    faults: tuple[str, ...]
    busy: bool

    @property
    def rng(self) -> random.Random:
        """The source of everything else that is drawn for it."""
        return random.Random(f"{self.seed}/case/{self.number}")

    @property
    def lab_rng(self) -> random.Random:
        """The source of its lab."""
        return random.Random(f"{self.seed}/lab/{self.kind}/{self.batch}")


def draw(
    faults: Sequence[Fault], count: int, seed: int, *, kinds: Sequence[Kind] = (), mode: Mode | None = None
) -> list[Case]:
    """The first `count` cases of a seed; a larger count only adds to them.

    Raises:
        UsageError: no fault can be injected into any of these kinds of traffic.
    """
    asked = [kind for kind in KIND_SHARES if not kinds or kind in kinds]
    usable = [kind for kind in asked if mode == "healthy" or any(kind in fault.traffic for fault in faults)]
    if not usable:
        raise UsageError("there is no fault to inject", "bench faults", f"kinds of traffic: {' '.join(kinds) or 'all'}")
    of_kind: dict[Kind, int] = defaultdict(int)
    found = []
    for number in range(count):
        rng = random.Random(f"{seed}/draw/{number}")
        drawn: Mode = mode or rng.choices(list(MODE_SHARES), list(MODE_SHARES.values()))[0]
        # Two faults need two pairs with one sender, which only VPCs have plenty of.
        among = [kind for kind in usable if kind == "vpc"] if drawn == "two faults" else []
        kind = rng.choices(among or usable, [KIND_SHARES[k] for k in among or usable])[0]
        names = _faults(faults, kind, drawn, rng)
        if len(names) < 2 and drawn == "two faults":
            drawn = "fault"
        found.append(
            Case(
                number=number,
                seed=seed,
                kind=kind,
                batch=of_kind[kind] // BATCH,
                mode=drawn if names else "healthy",
                faults=names,
                busy=rng.random() < 0.3,
            )
        )
        of_kind[kind] += 1
    return found


def _faults(faults: Sequence[Fault], kind: Kind, mode: str, rng: random.Random) -> tuple[str, ...]:
    if mode == "healthy":
        return ()
    there = [fault for fault in faults if kind in fault.traffic]
    if mode == "near-miss":
        there = [fault for fault in there if fault.has_near_miss]
    fit = [fault for fault in there if kind == "vpc" and _can_be_second(fault)]
    if mode == "two faults" and fit:
        there = fit
    if not there:
        return ()
    first = _one(there, rng)
    if mode != "two faults" or not fit:
        return (first.name,)
    beside = [fault for fault in there if fault.name != first.name and _go_together(first, fault)]
    return (first.name, _one(beside, rng).name) if beside else (first.name,)


def _can_be_second(fault: Fault) -> bool:
    """Whether it touches the packets of its own pair only, and any pair will do."""
    alias = fault.packets.to_alias or fault.packets.from_alias
    return not fault.alone and not alias and "reply" not in fault.needs


def _go_together(one: Fault, other: Fault) -> bool:
    """Whether there are packets for both."""
    return bool(set(one.versions) & set(other.versions) and set(one.protocols) & set(other.protocols))


def _one(faults: Sequence[Fault], rng: random.Random) -> Fault:
    """A fault, by how often such anomalies were seen in a real cloud; those of one row and code share its weight."""
    by_anomaly: dict[str, dict[str, list[Fault]]] = defaultdict(lambda: defaultdict(list))
    for fault in faults:
        by_anomaly[fault.anomaly][fault.code].append(fault)
    anomaly = rng.choices(list(by_anomaly), [ANOMALIES[name] for name in by_anomaly])[0]
    code = rng.choice(sorted(by_anomaly[anomaly]))
    return rng.choice(by_anomaly[anomaly][code])


def batches(cases: Sequence[Case]) -> list[list[Case]]:
    """Cases by lab, in the order in which they are to be run."""
    found: dict[tuple[Kind, int], list[Case]] = defaultdict(list)
    for case in cases:
        found[case.kind, case.batch].append(case)
    return sorted(found.values(), key=lambda batch: batch[0].number)
