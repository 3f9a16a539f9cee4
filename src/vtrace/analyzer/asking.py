"""Asks the agents' slow paths about packets: when they are overdue, when they arrive, and when the task ends."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import anyio
from anyio.abc import TaskGroup

from vtrace.analyzer.arming import Arming
from vtrace.analyzer.follow import LOST_AFTER_S, Followed, Follower
from vtrace.analyzer.questions import about_arrival, about_packet, about_request, about_unseen
from vtrace.attribute.causes import find_cause
from vtrace.collect.link import AgentLink, NeighborSeen, SiteQuestion
from vtrace.errors import VTraceError
from vtrace.model.inspection import Inspection
from vtrace.model.inventory import Inventory
from vtrace.model.plan import LocalVif
from vtrace.model.record import Point
from vtrace.model.task import Pair
from vtrace.ovn.objects import ObjectResolver

# How often the slow path is asked about one pair on one chassis, at most.
ASK_EVERY_S = 0.5


class Asking:
    """The questions of one task, and what came back.

    Attributes:
        inspections: what the slow paths said, as it came.
        notes: what could not be asked, in words.
        lost_agents: chassis that can't be asked any more.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        agents: Mapping[str, AgentLink],
        inventory: Inventory,
        arming: Arming,
        follow: Follower,
        resolver: ObjectResolver,
    ) -> None:
        self._pairs = {p.index: p for p in pairs}
        self._agents = agents
        self._inventory = inventory
        self._arming = arming
        self._follow = follow
        self._resolver = resolver
        self._asked: dict[tuple[int, str], float] = {}
        self._asking: set[tuple[int, str]] = set()
        self.inspections: list[Inspection] = []
        self.notes: list[str] = []
        self.lost_agents: set[str] = set()

    def ask_overdue(self, group: TaskGroup, now_s: float) -> None:
        for packet in self._follow.overdue(now_s):
            if packet.settled(now_s) and now_s - packet.last_s > LOST_AFTER_S:
                continue
            self._ask_about(group, packet, now_s)

    def _ask_about(self, group: TaskGroup, packet: Followed, now_s: float) -> None:
        pair = self._pairs.get(packet.pair)
        if pair is None:
            return
        last = packet.last
        chassis = [last.chassis]
        if last.point == Point.REMOTE_OUTPUT and last.peer in self._agents:
            chassis.append(last.peer)
        for name in chassis:
            if now_s - self._asked.get((pair.index, name), -ASK_EVERY_S) < ASK_EVERY_S:
                continue
            question = (
                about_packet(packet.records, name, pair, self._arming.surveys)
                if name == last.chassis
                else about_arrival(last, pair, self._arming.surveys, self._inventory)
            )
            if question is not None:
                self._asked[(pair.index, name)] = now_s
                group.start_soon(self._ask, name, question)

    def ask_arrived(self, group: TaskGroup) -> None:
        """Once for each pair and chassis: what the entry that a delivered packet was handed to made of it."""
        for pair in self._pairs.values():
            for packet in self._follow.of_pair(pair.index)[:1]:
                last = packet.last
                if packet.complete and (pair.index, last.chassis) not in self._asked:
                    question = about_packet(packet.records, last.chassis, pair, self._arming.surveys)
                    if question is not None:
                        self._asked[(pair.index, last.chassis)] = time.monotonic()
                        group.start_soon(self._ask, last.chassis, question)

    def ask_requests(self, group: TaskGroup, unanswered: Mapping[int, Sequence[NeighborSeen]]) -> None:
        """Once for each pair: what becomes of the ARP or ND requests of its source that nobody answers."""
        for index, requests in unanswered.items():
            pair = self._pairs[index]
            key = (-1 - index, "")
            if key in self._asked or len(requests) < 2:
                continue
            port = self._inventory.port(pair.source.port)
            vif: LocalVif | None = self._arming.scope(requests[-1].chassis).vif(port) if port else None
            if vif is not None:
                self._asked[key] = time.monotonic()
                group.start_soon(self._ask, requests[-1].chassis, about_request(requests[-1], pair, vif))

    async def ask_unseen(self) -> None:
        """Where others have entries at our own priority, they may have kept packets from being colored."""
        for pair in self._pairs.values():
            port = self._inventory.port(pair.source.port)
            if (
                port is None
                or self._follow.of_pair(pair.index)
                or not self._arming.surveys[port.chassis].entries_at_top
            ):
                continue
            vif = self._arming.scope(port.chassis).vif(port)
            if vif is not None:
                await self._ask(port.chassis, about_unseen(pair, vif))

    async def _ask(self, chassis: str, question: SiteQuestion) -> None:
        if (question.pair, chassis) in self._asking or chassis in self.lost_agents:
            return
        self._asking.add((question.pair, chassis))
        try:
            report = await self._agents[chassis].inspect(question)
            self.inspections.append(await self._resolver.inspection(report, self._arming.surveys[chassis].layout))
        except VTraceError as error:
            self.notes.append(f"{self._inventory.server(chassis)} could not be asked: {error}")
        finally:
            self._asking.discard((question.pair, chassis))

    async def ask_again(self) -> None:
        """Asks once more at every place where packets ended, so that the answer knows which causes still stand."""
        async with anyio.create_task_group() as group:
            asked: set[tuple[int, str]] = set()
            for packet in reversed(list(self._follow.packets.values())):
                pair = self._pairs.get(packet.pair)
                last = packet.last
                if pair is None or packet.complete or (packet.pair, last.chassis) in asked:
                    continue
                asked.add((packet.pair, last.chassis))
                self._asked.clear()
                self._ask_about(group, packet, time.monotonic())

    def cause_shown(self, pair: int, packet: Followed) -> bool:
        """Whether the last inspection where the packet ended shows a cause."""
        chassis = packet.last.chassis
        found = [i for i in self.inspections if i.pair == pair and i.chassis == chassis]
        return bool(found) and find_cause(found[-1], self._inventory) is not None
