"""The whole way on two switches without OVN: an inventory file, real packets, a fault, the verdict."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from private_switch import Switch
from wired_switches import VM1_IP, VM1_MAC, VM2_IP, VM2_MAC, Wired, frames, packet, tos_of

from vtrace.agent.plain import PlainAgent
from vtrace.embedded import Cloud, diagnose
from vtrace.model.answer import Answer, Verdict
from vtrace.model.plain import PlainServer
from vtrace.model.task import TaskSpec, TrafficFilter
from vtrace.plain.inventory_file import parse
from vtrace.plain.topology import PlainBridge

pytestmark = [pytest.mark.ovs, pytest.mark.anyio]

FILE = """
[[server]]
name = "left"
rundir = "{left}"
bridges = ["br0"]

[[server]]
name = "right"
rundir = "{right}"
bridges = ["br0"]

[[endpoint]]
name = "vm1"
server = "left"
bridge = "br0"
port = "vm"
mac = "{mac1}"
addresses = ["{ip1}"]

[[endpoint]]
name = "vm2"
server = "right"
bridge = "br0"
port = "vm"
mac = "{mac2}"
addresses = ["{ip2}"]

[[link]]
kind = "wire"
ends = [
  {{ server = "left", bridge = "br0", port = "wire" }},
  {{ server = "right", bridge = "br0", port = "wire" }},
]
"""
THROUGH = ("in_port=11,actions=output:12", "in_port=12,actions=output:11")
STAGED = (
    "priority=10,actions=resubmit(,10)",
    "table=10,priority=50,in_port=11,ip,actions=load:12->NXM_NX_REG0[0..15],resubmit(,20)",
    "table=10,priority=50,in_port=12,ip,actions=load:11->NXM_NX_REG0[0..15],resubmit(,20)",
    "table=20,priority=1,actions=resubmit(,30)",
    "table=30,actions=output:NXM_NX_REG0[0..15]",
)


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


def put(switch: Switch, *lines: str) -> None:
    for line in lines:
        switch.ofctl("add-flow", line)


@asynccontextmanager
async def talking(wired: Wired) -> AsyncIterator[None]:
    """vm1 sends to vm2, and vm2 back, some fifty packets a second."""

    async def talk() -> None:
        number = 0
        while True:
            number += 1
            await wired.left.receive("vm", packet(number=number))
            await wired.right.receive("vm", packet(number=number, back=True))
            await anyio.sleep(0.02)

    async with anyio.create_task_group() as group:
        group.start_soon(talk)
        yield
        group.cancel_scope.cancel()


async def ask(wired: Wired, *, packets: int = 30, timeout_s: float = 12) -> Answer:
    """The answer while the VMs talk; no VM may have seen a color, nor anything be left."""
    async with talking(wired):
        return await ask_only(wired, packets, timeout_s)


async def ask_only(wired: Wired, packets: int = 30, timeout_s: float = 12) -> Answer:
    text = FILE.format(
        left=wired.left.rundir, right=wired.right.rundir, mac1=VM1_MAC, mac2=VM2_MAC, ip1=VM1_IP, ip2=VM2_IP
    )
    spec = TaskSpec(
        task_id="",
        sources=("vm1",),
        destinations=("vm2",),
        traffic=TrafficFilter(proto="udp", dport=80),
        packets=packets,
        timeout_s=timeout_s,
    )
    answer = await diagnose(spec, Cloud(nb="", sb="", servers=(), plain=parse(text, "plain.toml")), print)
    assert answer.cost.entries_left == 0
    for switch in (wired.left, wired.right):
        assert {tos_of(frame) for frame in wired.seen(switch, "vm") + wired.seen(switch, "other")} <= {0}
    return answer


def only(answer: Answer) -> Verdict:
    (verdict,) = [v for v in answer.verdicts if v.kind in ("dropped", "lost_between")]
    return verdict


@pytest.mark.parametrize("pipeline", [THROUGH, STAGED, ("actions=NORMAL",)], ids=["one table", "stages", "normal"])
async def test_no_loss(wired: Wired, pipeline: tuple[str, ...]) -> None:
    for switch in (wired.left, wired.right):
        put(switch, *pipeline)
    answer = await ask(wired)
    assert (answer.loss, answer.packets.delivered) == ("no", 30), answer
    (path,) = answer.paths
    assert [(hop.server, hop.vfd, hop.point, hop.in_port, hop.out_port) for hop in path.hops] == [
        ("left", "br0", "first_hop", "vm1", ""),
        ("left", "br0", "remote_output", "vm1", "wire"),
        ("right", "br0", "ingress", "wire", ""),
        ("right", "br0", "egress", "wire", "vm2"),
    ]


async def test_an_entry_that_drops(wired: Wired) -> None:
    for switch in (wired.left, wired.right):
        put(switch, *STAGED)
    put(wired.right, "table=20,cookie=0xbad,priority=9,udp,tp_dst=80,actions=drop")
    answer = await ask(wired)
    verdict = only(answer)
    assert (answer.loss, verdict.where.server, verdict.where.vfd) == ("yes", "right", "br0")
    assert verdict.why is not None
    assert verdict.why.object is not None
    assert (verdict.why.code, verdict.why.object.type, verdict.why.object.uuid) == (
        "foreign_flow_entry",
        "OpenFlow entry",
        "0xbad",
    )
    assert "table=20,priority=9,udp,tp_dst=80 actions=drop" in verdict.why.summary


async def test_a_table_without_an_entry(wired: Wired) -> None:
    put(wired.left, *(line for line in STAGED if "table=30" not in line), "table=30,arp,actions=output:12")
    put(wired.right, *STAGED)
    verdict = only(await ask(wired))
    assert (verdict.where.server, verdict.why.code) == ("left", "foreign_flow_entry")
    assert "table 30 of the bridge br0 on left has no entry for it" in verdict.why.summary


async def test_a_port_that_is_not_there(wired: Wired) -> None:
    put(wired.left, *THROUGH)
    put(wired.right, "in_port=12,actions=output:77", "in_port=11,actions=output:12")
    verdict = only(await ask(wired))
    assert (verdict.where.server, verdict.why.code) == ("right", "foreign_flow_entry")
    assert "outputs it to port 77" in verdict.why.summary


async def test_the_wrong_port(wired: Wired) -> None:
    put(wired.left, *THROUGH)
    put(wired.right, "in_port=12,actions=output:13", "in_port=11,actions=output:12")
    answer = await ask(wired)
    assert [v.kind for v in answer.verdicts if v.packets] == ["left_domain"]
    assert answer.verdicts[0].where.port == "other"


async def test_a_loss_on_the_wire(wired: Wired) -> None:
    for switch in (wired.left, wired.right):
        put(switch, *THROUGH)
    wired.cut()
    try:
        verdict = only(await ask(wired))
    finally:
        wired.mend()
    assert (verdict.kind, verdict.why.code) == ("lost_between", "physical_loss")
    assert (verdict.where.server, verdict.where.next_server, verdict.where.port) == ("left", "right", "wire")


async def test_an_end_that_is_gone(wired: Wired) -> None:
    for switch in (wired.left, wired.right):
        put(switch, *THROUGH)
    wired.right.vsctl("--", "del-port", "br0", "wire")
    try:
        verdict = only(await ask(wired))
    finally:
        wired.join()
    assert (verdict.kind, verdict.why.code) == ("lost_between", "tunnel_misconfigured")
    assert "wire of right is not there" in verdict.why.summary


async def test_entries_that_change_meanwhile_are_followed_anew(wired: Wired) -> None:
    for switch in (wired.left, wired.right):
        put(switch, *THROUGH)

    async def change() -> None:
        # Packets are on their way with a color: no event tells the test.
        while not any(tos_of(frame) for frame in wired.seen(wired.left, "wire")):  # noqa: ASYNC110
            await anyio.sleep(0.02)
        put(wired.left, "priority=40000,ip,in_port=11,actions=dec_ttl,output:12")

    async with anyio.create_task_group() as group:
        group.start_soon(change)
        answer = await ask(wired, packets=150)  # three seconds: the bridge is looked at twice in one
    assert answer.loss == "no", answer
    assert any("changed; armed again" in note for note in answer.notes)


PATCHED = """
[[server]]
name = "left"
rundir = "{left}"
bridges = ["br0", "br1"]

