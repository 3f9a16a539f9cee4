"""Streams of more packets than the meters let copies of through: colored in pulses, and answered all the same."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest
from faults import answers, bridges, catalogue, running
from faults.facts import Facts
from faults.model import Pair
from faults.running import eventually, lab_command

from vtrace.analyzer.arming import TIME_STEP_S
from vtrace.color.registry import COPY_RATE_PPS, Role, role_of

pytestmark = pytest.mark.lab

RATE_PPS = 2 * COPY_RATE_PPS
MOST_MISSING = 0.1
WIRE_LOSS_PERCENT = 40
LATER_S = 3.0
ROUNDED_S = 1.5


@pytest.fixture
def fast(facts: Facts) -> Iterator[Pair]:
    """A pair whose source sends far more than can be copied."""
    pair = facts.pair("routed-remote", 4)
    words = ["--from", pair.source, "--to", pair.destination, "--proto", "udp", "--rate", str(RATE_PPS)]
    traffic = lab_command(facts, "traffic", "start", *words).strip()
    try:
        yield pair
    finally:
        lab_command(facts, "traffic", "stop", traffic)


def ask(facts: Facts, pair: Pair, *args: str) -> answers.Answer:
    answer = answers.diagnose(facts, "--from", pair.source, "--to", pair.destination, "--proto", "udp", *args)
    assert "error" not in answer.document, answer.text()
    cost = answer.document["cost"]
    assert cost["packets_colored_beyond_n"] > 0, f"it was not fast: {answer.text()}"
    assert cost["entries_left"] == 0, answer.text()
    return answer


def test_a_healthy_one_is_healthy(facts: Facts, fast: Pair) -> None:
    answer = ask(facts, fast)
    counts = answer.document["packets"]
    assert answer.code == 0, answer.text()
    assert counts["colored"] == 100
    assert counts["dropped"] == counts["lost_between"] == 0, answer.text()
    assert counts["evidence_missing"] <= MOST_MISSING * 100, answer.text()


def test_an_acl_that_drops_it_is_named(facts: Facts, fast: Pair) -> None:
    fault = catalogue.acl(fast, facts, "to-lport", "drop", "acl_drop", False)
    running.apply(facts, fault.inject)
    try:
        answer = ask(facts, fast)
        answers.check_expected(answer, fault.expect, facts)
        assert answer.document["packets"]["delivered"] == 0, answer.text()
    finally:
        running.apply(facts, fault.heal, check=False)


def test_packets_that_a_wire_loses_are_not_taken_for_copies_that_were_cut(facts: Facts, fast: Pair) -> None:
    wire = f"wire-{fast.source_server}-{fast.destination_server}"
    drop = f"numgen random mod 100 < {WIRE_LOSS_PERCENT} drop"
    made = "add table inet vt; add chain inet vt f { type filter hook forward priority 0; }; add rule inet vt f "
    facts.execute(wire, "nft", made + drop)
    try:
        answer = ask(facts, fast)
        assert answer.code == 1, answer.text()
        first = answer.first
        assert (first["kind"], first["why"]["code"]) == ("lost_between", "physical_loss"), answer.text()
        assert (first["where"]["server"], first["where"]["next_server"]) == (
            fast.source_server,
            fast.destination_server,
        )
        assert answer.document["packets"]["dropped"] == 0, answer.text()
    finally:
        facts.execute(wire, "nft", "delete table inet vt")


def test_whenever_coloring_begins_anew_it_ends_before_what_restores(facts: Facts, fast: Pair) -> None:
    """Were VTrace killed in that moment, no packet would be left with the color on."""
    words = ["--from", fast.source, "--to", fast.destination, "--proto", "udp", "--packets", "5000", "--timeout", "9"]
    task = answers.start(facts, *words)
    ages: list[float] = []

    def colored_late() -> bool:
        entries = standing(facts, fast.source_server)
        restoring = [entry for entry in entries if entry.role is Role.RESTORE]
        coloring = [entry for entry in entries if entry.role is Role.COLOR]
        for entry in coloring:
            assert restoring, "a color that nobody takes off"
            # As if it had begun with them: two steps of time before.
            assert entry.left_s <= min(one.left_s for one in restoring) - 2 * TIME_STEP_S + ROUNDED_S, entries
            ages.append(max(one.age_s for one in restoring) - entry.age_s)
        return any(age_s > LATER_S for age_s in ages)

    try:
        eventually(colored_late, "a pulse of coloring long after the rest was put on", 12)
    finally:
        task.terminate()
        task.communicate(timeout=20)
    eventually(lambda: not bridges.standing(facts.lab, fast.source_server).ours, "the end")


class Entry:
    """An entry of ours on a bridge: since when it is there, and for how long it will be."""

    def __init__(self, text: str) -> None:
        found = re.search(r"cookie=(0x\w+), duration=([\d.]+)s.*hard_timeout=(\d+)", text)
        assert found is not None, text
        self.role = Role(role_of(int(found[1], 16)))
        self.age_s = float(found[2])
        self.left_s = int(found[3]) - self.age_s

    def __repr__(self) -> str:
        return f"{self.role.name} {self.age_s:.1f} s old, {self.left_s:.1f} s left"


def standing(facts: Facts, server: str) -> list[Entry]:
    dump = subprocess.run(
        [*running.PROGRAM, "lab", "exec", "--lab", facts.lab, server, "--", "ovs-ofctl", "dump-flows", "br-int"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    ).stdout
    return [Entry(line) for line in dump.splitlines() if "cookie=0x5654" in line]
