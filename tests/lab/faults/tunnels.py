"""Tunnels that can't be used, or are not as the southbound database says, while ovn-controller hangs."""

from __future__ import annotations

from faults.catalogue import REMOTE, Build, Entry, nb
from faults.facts import Facts
from faults.lagging import go_on, stop
from faults.model import Do, Expect, Fault, Pair


def _interface(facts: Facts, server: str, peer: str) -> str:
    """The tunnel's interface on a server towards a peer."""
    address = next(n["addresses"][0] for n in facts.status["nodes"] if n["name"] == peer)
    where = f'options:remote_ip="{address}"'
    return facts.execute(server, "ovs-vsctl", "--bare", "--columns=name", "find", "Interface", where).strip()


def _bystander(pair: Pair) -> str:
    """A server that is neither the sender's nor the receiver's."""
    return next(s for s in ("hv1", "hv2", "hv3") if s not in (pair.source_server, pair.destination_server))


def _misconfigured(pair: Pair) -> Expect:
    return Expect(
        "lost_between",
        pair.source_server,
        pair.destination_switch,
        code="tunnel_misconfigured",
        next_server=pair.destination_server,
        object_type="Encap",
    )


def _unreachable(pair: Pair, *words: str) -> Expect:
    return Expect(
        "dropped",
        pair.source_server,
        pair.destination_switch,
        code="tunnel_unreachable",
        object_type="Tunnel",
        evidence_words=(pair.destination_server, *words),
    )


def changed(pair: Pair, facts: Facts, at: str, *change: str) -> Fault:
    """An end's options; in the near-miss those of its tunnel to another server."""
    server = pair.source_server if at == "sender" else pair.destination_server
    peer = pair.destination_server if at == "sender" else pair.source_server

    def set_on(name: str) -> tuple[Do, ...]:
        return stop(server), Do(server, ("ovs-vsctl", "set", "Interface", name, *change))

    back = (go_on(server), nb("sync"))
    return Fault(
        f"tunnel_{at}_{change[0].partition(':')[2] or change[0]}".replace("=", "_"),
        inject=set_on(_interface(facts, server, peer)),
        heal=back,
        expect=_misconfigured(pair),
        near=set_on(_interface(facts, server, _bystander(pair))),
        near_heal=back,
        decoy=False,
    )


def deleted(pair: Pair, facts: Facts, at: str) -> Fault:
    """An end's interface is gone: without the sender's nothing can be sent, without the receiver's nothing comes in."""
    server = pair.source_server if at == "sender" else pair.destination_server
    peer = pair.destination_server if at == "sender" else pair.source_server

    def delete(name: str) -> tuple[Do, ...]:
        return stop(server), Do(server, ("ovs-vsctl", "del-port", "br-int", name))

    back = (go_on(server), nb("sync"))
    return Fault(
        f"tunnel_deleted_{at}",
        inject=delete(_interface(facts, server, peer)),
        heal=back,
        expect=_unreachable(pair, "no tunnel port") if at == "sender" else _misconfigured(pair),
        near=delete(_interface(facts, server, _bystander(pair))),
        near_heal=back,
        decoy=False,
    )


def no_way(pair: Pair, facts: Facts) -> Fault:
    """The sender's server has no route to the receiver's; in the near-miss none to another."""

    def route(server: str) -> tuple[Do, Do]:
        address = next(n["addresses"][0] for n in facts.status["nodes"] if n["name"] == server)
        words = facts.execute(pair.source_server, "ip", "route", "show", address).split()
        add = ("ip", "route", "add", *(w for w in words if w != "onlink"), "onlink")
        return Do(pair.source_server, ("ip", "route", "del", *words)), Do(pair.source_server, add)

    inject, heal = route(pair.destination_server)
    near, near_heal = route(_bystander(pair))
    return Fault("tunnel_no_route", (inject,), (heal,), _unreachable(pair), (near,), (near_heal,))


def _changed(at: str, *change: str) -> Build:
    return lambda pair, facts: changed(pair, facts, at, *change)


def _deleted(at: str) -> Build:
    return lambda pair, facts: deleted(pair, facts, at)


# Of no logical datapath: with that of the pair's own switch all packets arrive.
UNUSED_KEY = 9_000_000
TUNNELS: tuple[Entry, ...] = (
    Entry("tunnel_sender_key", _changed("sender", f"options:key={UNUSED_KEY}"), REMOTE, ips=(4,)),
    Entry("tunnel_sender_dst_port", _changed("sender", "options:dst_port=6099"), REMOTE, ips=(4,)),
    Entry("tunnel_sender_type", _changed("sender", "type=vxlan"), REMOTE, ips=(4,)),
    Entry("tunnel_receiver_remote_ip", _changed("receiver", "options:remote_ip=10.250.0.77"), REMOTE),
    Entry("tunnel_receiver_local_ip", _changed("receiver", "options:local_ip=10.250.0.77"), REMOTE),
    Entry("tunnel_deleted_sender", _deleted("sender"), REMOTE, ips=(4,)),
    Entry("tunnel_deleted_receiver", _deleted("receiver"), REMOTE),
    Entry("tunnel_no_route", no_way, REMOTE),
)
