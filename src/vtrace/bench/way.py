"""The ways packets can take in a lab: who sends to whom, what is asked about them, and the places they pass.

Inside a VPC they follow from where the VMs are. For the other kinds of traffic they are written down in `ways/`, hop by
hop, as the topology means them.
"""

from __future__ import annotations

import ipaddress
import itertools
import random
import tomllib
from collections.abc import Callable
from importlib import resources
from typing import Literal

import msgspec

from vtrace.bench.fault import Trait
from vtrace.bench.topologies import Rename
from vtrace.lab.state import LabState, LabVm

VfdKind = Literal["vswitch", "vrouter", "vbrouter", "slb"]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a fault can be.

    Attributes:
        in_port, out_port: logical ports that the packets come in by and leave by; empty if they have none there.
        src, dst: the packets' addresses there, IPv4 and IPv6.
        dport: the port that the answering side has there, if not that of the case.
    """

    role: str
    server: str
    vfd: str
    vfd_kind: VfdKind
    in_port: str = ""
    out_port: str = ""
    src: tuple[str, str]
    dst: tuple[str, str]
    dport: int = 0


class Balancer(msgspec.Struct, frozen=True, kw_only=True):
    """A VIP of a load balancer: the backend that it is left with for a case, and those that it has otherwise."""

    name: str
    vip: str
    lone: str
    all: str


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """Packets of one direction, from the `sending` node to the `receiving` one.

    Attributes:
        client: who starts the traffic; towards: what it sends to, a word for each IP version.
        sources: addresses that the client sends from.
        asked: `--from` and `--to`, for each IP version; several texts stand for the same end.
        places: in the order in which the packets pass them.
        arrival: how a packet that gets through ends.
        port: where the client sends to, if that can't be drawn.
        traits: what a fault may need of it, in `ways/`.
        values: `{way.…}` of a fault's texts, for each IP version.
        balancers: what load balancers have to be set to, so that it is known which backend is chosen.
    """

    name: str
    kind: str
    direction: Literal["forward", "reply"]
    client: str
    server: str
    towards: tuple[str, str]
    sources: tuple[str, str]
    asked: tuple[tuple[str, str], tuple[str, str]]
    places: tuple[Place, ...]
    arrival: str = "delivered"
    port: int = 0
    protocols: tuple[str, ...] = ("udp", "tcp", "icmp")
    traits: tuple[str, ...] = ()
    values: dict[str, tuple[str, str]] = {}
    balancers: tuple[Balancer, ...] = ()

    @property
    def sending(self) -> str:
        return self.client if self.direction == "forward" else self.server

    @property
    def receiving(self) -> str:
        return self.server if self.direction == "forward" else self.client

    def place(self, role: str) -> Place | None:
        """The place with a role; of "first_router" that of the first router of any kind."""
        if role == "first_router":
            return next((place for place in self.places if place.vfd_kind in ("vrouter", "vbrouter")), None)
        return next((place for place in self.places if place.role == role), None)

    @property
    def crossings(self) -> tuple[tuple[str, Place], ...]:
        """Every tunnel: the server it leads from, and the first place behind it; the device there sends into it."""
        pairs = itertools.pairwise(self.places)
        return tuple((before.server, after) for before, after in pairs if before.server != after.server)

    def has(self, need: str) -> bool:
        """Whether it is what a fault needs."""
        servers = {place.server for place in self.places}
        return {
            "local": len(servers) == 1,
            "remote": len(servers) > 1,
            "routed": self.place("router") is not None,
            "switched": self.place("router") is None,
            "forward": self.direction == "forward",
            "reply": self.direction == "reply",
            "alias": True,
            "unwatched": "watched" not in self.traits,
            "direct": not self.balancers,
            "one way": len({frozenset((a, b.server)) for a, b in self.crossings}) == len(self.crossings),
            "as sent": self.asked[0][1].rpartition("/")[2] == self.towards[0].rpartition(":")[2],
            "unchecked": "checked" not in self.traits,
            "unforced": "on router" not in self.traits,
        }.get(need, need in self.traits)


def both(addresses: tuple[str, ...]) -> tuple[str, str]:
    """The first address of each version; empty where there is none."""
    found = [[a for a in addresses if ipaddress.ip_address(a).version == version] for version in (4, 6)]
    return (found[0] or [""])[0], (found[1] or [""])[0]


def inside(
    state: LabState,
    rng: random.Random,
    *,
    alias: bool = False,
    from_alias: bool = False,
    other_than: Way | None = None,
) -> Way:
    """A way between two VMs of one VPC, drawn.

    Args:
        alias: the receiver has to have an alias, which is what is sent to.
        from_alias: the sender has to have one, which it sends from.
        other_than: the way of a first fault: the same sender and direction, another receiver.
    """
    ends = [
        (one, other)
        for one, other in itertools.permutations(state.vms, 2)
        if one.vpc == other.vpc and (other.aliases or not alias) and (one.aliases or not from_alias)
    ]
    if other_than is not None:
        ends = [(a, b) for a, b in ends if a.name == other_than.client and b.name != other_than.server]
    client, server = rng.choice(ends)
    direction: Literal["forward", "reply"] = "forward"
    if other_than.direction == "reply" if other_than else (not (alias or from_alias) and rng.random() < 0.25):
        direction = "reply"
    return _between(client, server, direction, rng, alias=alias, from_alias=from_alias)


def _between(
    client: LabVm,
    server: LabVm,
    direction: Literal["forward", "reply"],
    rng: random.Random,
    *,
    alias: bool,
    from_alias: bool,
) -> Way:
    own, there = (
        both(client.aliases if from_alias else client.addresses),
        both(server.aliases if alias else server.addresses),
    )
    sender, receiver = (client, server) if direction == "forward" else (server, client)
    src, dst = (own, there) if direction == "forward" else (there, own)
    name = f"{'switched' if sender.switch == receiver.switch else 'routed'}-"
    name += "local" if sender.server == receiver.server else "remote"
    forms = [(vm.name, f"{vm.vpc}/{{}}") for vm in (client, server)]
    drawn = [rng.choice(form) for form in forms]
    asked = [[form.format(address) for address in ends] for form, ends in zip(drawn, (own, there), strict=True)]
    return Way(
        name=name,
        kind="vpc",
        direction=direction,
        client=client.name,
        server=server.name,
        towards=(f"{server.name}:{there[0]}", f"{server.name}:{there[1]}") if alias else (server.name, server.name),
        sources=own,
        asked=((asked[0][0], asked[1][0]), (asked[0][1], asked[1][1])),
        places=_places(sender, receiver, src, dst),
    )


def _places(sender: LabVm, receiver: LabVm, src: tuple[str, str], dst: tuple[str, str]) -> tuple[Place, ...]:
    """A distributed router works on the sender's server."""
    ends: tuple[tuple[str, str], tuple[str, str]] = (src, dst)
    places = [
        Place(
            role="source",
            server=sender.server,
            vfd=sender.switch,
            vfd_kind="vswitch",
            in_port=sender.name,
            src=ends[0],
            dst=ends[1],
        )
    ]
    if sender.switch != receiver.switch and sender.router:
        router = Place(
            role="router", server=sender.server, vfd=sender.router, vfd_kind="vrouter", src=ends[0], dst=ends[1]
        )
        places.append(router)
    last = Place(
        role="destination",
        server=receiver.server,
        vfd=receiver.switch,
        vfd_kind="vswitch",
        out_port=receiver.name,
        src=ends[0],
        dst=ends[1],
    )
    return (*places, last)


