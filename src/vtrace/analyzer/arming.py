"""Puts a task's entries on its chassis and takes them off again, in the order that keeps tenants safe.

On: what watches for the color, then what restores, what matches, and what colors. Off: the reverse.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import anyio
from msgspec.structs import replace

from vtrace.analyzer.choosing import all_in_use, longest_unused, sent_by_others
from vtrace.analyzer.planning import follow_entries, request_entries, watch_entries, watched_vifs
from vtrace.analyzer.scopes import Scopes
from vtrace.collect.link import AgentLink, ColorsBefore
from vtrace.color.entries import coloring_entries, probe_entries, reply_count_entries
from vtrace.color.registry import POOL_2, Role
from vtrace.errors import BridgeNotUnderstoodError, RefusedError, VTraceError, first_leaf
from vtrace.model.inventory import Inventory
from vtrace.model.plan import Claim, ColorUse, FirstHop, PlannedEntry, TimeLimits
from vtrace.model.task import Direction, Pair

# The restoring entries outlive the matching ones, and those the coloring ones, by this much each.
TIME_STEP_S = 5
# For how long a colored packet may still be on its way between two servers.
IN_FLIGHT_S = 0.05
# How long a color is only listened for before anything is done to packets that carry it: who sends ten such packets
# a second or more is heard by then.
LISTEN_S = 0.1
# How long coloring waits at most for a second look at the topology.
MAY_COLOR_S = 1.0
# A server that has not done by then what takes milliseconds is given up: the others must not wait for it.
GIVE_UP_S = 3.0
STOP_S = 5.0
# A server that has not answered the first question by then is taken for dead.
ANSWER_S = 8.0


class Arming:
    """The entries of one task on all its chassis.

    Args:
        agents: by chassis name.
        timeout_s: the task's time limit: no coloring entry lives longer than this and one step.
    """

    def __init__(
        self, agents: Mapping[str, AgentLink], inventory: Inventory, pairs: Sequence[Pair], timeout_s: float
    ) -> None:
        self._agents = agents
        self.scopes = Scopes(agents, inventory, pairs)
        first = int(timeout_s) + TIME_STEP_S
        self.limits = TimeLimits(color_s=first, match_s=first + TIME_STEP_S, restore_s=first + 2 * TIME_STEP_S)
        self.claims: dict[str, Claim] = {}
        self.uses: dict[int, ColorUse] = {}
        self.withdrawn: set[int] = set()
        # Colors that only come off any more: a server that is out of reach may still put them on.
        self.left: set[int] = set()
        self._epoch = 0
        # By which bit of a port a pair's coloring entries on a chassis were halved last.
        self._port_bits: dict[tuple[str, int], int] = {}
        self._used: dict[str, tuple[int, ...]] = {}
        self._before: dict[str, ColorsBefore] = {}
        self.stopped: set[int] = set()
        # By epoch, the chassis without entries of ours when those of the others were put on.
        self.bare: dict[int, frozenset[str]] = {}
        # Pairs that are not colored yet, and those that are not just now (`pulses`).
        self.waiting: set[int] = set()
        self.resting: set[int] = set()
        # When the entries that restore a color were put on.
        self._armed_s: dict[int, float] = {}
        self.notes: list[str] = []
        # One change at a time: a color must never be put on while another change takes its restoring entries off.
        self._turn = anyio.Lock()
        self._ended = False
        self._paused = False
        self._stands = False
        # Set once it is known that the topology is still what it was when it was read.
        self.may_color = anyio.Event()
        # Set once nothing is being loaded that would keep copies from being read in time: Open vSwitch holds few.
        self.can_read = anyio.Event()

    async def _on_each(self, step: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        """A step on all chassis at once; where it fails or takes too long the server is given up."""
        async with anyio.create_task_group() as group:
            for name in self.scopes.live:
                group.start_soon(self._try, name, step, *arguments)

    async def _try(self, name: str, step: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        try:
            with anyio.fail_after(GIVE_UP_S):
                await step(name, *arguments)
        except (VTraceError, TimeoutError) as error:
            self.scopes.given_up.add(name)
            reason = str(error) or f"it did not answer within {GIVE_UP_S:g} s"
            self.notes.append(f"{self.scopes.inventory.server(name)}: the task went on without it: {reason}")

    async def claim_color(self, original_dscp: int) -> ColorUse:
        """Claims a color, free on every chassis, for packets that carry `original_dscp`.

        Raises:
            CannotWorkError: every color is in use.
        """
        async with AsyncExitStack() as undo:
            for name in sorted(self.scopes.live):
                await self._agents[name].lock()
                undo.push_async_callback(self._agents[name].abandon_claim)
            await self._survey_all()
            held = {color for colors in self._used.values() for color in colors}
            sent = self.withdrawn | (sent_by_others(self._before.values()) - held)
            free = [c for c in POOL_2 if c not in held | sent | self.left and c != original_dscp]
            if not free:
                raise all_in_use(sorted(self.scopes.live), held - sent, sent & set(POOL_2))
            color = longest_unused(free, self._before.values())
            await self._on_all(self._claim, color)
        self._epoch += 1
        use = ColorUse(color=color, epoch=self._epoch, original_dscp=original_dscp)
        self.uses[original_dscp] = use
        return use

    async def _survey_all(self) -> None:
        """Looks at all bridges; goes on without a server that does not answer, if packets can be colored elsewhere.

        Raises:
            VTraceError: a bridge is not understood, or where a pair's packets come in nobody answers.
        """
        needed = {name for pair in self.scopes.pairs for name in self.scopes.only_entrance(pair)}
        try:
            async with anyio.create_task_group() as group:
                for name in self.scopes.live:
                    if name in needed:
                        group.start_soon(self._survey, name)
                    else:
                        group.start_soon(self._survey_if_alive, name)
        except BaseExceptionGroup as errors:
            raise first_leaf(errors) from errors

    async def _survey_if_alive(self, name: str) -> None:
        try:
            with anyio.fail_after(ANSWER_S):
                await self._survey(name)
        except (BridgeNotUnderstoodError, RefusedError):
            raise
        except (VTraceError, TimeoutError) as error:
            self.scopes.given_up.add(name)
            reason = str(error) or f"no answer within {ANSWER_S:g} s"
            self.notes.append(f"{self.scopes.inventory.server(name)} does not answer: {reason}")

    async def _survey(self, name: str) -> None:
        if name not in self.scopes.surveys:
            self.scopes.surveys[name] = await self._agents[name].survey()
        self._used[name] = await self._agents[name].colors_used()
        self._before[name] = await self._agents[name].colors_before()

    async def _claim(self, name: str, color: int) -> None:
        self.claims[name] = await self._agents[name].claim(color)

    async def start(self) -> None:
        """Puts everything on, in order: what watches, what restores and matches, what colors."""
        async with self._turn:
            await self._start()

    async def start_over(self) -> None:
        """Takes everything off, and waits until bridges that somebody cleared are whole again."""
        async with self._turn:
            await self._start_over()

    async def rearm(self) -> None:
        """Puts everything on anew after somebody took it off a chassis (ovn-controller restarted)."""
        async with self._turn:
            if not self._ended:
                await self._start_over()
                await self._start()

    async def change(
        self, inventory: Inventory, pairs: Sequence[Pair], fresh: Collection[str] = (), *, leave_colors: bool = False
    ) -> None:
        """Puts the entries where a changed topology wants them, also on the chassis of agents that are new.

        While coloring is held back nothing is colored until `resume`. Packets colored from now on are of new epochs,
        so that their order after those from before is known.

        Args:
            fresh: chassis that may have got ports that they had not when their bridges were looked at.
            leave_colors: go on with other colors, and keep taking the present ones off: a server that is out of reach
                may still put them on.
        """
        async with self._turn:
            if self._ended:
                return
            added = [name for name in self._agents if name not in self.claims]
            self._stands = False
            await self._stop_coloring()
            await anyio.sleep(IN_FLIGHT_S)
            if leave_colors:
                self.left |= {use.color for use in self.uses.values()}
            await self._on_each(self._take_off)
            self.scopes.inventory, self.scopes.pairs = inventory, pairs
            for name in sorted(set(fresh) & set(self.scopes.surveys) - self.scopes.given_up):
                self.scopes.surveys[name] = await self._agents[name].survey()
            for dscp, use in tuple(self.uses.items()):
                if not leave_colors and await self._claim_on(added, use):
                    self._epoch += 1
                    self.uses[dscp] = replace(use, epoch=self._epoch)
                else:
                    await self.claim_color(dscp)
            await self._start()

    def hold(self) -> None:
        """Keeps coloring from beginning until `resume`."""
        self._paused = True

    async def pause(self) -> None:
        """Stops coloring at once; what is on its way is followed, and its color taken off."""
        self.hold()
        # At once, whatever is being put on just then; and once more for what that has put on since.
        await self._on_each(self._remove, Role.COLOR)
        async with self._turn:
            await self._on_each(self._remove, Role.COLOR, Role.PROBE)

    async def _take_off(self, name: str) -> None:
        """Removes what follows packets, and what restores the colors that nobody else may put on."""
        agent = self._agents[name]
        for role in (Role.COUNT, Role.MATCH):
            await agent.remove(role)
        for color in {use.color for use in self.uses.values()} - self.left:
            await agent.remove(Role.RESTORE, color=color)
        await agent.remove(Role.DOUBT)

    async def _remove(self, name: str, *roles: Role) -> None:
        for role in roles:
            await self._agents[name].remove(role)

    async def resume(self) -> None:
        """Colors on, if it was stopped for a while."""
        async with self._turn:
            if self._paused and not self._ended:
                self._paused = False
                # Before everything else stands nothing may be colored: that is for `start` to do then.
                for use in tuple(self.uses.values()) if self._stands else ():
                    await self._color(use)
                if self._stands:
                    await self._probe()

    async def _claim_on(self, names: Sequence[str], use: ColorUse) -> bool:
        """Claims a color in use on more chassis; whether it was free on all of them."""
        for name in sorted(names):
            await self._agents[name].lock()
            try:
                await self._survey(name)
            except VTraceError:
                await self._agents[name].abandon_claim()
                raise
            if use.color in self._used[name] or use.color in sent_by_others([self._before[name]]):
                await self._agents[name].abandon_claim()
                return False
            await self._claim(name, use.color)
        return True

    async def begin(self, pairs: Collection[int]) -> None:
        """Colors pairs that had to wait for their turn."""
        async with self._turn:
            self.waiting.difference_update(pairs)
            # Where all is about to be put on anew, or colored on, they are among the rest.
            if self._ended or self._paused or not self._stands:
                return
            for use in tuple(self.uses.values()):
                await self._on_all(self._color_on, use, pairs)
            await self._on_all(self._probe_more_on, pairs)

    async def rest(self, pair: int) -> None:
        """Stops coloring a pair for a while; what restores and matches stays."""
        self.resting.add(pair)
        async with self._turn:
            if pair in self.resting:
                await self._on_each(self._rest_on, self._pair(pair))

    async def _rest_on(self, name: str, pair: Pair) -> None:
        for use in tuple(self.uses.values()) if self.scopes.entries_of(pair, name) else ():
            await self._agents[name].remove(Role.COLOR, color=use.color, index=pair.index)

    async def color_again(self, pair: int) -> None:
        """Colors a pair that rested."""
        async with self._turn:
            self.resting.discard(pair)
            # Else it is among those that are colored when everything is put on.
            if self._stands and not (self._ended or self._paused):
                for use in tuple(self.uses.values()):
                    await self._on_all(self._color_on, use, (pair,), False)

    def _pair(self, index: int) -> Pair:
        return next(pair for pair in self.scopes.pairs if pair.index == index)

    async def add_color(self, original_dscp: int) -> ColorUse | None:
        """Claims one more color and colors with it; None where coloring has ended, or such packets have got one.

        While a color is replaced its packets look like those of a DSCP without one.
        """
        async with self._turn:
            if self._ended or original_dscp in self.uses:
                return None
            return await self._add_color(original_dscp)

    async def replace_color(self, color: int) -> None:
        """Takes a color out of use everywhere, and another in its place; nothing where it is out of use already."""
        async with self._turn:
            use = next((u for u in self.uses.values() if u.color == color), None)
            if use is None:
                return
            await self._withdraw(use)
            if not self._ended:
                await self._add_color(use.original_dscp)

    async def finish(self) -> None:
        """Ends all coloring for good; when it returns no packet is colored any more."""
        self._ended = True
        async with self._turn:
            await self._stop_coloring()

    async def _add_color(self, original_dscp: int) -> ColorUse:
        use = await self._followed(await self.claim_color(original_dscp))
        if not self._paused:
            await self._color(use)
        return use

    async def _start(self) -> None:
        for dscp in tuple(self.uses):
            use = await self._followed(self.uses[dscp])
            with anyio.move_on_after(MAY_COLOR_S):
                await self.may_color.wait()
            await self.can_read.wait()
            if use.color in self.withdrawn:
                await self._withdraw(use)
                use = await self._followed(await self.claim_color(dscp))
            if not self._paused:
                await self._color(use)
        self._stands = True
        # Last, since what it copies goes uncolored: as few packets as can be.
        if not self._paused:
            await self._probe()

    async def _followed(self, use: ColorUse) -> ColorUse:
        """Puts in all that a color needs before packets get it: of this one, or of the first that nobody sends.

        It is listened for first: what restores can't tell a tenant's own packets from ours.

        Raises:
            CannotWorkError: somebody sends each of them.
        """
        while True:
            await self._watch(use)
            await self._on_all(self._settle_on)
            await anyio.sleep(LISTEN_S)
            if use.color not in self.withdrawn:
                await self._match(use)
                await self._on_all(self._settle_on)
            if use.color not in self.withdrawn:
                return use
            await self._withdraw(use)
            use = await self.claim_color(use.original_dscp)

    async def _start_over(self) -> None:
        self._stands = False
        await self._stop_coloring()
        await self._on_all(self._take_off)
        await self._on_all(self._renew)

    async def _renew(self, name: str) -> None:
        agent = self._agents[name]
        await agent.renew()
        found = await agent.survey()
        # Others may have taken bits or meters of ours, and without OVN changed the entries that ours stand for. Ports
        # stay: those of a bridge that is being filled anew may not all be there yet.
        known = self.scopes.surveys[name]
        self.scopes.surveys[name] = found if known.plain is not None else replace(known, layout=found.layout)
        for use in tuple(self.uses.values()):
            self.claims[name] = await agent.claim(use.color)

    async def _watch(self, use: ColorUse) -> None:
        """Puts in what notices that the color is in use by somebody else; verifies that copies are metered."""
        await self._on_all(self._watch_on, use)

    async def _watch_on(self, name: str, use: ColorUse) -> None:
        agent, scope = self._agents[name], self.scopes.of(name)
        await agent.install(watch_entries(scope, use, self.claims[name], self.limits))
        for vif in watched_vifs(scope)[:1]:
            family = "ip" if 4 in scope.ip_versions else "ipv6"
            await self._require_meter(agent, exact(f"{vif.match},{family},nw_tos={use.color << 2}"))

    async def _match(self, use: ColorUse) -> None:
        """Puts in what restores and what matches."""
        self._armed_s[use.color] = time.monotonic()
        self.bare[use.epoch] = self.scopes.bare
        await self._on_all(self._match_on, use)

    async def _settle_on(self, name: str) -> None:
        await self._agents[name].settle()

    async def _match_on(self, name: str, use: ColorUse) -> None:
        await self._agents[name].install(follow_entries(self.scopes.of(name), use, self.claims[name], self.limits))

    async def _probe(self) -> None:
        """Puts in what looks for packets of other DSCPs, ARP and ND, and what counts replies."""
        await self._on_all(self._probe_on)

    async def _probe_on(self, name: str) -> None:
        scope, claim = self.scopes.of(name), self.claims[name]
        planned: list[PlannedEntry] = []
        inside = [hop for hop in self.scopes.first_hops(name) if not hop.pair.source.outside]
        for vif, version in {(hop.vif, hop.pair.traffic.ip_version): None for hop in inside}:
            planned += request_entries(vif, version, scope, claim, self.limits)
        planned += self._probes(name, None)
        for pair in self.scopes.pairs:
            for answering in self.scopes.answers_of(pair, name) if pair.direction is Direction.FORWARD else ():
                planned += reply_count_entries(pair, answering, scope, claim, self.limits.match_s)
        await self._agents[name].install(planned)

    async def _probe_more_on(self, name: str, pairs: Collection[int]) -> None:
        await self._agents[name].install(self._probes(name, pairs))

    def _probes(self, name: str, pairs: Collection[int] | None) -> list[PlannedEntry]:
        """What looks for packets of other DSCPs: of some pairs, or of all that are colored."""
        scope, claim = self.scopes.of(name), self.claims[name]
        hops = self._hops_to_color(name, pairs)
        return [entry for hop in hops for entry in probe_entries(hop, scope, claim, self.limits.color_s)]

    def _hops_to_color(self, name: str, pairs: Collection[int] | None) -> list[FirstHop]:
        without = self.stopped | self.waiting | self.resting
        return [
            hop
            for hop in self.scopes.first_hops(name)
            if hop.pair.index not in without and (pairs is None or hop.pair.index in pairs)
        ]

    async def _color(self, use: ColorUse) -> None:
        """Starts coloring; withdraws it at once where copies turn out not to be metered."""
        await self._on_all(self._color_on, use)

    async def _color_on(
        self, name: str, use: ColorUse, pairs: Collection[int] | None = None, verify: bool = True
    ) -> None:
        agent, scope, claim = self._agents[name], self.scopes.of(name), self.claims[name]
        hops = self._hops_to_color(name, pairs)
        # Whenever it begins, coloring ends before what restores is gone.
        limit_s = self.limits.color_s - math.ceil(time.monotonic() - self._armed_s[use.color])
        if limit_s <= 0:
            return
        planned = [
            entry
            for hop in hops
            for entry in coloring_entries(hop, use, scope, claim, limit_s, self._port_bit(name, hop.pair.index))
        ]
        await agent.install(planned)
        for hop in hops:
            if self._paused or hop.pair.index in self.stopped | self.resting:
                # It had enough, or may not be colored any more, since this began.
                await agent.remove(Role.COLOR, color=use.color, index=hop.pair.index)
        for entry in planned[:1] if verify else ():
            await self._require_meter(agent, exact(entry.entry.match.rsplit(",reg10=", 1)[0]))

    def _port_bit(self, name: str, pair: int) -> int | None:
        """A bit of a port to halve coloring entries by, not the one of last time; None where that is for nothing."""
        if not self.scopes.surveys[name].changes_flows_in_place:
            return None
        bit = secrets.choice([bit for bit in range(16) if bit != self._port_bits.get((name, pair))])
        self._port_bits[name, pair] = bit
        return bit

    async def _on_all(self, step: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        """A step on all chassis at once; the next one begins when all have done it."""
        try:
            async with anyio.create_task_group() as group:
                for name in self.scopes.live:
                    group.start_soon(step, name, *arguments)
        except BaseExceptionGroup as errors:
            raise first_leaf(errors) from errors

    async def stop_pair(self, pair: Pair) -> None:
        """Stops coloring a pair's packets."""
        for name, agent in self.scopes.live.items():
            if not self.scopes.entries_of(pair, name):
                continue
            try:
                for use in tuple(self.uses.values()):
                    await agent.remove(Role.COLOR, color=use.color, index=pair.index)
                await agent.remove(Role.PROBE, color=0, index=pair.index)
            except VTraceError as error:
                self.notes.append(f"{self.scopes.inventory.server(name)}: {pair.source.name} is colored on: {error}")

    async def _stop_coloring(self) -> None:
        """Stops all coloring and probing; one server that can't be reached does not keep the others from it."""
        async with anyio.create_task_group() as group:
            for agent in (self._agents if self._ended else self.scopes.live).values():
                group.start_soon(self._stop, agent)

    async def _stop(self, agent: AgentLink) -> None:
        try:
            with anyio.fail_after(STOP_S):
                for role in (Role.COLOR, Role.PROBE, Role.NEIGHBOR):
                    await agent.remove(role)
                await agent.drain()
        except (VTraceError, TimeoutError) as error:
            self.scopes.given_up.add(agent.chassis)
            server = self.scopes.inventory.server(agent.chassis)
            reason = str(error) or f"no answer within {STOP_S:g} s"
            self.notes.append(f"{server}: coloring could not be ended, its entries time out: {reason}")

    async def _withdraw(self, use: ColorUse) -> None:
        """Takes a color out of use everywhere: coloring first, restoring after it, and last what counts the doubts."""
        self.withdrawn.add(use.color)
        self.uses = {dscp: u for dscp, u in self.uses.items() if u.color != use.color}
        await self._on_all(self._uncolor_on, use.color)
        await anyio.sleep(IN_FLIGHT_S)
        for role in (Role.MATCH, Role.RESTORE):
            await self._on_all(self._remove_color_on, role, use.color)
        await self._on_all(self._settle_on)
        await self._on_all(self._remove_color_on, Role.DOUBT, use.color)

    async def _uncolor_on(self, name: str, color: int) -> None:
        await self._agents[name].remove(Role.COLOR, color=color)
        await self._agents[name].drain()

    async def _remove_color_on(self, name: str, role: Role, color: int) -> None:
        await self._agents[name].remove(role, color=color)

    async def _require_meter(self, agent: AgentLink, flow: str) -> None:
        if not await agent.is_metered(flow):
            await self._stop_coloring()
            raise RefusedError(
                "Copies of packets would not be bounded",
                agent.chassis,
                "the bridge compiled them without our meter",
                "Nothing was colored; see docs/limits.md",
            )


def exact(match: str) -> str:
    """The match of an entry as a flow for a trace, which takes no masks: an untagged frame has no tag at all."""
    return ",".join(word for word in match.split(",") if "/" not in word)
