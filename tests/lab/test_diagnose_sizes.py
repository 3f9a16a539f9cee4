"""Packets that are lost for their length: by a wire, at a router's port; and a wire that does not look at lengths."""

from __future__ import annotations

import pytest
from faults import answers
from faults.facts import Facts
from faults.model import Do, Expect, Fault, Pair, Row
from faults.physical import wire
from faults.running import Traffic, apply

pytestmark = pytest.mark.lab

PACKETS = 40
GENEVE_BYTES = 58
"""What the tunnel adds over IPv4: outer IP, UDP, Geneve with OVN's option, the inner Ethernet header."""
HEADERS = {4: 28, 6: 48}
"""IP and ICMP."""


def diagnose_pings(facts: Facts, traffic: Traffic, pair: Pair, fault: Fault, sizes: tuple[int, ...]) -> answers.Answer:
    """Pings of several sizes while a fault is in."""
    apply(facts, fault.inject)
    try:
        for size in sizes:
            traffic.ping(pair, ("-M", "do", "-s", str(size), pair.dst), 0)
        args = ("--from", pair.source, "--to", pair.destination, "--proto", "icmp", "--ip", str(pair.ip))
        answer = answers.diagnose(facts, *args, "--packets", str(PACKETS), "--timeout", "20")
        answers.check_sound(answer, PACKETS)
        answers.check_expected(answer, fault.expect, facts)
    finally:
        traffic.stop()
        apply(facts, fault.heal, check=False)
    return answer


