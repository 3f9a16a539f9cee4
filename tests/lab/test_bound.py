"""The hard bound: however much is sent, and whoever sends it, a server copies no more than its meters allow.

What is copied is told by Open vSwitch's own count of the OpenFlow messages that it sent (`rconn_sent`).
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from faults import answers, bridges
from faults.facts import PROGRAM, Facts
from faults.model import Pair
from faults.running import eventually

from vtrace.color.registry import COPY_RATE_PPS, FIRST_RATE_PPS, POOL_2

pytestmark = pytest.mark.lab

# A run alone on a bridge, and all that colors allow together (docs/pipeline.md, Meters).
ALONE_PPS = FIRST_RATE_PPS + COPY_RATE_PPS
ALL_PPS = 10_600
BURSTS = 250
# Replies to questions, and what the flow monitors tell.
OTHER_MESSAGES_PER_RUN = 600
TASKS = 100 if os.environ.get("VTRACE_SOAK") else 20
TIMEOUT_S = 6
FLOOD_S = 40

# Sends as fast as it can, for so long at most: with each of the TOS values in turn.
_FLOOD = """
import socket, sys, time
address, seconds, values = sys.argv[1], float(sys.argv[2]), [int(word) for word in sys.argv[3].split(",")]
sockets = []
for value in values:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, value)
    made.connect((address, 9999))
    sockets.append(made)
end = time.monotonic() + seconds
while time.monotonic() < end:
    for made in sockets:
        for _ in range(8):
            try:
                made.send(b"x" * 64)
            except ConnectionRefusedError:
                pass
"""


@contextmanager
def flood(facts: Facts, source: str, address: str, tos: tuple[int, ...] = (0,)) -> Iterator[None]:
    """A VM that sends at full rate."""
    values = ",".join(map(str, tos))
    argv = [*PROGRAM, "lab", "exec", "--lab", facts.lab, source, "--"]
    argv += ["python3", "-c", _FLOOD, address, str(FLOOD_S), values]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        assert process.poll() is None
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)


def sent(facts: Facts, server: str) -> int:
    """How many OpenFlow messages the server's Open vSwitch has sent."""
    argv = ["ovs-appctl", "-T", "20", "coverage/read-counter", "rconn_sent"]
    return int(facts.execute(server, *argv))


@contextmanager
def bounded(facts: Facts, rate_pps: int, runs: int = 1) -> Iterator[None]:
    """Holds every server to a rate of copies while something goes on."""
    servers = bridges.servers(facts.lab)
    before, began = {server: sent(facts, server) for server in servers}, time.monotonic()
    yield
    took_s = time.monotonic() - began
    for server in servers:
        most = rate_pps * took_s + BURSTS + runs * OTHER_MESSAGES_PER_RUN
        assert sent(facts, server) - before[server] <= most, f"{server} in {took_s:.1f} s"


def words(pair: Pair) -> list[str]:
    found = ["--from", pair.source, "--to", pair.destination, "--proto", "udp", "--packets", "200"]
    return [*found, "--timeout", str(TIMEOUT_S)]


def test_a_source_at_full_rate(facts: Facts) -> None:
    pair = facts.pair("routed-remote", 4)
    before = bridges.all_standing(facts.lab)
    with flood(facts, pair.source, pair.dst), bounded(facts, ALONE_PPS):
        answer = answers.diagnose(facts, *words(pair))
    cost = answer.document["cost"]
    assert cost["packets_colored_beyond_n"] > 0, answer.text()
    assert cost["copies_cut"] > 0, f"what the bound cut is told: {answer.text()}"
    assert answer.document["packets"]["colored"] > 0, answer.text()
    assert answer.document["loss"] != "yes", answer.text()
    assert bridges.complaints(before, bridges.all_standing(facts.lab)) == []


def test_a_tenant_that_sends_every_color_at_full_rate(facts: Facts) -> None:
    """Another VM of the task's switch: its packets are not copied beyond the bound, and no color is left to use."""
    pair = facts.pair("routed-remote", 4)
    other = facts.pair("switched-local", 4)
    before = bridges.all_standing(facts.lab)
    with bounded(facts, ALONE_PPS):
        task = answers.start(facts, *words(pair))
        began = time.monotonic()
        with flood(facts, other.destination, pair.dst, tuple(value << 2 for value in POOL_2)):
            answer = answers.finish(task, began)
    assert answer.code in (3, 4), answer.text()
    if "error" not in answer.document:
        assert answer.document["loss"] == "unknown", answer.text()
    assert bridges.complaints(before, bridges.all_standing(facts.lab)) == []


def test_many_tasks_at_once(facts: Facts) -> None:
    """Each that gets a color is answered; the others are refused, and told why."""
    pair = facts.pair("routed-remote", 4)
    # Those of the tenant of the test before are not taken.
    eventually(lambda: bridges.forget_colors(facts.lab), "cached flows of the test before to end", 25)
    before = bridges.all_standing(facts.lab)
    began = time.monotonic()
    with ExitStack() as stack, flood(facts, pair.source, pair.dst), bounded(facts, ALL_PPS, TASKS):
        tasks = []
        for _ in range(TASKS):
            tasks.append(answers.start(facts, *words(pair)))
            stack.callback(answers.end, tasks[-1])
        eventually(lambda: claimed(facts, pair.source_server) > 1, "several at once", 40)
        found = [answers.finish(task, began) for task in tasks]
    refused = [answer for answer in found if "error" in answer.document]
    assert len(found) - len(refused) >= 2
    for answer in refused:
        assert answer.code == 4, answer.text()
        assert re.search("Every color is in use|keeps the bridge br-int locked", answer.document["error"]["what"])
    for answer in found:
        if answer not in refused:
            assert answer.document["loss"] != "yes", answer.text()
    assert bridges.complaints(before, bridges.all_standing(facts.lab)) == []


def claimed(facts: Facts, server: str) -> int:
    """How many runs have meters there."""
    meters = facts.execute(server, "ovs-ofctl", "-O", "OpenFlow13", "dump-meters", "br-int")
    return meters.count("meter=") // 2
