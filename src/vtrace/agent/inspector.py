"""Asks the slow path what becomes of a flow: tables, cookies, the entry that ended it, meters, ports.

Traces and dumps run in ovs-vswitchd's main thread, so they are made one at a time and not more often than
`MIN_INTERVAL_S` a bridge.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence

import anyio

from vtrace.agent.cached import Wanted, colors, is_neighbor_discovery, likely_passes
from vtrace.agent.ways import Ways, tunnel_bytes
from vtrace.collect.link import NothingCachedError, SiteQuestion
from vtrace.color import registry
from vtrace.errors import VTraceError
from vtrace.model.inspection import MeterReading, PortReading, RefusedFragments, SiteReport
from vtrace.model.openflow import BridgeLayout, BridgePort, DatapathFlow, Trace
from vtrace.ovs import bridge as ovs_bridge
from vtrace.ovs import datapath, unixctl
from vtrace.ovs import trace as ovs_trace
from vtrace.ovs.bridge import BridgeFacts
from vtrace.ovs.ipf import fragment_counters
from vtrace.ovs.ofctl import OfCtl
from vtrace.ovs.queues import DeviceQueue, device_queues

MIN_INTERVAL_S = 0.02
READ_EVERY_S = 0.3
_TUNNEL_PORTS = {"geneve": "genev_sys_6081", "vxlan": "vxlan_sys_4789", "stt": "stt_sys_7471"}
# The userspace datapath's name is always this (ovs-vswitchd(8)).
DATAPATH = "netdev@ovs-netdev"


class Inspector:
    """The slow path of one bridge."""

    def __init__(self, rundir: str, bridge: str, ofctl: OfCtl) -> None:
        self._rundir = rundir
        self._bridge = bridge
        self._ofctl = ofctl
        self._facts: BridgeFacts | None = None
        self._layout: BridgeLayout | None = None
        self._meters_before: dict[int, int] = {}
        self._ports_before: dict[str, BridgePort] = {}
        self._turn = anyio.Lock()
        self._passes: dict[int, tuple[float, list[DatapathFlow]]] = {}
        self._read: tuple[tuple[MeterReading, ...], BridgeFacts] | None = None
        self._queues: dict[str, DeviceQueue] = {}
        self._queues_before: dict[str, DeviceQueue] = {}
        self._counted: dict[str, dict[str, int]] = {}
        self._counted_before: dict[str, dict[str, int]] = {}
        self._read_s = 0.0
        self._began_s = 0.0
        self._ways = Ways()
        self._fragments_before: dict[str, dict[str, int]] = {}
        # The logical ports of interfaces, where these do not say it themselves.
        self.named: Mapping[str, str] = {}

    async def begin(self, facts: BridgeFacts, layout: BridgeLayout) -> None:
        """Notes the counters at the beginning of a task, so that inspections tell what was dropped since."""
        if self._facts is None:
            self._began_s = time.monotonic()
            self._meters_before = {m.meter_id: m.band_packets for m in await self._ofctl.meters()}
            path = unixctl.ctl_path(self._rundir, "ovs-vswitchd")
            self._fragments_before, _ = await fragment_counters(path)
            self._queues_before = await device_queues(self._rundir)
            self._counted_before = await self._ofctl.port_counters()
            self._ports_before = {p.name: p for p in (*facts.ports, *facts.others)}
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
                found = ovs_trace.joined([await ovs_trace.trace_datapath(path, DATAPATH, f.key) for f in flows])
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
            meters, now = await self._readings()
            exits = self._named_readings(now, await self._ways.out(path, self._kind(), found))
            entrances = self._named_readings(now, await self._into(path, question))
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
                meters=meters,
                ports=self._port_readings(now),
                exits=exits,
                entrances=entrances,
                overhead_bytes=tunnel_bytes(found),
                refused_fragments=await self._refused_fragments(path, flow),
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
        since_s = time.monotonic() - self._began_s
        # What was cached for packets of before says nothing of the task's.
        flows = [f for f in flows if datapath.ends_in_drop(f) and (f.unused_s is None or f.unused_s <= since_s)]
        if not flows:
            raise NothingCachedError("The datapath caches no flow of this traffic that it drops", path)
        busiest = max(flows, key=lambda f: f.packets)
        return busiest.key, await ovs_trace.trace_datapath(path, DATAPATH, busiest.key)

    async def cached_packets(self, question: SiteQuestion) -> int:
        """Packets of the cached flows that a question without headers is about."""
        async with self._turn:
            path = unixctl.ctl_path(self._rundir, "ovs-vswitchd")
            cached = await self._cached(path, question.in_ofport, Wanted.of(question))
            return sum(flow.packets for flow in cached if _is_ip(flow) and not is_neighbor_discovery(flow))

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

    async def _readings(self) -> tuple[tuple[MeterReading, ...], BridgeFacts]:
        """Meters and ports, read anew when the last reading is old: each takes a program to start."""
        if self._read is None or time.monotonic() - self._read_s > READ_EVERY_S:
            self._read = (await self._meter_readings(), await ovs_bridge.read_bridge(self._rundir, self._bridge))
            self._queues = await device_queues(self._rundir)
            self._counted = await self._ofctl.port_counters()
            self._read_s = time.monotonic()
        return self._read

    async def _refused_fragments(self, path: str, flow: str) -> tuple[RefusedFragments, ...]:
        """What conntrack took not of fragments since the task began, where a flow is one."""
        if "ip_frag=" not in flow:
            return ()
        counters, shortest = await fragment_counters(path)
        found = []
        for family, now in counters.items():
            before = self._fragments_before.get(family, {})
            grown = {name: count - before.get(name, 0) for name, count in now.items() if count > before.get(name, 0)}
            if grown:
                length = shortest.get(family, 0)
                found.append(RefusedFragments(datapath=DATAPATH, family=family, counts=grown, shortest=length))
        return tuple(found)

    async def _into(self, path: str, question: SiteQuestion) -> tuple[str, ...]:
        return await self._ways.into(path, self._kind(), question.entry) if question.lost else ()

    def _kind(self) -> str:
        return (self._facts.datapath_type if self._facts else "") or "system"

    async def _meter_readings(self) -> tuple[MeterReading, ...]:
        return tuple(
            MeterReading(
                meter_id=m.meter_id,
                rate=m.rate_pps,
                cut_packets=m.band_packets - self._meters_before.get(m.meter_id, 0),
            )
            for m in await self._ofctl.meters()
        )

    def _queue_growth(self, device: str) -> tuple[int, int]:
        """What a device's queue dropped, and sent, since the task began; one that was made meanwhile counts all."""
        now, before = self._queues.get(device), self._queues_before.get(device)
        if now is None:
            return 0, 0
        if before is None or before.kind != now.kind or before.dropped > now.dropped or before.packets > now.packets:
            return now.dropped, now.packets
        return now.dropped - before.dropped, now.packets - before.packets

    def _port_readings(self, facts: BridgeFacts) -> tuple[PortReading, ...]:
        known = [p for p in facts.ports if p.iface_id or p.name in self.named or p.kind == "patch"]
        return tuple(self._reading(port, facts) for port in known)

    def _named_readings(self, facts: BridgeFacts, names: Sequence[str]) -> tuple[PortReading, ...]:
        """Readings of devices of any bridge."""
        return tuple(self._reading(port, facts) for port in (*facts.ports, *facts.others) if port.name in names)

    def _reading(self, port: BridgePort, facts: BridgeFacts) -> PortReading:
        before = self._ports_before.get(port.name)
        # The database's counters are up to 5 s old; the bridge's own ports have live ones.
        live = self._counted.get(str(port.ofport), {}) if port in facts.ports else {}
        same = before is not None and before.ofport == port.ofport
        live_before = self._counted_before.get(str(port.ofport), {}) if same else {}

        def grown(counter: str) -> int:
            if counter in live:
                return live[counter] - live_before.get(counter, 0)
            return port.statistics.get(counter, 0) - (before.statistics.get(counter, 0) if before else 0)

        queue = self._queues.get(port.name)
        dropped, passed = self._queue_growth(port.name)

        return PortReading(
            name=port.name,
            iface_id=port.iface_id or self.named.get(port.name, ""),
            behind=port.behind,
            cut_off=port.cut_off,
            ofport=port.ofport,
            kind=port.kind,
            admin_up=port.admin_up,
            link_up=port.link_up,
            error=port.error,
            tx_dropped=grown("tx_dropped"),
            rx_dropped=grown("rx_dropped"),
            tx_errors=grown("tx_errors"),
            mtu=port.mtu,
            segments=facts.segments,
            tx_packets=grown("tx_packets"),
            queue=queue.kind if queue else "",
            queue_dropped=dropped,
            queue_passed=passed,
            limit=port.limit,
        )


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
