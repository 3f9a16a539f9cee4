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


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One end of a pair: a logical port and its addresses.

    Attributes:
        name: what answers call it: the logical port name, or the address where no port has it.
        port: the logical port; empty for an address that no port has (the Internet, a customer's data center).
        address: its first address of the task's IP version, or the one the user gave.
        addresses: all that packets for it may carry: those of the port and of its port security.
        by_port: the user named the port, so that whatever it sends counts, also from an address not its own.
    """

    name: str
    port: str
    address: str
    addresses: tuple[str, ...] = ()
    by_port: bool = False
    vpc: str = ""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One source and one destination in one direction; `index` numbers it in the task and in cookies.

    For `Direction.REPLY` `source` is the task's destination: the VM that sends the reply.
    """

    index: int
    direction: Direction
    source: Endpoint
    destination: Endpoint
    traffic: TrafficFilter

    @property
    def task_ends(self) -> tuple[str, str]:
        """(from, to) as the task has them, whichever way the pair's packets travel."""
        ends = (self.source.name, self.destination.name)
        return ends if self.direction is Direction.FORWARD else (ends[1], ends[0])
