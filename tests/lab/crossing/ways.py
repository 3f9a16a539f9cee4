"""The ways packets take across a VPC's border, as the topology says: truth for what an answer must show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Ip = Literal[4, 6]
Device = tuple[str, str]
"""A logical switch or router, and its kind."""


@dataclass(frozen=True)
class Leg:
    """A virtual device on a way. A switch may begin on one server and end on another."""

    vfd: str
    kind: str
    in_port: str
    out_port: str
    server: str
    end_server: str

    @property
    def is_switch(self) -> bool:
        return self.kind == "vswitch"


@dataclass(frozen=True)
class Way:
    """Packets from one end to the other, and what an operator asks about them.

    Attributes:
        sender, receiver: nodes of the lab.
        task: what `--from` and `--to` get, for each IP version.
        direction: which direction of the task the packets are.
        ends: the packets' (source, destination), for each IP version.
        arrival: the kind of the healthy verdict.
    """

    name: str
    topology: str
    sender: str
    receiver: str
    task: dict[Ip, tuple[str, str]]
    direction: Literal["forward", "reply"]
    ends: dict[Ip, tuple[str, str]]
    legs: tuple[Leg, ...]
    arrival: str = "delivered"

    def hops(self) -> list[tuple[str, str, str, str, str | None, str | None]]:
        """(server, VFD, its kind, point, in port, out port) of every observation, in order."""
        first, last = self.legs[0], self.legs[-1]
        found: list[tuple[str, str, str, str, str | None, str | None]] = [
            (first.server, first.vfd, first.kind, "first_hop", first.in_port, None)
        ]
        for leg in self.legs:
            if leg.server != leg.end_server:
                found.append((leg.server, leg.vfd, leg.kind, "remote_output", leg.in_port, leg.out_port))
                found.append((leg.end_server, leg.vfd, leg.kind, "ingress", f"tunnel from {leg.server}", None))
            point = "egress" if leg is last else "logical_egress"
            found.append((leg.end_server, leg.vfd, leg.kind, point, leg.in_port, leg.out_port))
        return found

    @property
    def crossing(self) -> Leg:
        """The switch that ends on another server than it began."""
        return next(leg for leg in self.legs if leg.server != leg.end_server)

    def leg(self, vfd: str) -> Leg:
        return next(leg for leg in self.legs if leg.vfd == vfd)


def chain(devices: tuple[Device, ...], begin: str, end: str, servers: tuple[str, str]) -> tuple[Leg, ...]:
    """Legs over devices joined by the lab's router ports, with a tunnel in the one that is marked with `*`."""
    legs = []
    server = servers[0]
    for number, (marked, kind) in enumerate(devices):
        vfd = marked.rstrip("*")
        before = devices[number - 1][0].rstrip("*") if number else ""
        after = devices[number + 1][0].rstrip("*") if number + 1 < len(devices) else ""
        to = servers[1] if marked.endswith("*") else server
        legs.append(
            Leg(
                vfd=vfd,
                kind=kind,
                in_port=f"{vfd}-{before}" if before else begin,
                out_port=f"{vfd}-{after}" if after else end,
                server=server,
                end_server=to,
            )
        )
        server = to
    return tuple(legs)


def _switch(name: str) -> Device:
    return (name, "vswitch")


def _router(name: str) -> Device:
    return (name, "vrouter")


VBR: Device = ("red-vbr", "vbrouter")
OUTSIDE = "red-peering-localnet"
CUSTOMER: dict[Ip, str] = {4: "10.50.1.10", 6: "fd00:50:1::10"}
VMS: dict[str, dict[Ip, str]] = {
    "red-web1": {4: "10.1.1.11", 6: "fd00:1:1::11"},
    "red-web2": {4: "10.1.1.12", 6: "fd00:1:1::12"},
    "red-web3": {4: "10.1.1.13", 6: "fd00:1:1::13"},
    "red-db1": {4: "10.1.2.11", 6: "fd00:1:2::11"},
    "blue-web1": {4: "10.2.1.11", 6: "fd00:2:1::11"},
    "blue-web2": {4: "10.2.1.12", 6: "fd00:2:1::12"},
    "blue-web3": {4: "10.2.1.13", 6: "fd00:2:1::13"},
}


def _datacenter(vm: str, switch: str, server: str, *, outward: bool, direction: Literal["forward", "reply"]) -> Way:
    """A VM and the customer. The vBRouter is on gw1, and the VPC's router on the sender's server."""
    name = f"{vm}-to-customer" if outward else f"customer-to-{vm}"
    if outward:
        devices = (_switch(switch), _router("red-router"), _switch("red-join*"), VBR, _switch("red-peering"))
        legs = chain(devices, vm, OUTSIDE, (server, "gw1"))
    else:
        devices = (_switch("red-peering"), VBR, _switch("red-join"), _router("red-router"), _switch(f"{switch}*"))
        legs = chain(devices, OUTSIDE, vm, ("gw1", server))
    ends: dict[Ip, tuple[str, str]] = {}
    task: dict[Ip, tuple[str, str]] = {}
    for ip in CUSTOMER:
        ends[ip] = (VMS[vm][ip], CUSTOMER[ip]) if outward else (CUSTOMER[ip], VMS[vm][ip])
        asked = (vm, CUSTOMER[ip]) if outward else ("10.50.0.0/16" if ip == 4 else "fd00:50::/32", vm)
        back = asked if direction == "forward" else (CUSTOMER[ip], vm) if outward else (vm, CUSTOMER[ip])
        task[ip] = back
    return Way(
        name=name if direction == "forward" else f"{name}-reply",
        topology="datacenter",
        sender=vm if outward else "customer1",
        receiver="customer1" if outward else vm,
        task=task,
        direction=direction,
        ends=ends,
        legs=legs,
        arrival="left_domain" if outward else "delivered",
    )


def _vpcs(source: str, destination: str, servers: tuple[str, str], direction: Literal["forward", "reply"]) -> Way:
    """A VM of one VPC and a VM of the other: both routers and the transit switch are on the sender's server."""
    one, other = source.partition("-")[0], destination.partition("-")[0]
    last = f"{other}-web*" if servers[0] != servers[1] else f"{other}-web"
    devices = (
        _switch(f"{one}-web"),
        _router(f"{one}-router"),
        _switch("transit"),
        _router(f"{other}-router"),
        _switch(last),
    )
    forward = direction == "forward"
    name = f"{source}-to-{destination}"
    return Way(
        name=name if forward else f"{name}-reply",
        topology="vpc-vpc",
        sender=source,
        receiver=destination,
        task=dict.fromkeys(CUSTOMER, (source, destination) if forward else (destination, source)),
        direction=direction,
        ends={ip: (VMS[source][ip], VMS[destination][ip]) for ip in CUSTOMER},
        legs=chain(devices, source, destination, servers),
    )


DATACENTER: tuple[Way, ...] = (
    _datacenter("red-web1", "red-web", "hv1", outward=True, direction="forward"),
    _datacenter("red-db1", "red-db", "hv2", outward=False, direction="forward"),
    _datacenter("red-web1", "red-web", "hv1", outward=False, direction="reply"),
    _datacenter("red-db1", "red-db", "hv2", outward=True, direction="reply"),
)
VPCS: tuple[Way, ...] = (
    _vpcs("red-web1", "blue-web2", ("hv1", "hv2"), "forward"),
    _vpcs("blue-web3", "red-web2", ("hv3", "hv2"), "forward"),
    _vpcs("red-web1", "blue-web1", ("hv1", "hv1"), "forward"),
    _vpcs("blue-web2", "red-web1", ("hv2", "hv1"), "reply"),
)
