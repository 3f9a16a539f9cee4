"""Asks the slow path what becomes of a flow: tables, cookies, the entry that ended it, meters, ports.

Traces and dumps run in ovs-vswitchd's main thread, so they are made one at a time and not more often than
`MIN_INTERVAL_S` a bridge.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Mapping

import anyio

from vtrace.agent.cached import Wanted, colors, dscps_matched, is_neighbor_discovery, likely_passes
from vtrace.agent.counters import DATAPATH, READ_EVERY_S, Counters, kind_of
from vtrace.agent.ways import Ways, tunnel_bytes
from vtrace.collect.link import NothingCachedError, SiteQuestion
from vtrace.color import registry
from vtrace.errors import VTraceError
from vtrace.model.inspection import PortReading, SiteReport
from vtrace.model.openflow import BridgeLayout, BridgePort, DatapathFlow, Trace
from vtrace.ovs import datapath, unixctl
from vtrace.ovs import trace as ovs_trace
from vtrace.ovs.bridge import BridgeFacts
from vtrace.ovs.ofctl import OfCtl

MIN_INTERVAL_S = 0.02
# A dump is made by ovs-vswitchd's main thread, and takes longer the more flows there are.
MAX_DUMPED_FLOWS = 5000
DUMP_TIMEOUT_S = 0.5
_TUNNEL_PORTS = {"geneve": "genev_sys_6081", "vxlan": "vxlan_sys_4789", "stt": "stt_sys_7471"}


class Inspector:
    """The slow path of one bridge."""

    def __init__(self, rundir: str, bridge: str, ofctl: OfCtl) -> None:
        self._rundir = rundir
        self._bridge = bridge
        self._ofctl = ofctl
        self._facts: BridgeFacts | None = None
        self._layout: BridgeLayout | None = None
        self._turn = anyio.Lock()
        self._passes: dict[int, tuple[float, list[DatapathFlow]]] = {}
        self._counters = Counters(rundir, bridge, ofctl)
        self._ways = Ways()
        # The logical ports of interfaces, where these do not say it themselves.
        self.named: Mapping[str, str] = {}

    async def begin(self, facts: BridgeFacts, layout: BridgeLayout) -> None:
        """Notes the counters at the beginning of a task, so that inspections tell what was dropped since."""
        await self._counters.begin(facts)
        self._facts = facts
        self._layout = layout

    async def is_metered(self, flow: str) -> bool:
        """Whether all copies that a flow makes go through a meter.

        There may be none: an entry of somebody else at our own priority can keep packets from ours.
        """
        path = unixctl.ctl_path(self._rundir, "ovs-vswitchd")
        found = await ovs_trace.trace(path, self._bridge, flow)
        copies = [text for text in found.datapath_actions if "userspace(" in text]
        return all("meter(" in text for text in copies)

    async def wait_until_uncolored(self, ofport: int, color: int) -> None:
        """Waits until no cached flow of a port gives packets the color: entries act on until their flows are gone."""
        path = unixctl.ctl_path(self._rundir, "ovs-vswitchd")
        # No event tells when the revalidators are done, and "revalidator/wait" takes a second longer than they do.
        while any(colors(flow, color << 2) for flow in await self._cached(path, ofport, Wanted())):  # noqa: ASYNC110
            await anyio.sleep(MIN_INTERVAL_S)

    async def cached_dscps(self) -> dict[int, float]:
        """The DSCPs that cached flows of a userspace datapath match, and how many seconds ago a packet had one.

        Such a flow may act on by what it was made for (docs/adr/0019). A kernel's datapath has none that do. None where
        there are too many flows to ask, or no answer comes soon: it is a precaution, nothing waits for it.
        """
        if self._facts is None or kind_of(self._facts) != "netdev":
            return {}
        path = unixctl.ctl_path(self._rundir, "ovs-vswitchd")
        with anyio.move_on_after(DUMP_TIMEOUT_S), contextlib.suppress(VTraceError):
            if datapath.flow_count(await unixctl.call(path, "dpctl/show", DATAPATH)) <= MAX_DUMPED_FLOWS:
                return dscps_matched(await unixctl.call(path, "dpctl/dump-flows", DATAPATH))
        return {}

    async def inspect(self, question: SiteQuestion) -> SiteReport:
        """Traces the flow as the tenant sends it, with the conntrack states that colored packets of it had.

        Raises:
            VTraceError: the slow path could not be asked.
        """
        async with self._turn:
            path = unixctl.ctl_path(self._rundir, "ovs-vswitchd")
            flows = await self._chain(path, question)
            translated = len(flows) > 1 and any(datapath.translates(flow) for flow in flows)
            states = [state for flow in flows if (state := _ct_next(flow))]
            if question.headers and translated:
                # A trace does not do what NAT does: each pass is traced from the flow that it really hit.
                flow = flows[0].key
                found = await ovs_trace.trace_passes(path, DATAPATH, [f.key for f in flows])
            elif question.headers:
                # With the guard bits at their last stage none of our entries of table 0 takes the packet.
                flow = f"{question.entry},{question.headers}"
                guard = self._layout.guard if self._layout else None
                traced = f"{flow},reg{guard.register}=0x{3 << guard.lsb:x}" if guard else flow
                found = await ovs_trace.trace(path, self._bridge, traced, states)
            else:
                flow, found = await self._trace_cached(path, question)
            if not translated and question.headers and ovs_trace.NO_BUCKET in found.errors:
                # A trace has no hash to choose a load balancer's backend by: only cached flows know.
                raise NothingCachedError("The datapath caches no flow past the load balancer", path)
            outcome, outputs = self._outcome(found)
            await self._counters.read()
            exits = await self._ways.out(path, kind_of(self._facts), found)
            entrances = await self._into(path, question)
            report = SiteReport(
                chassis=self._facts.system_id if self._facts else "",
                bridge=self._bridge,
                pair=question.pair,
                direction=question.direction,
                wall_ns=time.time_ns(),
                mono_ns=time.monotonic_ns(),
                entry=question.entry,
                flow=flow,
                flow_id=question.flow_id,
                ct_next=tuple(states) if question.headers and not translated else (),
                uncolored=not question.headers,
                trace=found,
                outcome=outcome,
                outputs=outputs,
                real_drop=datapath.ends_in_drop(flows[-1]) if flows else None,
                meters=self._counters.meters(),
                ports=self._readings(self._known()),
                exits=self._readings(self._counters.named(exits)),
                entrances=self._readings(self._counters.named(entrances)),
                overhead_bytes=tunnel_bytes(found),
                refused_fragments=await self._counters.refused_fragments(path, flow),
                lost_upcalls=await self._counters.lost_upcalls(path) if question.lost else 0,
            )
            await anyio.sleep(MIN_INTERVAL_S)
        return report

    async def _trace_cached(self, path: str, question: SiteQuestion) -> tuple[str, Trace]:
        """Traces the busiest cached flow that drops what comes in by a port for the question's addresses.

        Raises:
            NothingCachedError: the datapath caches none.
        """
        wanted = Wanted.of(question)
        flows = [f for f in await self._recent(path, question.in_ofport) if wanted.may_be(f)]
        flows = [f for f in flows if datapath.ends_in_drop(f) and self._is_of_the_task(f)]
        if not flows:
            raise NothingCachedError("The datapath caches no flow of this traffic that it drops", path)
        busiest = max(flows, key=lambda f: f.packets)
        return busiest.key, await ovs_trace.trace_datapath(path, DATAPATH, busiest.key)

    async def cached_packets(self, question: SiteQuestion) -> int:
        """Packets of the cached flows that a question without headers is about."""
        async with self._turn:
            path = unixctl.ctl_path(self._rundir, "ovs-vswitchd")
            cached = await self._cached(path, question.in_ofport, Wanted.of(question))
            cached = [flow for flow in cached if _is_ip(flow) and not is_neighbor_discovery(flow)]
            return sum(flow.packets for flow in cached if self._is_of_the_task(flow))

    def _is_of_the_task(self, flow: DatapathFlow) -> bool:
        """Whether packets hit a cached flow since the task began: one of before says nothing of the task's."""
        return flow.unused_s is None or flow.unused_s <= time.monotonic() - self._counters.began_s

    async def _cached(self, path: str, ofport: int, wanted: Wanted) -> list[DatapathFlow]:
        """The cached first passes of what comes in by a port and may be wanted."""
        return [flow for flow in await self._dump(path, ofport) if flow.recirc_id == 0 and wanted.may_be(flow)]

    async def _recent(self, path: str, ofport: int) -> list[DatapathFlow]:
        """The cached first passes of what comes in by a port, read anew when the last reading is old.

        The silent pairs of one source ask for the same, one after the other.
        """
        read_s, flows = self._passes.get(ofport, (-math.inf, []))
        if time.monotonic() - read_s > READ_EVERY_S:
            flows = await self._cached(path, ofport, Wanted())
            self._passes[ofport] = (time.monotonic(), flows)
        return flows

    async def _dump(self, path: str, ofport: int) -> list[DatapathFlow]:
        """The cached flows of what comes in by an OpenFlow port."""
        found: list[DatapathFlow] = []
        for name in self._datapath_ports(ofport):
            found += await datapath.dump_flows(path, in_port=name)
        return found

    def _datapath_ports(self, ofport: int) -> tuple[str, ...]:
        """What the datapath calls the port; all tunnels of one kind share one port there, and it knows no patches."""
        port = next((p for p in self._facts.ports if p.ofport == ofport), None) if self._facts else None
        if port is None:
            return ("",)
        return port.behind if port.kind == "patch" else (_TUNNEL_PORTS.get(port.kind, port.name),)

    async def _chain(self, path: str, question: SiteQuestion) -> list[DatapathFlow]:
        """The datapath flows that colored packets of the question hit, pass by pass.

        A color's flows have recirculation ids of their own, since the guard bits are part of the frozen state.
        """
        if question.color is None:
            return []
        try:
            flows = await self._dump(path, question.in_ofport)
        except VTraceError:
            return []
        return likely_passes(flows, question, question.color)

    def _outcome(self, found: Trace) -> tuple[str, tuple[str, ...]]:
        """How the trace ends, and the ports it would be output to.

        Ports and their kinds are read from the steps, since datapath port numbers are others.
        """
        outputs = tuple(dict.fromkeys(_outputs(found, self._bridge)))
        final = found.datapath_actions[-1] if found.datapath_actions else ""
        final = datapath.without_copies(final, f"0x{registry.COOKIE_MAGIC:x}")
        tunnels = {str(t.ofport) for t in self._facts.tunnels} if self._facts else set()
        gone = [text for text in found.datapath_actions if _goes_out(text)]
        if gone and not found.errors:
            used_tunnel = any("tnl_push" in text or "set(tunnel" in text for text in gone)
            return ("tunnel" if used_tunnel or set(outputs) & tunnels else "output"), outputs
        if "controller(" in final or "userspace(" in final:
            return "controller", outputs
        return "drop", outputs

    async def _into(self, path: str, question: SiteQuestion) -> tuple[str, ...]:
        return await self._ways.into(path, kind_of(self._facts), question.entry) if question.lost else ()

    def _readings(self, ports: Iterable[BridgePort]) -> tuple[PortReading, ...]:
        return tuple(self._counters.reading(port, port.iface_id or self.named.get(port.name, "")) for port in ports)

    def _known(self) -> list[BridgePort]:
        """The bridge's ports that lead to logical ports or other bridges."""
        ports = self._counters.ports()
        return [p for p in ports if p.iface_id or p.name in self.named or p.kind == "patch"]


def _outputs(found: Trace, bridge: str) -> Iterable[str]:
    """The bridge's own ports; numbers of another bridge's mean other ports."""
    for step in found.steps:
        for action in step.actions if step.bridge in ("", bridge) else ():
            word, _, port = action.partition(":")
            if word == "output" and port.isdecimal():
                yield port


def _ct_next(flow: DatapathFlow) -> str:
    """The conntrack state a pass was entered with, as `--ct-next` wants it; empty for the first pass."""
    if flow.recirc_id == 0 or "trk" not in flow.ct_state:
        return ""
    return ",".join(flow.ct_state)


def _is_ip(flow: DatapathFlow) -> bool:
    """Whether it is for IP: whoever answers ARP need not answer more."""
    return "ipv4(" in flow.key or "ipv6(" in flow.key


def _goes_out(actions: str) -> bool:
    """Whether the final datapath actions of a trace hand the packet to a port or tunnel."""
    flow = DatapathFlow(
        ufid="", key="", actions=actions, packets=0, recirc_id=0, in_port="", tos=0, tos_mask=0, ct_state=()
    )
    return bool(datapath.outputs(flow))
