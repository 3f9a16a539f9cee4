"""The faults, each as commands for a pair of VMs, with the answer that is right and a near-miss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from faults.facts import Facts
from faults.model import Do, Expect, Fault, Pair, Proto, Row

Build = Callable[[Pair, Facts], Fault]

FAULT_PRIORITY = 1777
NEAR_PRIORITY = 1666
QOS_LIMIT = ("rate=40", "burst=2")
"""Below the traffic's rate, in kbit/s and kbit."""
QOS_NO_LIMIT = ("rate=900000", "burst=90000")


@dataclass(frozen=True)
class Entry:
    """A fault of the catalogue; `build` makes it for a pair.

    Attributes:
        placements: where it can be injected.
        near: whether it has a near-miss.
        ips: IP versions. OVN answers neighbor solicitations in ovn-controller (ovn-northd(8)): where that of the
            sender's server is stopped, a sender of IPv6 soon sends nothing more.
    """

    name: str
    build: Build
    placements: tuple[str, ...]
    protos: tuple[Proto, ...] = ("udp", "tcp", "icmp")
    near: bool = True
    ips: tuple[Literal[4, 6], ...] = (4, 6)


ANYWHERE = ("switched-local", "switched-remote", "routed-local", "routed-remote")
ROUTED = ("routed-local", "routed-remote")
REMOTE = ("switched-remote", "routed-remote")


def nb(*argv: str) -> Do:
    return Do("central", ("ovn-nbctl", "--wait=hv", "--timeout=20", *argv))


def from_source(pair: Pair) -> str:
    return f"ip{pair.ip}.src == {pair.src}"


def elsewhere(pair: Pair) -> str:
    """An address near the pair's that nobody has."""
    return "10.1.1.201" if pair.ip == 4 else "fd00:1:1::c9"


def at_source(pair: Pair, code: str, kind: str = "dropped", **more: object) -> Expect:
    return Expect(kind, pair.source_server, pair.source_switch, code=code, **more)  # type: ignore[arg-type]


def at_destination(pair: Pair, code: str, kind: str = "dropped", **more: object) -> Expect:
    return Expect(kind, pair.destination_server, pair.destination_switch, code=code, **more)  # type: ignore[arg-type]


def at_router(pair: Pair, code: str, row: Row, *words: str) -> Expect:
    """A distributed router works on the sender's server."""
    return Expect("dropped", pair.source_server, pair.router, "vrouter", code=code, row=row, evidence_words=words)


FAULT_ACL = Row("ACL", f"priority={FAULT_PRIORITY}")


def acl(pair: Pair, facts: Facts, side: str, action: str, code: str, stateful: bool) -> Fault:
    """An ACL on the side of the receiver (to-lport) or the sender (from-lport)."""
    at_end = side == "to-lport"
    switch = pair.destination_switch if at_end else pair.source_switch
    port = f'outport == "{pair.destination}"' if at_end else f'inport == "{pair.source}"'
    field = "src" if at_end else "dst"
    address = pair.src if at_end else pair.dst
    match = f"{port} && ip{pair.ip}.{field} == {address}"
    miss = f"{port} && ip{pair.ip}.{field} == {elsewhere(pair)}"
    # Before the traffic: a connection that conntrack first sees in its middle may be taken the wrong way round, and
    # what is its reply then passes. That is OVN's way, and no fault.
    prepare = (nb("acl-add", switch, side, "1001", "ip", "allow-related"),) if stateful else ()
    # With conntrack: one that loses against the ACL that allows. Without: one for another address.
    near = (match, "900") if stateful else (miss, str(NEAR_PRIORITY))
    expect = at_destination(pair, code, row=FAULT_ACL) if at_end else at_source(pair, code, row=FAULT_ACL)
    name = f"{code}_{'stateful' if stateful else 'stateless'}_{side.partition('-')[0]}"
    return Fault(
        name=name,
        prepare=prepare,
        inject=(nb("acl-add", switch, side, str(FAULT_PRIORITY), match, action),),
        heal=(nb("acl-del", switch),),
        expect=expect,
        near=(nb("acl-add", switch, side, near[1], near[0], action),),
        near_heal=(nb("acl-del", switch),),
    )