class _Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A way as it is written down. Texts have addresses by name, in `{}` or, of `places` and `values`, bare."""

    name: str
    direction: Literal["forward", "reply"]
    client: str
    server: str
    to: str
    source: str
    asked: tuple[tuple[str, ...], tuple[str, ...]]
    places: tuple[str, ...]
    arrival: str = "delivered"
    port: int = 0
    protocols: tuple[str, ...] = ("udp", "tcp", "icmp")
    traits: tuple[Trait, ...] = ()
    values: dict[str, str] = {}
    lone_backend: str = ""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    addresses: dict[str, tuple[str, str]]
    way: tuple[_Line, ...]


def written(kind: str, rename: Rename) -> tuple[Way, ...]:
    """The ways of a kind of traffic that is not inside a VPC, with the names and addresses of the drawn topology.

    A way is there once for each pair of texts that its ends can be asked about by.
    """
    text = rename((resources.files("vtrace.bench") / "ways" / f"{kind}.toml").read_text())
    file = msgspec.convert(tomllib.loads(text), _File)

    def filled(text: str) -> tuple[str, str]:
        four, six = ({name: pair[i] for name, pair in file.addresses.items()} for i in (0, 1))
        return text.format_map(four), text.format_map(six)

    def named(name: str) -> tuple[str, str]:
        return ("", "") if name == "-" else file.addresses[name]

    return tuple(
        _read(kind, line, filled, named, asked) for line in file.way for asked in itertools.product(*line.asked)
    )


_Pair = Callable[[str], tuple[str, str]]


def _read(kind: str, line: _Line, filled: _Pair, named: _Pair, asked: tuple[str, ...]) -> Way:
    start, end = map(filled, asked)
    balancers = []
    if line.lone_backend:
        name, *rest = line.lone_backend.split()
        balancers = [
            Balancer(name=name, vip=v, lone=one, all=all_) for v, one, all_ in zip(*map(named, rest), strict=True)
        ]
    return Way(
        name=line.name,
        kind=kind,
        direction=line.direction,
        client=line.client,
        server=line.server,
        towards=filled(line.to),
        sources=filled(line.source),
        asked=((start[0], end[0]), (start[1], end[1])),
        places=tuple(_place(text, named) for text in line.places),
        arrival=line.arrival,
        port=line.port,
        protocols=line.protocols,
        traits=line.traits,
        values={key: named(name) for key, name in line.values.items()},
        balancers=tuple(balancers),
    )


def _place(text: str, named: _Pair) -> Place:
    role, server, vfd, kind, in_port, out_port, src, dst, *dport = text.split()
    return Place(
        role=role,
        server=server,
        vfd=vfd,
        vfd_kind=kind,  # type: ignore[arg-type]
        in_port=in_port.strip("-"),
        out_port=out_port.strip("-"),
        src=named(src),
        dst=named(dst),
        dport=int(dport[0]) if dport else 0,
    )
