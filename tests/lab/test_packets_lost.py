"""Odd packets of which some are really lost, and such as a controller held back: the truth is counted at the VMs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from faults import answers
from faults.facts import Facts
from faults.model import Pair
from faults.physical import wire
from faults.running import eventually, namespace
from packets import frames
from packets.frames import UDP, ip
from packets.sending import Sender
from packets.watching import Waiting, Watched, arguments, check_unchanged, diagnosed, ident, taps, way

pytestmark = pytest.mark.lab

PACKETS = 40
BROADCAST = "ff:ff:ff:ff:ff:ff"
NEXT_HOP = {4: "10.1.2.200", 6: "fd00:1:2::200"}
ALIAS_PREFIX = {4: "10.9.1.0/24", 6: "fd00:9:1::/64"}


@contextlib.contextmanager
def every_second_lost(facts: Facts, pair: Pair) -> Iterator[None]:
    """The wire loses every second tunnel packet from the source's server."""
    put, take = wire(pair, "odd", "numgen inc mod 2 0")
    facts.execute(put.node, *put.argv)
    try:
        yield
    finally:
        facts.execute(take.node, *take.argv)


def nbctl(facts: Facts, *argv: str) -> None:
    facts.execute("central", "ovn-nbctl", "--wait=hv", "--timeout=20", *argv)


@contextlib.contextmanager
def dropped(facts: Facts, pair: Pair, match: str) -> Iterator[None]:
    """An ACL of the destination's switch drops what matches."""
    full = f'outport == "{pair.destination}" && {match}'
    nbctl(facts, "acl-add", pair.destination_switch, "to-lport", "1790", full, "drop")
    try:
        yield
    finally:
        nbctl(facts, "acl-del", pair.destination_switch, "to-lport", "1790", full)


def check_lost(found: Watched, kind: str, asked: int, ratio: float) -> None:
    """As many lost, of the number asked for, as were lost of all that was sent."""
    answers.check_sound(found.answer, asked)
    assert found.answer.code == 1, found.text()
    counts = found.counts
    assert counts["delivered"] + counts[kind] == counts["colored"] == asked, found.text()
    assert abs(found.answer.document["loss_ratio"] - ratio) <= 0.1, found.text()
    assert abs(1 - len(found.arrived) / len(found.sent) - ratio) <= 0.05, found.text()
    assert (found.answer.first["kind"], found.answer.first["pattern"]) == (kind, "persistent"), found.text()
    check_unchanged(found)


@pytest.mark.parametrize("version", [4, 6])
def test_every_second_of_identical_packets_is_lost(facts: Facts, version: int) -> None:
    """They share a key; the pauses between those that came tell that it is no single gap."""
    pair = facts.pair("switched-remote", 4 if version == 4 else 6)
    frame = ip(w := way(facts, pair), UDP, frames.udp(w, b"still alive"))
    with every_second_lost(facts, pair):
        found = diagnosed(facts, pair, lambda _: [frame], 50, "--proto", "udp", "--packets", str(PACKETS))
    check_lost(found, "lost_between", PACKETS, 0.5)
    assert found.answer.first["why"]["code"] == "physical_loss"


@pytest.mark.parametrize("version", [4, 6])
def test_every_second_fragment_is_lost(facts: Facts, version: int) -> None:
    pair = facts.pair("routed-remote", 4 if version == 4 else 6)
    w = way(facts, pair)

    def make(number: int) -> list[bytes]:
        return frames.fragments(w, frames.numbered(number, 1000), ident(number), 400)

    with every_second_lost(facts, pair):
        found = diagnosed(facts, pair, make, 20, "--packets", str(PACKETS))
    check_lost(found, "lost_between", PACKETS, 0.5)


