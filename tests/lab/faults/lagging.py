"""Bridges that do not do what the southbound database says: ovn-controller stopped, or its entries taken away."""

from __future__ import annotations

from faults.catalogue import ALIAS_ROUTES, ANYWHERE, FAULT_PRIORITY, ROUTED, Entry, elsewhere, from_source, nb
from faults.facts import Facts
from faults.model import Do, Expect, Fault, Pair

PID = "$(cat $OVN_RUNDIR/ovn-controller.pid)"


def stop(server: str) -> Do:
    return Do(server, ("sh", "-c", f"kill -STOP {PID}"))


def go_on(server: str) -> Do:
    return Do(server, ("sh", "-c", f"kill -CONT {PID}"))


def begin_anew(server: str) -> tuple[Do, ...]:
    """The ordinary restart: ovn-controller then puts all its entries in."""
    start = "ovn-controller unix:$OVS_RUNDIR/db.sock --detach --pidfile --log-file"
    quit_ = Do(server, ("ovn-appctl", "-t", "ovn-controller", "exit", "--restart"))
    return quit_, Do(server, ("sh", "-c", start)), nb("sync")


def later(*argv: str) -> Do:
    """A change that the stopped ovn-controller does not follow, so nobody waits for it."""
    return Do("central", ("ovn-nbctl", "--wait=sb", "--timeout=20", *argv))


def _expect(server: str, vfd: str, kind: str = "vswitch", words: tuple[str, ...] = ()) -> Expect:
    return Expect(
        "dropped",
        server,
        vfd,
        kind,
        code="stale_flow_entry",
        object_type="Chassis",
        object_words=(server,),
        evidence_words=words,
    )


def outlived(pair: Pair, facts: Facts) -> Fault:
    """The receiver's bridge goes on with an ACL that is gone; the near-miss: one for another address."""
    server = pair.destination_server
    port = f'outport == "{pair.destination}"'

    def acl(match: str) -> tuple[Do, ...]:
        row = (pair.destination_switch, "to-lport", str(FAULT_PRIORITY))
        return nb("acl-add", *row, match, "drop"), stop(server), later("acl-del", pair.destination_switch)

    return Fault(
        "stale_outlived",
        inject=acl(f"{port} && {from_source(pair)}"),
        heal=(go_on(server), nb("sync")),
        expect=_expect(server, pair.destination_switch, words=("without a row", "does not answer")),
        near=acl(f"{port} && ip{pair.ip}.src == {elsewhere(pair)}"),
        near_heal=(go_on(server), nb("sync")),
        decoy=False,
    )


def missing_route(pair: Pair, facts: Facts) -> Fault:
    """The sender's bridge has no entry for a new route; in the near-miss it has none for another new route."""
    server = pair.source_server
    other = "red-db2" if pair.destination == "red-db1" else "red-db1"

    def renew(route: tuple[str, str]) -> tuple[Do, ...]:
        return (
            nb("lr-route-del", pair.router, route[0]),
            stop(server),
            later("lr-route-add", pair.router, *route),
        )

    return Fault(
        "stale_missing_route",
        inject=renew(ALIAS_ROUTES[pair.destination, pair.ip]),
        heal=(go_on(server), nb("sync")),
        expect=_expect(server, pair.router, "vrouter", ("lr_in_ip_routing", "has no entry", "does not answer")),
        near=renew(ALIAS_ROUTES[other, pair.ip]),
        near_heal=(go_on(server), nb("sync")),
        decoy=False,
        to_alias=True,
    )


def deleted(pair: Pair, facts: Facts) -> Fault:
    """Somebody took away the entry that outputs to the receiver; in the near-miss that of its server's other port."""
    server = pair.destination_server
    ends = (pair.source, pair.destination)
    other = next(vm["name"] for vm in facts.status["vms"] if vm["server"] == server and vm["name"] not in ends)

    def delete(port: str) -> Do:
        (key,) = facts.execute(
            "central", "ovn-sbctl", "--bare", "--columns=tunnel_key", "find", "Port_Binding", f"logical_port={port}"
        ).split()
        metadata = facts.datapath_keys[facts.vm(port)["switch"]]
        return Do(server, ("ovs-ofctl", "del-flows", "br-int", f"table=65,reg15={key},metadata={metadata}"))

    return Fault(
        "stale_deleted",
        inject=(delete(pair.destination),),
        heal=begin_anew(server),
        expect=_expect(server, pair.destination_switch, words=("Port_Binding", pair.destination, "table 65")),
        near=(delete(other),),
        near_heal=begin_anew(server),
        decoy=False,
    )


LAGGING: tuple[Entry, ...] = (
    Entry("stale_outlived", outlived, ANYWHERE),
    Entry("stale_missing_route", missing_route, ROUTED, ips=(4,)),
    Entry("stale_deleted", deleted, ANYWHERE),
)
