"""When coloring is held back while the topology changes: a port's next chassis may have nobody to take a color off."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest
from builders import DB, HV1, HV2, INVENTORY, PORTS, pair
from msgspec.structs import replace

from vtrace.analyzer.arming import Arming
from vtrace.analyzer.topology import Moved, TopologyFollower
from vtrace.collect.link import AgentLink
from vtrace.errors import CannotWorkError
from vtrace.model.answer import Change
from vtrace.model.inventory import Inventory, LogicalPort
from vtrace.model.task import Pair

pytestmark = pytest.mark.anyio
ANOTHER = LogicalPort(name="db2", key=8, datapath=DB, type="", chassis=HV2, sb_uuid="sb-db2")
GROWN = replace(INVENTORY, ports=(*PORTS, ANOTHER))
MOVED = replace(GROWN, ports=(*(replace(p, chassis=HV1) if p.name == "db1" else p for p in PORTS), ANOTHER))
SOON_S = 0.5


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Cloud:
    """A topology that the test changes: `now` is what is read, and what is told comes by `tell`."""

    def __init__(self) -> None:
        self.now = INVENTORY
        self.reads = 0
        self.during_read: Callable[[], Awaitable[None]] | None = None
        self._tell, self._told = anyio.create_memory_object_stream[bool | None](10)

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        async with self._tell, self._told:
            yield

    async def tell(self, *, moves: bool) -> None:
        await self._tell.send(moves)

    async def lose(self) -> None:
        await self._tell.send(None)

    async def begin(self, inventory: Inventory, pairs: Sequence[Pair]) -> None:
        pass

    async def changed(self) -> bool:
        if (told := await self._told.receive()) is None:
            raise CannotWorkError("The connection broke", "nb", "", "")
        return told

    async def read(self, pairs: Sequence[Pair]) -> tuple[tuple[Pair, ...], Inventory]:
        found = self.now
        if self.during_read is not None:
            meanwhile, self.during_read = self.during_read, None
            await meanwhile()
        self.reads += 1
        return tuple(pairs), found

    async def cover(self, inventory: Inventory) -> Mapping[str, AgentLink]:
        return {}


class Entries:
    """Stands for a task's entries: whether packets may be colored, and by which topology."""

    def __init__(self) -> None:
        self.coloring = True
        self.by = INVENTORY
        self.may_color = anyio.Event()
        self.changing = anyio.Event()
        self.go_on = anyio.Event()
        self.go_on.set()

    def hold(self) -> None:
        self.coloring = False

    async def pause(self) -> None:
        self.hold()

    async def resume(self) -> None:
        self.coloring = True

    async def change(self, inventory: Inventory, pairs: Sequence[Pair], fresh: object = ()) -> None:
        self.changing.set()
        await self.go_on.wait()
        self.by = inventory


class Kept:
    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.notes: list[str] = []


class Scene:
    """A follower at work."""

    def __init__(self) -> None:
        self.cloud, self.entries, self.kept = Cloud(), Entries(), Kept()

    async def run(self, steps: Callable[[Scene], Awaitable[None]]) -> None:
        async def adopt(moved: Moved) -> None:
            pass

        coloring = anyio.Event()
        coloring.set()
        follower = TopologyFollower(
            self.cloud,
            INVENTORY,
            (pair(),),
            cast(Arming, self.entries),
            adopt=adopt,
            outcome=self.kept,
            tell=lambda text: None,
        )
        async with self.cloud.telling(), anyio.create_task_group() as group:
            group.start_soon(follower.follow, coloring)
            with anyio.fail_after(10):
                await steps(self)
            group.cancel_scope.cancel()

    async def until(self, holds: Callable[[], Any]) -> None:
        with anyio.fail_after(SOON_S):
            while not holds():  # noqa: ASYNC110 (it looks at what others do)
                await anyio.sleep(0.005)


async def test_a_port_that_moves_while_entries_move_stops_coloring_at_once() -> None:
    async def steps(scene: Scene) -> None:
        cloud, entries = scene.cloud, scene.entries
        await scene.until(lambda: cloud.reads)
        entries.go_on = anyio.Event()
        cloud.now = GROWN
        await cloud.tell(moves=False)
        with anyio.fail_after(SOON_S):
            await entries.changing.wait()
        entries.coloring = True  # as if it had been begun already
        cloud.now = MOVED
        await cloud.tell(moves=True)
        await scene.until(lambda: not entries.coloring)
        assert entries.by == INVENTORY
        entries.go_on.set()
        await scene.until(lambda: entries.coloring)
        assert entries.by.port("db1") == MOVED.port("db1")

    await Scene().run(steps)


async def test_a_port_that_moves_while_the_topology_is_read_is_not_taken_for_settled() -> None:
    async def steps(scene: Scene) -> None:
        cloud, entries = scene.cloud, scene.entries
        await scene.until(lambda: cloud.reads)
        seen: list[bool] = []

        async def move() -> None:
            cloud.now = MOVED
            await cloud.tell(moves=True)
            await scene.until(lambda: not entries.coloring)
            entries.resume = resumed  # type: ignore[method-assign]

        async def resumed() -> None:
            seen.append(entries.by.port("db1") == MOVED.port("db1"))
            entries.coloring = True

        cloud.during_read = move
        await cloud.tell(moves=False)
        await scene.until(lambda: entries.coloring and seen)
        assert seen == [True]

    await Scene().run(steps)


async def test_a_watch_that_breaks_lets_what_is_under_way_end() -> None:
    async def steps(scene: Scene) -> None:
        cloud, entries = scene.cloud, scene.entries
        await scene.until(lambda: cloud.reads)
        entries.go_on = anyio.Event()
        cloud.now = GROWN
        await cloud.tell(moves=False)
        with anyio.fail_after(SOON_S):
            await entries.changing.wait()
        await cloud.lose()
        await anyio.sleep(0.05)
        assert entries.by == INVENTORY
        entries.go_on.set()
        await scene.until(lambda: entries.by.ports == GROWN.ports)
        # And it is watched again.
        cloud.now = MOVED
        await cloud.tell(moves=True)
        await scene.until(lambda: entries.coloring and entries.by.port("db1") == MOVED.port("db1"))

    await Scene().run(steps)
