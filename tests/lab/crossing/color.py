"""Echo packets with marks of their own, captured at both ends while they are colored."""

from __future__ import annotations

from faults import answers
from faults.facts import Facts
from test_lab import eventually

from crossing.running import Capture, pinging
from crossing.ways import Ip, Way

TOS = 0x2A
"""DSCP 10 and ECT(0)."""
PACKETS = 20
ECHOES = (0, 8, 128, 129)
"""ICMP and ICMPv6 types of echo replies and requests."""


def check_marks(facts: Facts, way: Way, ip: Ip) -> None:
    """Requests and answers keep DSCP and ECN at both ends while both directions are diagnosed."""
    assert way.direction == "forward"
    (src, dst), (start, end) = way.ends[ip], way.task[ip]
    capture = Capture(facts, (way.sender, way.receiver))
    try:
        with pinging(facts, way.sender, f"-{ip}", "-Q", str(TOS), "-I", src, dst):

            def replies() -> bool:
                capture.read()
                return any(not p.outgoing and p.src == dst for p in capture.packets[way.sender])

            eventually(replies, "answers to the ping")
            words = ("--from", start, "--to", end, "--ip", str(ip), "--proto", "icmp", "--direction", "both")
            answer = answers.diagnose(facts, *words, "--packets", str(PACKETS))
            capture.read()
    finally:
        capture.close()
    answers.check_sound(answer, PACKETS)
    assert answer.document["loss"] == "no", answer.text()
    assert answer.document["packets"]["colored"] == 2 * PACKETS, answer.text()
    for node, packets in capture.packets.items():
        # Not the errors that an end sends about what is left of another test's traffic.
        echoes = [p for p in packets if p.proto == "icmp" and p.body[:1] and p.body[0] in ECHOES]
        mine = [p for p in echoes if {p.src, p.dst} == {src, dst}]
        assert {p.outgoing for p in mine} == {True, False}, node
        odd = [p for p in mine if (p.dscp, p.ecn) != (TOS >> 2, TOS & 3)]
        assert not odd, (node, len(mine), odd[:5])
