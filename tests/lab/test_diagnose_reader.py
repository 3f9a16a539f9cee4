"""A reader that lags: Open vSwitch drops copies that nobody takes. That is counted, and no packet called lost."""

from __future__ import annotations

import re
import signal
import subprocess
import time

import pytest
from faults import answers, bridges
from faults.facts import Facts
from faults.running import RATE_PPS, Traffic, eventually, watching

pytestmark = pytest.mark.lab

PACKETS = 5 * RATE_PPS
COLORING = re.compile(r"cookie=0x56541")
"""A coloring entry's cookie (docs/pipeline.md)."""


def dropped(facts: Facts, server: str) -> int:
    """Packet-ins that found their connection's queue full."""
    found = re.search(r"rconn_overflow .* total: (\d+)", facts.execute(server, "ovs-appctl", "coverage/show"))
    return int(found[1]) if found else 0


def stopped_while_coloring(facts: Facts, task: subprocess.Popen[str], server: str) -> bool:
    """Stops it; lets it go on where it does not color just now."""
    task.send_signal(signal.SIGSTOP)
    if any(COLORING.search(entry) for entry in bridges.standing(facts.lab, server).ours):
        return True
    task.send_signal(signal.SIGCONT)
    return False


def test_copies_that_nobody_reads_are_no_lost_packets(facts: Facts) -> None:
    pair, traffic = facts.pair("routed-remote", 4), Traffic(facts)
    traffic.start(pair, "udp", to=pair.destination, dscp=0)
    try:
        with watching(facts, pair, "udp") as watch:
            eventually(lambda: bool(watch.read().arrived), "packets")
            servers = (pair.source_server, pair.destination_server)
            began_s = time.monotonic()
            task = answers.start(
                facts, "--from", pair.source, "--to", pair.destination, "--packets", str(PACKETS), "--proto", "udp"
            )
            assert task.stderr is not None
            while "coloring" not in (line := task.stderr.readline()):
                assert line, "it ended before it colored"
            try:
                eventually(lambda: stopped_while_coloring(facts, task, pair.source_server), "it to color", 20.0)
                drops = [dropped(facts, server) for server in servers]
                eventually(lambda: [dropped(facts, s) for s in servers] != drops, "copies to be dropped", 20.0)
            finally:
                task.send_signal(signal.SIGCONT)
            answer = answers.finish(task, began_s)
            seen = watch.read()
    finally:
        traffic.stop()
    missing = {p.sequence for p in seen.sent} - {p.sequence for p in seen.arrived}
    assert len(missing) <= RATE_PPS / 20, f"injector: {sorted(n or 0 for n in missing)}"
    answers.check_sound(answer, PACKETS, alone=False)
    counts, text = answer.document["packets"], answer.text()
    assert answer.document["cost"]["log_records_lost"] > 0, text
    assert counts["dropped"] == counts["lost_between"] == 0, text
    assert counts["delivered"] + counts["evidence_missing"] == PACKETS, text
    assert answer.document["loss"] != "yes", text
