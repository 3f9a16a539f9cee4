"""Tasks that are put on and taken off at a word: a program of its own, so that what it takes is told apart.

    python -m vtrace.costs.tasks JSON

JSON is an `Order`. It works by the project's own agents and its own way of arming. Each line it reads (`on`, `off`, or
`tell` while on) it answers by a line, a JSON `State`, when all is done on all bridges. When its input ends it takes
everything off.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Literal

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from vtrace.agent.chassis import ChassisAgent
from vtrace.analyzer.arming import IN_FLIGHT_S, Arming
from vtrace.lab import state as lab_state
from vtrace.model.inventory import Inventory
from vtrace.model.record import LogRecord, Point
from vtrace.model.task import Pair, TaskSpec, TrafficFilter
from vtrace.ovn.databases import OvnDatabases
from vtrace.ovn.endpoints import EndpointResolver
from vtrace.ovn.ovsdb import Database
from vtrace.ovn.topology import InventoryReader
from vtrace.task import admission

# Nothing is on for longer than that.
TIMEOUT_S = 300.0
_BATCH = 1000

Stage = Literal["idle", "match", "color"]


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Every source with every destination, UDP."""

    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    dport: int


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What `on` puts on.

    Attributes:
        stage: "idle": agents on all servers, with their claims, and no task; "match": all entries of the tasks but
            those that color; "color": those too.
    """

    lab: str
    tasks: tuple[Task, ...]
    stage: Stage


class State(msgspec.Struct, frozen=True, kw_only=True):
    """How it is after an `on` or `off`.

    Attributes:
        entries: how many were installed for tasks, since `on`; took_s: how long it took.
        records, packets, record_bytes, unread: of what was read since the beginning, all together: log records, those
            of them of a first hop, their bytes in MessagePack, and copies that were lost on the way.
        copies_cut: by the meters, as of the last `off`.
        colors: that were claimed.
    """

    on: bool
    took_s: float
    entries: int
    records: int
    packets: int
    record_bytes: int
    unread: int
    copies_cut: int
    colors: tuple[int, ...] = ()


class _Planned(msgspec.Struct, frozen=True, kw_only=True):
    pairs: tuple[Pair, ...]
    inventory: Inventory


class Tasks:
    """All tasks of an order, on or off."""

    def __init__(self, order: Order, planned: Sequence[_Planned], group: anyio.abc.TaskGroup) -> None:
        self._order = order
        self._planned = planned
        self._group = group
        self._lab = lab_state.require(order.lab)
        self._stack = AsyncExitStack()
        self._agents: list[ChassisAgent] = []
        self._armings: list[Arming] = []
        self._records = self._packets = self._record_bytes = self._unread = self._copies_cut = 0
        self._encoder = msgspec.msgpack.Encoder()

    async def on(self) -> State:
        """Puts everything on, one task after the other as their locks want it."""
        began_s = time.monotonic()
        for planned in self._planned:
            await self._put_on(planned)
        return await self._state(True, began_s)

    async def off(self) -> State:
        """Takes everything off, coloring first."""
        began_s = time.monotonic()
        for arming in self._armings:
            await arming.finish()
        await anyio.sleep(IN_FLIGHT_S)
        for agent in self._agents:
            cost = await agent.cost()
            self._copies_cut += cost.copies_cut + cost.first_copies_cut
            self._unread += cost.records_lost
        state = await self._state(False, began_s)
        await self._stack.aclose()
        self._stack = AsyncExitStack()
        self._agents, self._armings = [], []
        return msgspec.structs.replace(state, took_s=time.monotonic() - began_s)

    async def tell(self) -> State:
        """How it is, while on."""
        return await self._state(True, time.monotonic())

    async def _put_on(self, planned: _Planned) -> None:
        secret, task_id = secrets.token_bytes(32), secrets.token_hex(8)
        agents = {}
        for server in self._lab.servers:
            running = ChassisAgent.running(server.rundir, server.bridge, server.region, secret, task_id, int(TIMEOUT_S))
            agents[server.chassis] = await self._stack.enter_async_context(running)
        arming = Arming(agents, planned.inventory, planned.pairs, TIMEOUT_S)
        arming.may_color.set()
        arming.can_read.set()
        if self._order.stage != "color":
            arming.hold()
        await arming.claim_color(0)
        if self._order.stage != "idle":
            await arming.start()
        for agent in agents.values():
            self._group.start_soon(self._collect, agent)
        self._agents += agents.values()
        self._armings.append(arming)

    async def _collect(self, agent: ChassisAgent) -> None:
        """Takes what an agent tells, and counts what it would send."""
        stream = agent.events()
        async for event in stream:
            self._count(event)
            for _ in range(_BATCH):
                try:
                    self._count(stream.receive_nowait())
                except anyio.WouldBlock:
                    break

    def _count(self, event: object) -> None:
        if isinstance(event, LogRecord):
            self._records += 1
            self._packets += event.point == Point.FIRST_HOP
            self._record_bytes += len(self._encoder.encode(msgspec.structs.astuple(event)))

    async def _state(self, is_on: bool, began_s: float) -> State:
        installed = [(await agent.cost()).entries_installed for agent in self._agents]
        return State(
            on=is_on,
            took_s=time.monotonic() - began_s,
            entries=sum(installed),
            records=self._records,
            packets=self._packets,
            record_bytes=self._record_bytes,
            unread=self._unread,
            copies_cut=self._copies_cut,
            colors=tuple(sorted(use.color for arming in self._armings for use in arming.uses.values())),
        )


async def _plan(order: Order) -> list[_Planned]:
    """What the databases say of each task, as `vtrace diagnose` asks them."""
    lab = lab_state.require(order.lab)
    databases = OvnDatabases(Database(lab.nb_remote, "OVN_Northbound"), Database(lab.sb_remote, "OVN_Southbound"))
    try:
        resolver, found = EndpointResolver(databases), []
        for task in order.tasks:
            traffic = TrafficFilter(proto="udp", dport=task.dport)
            spec = TaskSpec(task_id="", sources=task.sources, destinations=task.destinations, traffic=traffic)
            ends = [
                [end for name in names for end in await resolver.resolve(name, traffic.ip_version)]
                for names in (task.sources, task.destinations)
            ]
            pairs = admission.make_pairs(spec, *ends)
            inventory = await InventoryReader(databases).read([(p.source, p.destination) for p in pairs])
            found.append(_Planned(pairs=admission.translated(pairs, inventory), inventory=inventory))
    finally:
        databases.close()
    return found


async def _serve(order: Order) -> None:
    planned = await _plan(order)
    async with anyio.create_task_group() as group:
        tasks = Tasks(order, planned, group)
        is_on = False
        _say("ready")
        try:
            while word := (await anyio.to_thread.run_sync(sys.stdin.readline)).strip():
                if word not in ("on", "off", "tell") or (word == "on") == is_on:
                    raise SystemExit(f"{word!r} makes no sense while {'on' if is_on else 'off'}")
                state = await {"on": tasks.on, "off": tasks.off, "tell": tasks.tell}[word]()
                is_on = state.on
                _say(msgspec.json.encode(state).decode())
        finally:
            if is_on:
                with anyio.CancelScope(shield=True):
                    await tasks.off()
            group.cancel_scope.cancel()


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    anyio.run(_serve, msgspec.json.decode(sys.argv[1], type=Order))
