"""The agent of one chassis, in this process."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import anyio.abc
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from msgspec.structs import replace

from vtrace.agent.claims import Claims, bridge_lock
from vtrace.agent.inspector import Inspector
from vtrace.agent.logger import RecordLogger
from vtrace.agent.mark_bits import fresh_bits
from vtrace.agent.other_runs import Counted, counted, hit, taken
from vtrace.agent.others import LOOK_EVERY_S, OthersWatch
from vtrace.agent.own import OwnEntries
from vtrace.agent.recent_colors import RecentColors
from vtrace.agent.run_mark import RunMark
from vtrace.agent.standing import standing
from vtrace.agent.survey import colors_used, entries_at_top, local_vifs
from vtrace.collect.link import (
    AgentCost,
    AgentEvent,
    AgentLost,
    ColorsBefore,
    Disturbed,
    FirstHits,
    SiteQuestion,
    Standing,
    Survey,
)
from vtrace.color import registry
from vtrace.color.refresh import refresh_entries
from vtrace.errors import BridgeNotUnderstoodError, CannotWorkError, VTraceError
from vtrace.model.inspection import SiteReport
from vtrace.model.openflow import FlowEntry, GuardBits, InstalledEntry, PacketIn, TunnelPort
from vtrace.model.plan import Claim, PlannedEntry
from vtrace.ovs import bridge as ovs_bridge
from vtrace.ovs import layout as ovs_layout
from vtrace.ovs import unixctl
from vtrace.ovs.channel import EntriesRemoved, OpenFlowChannel, OtherEntry
from vtrace.ovs.intake import lost_packet_ins
from vtrace.ovs.named_ids import NamedIds
from vtrace.ovs.ofctl import OfCtl
from vtrace.ovs.unixctl import ctl_path

# Events that wait for the analyzer; what comes on top is dropped and counted.
EVENT_BUFFER = 50_000
CLOSE_TIMEOUT_S = 15
# For one more try at a server that has not answered for long: the task must not wait for it.
HANGING_TIMEOUT_S = 1
RENEW_TIMEOUT_S = 8
# A cached flow that stays longer than this belongs to traffic that has ended.
DRAIN_TIMEOUT_S = 3
# A cached flow that still acts by entries that are gone is stale after this long.
STALE_S = 0.7
# Revalidators begin a round each half a second by themselves (ovs-vswitchd.conf.db(5), max-revalidator).
SETTLE_S = 1.0
SETTLE_TIMEOUT_S = 5
_TOUCHES = 20
_ROUND_S = 0.05
# What others may do to our entries, and how it is told.
_DISTURBING = {"delete": "deleted", "modified": "changed"}
# What dpctl(8) says of a port that is not there any more.
_PORT_GONE = "unknown port"
_COPY = re.compile(r"controller\([^()]*\),")


class ChassisAgent:
    """Works one bridge through its rundir's sockets; makes and breaks nothing that is not its own.

    Args:
        rundir: where `<bridge>.mgmt`, `db.sock` and ovs-vswitchd's control socket are.
        bridge: the integration bridge.
        region: availability zone, for the records.
        secret: the key of the task's packet keys, the same on all its agents.
        task_id: what first-hop records name.
        hold_s: for how long the claim stands at most.

    Attributes:
        hangs: set by whoever found that the server does not answer: closing then does not wait for it.
        restores_on_s: for so long what restores stays after closing: another server of the task may color on.
    """

    def __init__(
        self, group: TaskGroup, rundir: str, bridge: str, region: str, secret: bytes, task_id: str, hold_s: int
    ) -> None:
        self._group = group
        self._rundir = rundir
        self._bridge = bridge
        self._hold_s = hold_s
        self._ofctl = OfCtl(os.path.join(rundir, f"{bridge}.mgmt"))
        self._claims = Claims(self._ofctl)
        self._mark = RunMark(rundir, bridge)
        self._recent = RecentColors(rundir, bridge)
        self._own = OwnEntries()
        self._others = OthersWatch(self._ofctl, self._claims, self._own)
        self._named = NamedIds()
        self._inspector = Inspector(rundir, bridge, self._ofctl)
        self._logger = RecordLogger(region=region, task_id=task_id, secret=secret, incarnation=secrets.randbits(62))
        self._send: MemoryObjectSendStream[AgentEvent]
        self._send, self._receive = anyio.create_memory_object_stream[AgentEvent](EVENT_BUFFER)
        self._lock = AsyncExitStack()
        self._channel: OpenFlowChannel | None = None
        self._installed = 0
        self._dropped_before: int | None = None
        self._colors: set[int] = set()
        self._colored: set[tuple[int, int]] = set()
        self._colored_before: Counted = {}
        self._closing = False
        self._restoring: dict[int, FlowEntry] = {}
        self._guard: GuardBits | None = None
        self._mark_bits = 0
        self.hangs = False
        self.restores_on_s = 0
        self.chassis = ""

    @classmethod
    @asynccontextmanager
    async def running(
        cls, rundir: str, bridge: str, region: str, secret: bytes, task_id: str, hold_s: int
    ) -> AsyncIterator[ChassisAgent]:
        """A running agent; removes all that is its own at the end, also when cancelled."""
        facts = await ovs_bridge.read_bridge(rundir, bridge)
        async with anyio.create_task_group() as group:
            agent = cls(group, rundir, bridge, region, secret, task_id, hold_s)
            agent.chassis = facts.system_id
            agent._logger.chassis = facts.system_id
            try:
                yield agent
            finally:
                with (
                    anyio.CancelScope(shield=True),
                    anyio.move_on_after(HANGING_TIMEOUT_S if agent.hangs else CLOSE_TIMEOUT_S),
                    # What can't be removed was told by whoever closed it first, and times out.
                    contextlib.suppress(VTraceError),
                ):
                    await agent.close()
                group.cancel_scope.cancel()

    async def lock(self) -> None:
        """Locks the bridge against other runs' claims. Always in the order of chassis names."""
        await self._lock.enter_async_context(bridge_lock(self._rundir, self._bridge))

    async def survey(self) -> Survey:
        """Looks at the bridge.

        Raises:
            BridgeNotUnderstoodError: its layout is not one we are sure of.
        """
        facts = await ovs_bridge.read_bridge(self._rundir, self._bridge)
        table_0 = await self._ofctl.dump_entries(table=0)
        self._named = NamedIds()
        layout = await ovs_layout.discover_on(self._ofctl, facts, self._named)
        self._others.begin(layout.guard)
        # A kernel's datapath changes a flow by its own name.
        self._guard = layout.guard if facts.datapath_type == "netdev" else None
        hooked = [table_0]
        for table in (layout.remote_output, layout.log_to_physical):
            hooked.append(await self._ofctl.dump_entries(table=table))
        await self._inspector.begin(facts, layout)
        return Survey(
            chassis=facts.system_id,
            layout=layout,
            vifs=local_vifs(table_0),
            ports=facts.ports,
            tunnels=facts.tunnels,
            entries_at_top=tuple(text for entries in hooked for text in entries_at_top(entries)),
            hostname=facts.hostname,
            drops_fragments=await self._ofctl.drops_fragments(),
            changes_flows_in_place=facts.datapath_type == "netdev",
        )

    async def colors_used(self) -> tuple[int, ...]:
        """The colors that entries of ours, of any run, hold on the bridge."""
        return colors_used(
            await self._ofctl.dump_entries(cookie=(registry.COOKIE_MAGIC << 48, registry.COOKIE_MAGIC_MASK))
        )

    async def colors_before(self) -> ColorsBefore:
        """What is known of colors that no entry holds now."""
        return ColorsBefore(ages_s=self._recent.ages_s(), cached_s=await self._inspector.cached_dscps())

    async def claim(self, color: int) -> Claim:
        """Claims a color, and with the first one generation, controller id and meters; unlocks the bridge."""
        try:
            claim = self._claims.claim
            if claim is None:
                ours = await self._ofctl.dump_entries(cookie=(registry.COOKIE_MAGIC << 48, registry.COOKIE_MAGIC_MASK))
                await self._stop_dead_runs(ours)
                claim = await self._claims.make(ours, self._named)
                self._mark.hold(claim.generation)
                self._colored_before = counted(ours)
            await self._hold(color)
            self._colors.add(color)
            self._recent.note([color])
        finally:
            await self._lock.aclose()
            self._lock = AsyncExitStack()
        if self._channel is None:
            self._dropped_before = await self._dropped()
            await self._group.start(self._read, claim)
        return claim

    async def _stop_dead_runs(self, ours: Sequence[InstalledEntry]) -> None:
        """Ends the coloring of runs that were killed: packets have one color, and theirs nobody waits for any more.

        What takes their colors off stays until its time is over.
        """
        for generation in self._mark.dead(ours):
            for role in (registry.Role.COLOR, registry.Role.PROBE, registry.Role.NEIGHBOR):
                await self._ofctl.delete_entries(registry.cookie(role, generation), registry.ROLE_MASK)

    async def _hold(self, color: int) -> None:
        with self._own.adding([self._claims.shown(color, self._hold_s)]):
            await self._claims.hold(color, self._hold_s)

    async def _dropped(self) -> int | None:
        """Copies that Open vSwitch could not hand on so far, where it says so."""
        try:
            return await lost_packet_ins(ctl_path(self._rundir))
        except VTraceError:
            return None

    async def abandon_claim(self) -> None:
        """Unlocks the bridge without a claim."""
        await self._lock.aclose()
        self._lock = AsyncExitStack()

    def events(self) -> MemoryObjectReceiveStream[AgentEvent]:
        """Records and other events, in the order in which the bridge sent them."""
        return self._receive

    async def install(self, entries: Sequence[PlannedEntry]) -> None:
        """Adds entries, all or none."""
        for planned in entries:
            self._logger.hooks[planned.entry.cookie, planned.hook.ofport] = planned.hook
            if planned.hook.role == registry.Role.COLOR:
                self._colored.add((planned.hook.ofport, planned.hook.color))
            elif planned.hook.role == registry.Role.RESTORE:
                self._restoring[planned.entry.cookie] = planned.entry
        added = [planned.entry for planned in entries]
        with self._own.adding(added):
            await self._ofctl.add_entries(added)
        self._installed += len(entries)

    async def renew(self) -> None:
        """After somebody removed our entries and meters: waits until the bridge is whole, puts the meters back.

        Raises:
            BridgeNotUnderstoodError: its entries did not come back in time.
            RefusedError: somebody else uses this run's cookies.
        """
        facts = await ovs_bridge.read_bridge(self._rundir, self._bridge)
        deadline = time.monotonic() + RENEW_TIMEOUT_S
        while True:
            try:
                await ovs_layout.discover_on(self._ofctl, facts)
                break
            except BridgeNotUnderstoodError:
                if time.monotonic() > deadline:
                    raise
                await anyio.sleep(0.1)
        await self._renew_claims()

    async def _renew_claims(self) -> None:
        if self._others.fatal is not None:
            raise self._others.fatal
        if self._claims.lost_meters:
            async with bridge_lock(self._rundir, self._bridge):
                await self._claims.renew_meters()
        else:
            await self._claims.renew_meters()
        for color in sorted(self._colors):
            await self._hold(color)

    async def is_metered(self, flow: str) -> bool:
        """Whether the copies that a flow makes go through a meter, by a trace."""
        return await self._inspector.is_metered(flow)

    async def remove(self, role: int, *, color: int | None = None, index: int | None = None) -> None:
        """Removes our entries of a role, all or those of one color and index."""
        if self._claims.claim is None:
            return
        value = registry.cookie(registry.Role(role), self._claims.claim.generation, color=color or 0, index=index or 0)
        mask = registry.ROLE_MASK
        if color is not None:
            mask = registry.COLOR_MASK
        if index is not None:
            mask |= (1 << registry.INDEX_BITS) - 1
        await self._delete(value, mask)

    async def _delete(self, value: int, mask: int) -> None:
        with self._own.removing(value, mask) as gone:
            if self._others.fatal is not None:
                await self._ofctl.delete_exactly(gone)
                return
            if self._channel is not None:
                # Where the connection broke the bridge may be there all the same.
                with contextlib.suppress(CannotWorkError):
                    await self._channel.delete_by_cookie(value, mask)
                    return
            await self._ofctl.delete_entries(value, mask)

    async def drain(self) -> None:
        """Waits until the datapath has forgotten the entries removed so far: until then it acts by them."""
        with anyio.move_on_after(DRAIN_TIMEOUT_S):
            for ofport, color in sorted(self._colored):
                try:
                    with anyio.move_on_after(STALE_S):
                        await self._inspector.wait_until_uncolored(ofport, color)
                        continue
                    # It was changed in place, and another flow got its actions: it would color on.
                    await self._forget(ofport)
                    await self._inspector.wait_until_uncolored(ofport, color)
                except VTraceError as error:
                    if _PORT_GONE not in str(error):
                        raise
                    # Its VM moved away, and the cached flows with it.
                    self._colored.discard((ofport, color))

    async def _forget(self, ofport: int) -> None:
        """Has the datapath look up anew what comes in by a port."""
        if self._guard is None or self._claims.claim is None:
            return
        self._mark_bits = fresh_bits(self._mark_bits)
        entries = refresh_entries(ofport, self._guard, self._claims.claim, self._mark_bits, self._hold_s)
        with self._own.adding(entries):
            await self._ofctl.add_entries(entries)

    async def settle(self) -> None:
        """Waits until the datapath acts by all entries put in so far.

        A cached flow that is too wide for them acts on until a revalidator has looked at it. A round of theirs that
        was under way may have looked before, so two are waited for. One begins when an entry changes: ours is put in
        again.
        """
        path = ctl_path(self._rundir, "ovs-vswitchd")
        try:
            for _ in range(2):
                over = anyio.Event()
                async with anyio.create_task_group() as group:
                    group.start_soon(self._round, path, over)
                    # The round that a change begins may be over before it is waited for: then it is changed again.
                    touches = 0
                    while not over.is_set() and touches < _TOUCHES:
                        await self._hold(min(self._colors))
                        touches += 1
                        with anyio.move_on_after(_ROUND_S):
                            await over.wait()
        except* unixctl.UnixctlError:
            # It can't tell of rounds where it has datapaths of two types.
            await anyio.sleep(SETTLE_S)

    @staticmethod
    async def _round(path: str, over: anyio.Event) -> None:
        """Until a round of the revalidators ends (ovs-vswitchd(8))."""
        await unixctl.call(path, "revalidator/wait", timeout_s=SETTLE_TIMEOUT_S)
        over.set()

    async def counts(self, role: int) -> dict[int, int]:
        """Packets counted by our entries of a role, by their index. May lag by about a second."""
        if self._claims.claim is None:
            return {}
        value = registry.cookie(registry.Role(role), self._claims.claim.generation)
        entries = await self._ofctl.dump_entries(cookie=(value, registry.ROLE_MASK))
        found: dict[int, int] = defaultdict(int)
        for entry in entries:
            found[registry.index_of(entry.cookie)] += entry.n_packets
        return found

    async def first_hits(self) -> FirstHits:
        """What coloring entries counted where packets come in."""
        if self._claims.claim is None:
            return FirstHits()
        ours = await self._ofctl.dump_entries(cookie=(registry.COOKIE_MAGIC << 48, registry.COOKIE_MAGIC_MASK))
        generation = self._claims.claim.generation
        return FirstHits(own=hit(ours, generation), taken=taken(ours, generation, self._colored_before))

    async def inspect(self, question: SiteQuestion) -> SiteReport:
        """Asks the slow path what becomes of a flow."""
        return await self._inspector.inspect(question)

    async def tunnels(self) -> tuple[TunnelPort, ...]:
        """The bridge's tunnel ports as they are now."""
        return (await ovs_bridge.read_bridge(self._rundir, self._bridge)).tunnels

    async def standing(self, datapaths: Sequence[int], ct_zone: int = 0) -> Standing:
        """The entries that stand for logical datapaths, how ovn-controller is, and how full a conntrack zone."""
        return await standing(self._ofctl, self._rundir, datapaths, ct_zone)

    async def cached_packets(self, question: SiteQuestion) -> int:
        """Packets that the datapath's cache counts of what a question without headers is about."""
        return await self._inspector.cached_packets(question)

    async def cost(self) -> AgentCost:
        """What the run cost here so far."""
        first, copies = await self._claims.cut()
        unread = self._logger.lost + (self._channel.packet_ins_dropped if self._channel else 0)
        dropped = await self._dropped()
        if dropped is not None and self._dropped_before is not None:
            unread += max(0, dropped - self._dropped_before)
        return AgentCost(
            entries_installed=self._installed,
            first_copies_cut=first,
            copies_cut=copies,
            records=self._logger.written,
            records_lost=unread,
            streams=self._logger.streams(),
        )

    async def close(self) -> AgentCost:
        """Removes all that is ours, coloring entries first; safe to call in any state."""
        self._closing = True
        await self._lock.aclose()
        claim = self._claims.claim
        if claim is None:
            return AgentCost()
        generation = registry.cookie(registry.Role.COLOR, claim.generation) & registry.GENERATION_MASK
        await self.remove(registry.Role.COLOR)
        await self.drain()
        self._recent.note(self._colors)
        for role in (registry.Role.PROBE, registry.Role.NEIGHBOR, registry.Role.MATCH):
            await self.remove(role)
        restoring = await self._restore_on() if self.restores_on_s else 0
        if restoring:
            for role in set(registry.Role) - {registry.Role.RESTORE}:
                await self.remove(role)
        else:
            await self._delete(generation, registry.GENERATION_MASK)
        left = await self._ofctl.dump_entries(cookie=(generation, registry.GENERATION_MASK))
        if self._others.fatal is not None:
            left = tuple(e for e in left if self._others.is_left(e))
        if len(left) <= restoring:
            await self._claims.release()
            self._mark.drop()
        return AgentCost(entries_installed=self._installed, entries_left=len(left))

    async def _restore_on(self) -> int:
        """Makes the entries that restore, where they still stand, do only that, for a while; how many they are.

        They make no copies any more: nobody would read them, and their meters go.
        """
        value = registry.cookie(registry.Role.RESTORE, self._claims.claim.generation) if self._claims.claim else 0
        there = {e.cookie for e in await self._ofctl.dump_entries(cookie=(value, registry.ROLE_MASK))}
        kept = [
            replace(entry, actions=_COPY.sub("", entry.actions), hard_timeout_s=self.restores_on_s)
            for cookie, entry in self._restoring.items()
            if cookie in there
        ]
        # They take the place of those that stand, time-outs too (OpenFlow 1.3.5, section 6.4, OFPFC_ADD).
        with self._own.adding(kept):
            await self._ofctl.add_entries(kept)
        return len(kept)

    async def _read(self, claim: Claim, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Reads the OpenFlow channel until the agent closes."""
        watched = registry.cookie(registry.Role.COLOR, claim.generation) & registry.GENERATION_MASK
        async with OpenFlowChannel.open(self._ofctl.mgmt_path, claim.controller_id) as channel:
            self._channel = channel
            await channel.watch(watched, registry.GENERATION_MASK)
            await channel.watch_others(self._others.register)
            task_status.started()
            async with anyio.create_task_group() as group:
                group.start_soon(self._look_at_others, channel)
                try:
                    async for batch in channel.batches():
                        for event in batch:
                            self._dispatch(event)
                except VTraceError as error:
                    if not self._closing:
                        self._offer(AgentLost(chassis=self.chassis, reason=str(error)))
                finally:
                    self._channel = None
                group.cancel_scope.cancel()

    async def _look_at_others(self, channel: OpenFlowChannel) -> None:
        """Tells when somebody took what this run has claimed."""
        while not self._closing:
            with anyio.move_on_after(LOOK_EVERY_S):
                await self._others.wake.wait()
            # A bridge that can't be asked now is noticed by whoever needs it.
            with contextlib.suppress(VTraceError):
                reason = await self._others.look(channel)
                if reason and not self._closing:
                    self._offer(Disturbed(chassis=self.chassis, reason=reason))

    def _dispatch(self, event: object) -> None:
        if isinstance(event, PacketIn):
            seen = self._logger.event(event, time.time_ns(), time.monotonic_ns())
            if seen is not None:
                self._offer(seen)
        elif isinstance(event, EntriesRemoved) and event.reason in _DISTURBING and not self._closing:
            how = _DISTURBING[event.reason]
            self._offer(Disturbed(chassis=self.chassis, reason=f"{len(event.cookies)} of our entries were {how}"))
        elif isinstance(event, OtherEntry):
            self._others.take(event)

    def _offer(self, event: AgentEvent) -> None:
        try:
            self._send.send_nowait(event)
        except anyio.WouldBlock:
            self._logger.lost += 1


def rundir_or_fail(rundir: str) -> str:
    """The rundir, if Open vSwitch's sockets can be there.

    Raises:
        CannotWorkError: it is no directory.
    """
    if not os.path.isdir(rundir):
        raise CannotWorkError(
            "There is no Open vSwitch here",
            rundir,
            "the run directory does not exist",
            "Start Open vSwitch, give --rundir, or bring a lab up with `vtrace lab up`",
        )
    return rundir
