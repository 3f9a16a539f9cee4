"""The topology `plain`: bridges whose entries are in the topology, no OVN. Needs root; half a minute."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from faults import answers
from faults.answers import Answer
from faults.bridges import OUR_COOKIE
from faults.facts import PROGRAM, Facts
from test_lab import eventually, on, standing, start_traffic, vtrace

from vtrace.bench.capture import Sniffer
from vtrace.lab import state as lab_state

pytestmark = pytest.mark.lab

PACKETS = 20
BRIDGES = (("hv1", "br0"), ("hv2", "br0"), ("hv3", "br0"), ("hv3", "br1"))

Hop = tuple[str, str, str, str, str]
SAME_SERVER = (("hv1", "br0", "first_hop", "plain-a1", ""), ("hv1", "br0", "egress", "plain-a1", "plain-a2"))
SAME_SERVER_BACK = (("hv1", "br0", "first_hop", "plain-a2", ""), ("hv1", "br0", "egress", "plain-a2", "plain-a1"))
TUNNEL = (
    ("hv1", "br0", "first_hop", "plain-a1", ""),
    ("hv1", "br0", "remote_output", "plain-a1", "vx-hv2"),
    ("hv2", "br0", "ingress", "vx-hv1", ""),
    ("hv2", "br0", "egress", "vx-hv1", "plain-a3"),
)
TUNNEL_BACK = (
    ("hv2", "br0", "first_hop", "plain-a3", ""),
    ("hv2", "br0", "remote_output", "plain-a3", "vx-hv1"),
    ("hv1", "br0", "ingress", "vx-hv2", ""),
    ("hv1", "br0", "egress", "vx-hv2", "plain-a1"),
)
PATCH = (
    ("hv1", "br0", "first_hop", "plain-a1", ""),
    ("hv1", "br0", "remote_output", "plain-a1", "vx-hv3"),
    ("hv3", "br0", "ingress", "vx-hv1", ""),
    ("hv3", "br0", "remote_output", "vx-hv1", "to-br1"),
    ("hv3", "br1", "ingress", "to-br0", ""),
    ("hv3", "br1", "egress", "to-br0", "plain-b1"),
)
PATCH_BACK = (
    ("hv3", "br1", "first_hop", "plain-b1", ""),
    ("hv3", "br1", "remote_output", "plain-b1", "to-br0"),
    ("hv3", "br0", "ingress", "to-br1", ""),
    ("hv3", "br0", "remote_output", "to-br1", "vx-hv1"),
    ("hv1", "br0", "ingress", "vx-hv3", ""),
    ("hv1", "br0", "egress", "vx-hv3", "plain-a1"),
)
TRAFFICS = (("plain-a2", 4, "udp"), ("plain-a2", 6, "tcp"), ("plain-a3", 4, "udp"), ("plain-b1", 6, "udp"))
"""What plain-a1 sends."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Facts]:
    """The lab with traffic in it. Its VMs remember each other while a fault stands."""
    with standing("plain") as name:
        state = lab_state.require(name)
        remembering = [(a, b) for a in state.vms for b in state.vms if a != b and "plain-a1" in (a.name, b.name)]
        for vm, other in remembering:
            for address in other.addresses:
                words = (address, "lladdr", other.mac, "dev", "eth0", "nud", "permanent")
                on(name, vm.name, "ip", "neigh", "replace", *words)
        before = entries(name)
        for to, ip, proto in TRAFFICS:
            send(name, to, ip, proto)
        yield Facts(name)
        assert entries(name) == before


def send(lab: str, to: str, ip: int, proto: str) -> None:
    """Keep sending from plain-a1; returns when echoes came back."""
    counts = start_traffic(lab, "--from", "plain-a1", "--to", to, "--ip", str(ip), "--proto", proto)
    eventually(lambda: counts()["received"] >= 3, "echoes")


def entries(lab: str) -> dict[tuple[str, str], list[str]]:
    """All entries, meters and groups of each bridge. None of ours is among them."""
    found = {}
    for server, bridge in BRIDGES:
        script = (
            f"ovs-ofctl --no-stats dump-flows {bridge}; ovs-ofctl -O OpenFlow13 dump-meters {bridge}; "
            f"ovs-ofctl -O OpenFlow13 dump-groups {bridge}"
        )
        lines = [line.strip() for line in on(lab, server, "sh", "-c", script).splitlines()]
        assert not [line for line in lines if OUR_COOKIE.search(line)]
        found[server, bridge] = sorted(re.sub(r" \(xid=\w+\)", "", line) for line in lines)
    return found


