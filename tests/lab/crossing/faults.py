"""One loss at each virtual device of a way, injected with ordinary tools, and the answer that is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from faults.facts import Facts
from faults.model import Do, Expect, Row

from crossing.scope import Scope
from crossing.ways import Leg
from vtrace.lab import state as lab_state

FAULT_PRIORITY = 1700
"""Of an injected row; the case's number is added, so that each has one of its own."""
NEAR_PRIORITY = 1900
FOREIGN_PRIORITY = 40000


@dataclass(frozen=True)
class Injected:
    """A fault, and what the answer must say of it. `fix` are words that the fix must hold."""

    name: str
    inject: tuple[Do, ...]
    heal: tuple[Do, ...]
    expect: Expect
    fix: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """What a fault is built for: packets, a device of their way, and a number that no other case has."""

    scope: Scope
    leg: Leg
    number: int
    facts: Facts

    def tunnel_address(self, server: str) -> str:
        return next(s.tunnel_address for s in lab_state.require(self.facts.lab).servers if s.name == server)


Build = Callable[[Target], Injected]


def nb(*argv: str) -> Do:
    return Do("central", ("ovn-nbctl", "--timeout=20", *argv))


def _expect(target: Target, code: str, server: str, port: str | None, row: Row | None = None) -> Expect:
    leg = target.leg
    return Expect(
        "dropped",
        server,
        leg.vfd,
        leg.kind,
        code=code,
        port=port,
        row=row,
        direction=target.scope.way.direction,
    )


def acl(target: Target, side: str) -> Injected:
    """Where packets enter a switch (from-lport), or where they leave it (to-lport)."""
    leg, priority = target.leg, FAULT_PRIORITY + target.number
    leaving = side == "to-lport"
    port = leg.out_port if leaving else leg.in_port
    match = f'{"outport" if leaving else "inport"} == "{port}" && {target.scope.match()}'
    row = Row("ACL", f"priority={priority}")
    return Injected(
        name=f"acl {side} on {leg.vfd}",
        inject=(nb("acl-add", leg.vfd, side, str(priority), match, "drop"),),
        heal=(nb("acl-del", leg.vfd, side, str(priority), match),),
        expect=_expect(target, "acl_drop", leg.end_server if leaving else leg.server, port, row),
        fix=(f"acl-del {leg.vfd} {side} {priority}", match),
    )


def policy(target: Target) -> Injected:
    leg, priority, match = target.leg, FAULT_PRIORITY + target.number, target.scope.match()
    row = Row("Logical_Router_Policy", f"priority={priority}")
    return Injected(
        name=f"policy on {leg.vfd}",
        inject=(nb("lr-policy-add", leg.vfd, str(priority), match, "drop"),),
        heal=(nb("lr-policy-del", leg.vfd, str(priority)),),
        expect=_expect(target, "policy_route_drop", leg.server, leg.out_port, row),
        fix=(f"lr-policy-del {leg.vfd} {priority}",),
    )


def foreign(target: Target, stage: str) -> Injected:
    """An OpenFlow entry that drops, put in by hand, in the first table of the device's ingress or egress pipeline."""
    leg, facts = target.leg, target.facts
    server = leg.server if stage == "ingress" else leg.end_server
    names = {
        ("ingress", True): ("ls_in_check_port_sec", "ls_in_port_sec_l2"),
        ("ingress", False): ("lr_in_admission",),
        ("egress", True): ("ls_out_pre_acl", "ls_out_pre_lb"),
        ("egress", False): ("lr_out_chk_dnat_local", "lr_out_undnat"),
    }
    table = facts.stage_table(server, names[stage, leg.is_switch])
    key = facts.datapath_keys[leg.vfd]
    entry = f"table={table},priority={FOREIGN_PRIORITY + target.number},metadata={key:#x},{target.scope.openflow()}"
    port = leg.in_port if stage == "ingress" else leg.out_port
    expect = _expect(target, "foreign_flow_entry", server, port)
    return Injected(
        name=f"foreign {stage} entry in {leg.vfd}",
        inject=(Do(server, ("ovs-ofctl", "add-flow", "br-int", f"{entry},actions=drop")),),
        heal=(Do(server, ("ovs-ofctl", "--strict", "del-flows", "br-int", entry)),),
        expect=replace(
            expect, object_type="OpenFlow entry", object_words=(f"priority={FOREIGN_PRIORITY + target.number}",)
        ),
        fix=(f"on {server}", "del-flows br-int", f"table={table}"),
    )


def discard(target: Target) -> Injected:
    """A route to the destination alone that says discard. It is for all packets of the way."""
    leg, scope = target.leg, target.scope
    row = Row("Logical_Router_Static_Route", f'ip_prefix="{scope.dst}"')
    return Injected(
        name=f"discard route on {leg.vfd}",
        inject=(nb("lr-route-add", leg.vfd, scope.host, "discard"),),
        heal=(nb("lr-route-del", leg.vfd, scope.host),),
        expect=_expect(target, "blackhole_route", leg.server, leg.in_port, row),
        fix=(f"lr-route-del {leg.vfd}", scope.dst),
    )


