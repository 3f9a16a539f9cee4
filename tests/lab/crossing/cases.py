"""Which cases are run: a core at every device of every way, and of the whole a sample, or all (VTRACE_SOAK=1)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from faults.facts import Facts
from faults.matrix import DSCPS, apart, seed
from faults.running import is_soak

from crossing import faults
from crossing.faults import Build, Target
from crossing.running import Run
from crossing.scope import Proto, Scope
from crossing.ways import Ip, Way

FIRST_PORT = 20200
SAMPLE_SIZE = 3
SOAK_BATCH = 8
PROTOS: tuple[Proto, ...] = ("udp", "tcp", "icmp")
IPS: tuple[Ip, ...] = (4, 6)
AT_SWITCH: dict[str, Build] = {
    "acl-from": lambda target: faults.acl(target, "from-lport"),
    "acl-to": lambda target: faults.acl(target, "to-lport"),
    "foreign-in": lambda target: faults.foreign(target, "ingress"),
    "foreign-out": lambda target: faults.foreign(target, "egress"),
}
AT_ROUTER: dict[str, Build] = {
    "policy": faults.policy,
    "foreign-in": AT_SWITCH["foreign-in"],
    "foreign-out": AT_SWITCH["foreign-out"],
}
# Way, IP version, protocol, the device's place in the way (None: healthy), and the kind of fault there.
Coordinates = tuple[Way, Ip, Proto, int | None, str]
Batch = tuple[Coordinates, ...]


def core(ways: tuple[Way, ...]) -> Iterator[Batch]:
    """For each way a healthy pair, and one loss at each of its devices; all of them at once."""
    for number, way in enumerate(ways):
        ip = IPS[number % 2]
        batch: list[Coordinates] = [(way, ip, PROTOS[(number + 1) % 3], None, "healthy")]
        for place, leg in enumerate(way.legs):
            kinds = tuple(AT_SWITCH if leg.is_switch else AT_ROUTER)
            batch.append((way, ip, "udp", place, kinds[(number + place) % len(kinds)]))
        yield tuple(batch)


def whole(ways: tuple[Way, ...]) -> Iterator[Coordinates]:
    for way, ip, proto in itertools.product(ways, IPS, PROTOS):
        yield way, ip, proto, None, "healthy"
        for place, leg in enumerate(way.legs):
            for kind in AT_SWITCH if leg.is_switch else AT_ROUTER:
                yield way, ip, proto, place, kind


def chosen(ways: tuple[Way, ...]) -> list[Batch]:
    """The batches of this run. Echo packets have no port: of one pair only one case of them is in a batch."""
    if is_soak():
        return list(_soak(ways))
    sample = random.Random(seed()).sample(list(whole(ways)), SAMPLE_SIZE)
    return [*core(ways), apart(sample, _echoes)]


def _echoes(case: Coordinates) -> tuple[frozenset[str], int] | None:
    way, ip, proto = case[:3]
    return (frozenset(way.ends[ip]), ip) if proto == "icmp" else None


def _soak(ways: tuple[Way, ...]) -> Iterator[Batch]:
    for (_, _, proto), cases in itertools.groupby(whole(ways), key=lambda case: case[:3]):
        size = 1 if proto == "icmp" else SOAK_BATCH
        listed = list(cases)
        yield from (tuple(listed[first : first + size]) for first in range(0, len(listed), size))


def name_of(batch: Batch) -> str:
    way, ip, proto, place, kind = batch[0]
    rest = f"-and-{len(batch) - 1}" if len(batch) > 1 else ""
    return f"{way.name}-{proto}{ip}-{kind}{'' if place is None else f'-{way.legs[place].vfd}'}{rest}"


def build(batch: Batch, facts: Facts) -> list[Run]:
    """The cases of a batch, each with packets of its own."""
    runs = []
    for number, (way, ip, proto, place, kind) in enumerate(batch):
        scope = Scope(way, ip, proto, FIRST_PORT + number)
        fault = None
        if place is not None:
            leg = way.legs[place]
            builders = AT_SWITCH if leg.is_switch else AT_ROUTER
            fault = builders[kind](Target(scope, leg, number, facts))
        runs.append(Run(scope, fault, DSCPS[number % len(DSCPS)]))
    return runs


def one(
    way: Way, ip: Ip, proto: Proto, facts: Facts, builder: Build | None = None, vfd: str = "", number: int = 0
) -> Run:
    """A case by itself: with a fault at a device, or healthy."""
    scope = Scope(way, ip, proto, FIRST_PORT + 50 + number)
    fault = builder(Target(scope, way.leg(vfd), number, facts)) if builder else None
    return Run(scope, fault, DSCPS[number % len(DSCPS)])