def acl_port_group(pair: Pair, facts: Facts) -> Fault:
    match = f"outport == @injected && {from_source(pair)}"
    near_match = f"outport == @near && {from_source(pair)}"
    side, other = ("to-lport", str(FAULT_PRIORITY)), facts.bystander(pair)
    return Fault(
        name="acl_drop_port_group",
        inject=(nb("pg-add", "injected", pair.destination, "--", "acl-add", "injected", *side, match, "drop"),),
        heal=(nb("pg-del", "injected"),),
        expect=at_destination(pair, "acl_drop", row=FAULT_ACL),
        near=(nb("pg-add", "near", other, "--", "acl-add", "near", side[0], str(NEAR_PRIORITY), near_match, "drop"),),
        near_heal=(nb("pg-del", "near"),),
    )


def policy_drop(pair: Pair, facts: Facts) -> Fault:
    match = f"ip{pair.ip}.dst == {pair.dst}"
    near = f"ip{pair.ip}.dst == {elsewhere(pair)}"
    return Fault(
        name="policy_route_drop",
        inject=(nb("lr-policy-add", pair.router, "1777", match, "drop"),),
        heal=(nb("lr-policy-del", pair.router, "1777"),),
        expect=at_router(pair, "policy_route_drop", Row("Logical_Router_Policy", "priority=1777")),
        near=(nb("lr-policy-add", pair.router, "1778", near, "drop"),),
        near_heal=(nb("lr-policy-del", pair.router, "1778"),),
    )


def blackhole_route(pair: Pair, facts: Facts) -> Fault:
    length = 32 if pair.ip == 4 else 128
    near = "10.1.2.201" if pair.ip == 4 else "fd00:1:2::c9"
    return Fault(
        name="blackhole_route",
        inject=(nb("lr-route-add", pair.router, f"{pair.dst}/{length}", "discard"),),
        heal=(nb("lr-route-del", pair.router, f"{pair.dst}/{length}"),),
        expect=at_router(pair, "blackhole_route", Row("Logical_Router_Static_Route", f'ip_prefix="{pair.dst}"')),
        near=(nb("lr-route-add", pair.router, f"{near}/{length}", "discard"),),
        near_heal=(nb("lr-route-del", pair.router, f"{near}/{length}"),),
    )


ALIAS_ROUTES = {
    ("red-db1", 4): ("10.9.1.0/24", "10.1.2.11"),
    ("red-db1", 6): ("fd00:9:1::/64", "fd00:1:2::11"),
    ("red-db2", 4): ("10.9.2.0/24", "10.1.2.12"),
    ("red-db2", 6): ("fd00:9:2::/64", "fd00:1:2::12"),
}


def no_route(pair: Pair, facts: Facts) -> Fault:
    """The receiver's alias is reached through a static route: that one goes; the near-miss takes another one."""
    other = "red-db2" if pair.destination == "red-db1" else "red-db1"
    route, near = ALIAS_ROUTES[pair.destination, pair.ip], ALIAS_ROUTES[other, pair.ip]
    return Fault(
        name="no_route",
        inject=(nb("lr-route-del", pair.router, route[0]),),
        heal=(nb("lr-route-add", pair.router, *route),),
        expect=at_router(pair, "no_route", Row("Logical_Router", f"name={pair.router}"), str(pair.alias)),
        near=(nb("lr-route-del", pair.router, near[0]),),
        near_heal=(nb("lr-route-add", pair.router, *near),),
        to_alias=True,
    )


def _port_security(facts: Facts, port: str, instead: str) -> tuple[Do, Do]:
    """Set a port's security to its MAC and another address, and the way back."""
    old = facts.port_security[port]
    return (
        nb("lsp-set-port-security", port, f"{old.split()[0]} {instead}"),
        nb("lsp-set-port-security", port, old),
    )


ALIEN = "10.1.1.98 fd00:1:1::98"


def port_security_source(pair: Pair, facts: Facts) -> Fault:
    inject, heal = _port_security(facts, pair.source, ALIEN)
    near, near_heal = _port_security(facts, facts.bystander(pair), ALIEN)
    row = Row("Logical_Switch_Port", f"name={pair.source}")
    return Fault(
        name="port_security_source",
        inject=(inject,),
        heal=(heal,),
        expect=at_source(pair, "port_security", row=row),
        near=(near,),
        near_heal=(near_heal,),
    )


