"""One loss at each virtual device of a way, injected with ordinary tools, and the answer that is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from faults.facts import Facts
from faults.model import Do, Row

from kinds.ways import Hop, Ip, Proto, Way
from vtrace.lab import state as lab_state

PRIORITY = 1700
"""Of an injected row; the case's number is added, so that each has one of its own."""
FOREIGN_PRIORITY = 40000


@dataclass(frozen=True)
class Packets:
    """The packets of a case: their way, and the port of the side that answers."""

    way: Way
    ip: Ip
    proto: Proto
    port: int
    number: int

    def _ends(self, hop: Hop) -> tuple[str, str]:
        return self.way.address(hop.src, self.ip), self.way.address(hop.dst, self.ip)

    def match(self, hop: Hop) -> str:
        """In OVN's words (ovn-sb(5)), as they are there."""
        src, dst = self._ends(hop)
        ends = f"ip{self.ip}.src == {src} && ip{self.ip}.dst == {dst}"
        if self.proto == "icmp":
            return f"{ends} && icmp{self.ip}"
        side = "dst" if self.way.direction == "forward" else "src"
        return f"{ends} && {self.proto}.{side} == {self.port}"

    def openflow(self, hop: Hop) -> str:
        """In Open vSwitch's words (ovs-fields(7))."""
        src, dst = self._ends(hop)
        six = "" if self.ip == 4 else "6"
        ends = f"nw_src={src},nw_dst={dst}" if self.ip == 4 else f"ipv6_src={src},ipv6_dst={dst}"
        side = "dst" if self.way.direction == "forward" else "src"
        return f"{self.proto}{six},{ends}" + ("" if self.proto == "icmp" else f",tp_{side}={self.port}")

    def elsewhere(self) -> Packets:
        """The same for packets that nobody sends."""
        proto: Proto = "udp" if self.proto == "icmp" else self.proto
        return Packets(self.way, self.ip, proto, self.port + 1000, self.number)


@dataclass(frozen=True)
class Right:
    """The answer that is right. `words` are in the object's name, the summary or the fix."""

    code: str
    actor: str
    server: str
    vfd: str
    vfd_kind: str
    kind: str = "dropped"
    port: str | None = None
    next_server: str | None = None
    row: Row | None = None
    object_type: str = ""
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Injected:
    name: str
    inject: tuple[Do, ...]
    heal: tuple[Do, ...]
    right: Right


Build = Callable[[Packets, Facts], Injected]


def kind_of(vfd: str) -> str:
    if vfd in ("any", "web", "dns"):
        return "slb"
    return "vrouter" if vfd.endswith("-router") else "vswitch"


def nb(*argv: str) -> Do:
    return Do("central", ("ovn-nbctl", "--timeout=20", *argv))


def acl(place: int, side: str) -> Build:
    """At an observation: where packets come into a switch (from-lport), or leave it (to-lport)."""

    def build(packets: Packets, facts: Facts) -> Injected:
        hop, priority = packets.way.hops[place], str(PRIORITY + packets.number)
        leaving = side == "to-lport"
        port = hop.out_port if leaving else hop.in_port
        match = f'{"outport" if leaving else "inport"} == "{port}" && {packets.match(hop)}'
        return Injected(
            f"acl {side} on {hop.vfd}",
            (nb("acl-add", hop.vfd, side, priority, match, "drop"),),
            (nb("acl-del", hop.vfd, side, priority, match),),
            Right(
                "acl_drop",
                "tenant",
                hop.server,
                hop.vfd,
                "vswitch",
                port=port,
                row=Row("ACL", f"priority={priority}"),
                words=(f"acl-del {hop.vfd} {side} {priority}",),
            ),
        )

    return build


def policy(place: int, server: str) -> Build:
    """A router's policy, for packets as they are once what came in translated is back."""

    def build(packets: Packets, facts: Facts) -> Injected:
        hop, priority = packets.way.hops[place], str(PRIORITY + packets.number)
        return Injected(
            f"policy on {hop.vfd}",
            (nb("lr-policy-add", hop.vfd, priority, packets.match(hop), "drop"),),
            (nb("lr-policy-del", hop.vfd, priority),),
            Right(
                "policy_route_drop",
                "tenant",
                server,
                hop.vfd,
                "vrouter",
                row=Row("Logical_Router_Policy", f"priority={priority}"),
                words=(f"lr-policy-del {hop.vfd} {priority}",),
            ),
        )

    return build


def foreign(place: int, stages: tuple[str, ...], server: str = "", headers: int | None = None) -> Build:
    """An OpenFlow entry that drops, put in by hand in the table of a logical stage.

    Args:
        headers: the observation that has the packets' headers as they are there, if not `place`.
    """

    def build(packets: Packets, facts: Facts) -> Injected:
        hop = packets.way.hops[place]
        where, priority = server or hop.server, FOREIGN_PRIORITY + packets.number
        table, key = facts.stage_table(where, stages), facts.datapath_keys[hop.vfd]
        as_there = packets.openflow(packets.way.hops[place if headers is None else headers])
        entry = f"table={table},priority={priority},metadata={key:#x},{as_there}"
        return Injected(
            f"entry by hand at {stages[0]} of {hop.vfd}",
            (Do(where, ("ovs-ofctl", "add-flow", "br-int", f"{entry},actions=drop")),),
            (Do(where, ("ovs-ofctl", "--strict", "del-flows", "br-int", entry)),),
            Right(
                "foreign_flow_entry",
                "provider",
                where,
                hop.vfd,
                kind_of(hop.vfd),
                object_type="OpenFlow entry",
                words=(f"priority={priority}", f"table={table}", f"on {where}"),
            ),
        )

    return build


def provider_bridge(place: int) -> Build:
    """An entry that drops on the provider's bridge beyond br-int."""

    def build(packets: Packets, facts: Facts) -> Injected:
        hop, priority = packets.way.hops[place], FOREIGN_PRIORITY + packets.number
        entry = f"table=0,priority={priority},{packets.openflow(hop)}"
        return Injected(
            f"entry by hand on br-public of {hop.server}",
            (Do(hop.server, ("ovs-ofctl", "add-flow", "br-public", f"{entry},actions=drop")),),
            (Do(hop.server, ("ovs-ofctl", "--strict", "del-flows", "br-public", entry)),),
            Right(
                "foreign_flow_entry",
                "provider",
                hop.server,
                "public",
                "vswitch",
                port="public-localnet",
                object_type="OpenFlow entry",
                words=("br-public", f"priority={priority}"),
            ),
        )

    return build


def wire(place: int) -> Build:
    """The wire under a tunnel loses what goes that way: by an observation of remote output."""

    def build(packets: Packets, facts: Facts) -> Injected:
        hop = packets.way.hops[place]
        to = packets.way.hops[place + 1].server
        servers = {s.name: s.tunnel_address for s in lab_state.require(facts.lab).servers}
        node = "wire-" + "-".join(sorted((hop.server, to), key=list(servers).index))
        rule = f"ip saddr {servers[hop.server]} udp dport 6081 drop"
        table = f"table inet injected {{ chain c {{ type filter hook forward priority 0; {rule}; }}; }}"
        return Injected(
            f"wire loss from {hop.server} to {to}",
            (Do(node, ("nft", table)),),
            (Do(node, ("nft", "delete", "table", "inet", "injected")),),
            Right(
                "physical_loss",
                "physical",
                hop.server,
                hop.vfd,
                kind_of(hop.vfd),
                kind="lost_between",
                port=f"ovn-{to}-0",
                next_server=to,
                object_type="Tunnel",
                words=(hop.server, to),
            ),
        )

    return build
