"""Odd packets, sent while a task colors all that goes from one VM to the other: they arrive byte for byte as sent.

Each frame is sent twice: with nothing installed, and while packets are colored. What arrives must be the same, and be
what was sent but for what a router has to change: MAC addresses, TTL, and the header checksum by just that much.
"""

from __future__ import annotations

import contextlib
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from faults import bridges
from faults.facts import Facts
from faults.model import Pair
from faults.running import eventually, is_soak, namespace
from packets import checksums, frames, odd
from packets.colors import POOL_2, drawn
from packets.frames import UDP, Way
from packets.odd import Odd
from packets.sending import Sender, Tap
from packets.watching import QUIET_POLLS, Waiting, arguments, way
from packets.wires import Underlay

pytestmark = pytest.mark.lab

REPEATS = 3 if not is_soak() else 20
RATE_PPS = 250
"""Each makes up to seven copies; a run's meters allow 1,000 and 3,000 a second."""
TTL_EXCEEDED = {4: 11, 6: 3}
DROPPED_BY_OVN = {"tagged", "TTL 1", "IPv4 with an IPv6 ethertype"}
WAYS = [
    ("routed-remote", 4),
    ("switched-remote", 6),
    ("routed-remote", 6),
    ("switched-remote", 4),
    ("switched-local", 4),
]


@dataclass(frozen=True)
class Sent:
    """A frame, the number that makes it another one, and which part of what was sent with it (a fragment) it is."""

    kind: Odd
    part: int
    number: int
    frame: bytes

    @property
    def stream(self) -> str:
        return f"{self.kind.name} {self.part}"


@dataclass(frozen=True)
class Passed:
    """What arrived, frame by frame, and what came back to the sender."""

    arrived: list[bytes]
    back: list[bytes]


def comparable(frame: bytes, *, routed: bool, lowered: int = 0) -> bytes:
    """A frame without what a router may write anew; of IPv4 with how wrong its header checksum is.

    Args:
        lowered: by how much its TTL is to be less than it is.
    """
    if not routed:
        return frame
    if frame[12:14] == b"\x08\x00":
        ttl, wrong = frame[22], struct.pack("!H", checksums.header_sum(frame))
        rest = frame[12:22] + frame[23:24] + frame[26:]
    else:
        ttl, wrong, rest = frame[21], b"", frame[12:21] + frame[22:]
    return bytes([ttl - lowered]) + wrong + rest


def send(facts: Facts, pair: Pair, sent: list[bytes], at_source: Tap, at_destination: Tap) -> Passed:
    """Sends the frames, one by one, and waits until no more come."""
    at_source.read()
    at_destination.read()
    arrived: list[bytes] = []
    still = 0

    def quiet() -> bool:
        nonlocal still
        before = len(arrived)
        arrived.extend(frame for outgoing, frame in at_destination.read_frames() if not outgoing)
        still = still + 1 if len(arrived) == before else 0
        return still > QUIET_POLLS * 2

    with Sender(namespace(facts, pair.source), lambda n: [sent[n]], RATE_PPS, len(sent)) as sender:
        eventually(lambda: sender.bursts == len(sent), "all frames to be sent")
    eventually(quiet, "the last of them")
    return Passed(arrived, [frame for outgoing, frame in at_source.read_frames() if not outgoing])


@contextlib.contextmanager
def coloring(facts: Facts, pair: Pair, w: Way) -> Iterator[list[str]]:
    """A task that colors all IP packets of the pair, for as long as the block lasts. It leaves nothing.

    Yields:
        what it says, when it is over.
    """
    before = bridges.all_standing(facts.lab)
    arguments_ = (*arguments(pair), "--packets", "100000", "--timeout", "60")

    def plain(n: int) -> list[bytes]:
        return [frames.ip(w, UDP, frames.udp(w, frames.numbered(n)))]

    with Waiting(facts, *arguments_, until="waiting") as task:
        with Sender(namespace(facts, pair.source), plain, 50):
            task.until("coloring ")
            # Flows that the datapath knows from before color nothing until a revalidator has looked at them.
            facts.execute(pair.source_server, "ovs-appctl", "-T", "20", "revalidator/wait")
        said: list[str] = []
        yield said
        said.append(task.end())
    assert bridges.complaints(before, bridges.all_standing(facts.lab)) == []