def port_security_destination(pair: Pair, facts: Facts) -> Fault:
    inject, heal = _port_security(facts, pair.destination, ALIEN)
    near, near_heal = _port_security(facts, facts.bystander(pair), ALIEN)
    row = Row("Logical_Switch_Port", f"name={pair.destination}")
    return Fault(
        name="port_security_destination",
        inject=(inject,),
        heal=(heal,),
        expect=at_destination(pair, "port_security", row=row),
        near=(near,),
        near_heal=(near_heal,),
    )


def port_security_address(pair: Pair, facts: Facts) -> Fault:
    """The VM sends from an address it was not given; in the near-miss it was given it."""
    alien, length = ("10.1.1.99", 24) if pair.ip == 4 else ("fd00:1:1::99", 64)
    old = facts.port_security[pair.source]
    own = ("ip", "addr", "replace", f"{alien}/{length}", "dev", "eth0")
    own += () if pair.ip == 4 else ("nodad",)
    warm = Do(pair.source, ("ping", "-c1", "-W2", pair.dst))
    add = Do(pair.source, own)
    remove = Do(pair.source, ("ip", "addr", "del", f"{alien}/{length}", "dev", "eth0"))
    row = Row("Logical_Switch_Port", f"name={pair.source}")
    return Fault(
        name="port_security_address",
        inject=(warm, add),
        heal=(remove,),
        expect=at_source(pair, "port_security", row=row),
        near=(warm, add, nb("lsp-set-port-security", pair.source, f"{old} {alien}")),
        near_heal=(nb("lsp-set-port-security", pair.source, old), remove),
        ping=("-I", alien, pair.dst),
        decoy=False,
    )


def qos(pair: Pair, facts: Facts, side: str) -> Fault:
    at_end = side == "to-lport"
    switch = pair.destination_switch if at_end else pair.source_switch
    port = f'outport == "{pair.destination}"' if at_end else f'inport == "{pair.source}"'
    match = f"{port} && ip{pair.ip}"
    row = Row("QoS", f"priority={FAULT_PRIORITY}")
    expect = at_destination if at_end else at_source
    return Fault(
        name=f"qos_rate_limit_{side.partition('-')[0]}",
        inject=(nb("qos-add", switch, side, str(FAULT_PRIORITY), match, *QOS_LIMIT),),
        heal=(nb("qos-del", switch, side, str(FAULT_PRIORITY), match),),
        expect=expect(pair, "qos_rate_limit", row=row),
        near=(nb("qos-add", switch, side, str(NEAR_PRIORITY), match, *QOS_NO_LIMIT),),
        near_heal=(nb("qos-del", switch, side, str(NEAR_PRIORITY), match),),
        effect="some lost",
    )


def ttl(pair: Pair, facts: Facts) -> Fault:
    row = Row("Logical_Router", f"name={pair.router}")
    return Fault(
        name="ttl_exceeded",
        inject=(),
        heal=(),
        expect=at_router(pair, "ttl_exceeded", row, pair.dst),
        ping=("-t", "1", pair.dst),
        near_ping=("-t", "2", pair.dst),
    )


def port_unbound(pair: Pair, facts: Facts) -> Fault:
    def unbind(port: str) -> Do:
        return Do(facts.vm(port)["server"], ("ovs-vsctl", "remove", "Interface", port, "external_ids", "iface-id"))

    def bind(port: str) -> Do:
        return Do(facts.vm(port)["server"], ("ovs-vsctl", "set", "Interface", port, f"external_ids:iface-id={port}"))

    other = facts.bystander(pair)
    row = Row("Logical_Switch_Port", f"name={pair.destination}")
    # Nobody has the port, so its packets end where they are: on the sender's server, in the receiver's switch.
    expect = Expect("dropped", pair.source_server, pair.destination_switch, code="port_unbound", row=row)
    return Fault(
        name="port_unbound",
        inject=(unbind(pair.destination), nb("sync")),
        heal=(bind(pair.destination), nb("sync")),
        expect=expect,
        near=(unbind(other), nb("sync")),
        near_heal=(bind(other), nb("sync")),
    )


def port_disabled(pair: Pair, facts: Facts) -> Fault:
    other = facts.bystander(pair)
    row = Row("Logical_Switch_Port", f"name={pair.destination}")
    return Fault(
        name="port_disabled",
        inject=(nb("lsp-set-enabled", pair.destination, "disabled"),),
        heal=(nb("lsp-set-enabled", pair.destination, "enabled"),),
        # Its entries are taken away, the one that finds its MAC address among them: the sender's server ends it.
        expect=Expect("dropped", pair.source_server, pair.destination_switch, code="port_disabled", row=row),
        near=(nb("lsp-set-enabled", other, "disabled"),),
        near_heal=(nb("lsp-set-enabled", other, "enabled"),),
    )


