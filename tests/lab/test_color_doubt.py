"""Tenants that send packets with a color themselves: before a task, during it, with all colors in turn and at once.

The truth is what the receiver's interface and the wire between the servers saw.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pytest
from faults import answers, bridges
from faults.answers import Answer
from faults.facts import Facts
from faults.model import Pair
from faults.running import eventually, namespace
from packets import frames
from packets.colors import POOL_2, drawn
from packets.frames import UDP, Way
from packets.sending import Sender
from packets.watching import Waiting, arguments, hardware_address, ident, way
from packets.wires import Underlay

from vtrace.bench.capture import Packet, Sniffer

pytestmark = pytest.mark.lab

TENANT = "red-web2"
MINE_PPS = 100
WITHDRAWN_S = 5.0
"""Measured: 0.02 to 0.1 s; the limit is for a busy machine."""
COOKIE = re.compile(r"cookie=0x5654([0-9a-f])[0-9a-f]{3}([0-9a-f]{8}),")
COLORS, MATCHES, RESTORES, CLAIMS = "1", "2", "3", "7"
"""Roles, as the cookie has them (docs/pipeline.md)."""


@dataclass
class Watch:
    """A pair on two servers, a tenant's VM beside its source, and what passed wire and receiver."""

    facts: Facts
    pair: Pair
    way: Way
    tenants_way: Way
    wire: Underlay
    receiver: Sniffer
    on_the_wire: list[Packet] = field(default_factory=list)
    arrived: list[Packet] = field(default_factory=list)

    def read(self) -> None:
        self.on_the_wire += self.wire.read()
        self.arrived += [p for p in self.receiver.read() if not p.outgoing]

    def mine(self) -> Sender:
        """The pair's packets, without a DSCP."""

        def make(number: int) -> list[bytes]:
            return [frames.ip(self.way, UDP, frames.udp(self.way, frames.numbered(number)), ident=ident(number))]

        return Sender(namespace(self.facts, self.pair.source), make, MINE_PPS)

    def tenants(self, dscps: Callable[[int], Sequence[int]], rate: float) -> Sender:
        """The tenant's, with DSCPs of its own; their payload says which."""

        def make(number: int) -> list[bytes]:
            found = []
            for dscp in dscps(number):
                to = self.tenants_way.changed(dscp=dscp)
                found.append(frames.ip(to, UDP, frames.udp(to, bytes([dscp, *bytes(31)])), ident=ident(number)))
            return found

        return Sender(namespace(self.facts, TENANT), make, rate)

    def changed(self) -> list[Packet]:
        """Packets of the tenant's that arrived with another DSCP than they were sent with."""
        found = [p for p in self.arrived if p.src == self.tenants_way.src]
        assert found, "none of the tenant's packets arrived"
        return [p for p in found if p.dscp != p.body[8]]

    def colors_seen(self) -> set[int]:
        """DSCPs that the pair's own packets had on the wire, but the one that they were sent with."""
        return {p.dscp for p in self.on_the_wire if p.src == self.way.src} - {0}

    def check_mine_untouched(self) -> None:
        assert Counter(p.dscp for p in self.arrived if p.src == self.way.src).keys() == {0}


def versions(turn: int) -> pytest.MarkDecorator:
    """One IP version; both in `make soak`."""
    return pytest.mark.parametrize("watch", drawn((4, 6), 1, turn), indirect=True, ids="IPv{}".format)


@pytest.fixture
def watch(facts: Facts, request: pytest.FixtureRequest) -> Iterator[Watch]:
    version: Literal[4, 6] = request.param
    pair = facts.pair("routed-remote", version)
    mine = way(facts, pair)
    address = next(str(a) for a in facts.vm(TENANT)["addresses"] if (":" in a) == mine.six)
    tenants = mine.changed(eth_src=hardware_address(facts, TENANT), src=address, sport=41000)
    with (
        Underlay(namespace(facts, pair.source_server), pair.destination_server) as wire,
        Sniffer(namespace(facts, pair.destination)) as receiver,
    ):
        yield Watch(facts, pair, mine, tenants, wire, receiver)


def only(number: int) -> Callable[[int], Sequence[int]]:
    return lambda _: (number,)


def colors(facts: Facts, *roles: str) -> set[int]:
    """The colors of our entries of these roles, on all servers."""
    found = [COOKIE.search(entry) for server in bridges.servers(facts.lab) for entry in ours(facts, server)]
    return {int(match[2], 16) >> 26 for match in found if match and match[1] in roles}


def ours(facts: Facts, server: str) -> list[str]:
    return bridges.standing(facts.lab, server).ours


def check_sound_and_gone(watch: Watch, answer: Answer, before: dict[str, bridges.Standing], asked: int) -> None:
    answers.check_sound(answer, asked)
    assert bridges.complaints(before, bridges.all_standing(watch.facts.lab)) == []
    watch.check_mine_untouched()
    changed = watch.changed()
    assert len(changed) <= answer.document["cost"]["packets_in_doubt"], (len(changed), answer.text())


