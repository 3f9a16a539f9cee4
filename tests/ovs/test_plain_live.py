"""Bridges without OVN against real switches: what the copies say, what VMs get, what other traffic notices."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from private_switch import Switch, wait_until
from wired_switches import OTHER, VM1, VM1_IP, VM1_MAC, VM2_IP, VM2_MAC, WIRE, Wired, packet, tos_of

from vtrace.color.entries import coloring_entries
from vtrace.errors import BridgeNotUnderstoodError, RefusedError
from vtrace.match.mirror import mirror_entries, port_doubt_entries
from vtrace.model.inventory import LogicalDatapath, LogicalPort
from vtrace.model.openflow import OfPort, PacketIn, TunnelPort
from vtrace.model.plain import SEVERAL_PORTS, PlainLayout
from vtrace.model.plan import Claim, ColorUse, FirstHop, Hook, LocalVif, PlannedEntry, Scope, TimeLimits
from vtrace.model.record import Point
from vtrace.model.task import Direction, Endpoint, Pair, TrafficFilter
from vtrace.ovs import datapath
from vtrace.ovs.channel import OpenFlowChannel
from vtrace.ovs.ofctl import OfCtl
from vtrace.ovs.plain_layout import discover_on

pytestmark = [pytest.mark.ovs, pytest.mark.anyio]

COLOR = 3
LIMITS = TimeLimits(color_s=60, match_s=60, restore_s=60)
USE = ColorUse(color=COLOR, epoch=1, original_dscp=0)


@pytest.fixture(scope="module")
def both() -> Iterator[Wired]:
    with tempfile.TemporaryDirectory(prefix="vtrace-plain-") as folder:
        wired = Wired(Path(folder))
        try:
            yield wired
        finally:
            wired.stop()


@pytest.fixture
def wired(both: Wired) -> Wired:
    both.reset()
    return both


class Site:
    """One switch with our entries on it, and what its copies said."""

    def __init__(self, switch: Switch, name: str, number: int, generation: int) -> None:
        self.switch = switch
        self.name = name
        self.ofctl = OfCtl(switch.mgmt)
        self.claim = Claim(
            generation=generation,
            controller_id=0x5000 + generation,
            first_meter=101 + number,
            copy_meter=201 + number,
            first_rate_pps=1000,
            copy_rate_pps=3000,
        )
        self.number = number
        self.hooks: dict[int, Hook] = {}
        self.copies: list[tuple[Hook, PacketIn]] = []
        self.layout: PlainLayout

    def scope(self) -> Scope:
        peer = "right" if self.name == "left" else "left"
        ports = [("vm", VM1), ("wire", WIRE), ("other", OTHER)]
        return Scope(
            chassis=self.name,
            layout=self.layout,
            datapaths=(
                LogicalDatapath(
                    key=self.number, name="br0", kind="vswitch", nb_uuid="", sb_uuid="", chassis=(self.name,)
                ),
            ),
            ports=tuple(LogicalPort(name=f"{self.name}-{n}", key=k, datapath=self.number) for n, k in ports),
            vifs=(LocalVif(ofport=OfPort(VM1), datapath=self.number, key=VM1),),
            tunnels=(TunnelPort(name="wire", ofport=OfPort(WIRE), kind="wire", remote_ip="", chassis=peer),),
            armed_chassis=("left", "right"),
            endpoints=("left-vm", "right-vm"),
        )

    async def arm(self, *, colors: bool) -> None:
        self.layout = await discover_on(self.ofctl, self.switch.ctl, "br0")
        await self.ofctl.add_meter(self.claim.first_meter, 1000, 25)
        await self.ofctl.add_meter(self.claim.copy_meter, 3000, 50)
        scope = self.scope()
        await self.install(mirror_entries(scope, self.layout, USE, self.claim, LIMITS))
        await self.install(port_doubt_entries((VM1, OTHER), scope, self.layout, USE, self.claim, 60))
        if colors:
            await self.install(coloring_entries(FirstHop(pair=PAIR, vif=scope.vifs[0]), USE, scope, self.claim, 60, 4))

    async def install(self, entries: Sequence[PlannedEntry]) -> None:
        self.hooks.update({e.entry.cookie: e.hook for e in entries})
        await self.ofctl.add_entries([e.entry for e in entries])

    async def read(self, channel: OpenFlowChannel) -> None:
        async for event in channel.events():
            if isinstance(event, PacketIn):
                self.copies.append((self.hooks[event.cookie], event))

    def said(self) -> list[tuple[int, int, str]]:
        """(point, out port, peer) of the copies so far."""
        return [(hook.point, hook.ofport if hook.point > Point.INGRESS else 0, hook.peer) for hook, _ in self.copies]


PAIR = Pair(
    index=0,
    direction=Direction.FORWARD,
    source=Endpoint(name="vm1", port="left-vm", address=VM1_IP, addresses=(VM1_IP,)),
    destination=Endpoint(name="vm2", port="right-vm", address=VM2_IP, addresses=(VM2_IP,)),
    traffic=TrafficFilter(proto="udp"),
)
FIRST = (Point.FIRST_HOP, 0, "")
SENT = (Point.REMOTE_OUTPUT, WIRE, "right")
CAME = (Point.INGRESS, 0, "left")
SPREAD = (Point.EGRESS, SEVERAL_PORTS, "")
ARRIVED = (Point.EGRESS, VM1, "")


def entries(switch: Switch, *lines: str) -> None:
    for line in lines:
        switch.ofctl("add-flow", line)


async def run(wired: Wired, *, packets: int = 3, until: str = "", count: int = 1) -> tuple[Site, Site]:
    """Arms both, lets packets of the pair come in at vm1, and waits for so many copies at both together."""
    left, right = Site(wired.left, "left", 1, 0x111), Site(wired.right, "right", 2, 0x222)
    for site in (left, right):
        await site.arm(colors=site is left)
    async with (
        OpenFlowChannel.open(left.switch.mgmt, left.claim.controller_id) as one,
        OpenFlowChannel.open(right.switch.mgmt, right.claim.controller_id) as two,
        anyio.create_task_group() as group,
    ):
        group.start_soon(left.read, one)
        group.start_soon(right.read, two)
        for number in range(packets):
            await wired.left.receive("vm", packet(number=number))
        with anyio.move_on_after(5):
            while len(left.copies) + len(right.copies) < count * packets:
                await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    return left, right


@pytest.mark.parametrize(
    "pipeline",
    [
        pytest.param(["in_port=11,actions=output:12", "in_port=12,actions=output:11"], id="one table"),
        pytest.param(
            [
                "priority=10,actions=resubmit(,5)",
                "table=5,priority=50,in_port=11,ip,actions=load:12->NXM_NX_REG0[0..15],resubmit(,6),resubmit(,7)",
                "table=5,priority=50,in_port=12,ip,actions=load:11->NXM_NX_REG0[0..15],resubmit(,7)",
                "table=5,priority=1,actions=output:13",
                "table=6,actions=load:1->NXM_NX_REG5[0]",
                "table=7,actions=output:NXM_NX_REG0[0..15]",
            ],
            id="port in a register",
        ),
        pytest.param(
            [
                "ct_state=-trk,ip,actions=ct(table=0)",
                "ct_state=+trk+new,ip,in_port=11,actions=ct(commit),output:12",
                "ct_state=+trk+new,ip,in_port=12,actions=ct(commit),output:11",
                "ct_state=+trk+est,ip,in_port=11,actions=output:12",
                "ct_state=+trk+est,ip,in_port=12,actions=output:11",
            ],
            id="conntrack and back",
        ),
        pytest.param(
            [
                "in_port=11,actions=goto_table:1",
                "in_port=12,actions=goto_table:2",
                "table=1,ip,actions=write_actions(output:12)",
                "table=2,ip,actions=write_actions(group:5)",
            ],
            id="action set and group",
        ),
        pytest.param(
            ["table=0,actions=resubmit(,9),resubmit(,9)",
             "table=9,reg0=0,in_port=11,actions=load:1->NXM_NX_REG0[],output:12",
             "table=9,reg0=0,in_port=12,actions=load:1->NXM_NX_REG0[],output:11", "table=9,reg0=1,actions=drop"],
            id="one table twice",
        ),
    ],
)  # fmt: skip
async def test_a_packet_is_followed_to_the_vm_and_arrives_unchanged(wired: Wired, pipeline: list[str]) -> None:
    for switch in (wired.left, wired.right):
        switch.ofctl("add-group", "group_id=5,type=indirect,bucket=actions=output:11")
        entries(switch, *pipeline)
    left, right = await run(wired, count=4)
    assert left.said() == [FIRST, SENT] * 3
    assert right.said() == [CAME, ARRIVED] * 3
    assert {message.in_port for hook, message in right.copies if hook.point == Point.EGRESS} == {WIRE}
    wait_until("all packets at the VM", lambda: len(wired.seen(wired.right, "vm")) == 3)
    assert [tos_of(frame) for frame in wired.seen(wired.right, "vm")] == [0, 0, 0]
    assert {tos_of(frame) for frame in wired.seen(wired.left, "wire")} == {COLOR << 2}
    assert not wired.seen(wired.left, "other")
    assert not wired.seen(wired.right, "other")


async def test_normal_is_followed_by_the_macs_it_has_learned(wired: Wired) -> None:
    for switch in (wired.left, wired.right):
        entries(switch, "actions=NORMAL")
    await wired.right.receive("vm", packet(source=VM2_MAC, destination=VM1_MAC))
    await wired.left.receive("vm", packet())
    wait_until("the first packet at vm2", lambda: len(wired.seen(wired.right, "vm")) == 1)
    left, right = await run(wired, count=4)
    assert left.said() == [FIRST, SENT] * 3
    assert right.said() == [CAME, ARRIVED] * 3
    wait_until("all packets at the VM", lambda: len(wired.seen(wired.right, "vm")) == 4)
    assert {tos_of(frame) for frame in wired.seen(wired.right, "vm")} == {0}


async def test_what_normal_floods_has_no_color(wired: Wired) -> None:
    for switch in (wired.left, wired.right):
        entries(switch, "actions=NORMAL")
        await_empty(switch)
    left, _ = await run(wired, count=2)
    assert left.said() == [FIRST, SPREAD] * 3
    wait_until("all packets at the other port", lambda: len(wired.seen(wired.left, "other")) == 3)
    assert {tos_of(frame) for frame in wired.seen(wired.left, "other") + wired.seen(wired.left, "wire")} == {0}


def await_empty(switch: Switch) -> None:
    switch.vsctl("set", "bridge", "br0", "other_config:mac-aging-time=300")
    import subprocess

    subprocess.run(["ovs-appctl", "-t", switch.ctl, "fdb/flush", "br0"], check=True, capture_output=True, timeout=10)


@pytest.mark.parametrize(
    ("pipeline", "says"),
    [
        (["in_port=11,actions=output:12,output:13"], [FIRST, SPREAD]),
        (["in_port=11,actions=output:13"], [FIRST, (Point.EGRESS, OTHER, "")]),
        (["in_port=11,actions=output:12,resubmit(,4)", "table=4,actions=output:13"], [FIRST, SPREAD]),
        (["in_port=11,actions=write_actions(output:12),goto_table:4", "table=4,actions=load:1->NXM_NX_REG3[]"],
         [FIRST, SPREAD]),
        (["in_port=11,actions=CONTROLLER:65535"], [FIRST]),
        (["in_port=11,udp,actions=drop", "in_port=11,priority=1,actions=output:12"], [FIRST]),
        (["in_port=11,udp,tp_dst=99,actions=output:12"], [FIRST]),
        (["in_port=11,actions=output:77", "in_port=12,actions=output:11"], [FIRST]),
        (["in_port=11,actions=resubmit(,3)", "table=3,actions=drop", "table=4,actions=output:12"], [FIRST]),
    ],
)  # fmt: skip
async def test_no_color_leaves_by_anything_but_the_wire_alone(
    wired: Wired, pipeline: list[str], says: list[tuple[int, int, str]]
) -> None:
    entries(wired.left, *pipeline)
    left, _ = await run(wired, count=len(says))
    assert left.said() == says * 3
    for port in ("wire", "other"):
        assert {tos_of(frame) for frame in wired.seen(wired.left, port)} <= {0}


async def test_an_entry_that_was_added_meanwhile_lets_no_color_out(wired: Wired) -> None:
    entries(wired.left, "priority=5,udp,tp_dst=81,in_port=11,actions=output:12")
    left = Site(wired.left, "left", 1, 0x111)
    await left.arm(colors=True)
    entries(wired.left, "priority=4,in_port=11,actions=output:13")
    await wired.left.receive("vm", packet())
    wait_until("the packet at the other port", lambda: len(wired.seen(wired.left, "other")) == 1)
    assert tos_of(wired.seen(wired.left, "other")[0]) == 0


async def test_other_traffic_keeps_its_datapath_flows_to_the_byte(wired: Wired) -> None:
    pipeline = [
        "priority=100,in_port=11,actions=resubmit(,5)",
        "priority=100,in_port=13,actions=resubmit(,5)",
        "table=5,priority=9,dl_dst=0a:00:00:00:00:99,actions=output:12",
        "table=5,priority=7,udp,tp_dst=53,actions=output:12",
        "table=5,priority=6,in_port=11,ip,nw_dst=10.0.0.0/24,actions=output:12",
        "table=5,priority=1,actions=output:13",
    ]
    entries(wired.left, *pipeline)

    async def cached() -> list[tuple[str, str]]:
        for port in ("vm", "other"):
            for dport in (53, 80, 443):
                await wired.left.receive(port, packet(destination="0a:00:00:00:00:99", dport=dport))
                await wired.left.receive(port, packet(source="0a:00:00:00:00:77", dport=dport + 1))
        flows = await datapath.dump_flows(wired.left.ctl)
        # What comes in by the source's port carries the pair's own headers in its mask; the other port nothing.
        return sorted((f.key, f.actions) for f in flows if f.in_port == "other" and not f.tos_mask)

    before = await cached()
    assert before
    left = Site(wired.left, "left", 1, 0x111)
    await left.arm(colors=True)
    # The doubt watch asks for the DSCP of what comes in by each port; without it nothing at all changes.
    await left.ofctl.delete_entries(0x5654_6000_0000_0000, 0xFFFF_F000_0000_0000)
    await wired.left.receive("vm", packet())
    assert await cached() == before


@pytest.mark.parametrize(
    ("line", "error", "says"),
    [
        ("priority=65535,in_port=11,actions=output:12", RefusedError, "highest priority"),
        ("conj_id=3,ip,actions=output:12", BridgeNotUnderstoodError, "conjunctive"),
    ],
)
async def test_what_is_not_understood_is_refused(wired: Wired, line: str, error: type[Exception], says: str) -> None:
    entries(wired.left, line)
    with pytest.raises(error, match=says):
        await discover_on(OfCtl(wired.left.mgmt), wired.left.ctl, "br0")
