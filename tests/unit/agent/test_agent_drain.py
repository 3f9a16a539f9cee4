"""When coloring has ended: cached flows that color on are waited for, and made to go where they stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from builders import CLAIM

from vtrace.agent import chassis
from vtrace.agent.chassis import ChassisAgent
from vtrace.agent.mark_bits import fresh_bits
from vtrace.color.registry import Role, role_of
from vtrace.errors import VTraceError
from vtrace.model.openflow import FlowEntry, GuardBits

pytestmark = pytest.mark.anyio
VM, COLOR = 3, 7


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Bridge:
    """Stands for Open vSwitch: its cached flow colors until `goes`, or until it is asked for bits it does not match."""

    def __init__(self) -> None:
        self.added: list[FlowEntry] = []
        self.uncolored = anyio.Event()
        self.waits = 0

    async def add_entries(self, entries: list[FlowEntry]) -> None:
        self.added += entries
        if any("pkt_mark=" in entry.match for entry in entries):
            self.uncolored.set()

    async def delete_entries(self, cookie: int, mask: int) -> None:
        pass

    async def wait_until_uncolored(self, ofport: int, color: int) -> None:
        assert (ofport, color) == (VM, COLOR)
        self.waits += 1
        await self.uncolored.wait()


async def drain(bridge: Bridge, rundir: Path, *, userspace: bool = True) -> None:
    agent: Any = ChassisAgent(None, str(rundir), "br-int", "r1", b"secret", "t1", 40)  # type: ignore[arg-type]
    agent._ofctl = agent._inspector = bridge
    agent._claims.claim = CLAIM
    agent._colored = {(VM, COLOR)}
    agent._guard = GuardBits(register=10, lsb=26) if userspace else None
    async with agent._send, agent._receive:
        await agent.drain()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chassis, "STALE_S", 0.05)
    monkeypatch.setattr(chassis, "DRAIN_TIMEOUT_S", 0.3)


async def test_what_goes_by_itself_is_only_waited_for(tmp_path: Path) -> None:
    bridge = Bridge()
    bridge.uncolored.set()
    await drain(bridge, tmp_path)
    assert (bridge.waits, bridge.added) == (1, [])


async def test_what_colors_on_is_looked_up_anew(tmp_path: Path) -> None:
    bridge = Bridge()
    with anyio.fail_after(0.25):
        await drain(bridge, tmp_path)
    assert bridge.uncolored.is_set()
    places = [entry.match.partition(",pkt_mark")[0] for entry in bridge.added]
    assert places == [f"in_port={VM},ip", f"in_port={VM},ipv6"]
    assert {role_of(entry.cookie) for entry in bridge.added} == {Role.REFRESH}
    assert all(entry.hard_timeout_s == 40 for entry in bridge.added)


async def test_where_that_is_not_done_the_wait_is_bounded(tmp_path: Path) -> None:
    bridge = Bridge()
    with anyio.fail_after(1):
        await drain(bridge, tmp_path, userspace=False)
    assert bridge.added == []
    assert not bridge.uncolored.is_set()


async def test_another_error_is_told(tmp_path: Path) -> None:
    bridge = Bridge()

    async def fails(ofport: int, color: int) -> None:
        raise VTraceError("it does not answer")

    bridge.wait_until_uncolored = fails  # type: ignore[method-assign]
    with pytest.raises(VTraceError):
        await drain(bridge, tmp_path)


async def test_bits_are_others_each_time() -> None:
    last = 0
    for _ in range(200):
        bits = fresh_bits(last)
        assert bits.bit_count() == 3
        assert not bits & last
        assert bits < 1 << 32
        last = bits
