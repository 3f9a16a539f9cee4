"""One lab for all tests that diagnose."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator

import pytest
from faults import bridges, matrix
from faults.facts import PROGRAM, Facts
from faults.running import Traffic
from survival.cases import chosen as survival_cases

UP_TIMEOUT_S = 80


def pytest_report_header() -> list[str]:
    if os.environ.get("VTRACE_SOAK", "0") == "1":
        return ["fault matrix and survival matrix: whole (VTRACE_SOAK=1)"]
    survival = ", ".join(case.name for case in survival_cases())
    return [
        f"fault matrix: the core and a sample of {matrix.SAMPLE_SIZE}, VTRACE_SAMPLE_SEED={matrix.seed()}",
        f"survival matrix: {survival}",
    ]


@pytest.fixture(scope="session")
def facts() -> Iterator[Facts]:
    """A lab of the default topology, and what the injector knows of it."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    name = f"f{secrets.token_hex(3)}"
    argv = [*PROGRAM, "lab", "up", "--lab", name]
    subprocess.run(argv, capture_output=True, text=True, timeout=UP_TIMEOUT_S, check=True)
    found = Facts(name)
    found.port_security  # noqa: B018 (read before any fault is in)
    try:
        yield found
    finally:
        subprocess.run([*PROGRAM, "lab", "down", "--lab", name], timeout=UP_TIMEOUT_S, check=True)


@pytest.fixture
def traffic(facts: Facts) -> Iterator[Traffic]:
    """What keeps packets going; it ends with the test."""
    made = Traffic(facts)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def lab_as_it_was(facts: Facts) -> dict[str, bridges.Standing]:
    """What stood on the bridges before the first fault."""
    return bridges.all_standing(facts.lab)