def diagnose(lab: Facts, to: str, ip: int, proto: str = "udp", *options: str) -> Answer:
    """Ask why packets from plain-a1 are lost; no VM may see the color meanwhile."""
    words = ("--from", "plain-a1", "--to", to, "--ip", str(ip), "--proto", proto, "--packets", str(PACKETS))
    with ExitStack() as stack:
        vms = [vm.name for vm in lab_state.require(lab.lab).vms]
        sniffers = [stack.enter_context(Sniffer(lab_state.namespace(lab.lab, name))) for name in vms]
        answer = answers.diagnose(lab, *words, *options)
        seen = [packet for sniffer in sniffers for packet in sniffer.read()]
    assert len(seen) > PACKETS
    assert {packet.dscp for packet in seen} == {0}
    answers.check_sound(answer, PACKETS)
    assert not answer.document.get("notes"), answer.text()
    return answer


def hops(path: dict[str, object]) -> tuple[Hop, ...]:
    found = path["hops"]
    assert isinstance(found, list)
    return tuple((h["server"], h["vfd"], h["point"], h["in_port"], h["out_port"]) for h in found)


@contextmanager
def entry(lab: Facts, server: str, bridge: str, match: str, *, actions: str = "drop") -> Iterator[None]:
    """An entry that somebody adds by hand."""
    on(lab.lab, server, "ovs-ofctl", "add-flow", bridge, f"{match},actions={actions}")
    try:
        yield
    finally:
        on(lab.lab, server, "ovs-ofctl", "--strict", "del-flows", bridge, match)


@contextmanager
def missing(lab: Facts, server: str, bridge: str, match: str, output: str) -> Iterator[None]:
    """An entry that somebody deletes by hand."""
    on(lab.lab, server, "ovs-ofctl", "--strict", "del-flows", bridge, match)
    try:
        yield
    finally:
        on(lab.lab, server, "ovs-ofctl", "add-flow", bridge, f"{match},actions=output:{output}")


@contextmanager
def lossy(lab: Facts, *parameters: str) -> Iterator[None]:
    """A wire that loses tunnel packets (nft on its NODE)."""
    identifier = vtrace(lab.lab, "break", "physical_loss", *parameters).strip()
    try:
        yield
    finally:
        vtrace(lab.lab, "heal", identifier)


@pytest.mark.parametrize(
    ("to", "ip", "proto", "there", "back"),
    [
        ("plain-a2", 4, "udp", SAME_SERVER, SAME_SERVER_BACK),
        ("plain-a2", 6, "tcp", SAME_SERVER, SAME_SERVER_BACK),
        ("plain-a3", 4, "udp", TUNNEL, TUNNEL_BACK),
        ("plain-b1", 6, "udp", PATCH, PATCH_BACK),
    ],
)
def test_nothing_is_lost(
    lab: Facts, to: str, ip: int, proto: str, there: tuple[Hop, ...], back: tuple[Hop, ...]
) -> None:
    answer = diagnose(lab, to, ip, proto, "--direction", "both")
    assert (answer.code, answer.document["packets"]["delivered"]) == (0, 2 * PACKETS), answer.text()
    paths = {path["direction"]: hops(path) for path in answer.document["paths"]}
    assert paths == {"forward": there, "reply": back}, answer.text()


def test_an_entry_that_drops_among_the_acls(lab: Facts) -> None:
    """On the last bridge, behind the patch."""
    with entry(lab, "hv3", "br1", "table=10,priority=40000,udp6,ipv6_src=fd00:1:1::11"):
        answer = diagnose(lab, "plain-b1", 6)
    verdict, text = answer.first, answer.text()
    assert (answer.code, verdict["kind"], verdict["packets"]) == (1, "dropped", PACKETS), text
    assert (verdict["where"]["server"], verdict["where"]["vfd"]) == ("hv3", "br1"), text
    assert verdict["why"]["code"] == "foreign_flow_entry", text
    assert verdict["confidence"] >= 0.8, text
    assert "table=10,priority=40000,udp6,ipv6_src=fd00:1:1::11" in verdict["why"]["object"]["name"], text
    assert hops(answer.document["paths"][0]) == PATCH[:-1], text


