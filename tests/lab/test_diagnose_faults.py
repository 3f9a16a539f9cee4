"""The fault matrix: every fault injected by hand, diagnosed on real traffic, and held against what was injected."""

from __future__ import annotations

import re

import pytest
from faults import bridges, matrix, running
from faults.facts import Facts

pytestmark = pytest.mark.lab

KNOWN = matrix.entries()


@pytest.mark.parametrize("coordinates", matrix.chosen(), ids=matrix.name_of)
def test_fault(facts: Facts, lab_as_it_was: dict[str, bridges.Standing], coordinates: matrix.Coordinates) -> None:
    case = running.build(KNOWN[str(coordinates["name"])], facts, coordinates)
    running.run(case, facts)


def test_every_fault_was_taken_back(facts: Facts, lab_as_it_was: dict[str, bridges.Standing]) -> None:
    """Else one case may have spoilt the next. Rows come back with new uuids, interfaces and zones with new numbers."""

    def without_numbers(standing: bridges.Standing) -> set[str]:
        texts = {re.sub(r"cookie=0x[0-9a-f]+, ?", "", entry) for entry in standing.of_others()}
        texts = {re.sub(r"\b(in_port=|output:)\d+", r"\1N", text) for text in texts}
        # The zones' registers (ovn-architecture(7)): an ovn-controller that begins anew gives them out again.
        return {re.sub(r"load:0x[0-9a-f]+->NXM_NX_REG1([123])\b", r"load:N->NXM_NX_REG1\1", text) for text in texts}

    now = bridges.all_standing(facts.lab)
    for server, then in lab_as_it_was.items():
        assert without_numbers(now[server]) == without_numbers(then), server
