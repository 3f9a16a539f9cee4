"""Made-up traffic of one pair, ways of losing some of it, and what the contrast says then."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable, Sequence

import builders
from msgspec.structs import replace

from vtrace.attribute.contrast import tell_apart
from vtrace.attribute.traits import Traits
from vtrace.model.answer import Contrast
from vtrace.model.task import Direction

CASE = builders.case(
    [],
    pairs=[
        builders.pair(),
        builders.pair("web2", "web1", index=1, direction=Direction.REPLY),
        builders.pair("web1", "db1", index=2),
    ],
)
GAP_NS = 10_000_000


def packet(number: int, connection: int = 0, *, pair: int = 0, proto: int = 17, **values: Hashable) -> Traits:
    """The n-th packet of a pair, delivered; echoes of all connections look alike."""
    of = CASE.pair(pair)
    seen: dict[str, Hashable] = {"size": 92, "fragment": False, "protocol": "udp"}
    if proto in (6, 17):
        seen |= {"source_port": 36000 + connection, "destination_port": 80}
    return Traits(
        pair=pair,
        direction=of.direction,
        ends=of.task_ends,
        lost=False,
        unit=(pair, proto, connection if proto in (6, 17) else 0),
        order=(builders.HV1, number),
        at_ns=number * GAP_NS,
        proto=proto,
        servers=frozenset({"hv1", "hv2"}),
        values={**seen, **values},
    )


def lose(
    packets: Sequence[Traits], which: Callable[[Traits], bool] | Sequence[bool], code: str = "physical_loss"
) -> list[Traits]:
    """The same packets, some of them lost for a reason."""
    chosen = [which(p) for p in packets] if callable(which) else which
    return [
        replace(p, lost=True, code=code, cause=f"{code} on hv2", between=code == "physical_loss") if is_lost else p
        for p, is_lost in zip(packets, chosen, strict=True)
    ]


def said(packets: Iterable[Traits]) -> tuple[Contrast, ...]:
    return tell_apart(CASE, list(packets))


def fields(packets: Iterable[Traits]) -> list[str]:
    return [one.field for one in said(packets)]


# --- traffic and losses drawn at random -------------------------------------------------------------------


def drawn_traffic(draw: random.Random) -> list[Traits]:
    """Some connections, in turn, at random or one after the other, with sizes, backends, next hops that vary or not."""
    connections, proto = draw.choice([1, 2, 3, 4, 8, 16, 32, 64, 100]), draw.choice([6, 17, 17, 1])
    backends, members, ports = draw.choice([1, 2, 3, 5]), draw.choice([1, 2, 4]), draw.choice([1, 2, 3])
    sizing, order = draw.choice(["one", "own", "any", "two", "first"]), draw.choice(["turn", "random", "after"])
    own = [
        {
            "source_port": 36000 + n if draw.random() < 0.7 else draw.randrange(1024, 65536),
            "destination_port": draw.choice([80, 443, 53][:ports]),
            "conntrack_state": draw.choice(["new", "est", "est"]),
            "backend": f"10.0.2.{draw.randrange(backends)}",
            "ecmp_member": f"0a:00:00:00:00:{draw.randrange(members):02x}",
        }
        for n in range(connections)
    ]
    sizes = [draw.randrange(60, 1400) for _ in own]
    count, made = draw.choice([20, 50, 100, 100, 300]), []
    for number in range(count):
        chosen = {"turn": number % connections, "random": draw.randrange(connections)}.get(
            order, number * connections // count
        )
        size = {
            "one": 92,
            "own": sizes[chosen],
            "any": draw.randrange(60, 1400),
            "two": draw.choice([92, 1400]),
            "first": 92 if number < count // 2 else 1400,
        }[sizing]
        values = {k: v for k, v in own[chosen].items() if proto != 1 or k in ("backend", "ecmp_member")}
        one = packet(number, chosen, proto=proto, **{**values, "size": size})
        made.append(replace(one, servers=frozenset({"hv1", f"of {values['backend']}"})))
    return made


def at_random(draw: random.Random, packets: Sequence[Traits]) -> list[bool]:
    share = draw.uniform(0.03, 0.97)
    return [draw.random() < share for _ in packets]


def for_a_while(draw: random.Random, packets: Sequence[Traits]) -> list[bool]:
    first, last = sorted((draw.randrange(len(packets)), draw.randrange(len(packets))))
    return [first <= number < last for number in range(len(packets))]


def in_bursts(draw: random.Random, packets: Sequence[Traits]) -> list[bool]:
    state, found = False, []
    for _ in packets:
        state ^= draw.random() < 0.15
        found.append(state)
    return found


def on_and_off(draw: random.Random, packets: Sequence[Traits]) -> list[bool]:
    period = draw.randrange(3, 40)
    return [number // period % 2 == 1 for number in range(len(packets))]


def by_connection(draw: random.Random, packets: Sequence[Traits]) -> list[bool]:
    share, lost = draw.uniform(0.03, 0.97), {}
    return [lost.setdefault(p.unit, draw.random() < share) for p in packets]
