"""What the datapath has cached of traffic before it is colored is not acted by.

Open vSwitch's userspace datapath may change another cached flow than the one it means to (`vtrace.color.refresh`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from faults import answers
from faults.facts import Facts
from faults.model import Pair
from faults.running import Traffic, eventually, lab_command

pytestmark = pytest.mark.lab

PORT, OTHER_PORT = 20999, 20998
RATE_PPS = 50
ENOUGH_PACKETS = 300
"""More than are sent while a task runs."""


@pytest.fixture
def pair(facts: Facts) -> Iterator[Pair]:
    yield facts.pair("routed-remote", 4)
    lab_command(facts, "traffic", "stop")


@dataclass(frozen=True)
class Flow:
    """A cached flow of the pair's traffic where it comes in."""

    key: str
    packets: int


def flows(facts: Facts, pair: Pair, port: int | None = None) -> list[Flow]:
    """Of the pair's packets; with a port those that match just that one."""
    text = facts.execute(pair.source_server, "ovs-appctl", "dpctl/dump-flows", "-m", f"filter=in_port={pair.source}")
    found = []
    for line in text.splitlines():
        key, _, rest = line.partition(", packets:")
        wanted = f"dst={pair.dst}," in key and (port is None or f"dst={port})" in key) and "proto=17" in key
        if wanted and (counted := re.match(r"\d+", rest)):
            found.append(Flow(key, int(counted[0])))
    return found


def send(facts: Facts, pair: Pair, port: int) -> None:
    words = ("--from", pair.source, "--to", pair.destination, "--proto", "udp", "--dport", str(port))
    lab_command(facts, "traffic", "start", *words, "--rate", str(RATE_PPS))


def ask(pair: Pair, packets: int) -> list[str]:
    words = ["--from", pair.source, "--to", pair.destination, "--proto", "udp", "--dport", str(PORT)]
    return [*words, "--packets", str(packets), "--timeout", "8"]


def test_no_cached_flow_is_changed_in_place(facts: Facts, pair: Pair, traffic: Traffic) -> None:
    """One from a task before has all that the next one's entries match; another one takes in the same packets."""
    send(facts, pair, PORT)
    eventually(lambda: bool(flows(facts, pair)), "traffic")
    assert answers.diagnose(facts, *ask(pair, 20)).code == 0
    eventually(
        lambda: sum(f.packets for f in flows(facts, pair, PORT)) > ENOUGH_PACKETS, "packets of a cached flow", 20
    )
    send(facts, pair, OTHER_PORT)
    eventually(lambda: len(flows(facts, pair)) > 1, "other traffic between the two")
    answer = answers.diagnose(facts, *ask(pair, 20))
    assert answer.document["packets"]["delivered"] == 20, answer.text()
    assert max(f.packets for f in flows(facts, pair, PORT)) < ENOUGH_PACKETS, flows(facts, pair)
