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
        mine = [p for p in packets if {p.src, p.dst} == {src, dst} and p.proto == "icmp"]
        assert {p.outgoing for p in mine} == {True, False}, node
        odd = [p for p in mine if (p.dscp, p.ecn) != (TOS >> 2, TOS & 3)]
        assert not odd, (node, len(mine), odd[:5])
