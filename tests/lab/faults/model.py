"""What a fault case is: plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Proto = Literal["udp", "tcp", "icmp"]
Effect = Literal["all lost", "some lost", "none lost", "nothing sent"]

ACTORS = {
    "acl_drop": "tenant",
    "acl_reject": "tenant",
    "address_conflict": "tenant",
    "port_security": "tenant",
    "qos_rate_limit": "tenant",
    "no_route": "tenant",
    "blackhole_route": "tenant",
    "policy_route_drop": "tenant",
    "ttl_exceeded": "tenant",
    "port_disabled": "tenant",
    "neighbor_unresolved": "provider",
    "port_unbound": "provider",
    "foreign_flow_entry": "provider",
    "stale_flow_entry": "provider",
    "tunnel_misconfigured": "provider",
    "tunnel_unreachable": "provider",
    "mtu_exceeded": "provider",
    "vswitch_overload": "provider",
    "fragment_dropped": "provider",
    "physical_loss": "physical",
    "vif_down": "guest",
    "vif_queue_full": "guest",
    "guest_not_answering": "guest",
    "source_silent": "guest",
}
"""Who a reason's actor is (reasons.md)."""


@dataclass(frozen=True)
class Do:
    """A command on a node, run through `vtrace lab exec`."""

    node: str
    argv: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """Which row of the northbound database `why.object` must name: its uuid is read back from there."""

    table: str
    condition: str


@dataclass(frozen=True)
class Pair:
    """A sender and a receiver, and the addresses they use."""

    source: str
    destination: str
    source_switch: str
    destination_switch: str
    source_server: str
    destination_server: str
    src: str
    dst: str
    alias: str | None
    ip: Literal[4, 6]
    vpc: str = "red"

    @property
    def routed(self) -> bool:
        return self.source_switch != self.destination_switch

    @property
    def remote(self) -> bool:
        return self.source_server != self.destination_server

    @property
    def router(self) -> str:
        return f"{self.vpc}-router"

    @property
    def wire(self) -> str:
        """The wire node between the two servers, whose names the topology lists in this order."""
        return "wire-" + "-".join(sorted((self.source_server, self.destination_server)))

    @property
    def placement(self) -> str:
        return f"{'routed' if self.routed else 'switched'}-{'remote' if self.remote else 'local'}"


@dataclass(frozen=True)
class Expect:
    """The answer that is right.

    Attributes:
        kind, server, vfd, vfd_kind, next_server, code: of `verdicts[0]`.
        row: the northbound row its object names.
        object_words: words that the object's name must hold, where it is no row.
        evidence_words: words that the summary or the evidence must hold.
    """

    kind: str
    server: str
    vfd: str
    vfd_kind: str = "vswitch"
    code: str | None = None
    next_server: str | None = None
    port: str | None = None
    direction: str = "forward"
    object_type: str | None = None
    row: Row | None = None
    object_words: tuple[str, ...] = ()
    evidence_words: tuple[str, ...] = ()
    loss: str = "yes"
    pattern: str | None = "persistent"
    exit_code: int = 1


@dataclass(frozen=True)
class Fault:
    """A fault and its near-miss, for one pair.

    Attributes:
        inject, heal: the fault.
        near, near_heal: the same change in a form that must not change the answer. It is also in place, as a
            decoy, while the fault is.
        effect: what the fault does to the pair's packets, checked at the VMs.
        to_alias: the traffic goes to the receiver's alias.
        ping, near_ping: arguments of a ping that is the traffic, instead of `lab traffic`.
        decoy: whether the near-miss can stand beside the fault.
        prepare: what stands before the traffic begins, and is healed with the rest.
    """

    name: str
    inject: tuple[Do, ...]
    heal: tuple[Do, ...]
    expect: Expect
    near: tuple[Do, ...] = ()
    near_heal: tuple[Do, ...] = ()
    effect: Effect = "all lost"
    to_alias: bool = False
    ping: tuple[str, ...] = ()
    near_ping: tuple[str, ...] = ()
    decoy: bool = True
    prepare: tuple[Do, ...] = ()


@dataclass(frozen=True)
class Case:
    """One run: a fault (or its near-miss) on a pair with a protocol."""

    fault: Fault
    pair: Pair
    proto: Proto
    opened_before: bool
    dscp: int
    near_miss: bool = False

    @property
    def id(self) -> str:
        near = "-near" if self.near_miss else ""
        when = "open" if self.opened_before else "new"
        return f"{self.fault.name}{near}-{self.pair.placement}-{self.proto}{self.pair.ip}-{when}-dscp{self.dscp}"
