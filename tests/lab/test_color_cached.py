"""A cached flow that Open vSwitch leaves behind: its packets are not colored, and that is not taken for silence.

Another hand does here what the userspace datapath does where flows overlap (docs/adr/0019): the flow gets other actions
than ovs-vswitchd thinks that it has. Until then a packet may be colored; then it is tried again.
"""

from __future__ import annotations

import subprocess

import pytest
from faults import answers, bridges
from faults.facts import PROGRAM, Facts
from faults.running import Traffic, eventually, lab_command

pytestmark = pytest.mark.lab

PORT = 20999
RATE_PPS = 5
TRIES = 4
# Makes each flow that matches a color drop, again and again.
HAND_THERE = """
while true; do
  ovs-appctl dpctl/dump-flows -m | grep "tos={tos}/0xfc.*packets:" |
    sed 's/^ufid:[^,]*, *//; s/, packets:.*//' |
    while read -r key; do ovs-appctl dpctl/mod-flow "$key" drop; done
done
"""
# Makes the first flow that colors drop, once.
HAND = """
while true; do
  flow=$(ovs-appctl dpctl/dump-flows -m filter=in_port={port} | grep "{dst}" | grep "tos=0x[0-9a-f]*/0xfc" | head -1)
  [ -z "$flow" ] && continue
  key=$(echo "$flow" | sed 's/^ufid:[^,]*, *//; s/, packets:.*//')
  ovs-appctl dpctl/mod-flow "$key" drop
  exit
done
"""


def test_what_is_left_uncolored_is_no_silence(facts: Facts, traffic: Traffic) -> None:
    """Both ports are given: there is none to halve the entry by, so that the cached flow is changed in place."""
    pair = facts.pair("routed-remote", 4)
    ports = ("--sport", str(PORT), "--dport", str(PORT))
    words = ("--from", pair.source, "--to", pair.destination, "--proto", "udp", *ports)
    traffic.ids.append(lab_command(facts, "traffic", "start", *words, "--rate", str(RATE_PPS)).strip())
    asked = (*words, "--timeout", "6")
    for _ in range(TRIES):
        # So that the next one finds a cached flow that matches all that its entries do.
        assert answers.diagnose(facts, *asked, "--packets", "5").code == 0
        script = HAND.format(port=pair.source, dst=pair.dst)
        with hand(facts, pair.source_server, script) as other:
            answer = answers.diagnose(facts, *asked, "--packets", "40")
            eventually(lambda other=other: other.poll() is not None, "the other hand")
        if not answer.document["packets"]["colored"]:
            break
    why = answer.first["why"]
    assert (why["code"], answer.document["loss"], answer.code) == ("unknown", "unknown", 3), answer.text()
    assert "no copy of them came to us" in why["summary"], answer.text()
    count = int(why["summary"].split()[0])
    assert RATE_PPS * 3 <= count <= RATE_PPS * 10, answer.text()


def test_what_is_left_at_the_next_server_meets_no_later_task(facts: Facts, traffic: Traffic) -> None:
    """Cached flows of a task's color act by entries that are gone: here they drop. The next task takes another."""
    pair = facts.pair("routed-remote", 4)
    words = ("--from", pair.source, "--to", pair.destination, "--proto", "udp", "--dport", str(PORT))
    traffic.ids.append(lab_command(facts, "traffic", "start", *words, "--rate", str(RATE_PPS)).strip())
    asked = (*words, "--packets", "10", "--timeout", "8")
    eventually(lambda: bridges.forget_colors(facts.lab), "cached flows of the test before to end", 25)
    assert answers.diagnose(facts, *asked).code == 0
    (tos,) = bridges.cached_colors(facts.lab, pair.destination_server)
    with hand(facts, pair.destination_server, HAND_THERE.format(tos=tos)) as process:
        answer = answers.diagnose(facts, *asked)
        process.terminate()
    assert (answer.code, answer.document["packets"]["delivered"]) == (0, 10), answer.text()


def hand(facts: Facts, server: str, script: str) -> subprocess.Popen[bytes]:
    """Begins a script on a server; it ends after a while whatever it does."""
    argv = ["lab", "exec", "--lab", facts.lab, server, "--", "timeout", "20", "sh", "-c", script]
    return subprocess.Popen([*PROGRAM, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
