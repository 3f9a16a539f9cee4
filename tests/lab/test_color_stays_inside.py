"""Across borders, translation and balancers: nobody outside the domain sees a color, a changed ECN, a wrong checksum.

What is checked is what all VMs, the Internet's box and the customer's saw while both directions were colored: every
packet, not only those that a task asks about.
"""

from __future__ import annotations

import contextlib
import struct
from collections import Counter
from collections.abc import Iterator

import pytest
from crossing.running import CrossingFacts, pinging, up
from crossing.ways import CUSTOMER
from faults import answers, bridges
from faults.facts import Facts
from faults.running import eventually, namespace
from kinds.ways import INTERNET, SLB
from packets import checksums
from packets.colors import POOL_2, drawn
from packets.sending import Tap
from packets.talking import TOSES, Talk, payload_tos, talking

from vtrace.bench.capture import Packet, decode

pytestmark = pytest.mark.lab

PACKETS = 80
ICMP_ERRORS = {1: (3, 11, 12), 58: (1, 2, 3, 4)}
TOPOLOGIES = ("internet", "datacenter", "slb", "vpc-vpc")


def talks(topology: str, ip: int) -> list[Talk]:
    """Who talks to whom in a topology, and what a task about it says."""
    at = 0 if ip == 4 else 1
    if topology == "internet":
        a = {name: pair[at] for name, pair in INTERNET.items()}
        out = [("red-web1", a["vm1"]), ("red-web3", a["vm3"])]
        found = [Talk(vm, own, a["host"], (("internet1", a["host"]),), (vm, a["host"])) for vm, own in out]
        inward = Talk("internet1", a["host2"], a["fip2"], (("red-web2", a["vm2"]),), (a["host2"], "red-web2"))
        return [*found[:1], inward, *found[1:]]
    if topology == "datacenter":
        far = CUSTOMER[6 if ip == 6 else 4]
        vm, other = (("10.1.1.11", "10.1.2.11"), ("fd00:1:1::11", "fd00:1:2::11"))[at]
        return [
            Talk("red-web1", vm, far, (("customer1", far),), ("red-web1", far)),
            Talk("customer1", far, other, (("red-db1", other),), (far, "red-db1")),
        ]
    if topology == "slb":
        backends = (("red-web2", SLB["web2"][at]), ("red-web3", ("10.1.2.13", "fd00:1:2::13")[at]))
        client, vip = SLB["client1"][at], SLB["vip"][at]
        return [Talk("red-client1", client, vip, backends, ("red-client1", vip))]
    ends = (("10.1.1.11", "10.2.1.12"), ("fd00:1:1::11", "fd00:2:1::12"))[at]
    return [Talk("red-web1", ends[0], ends[1], (("blue-web2", ends[1]),), ("red-web1", "blue-web2"))]


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[CrossingFacts]:
    with up(request.param) as found:
        yield found


class Everywhere:
    """All frames at all VMs and boxes outside."""

    def __init__(self, facts: Facts, stack: contextlib.ExitStack) -> None:
        ends = [node["name"] for node in facts.status["nodes"] if node["role"] in ("vm", "outside")]
        self._taps = {
            node: stack.enter_context(Tap(namespace(facts, node), "to-gw1" if node == "customer1" else "eth0"))
            for node in ends
        }
        self.frames: dict[str, list[tuple[bool, bytes]]] = {node: [] for node in ends}

    def read(self) -> None:
        for node, tap in self._taps.items():
            self.frames[node] += tap.read_frames()

    def packets(self) -> Iterator[tuple[str, bytes, Packet]]:
        for node, frames in self.frames.items():
            for outgoing, frame in frames:
                if (packet := decode(frame, outgoing)) is not None:
                    yield node, frame, packet


def check_no_color(seen: Everywhere) -> None:
    """Not in any packet's own header, nor where an ICMP error quotes one."""
    colored = [(node, p.src, p.dst, p.proto, p.dscp) for node, _, p in seen.packets() if p.dscp in POOL_2]
    assert not colored, (len(colored), colored[:5])
    quoted = [(node, p.src, p.dst) for node, frame, p in seen.packets() if _quoted_dscp(frame) in POOL_2]
    assert not quoted, (len(quoted), quoted[:5])


def _quoted_dscp(frame: bytes) -> int | None:
    six = frame[12:14] == b"\x86\xdd"
    at, proto = (54, frame[20]) if six else (14 + (frame[14] & 15) * 4, frame[23])
    if proto not in ICMP_ERRORS or frame[at] not in ICMP_ERRORS[proto]:
        return None
    quoted = frame[at + 8 :]
    return struct.unpack_from("!H", quoted)[0] >> 6 & 63 if six else quoted[1] >> 2


def check_marks(seen: Everywhere, talk: Talk) -> None:
    """DSCP and ECN of every datagram are what it says they are, both ways and at both ends."""
    found: dict[tuple[str, bool], Counter[int]] = {}
    for node, _, packet in seen.packets():
        if packet.proto == "udp" and (tos := payload_tos(packet.body)) is not None:
            assert packet.dscp << 2 | packet.ecn == tos, (node, packet)
            found.setdefault((node, packet.outgoing), Counter())[tos] += 1
    arrived = sum((found.get((node, False), Counter()) for node, _ in talk.receivers), Counter[int]())
    for counts in (arrived, found[talk.sender, True], found[talk.sender, False]):
        assert set(counts) == set(TOSES), counts
        assert counts.total() >= PACKETS, counts


def check_checksums(seen: Everywhere) -> None:
    arrived = [(node, frame) for node, frame, packet in seen.packets() if not packet.outgoing]
    wrong = Counter((node, what) for node, frame in arrived if (what := checksums.wrong(frame)))
    assert len(arrived) >= PACKETS
    assert not wrong, wrong


@pytest.mark.parametrize("lab", TOPOLOGIES, indirect=True)
@pytest.mark.parametrize("ip", drawn([4, 6], 1, 1))
def test_nobody_outside_sees_a_color(lab: CrossingFacts, ip: int, request: pytest.FixtureRequest) -> None:
    topology = request.node.callspec.params["lab"]
    before = bridges.all_standing(lab.lab)
    for talk in drawn(talks(topology, ip), 1 if topology != "internet" else 2):
        with contextlib.ExitStack() as stack:
            seen = Everywhere(lab, stack)
            stack.enter_context(talking(lab, talk))
            stack.enter_context(pinging(lab, talk.sender, f"-{ip}", "-Q", str(TOSES[-1]), "-I", talk.source, talk.to))

            def answered(seen: Everywhere = seen, talk: Talk = talk) -> bool:
                seen.read()
                return {p.proto for n, _, p in seen.packets() if n == talk.sender and not p.outgoing} >= {
                    "udp",
                    "tcp",
                    "icmp",
                }

            eventually(answered, f"answers in all protocols, {talk}")
            start, end = talk.task
            words = ("--from", start, "--to", end, "--ip", str(ip), "--direction", "both")
            answer = answers.diagnose(lab, *words, "--packets", str(PACKETS))
            seen.read()
        check_no_color(seen)
        check_marks(seen, talk)
        check_checksums(seen)
        answers.check_sound(answer, PACKETS)
        counts, text = answer.document["packets"], answer.text()
        # Both directions were colored, and packets came through with the color: else nothing was tested.
        assert [pair["colored"] for pair in answer.document["pairs"]] == [PACKETS, PACKETS], text
        assert counts["delivered"] + counts["left_domain"] >= PACKETS, text
    assert bridges.complaints(before, bridges.all_standing(lab.lab)) == []
