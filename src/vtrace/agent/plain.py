"""The agent of one bridge without OVN."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from vtrace.agent.chassis import CLOSE_TIMEOUT_S, ChassisAgent
from vtrace.agent.survey import entries_at_top
from vtrace.collect.link import Disturbed, SiteQuestion, Survey
from vtrace.color.registry import Role
from vtrace.errors import VTraceError
from vtrace.model.inspection import SiteReport
from vtrace.model.openflow import BridgeLayout, OfPort, PacketIn
from vtrace.model.plain import PlainLayout, port_key
from vtrace.model.plan import LocalVif, PlannedEntry
from vtrace.model.record import LogRecord
from vtrace.ovs import bridge as ovs_bridge
from vtrace.ovs import plain_layout, unixctl
from vtrace.plain.topology import PlainBridge

# How often the bridge is looked at: its owner may change the entries that ours follow.
LOOK_EVERY_S = 0.5


class PlainAgent(ChassisAgent):
    """As `ChassisAgent`, on a bridge whose entries somebody wrote by hand."""

    def __init__(
        self, group: TaskGroup, rundir: str, bridge: str, region: str, secret: bytes, task_id: str, hold_s: int
    ) -> None:
        super().__init__(group, rundir, bridge, region, secret, task_id, hold_s)
        self._place: PlainBridge
        self._known: PlainLayout | None = None
        self._looking = anyio.Lock()

    @classmethod
    @asynccontextmanager
    async def at(cls, place: PlainBridge, secret: bytes, task_id: str, hold_s: int) -> AsyncIterator[PlainAgent]:
        """A running agent; removes all that is its own at the end, also when cancelled."""
        server = place.server
        async with anyio.create_task_group() as group:
            agent = cls(group, server.rundir, place.bridge, server.region, secret, task_id, hold_s)
            agent.chassis = agent._logger.chassis = place.chassis
            agent._place = place
            agent._inspector.named = place.names
            try:
                yield agent
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_TIMEOUT_S):
                    await agent.close()
                    # A look that is under way ends by itself: what it started is not left to nobody.
                    await agent._looking.acquire()
                group.cancel_scope.cancel()
                agent._send.close()
                agent._receive.close()

    async def survey(self) -> Survey:
        """Looks at the bridge.

        Raises:
            BridgeNotUnderstoodError, RefusedError: packets can't be followed through its entries.
        """
        facts = await ovs_bridge.read_bridge(self._rundir, self._bridge)
        plain = await self._discover()
        if self._known is None:
            self._group.start_soon(self._look)
        self._known = plain
        layout = BridgeLayout(guard=plain.guard)
        self._others.begin(layout.guard)
        await self._inspector.begin(facts, layout)
        numbers = {port.name: port.ofport for port in facts.ports}
        links = tuple(replace(link, ofport=numbers.get(link.name, OfPort(-1))) for link in self._place.links)
        ends = {link.name for link in links}
        return Survey(
            chassis=self.chassis,
            layout=layout,
            plain=plain,
            vifs=tuple(
                LocalVif(
                    ofport=port.ofport,
                    datapath=self._place.key,
                    key=port_key(port.ofport),
                    vlan=self._place.tags.get(port.name, 0),
                )
                for port in facts.ports
                if port.name not in ends and port.ofport > 0
            ),
            ports=facts.ports,
            tunnels=links,
            entries_at_top=entries_at_top(await self._ofctl.dump_entries(table=0)),
            hostname=facts.hostname,
            drops_fragments=await self._ofctl.drops_fragments(),
            changes_flows_in_place=facts.datapath_type == "netdev",
        )

    async def dscp_users(self) -> list[str]:
        """What on the bridge reads or writes the DSCP."""
        found = plain_layout.dscp_entries(await self._ofctl.dump_entries())
        return [f"{self.chassis}: {text}" for text in found]

    async def install(self, entries: Sequence[PlannedEntry]) -> None:
        """Adds entries, all or none."""
        await super().install(entries)
        for planned in entries:
            if planned.hook.role not in (Role.COLOR, Role.PROBE):
                # Here `ofport` is the port that packets leave by, not the one they came in by.
                self._logger.hooks[planned.entry.cookie, 0] = planned.hook

    async def renew(self) -> None:
        """After our entries were removed, or the bridge changed: puts meters and claims back."""
        await self._renew_claims()

    async def inspect(self, question: SiteQuestion) -> SiteReport:
        """Asks the slow path what becomes of a flow."""
        return replace(await super().inspect(question), chassis=self.chassis)

    def _dispatch(self, event: object) -> None:
        if not isinstance(event, PacketIn):
            super()._dispatch(event)
            return
        seen = self._logger.event(event, time.time_ns(), time.monotonic_ns())
        if isinstance(seen, LogRecord):
            # Registers are the operator's: they say nothing of ports.
            hook = self._logger.hooks.get((event.cookie, 0))
            seen = replace(seen, in_key=port_key(event.in_port), out_key=port_key(hook.ofport) if hook else 0)
        if seen is not None:
            self._offer(seen)

    async def _discover(self) -> PlainLayout:
        path = unixctl.ctl_path(self._rundir, "ovs-vswitchd")
        found = await plain_layout.discover_on(self._ofctl, path, self._bridge)
        # Of the MAC table only what the inventory file knows: in a large network it changes all the time.
        return replace(found, macs=tuple(row for row in found.macs if row.mac in self._place.macs))

    async def _look(self) -> None:
        """Tells when the entries or learned addresses that our entries stand for have changed."""
        while not self._closing:
            await anyio.sleep(LOOK_EVERY_S)
            try:
                async with self._looking:
                    found = await self._discover()
            except VTraceError as error:
                if not self._closing:
                    reason = f"its entries are no longer understood: {error}"
                    self._offer(Disturbed(chassis=self.chassis, reason=reason))
                return
            if self._closing:
                # It was looked at while our entries were removed, and nobody listens any more.
                return
            if self._known is not None and plain_layout.essence(found) != plain_layout.essence(self._known):
                self._known = found
                self._offer(Disturbed(chassis=self.chassis, reason="its entries, or the addresses it learned, changed"))