def between(pair: Pair, code: str, **more: object) -> Expect:
    return Expect(
        "lost_between",
        pair.source_server,
        pair.destination_switch,
        code=code,
        next_server=pair.destination_server,
        object_type="Tunnel",
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("ip", [4, 6])
@pytest.mark.parametrize("placement", ["switched-remote", "routed-remote"])
def test_pings_of_69_bytes_are_lost_and_of_68_arrive(facts: Facts, traffic: Traffic, placement: str, ip: int) -> None:
    pair = facts.pair(placement, 4 if ip == 4 else 6)
    longest = 68 + HEADERS[pair.ip] + GENEVE_BYTES
    inject, heal = wire(pair, "injected", f"meta length > {longest}")
    words = (f"{69 + HEADERS[pair.ip]} bytes", f"{68 + HEADERS[pair.ip]} bytes")
    fault = Fault("length", (inject,), (heal,), between(pair, "mtu_exceeded", evidence_words=words))
    answer = diagnose_pings(facts, traffic, pair, fault, (68, 69))
    counts = answer.document["packets"]
    assert 0 < counts["delivered"] < counts["colored"] == counts["delivered"] + counts["lost_between"], answer.text()


def test_a_wire_that_carries_all_of_the_sizes_sent(facts: Facts, traffic: Traffic) -> None:
    pair = facts.pair("switched-remote", 4)
    inject, heal = wire(pair, "near", f"meta length > {69 + HEADERS[4] + GENEVE_BYTES}")
    well = Expect("delivered", pair.destination_server, pair.destination_switch, loss="no", pattern=None, exit_code=0)
    diagnose_pings(facts, traffic, pair, Fault("near", (inject,), (heal,), well), (68, 69))


def test_a_wire_that_loses_at_random_stays_physical(facts: Facts, traffic: Traffic) -> None:
    pair = facts.pair("switched-remote", 4)
    inject, heal = wire(pair, "injected", "numgen random mod 3 0")
    fault = Fault("random", (inject,), (heal,), between(pair, "physical_loss"))
    diagnose_pings(facts, traffic, pair, fault, (68, 700, 1300))


@pytest.mark.parametrize(("limit", "lost"), [(500, True), (900, False)])
def test_a_router_port_with_a_gateway_mtu(facts: Facts, traffic: Traffic, limit: int, lost: bool) -> None:
    """The router tells the sender, whose kernel would then send no more of them: its route is told not to listen."""
    pair = facts.pair("routed-remote", 4)
    port = f"{pair.router}-{pair.destination_switch}"
    nb = ("ovn-nbctl", "--wait=hv", "--timeout=20")
    row = Row("Logical_Router_Port", f"name={port}")
    expect = Expect("dropped", pair.source_server, pair.router, "vrouter", code="mtu_exceeded", row=row)
    if not lost:
        expect = Expect(
            "delivered", pair.destination_server, pair.destination_switch, loss="no", pattern=None, exit_code=0
        )
    route = (f"{pair.dst}/32", "via", "10.1.1.1", "mtu", "lock", "1400")
    facts.execute("central", *nb, "set", "Logical_Router_Port", port, f"options:gateway_mtu={limit}")
    facts.execute(pair.source, "ip", "route", "add", *route)
    try:
        traffic.ping(pair, ("-s", "600", pair.dst), 0)
        args = ("--from", pair.source, "--to", pair.destination, "--proto", "icmp", "--packets", "20")
        answer = answers.diagnose(facts, *args, "--timeout", "20")
    finally:
        traffic.stop()
        facts.execute(pair.source, "ip", "route", "del", route[0], check=False)
        facts.execute("central", *nb, "remove", "Logical_Router_Port", port, "options", "gateway_mtu", check=False)
    answers.check_sound(answer, 20)
    answers.check_expected(answer, expect, facts)


FRAGMENTED = ("-s", "3000", "-M", "dont")
NB = ("ovn-nbctl", "--wait=hv", "--timeout=20")


@pytest.mark.parametrize("ip", [4, 6])
@pytest.mark.parametrize("node", ["hv1", "hv2"])
def test_a_bridge_that_drops_all_fragments(facts: Facts, traffic: Traffic, node: str, ip: int) -> None:
    """At the sender's server they can't even be colored; at the receiver's they were sent, and the wire is well."""
    pair = facts.pair("switched-remote", 4 if ip == 4 else 6)
    at_sender = node == pair.source_server
    switch = pair.source_switch if at_sender else pair.destination_switch
    expect = Expect("dropped", node, switch, code="fragment_dropped", object_type="Bridge", object_words=("br-int",))
    facts.execute(node, "ovs-ofctl", "set-frags", "br-int", "drop")
    try:
        traffic.ping(pair, (*FRAGMENTED, pair.dst), 0)
        args = ("--from", pair.source, "--to", pair.destination, "--proto", "icmp", "--ip", str(ip), "--packets", "20")
        answer = answers.diagnose(facts, *args, "--timeout", "20")
        mode = facts.execute(node, "ovs-ofctl", "get-frags", "br-int").split()
    finally:
        traffic.stop()
        facts.execute(node, "ovs-ofctl", "set-frags", "br-int", "normal")
    answers.check_sound(answer, 20)
    answers.check_expected(answer, expect, facts)
    assert mode == ["drop"], "the diagnosis changed the bridge's mode"


def test_packets_that_are_no_fragments_pass_such_a_bridge(facts: Facts, traffic: Traffic) -> None:
    pair = facts.pair("switched-remote", 4)
    well = Expect("delivered", pair.destination_server, pair.destination_switch, loss="no", pattern=None, exit_code=0)
    modes = [Do(node, ("ovs-ofctl", "set-frags", "br-int", "drop")) for node in ("hv1", "hv2")]
    back = [Do(do.node, (*do.argv[:-1], "normal")) for do in modes]
    diagnose_pings(facts, traffic, pair, Fault("near", tuple(modes), tuple(back), well), (68,))


@pytest.mark.parametrize(("mtu", "lost"), [(700, True), (1300, False)])
def test_fragments_that_are_too_short_for_conntrack(facts: Facts, traffic: Traffic, mtu: int, lost: bool) -> None:
    """A stateful ACL, and a guest whose route has a small MTU: its fragments are called invalid, for their length."""
    pair = facts.pair("switched-remote", 4)
    expect = Expect("dropped", pair.source_server, pair.source_switch, code="fragment_dropped", object_type="Datapath")
    if not lost:
        expect = Expect(
            "delivered", pair.destination_server, pair.destination_switch, loss="no", pattern=None, exit_code=0
        )
    route = (f"{pair.dst}/32", "dev", "eth0", "mtu", "lock", str(mtu))
    for side in ("from-lport", "to-lport"):
        facts.execute("central", *NB, "acl-add", pair.source_switch, side, "1001", "ip", "allow-related")
    facts.execute(pair.source, "ip", "route", "add", *route)
    try:
        traffic.ping(pair, (*FRAGMENTED, pair.dst), 0)
        args = ("--from", pair.source, "--to", pair.destination, "--proto", "icmp", "--packets", "20")
        answer = answers.diagnose(facts, *args, "--timeout", "20")
    finally:
        traffic.stop()
        facts.execute(pair.source, "ip", "route", "del", route[0], check=False)
        facts.execute("central", *NB, "acl-del", pair.source_switch, check=False)
    answers.check_sound(answer, 20)
    answers.check_expected(answer, expect, facts)
