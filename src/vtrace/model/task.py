"""A diagnosis task: which traffic, how much of it, and for how long."""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec


class Direction(IntEnum):
    """Which way a pair's packets travel: from the task's source, or back to it."""

    FORWARD = 0
    REPLY = 1

    @property
    def word(self) -> str:
        return self.name.lower()


class TaskState(StrEnum):
    """`new → ready → coloring → collecting → done | expired | failed | cancelled`."""

    NEW = "new"
    READY = "ready"
    COLORING = "coloring"
    COLLECTING = "collecting"
    DONE = "done"
    EXPIRED = "expired"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TrafficFilter(msgspec.Struct, frozen=True, kw_only=True):
    """The five-tuple part of a task, as the sender of the forward direction writes it.

    `proto` is "tcp", "udp", "icmp" or "" (any IP). Ports, flags and type are None where any will do.
    `tcp_flags` is the text of ovs-fields(7), for example "+syn-ack". `ip_version` is 4 or 6.
    """

    proto: str = ""
    sport: int | None = None
    dport: int | None = None
    tcp_flags: str | None = None
    icmp_type: int | None = None
    ip_version: int = 4


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a user asks for. `sources` and `destinations` are endpoint texts (design: "An endpoint is …")."""

    task_id: str
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    traffic: TrafficFilter = TrafficFilter()
    directions: tuple[Direction, ...] = (Direction.FORWARD,)
    packets: int = 100
    timeout_s: float = 30.0
    allow_dscp_conflict: bool = False


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """An address that packets for an endpoint carry until something on their way translates it.

    Attributes:
        kind: "floating" (a NAT row of the endpoint's own), "translated" (the address of a source NAT that others
            use too), "vip" (of a load balancer, the endpoint is one of its backends).
        proto, port: only packets of that protocol to that port; "" and 0 for any.
        own_port: the port they have after the translation; 0 where that leaves it as it is.
    """

    address: str
    kind: str
    proto: str = ""
    port: int = 0
    own_port: int = 0

    @property
    def shared(self) -> bool:
        """Whether packets that carry it may be for another endpoint."""
        return self.kind != "floating"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One end of a pair: a logical port and its addresses, several such behind a VIP, or an address outside.

    Attributes:
        name: what answers call it: the logical port name, or the address the user gave.
        port: the logical port; empty behind a VIP, and for an address outside (the Internet, a customer's data center).
        members: behind a VIP the logical ports of the backends.
        address: its first address of the task's IP version, or the one the user gave.
        addresses: all that packets for it may carry at the end: those of the port and of its port security.
        aliases: what they may carry before.
        set_on: behind a VIP the uuids of the switches and routers that have its load balancers (northbound database).
        only: the user named this alias, so that packets to another address are not of the task.
        by_port: the user named the port, so that whatever it sends counts, also from an address not its own.
    """

    name: str
    port: str
    address: str
    members: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    aliases: tuple[Alias, ...] = ()
    set_on: tuple[str, ...] = ()
    only: str = ""
    by_port: bool = False
    vpc: str = ""

    @property
    def ports(self) -> tuple[str, ...]:
        """The logical ports it has; none for an address outside."""
        return (self.port,) if self.port else self.members

    @property
    def outside(self) -> bool:
        """Whether it is an address that nothing in the cloud has."""
        return not self.ports and not self.only


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One source and one destination in one direction; `index` numbers it in the task and in cookies.

    For `Direction.REPLY` `source` is the task's destination: the VM that sends the reply.

    `elsewhere` are those of the destination's addresses that another VM of the source's own VPC has: what the source
    sends there is that VM's.
    """

    index: int
    direction: Direction
    source: Endpoint
    destination: Endpoint
    traffic: TrafficFilter
    elsewhere: tuple[str, ...] = ()

    @property
    def unreachable(self) -> bool:
        """Whether no packet of the source can be for the destination, whatever address it carries."""
        end = self.destination
        return bool(self.elsewhere) and not end.aliases and set(end.addresses) <= set(self.elsewhere)

    @property
    def task_ends(self) -> tuple[str, str]:
        """(from, to) as the task has them, whichever way the pair's packets travel."""
        ends = (self.source.name, self.destination.name)
        return ends if self.direction is Direction.FORWARD else (ends[1], ends[0])

    def is_for_another(self, carried: str, now: str) -> bool:
        """Whether a packet that carried a shared address at its first hop turned out to be for another endpoint.

        Args:
            carried: its destination address at the first hop; now: the one it had later.
        """
        destination = self.destination
        if now in destination.addresses or destination.only == carried:
            return False
        return carried in {a.address for a in destination.aliases if a.shared} and now not in {
            a.address for a in destination.aliases
        }
