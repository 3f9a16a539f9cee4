"""Which cases are run: a core at every device of every way, and of the whole a sample, or all (VTRACE_SOAK=1)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from faults.facts import Facts
from faults.matrix import apart, seed
from faults.running import is_soak

from kinds import faults
from kinds.faults import Build
from kinds.running import Run, make
from kinds.ways import (
    BACKEND,
    CENTRAL,
    CENTRAL_IN,
    DISTRIBUTED,
    DISTRIBUTED_INWARD,
    FROM_VIP,
    SHARED,
    SHARED_REPLY,
    VIP,
    Ip,
    Proto,
    Way,
)

SAMPLE_SIZE = 2
SOAK_BATCH = 6
PROTOS: tuple[Proto, ...] = ("udp", "tcp", "icmp")
IPS: tuple[Ip, ...] = (4, 6)
QUIET_SWITCH = ("ls_in_dhcp_options",)
SWITCH_OUT = ("ls_out_qos_mark", "ls_out_qos")
ROUTER_IN = ("lr_in_larger_pkts",)
ROUTER_OUT = ("lr_out_delivery",)

FAULTS: dict[str, dict[str, Build]] = {
    CENTRAL.name: {
        "acl-vm": faults.acl(1, "from-lport"),
        "policy": faults.policy(2, "hv1"),
        "router-on-hv": faults.foreign(2, ROUTER_IN),
        "router-after-nat": faults.foreign(4, ROUTER_OUT),
        "acl-public": faults.acl(5, "to-lport"),
        "bridge": faults.provider_bridge(5),
    },
    SHARED.name: {
        "acl-vm": faults.acl(1, "from-lport"),
        "router-after-nat": faults.foreign(4, ROUTER_OUT),
        "public": faults.foreign(5, QUIET_SWITCH),
        "bridge": faults.provider_bridge(5),
    },
    DISTRIBUTED.name: {
        "acl-vm": faults.acl(1, "from-lport"),
        "router-after-nat": faults.foreign(2, ROUTER_OUT),
        "acl-public": faults.acl(3, "to-lport"),
        "bridge": faults.provider_bridge(3),
    },
    CENTRAL_IN.name: {
        "acl-public": faults.acl(1, "from-lport"),
        "policy": faults.policy(2, "gw1"),
        "router": faults.foreign(2, ROUTER_OUT),
        "vm-switch": faults.foreign(5, SWITCH_OUT),
        "acl-vm": faults.acl(5, "to-lport"),
    },
    DISTRIBUTED_INWARD.name: {
        "public": faults.foreign(1, QUIET_SWITCH),
        "policy": faults.policy(2, "hv2"),
        "acl-vm": faults.acl(3, "to-lport"),
    },
    SHARED_REPLY.name: {
        "public": faults.foreign(1, QUIET_SWITCH),
        "router": faults.foreign(2, ROUTER_OUT),
        "acl-vm": faults.acl(5, "to-lport"),
    },
    VIP.name: {
        "acl-client": faults.acl(2, "from-lport"),
        "policy": faults.policy(3, "hv1"),
        "router": faults.foreign(3, ROUTER_IN),
        "backend-switch": faults.foreign(6, SWITCH_OUT),
        "acl-backend": faults.acl(6, "to-lport"),
    },
    BACKEND.name: {
        "client-switch": faults.foreign(2, QUIET_SWITCH),
        "policy": faults.policy(3, "hv1"),
        "acl-backend": faults.acl(6, "to-lport"),
    },
    FROM_VIP.name: {
        "acl-backend": faults.acl(1, "from-lport"),
        "policy": faults.policy(2, "hv2"),
        "router": faults.foreign(2, ROUTER_OUT),
    },
}
# Way, IP version, protocol, and the fault ("": healthy).
Coordinates = tuple[Way, Ip, Proto, str]
Batch = tuple[Coordinates, ...]


def core(ways: tuple[Way, ...]) -> Iterator[Batch]:
    """For each way a healthy pair and one loss at each of its devices, all at once."""
    for number, way in enumerate(ways):
        protos = PROTOS if number == 0 else (PROTOS[(number + 1) % 3],)
        healthy = [(way, IPS[(number + turn) % 2], proto, "") for turn, proto in enumerate(protos)]
        lost: list[Coordinates] = [
            (way, IPS[(number + turn) % 2], "udp", name) for turn, name in enumerate(FAULTS[way.name])
        ]
        yield (*healthy, *lost)


def whole(ways: tuple[Way, ...]) -> Iterator[Coordinates]:
    for way, ip, proto in itertools.product(ways, IPS, PROTOS):
        for name in ("", *FAULTS[way.name]):
            yield way, ip, proto, name


def chosen(ways: tuple[Way, ...]) -> list[Batch]:
    """The batches of this run. Echo packets have no port: between two ends only one case of them is in a batch."""
    if is_soak():
        return list(_soak(ways))
    sample = random.Random(seed()).sample(list(whole(ways)), SAMPLE_SIZE)
    return [*core(ways), apart(sample, _echoes)]


def _echoes(case: Coordinates) -> tuple[frozenset[str], int] | None:
    way, ip, proto, _ = case
    return (frozenset({way.sender, way.receiver}), ip) if proto == "icmp" else None


def _soak(ways: tuple[Way, ...]) -> Iterator[Batch]:
    for (_, _, proto), cases in itertools.groupby(whole(ways), key=lambda case: case[:3]):
        size, listed = 1 if proto == "icmp" else SOAK_BATCH, list(cases)
        yield from (tuple(listed[first : first + size]) for first in range(0, len(listed), size))


def name_of(batch: Batch) -> str:
    way, ip, proto, fault = batch[0]
    return f"{way.name}-{proto}{ip}-{fault or 'healthy'}" + (f"-and-{len(batch) - 1}" if len(batch) > 1 else "")


def build(batch: Batch, facts: Facts) -> list[Run]:
    """The cases of a batch; beside every loss the same change for packets that nobody sends."""
    return [
        make(
            facts,
            number,
            way,
            ip,
            proto,
            FAULTS[way.name][name] if name else None,
            FAULTS[way.name][name] if name and proto != "icmp" else None,
        )
        for number, (way, ip, proto, name) in enumerate(batch)
    ]
