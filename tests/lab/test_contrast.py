"""What tells lost packets from delivered ones, live: each beside the same traffic with a loss by chance."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crossing.running import CrossingFacts
from faults import answers
from faults.facts import PROGRAM
from test_lab import eventually, standing, start_traffic, vtrace

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

TOPOLOGY = Path(__file__).parent / "contrast" / "topology.toml"
UDP = ("--from", "client", "--proto", "udp", "--dport", "6000")
WIRES = ("wire-hv1-hv2", "wire-hv1-hv3")
FAR = "10.1.5.11"
SEND_FROM_MANY = """
import itertools, socket, time
sockets = []
for number in range(1, 33):
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind((f"10.7.0.{number}", 7000))
    sockets.append(one)
for one in itertools.cycle(sockets):
    one.sendto(b"x" * 40, ("10.1.5.11", 6000))
    time.sleep(0.01)
"""
"""From many addresses: OVN's ECMP looks at no ports of UDP (Open vSwitch's symmetric L4 hash)."""


@pytest.fixture(scope="module")
def facts() -> Iterator[CrossingFacts]:
    with standing(str(TOPOLOGY)) as name:
        yield CrossingFacts(name)


@contextlib.contextmanager
def sending(facts: CrossingFacts, *traffics: tuple[str, ...]) -> Iterator[None]:
    """Traffic, once some of each is answered (or sent, where nobody listens)."""
    try:
        for words in traffics:
            counts = start_traffic(facts.lab, *words)
            count = "sent" if "--no-server" in words else "received"
            eventually(lambda counts=counts, count=count: counts()[count] > 0, f"packets of {words}")  # type: ignore[misc]
        yield
    finally:
        vtrace(facts.lab, "traffic stop")


@contextlib.contextmanager
def losing(facts: CrossingFacts, wires: tuple[str, ...], which: str) -> Iterator[None]:
    """Wires lose tunnel packets, as nft names them."""
    rule = f"udp dport 6081 {which} drop"
    table = f"table inet lost {{ chain forward {{ type filter hook forward priority 0; {rule}; }}; }}"
    try:
        for wire in wires:
            facts.execute(wire, "nft", table)
        yield
    finally:
        for wire in wires:
            facts.execute(wire, "nft", "add table inet lost; delete table inet lost")


@contextlib.contextmanager
def rows(facts: CrossingFacts, put: tuple[str, ...], take: tuple[str, ...]) -> Iterator[None]:
    """A row in the northbound database, while it acts on every server."""
    nbctl = ("ovn-nbctl", "--wait=hv")
    facts.execute("central", *nbctl, *put)
    try:
        yield
    finally:
        facts.execute("central", *nbctl, *take)


def dropping(facts: CrossingFacts, switch: str, way: str, match: str) -> contextlib.AbstractContextManager[None]:
    return rows(facts, ("acl-add", switch, way, "1000", match, "drop"), ("acl-del", switch, way, "1000", match))


def contrast(facts: CrossingFacts, to: str, *words: str) -> list[dict[str, Any]]:
    """The contrast of an answer; some packets have to be lost, and some delivered."""
    answer = answers.diagnose(facts, "--from", "client", "--to", to, *(words or ("--proto", "udp")))
    packets = answer.document["packets"]
    lost = packets["dropped"] + packets["lost_between"]
    assert lost >= 10, answer.text()
    assert packets["delivered"] >= 10, answer.text()
    found: list[dict[str, Any]] = answer.document["contrast"]
    return found


def by_chance(facts: CrossingFacts, to: str, *words: str) -> None:
    """The near-miss: the wires lose one in three, whichever."""
    with losing(facts, WIRES, "numgen random mod 3 == 0"):
        assert contrast(facts, to, *words) == []


def sides(found: dict[str, Any]) -> tuple[str, str, str]:
    return found["field"], found["lost"], found["delivered"]


def test_a_size(facts: CrossingFacts) -> None:
    """A payload of 60 and of 900 bytes, and 28 of headers."""
    pings = [
        ("--from", "client", "--to", "web1", "--proto", "icmp", "--size", s, "--rate", "50") for s in ("60", "900")
    ]
    with sending(facts, *pings):
        with losing(facts, WIRES, "meta length > 500"):
            (found,) = contrast(facts, "web1", "--proto", "icmp")
        by_chance(facts, "web1", "--proto", "icmp")
    assert sides(found) == ("size", "928 bytes or longer", "88 bytes or shorter")
    assert (found["from"], found["to"], found["direction"]) == ("client", "web1", "forward")


def test_one_backend(facts: CrossingFacts) -> None:
    with sending(facts, (*UDP, "--to", "10.1.9.2", "--flows", "32")):
        with dropping(facts, "red-web", "to-lport", 'outport == "web2" && udp'):
            found = contrast(facts, "10.1.9.2")
        by_chance(facts, "10.1.9.2")
    assert sides(found[0]) == ("backend", "10.1.2.12 (web2)", "10.1.2.11 (web1)")


def test_one_server(facts: CrossingFacts) -> None:
    """Two of three destinations are on it."""
    every = "web1,web2,web3"
    with sending(facts, *((*UDP, "--to", to, "--flows", "16", "--rate", "50") for to in every.split(","))):
        with losing(facts, WIRES[1:], ""):
            (found,) = contrast(facts, every)
        by_chance(facts, every)
    assert sides(found) == ("server", "hv3", "hv2")
    assert (found["from"], found["to"], found["direction"]) == (None, None, None)


@contextlib.contextmanager
def from_many(facts: CrossingFacts) -> Iterator[None]:
    """Datagrams from 32 addresses of the client to where two routers lead to."""
    facts.execute("central", "ovn-nbctl", "lsp-set-port-security", "client")
    facts.execute("central", "ovn-nbctl", "--ecmp", "lr-route-add", "red-router", "10.1.5.0/24", "100.64.0.12")
    facts.execute("client", "ip", "address", "add", "10.7.0.1/32", "dev", "lo")
    for number in range(2, 33):
        facts.execute("client", "ip", "address", "add", f"10.7.0.{number}/32", "dev", "lo")
    argv = [*PROGRAM, "lab", "exec", "--lab", facts.lab, "client", "--", sys.executable, "-c", SEND_FROM_MANY]
    sender = subprocess.Popen(argv)
    try:
        yield
    finally:
        sender.terminate()
        sender.wait(10)
        facts.execute("central", "ovn-nbctl", "lr-route-del", "red-router", "10.1.5.0/24", "100.64.0.12")


def test_one_next_hop(facts: CrossingFacts) -> None:
    policy = ("lr-policy-add", "red-mid2", "100", f"ip4.dst == {FAR}", "drop")
    with from_many(facts):
        with rows(facts, policy, ("lr-policy-del", "red-mid2")):
            (found,) = contrast(facts, "far")
        by_chance(facts, "far")
    assert found["field"] == "ecmp_member"
    assert "(red-mid2-red-join)" in found["lost"]
    assert "(red-mid1-red-join)" in found["delivered"]


def test_source_ports(facts: CrossingFacts) -> None:
    match = 'outport == "web1" && udp.src >= 40010 && udp.src < 40022'
    with sending(facts, (*UDP, "--to", "web1", "--flows", "32", "--sport", "40000")):
        with dropping(facts, "red-web", "to-lport", match):
            (found,) = contrast(facts, "web1")
        by_chance(facts, "web1")
    assert sides(found) == ("source_port", "40010 to 40021", "below 40010 or above 40021")


def test_a_conntrack_state(facts: CrossingFacts) -> None:
    """Connections that were answered, and others that never are, of alternating source ports."""
    every = [
        (
            "--from",
            "client",
            "--to",
            "web1",
            "--proto",
            "udp",
            "--dport",
            dport,
            "--sport",
            sport,
            "--flows",
            "8",
            *more,
        )
        for dport, sport, more in (
            ("6001", "40000", ()),
            ("6002", "40008", ("--no-server",)),
            ("6001", "40016", ()),
            ("6002", "40024", ("--no-server",)),
        )
    ]
    related = ("acl-add", "red-web", "to-lport", "500", 'outport == "web1" && udp', "allow-related")
    taken = ("acl-del", "red-web", "to-lport", "500", 'outport == "web1" && udp')
    with rows(facts, related, taken), sending(facts, *((*words, "--rate", "25") for words in every)):
        with dropping(facts, "red-web", "to-lport", 'outport == "web1" && udp && ct.est'):
            found = contrast(facts, "web1")
        by_chance(facts, "web1")
    assert sides(found[0])[:2] == ("conntrack_state", "est")


def test_a_rate(facts: CrossingFacts) -> None:
    """106 bytes a frame, so 38 kbit/s are some 45 packets; the near-miss of a rate is counting, beside chance."""
    match = 'outport == "web1" && udp'
    limit = ("qos-add", "red-web", "to-lport", "1000", match, "rate=38", "burst=1")
    with sending(facts, (*UDP, "--to", "web1", "--rate", "100")):
        with rows(facts, limit, ("qos-del", "red-web", "to-lport", "1000", match)):
            (found,) = contrast(facts, "web1")
        by_chance(facts, "web1")
        with losing(facts, WIRES, "numgen inc mod 3 == 0"):
            assert contrast(facts, "web1") == []
    assert found["field"] == "rate"
    assert found["text"].startswith("about ")


def test_a_direction(facts: CrossingFacts) -> None:
    both = ("--proto", "udp", "--direction", "both")
    with sending(facts, (*UDP, "--to", "web1")):
        with dropping(facts, "red-web", "from-lport", 'inport == "web1" && udp'):
            (found,) = contrast(facts, "web1", *both)
        by_chance(facts, "web1", *both)
    assert sides(found) == ("direction", "reply", "forward")
    assert (found["from"], found["to"], found["direction"]) == ("client", "web1", None)