def test_a_forwarding_entry_that_is_gone(lab: Facts) -> None:
    with missing(lab, "hv1", "br0", "table=20,priority=100,dl_dst=0a:00:00:00:00:03", "vx-hv2"):
        answer = diagnose(lab, "plain-a3", 4)
    verdict, text = answer.first, answer.text()
    assert (answer.code, verdict["kind"], verdict["packets"]) == (1, "dropped", PACKETS), text
    assert (verdict["where"]["server"], verdict["where"]["vfd"]) == ("hv1", "br0"), text
    assert verdict["why"]["code"] == "foreign_flow_entry", text
    assert "table 20 of the bridge br0 on hv1 has no entry for it" in verdict["why"]["summary"], text


def test_a_loss_on_a_wire(lab: Facts) -> None:
    with lossy(lab, "a=hv1", "b=hv2", "direction=a-b"):
        answer = diagnose(lab, "plain-a3", 4)
    verdict, text = answer.first, answer.text()
    assert (answer.code, verdict["kind"], verdict["packets"]) == (1, "lost_between", PACKETS), text
    assert (verdict["where"]["server"], verdict["where"]["next_server"]) == ("hv1", "hv2"), text
    assert verdict["why"]["code"] == "physical_loss", text
    assert hops(answer.document["paths"][0]) == TUNNEL[:2], text


def test_what_is_lost_is_not_ours(lab: Facts) -> None:
    """All of the faults above, each beside the traffic that is asked about."""
    with (
        entry(lab, "hv1", "br0", "table=10,priority=40000,udp,nw_dst=10.1.1.13,tp_dst=9"),
        entry(lab, "hv2", "br0", "table=10,priority=40000,udp,nw_dst=10.1.1.12"),
        entry(lab, "hv2", "br0", "table=10,priority=40000,udp6,ipv6_src=fd00:1:1::11"),
        missing(lab, "hv1", "br0", "table=20,priority=100,dl_dst=0a:00:00:00:00:04", "vx-hv3"),
        lossy(lab, "a=hv1", "b=hv2", "direction=b-a"),
        lossy(lab, "a=hv1", "b=hv3"),
    ):
        answer = diagnose(lab, "plain-a3", 4)
    assert (answer.code, answer.document["packets"]["delivered"]) == (0, PACKETS), answer.text()
    assert hops(answer.document["paths"][0]) == TUNNEL


def test_arp_and_neighbor_discovery_pass_the_bridges(lab: Facts) -> None:
    for address, mac in (("10.1.1.14", "0a:00:00:00:00:04"), ("fd00:1:1::14", "0a:00:00:00:00:04")):
        on(lab.lab, "plain-a2", "ip", "neigh", "flush", "to", address)
        on(lab.lab, "plain-a2", "ping", "-c1", "-W5", address)
        assert mac in on(lab.lab, "plain-a2", "ip", "neigh", "show", address)


def test_there_is_no_ovn(lab: Facts) -> None:
    refused = vtrace(lab.lab, "break", "acl_drop", "from=plain-a1", "to=plain-a2", code=2)
    assert f"acl_drop needs OVN, and lab '{lab.lab}' has none" in refused
    assert [node["name"] for node in lab.status["nodes"] if node["role"] == "central"] == ["central"]
    assert "dead" not in vtrace(lab.lab, "status")
    assert "table=30" in vtrace(lab.lab, "exec", "hv1", "--", "ovs-ofctl", "dump-flows", "br0")


def test_by_its_inventory_file(lab: Facts) -> None:
    """Which `lab up` wrote; a VM by its address and VPC."""
    path = str(lab_state.inventory_file(lab.lab))
    words = (
        "--inventory",
        path,
        "--from",
        "plain/10.1.1.11",
        "--to",
        "plain-a3",
        "--proto",
        "udp",
        "--packets",
        "5",
        "--json",
    )
    done = subprocess.run([*PROGRAM, "diagnose", *words], capture_output=True, timeout=60, check=True)
    document = json.loads(done.stdout)
    assert (document["loss"], document["packets"]["delivered"]) == ("no", 5)