ROUTES: dict[tuple[str, str], dict[int, tuple[str, str]]] = {
    ("red-router", "red-join"): {4: ("0.0.0.0/0", "100.64.0.2"), 6: ("::/0", "fd00:64::2")},
    ("red-vbr", "red-join"): {4: ("10.1.0.0/16", "100.64.0.1"), 6: ("fd00:1::/32", "fd00:64::1")},
    ("red-router", "transit"): {4: ("10.2.0.0/16", "169.254.100.2"), 6: ("fd00:2::/32", "fd00:fe::2")},
    ("blue-router", "transit"): {4: ("10.1.0.0/16", "169.254.100.1"), 6: ("fd00:1::/32", "fd00:fe::1")},
}
"""The static routes of the topologies, by the router and the switch they lead into."""


def no_route(target: Target) -> Injected:
    leg = target.leg
    prefix, nexthop = ROUTES[leg.vfd, leg.out_port.removeprefix(f"{leg.vfd}-")][target.scope.ip]
    row = Row("Logical_Router", f"name={leg.vfd}")
    return Injected(
        name=f"no route on {leg.vfd}",
        inject=(nb("lr-route-del", leg.vfd, prefix),),
        heal=(nb("lr-route-add", leg.vfd, prefix, nexthop),),
        expect=_expect(target, "no_route", leg.server, leg.in_port, row),
        fix=(f"lr-route-list {leg.vfd}", "lr-route-add"),
    )


def wire(target: Target) -> Injected:
    """The wire under the way's tunnel loses what goes that way."""
    leg = target.leg
    node = "wire-" + "-".join(sorted((leg.server, leg.end_server), key=_listed))
    to = target.tunnel_address(leg.end_server)
    chain = f"chain c {{ type filter hook forward priority 0; ip daddr {to} udp dport 6081 drop; }}"
    expect = Expect(
        "lost_between",
        leg.server,
        leg.vfd,
        leg.kind,
        code="physical_loss",
        next_server=leg.end_server,
        port=f"ovn-{leg.end_server}-0",
        direction=target.scope.way.direction,
        object_type="Tunnel",
    )
    return Injected(
        name=f"wire loss in {leg.vfd}",
        inject=(Do(node, ("nft", f"table inet injected {{ {chain}; }}")),),
        heal=(Do(node, ("nft", "delete", "table", "inet", "injected")),),
        expect=expect,
        fix=(leg.server, leg.end_server),
    )


def _listed(server: str) -> tuple[bool, str]:
    """The order of servers in the topologies: the gateway last."""
    return (server.startswith("gw"), server)


BIRDC = 'birdc -s "$BIRD_SOCKET" '
PREFIXES = {4: "announce1", 6: "announce3"}
NEXT_HOPS = {4: "192.0.2.2", 6: "2001:db8:2::2"}
VBR_MAC = "0a:00:02:00:00:02"


def withdrawn(target: Target) -> Injected:
    """The customer's router withdraws the prefix: the learned route of the vBRouter is gone."""
    name = PREFIXES[target.scope.ip]
    return replace(
        no_route(replace(target, leg=replace(target.leg, out_port="red-vbr-red-join"))),
        name="withdrawn by the customer",
        inject=(Do("customer1", ("sh", "-c", f"{BIRDC}disable {name}")),),
        heal=(Do("customer1", ("sh", "-c", f"{BIRDC}enable {name}")),),
    )


def silent_next_hop(target: Target) -> Injected:
    """The customer's router does not answer the vBRouter's ARP or ND, and what was learned has aged."""
    ip = target.scope.ip
    if ip == 4:
        family, words = "arp", "arp saddr ip 192.0.2.1 drop"
    else:
        family, words = "inet", f"ether saddr {VBR_MAC} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} drop"
    chain = f"chain c {{ type filter hook input priority 0; {words}; }}"
    find = f"ovn-sbctl --bare --columns=_uuid find MAC_Binding 'ip=\"{NEXT_HOPS[ip]}\"'"
    forget = f"{find} | xargs -r -n1 ovn-sbctl destroy MAC_Binding"
    port = "red-vbr-red-peering"
    row = Row("Logical_Router_Port", f"name={port}")
    return Injected(
        name="next hop unresolved",
        inject=(
            Do("customer1", ("nft", f"table {family} injected {{ {chain}; }}")),
            Do("central", ("sh", "-c", forget)),
        ),
        heal=(Do("customer1", ("nft", "delete", "table", family, "injected")),),
        expect=_expect(target, "neighbor_unresolved", target.leg.server, port, row),
        fix=("MAC_Binding",),
    )
