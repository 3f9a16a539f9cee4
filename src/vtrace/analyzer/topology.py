"""Follows the topology while a task runs: what changed is named, and the entries move to where they belong now."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import anyio
import anyio.abc

from vtrace.analyzer import changes
from vtrace.analyzer.arming import Arming
from vtrace.attribute.causes import rfc3339
from vtrace.collect.link import AgentLink
from vtrace.errors import VTraceError, first_leaf
from vtrace.model.answer import Change
from vtrace.model.inventory import Inventory
from vtrace.model.task import Pair
from vtrace.task.admission import translated

# For how long a port that moved may be without entries of its new chassis before the task goes on without them.
UP_WAIT_S = 1.0
# How long until a database that was lost is tried again.
RETRY_S = 0.3
# Changes come in bursts: what follows within this is one change.
SETTLE_S = 0.05


class Topology(Protocol):
    """The cloud's topology as it is now, and agents for more of it."""

    async def begin(self, inventory: Inventory, pairs: Sequence[Pair]) -> None:
        """Watches what this inventory was made of, for these pairs."""

    async def changed(self) -> bool:
        """Waits until something of it changed; whether a port of it moves."""
        ...

    async def read(self, pairs: Sequence[Pair]) -> tuple[tuple[Pair, ...], Inventory]:
        """These pairs with the ends they have now, and the topology around them."""
        ...

    async def cover(self, inventory: Inventory) -> Mapping[str, AgentLink]:
        """Agents for the chassis of an inventory that have none yet and can be reached, by chassis name."""
        ...


class Record(Protocol):
    """What is kept for the answer."""

    changes: list[Change]
    notes: list[str]


class Moved:
    """What a change came to, for who has to know it.

    Attributes:
        inventory: the topology now, with what is gone of the one before; `pairs` with their ends of now.
        added: agents that are new.
        arm: whether the entries have to move.
    """

    def __init__(
        self, inventory: Inventory, pairs: tuple[Pair, ...], added: Mapping[str, AgentLink], *, arm: bool
    ) -> None:
        self.inventory = inventory
        self.pairs = pairs
        self.added = added
        self.arm = arm


class TopologyFollower:
    """Follows the topology of one task.

    Args:
        adopt: tells the task what moved, before the entries do.
        outcome: where changes and notes are kept.
        tell: tells the user what changed, in words.
    """

    def __init__(
        self,
        topology: Topology,
        inventory: Inventory,
        pairs: Sequence[Pair],
        arming: Arming,
        *,
        adopt: Callable[[Moved], Awaitable[None]],
        outcome: Record,
        tell: Callable[[str], None],
    ) -> None:
        self._topology = topology
        self._arming = arming
        self._adopt = adopt
        self._tell = tell
        self._known = inventory
        self._pairs = tuple(pairs)
        self._read = inventory
        self._armed = inventory
        self._lost_s = 0.0
        self._outcome = outcome
        # What is told while the topology is being read, or acted on.
        self._news = anyio.Event()
        self._broken: VTraceError | None = None
        self._moves = 0

    async def follow(self, coloring: anyio.Event) -> None:
        """Reads the topology anew whenever something of it changes; acts on it once `coloring` is set."""
        while True:
            try:
                await self._topology.begin(self._known, self._pairs)
                async with anyio.create_task_group() as group:
                    listening = anyio.CancelScope()
                    group.start_soon(self._listen, listening, group)
                    try:
                        await self._keep_up(coloring)
                    finally:
                        listening.cancel()
            except BaseExceptionGroup as errors:
                error = first_leaf(errors)
                if not isinstance(error, VTraceError):
                    raise
                await self._try_again(error)
            except VTraceError as error:
                await self._try_again(error)

    async def _try_again(self, error: VTraceError) -> None:
        self._arming.may_color.set()
        self._notice_lost(error)
        await anyio.sleep(RETRY_S)

    async def _listen(self, listening: anyio.CancelScope, group: anyio.abc.TaskGroup) -> None:
        """Stops coloring as soon as a port moves, whatever else is under way: its next chassis may restore nothing."""
        self._broken = None
        try:
            with listening:
                while True:
                    if await self._topology.changed():
                        self._moves += 1
                        self._arming.hold()
                        group.start_soon(self._arming.pause)
                    self._news.set()
        except VTraceError as error:
            # What is under way ends first: it must not be left half done.
            self._broken = error
            self._news.set()

    async def _keep_up(self, coloring: anyio.Event) -> None:
        """Goes by what changes, until other rows have to be watched. Colors on only by what was read after all moves.

        Raises:
            VTraceError: the topology can't be read or watched any more.
        """
        while True:
            if self._broken is not None:
                raise self._broken
            # What is told from here on may not be in what is read.
            self._news, moves = anyio.Event(), self._moves
            ends, now = await self._topology.read(self._pairs)
            self._notice_back()
            if now == self._armed:
                self._arming.may_color.set()
                if moves == self._moves:
                    await self._arming.resume()
                await self._wait()
                continue
            self._name(now)
            known = changes.merged(self._known, now)
            pairs = translated(ends, known)
            arm = changes.needs_arming(self._armed, now, self._pairs, pairs)
            if arm:
                self._arming.hold()
            self._arming.may_color.set()
            await coloring.wait()
            if arm:
                await self._arming.pause()
            if self._is_on_its_way(now) and await self._waited():
                continue
            await self._take(known, pairs, now, arm=arm)
            return

    async def _waited(self) -> bool:
        """Whether something changed within the time that a port on its way may take."""
        with anyio.move_on_after(UP_WAIT_S):
            await self._wait()
            return True
        return False

    async def _wait(self) -> None:
        """Waits until something changed, and the burst it came with is over."""
        await self._news.wait()
        await anyio.sleep(SETTLE_S)

    def _is_on_its_way(self, now: Inventory) -> bool:
        """Whether an end of the task has a new chassis that has no entries for it yet."""
        ends = {name for pair in self._pairs for end in (pair.source, pair.destination) for name in end.ports}
        moved = (p for p in now.ports if p.name in ends and p.chassis and not p.up)
        return any(
            before is None or before.chassis != p.chassis for p in moved for before in (self._armed.port(p.name),)
        )

    def _name(self, now: Inventory) -> None:
        """Notes what changed since the last reading."""
        for change in changes.describe(self._read, now, rfc3339(time.time_ns())):
            self._outcome.changes.append(change)
            self._tell(f"changed meanwhile: {change.text}")
        self._read = now

    async def _take(self, known: Inventory, pairs: tuple[Pair, ...], now: Inventory, *, arm: bool) -> None:
        """Has the task, and the entries where they have to, go by what is known now."""
        added = await self._topology.cover(known) if arm else {}
        await self._adopt(Moved(known, pairs, added, arm=arm))
        if arm:
            await self._arming.change(known, pairs, changes.arrivals(self._armed, now))
        self._known, self._pairs, self._armed = known, pairs, now

    def _notice_lost(self, error: VTraceError) -> None:
        self._lost_s = self._lost_s or time.monotonic()
        text = f"changes of the topology were no longer seen: {error}"
        if text not in self._outcome.notes:
            self._outcome.notes.append(text)

    def _notice_back(self) -> None:
        if self._lost_s:
            gone_s = time.monotonic() - self._lost_s
            self._lost_s = 0.0
            self._outcome.notes.append(
                f"the topology could be read again {gone_s:.1f} s later, and what had changed was noticed"
            )