def check_as_sent(sent: list[Sent], plain: Passed, colored: Passed, *, routed: bool) -> None:
    """What arrived while packets were colored is what arrives without, in order, and that is what was sent."""
    known = {comparable(one.frame, routed=routed, lowered=routed): one for one in sent}
    assert len(known) == len(sent), "two frames are the same"
    before, after = (
        [known[text] for f in run.arrived if (text := comparable(f, routed=routed)) in known]
        for run in (plain, colored)
    )
    counts, now = (Counter(one.kind.name for one in run) for run in (before, after))
    assert now == counts, f"with nothing installed: {counts}\nwhile coloring: {now}"
    assert len(set(map(id, after))) == len(after), "one came twice"
    for stream in {one.stream for one in after}:
        # Open vSwitch itself lets packets of one flow overtake those of another whose flow is not cached yet.
        numbers = [one.number for one in after if one.stream == stream]
        assert numbers == sorted(numbers), f"{stream}: in another order"
    # All but what OVN itself drops: a frame that was changed would be missing here.
    dropped = {one.kind.name for one in sent} - set(counts)
    assert dropped <= DROPPED_BY_OVN, dropped
    if not routed:
        assert "TTL 1" in counts


def check_checksums(sent: list[Sent], colored: Passed, *, routed: bool) -> None:
    good = {comparable(one.frame, routed=routed, lowered=routed) for one in sent if one.kind.good}
    checked = [frame for frame in colored.arrived if comparable(frame, routed=routed) in good]
    assert len(checked) >= len(good) - REPEATS, "all but those whose TTL has ended"
    complaints = Counter(filter(None, map(checksums.wrong, checked)))
    assert not complaints, complaints


def check_back(colored: Passed, source: Pair, *, routed: bool) -> None:
    """Nothing that comes back has the color, but the header that a router's error quotes."""
    dscps = Counter(dscp for frame in colored.back if (dscp := dscp_of(frame[14:])) is not None)
    assert not set(dscps) & set(POOL_2), dscps
    quotes = Counter(quoted for frame in colored.back if (quoted := quoted_dscp(frame, source.ip)) is not None)
    if routed:
        # The documented exception (docs/limits.md).
        assert set(quotes) & set(POOL_2), f"no router's error quotes a colored packet: {quotes}"
    else:
        assert not set(quotes) & set(POOL_2), quotes


def dscp_of(packet: bytes) -> int | None:
    version = packet[0] >> 4
    if version == 4:
        return packet[1] >> 2
    return struct.unpack_from("!H", packet)[0] >> 6 & 63 if version == 6 else None


def quoted_dscp(frame: bytes, ip: int) -> int | None:
    """What a "TTL exceeded" quotes; None for any other frame."""
    at = 54 if ip == 6 else 34
    is_error = frame[12:14] == (b"\x86\xdd" if ip == 6 else b"\x08\x00") and frame[20 if ip == 6 else 23] in (1, 58)
    if not is_error or frame[at] != TTL_EXCEEDED[ip]:
        return None
    return dscp_of(frame[at + 8 :])


@pytest.fixture
def any_frames(facts: Facts) -> Iterator[None]:
    """The sender's port lets through what is neither IP nor ARP: port security with addresses would not."""
    port, before = "red-web1", facts.port_security["red-web1"]
    facts.execute("central", "ovn-nbctl", "--wait=hv", "lsp-set-port-security", port)
    yield
    facts.execute("central", "ovn-nbctl", "--wait=hv", "lsp-set-port-security", port, before)


