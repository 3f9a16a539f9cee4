"""What the meters, devices and queues of a server have counted since a task began.

Each reading takes some programs to start, so one is good for `READ_EVERY_S`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
import msgspec

from vtrace.errors import first_leaf
from vtrace.model.inspection import MeterReading, PortReading, RefusedFragments
from vtrace.model.openflow import BridgePort, MeterStat
from vtrace.ovs import bridge as ovs_bridge
from vtrace.ovs import unixctl
from vtrace.ovs.bridge import BridgeFacts
from vtrace.ovs.intake import lost_upcalls, received, socket_drops
from vtrace.ovs.ipf import fragment_counters
from vtrace.ovs.ofctl import OfCtl
from vtrace.ovs.queues import DeviceQueue, device_queues

READ_EVERY_S = 0.3
# And for so long at most, on a machine so busy that a reading takes long.
SELDOM_S = 2.0
# The userspace datapath's name is always this (ovs-vswitchd(8)).
DATAPATH = "netdev@ovs-netdev"


class _Counts(msgspec.Struct, frozen=True, kw_only=True):
    """All counters at one time. `ports` are live and of the bridge itself, by OpenFlow port number."""

    facts: BridgeFacts
    meters: tuple[MeterStat, ...]
    ports: dict[str, dict[str, int]]
    queues: dict[str, DeviceQueue]
    unread: dict[str, int]
    received: dict[str, int]


class Counters:
    """The counters of the server of one bridge."""

    def __init__(self, rundir: str, bridge: str, ofctl: OfCtl) -> None:
        self._rundir = rundir
        self._bridge = bridge
        self._ofctl = ofctl
        self._before: _Counts | None = None
        self._now: _Counts | None = None
        self._fragments_before: dict[str, dict[str, int]] = {}
        self._upcalls_before = 0
        self._read_s = 0.0
        self._took_s = 0.0
        self.began_s = 0.0

    async def begin(self, facts: BridgeFacts) -> None:
        """Notes how the counters stand, the first time."""
        if self._before is None:
            self.began_s = time.monotonic()
            path = unixctl.ctl_path(self._rundir, "ovs-vswitchd")
            self._fragments_before, _ = await fragment_counters(path)
            self._upcalls_before = await lost_upcalls(path, kind_of(facts))
            self._before = await self._counts(facts)

    async def read(self) -> None:
        """Reads the counters, unless that was done just now, or took so long that it must not be done as often."""
        began_s = time.monotonic()
        if self._now is None or began_s - self._read_s > min(max(READ_EVERY_S, 4 * self._took_s), SELDOM_S):
            self._now = await self._counts(None)
            self._read_s = time.monotonic()
            self._took_s = self._read_s - began_s

    async def _counts(self, facts: BridgeFacts | None) -> _Counts:
        """All counters, read at once: most of the time is that of programs that start."""
        found: dict[str, Any] = {"facts": facts}

        async def take(name: str, read: Callable[[], Awaitable[object]]) -> None:
            found[name] = await read()

        try:
            async with anyio.create_task_group() as group:
                if facts is None:
                    group.start_soon(take, "facts", lambda: ovs_bridge.read_bridge(self._rundir, self._bridge))
                group.start_soon(take, "meters", self._ofctl.meters)
                group.start_soon(take, "ports", self._ofctl.port_counters)
                group.start_soon(take, "queues", lambda: device_queues(self._rundir))
                group.start_soon(take, "unread", lambda: socket_drops(self._rundir))
        except BaseExceptionGroup as failed:
            raise first_leaf(failed) from failed
        return _Counts(received=received(self._rundir), **found)

    def meters(self) -> tuple[MeterReading, ...]:
        """The meters, as last read."""
        if self._now is None or self._before is None:
            return ()
        before = {m.meter_id: m.band_packets for m in self._before.meters}
        return tuple(
            MeterReading(meter_id=m.meter_id, rate=m.rate_pps, cut_packets=m.band_packets - before.get(m.meter_id, 0))
            for m in self._now.meters
        )

    def ports(self) -> tuple[BridgePort, ...]:
        """The bridge's ports, as last read."""
        return self._now.facts.ports if self._now else ()

    def named(self, names: Sequence[str]) -> tuple[BridgePort, ...]:
        """Ports of any bridge, as last read."""
        facts = self._now.facts if self._now else None
        return tuple(p for p in (*facts.ports, *facts.others) if p.name in names) if facts else ()

    def reading(self, port: BridgePort, iface_id: str) -> PortReading:
        """What an interface has counted; `iface_id` is the logical port behind it."""
        now, before = self._now, self._before
        assert now is not None
        assert before is not None
        then = next((p for p in (*before.facts.ports, *before.facts.others) if p.name == port.name), None)
        # The database's counters are up to 5 s old; the bridge's own ports have live ones.
        live = now.ports.get(str(port.ofport), {}) if port in now.facts.ports else {}
        live_then = before.ports.get(str(port.ofport), {}) if then and then.ofport == port.ofport else {}

        def grown(counter: str) -> int:
            if counter in live:
                return live[counter] - live_then.get(counter, 0)
            return port.statistics.get(counter, 0) - (then.statistics.get(counter, 0) if then else 0)

        queue = now.queues.get(port.name)
        dropped, passed = queue_growth(before.queues.get(port.name), queue)
        return PortReading(
            name=port.name,
            iface_id=iface_id,
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
            segments=now.facts.segments,
            tx_packets=grown("tx_packets"),
            queue=queue.kind if queue else "",
            queue_dropped=dropped,
            queue_passed=passed,
            limit=port.limit,
            rx_packets=now.received.get(port.name, 0) - before.received.get(port.name, 0),
            rx_lost=now.unread.get(port.name, 0) - before.unread.get(port.name, 0),
        )

    async def lost_upcalls(self, path: str) -> int:
        """Packets whose upcall failed since the task began."""
        return await lost_upcalls(path, kind_of(self._before.facts)) - self._upcalls_before if self._before else 0

    async def refused_fragments(self, path: str, flow: str) -> tuple[RefusedFragments, ...]:
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


def kind_of(facts: BridgeFacts | None) -> str:
    """The kind of a bridge's datapath: "netdev" or "system"."""
    return (facts.datapath_type if facts else "") or "system"


def queue_growth(before: DeviceQueue | None, now: DeviceQueue | None) -> tuple[int, int]:
    """What a device's queue dropped, and sent, between two readings; one that was made meanwhile counts all."""
    if now is None:
        return 0, 0
    if before is None or before.kind != now.kind or before.dropped > now.dropped or before.packets > now.packets:
        return now.dropped, now.packets
    return now.dropped - before.dropped, now.packets - before.packets