@pytest.mark.parametrize("version", [4, 6])
def test_an_acl_drops_later_fragments(facts: Facts, version: int) -> None:
    pair = facts.pair("routed-remote", 4 if version == 4 else 6)
    w = way(facts, pair)

    def make(number: int) -> list[bytes]:
        return frames.fragments(w, frames.numbered(number, 1000), ident(number), 400)

    with dropped(facts, pair, "ip.later_frag"):
        found = diagnosed(facts, pair, make, 20, "--packets", "60")
    check_lost(found, "dropped", 60, 2 / 3)
    assert {p.fragment & 0x1FFF for p in found.arrived} == {0}
    where = found.answer.first["where"]
    assert (where["server"], where["vfd"]) == (pair.destination_server, pair.destination_switch), found.text()


@pytest.mark.parametrize("version", [4, 6])
def test_packets_that_the_controller_held_are_not_lost(facts: Facts, version: int) -> None:
    """The router has to ask for its next hop first; ovn-controller keeps the packets and sends them on."""
    pair = facts.pair("routed-remote", 4 if version == 4 else 6)
    assert pair.alias is not None
    w = way(facts, pair, dst=pair.alias)
    with next_hop_unknown(facts, pair), taps(facts, pair, pair.alias) as (complete, _, _):
        args = (*arguments(pair), "--proto", "udp", "--packets", "20")
        with (
            Waiting(facts, *args) as task,
            Sender(
                namespace(facts, pair.source), lambda n: [ip(w, UDP, frames.udp(w, frames.numbered(n)), ident=n)], 50
            ),
        ):
            answer = task.answer()
        found = complete(answer)
        assert NEXT_HOP[version] in bindings(facts)
    assert found.answer.code == 0, found.text()
    assert found.counts["delivered"] == 20, found.text()
    assert len(found.answer.document["paths"]) == 1, found.text()
    assert len(found.arrived) == len(found.sent), "none was lost, the first neither"
    check_unchanged(found)


def bindings(facts: Facts) -> str:
    return facts.execute("central", "ovn-sbctl", "--bare", "--columns=ip", "list", "MAC_Binding")


@contextlib.contextmanager
def next_hop_unknown(facts: Facts, pair: Pair) -> Iterator[None]:
    """The way to the destination's alias leads by an address that only its VM knows."""
    address, prefix = NEXT_HOP[pair.ip], ALIAS_PREFIX[pair.ip]
    on_link = (f"{address}/{24 if pair.ip == 4 else 64}", "dev", "eth0", *(("nodad",) if pair.ip == 6 else ()))
    security = facts.port_security[pair.destination]
    facts.execute(pair.destination, "ip", "addr", "add", *on_link)
    nbctl(
        facts,
        *("lsp-set-port-security", pair.destination, f"{security} {address}"),
        *("--", "--may-exist", "lr-route-add", pair.router, prefix, address),
    )
    try:
        for row in facts.execute("central", "ovn-sbctl", "--bare", "--columns=_uuid", "list", "MAC_Binding").split():
            facts.execute("central", "ovn-sbctl", "--if-exists", "destroy", "MAC_Binding", row)
        nbctl(facts, "sync")
        eventually(lambda: not bindings(facts).strip(), "no MAC bindings")
        yield
    finally:
        nbctl(
            facts,
            *("lsp-set-port-security", pair.destination, security),
            *("--", "--may-exist", "lr-route-add", pair.router, prefix, pair.dst),
        )
        facts.execute(pair.destination, "ip", "addr", "del", *on_link[:3])


# --- what is not answered right yet ---------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
def test_fragments_of_a_named_port(facts: Facts, version: int) -> None:
    pair = facts.pair("switched-remote", 4 if version == 4 else 6)
    w = way(facts, pair)

    def make(number: int) -> list[bytes]:
        other = w.changed(dport=53)
        return [
            *frames.fragments(w, frames.numbered(number, 1000), ident(2 * number), 400),
            *frames.fragments(other, frames.numbered(number, 1000), ident(2 * number + 1), 400),
        ]

    args = ("--proto", "udp", "--dport", "5432", "--packets", "30", "--timeout", "2")
    found = diagnosed(facts, pair, make, 20, *args)
    assert found.counts["delivered"] == 30, found.text()
    check_unchanged(found)


