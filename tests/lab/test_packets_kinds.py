"""Odd packets, sent for real and counted at the VMs: the answer is right, and nobody sees a changed packet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from faults import answers
from faults.facts import Facts
from packets import frames
from packets.connections import Connection
from packets.frames import ACK, DONT, MORE, PSH, TCP, UDP, Way
from packets.watching import HOPS, Waiting, Watched, arguments, check_unchanged, diagnosed, ident, taps, way

pytestmark = pytest.mark.lab

Make = Callable[[int], Sequence[bytes]]
MTU = 1400
HEADERS = {4: 28, 6: 48}
AF11 = 10
PLACES = [(4, "routed-remote"), (6, "switched-remote"), (4, "switched-local"), (6, "routed-remote")]
PACKETS = 30


def identical(w: Way) -> Make:
    """One datagram again and again, with IP id 0 and "don't fragment", as Linux sends it."""
    frame = frames.ip(w, UDP, frames.udp(w, b"still alive"), flags_offset=DONT)
    return lambda _: [frame]


def identical_at_once(w: Way) -> Make:
    frame = frames.ip(w, UDP, frames.udp(w, b"still alive"))
    return lambda _: [frame] * 3


def in_fragments(w: Way) -> Make:
    return lambda number: frames.fragments(w, frames.numbered(number, 1000), ident(number), 400)


def first_fragments_only(w: Way) -> Make:
    return lambda number: frames.fragments(w, frames.numbered(number, 1000), ident(number), 400)[:1]


def overlapping_fragments(w: Way) -> Make:
    def make(number: int) -> list[bytes]:
        body = frames.udp(w, frames.numbered(number, 1000))
        extra = frames.ip(w, UDP, body[200:600], ident=ident(number), flags_offset=MORE | 200 // 8)
        pieces = frames.fragments(w, frames.numbered(number, 1000), ident(number), 400)
        return [pieces[0], extra, *pieces[1:]]

    return make


def repeated_segments(w: Way) -> Make:
    """Each TCP segment four times: a retransmission with the same numbers, and the same id."""
    return lambda number: [frames.ip(w, TCP, frames.tcp(w, 1000 + number // 4 * 30, 5, ACK | PSH, bytes(30)))]


def largest(w: Way) -> Make:
    size = MTU - HEADERS[6 if w.six else 4]
    return lambda number: [frames.ip(w, UDP, frames.udp(w, frames.numbered(number, size)), ident=ident(number))]


KINDS: dict[str, tuple[Callable[[Way], Make], float, tuple[str, ...]]] = {
    "identical": (identical, 100, ("--proto", "udp")),
    "identical at once": (identical_at_once, 33, ("--proto", "udp", "--dport", "5432")),
    "in fragments": (in_fragments, 40, ()),
    "first fragments only": (first_fragments_only, 100, ("--proto", "udp")),
    "overlapping fragments": (overlapping_fragments, 30, ()),
    "repeated segments": (repeated_segments, 100, ("--proto", "tcp", "--dport", "5432")),
    "largest": (largest, 100, ("--proto", "udp")),
}


def check_delivered(found: Watched, asked: int, hops: int, dscp: int = 0) -> None:
    """All arrived by one whole path, and none was changed."""
    answers.check_sound(found.answer, asked)
    assert found.answer.code == 0, found.text()
    assert found.counts["delivered"] == asked, found.text()
    assert [(len(path["hops"]), path["packets"]) for path in found.answer.document["paths"]] == [(hops, asked)]
    assert len(found.arrived) == len(found.sent) >= asked, found.text()
    check_unchanged(found, dscp)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(("ip", "placement"), PLACES[:2], ids=["routed IPv4", "switched IPv6"])
def test_odd_packets_arrive(facts: Facts, kind: str, ip: int, placement: str) -> None:
    pair = facts.pair(placement, 4 if ip == 4 else 6)
    make, rate, args = KINDS[kind]
    found = diagnosed(facts, pair, make(way(facts, pair)), rate, *args, "--packets", str(PACKETS))
    check_delivered(found, PACKETS, HOPS[placement])


@pytest.mark.parametrize(("ip", "placement"), PLACES[2:], ids=["switched IPv4", "routed IPv6"])
def test_identical_packets_keep_their_own_dscp(facts: Facts, ip: int, placement: str) -> None:
    pair = facts.pair(placement, 4 if ip == 4 else 6)
    make = identical(way(facts, pair, dscp=AF11))
    found = diagnosed(facts, pair, make, 100, "--proto", "udp", "--packets", str(PACKETS))
    check_delivered(found, PACKETS, HOPS[placement], AF11)


@pytest.mark.parametrize("ip", [4, 6])
@pytest.mark.parametrize("idle", [False, True], ids=["busy", "idle"])
def test_a_connection_that_was_open_before(facts: Facts, ip: int, idle: bool) -> None:
    """Large writes make full segments, several in a row; of an idle one the first bytes after a while are colored."""
    pair = facts.pair("routed-remote", 4 if ip == 4 else 6)
    args = ("--proto", "tcp", "--dport", "6100", "--packets", "20")
    with (
        Connection(facts, pair, 6100, size_bytes=100 if idle else 5000, rate=25) as connection,
        taps(facts, pair) as (complete, _, _),
    ):
        if idle:
            with Waiting(facts, *arguments(pair), *args) as task:
                connection.busy()
                answer = task.answer()
        else:
            connection.busy()
            # So many packets a second are colored and settled before the task tells of it.
            answer = answers.diagnose(facts, *arguments(pair), *args)
        connection.rest()
        found = complete(answer)
    assert found.answer.code == 0, found.text()
    assert found.counts == {**dict.fromkeys(found.counts, 0), "colored": 20, "delivered": 20}, found.text()
    assert max(p.length for p in found.arrived) <= MTU
    check_unchanged(found)
