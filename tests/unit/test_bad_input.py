"""Whatever comes in from outside, a reader gives a value that holds what it promises, or its documented error.

The targets are in `tests/fuzz`, where `make fuzz` runs them longer and by what they cover. An input that broke one
stands in `tests/fuzz/corpus` and is tried here first.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[1] / "fuzz"))

import mutating
import targets

# The same inputs each time: what is found by chance is the business of `make fuzz`.
STEADY = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
# Those that write files or open sockets for each input.
SLOW = {"record_file": 25, "blob_content": 40, "record_lies": 40, "record_metadata": 25, "chassis_facts": 100}
EXAMPLES = 250


@pytest.mark.parametrize("target", targets.ALL, ids=lambda target: target.name)
def test_what_once_broke_it(target: targets.Target) -> None:
    inputs = target.inputs()
    assert len(inputs) >= len(target.seeds) > 0
    for data in inputs:
        target.read(data)


@pytest.mark.parametrize("target", targets.ALL, ids=lambda target: target.name)
def test_inputs_near_valid_ones(target: targets.Target) -> None:
    @settings(STEADY, max_examples=SLOW.get(target.name, EXAMPLES))
    @given(mutating.strategy(target))
    def holds(data: bytes) -> None:
        target.read(data)

    holds()


@pytest.mark.parametrize("target", targets.ALL, ids=lambda target: target.name)
def test_any_bytes(target: targets.Target) -> None:
    @settings(STEADY, max_examples=20)
    @given(st.binary(max_size=200))
    def holds(data: bytes) -> None:
        target.read(data)

    holds()