def test_an_acl_drops_later_fragments_of_a_named_protocol(facts: Facts) -> None:
    pair = facts.pair("routed-remote", 6)
    w = way(facts, pair)

    def make(number: int) -> list[bytes]:
        return frames.fragments(w, frames.numbered(number, 1000), ident(number), 400)

    with dropped(facts, pair, "ip.later_frag"):
        found = diagnosed(facts, pair, make, 20, "--proto", "udp", "--packets", "30")
    check_lost(found, "dropped", 30, 2 / 3)


def test_the_acl_that_drops_fragments_is_named(facts: Facts) -> None:
    pair = facts.pair("switched-remote", 4)
    w = way(facts, pair)

    def make(number: int) -> list[bytes]:
        return frames.fragments(w, frames.numbered(number, 1000), ident(number), 400)

    with dropped(facts, pair, "ip.is_frag"):
        found = diagnosed(facts, pair, make, 20, "--packets", "30")
    assert found.answer.code == 1, found.text()
    assert "is_frag" in found.answer.first["why"]["summary"], found.text()


def test_a_switch_drops_frames_with_a_vlan_tag(facts: Facts) -> None:
    pair = facts.pair("switched-remote", 4)
    w = way(facts, pair, vlan=7)

    def make(number: int) -> list[bytes]:
        return [ip(w, UDP, frames.udp(w, frames.numbered(number)), ident=ident(number))]

    found = diagnosed(facts, pair, make, 50, "--packets", "30", "--timeout", "2")
    assert not found.arrived
    assert (found.answer.code, found.answer.first["kind"]) == (1, "dropped"), found.text()


FLOODED = "a flooded packet loses its color on the sender's server"


@pytest.mark.parametrize(
    "placement",
    [
        pytest.param("switched-local", marks=pytest.mark.xfail(strict=True, reason=f"{FLOODED}: not all are armed")),
        "switched-remote",
    ],
)
def test_a_datagram_in_a_broadcast_frame(facts: Facts, placement: str) -> None:
    """Every port of the switch gets it; the answer is about the destination's copy."""
    pair = facts.pair(placement, 4)
    w = way(facts, pair, eth_dst=BROADCAST)

    def make(number: int) -> list[bytes]:
        return [ip(w, UDP, frames.udp(w, frames.numbered(number)), ident=ident(number))]

    found = diagnosed(facts, pair, make, 50, "--packets", "20")
    assert len(found.arrived) == len(found.sent)
    assert (found.answer.code, found.counts["delivered"]) == (0, 20), found.text()


@contextlib.contextmanager
def stateful(facts: Facts, pair: Pair) -> Iterator[None]:
    """All that goes to the destination passes conntrack, which puts fragments together and apart again."""
    match = f'outport == "{pair.destination}" && ip'
    nbctl(facts, "acl-add", pair.destination_switch, "to-lport", "1791", match, "allow-related")
    try:
        yield
    finally:
        nbctl(facts, "acl-del", pair.destination_switch, "to-lport", "1791", match)


@pytest.mark.parametrize(
    "version",
    [4, 6],
)
def test_fragments_that_conntrack_puts_together(facts: Facts, version: int) -> None:
    """Conntrack lets all fragments of a datagram go as the last one goes: if that has no color, theirs stays on.

    So the datagrams at the moment when coloring begins and ends can arrive with it (docs/limits.md), no others.
    """
    pair = facts.pair("routed-remote", 4 if version == 4 else 6)
    w = way(facts, pair)

    def make(number: int) -> list[bytes]:
        return frames.fragments(w, frames.numbered(number, 3800), ident(number), 1328)

    with stateful(facts, pair):
        found = diagnosed(facts, pair, make, 30, "--proto", "udp", "--packets", "45")
    assert len(found.arrived) == len(found.sent), found.text()
    assert (found.answer.code, found.counts["delivered"]) == (0, 45), found.text()
    changed = {p.ident for p in found.arrived if p.dscp}
    assert len(changed) <= 2, found.text()
