"""The faults that ship: each file says what the format wants, and each reason has its faults and near-misses."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from string import Formatter

import pytest

from vtrace.bench.fault import ANOMALIES, Command, Fault, catalogue, read
from vtrace.errors import UsageError

REASONS = Path(__file__).parents[3] / "docs" / "reasons.md"
FAULTS = catalogue()
NOT_MADE: dict[str, str] = {
    "ct_limit": "the userspace datapath of the lab passes on what it has no room to track",
    "unknown": "whatever is injected has a cause",
    "nat_port_exhausted": "the userspace datapath of the lab passes on untranslated what it has no port for",
    "vswitch_overload": "an overloaded switch would be one of the machine that runs the benchmark",
}
"""Codes that no fault is made for, and why."""


def rows() -> dict[str, tuple[str, str]]:
    """Kinds and actor of every code, as the documentation has them."""
    table = [line.split("|") for line in REASONS.read_text().splitlines() if line.startswith("| `")]
    lines = [cells for cells in table if len(cells) == 8]
    return {cells[1].strip(" `"): (cells[2].strip(), cells[5].strip()) for cells in lines}


def by_code() -> dict[str, list[Fault]]:
    found: dict[str, list[Fault]] = defaultdict(list)
    for fault in FAULTS:
        found[fault.code].append(fault)
    return found


def fields(command: Command) -> set[str]:
    """The first words of all fields in a command's texts."""
    texts = (command.on, *command.run, *(word for words in command.undo for word in words))
    return {name.partition(".")[0] for text in texts for _, name, _, _ in Formatter().parse(text) if name}


def test_every_code_has_two_faults_or_a_reason() -> None:
    found = by_code()
    assert set(found) <= set(rows())
    assert {code for code in rows() if len(found.get(code, ())) < 2} == set(NOT_MADE)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_of_its_code(fault: Fault) -> None:
    letters = {"dropped": "D", "lost_between": "L", "no_traffic": "N", "left_domain": "O"}
    kinds, actor = rows()[fault.code]
    assert fault.actor == actor
    assert letters[fault.right.kind] in kinds
    assert fault.anomaly in ANOMALIES


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_near_miss_changes_what_is_injected(fault: Fault) -> None:
    assert fault.has_near_miss
    assert set(fault.near) <= {name for command in fault.inject for name in fields(command)}
    assert fault.near_inject != fault.inject


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_what_is_done_is_taken_back(fault: Fault) -> None:
    assert any(command.undo for command in fault.inject)
    assert all(command.run for command in (*fault.prepare, *fault.inject, *fault.near_inject))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_no_address_or_port_of_the_traffic_stands_in_a_file(fault: Fault) -> None:
    """Names, addresses and ports of a lab are drawn, so none can be known here."""
    used = {name for command in fault.inject for name in fields(command)}
    assert used
    words = " ".join(word for command in (*fault.inject, *fault.near_inject) for word in command.run)
    assert not re.search(r"\b10\.\d+\.\d+\.\d+|tp_dst=\d{2}|(tcp|udp)\.(src|dst) == \d", words)


def test_a_file_that_has_an_unknown_key_is_refused() -> None:
    text = 'text = "t"\ncode = "acl_drop"\nactor = "tenant"\nanomaly = "NIC exception"\n'
    right = '[right]\nserver = "s"\nvfd = "v"\nvfd_kind = "vswitch"\n'
    assert read(text + right, "whole").code == "acl_drop"
    with pytest.raises(UsageError, match=r"broken\.toml"):
        read(text + "sever = true\n" + right, "broken")
    with pytest.raises(UsageError, match=r"draw\.two"):
        read(text + "draw = { two = { word = 3, between = [1, 2] } }\n" + right, "twice")
    with pytest.raises(UsageError, match=r"no\.toml"):
        read(text, "no")