@pytest.mark.usefixtures("any_frames")
@pytest.mark.parametrize(("placement", "ip"), drawn(WAYS, 2))
def test_odd_packets_stay_as_they_were(facts: Facts, placement: str, ip: int) -> None:
    pair, routed = facts.pair(placement, 6 if ip == 6 else 4), placement.startswith("routed")
    w = way(facts, pair)
    every = odd.kinds(w, switched=not routed)
    sent = [
        Sent(kind, part, number, frame)
        for repeat in range(1, REPEATS + 1)
        for at, kind in enumerate(every)
        for number in (repeat * len(every) + at,)
        for part, frame in enumerate(kind.make(w, number))
    ]
    whole = [one.frame for one in sent]
    with (
        Tap(namespace(facts, pair.source)) as at_source,
        Tap(namespace(facts, pair.destination)) as at_destination,
    ):
        send(facts, pair, whole[:5], at_source, at_destination)
        plain = send(facts, pair, whole, at_source, at_destination)
        with coloring(facts, pair, w) as said, contextlib.ExitStack() as stack:
            local = pair.source_server == pair.destination_server
            servers = (namespace(facts, pair.source_server), pair.destination_server)
            wire = None if local else stack.enter_context(Underlay(*servers))
            colored = send(facts, pair, whole, at_source, at_destination)
            inside = wire.read() if wire else []
    check_as_sent(sent, plain, colored, routed=routed)
    check_checksums(sent, colored, routed=routed)
    check_back(colored, pair, routed=routed)
    if wire:
        dscps = Counter(p.dscp for p in inside if (p.src, p.dst) == (pair.src, pair.dst))
        of_the_pair = [one for one in sent if one.kind.of_the_pair and not (routed and one.kind.name == "TTL 1")]
        assert dscps.total() >= len(of_the_pair), dscps
        assert set(dscps) <= set(POOL_2), f"not all were colored on the wire: {dscps}\n{said}"


@pytest.mark.parametrize("ip", drawn([4, 6], 1))
def test_congestion_that_the_path_reports_is_kept(facts: Facts, ip: int) -> None:
    """A device between the servers sets CE on the tunnel's packets (RFC 6040): the VM gets it, with its own DSCP."""
    pair = facts.pair("routed-remote", 6 if ip == 6 else 4)
    w = way(facts, pair)
    wire = f"wire-{pair.source_server}-{pair.destination_server}"
    sent = [
        odd.ipv6(w, UDP, frames.udp(w, frames.numbered(n)), tos=tos)
        if w.six
        else odd.ipv4(w, UDP, frames.udp(w, frames.numbered(n)), n, tos=tos)
        for n, tos in enumerate((1, 2, 3) * 10)
    ]
    chain = "chain c { type filter hook forward priority 0; udp dport 6081 ip ecn set ce; }"
    facts.execute(wire, "nft", f"table ip injected {{ {chain}; }}")
    try:
        with Tap(namespace(facts, pair.source)) as at_source, Tap(namespace(facts, pair.destination)) as there:
            plain = send(facts, pair, sent, at_source, there)
            with (
                coloring(facts, pair, w),
                Underlay(namespace(facts, pair.source_server), pair.destination_server) as wires,
            ):
                colored = send(facts, pair, sent, at_source, there)
                inside = {p.dscp for p in wires.read() if (p.src, p.dst) == (pair.src, pair.dst)}
    finally:
        facts.execute(wire, "nft", "delete", "table", "ip", "injected")
    assert inside <= set(POOL_2), inside
    assert inside, "none was colored"
    for run in (plain, colored):
        mine = [f for f in run.arrived if f[12:14] == sent[0][12:14] and f[-60:] in {s[-60:] for s in sent}]
        tos = Counter(tos_of(f[14:]) for f in mine)
        assert tos == {3: len(sent)}, tos
        assert not list(filter(None, map(checksums.wrong, mine)))


def tos_of(packet: bytes) -> int:
    return packet[1] if packet[0] >> 4 == 4 else struct.unpack_from("!H", packet)[0] >> 4 & 255
