"""Gives tests a generator of clouds."""

from __future__ import annotations

from pathlib import Path

import pytest
from making import Generator


@pytest.fixture
def made(tmp_path: Path) -> Generator:
    return Generator(tmp_path)
