"""A second controller on the bridge: what it has is left alone, and what it takes of ours is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from private_switch import Switch
from test_ovs_live import COPY, ID, MASK, OURS, entry, next_event, packet_ins, udp

import second_controller as second
from second_controller import SecondController
from vtrace.model.openflow import FlowEntry, PacketIn
from vtrace.ovs.channel import OpenFlowChannel, OtherEntry
from vtrace.ovs.named_ids import NamedIds
from vtrace.ovs.ofctl import OfCtl

pytestmark = [pytest.mark.ovs, pytest.mark.anyio]

THEIRS = 0xABCDEF0000000001


@pytest.fixture(params=["management", "controller"])
def other(switch: Switch, request: pytest.FixtureRequest) -> Iterator[SecondController]:
    """A controller at the management socket, or one that the bridge is configured with."""
    if request.param == "management":
        with SecondController(Path(switch.mgmt)) as found:
            yield found
        return
    path = Path(switch.rundir, "second.sock")
    with SecondController(path, listens=True) as found:
        switch.vsctl("set-controller", "br0", f"unix:{path}")
        try:
            found.accept()
            yield found
        finally:
            switch.vsctl("del-controller", "br0")


def standing(switch: Switch) -> tuple[str, ...]:
    """All that is on the bridge, byte for byte, without counters and ages."""
    commands = (("dump-flows", "--no-stats"), ("dump-meters",), ("dump-groups",))
    texts = (switch.ofctl(command, *options) for command, *options in commands)
    return tuple("\n".join(line for line in text.splitlines() if "xid=" not in line) for text in texts)


@pytest.mark.parametrize("role", [second.EQUAL, second.MASTER, second.SLAVE])
async def test_our_work_sends_a_second_controller_nothing(switch: Switch, other: SecondController, role: int) -> None:
    """Copies, additions, removals and time-outs of ours are no business of its; all it has stays, and counts on."""
    other.meter(0, 17, 500)
    other.entry(cookie=THEIRS, table=3, priority=10, ether_type=0x0806)
    switch.ofctl("add-group", "group_id=9,type=all,bucket=actions=output:2")
    other.monitor(1, 3)
    assert other.ask_role(role) == role
    before = standing(switch)
    ofctl = OfCtl(switch.mgmt)
    meter = await ofctl.max_meter()
    await ofctl.add_meter(meter, 1009, 25)
    short = FlowEntry(
        **{**{f: getattr(entry(index=3, table=2), f) for f in FlowEntry.__struct_fields__}, "hard_timeout_s": 1}
    )
    async with OpenFlowChannel.open(switch.mgmt, ID) as channel:
        await channel.watch(OURS, MASK)
        await channel.watch_others(10)
        await ofctl.add_entries([entry(actions=f"{COPY},resubmit(,3)"), entry("in_port=2", COPY, index=2), short])
        for _ in range(5):
            await switch.receive("p1", udp())
        copies = 0
        while copies < 5:
            copies += isinstance(await next_event(channel, 10), PacketIn)
        await channel.delete_by_cookie(OURS | 1, 2**64 - 1)
        # Its time is over, which is told to nobody who did not ask.
        with anyio.fail_after(8):
            while await channel.count(OURS, MASK, 2):  # noqa: ASYNC110 (no event tells)
                await anyio.sleep(0.05)
        await channel.delete_by_cookie(OURS, MASK)
        await ofctl.delete_meter(meter)
        assert standing(switch) == before
        other.barrier()
        assert other.unasked() == []
        assert other.ask_role(second.NOCHANGE, 0) == role
    other.barrier()
    assert other.unasked() == []
    # And it would have been told: of its own entry it is.
    other.ask_role(second.EQUAL)
    other.delete(THEIRS)
    other.wait("message of its own removed entry", lambda m: m.kind == second.FLOW_REMOVED)


async def test_a_monitor_of_everything_is_told_of_ours_and_their_end(switch: Switch, other: SecondController) -> None:
    """A flow monitor has no filter for cookies: who asks for all of a table sees ours come and go (docs/limits.md)."""
    other.monitor(1, 0)
    ofctl = OfCtl(switch.mgmt)
    async with OpenFlowChannel.open(switch.mgmt, ID) as channel:
        await ofctl.add_entries([entry(actions=COPY), entry("in_port=2", COPY, index=2)])
        await channel.delete_by_cookie(OURS, MASK)
    other.barrier()
    told = [update for m in other.unasked() for update in second.updates(m)]
    assert sorted(told) == [(event, OURS | index) for event in (second.ADDED, second.DELETED) for index in (1, 2)]


async def test_its_packet_ins_are_its_own(switch: Switch, other: SecondController) -> None:
    other.entry(cookie=THEIRS, table=0, priority=10, ether_type=0x0800)
    await OfCtl(switch.mgmt).add_entries(
        [entry("in_port=1", f"{COPY},resubmit(,0)".replace("resubmit(,0)", "output:2"))]
    )
    async with OpenFlowChannel.open(switch.mgmt, ID) as channel:
        await switch.receive("p2", udp())
        other.wait("packet-in", lambda m: m.kind == second.PACKET_IN)
        assert await packet_ins(channel) == []
        await switch.receive("p1", udp())
        assert len(await packet_ins(channel)) == 1
    assert [m.kind for m in other.unasked()] == [second.PACKET_IN]


async def test_what_others_add_is_told_if_it_is_of_interest(switch: Switch) -> None:
    async with OpenFlowChannel.open(switch.mgmt, ID) as channel:
        await channel.watch(OURS, MASK)
        await channel.watch_others(10)
        for number, words in enumerate(
            (
                "actions=drop",
                "ip,reg9=5,actions=load:1->NXM_NX_REG11[]",
                "ip,reg10=0x4/0x4,actions=drop",
                "ip,actions=load:1->NXM_NX_REG10[26]",
                "ip,actions=clone(move:NXM_NX_REG10[26]->NXM_NX_REG0[0])",
                "ip,actions=set_field:1->xreg5",
                "ip,actions=learn(table=9,load:1->NXM_NX_REG10[26])",
                "ip,xxreg2=0,actions=drop",
            )
        ):
            switch.ofctl("add-flow", f"table={20 + number},cookie=0x{number:x},priority=5,{words}")
        switch.ofctl("add-flow", f"table=40,cookie={OURS | 9},hard_timeout=9,priority=5,actions=drop")
        switch.ofctl("mod-flows", "table=20,actions=load:1->NXM_NX_REG10[26]")
        told = []
        while not told or told[-1].table != 20:
            event = await next_event(channel, 10)
            assert isinstance(event, OtherEntry)
            told.append(event)
        assert [e.table for e in told] == [22, 23, 24, 25, 26, 27, 40, 20]
        assert (told[-2].cookie, told[-2].hard_timeout_s, told[-2].priority) == (OURS | 9, 9, 5)
        # And what was there before is told by a look at the bridge.
        assert await packet_ins(channel) == []


async def test_meters_and_entries_are_read_by_our_own_connection(switch: Switch) -> None:
    ofctl = OfCtl(switch.mgmt)
    await ofctl.add_meter(4711, 1009, 25)
    switch.ofctl("add-meter", "meter=4712,kbps,band=type=drop,rate=7")
    await ofctl.add_entries([entry("in_port=1", index=1), entry("in_port=2", index=2), entry(index=3, table=7)])
    switch.ofctl("add-flow", "table=0,cookie=0x99,priority=5,actions=drop")
    async with OpenFlowChannel.open(switch.mgmt, ID) as channel:
        assert await channel.meter(4711) == (1009, 25)
        assert await channel.meter(4712) == (0, 0)
        assert await channel.meter(4713) is None
        assert [await channel.count(OURS, MASK, table) for table in (0, 7, 8)] == [2, 1, 0]
        switch.ofctl("mod-meter", "meter=4711,pktps,burst,stats,band=type=drop,rate=5,burst_size=1")
        assert await channel.meter(4711) == (5, 1)
        switch.ofctl("del-meters")
        assert await channel.meter(4711) is None


async def test_ours_go_one_by_one_where_somebody_has_the_same_cookies(switch: Switch) -> None:
    ofctl = OfCtl(switch.mgmt)
    ours = [
        entry("ip,in_port=1,nw_tos=12", "drop", index=1),
        entry("ip,reg10=0/0xc000000,metadata=0x7,nw_tos=12", "drop", index=2, table=7),
        entry("", "drop", index=3, table=9),
    ]
    await ofctl.add_entries(ours)
    theirs = (
        f"table=0,cookie={OURS | 1},priority=65535,ip,in_port=2,nw_tos=12,actions=drop",
        f"table=7,cookie={OURS | 2},priority=65534,ip,reg10=0/0xc000000,metadata=0x7,nw_tos=12,actions=drop",
        f"table=9,cookie={OURS | 4},priority=5,actions=drop",
    )
    for line in theirs:
        switch.ofctl("add-flow", line)
    await ofctl.delete_exactly(ours)
    left = {(e.table, e.priority, e.cookie) for e in await ofctl.dump_entries()}
    assert left == {(0, 65535, OURS | 1), (7, 65534, OURS | 2), (9, 5, OURS | 4)}
    await ofctl.delete_exactly([])


async def test_ids_that_others_name_are_read_from_real_dumps(switch: Switch) -> None:
    switch.ofctl("add-meter", "meter=5,kbps,band=type=drop,rate=7")
    switch.ofctl("add-flow", "table=3,udp,actions=meter:5,controller(reason=action,max_len=9,id=20485,meter_id=262144)")
    switch.ofctl("add-flow", "table=4,actions=clone(controller(id=20486,userdata=00.01,pause)),controller:9")
    switch.ofctl("add-group", "group_id=9,type=all,bucket=actions=controller(id=20487)")
    ofctl = OfCtl(switch.mgmt)
    named = NamedIds()
    named.take((await ofctl.dump_text()).splitlines())
    named.take([actions for lists in (await ofctl.group_actions()).values() for actions in lists])
    assert named.controllers == {20485, 20486, 20487}
    assert named.meters == {5, 262144}
    switch.ofctl("del-groups")
