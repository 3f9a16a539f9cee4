"""The adapters against real daemons; among them the dangers of facts-ovs-ovn.md that are cheap to show."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from private_switch import Switch

from vtrace.errors import CannotWorkError, ProtocolError
from vtrace.model.openflow import Cookie, FlowEntry, PacketIn, TableId
from vtrace.ovs import bridge, datapath, trace, unixctl
from vtrace.ovs import openflow13 as of
from vtrace.ovs.allowance import BURST_S, SHARE, Allowance
from vtrace.ovs.channel import ConnectionLostError, EntriesRemoved, OpenFlowChannel
from vtrace.ovs.ofctl import OfCtl, SwitchRefusedError

pytestmark = [pytest.mark.ovs, pytest.mark.anyio]

ID = 0x5ABC
OURS = 0x5654_1001_0000_0000
MASK = 0xFFFF_0FFF_0000_0000


def udp(tos: int = 12, payload: bytes = bytes(100)) -> bytes:
    length = 28 + len(payload)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, tos, length, 7, 0, 64, 17, 0, b"\x0a\0\0\x01", b"\x0a\0\0\x02")
    return bytes.fromhex("505400000002505400000001 0800") + ip + struct.pack("!HHHH", 1, 2, length - 20, 0) + payload


def entry(
    match: str = "in_port=1", actions: str = "drop", *, index: int = 1, table: int = 0, priority: int = 65535
) -> FlowEntry:
    return FlowEntry(
        table=TableId(table),
        priority=priority,
        cookie=Cookie(OURS | index),
        match=match,
        actions=actions,
        hard_timeout_s=60,
    )


COPY = (
    "load:0x1122334455667788->OXM_OF_METADATA[],load:0xa->NXM_NX_REG10[],load:0xf->NXM_NX_REG15[],"
    f"controller(id={ID},max_len=64,userdata=de.ad.be)"
)


async def next_event(channel: OpenFlowChannel, timeout_s: float = 2) -> object:
    with anyio.fail_after(timeout_s):
        async for event in channel.events():
            return event
    raise AssertionError("events ended")


async def packet_ins(channel: OpenFlowChannel, quiet_s: float = 0.3) -> list[PacketIn]:
    """All packet-ins until none comes for a while."""
    found = []
    try:
        while True:
            event = await next_event(channel, quiet_s)
            assert isinstance(event, PacketIn)
            found.append(event)
    except TimeoutError:
        return found


async def test_a_packet_in_brings_everything(switch: Switch) -> None:
    await OfCtl(switch.mgmt).add_entries([entry(actions=COPY)])
    async with OpenFlowChannel.open(switch.mgmt, ID) as channel:
        await switch.receive("p1", udp())
        got = await next_event(channel)
    assert isinstance(got, PacketIn)
    assert (got.cookie, got.table, got.in_port) == (OURS | 1, 0, 1)
    # ovs-actions(7): max_len has no effect since OVS 2.7.
    assert (got.packet, got.length_bytes) == (udp(), len(udp()))
    assert (got.metadata, got.registers, got.userdata) == (0x1122334455667788, {10: 10, 15: 15}, b"\xde\xad\xbe")


async def test_copies_reach_us_also_from_packet_outs_and_buckets(switch: Switch) -> None:
    await OfCtl(switch.mgmt).add_entries([entry("udp", COPY, table=5)])
    async with OpenFlowChannel.open(switch.mgmt, ID) as channel:
        switch.ofctl("packet-out", f"in_port=1 packet={udp().hex()} actions=resubmit(,5)")
        assert isinstance(await next_event(channel), PacketIn)
        switch.ofctl("add-group", "group_id=9,type=all,bucket=actions=resubmit(,5)")
        switch.ofctl("add-flow", "in_port=2,actions=group:9")
        await switch.receive("p2", udp())
        assert isinstance(await next_event(channel), PacketIn)
        switch.ofctl("del-groups")


@pytest.fixture
async def other_controller(switch: Switch) -> AsyncIterator[list[bytes]]:
    """Another controller, of id 0 as ovn-controller is; the list grows by the bodies of its packet-ins."""
    bodies: list[bytes] = []
    reader, writer = await asyncio.open_unix_connection(switch.mgmt)
    writer.write(of.hello(1) + of.set_packet_in_format(2) + of.set_config(3, 0xFFFF, 0) + of.barrier_request(4))
    ready = anyio.Event()

    async def read() -> None:
        buffer = bytearray()
        while data := await reader.read(65536):
            buffer += data
            for message in of.split_messages(buffer):
                if message.kind == of.OFPT_EXPERIMENTER:
                    bodies.append(message.body)
                elif message.kind == of.OFPT_BARRIER_REPLY:
                    ready.set()

    task = asyncio.create_task(read())
    with anyio.fail_after(5):
        await ready.wait()
    yield bodies
    task.cancel()
    writer.close()


@pytest.mark.parametrize("mode", ["normal", "drop", "nx-match"])
async def test_our_connection_leaves_what_fragments_meet_as_it_was(switch: Switch, mode: str) -> None:
    switch.ofctl("set-frags", mode)
    async with OpenFlowChannel.open(switch.mgmt, ID):
        assert switch.ofctl("get-frags").split() == [mode]
    assert switch.ofctl("get-frags").split() == [mode]
    switch.ofctl("set-frags", "normal")


async def test_controller_id_0_never_sees_ours_nor_we_theirs(switch: Switch, other_controller: list[bytes]) -> None:
    theirs = "controller(userdata=00.00.00.01)"
    await OfCtl(switch.mgmt).add_entries([entry(actions=COPY), entry("in_port=2", theirs, index=2)])
    async with OpenFlowChannel.open(switch.mgmt, ID) as channel:
        for _ in range(5):
            await switch.receive("p1", udp())
        assert len(await packet_ins(channel)) == 5
        assert other_controller == []
        await switch.receive("p2", udp())
        assert await packet_ins(channel) == []
        assert len(other_controller) == 1


async def test_a_meter_cuts_copies_and_never_packets(switch: Switch) -> None:
    ofctl = OfCtl(switch.mgmt)
    meter = await ofctl.max_meter() - 1
    await ofctl.add_meter(meter, 1, 10)
    copy = f"controller(id={ID},max_len=64,meter_id={meter})"
    await ofctl.add_entries([entry(actions=f"clone({copy}),output:2")])
    compiled = await trace.trace(switch.ctl, "br0", "in_port=1,udp")
    assert "meter(" in compiled.datapath_actions[0]
    before = (await ofctl.port_counters())["2"]["tx_packets"]
    async with OpenFlowChannel.open(switch.mgmt, ID) as channel:
        for _ in range(60):
            await switch.receive("p1", udp())
        received = len(await packet_ins(channel))
    (stat,) = [m for m in await ofctl.meters() if m.meter_id == meter]
    assert (stat.rate_pps, stat.burst_packets) == (1, 10)
    assert 10 <= received < 30
    # The first packet is copied by the upcall itself, past the datapath's meter.
    assert received + stat.band_packets in (60, 61)
    assert (await ofctl.port_counters())["2"]["tx_packets"] - before == 60


async def test_an_unknown_meter_leaves_copies_unmetered_and_a_trace_tells(switch: Switch) -> None:
    copy = f"controller(id={ID},max_len=64,meter_id=77)"
    await OfCtl(switch.mgmt).add_entries([entry(actions=f"clone({copy}),output:2")])
    compiled = await trace.trace(switch.ctl, "br0", "in_port=1,udp")
    assert "userspace(" in compiled.datapath_actions[0]
    assert "meter(" not in compiled.datapath_actions[0]


async def test_meters(switch: Switch) -> None:
    ofctl = OfCtl(switch.mgmt)
    assert await ofctl.max_meter() >= 1000
    assert await ofctl.meters() == ()
    await ofctl.add_meter(4711, 100, 20)
    with pytest.raises(SwitchRefusedError, match="METER_EXISTS"):
        await ofctl.add_meter(4711, 5, 5)
    await ofctl.delete_meter(4711)
    await ofctl.delete_meter(4711)
    assert await ofctl.meters() == ()


async def test_a_bundle_is_all_or_nothing(switch: Switch) -> None:
    ofctl = OfCtl(switch.mgmt)
    with pytest.raises(SwitchRefusedError, match="BAD_OUT_GROUP"):
        await ofctl.add_entries([entry(), entry("in_port=2", "group:4242", index=2)])
    with pytest.raises(SwitchRefusedError, match="unknown keyword"):
        await ofctl.add_entries([entry(), entry("no_such_field=2", index=2)])
    assert await ofctl.dump_entries() == ()
    await ofctl.add_entries([])


async def test_entries_come_back_as_they_were_added(switch: Switch) -> None:
    ofctl = OfCtl(switch.mgmt)
    added = entry("ip,in_port=2,reg10=0/0xc000000,metadata=0x7,nw_tos=12", "resubmit(,12)", index=5, table=7)
    await ofctl.add_entries([added, entry(index=6)])
    switch.ofctl("add-flow", "table=7,cookie=0xabcd,priority=5,udp,actions=drop")
    (got,) = await ofctl.dump_entries(cookie=(OURS | 5, 0xFFFF_FFFF_FFFF_FFFF))
    assert (got.table, got.priority, got.cookie, got.hard_timeout_s) == (7, 65535, OURS | 5, 60)
    assert set(got.match.split(",")) == {"ip", "reg10=0/0xc000000", "metadata=0x7", "in_port=2", "nw_tos=12"}
    assert got.actions == "resubmit(,12)"
    assert len(await ofctl.dump_entries(cookie=(OURS, MASK))) == 2
    assert [e.cookie for e in await ofctl.dump_entries(table=7, match="udp")] == [0xABCD]
    assert {t: n for t, n in (await ofctl.table_counts()).items() if n} == {0: 1, 7: 2}
    await ofctl.delete_entries(OURS, MASK, table=7)
    assert {e.cookie for e in await ofctl.dump_entries()} == {OURS | 6, 0xABCD}
    switch.ofctl("add-group", "group_id=12,type=all,bucket=actions=drop")
    assert await ofctl.groups() == (12,)
    switch.ofctl("del-groups")


async def test_foreign_deletion_is_noticed_and_our_own_is_not(switch: Switch) -> None:
    ofctl = OfCtl(switch.mgmt)
    nested = f"clone(controller(id={ID}),resubmit(,3))"
    async with OpenFlowChannel.open(switch.mgmt, ID) as channel:
        await channel.watch(OURS, MASK)
        await ofctl.add_entries([entry(actions=nested, index=i, priority=i) for i in (1, 2, 3)])
        await channel.delete_by_cookie(OURS | 3, 0xFFFF_FFFF_FFFF_FFFF)
        switch.ofctl("add-flow", f"table=9,cookie=0x99,priority=5,actions={nested}")
        switch.ofctl("del-flows", "cookie=0x99/-1")
        switch.ofctl("del-flows", f"cookie={OURS | 1}/-1")
        assert await next_event(channel) == EntriesRemoved(cookies=(Cookie(OURS | 1),), reason="delete")
        # What ovn-controller does when it reconnects.
        switch.ofctl("del-flows")
        assert await next_event(channel) == EntriesRemoved(cookies=(Cookie(OURS | 2),), reason="delete")
        await channel.barrier()


async def test_a_deletion_is_told_at_once(switch: Switch) -> None:
    ofctl = OfCtl(switch.mgmt)
    await ofctl.add_entries([entry(actions=f"controller(id={ID})")])
    async with OpenFlowChannel.open(switch.mgmt, ID) as channel, OpenFlowChannel.open(switch.mgmt, ID + 1) as other:
        await channel.watch(OURS, MASK)
        await other.delete_by_cookie(OURS, MASK)
        # Below 1 ms here; the limit is for a busy machine.
        assert isinstance(await next_event(channel, 0.5), EntriesRemoved)


async def test_time_outs_and_changes_have_reasons_of_their_own(switch: Switch) -> None:
    ofctl = OfCtl(switch.mgmt)
    copy = f"controller(id={ID})"
    short = FlowEntry(
        table=TableId(4),
        priority=1,
        cookie=Cookie(OURS | 8),
        match="",
        actions=copy,
        hard_timeout_s=1,
    )
    async with OpenFlowChannel.open(switch.mgmt, ID) as channel:
        await channel.watch(OURS, MASK)
        await ofctl.add_entries([short, entry(actions=copy, table=3)])
        switch.ofctl("mod-flows", f"table=3,actions=controller(id={ID + 1})")
        assert await next_event(channel) == EntriesRemoved(cookies=(Cookie(OURS | 1),), reason="modified")
        assert await next_event(channel, 4) == EntriesRemoved(cookies=(Cookie(OURS | 8),), reason="hard_timeout")


async def test_the_bridge_filters_by_guard_and_table(switch: Switch) -> None:
    ofctl = OfCtl(switch.mgmt)
    async with OpenFlowChannel.open(switch.mgmt, ID) as channel:
        await channel.watch(OURS, MASK, copies_only=False, guard_lsb=26)
        await channel.watch(OURS, MASK, copies_only=False, tables=(7, 8))
        entries = [
            entry("in_port=1", index=1),
            entry("in_port=1,reg10=0x4000000/0xc000000", index=2),
            entry("in_port=1", index=3, table=7),
        ]
        await ofctl.add_entries(entries)
        switch.ofctl("del-flows")
        told: set[int] = set()
        while len(told) < 2:
            event = await next_event(channel)
            assert isinstance(event, EntriesRemoved)
            told |= set(event.cookies)
        assert told == {OURS | 2, OURS | 3}


async def test_delete_by_cookie_removes_ours_from_every_table_and_nothing_else(switch: Switch) -> None:
    ofctl = OfCtl(switch.mgmt)
    await ofctl.add_entries(
        [entry(index=1), entry(index=2, table=253), entry("in_port=2", "output:2", index=3, table=9)]
    )
    switch.ofctl("add-flow", "table=9,cookie=0x99,priority=5,actions=drop")
    switch.ofctl("add-flow", f"table=9,cookie=0x{OURS | 1 << 32 | 1:x},priority=6,actions=drop")
    other_generation = OURS ^ 3 << 32
    switch.ofctl("add-flow", f"table=9,cookie=0x{other_generation:x},priority=7,actions=drop")
    async with OpenFlowChannel.open(switch.mgmt, ID) as channel:
        await channel.delete_by_cookie(OURS, MASK)
    assert {e.cookie for e in await ofctl.dump_entries()} == {0x99, other_generation}


async def test_a_color_can_be_followed_in_the_datapath(switch: Switch) -> None:
    copy = f"clone(controller(id={ID},max_len=64))"
    await OfCtl(switch.mgmt).add_entries([
        entry("ip,in_port=1,nw_tos=12,reg10=0/0xc000000",
              f"load:1->NXM_NX_REG10[26..27],{copy},ct(table=5,zone=3)"),
        entry("ip,in_port=1", "ct(table=6,zone=3)", index=2, priority=5),
        entry("", f"{copy},resubmit(,99)", index=3, table=5),
        entry("", "output:2", index=4, table=6),
    ])  # fmt: skip
    for tos in (12, 13, 16):
        await switch.receive("p1", udp(tos))
    flows = await datapath.dump_flows(switch.ctl, tos=12)
    first, second = sorted(flows, key=lambda flow: flow.recirc_id)
    assert datapath.requires_dscp(first, 12)
    assert not datapath.requires_dscp(second, 12)
    assert datapath.recirculations(first) == (second.recirc_id,)
    assert not datapath.ends_in_drop(first)
    assert datapath.ends_in_drop(second)
    assert len(await datapath.dump_flows(switch.ctl)) >= 4
    resumed = await trace.trace_datapath(
        switch.ctl,
        "dummy@ovs-dummy",
        second.key,
    )
    assert resumed.steps[0].table == 5
    everything = await trace.trace(switch.ctl, "br0", "in_port=1,udp,nw_tos=16", ["trk,est"])
    assert [step.table for step in everything.steps] == [0, 6]


async def test_the_database(switch: Switch) -> None:
    facts = await bridge.read_bridge(switch.rundir, "br0")
    assert (facts.system_id, facts.encap_ips, facts.datapath_type) == ("hv1", ("192.0.2.1",), "dummy")
    ports = {port.name: port for port in facts.ports}
    assert {name: port.ofport for name, port in ports.items()} == {"br0": 65534, "p1": 1, "p2": 2}
    assert ports["p1"].admin_up
    switch.vsctl(
        "add-port", "br0", "t1", "--", "set", "interface", "t1", "type=geneve", "options:remote_ip=192.0.2.9",
        "options:key=flow", "ofport_request=7", "--", "set", "port", "t1", "external_ids:ovn-chassis-id=hv2@192.0.2.9",
    )  # fmt: skip
    (tunnel,) = (await bridge.read_bridge(switch.rundir, "br0")).tunnels
    switch.vsctl("del-port", "t1")
    assert (tunnel.ofport, tunnel.kind, tunnel.remote_ip, tunnel.chassis) == (7, "geneve", "192.0.2.9", "hv2")
    assert tunnel.options["key"] == "flow"
    with pytest.raises(CannotWorkError, match="no bridge br-int"):
        await bridge.read_bridge(switch.rundir)


async def test_a_deleted_bridge_ends_the_connection_with_a_clear_error(switch: Switch) -> None:
    switch.vsctl("add-br", "br9", "--", "set", "bridge", "br9", "datapath_type=dummy")
    path = f"{switch.rundir}/br9.mgmt"
    async with OpenFlowChannel.open(path, ID) as channel:
        switch.vsctl("del-br", "br9")
        with pytest.raises(ConnectionLostError, match="lost the OpenFlow connection"):
            await next_event(channel)
        with pytest.raises(ConnectionLostError):
            await channel.barrier()
    for attempt in (OfCtl(path).dump_entries(), OfCtl(path).add_entries([entry()])):
        with pytest.raises(CannotWorkError, match="can't reach ovs-vswitchd") as caught:
            await attempt
        assert caught.value.where == path
        assert caught.value.next_step


async def test_a_bridge_without_openflow_13_is_refused_with_the_remedy(switch: Switch) -> None:
    switch.vsctl("set", "bridge", "br0", "protocols=OpenFlow15")
    try:
        with pytest.raises(CannotWorkError, match="Add OpenFlow13"):
            await OfCtl(switch.mgmt).dump_entries()
        with pytest.raises((ProtocolError, ConnectionLostError)):
            async with OpenFlowChannel.open(switch.mgmt, ID):
                pass
    finally:
        switch.vsctl("clear", "bridge", "br0", "protocols")


async def test_unixctl(switch: Switch, tmp_path: Path) -> None:
    assert (await unixctl.call(switch.ctl, "version")).startswith("ovs-vswitchd (Open vSwitch)")
    with pytest.raises(unixctl.UnixctlError, match="not a valid command"):
        await unixctl.call(switch.ctl, "no/such")
    with pytest.raises(unixctl.UnixctlError, match="nobridge"):
        await trace.trace(switch.ctl, "nobridge", "in_port=1")
    with pytest.raises(CannotWorkError, match="No such file"):
        await unixctl.call(str(tmp_path / "ovs-vswitchd.1.ctl"), "version")
    with pytest.raises(CannotWorkError, match="process id"):
        unixctl.ctl_path(str(tmp_path))


class Noted(Allowance):
    """An allowance that tells what was asked of it."""

    asked = 0
    spent_s = 0.0

    def ask(self, now_s: float) -> float:
        self.asked += 1
        return super().ask(now_s)

    def spend(self, now_s: float, took_s: float) -> None:
        self.spent_s += took_s
        super().spend(now_s, took_s)


async def test_control_calls_are_paid_for_with_the_main_threads_own_time(
    switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = Noted(time.monotonic())
    monkeypatch.setitem(unixctl.ALLOWANCES, switch.ctl, noted)
    began_s = unixctl.main_thread_s(switch.ctl)
    assert began_s > 0.0
    for _ in range(20):
        await unixctl.call(switch.ctl, "coverage/show")
    assert noted.asked == 20
    assert 0.0 < noted.spent_s <= unixctl.main_thread_s(switch.ctl) - began_s


async def test_a_daemon_that_hangs_costs_nothing(switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = Noted(time.monotonic())
    monkeypatch.setitem(unixctl.ALLOWANCES, switch.ctl, noted)
    pid = int(switch.ctl.split(".")[-2])
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(CannotWorkError):
            await unixctl.call(switch.ctl, "coverage/show", timeout_s=0.5)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert noted.asked == 1
    assert noted.spent_s < 0.1


async def test_who_asked_too_much_waits(switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = time.monotonic()
    allowance = Allowance(now_s)
    allowance.spend(now_s, BURST_S + 0.05)
    monkeypatch.setitem(unixctl.ALLOWANCES, switch.ctl, allowance)
    await unixctl.call(switch.ctl, "version")
    # It waited until what was spent beyond the burst had come in again.
    assert time.monotonic() - now_s >= 0.05 / SHARE
