"""One private switch for all tests of this folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from private_switch import Switch


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def daemons() -> Iterator[Switch]:
    if shutil.which("ovs-vswitchd") is None:
        pytest.skip("Open vSwitch is not installed")
    with tempfile.TemporaryDirectory(prefix="vtrace-ovs-") as folder:
        switch = Switch(Path(folder))
        try:
            yield switch
        finally:
            switch.stop()


@pytest.fixture
def switch(daemons: Switch) -> Switch:
    """The daemons, with an empty br0."""
    daemons.ofctl("del-flows")
    daemons.ofctl("del-groups")
    daemons.ofctl("del-meters")
    return daemons
