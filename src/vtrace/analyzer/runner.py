"""Runs one task: `new → ready → coloring → collecting → done | expired | failed | cancelled`."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence

import anyio
import anyio.to_thread

from vtrace.analyzer.arming import IN_FLIGHT_S, Arming
from vtrace.analyzer.asking import Asking
from vtrace.analyzer.enough import Enough
from vtrace.analyzer.follow import LOST_AFTER_S, Follower
from vtrace.analyzer.goals import goals
from vtrace.analyzer.neighbors import Neighbors
from vtrace.analyzer.pulses import Allowed, Counted, Pulses, cuts_of_counted
from vtrace.analyzer.replies import Replies
from vtrace.analyzer.stalls import Stalls
from vtrace.analyzer.topology import Moved, Topology, TopologyFollower
from vtrace.analyzer.tunnels import check_now
from vtrace.analyzer.turns import Turns
from vtrace.analyzer.unseen import Unseen
from vtrace.attribute.case import Case
from vtrace.collect.link import (
    AgentCost,
    AgentEvent,
    AgentLink,
    AgentLost,
    Disturbed,
    DoubtSeen,
    NeighborSeen,
    ProbeSeen,
)
from vtrace.errors import CannotWorkError, RefusedError, VTraceError
from vtrace.model.answer import Change
from vtrace.model.inventory import Inventory
from vtrace.model.record import LogRecord, Point
from vtrace.model.task import Direction, Pair, TaskSpec, TaskState
from vtrace.ovn.objects import ObjectResolver
from vtrace.plain.objects import PlainObjects

TICK_S = 0.02
EVENTS_PER_TURN = 1000
DRAIN_S = 2.0
# Without a record for so long there are none on their way, when records are kept.
QUIET_S = 0.3
# How often the entries are put on when somebody takes them off meanwhile, and how soon we hear of that.
ARM_TRIES = 3
NOTICE_S = 0.3
STOP_TIMEOUT_S = 5.0
# The last questions are to say which causes still stand: some 0.1 s, more on a busy machine. A bridge that hangs must
# not keep the answer.
ASK_AGAIN_S = 8.0
# For what a server counted, at the end: one that has stopped to answer holds the task up no longer.
COUNTS_S = 4.0
# For so long after the task the color is taken off where a server hangs: what it holds back comes when it goes on.
COLORS_AFTER_HANG_S = 30
NO_COUNTS = f"no answer within {COUNTS_S:g} s"

Progress = Callable[[str], None]


class Outcome:
    """What a run gathered, beside its case.

    `records` are all, also those of packets beyond N; `log_bytes` is what they take as one blob.
    """

    def __init__(self) -> None:
        self.state = TaskState.NEW
        self.notes: list[str] = []
        self.costs: dict[str, AgentCost] = {}
        self.changes: list[Change] = []
        self.packets_in_doubt = 0
        self.beyond_n = 0
        self.records: list[LogRecord] = []
        self.log_bytes = 0


class TaskRunner:
    """One task on the agents of its chassis.

    Args:
        spec: the task; `pairs` what it comes to.
        agents: the agents, by chassis name.
        resolver: looks cookies up in the OVN databases.
        progress: told in words what happens.
        topology: tells of changes while the task runs; without one there are none.

    Attributes:
        keeps_records: whether all records are wanted, also those of packets beyond N.
    """

    def __init__(
        self,
        spec: TaskSpec,
        pairs: Sequence[Pair],
        agents: Mapping[str, AgentLink],
        inventory: Inventory,
        resolver: ObjectResolver | PlainObjects,
        progress: Progress,
        topology: Topology | None = None,
    ) -> None:
        self._spec = spec
        self._topology = topology
        self._pairs = {p.index: p for p in pairs}
        self._agents = dict(agents)
        self._inventory = inventory
        self._read = inventory
        self._progress = progress
        self._arming = Arming(self._agents, inventory, pairs, spec.timeout_s)
        self._follow = Follower(pairs, inventory, spec.packets)
        self._asking = Asking(pairs, self._agents, inventory, self._arming, self._follow, resolver)
        # There is nothing to color of a pair that no packet can be of.
        self._arming.stopped.update(p.index for p in pairs if p.unreachable)
        self._turns = Turns([p for p in pairs if not p.unreachable])
        self._arming.waiting = set(self._turns.waiting)
        self._pulses = Pulses()
        self._neighbors = Neighbors(pairs, inventory)
        self._ending = Enough(
            pairs,
            self._follow,
            self._asking,
            self._neighbors,
            stopped=self._arming.stopped,
            waiting=self._arming.waiting,
            both=len(spec.directions) > 1,
        )
        self._disturbed: set[str] = set()
        self._disturbances: list[tuple[str, int]] = []
        self._stalls = Stalls(self._note_stall)
        self._missing_color: set[int] = set()
        self._early_dscps: set[int] = set()
        self._replies = Replies(self._arming, self._follow)
        self._unseen = Unseen(self._arming, self._follow)
        self._is_coloring = anyio.Event()
        self._collecting: anyio.abc.TaskGroup | None = None
        self.outcome = Outcome()
        self.keeps_records = False

    async def run(self) -> Case:
        """Runs the task to its end and gives the evidence. What is on the bridges is removed by the agents."""
        async with anyio.create_task_group() as watching:
            if self._topology is not None:
                # Its second look is over before the entries stand, so that nothing waits for it.
                watching.start_soon(self._keeper(self._topology).follow, self._is_coloring)
            else:
                self._arming.may_color.set()
            await self._run(watching)
            watching.cancel_scope.cancel()
        return await self._case()

    async def _load(self) -> None:
        """Loads what the answer needs while entries are put in: later it would keep copies from being read."""
        await anyio.to_thread.run_sync(lambda: importlib.import_module("vtrace.reconstruct.warm").load())
        self._arming.can_read.set()

    async def _run(self, watching: anyio.abc.TaskGroup) -> None:
        use = await self._arming.claim_color(0)
        # Not before: a task that gets no color is told so at once.
        watching.start_soon(self._load)
        self._progress(f"task ready: color {use.color:#04x} on {', '.join(sorted(self._agents))}")
        self.outcome.state = TaskState.READY
        try:
            await self._color_and_collect()
        finally:
            # Coloring ends on every server before any of them stops to restore: also when the task is broken off.
            if self.outcome.state not in (TaskState.DONE, TaskState.EXPIRED):
                with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_TIMEOUT_S):
                    await self._arming.finish()
                    await anyio.sleep(IN_FLIGHT_S)

    async def _color_and_collect(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._stalls.watch)
            for agent in self._agents.values():
                group.start_soon(self._collect, agent, group)
            self._collecting = group
            allowed = Allowed.by(self._arming.claims.values())
            self._pulses.start(allowed)
            self._turns.allow(allowed.first_pps, allowed.copies_pps)
            await self._arm()
            self.outcome.state = TaskState.COLORING
            self._ending.started_s = time.monotonic()
            self._turns.start(self._ending.started_s)
            for dscp in sorted(self._early_dscps - set(self._arming.uses)):
                self._missing_color.add(dscp)
                group.start_soon(self._add_color, dscp)
            self._is_coloring.set()
            with anyio.move_on_after(self._spec.timeout_s) as limit:
                await self._until_enough(group)
            await self._finish(expired=limit.cancelled_caught)
            group.cancel_scope.cancel()

    def _note_stall(self, chassis: str, stalled_s: float) -> None:
        self._disturbances.append((chassis, time.time_ns()))
        where = self._inventory.server(chassis)
        self.outcome.notes.append(f"{where}: nothing was read for {stalled_s:.1f} s, copies of packets may be lost")

    def _keeper(self, topology: Topology) -> TopologyFollower:
        """What follows the topology for this task."""
        return TopologyFollower(
            topology,
            self._inventory,
            tuple(self._pairs.values()),
            self._arming,
            adopt=self._adopt,
            outcome=self.outcome,
            tell=self._progress,
        )

    async def _arm(self) -> None:
        """Puts everything on; once more where ovn-controller took it off meanwhile.

        Raises:
            RefusedError: copies would not be bounded.
            CannotWorkError: something keeps taking our entries away.
        """
        for _ in range(ARM_TRIES):
            try:
                await self._arming.start()
            except RefusedError:
                await anyio.sleep(NOTICE_S)
                if not self._disturbed:
                    raise
            if not self._disturbed:
                return
            self._disturbed = set()
            await self._arming.start_over()
        raise CannotWorkError(
            "Our entries do not stay on the bridge",
            ", ".join(sorted(self._agents)),
            f"they were removed {ARM_TRIES} times while the task was put on",
            "See what restarts ovn-controller, and try again",
        )

    async def _collect(self, agent: AgentLink, group: anyio.abc.TaskGroup) -> None:
        stream = agent.events()
        async for event in stream:
            self._take(event, group)
            # What waits is taken at once: each turn of the loop costs more than an event.
            for _ in range(EVENTS_PER_TURN):
                try:
                    waiting = stream.receive_nowait()
                except anyio.WouldBlock:
                    break
                self._take(waiting, group)

    def _take(self, event: AgentEvent, group: anyio.abc.TaskGroup) -> None:
        self._stalls.take(event.chassis)
        if isinstance(event, LogRecord):
            self.outcome.records.append(event)
            now_s = time.monotonic()
            counted = self._pulses.take(event, now_s) if event.point == Point.FIRST_HOP else Counted.YES
            unsure = counted is Counted.UNSURE
            self._follow.add(event, now_s, counts=counted is not Counted.BEYOND, unsure=unsure)
            self._turns.take(event)
            if counted is not Counted.YES and self._pulses.must_rest(event.pair):
                group.start_soon(self._rest, event.pair)
            elif event.pair in self._pairs and self._has_enough(event.pair):
                self._stop_pair(event.pair, group)
        elif isinstance(event, NeighborSeen):
            self._neighbors.take(event)
        elif isinstance(event, ProbeSeen):
            self._on_probe(event, group)
        elif isinstance(event, DoubtSeen):
            self._on_doubt(event, group)
        elif isinstance(event, Disturbed):
            self._disturbances.append((event.chassis, time.time_ns()))
            if event.chassis not in self._disturbed:
                self._disturbed.add(event.chassis)
                if self.outcome.state is TaskState.READY:
                    return
                self.outcome.notes.append(f"{self._inventory.server(event.chassis)}: {event.reason}; armed again")
                group.start_soon(self._rearm, event.chassis)
        elif isinstance(event, AgentLost):
            self._asking.lost_agents.add(event.chassis)
            self.outcome.notes.append(f"{self._inventory.server(event.chassis)}: {event.reason}")
            self._arming.scopes.gone.add(event.chassis)
            group.start_soon(self._go_on_without, event.chassis)

    def _has_enough(self, pair: int) -> bool:
        return self._follow.has_enough(pair) and not self._pulses.is_suspected(pair)

    def _stop_pair(self, index: int, group: anyio.abc.TaskGroup) -> None:
        if index not in self._arming.stopped:
            self._arming.stopped.add(index)
            self._pulses.done(index)
            group.start_soon(self._arming.stop_pair, self._pairs[index])

    def _on_probe(self, event: ProbeSeen, group: anyio.abc.TaskGroup) -> None:
        """A packet of the pair with a DSCP that has no color yet gets one."""
        if event.dscp in self._arming.uses or event.dscp in self._missing_color:
            return
        if self._follow.has_enough(event.pair):
            return
        if self.outcome.state is TaskState.READY:
            self._early_dscps.add(event.dscp)
            return
        if self.outcome.state is not TaskState.COLORING:
            return
        self._missing_color.add(event.dscp)
        group.start_soon(self._add_color, event.dscp)

    async def _add_color(self, original_dscp: int) -> None:
        try:
            use = await self._arming.add_color(original_dscp)
            if use is None:
                return
            self._progress(f"packets carry DSCP {original_dscp} too: color {use.color:#04x} stands for it")
        except VTraceError as error:
            self.outcome.notes.append(f"packets with DSCP {original_dscp} were not colored: {error}")

    def _on_doubt(self, event: DoubtSeen, group: anyio.abc.TaskGroup) -> None:
        """Somebody else sends packets with our color: another is taken."""
        self.outcome.packets_in_doubt += 1
        for dscp, use in self._arming.uses.items():
            if (use.color, use.epoch) == (event.color, event.epoch) and use.color not in self._arming.withdrawn:
                self._arming.withdrawn.add(use.color)
                server = self._inventory.server(event.chassis)
                self._progress(f"a tenant on {server} sends DSCP {use.color} itself: that color is withdrawn")
                group.start_soon(self._replace_color, use.color, dscp)
                return

    async def _replace_color(self, color: int, dscp: int) -> None:
        try:
            await self._arming.replace_color(color)
        except VTraceError as error:
            self.outcome.notes.append(f"no other color for DSCP {dscp}: {error}")

    async def _rearm(self, chassis: str) -> None:
        try:
            await self._arming.rearm()
            self._disturbed.discard(chassis)
        except RefusedError:
            # Somebody else has what is ours: that ends the task.
            raise
        except VTraceError as error:
            self._asking.lost_agents.add(chassis)
            self.outcome.notes.append(f"{self._inventory.server(chassis)} could not be armed again: {error}")

    async def _go_on_without(self, chassis: str) -> None:
        """Takes the color off before packets get to a server whose Open vSwitch ended: anew it has no entries."""
        self._arming.scopes.given_up.add(chassis)
        try:
            # `ovs-ctl restart` puts its entries back: they color on.
            await self._arming.change(self._inventory, tuple(self._pairs.values()), leave_colors=True)
            self.outcome.notes.append(
                f"{self._inventory.server(chassis)} was left out from then on: packets to it, or to a gateway that it "
                "is a member of, are followed up to there"
            )
        except VTraceError as error:
            self.outcome.notes.append(f"{self._inventory.server(chassis)}: could not be left out: {error}")

    async def _adopt(self, moved: Moved) -> None:
        """Takes note of a changed topology; what counts by entries that are about to go is counted."""
        self._agents.update(moved.added)
        if (group := self._collecting) is not None:
            for agent in moved.added.values():
                group.start_soon(self._collect, agent, group)
        self._inventory = moved.inventory
        self._pairs = {p.index: p for p in moved.pairs}
        self._follow.change(moved.pairs, moved.inventory)
        self._asking.change(moved.pairs, moved.inventory)
        self._neighbors.change(moved.pairs, moved.inventory)
        if moved.arm:
            await self._replies.read()

    async def _until_enough(self, group: anyio.abc.TaskGroup) -> None:
        told_s = 0.0
        while True:
            await anyio.sleep(TICK_S)
            now_s = time.monotonic()
            self._asking.ask_overdue(group, now_s)
            self._asking.ask_arrived(group)
            self._asking.ask_requests(group, self._neighbors.unanswered())
            for index in self._pairs:
                # Also by what another pair's entry colored.
                if self._has_enough(index):
                    self._stop_pair(index, group)
            if (pair := self._pulses.overdue(now_s)) is not None:
                group.start_soon(self._rest, pair)
            if (pair := self._pulses.next(now_s)) is not None:
                group.start_soon(self._color_again, pair)
            if pairs := self._turns.next(now_s):
                group.start_soon(self._begin, pairs)
            if self._enough(now_s):
                return
            if now_s - told_s >= 1.0:
                told_s = now_s
                self._asking.ask_unseen_meanwhile(group)
                self._progress(self._status(now_s))

    async def _rest(self, pair: int) -> None:
        """Stops to color a pair that is too fast, for a moment."""
        self._pulses.learn(pair, [packet.records for packet in self._follow.of_pair(pair)])
        await self._arming.rest(pair)
        if not self._pulses.is_suspected(pair):
            return
        if await self._any_cut():
            self._pulses.confirm(pair)
            self._follow.set_aside(pair)
        else:
            self._pulses.clear(pair)
            await self._color_again(pair)

    async def _any_cut(self) -> bool:
        """Whether a meter of this task has cut any copy so far."""
        for agent in self._arming.scopes.live.values():
            with contextlib.suppress(VTraceError):
                cost = await agent.cost()
                if cost.first_copies_cut or cost.copies_cut:
                    return True
        return False

    async def _color_again(self, pair: int) -> None:
        try:
            await self._arming.color_again(pair)
        except VTraceError as error:
            self.outcome.notes.append(f"{self._pairs[pair].source.name} was not colored again: {error}")

    async def _begin(self, pairs: Collection[int]) -> None:
        """Colors pairs whose turn it is now."""
        try:
            await self._arming.begin(pairs)
        except VTraceError as error:
            self.outcome.notes.append(f"{len(pairs)} pairs were not colored: {error}")
        self._turns.start(time.monotonic())

    def _status(self, now_s: float) -> str:
        colored = sum(min(self._follow.own(i), self._spec.packets) for i in self._pairs)
        wanted = self._spec.packets * len(self._pairs)
        settled = sum(len(self._follow.settled(i, now_s)) for i in self._pairs)
        if not colored:
            asked = self._neighbors.seen
            more = f", {asked} ARP or ND requests seen" if asked else ""
            return f"waiting for packets of this traffic{more}"
        silent = sum(1 for index in self._pairs if not self._follow.own(index))
        more = f"; nothing yet of {silent} of {len(self._pairs)} pairs" if silent else ""
        return f"coloring {colored} of {wanted}, {settled} settled{more}"

    def _enough(self, now_s: float) -> bool:
        return all(self._ending.pair(index, now_s) for index in self._pairs)

    async def _finish(self, *, expired: bool) -> None:
        self.outcome.notes += await self._unseen.count(self._pairs, COUNTS_S)
        await self._arming.finish()
        self.outcome.state = TaskState.COLLECTING
        self.outcome.notes += self._top_notes()
        self._progress("collecting: waiting for the last packets")
        if self._stalls.longest_s > LOST_AFTER_S:
            await self._until_quiet()  # a packet whose last copy is still to be read is not lost
        deadline = time.monotonic() + DRAIN_S
        # Settling is a matter of time: no event tells it.
        while not self._follow.all_settled(time.monotonic()) and time.monotonic() < deadline:  # noqa: ASYNC110
            await anyio.sleep(TICK_S)
        if self.keeps_records:
            await self._until_quiet()
        with anyio.move_on_after(ASK_AGAIN_S) as asking:
            await self._asking.ask_again()
            await self._asking.ask_unseen()
        if asking.cancelled_caught:
            self.outcome.notes.append(
                f"the last questions were not all answered in {ASK_AGAIN_S:g} s: a cause may be missing"
            )
        try:
            with anyio.fail_after(COUNTS_S):
                await self._replies.finish(self._pairs)
        except (VTraceError, TimeoutError) as error:
            self.outcome.notes.append(f"replies could not be counted: {str(error) or NO_COUNTS}")
        enough = all(self._follow.has_enough(index) for index in self._pairs)
        self.outcome.state = TaskState.EXPIRED if expired and not enough else TaskState.DONE
        for index in self._pairs:
            self.outcome.beyond_n += max(0, self._follow.own(index) - self._spec.packets)
        self.outcome.beyond_n += self._pulses.beyond

    async def _until_quiet(self) -> None:
        """Waits for the records of packets beyond N, which are on their way too: they are kept with the others."""
        with anyio.move_on_after(DRAIN_S):
            seen = -1
            while seen != len(self.outcome.records):
                seen = len(self.outcome.records)
                await anyio.sleep(QUIET_S)

    def bridge_notes(self) -> list[str]:
        """What is beyond following on bridges without OVN."""
        return [
            f"{name}: {note}"
            for name, survey in self._arming.scopes.surveys.items()
            for note in (survey.plain.notes if survey.plain else ())
        ]

    def _top_notes(self) -> list[str]:
        return [
            f"{self._inventory.server(name)} has an entry of somebody else at our own priority: {text}"
            for name, survey in self._arming.scopes.surveys.items()
            for text in survey.entries_at_top
        ]

    async def _case(self) -> Case:
        async with anyio.create_task_group() as group:
            for name, agent in self._arming.scopes.live.items():
                group.start_soon(self._cost_of, name, agent)
        from vtrace.collect.blobs import encode
        from vtrace.model.record_schema import from_table, to_table
        from vtrace.reconstruct.whole import reconstruct

        if self.outcome.records:
            self.outcome.log_bytes = len(encode(to_table(self.outcome.records)))
        ends = goals(self._spec.task_id, self._pairs.values(), self._inventory)
        found = reconstruct(to_table(self._follow.records), ends)
        self.outcome.notes += [*self._asking.notes, *self._arming.notes, *self._replies.notes(self._pairs)]
        cut = {name: cost.copies_cut + cost.records_lost for name, cost in self.outcome.costs.items()}
        return Case(
            pairs=tuple(self._pairs.values()),
            inventory=self._inventory.with_ports(p for i in self._asking.inspections for p in i.others),
            reconstruction=found,
            records=tuple(from_table(found.records)),
            inspections=tuple(sorted(self._asking.inspections, key=lambda i: i.wall_ns)),
            covered=tuple(sorted(set(self._agents) - self._asking.lost_agents - self._arming.scopes.given_up)),
            silent_servers=self.silent_servers,
            bare=dict(self._arming.bare),
            copies_cut=cut,
            cut_of_counted=cuts_of_counted(cut, found) if self._pulses.beyond else None,
            neighbors=self._neighbors.watches(),
            tunnels=await check_now(self._inventory, self._arming.scopes.surveys, self._arming.scopes.live),
            replies=self._replies.all(self._pairs),
            packets_asked=self._spec.packets,
            disturbances=tuple(self._disturbances),
            changes=tuple(self.outcome.changes),
            entered=self._unseen.entered,
            taken=self._unseen.taken,
            for_others=dict(self._follow.for_others),
            not_begun=frozenset(self._arming.waiting),
            blinded=frozenset(self._blinded()),
            reply_asked=Direction.REPLY in self._spec.directions,
        )

    def _blinded(self) -> list[int]:
        """The pairs that had too few packets when the one server where they come in stopped to answer."""
        few = [pair for pair in self._pairs.values() if not self._follow.has_enough(pair.index)]
        return [pair.index for pair in few if self._arming.scopes.only_entrance(pair) & self._arming.scopes.given_up]

    @property
    def silent_servers(self) -> tuple[str, ...]:
        """The chassis whose Open vSwitch stopped to answer, or never did."""
        return tuple(sorted(self._arming.scopes.given_up))

    @property
    def may_color_on_s(self) -> int:
        """For how long after the task packets may get its color from a server that is out of reach.

        A saved entry that is put back has its whole time-out before it.
        """
        scopes = self._arming.scopes
        after_restart_s = self._arming.limits.match_s if scopes.gone else 0
        return max(COLORS_AFTER_HANG_S, after_restart_s) if scopes.given_up else 0

    async def _cost_of(self, name: str, agent: AgentLink) -> None:
        cost = AgentCost()
        try:
            with anyio.fail_after(COUNTS_S):
                cost = await agent.cost()
        except (VTraceError, TimeoutError) as error:
            self.outcome.notes.append(
                f"{self._inventory.server(name)}: its cost is not known: {str(error) or NO_COUNTS}"
            )
        self.outcome.costs[name] = cost
        # A copy of the first hop that the meter cut was of a packet that was colored all the same.
        self.outcome.beyond_n += cost.first_copies_cut
