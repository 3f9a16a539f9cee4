"""A cached flow that Open vSwitch leaves behind: its packets are not colored, and that is not taken for silence.

Another hand does here what the userspace datapath does where flows overlap (docs/adr/0019): the flow gets other actions
than ovs-vswitchd thinks that it has. Until then a packet may be colored; then it is tried again.
"""

from __future__ import annotations

import subprocess

import pytest
from faults import answers
from faults.facts import PROGRAM, Facts
from faults.running import Traffic, eventually, lab_command

pytestmark = pytest.mark.lab

PORT = 20999
RATE_PPS = 5
TRIES = 4
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
    pair = facts.pair("routed-remote", 4)
    words = ("--from", pair.source, "--to", pair.destination, "--proto", "udp", "--dport", str(PORT))
    traffic.ids.append(lab_command(facts, "traffic", "start", *words, "--rate", str(RATE_PPS)).strip())
    asked = (*words, "--timeout", "6")
    for _ in range(TRIES):
        # So that the next one finds a cached flow that matches all that its entries do.
        assert answers.diagnose(facts, *asked, "--packets", "5").code == 0
        script = HAND.format(port=pair.source, dst=pair.dst)
        argv = [
            *PROGRAM,
            "lab",
            "exec",
            "--lab",
            facts.lab,
            pair.source_server,
            "--",
            "timeout",
            "20",
            "sh",
            "-c",
            script,
        ]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as hand:
            answer = answers.diagnose(facts, *asked, "--packets", "40")
            eventually(lambda hand=hand: hand.poll() is not None, "the other hand")
        if not answer.document["packets"]["colored"]:
            break
    why = answer.first["why"]
    assert (why["code"], answer.document["loss"], answer.code) == ("unknown", "unknown", 3), answer.text()
    assert "no copy of them came to us" in why["summary"], answer.text()
    count = int(why["summary"].split()[0])
    assert RATE_PPS * 3 <= count <= RATE_PPS * 10, answer.text()