[[endpoint]]
name = "vm1"
server = "left"
bridge = "br0"
port = "vm"
mac = "{mac1}"
addresses = ["{ip1}"]

[[endpoint]]
name = "vm2"
server = "left"
bridge = "br1"
port = "far"
mac = "{mac2}"
addresses = ["{ip2}"]

[[link]]
kind = "patch"
ends = [
  {{ server = "left", bridge = "br0", port = "to-br1" }},
  {{ server = "left", bridge = "br1", port = "to-br0" }},
]
"""


@pytest.fixture
def patched(wired: Wired) -> Iterator[Wired]:
    left = wired.left
    left.vsctl("add-br", "br1", "--", "set", "bridge", "br1", "datapath_type=dummy", "fail_mode=secure")
    for bridge, name, peer in (("br0", "to-br1", "to-br0"), ("br1", "to-br0", "to-br1")):
        left.vsctl(
            "add-port", bridge, name, "--", "set", "interface", name, "type=patch", f"options:peer={peer}",
            "ofport_request=20",
        )  # fmt: skip
    far = ("type=dummy", "ofport_request=21", f"options:tx_pcap={left.rundir}/far.pcap")
    left.vsctl("add-port", "br1", "far", "--", "set", "interface", "far", *far)
    yield wired
    left.vsctl("del-br", "br1", "--", "del-port", "br0", "to-br1")


@pytest.mark.parametrize("drops", [False, True])
async def test_a_patch_between_two_bridges_of_a_server(patched: Wired, drops: bool) -> None:
    left = patched.left
    put(left, "in_port=11,actions=output:20", "in_port=20,actions=output:11")
    for line in ("in_port=20,actions=output:21", *(["priority=40000,udp,actions=drop"] if drops else [])):
        left.ofctl("add-flow", line, bridge="br1")
    text = PATCHED.format(left=left.rundir, mac1=VM1_MAC, mac2=VM2_MAC, ip1=VM1_IP, ip2=VM2_IP)
    spec = TaskSpec(task_id="", sources=("vm1",), destinations=("vm2",), packets=20, timeout_s=12)
    before = len(frames(left, "far"))
    async with talking(patched):
        answer = await diagnose(spec, Cloud(nb="", sb="", servers=(), plain=parse(text, "plain.toml")), print)
    assert {tos_of(frame) for frame in frames(left, "far")[before:]} == ({0} if not drops else set())
    if not drops:
        assert (answer.loss, answer.packets.delivered) == ("no", 20), answer
        (path,) = answer.paths
        assert [(hop.vfd, hop.point, hop.in_port, hop.out_port) for hop in path.hops] == [
            ("br0", "first_hop", "vm1", ""),
            ("br0", "remote_output", "vm1", "to-br1"),
            ("br1", "ingress", "to-br0", ""),
            ("br1", "egress", "to-br0", "vm2"),
        ]
        return
    verdict = only(answer)
    assert (verdict.where.vfd, verdict.why.code) == ("br1", "foreign_flow_entry")
    assert "table=0,priority=40000,udp actions=drop of the bridge br1 on left drops it" in verdict.why.summary


async def test_two_tasks_at_once(wired: Wired) -> None:
    for switch in (wired.left, wired.right):
        put(switch, *STAGED)
    answers: list[Answer] = []

    async def one() -> None:
        answers.append(await ask_only(wired))

    async with talking(wired), anyio.create_task_group() as group:
        group.start_soon(one)
        group.start_soon(one)
    assert [(a.loss, a.packets.delivered) for a in answers] == [("no", 30)] * 2, answers


async def test_two_vms_of_one_bridge(wired: Wired) -> None:
    left = wired.left
    put(left, "actions=resubmit(,1)", "table=1,in_port=11,actions=output:13", "table=1,in_port=13,actions=output:11")
    server, _, rest = PATCHED.partition("[[endpoint]]")
    text = (server + "[[endpoint]]" + rest.partition("[[link]]")[0]).format(
        left=left.rundir, mac1=VM1_MAC, mac2=VM2_MAC, ip1=VM1_IP, ip2=VM2_IP
    )
    text = text.replace('"br0", "br1"', '"br0"').replace('"br1"', '"br0"').replace('"far"', '"other"')
    spec = TaskSpec(task_id="", sources=("vm1",), destinations=("vm2",), packets=20, timeout_s=12)
    async with talking(wired):
        answer = await diagnose(spec, Cloud(nb="", sb="", servers=(), plain=parse(text, "plain.toml")), print)
    assert (answer.loss, answer.packets.delivered, answer.cost.entries_left) == ("no", 20, 0), answer
    assert {tos_of(frame) for frame in wired.seen(left, "other")} == {0}
    (path,) = answer.paths
    assert [hop.point for hop in path.hops] == ["first_hop", "egress"]


async def test_a_bridge_that_is_looked_at_is_left_in_peace(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word, whatever the look was doing."""
    put(wired.left, *THROUGH)
    monkeypatch.setattr("vtrace.agent.plain.LOOK_EVERY_S", 0)
    said: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    server = PlainServer(name="left", rundir=wired.left.rundir, bridges=("br0",))
    place = PlainBridge(
        server=server, bridge="br0", chassis="left/br0", key=1, links=(), names={}, tags={}, macs=frozenset()
    )
    for number in range(20):
        async with PlainAgent.at(place, bytes(32), "0" * 16, 60) as agent:
            await agent.survey()
            await anyio.sleep(number / 1000)
    assert not said