@versions(0)
def test_a_color_that_a_tenant_sends_already_is_not_taken(watch: Watch) -> None:
    """It is heard before anything is done to packets that carry it: not one of them is changed."""
    eventually(lambda: bridges.forget_colors(watch.facts.lab), "cached flows of the test before to end", 25)
    before = bridges.all_standing(watch.facts.lab)
    with watch.mine(), watch.tenants(only(POOL_2[0]), 100):
        eventually(lambda: any(p.dscp == POOL_2[0] for p in watch.receiver.read()), "the tenant's packets")
        answer = answers.diagnose(watch.facts, *arguments(watch.pair), "--packets", "50")
        watch.read()
    check_sound_and_gone(watch, answer, before, 50)
    assert (answer.code, answer.document["packets"]["delivered"]) == (0, 50), answer.text()
    assert watch.colors_seen() == {POOL_2[1]}, watch.colors_seen()
    assert watch.changed() == []
    assert answer.document["cost"]["packets_in_doubt"] > 0, answer.text()


@versions(1)
def test_a_color_that_a_tenant_begins_to_send_is_given_up(watch: Watch) -> None:
    """By all servers; the task goes on with another. No more packets are changed than are counted."""
    facts = watch.facts
    before = bridges.all_standing(facts.lab)
    with watch.mine(), Waiting(facts, *arguments(watch.pair), "--packets", "300", until="coloring ") as task:
        # Coloring itself may pause.
        (color,) = colors(facts, MATCHES)
        with watch.tenants(only(color), 100) as sender:
            roles = (COLORS, MATCHES, RESTORES)
            eventually(lambda: color not in colors(facts, *roles), f"color {color} to be withdrawn", WITHDRAWN_S)
            eventually(lambda: bool(colors(facts, MATCHES)), "another color")
            watch.read()
            watch.arrived.clear()
            so_far = sender.bursts
            eventually(lambda: sender.bursts > so_far + 20, "packets after it")
            watch.read()
            assert watch.changed() == [], "changed after it was withdrawn"
            answer = task.answer()
            watch.read()
    check_sound_and_gone(watch, answer, before, 300)
    assert (answer.code, answer.document["packets"]["delivered"]) == (0, 300), answer.text()
    assert watch.colors_seen() >= {color}, watch.colors_seen()
    assert len(watch.colors_seen()) == 2, watch.colors_seen()
    assert answer.document["cost"]["packets_in_doubt"] > 0, answer.text()


@versions(2)
def test_a_tenant_that_sends_all_colors_in_turn(watch: Watch) -> None:
    """One after the other is withdrawn. What was colored till then is answered, and why no more, if that is not all."""
    before = bridges.all_standing(watch.facts.lab)
    with watch.mine(), watch.tenants(lambda number: (POOL_2[number % len(POOL_2)],), 50):
        args = ("--packets", "200", "--timeout", "8")
        answer = answers.diagnose(watch.facts, *arguments(watch.pair), *args)
        watch.read()
    if "error" in answer.document:
        check_refused(answer)
        watch.check_mine_untouched()
        assert bridges.complaints(before, bridges.all_standing(watch.facts.lab)) == []
        return
    check_sound_and_gone(watch, answer, before, 200)
    assert answer.document["loss"] != "yes", answer.text()
    assert answer.document["cost"]["packets_in_doubt"] > 1, answer.text()
    if answer.document["packets"]["colored"] < 200:
        assert any("Every color is in use" in note for note in answer.document["notes"]), answer.text()


@versions(3)
def test_tenants_that_send_all_colors_at_once(watch: Watch) -> None:
    """Refused, and says so. Nothing is left, and not one packet was changed."""
    # Else it may be refused for what is cached of the test before, before anything is listened for.
    eventually(lambda: bridges.forget_colors(watch.facts.lab), "cached flows of the test before to end", 25)
    before = bridges.all_standing(watch.facts.lab)
    with watch.mine(), watch.tenants(lambda _: POOL_2, 50):
        eventually(lambda: bool(watch.receiver.read()), "packets")
        answer = answers.diagnose(watch.facts, *arguments(watch.pair), "--packets", "50")
        watch.read()
    check_refused(answer)
    assert bridges.complaints(before, bridges.all_standing(watch.facts.lab)) == []
    watch.check_mine_untouched()
    assert (watch.changed(), watch.colors_seen()) == ([], set())


def check_refused(answer: Answer) -> None:
    error = answer.document["error"]
    assert (answer.code, error["what"]) == (4, "Every color is in use"), answer
    assert all(str(color) in error["why"] for color in POOL_2), error


@contextlib.contextmanager
def held_by_others(facts: Facts, server: str) -> Iterator[None]:
    """Claims on all colors, as other runs make them."""
    match = "table=0,priority=0,hard_timeout=120,ip,nw_proto=255,reg9=0xabc,reg10=0xffffffff"
    entries = [f"cookie=0x56547abc{c << 26:08x},{match},reg8={c},actions=drop" for c in POOL_2]
    facts.execute(server, "ovs-ofctl", "add-flows", "br-int", "-", text="\n".join(entries))
    try:
        yield
    finally:
        facts.execute(server, "ovs-ofctl", "del-flows", "br-int", "cookie=0x56547abc00000000/0xffffffff00000000")


def test_all_colors_held_by_other_tasks(facts: Facts) -> None:
    """On one server of the way is enough. It is refused; the others' claims stay, and nothing of ours."""
    pair = facts.pair("routed-remote", 4)
    with held_by_others(facts, pair.destination_server):
        before = bridges.all_standing(facts.lab)
        assert colors(facts, CLAIMS) == set(POOL_2)
        answer = answers.diagnose(facts, *arguments(pair), "--packets", "5")
        after = bridges.all_standing(facts.lab)
    error = answer.document["error"]
    assert (answer.code, error["what"]) == (4, "Every color is in use"), answer
    assert pair.destination_server in error["where"], error
    assert "16 tasks at once" in error["why"], error
    assert after == before
