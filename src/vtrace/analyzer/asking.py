"""Asks the agents' slow paths about packets: when they are overdue, when they arrive, and when the task ends."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from vtrace.analyzer.arming import Arming
from vtrace.analyzer.follow import LOST_AFTER_S, Followed, Follower
from vtrace.analyzer.outdated import outdated, without_row
from vtrace.analyzer.questions import about_answered, about_arrival, about_packet, about_request, about_unseen
from vtrace.attribute.causes import find_cause
from vtrace.attribute.endings import after_egress
from vtrace.attribute.silence import keeps_from_color
from vtrace.collect.link import AgentLink, NeighborSeen, NothingCachedError, SiteQuestion, Standing, Survey
from vtrace.errors import VTraceError
from vtrace.model.inspection import Inspection
from vtrace.model.inventory import Inventory
from vtrace.model.openflow import OfPort
from vtrace.model.plan import LocalVif
from vtrace.model.record import Point
from vtrace.model.task import Direction, Pair
from vtrace.ovn.lagging import LagFinder, datapaths_of, missing_port_entry, orphans, sent_elsewhere
from vtrace.ovn.objects import ObjectResolver
from vtrace.plain.objects import PlainObjects

# How often the slow path is asked about one flow of a pair on one chassis, at most.
ASK_EVERY_S = 0.5
ASK_TIMEOUT_S = 6.0
# An answer this young says what stands now.
FRESH_S = 0.4
WAIT_S = 0.01
# How long ovn-controller may need to take an entry away whose row is gone.
GONE_S = 0.1
# For so long a dump of what stands on a bridge is taken for what stands.
STANDING_S = 1.0
# About how many flows of one pair one chassis is asked at most; each takes its vswitchd some 10 ms.
MAX_FLOWS = 16
# What one question takes of a chassis, with the pauses between: the more flows there are the rarer each is asked about.
QUESTION_S = 0.05
# Not more questions wait for a chassis, so that one that was never asked has not to wait for many that were.
MOST_WAITING = 8
# So many of the flows that arrive on a chassis are asked about once more at the end.
MOST_AGAIN = 16

# Pair, chassis and flow that a question is about.
_Key: TypeAlias = tuple[int, str, str]


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
        resolver: ObjectResolver | PlainObjects,
    ) -> None:
        self._pairs = {p.index: p for p in pairs}
        self._agents = agents
        self._inventory = inventory
        self._arming = arming
        self._follow = follow
        self._resolver = resolver
        self._lag = LagFinder(resolver.databases) if isinstance(resolver, ObjectResolver) else None
        self._standing: dict[tuple[object, ...], tuple[float, Standing]] = {}
        self._turns: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self._asked: dict[_Key, float] = {}
        self._flows_of: Counter[tuple[int, str]] = Counter()
        self._flows_on: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._looking = False
        self._asking: set[_Key] = set()
        self.inspections: list[Inspection] = []
        self.notes: list[str] = []
        self.lost_agents: set[str] = set()

    def change(self, pairs: Sequence[Pair], inventory: Inventory) -> None:
        """Takes note of a changed topology."""
        self._pairs = {p.index: p for p in pairs}
        self._inventory = inventory

    def ask_overdue(self, group: TaskGroup, now_s: float) -> None:
        """About packets that went in somewhere and did not come out in time: each flow at each place.

        Of packets that are long lost only where nobody asked yet: on a busy machine their records come late.
        """
        for packet in self._follow.overdue(now_s):
            asked = (packet.pair, packet.last.chassis, packet.flow_id) in self._asked
            if now_s - packet.last_s <= LOST_AFTER_S or not asked:
                self._ask_about(group, packet, now_s)

    def ask_arrived(self, group: TaskGroup) -> None:
        """Once for each flow that arrives: what the entry that its packets were handed to made of them."""
        for (pair, flow), packet in self._follow.arrived_flows.items():
            if (pair, packet.last.chassis, flow) not in self._asked:
                self._ask_about(group, packet, time.monotonic())

    def _ask_arrived_again(self, group: TaskGroup) -> None:
        """Once more, of many flows on a chassis of some: one of each port, before a second of any."""
        places: Counter[tuple[str, int, int]] = Counter()
        ranked = []
        for number, packet in enumerate(self._follow.arrived_flows.values()):
            place = (packet.last.chassis, packet.last.datapath, packet.last.out_key)
            ranked.append((places[place], number, packet))
            places[place] += 1
        again: Counter[str] = Counter()
        for *_, packet in sorted(ranked, key=lambda found: found[:2]):
            again[packet.last.chassis] += 1
            if again[packet.last.chassis] <= MOST_AGAIN:
                self._ask_about(group, packet, time.monotonic(), last_time=True)

    def _ask_about(self, group: TaskGroup, packet: Followed, now_s: float, *, last_time: bool = False) -> None:
        pair = self._pairs.get(packet.pair)
        if pair is None:
            return
        last = packet.last
        places = [last.chassis]
        if last.point == Point.REMOTE_OUTPUT and last.peer in self._agents:
            places.append(last.peer)
        for chassis in places:
            key = (pair.index, chassis, packet.flow_id)
            if not self._is_time(key, now_s, last_time=last_time):
                continue
            question = (
                about_packet(packet.records, chassis, pair, self._arming.scopes.surveys, lost=not packet.complete)
                if chassis == last.chassis
                else about_arrival(last, packet.records, pair, self._arming.scopes.surveys, self._inventory)
            )
            if question is not None:
                self._note(key, now_s)
                self._waiting[chassis] += 1
                group.start_soon(self._ask_in_turn, chassis, question)

    def _is_time(self, key: _Key, now_s: float, *, last_time: bool) -> bool:
        """Whether to ask about a flow now: not too often, not of too many, and not while many wait for the chassis."""
        if key in self._asked:
            often_s = max(ASK_EVERY_S, QUESTION_S * self._flows_on[key[1]])
            if now_s - self._asked[key] < often_s:
                return False
        elif self._flows_of[key[:2]] >= MAX_FLOWS:
            return False
        return last_time or self._waiting[key[1]] < MOST_WAITING

    def _note(self, key: _Key, now_s: float) -> None:
        if key not in self._asked:
            self._flows_of[key[:2]] += 1
            self._flows_on[key[1]] += 1
        self._asked[key] = now_s

    async def _ask_in_turn(self, chassis: str, question: SiteQuestion) -> None:
        try:
            await self._ask(chassis, question)
        finally:
            self._waiting[chassis] -= 1

    def ask_requests(self, group: TaskGroup, unanswered: Mapping[int, Sequence[NeighborSeen]]) -> None:
        """Once for each pair: what becomes of the ARP or ND requests of its source that nobody answers."""
        for index, requests in unanswered.items():
            pair = self._pairs[index]
            key = (-1 - index, "", "")
            if key in self._asked or len(requests) < 2:
                continue
            for vif in self._arming.scopes.entries_of(pair, requests[-1].chassis)[:1]:
                self._asked[key] = time.monotonic()
                group.start_soon(self._ask, requests[-1].chassis, about_request(requests[-1], pair, vif))

    def ask_unseen_meanwhile(self, group: TaskGroup) -> None:
        """`ask_unseen`, without waiting for it; nothing where it is under way: of many pairs it takes a while."""
        if not self._looking:
            self._looking = True
            group.start_soon(self._look)

    async def _look(self) -> None:
        try:
            await self.ask_unseen()
        finally:
            self._looking = False

    async def ask_unseen(self) -> None:
        """What may have kept packets from being colored: others' entries at our own priority, a provider's bridge, or
        that the switch can't translate them."""
        for pair in self._pairs.values():
            if pair.index in self._arming.waiting:
                continue
            unseen = not self._follow.of_pair(pair.index)
            translated = unseen and await self._is_awaited(pair)
            for name, survey in self._arming.scopes.surveys.items():
                uncolored = unseen or survey.entries_at_top or survey.drops_fragments
                entries = self._arming.scopes.entries_of(pair, name) if uncolored else []
                for vif in entries or (_deaf_vifs(pair, survey, self._inventory) if unseen else ()):
                    for question in about_unseen(pair, vif, translated=translated):
                        await self._ask(name, question)

    async def _is_awaited(self, pair: Pair) -> bool:
        """Whether a reply to a source NAT's address may be the pair's: its destination sends what such would answer."""
        if pair.direction is not Direction.REPLY or all(a.kind != "translated" for a in pair.destination.aliases):
            return False
        for name, agent in self._agents.items():
            known = name in self._arming.scopes.surveys and name not in self.lost_agents | self._arming.scopes.given_up
            for vif in self._arming.scopes.answers_of(pair, name) if known else ():
                for question in about_answered(pair, vif):
                    try:
                        if await agent.cached_packets(question):
                            return True
                    except VTraceError as error:
                        self.notes.append(f"{self._inventory.server(name)} could not be asked: {error}")
        return False

    async def _ask(self, chassis: str, question: SiteQuestion) -> None:
        key = (question.pair, chassis, question.flow_id)
        if key in self._asking or chassis in self.lost_agents | self._arming.scopes.given_up:
            return
        self._asking.add(key)
        try:
            # Waiting for other questions is no fault of the chassis: the time runs from its turn on.
            async with self._turns[chassis]:
                with anyio.fail_after(ASK_TIMEOUT_S):
                    self.inspections.append(await self._compared(chassis, await self._inspection(chassis, question)))
        except NothingCachedError:
            pass
        except TimeoutError:
            self.notes.append(f"{self._inventory.server(chassis)} did not answer a question in {ASK_TIMEOUT_S:g} s")
        except VTraceError as error:
            self.notes.append(f"{self._inventory.server(chassis)} could not be asked: {error}")
        finally:
            self._asking.discard(key)

    async def _inspection(self, chassis: str, question: SiteQuestion) -> Inspection:
        """The slow path's answer. An entry that has no row is asked about twice: OVN may be about to take it away."""
        layout = self._arming.scopes.surveys[chassis].layout
        found = await self._resolver.inspection(await self._agents[chassis].inspect(question), layout)
        rootless = without_row(found)
        if not rootless:
            return found
        await anyio.sleep(GONE_S)
        again = await self._resolver.inspection(await self._agents[chassis].inspect(question), layout)
        gone = rootless - without_row(again)
        return outdated(found, gone) if gone else again

    async def _compared(self, chassis: str, found: Inspection) -> Inspection:
        """The inspection of a lost packet, held against what the southbound database says of its way."""
        survey = self._arming.scopes.surveys[chassis]
        if self._lag is not None and (elsewhere := sent_elsewhere(found, survey, self._inventory)):
            # Only of an ovn-controller that does not follow: else it is the inventory that may be behind.
            standing = await self._standing_on(chassis, datapaths_of(found), 0)
            lagging = elsewhere if standing.controller else ""
            return replace(found, controller=standing.controller, lagging=lagging)
        if self._lag is None or found.lagging or found.outcome not in ("drop", "controller"):
            return found
        cause = find_cause(found, self._inventory)
        rootless = orphans(without_row(found))
        if (cause is not None and cause.code == "foreign_flow_entry" and not rootless) or not found.steps:
            return found
        standing = await self._standing_on(chassis, datapaths_of(found), found.ct_zone if found.ct_new else 0)
        found = replace(found, controller=standing.controller, ct_zones=standing.ct_zones)
        if rootless and standing.controller:
            found = outdated(found, rootless)
        if found.lagging:
            return found
        lagging = missing_port_entry(found, survey, self._inventory)
        lagging = lagging or await self._lag.missing_row(found, standing, survey.layout, self._inventory)
        return replace(found, lagging=lagging)

    async def _standing_on(self, chassis: str, datapaths: Sequence[int], ct_zone: int) -> Standing:
        """What stands there for these datapaths; a dump takes the bridge some time, so one serves several flows."""
        key = (chassis, ct_zone, *datapaths)
        at_s, known = self._standing.get(key, (-math.inf, Standing()))
        if time.monotonic() - at_s >= STANDING_S:
            at_s, known = time.monotonic(), await self._agents[chassis].standing(datapaths, ct_zone)
            self._standing[key] = (at_s, known)
        return known

    async def ask_again(self) -> None:
        """Asks once more at every place where packets ended, so that the answer knows which causes still stand."""
        while self._asking:  # noqa: ASYNC110
            # Questions under way are answered first: the end of the task would break them off.
            await anyio.sleep(WAIT_S)
        now_s = time.monotonic()
        fresh = {key: asked_s for key, asked_s in self._asked.items() if now_s - asked_s < FRESH_S}
        for counted in (self._asked, self._flows_of, self._flows_on):
            counted.clear()
        for key, asked_s in fresh.items():
            self._note(key, asked_s)
        async with anyio.create_task_group() as group:
            for packet in reversed(self._follow.packets):
                if packet.first and not packet.complete:
                    self._ask_about(group, packet, time.monotonic(), last_time=True)
            self._ask_arrived_again(group)

    def kept_from_color(self, pair: int) -> bool:
        """Whether the datapath's cache shows what keeps the pair's packets from being colored."""
        wanted, seen = self._pairs[pair], bool(self._follow.of_pair(pair))
        found = (keeps_from_color(i, wanted, self._inventory, seen=seen) for i in self.inspections if i.pair == pair)
        return any(cause is not None for cause in found)

    def cause_shown(self, pair: int, packet: Followed) -> bool:
        """Whether the last inspection of the packet's flow where it ended shows why it ended there."""
        chassis, flow = packet.last.chassis, packet.flow_id
        found = [i for i in self.inspections if (i.pair, i.chassis, i.flow_id) == (pair, chassis, flow)]
        find = after_egress if packet.complete else find_cause
        return bool(found) and find(found[-1], self._inventory) is not None


def _deaf_vifs(pair: Pair, survey: Survey, inventory: Inventory) -> tuple[LocalVif, ...]:
    """The source's interfaces on a bridge that has no entry of OVN for them: what comes in by them is dropped."""
    bound = {p.name: p for p in inventory.ends(pair.source) if p.chassis == survey.chassis and not p.type}
    return tuple(
        LocalVif(ofport=OfPort(p.ofport), datapath=bound[p.iface_id].datapath, key=bound[p.iface_id].key)
        for p in survey.ports
        if p.iface_id in bound and p.ofport > 0
    )