def vif_down(pair: Pair, facts: Facts) -> Fault:
    def link(port: str, state: str) -> Do:
        return Do(facts.vm(port)["server"], ("ip", "link", "set", port, state))

    other = facts.bystander(pair)
    return Fault(
        name="vif_down",
        inject=(link(pair.destination, "down"),),
        heal=(link(pair.destination, "up"),),
        expect=at_destination(pair, "vif_down", object_words=(pair.destination,), object_type="Interface"),
        near=(link(other, "down"),),
        near_heal=(link(other, "up"),),
    )


def guest_not_answering(pair: Pair, facts: Facts) -> Fault:
    """A firewall in the guest: the packets arrive, and nothing comes back; the answer stays 'no loss'."""
    family = "ip" if pair.ip == 4 else "ip6"

    def firewall(name: str, match: str) -> Do:
        chain = f"chain c {{ type filter hook input priority 0; {match} drop; }}"
        return Do(pair.destination, ("nft", f"table inet {name} {{ {chain}; }}"))

    row = Row("Logical_Switch_Port", f"name={pair.destination}")
    return Fault(
        name="guest_not_answering",
        inject=(firewall("injected", f"{family} saddr {pair.src}"),),
        heal=(Do(pair.destination, ("nft", "delete", "table", "inet", "injected")),),
        expect=at_destination(
            pair,
            "guest_not_answering",
            "no_traffic",
            row=row,
            direction="reply",
            loss="no",
            pattern=None,
            exit_code=0,
        ),
        near=(firewall("near", f"{family} saddr {elsewhere(pair)}"),),
        near_heal=(Do(pair.destination, ("nft", "delete", "table", "inet", "near")),),
        effect="none lost",
    )


def healthy(pair: Pair, facts: Facts) -> Fault:
    expect = at_destination(pair, "", "delivered", loss="no", pattern=None, exit_code=0)
    return Fault(name="healthy", inject=(), heal=(), expect=expect, effect="none lost")


def _acl(side: str, action: str, code: str, stateful: bool) -> Build:
    return lambda pair, facts: acl(pair, facts, side, action, code, stateful)


def _qos(side: str) -> Build:
    return lambda pair, facts: qos(pair, facts, side)


FROM, TO = "from-lport", "to-lport"
LOGICAL: tuple[Entry, ...] = (
    Entry("healthy", healthy, ANYWHERE, near=False),
    Entry("acl_drop_stateless_to", _acl(TO, "drop", "acl_drop", False), ANYWHERE),
    Entry("acl_drop_stateless_from", _acl(FROM, "drop", "acl_drop", False), ANYWHERE),
    Entry("acl_drop_stateful_to", _acl(TO, "drop", "acl_drop", True), ANYWHERE),
    Entry("acl_drop_stateful_from", _acl(FROM, "drop", "acl_drop", True), ANYWHERE),
    Entry("acl_drop_port_group", acl_port_group, ANYWHERE),
    Entry("acl_reject_stateless_to", _acl(TO, "reject", "acl_reject", False), ANYWHERE, protos=("udp", "icmp")),
    Entry("policy_route_drop", policy_drop, ROUTED),
    Entry("blackhole_route", blackhole_route, ROUTED),
    Entry("no_route", no_route, ROUTED),
    Entry("port_security_source", port_security_source, ANYWHERE),
    Entry("port_security_destination", port_security_destination, ANYWHERE),
    Entry("port_security_address", port_security_address, ANYWHERE, protos=("icmp",)),
    Entry("qos_rate_limit_from", _qos(FROM), ANYWHERE),
    Entry("qos_rate_limit_to", _qos(TO), ANYWHERE),
    Entry("ttl_exceeded", ttl, ROUTED, protos=("icmp",)),
    Entry("port_unbound", port_unbound, ANYWHERE),
    Entry("port_disabled", port_disabled, ANYWHERE),
    Entry("vif_down", vif_down, ANYWHERE),
    Entry("guest_not_answering", guest_not_answering, ANYWHERE, protos=("udp", "icmp")),
)
