"""Traffic between a VPC and a customer's data center, diagnosed: whole ways, a loss at each device, and near-misses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crossing import cases, faults
from crossing.color import check_marks
from crossing.running import PACKETS, apply, pinging, run_all, running, up
from crossing.ways import DATACENTER
from faults import answers
from faults.facts import Facts
from faults.model import Do
from faults.running import is_soak
from test_lab import on

pytestmark = pytest.mark.lab

OUT, IN, OUT_REPLY, IN_REPLY = DATACENTER
LOOP = ("red-vbr", "10.50.1.10/32", "100.64.0.1")
PROVIDER_ENTRY = "priority=400,icmp,nw_dst=10.50.1.10"


@pytest.fixture(scope="module")
def lab() -> Iterator[Facts]:
    with up("datacenter") as found:
        yield found


def batches() -> Iterator[object]:
    """The chosen ones."""
    for batch in cases.chosen(DATACENTER):
        yield pytest.param(batch, id=cases.name_of(batch))


@pytest.mark.parametrize("batch", list(batches()))
def test_each_device(lab: Facts, batch: cases.Batch) -> None:
    run_all(lab, cases.build(batch, lab))


def test_a_route_that_says_discard(lab: Facts) -> None:
    """For one VM; another one is still reached."""
    lost = cases.one(IN, 4, "icmp", lab, faults.discard, "red-vbr")
    run_all(lab, [lost, cases.one(OUT_REPLY, 4, "udp", lab, number=1)])


def test_the_vpc_has_no_route_out(lab: Facts) -> None:
    lost = cases.one(OUT, 6, "udp", lab, faults.no_route, "red-router")
    run_all(lab, [lost, cases.one(OUT, 4, "tcp", lab, number=1)])


def test_the_customer_withdraws_a_prefix(lab: Facts) -> None:
    """That of one IP version; the other is still announced."""
    lost = cases.one(OUT, 4, "udp", lab, faults.withdrawn, "red-vbr")
    run_all(lab, [lost, cases.one(OUT, 6, "udp", lab, number=1)])


@pytest.mark.parametrize("ip", [4, 6])
def test_the_customers_router_does_not_answer_arp(lab: Facts, ip: int) -> None:
    version, other = (4, 6) if ip == 4 else (6, 4)
    lost = cases.one(OUT, version, "udp", lab, faults.silent_next_hop, "red-vbr")  # type: ignore[arg-type]
    run_all(lab, [lost, cases.one(OUT, other, "icmp", lab, number=1)])  # type: ignore[arg-type]


def test_a_wire_loses_what_goes_to_the_gateway(lab: Facts) -> None:
    """From hv1; what comes from hv2 is not touched."""
    lost = cases.one(OUT, 4, "udp", lab, faults.wire, OUT.crossing.vfd)
    run_all(lab, [lost, cases.one(IN_REPLY, 4, "icmp", lab, number=1)])


def test_the_way_back_has_no_route(lab: Facts) -> None:
    """The forward direction leaves the domain whole; the replies are lost at the vBRouter, and only they."""
    run = cases.one(OUT_REPLY, 4, "udp", lab, faults.no_route, "red-vbr")
    with running(lab, [run]):
        start, end = OUT_REPLY.task[4]
        words = ("--from", start, "--to", end, "--proto", "udp", "--direction", "both", "--packets", str(PACKETS))
        answer = answers.diagnose(lab, *words)
    text = answer.text()
    answers.check_sound(answer, PACKETS)
    assert (answer.document["loss"], answer.code) == ("yes", 1), text
    assert {p["direction"]: p["loss"] for p in answer.document["pairs"]} == {"forward": "no", "reply": "yes"}, text
    first = answer.first
    place = (first["where"]["server"], first["where"]["vfd"], first["why"]["code"], first["why"]["object"]["name"])
    assert place == ("gw1", "red-vbr", "no_route", "red-vbr"), text


def test_what_the_customer_itself_drops_is_no_loss_of_ours(lab: Facts) -> None:
    chain = "chain c { type filter hook input priority 0; ip saddr 10.1.1.11 drop; }"
    apply(lab, [Do("customer1", ("nft", f"table inet injected {{ {chain}; }}"))])
    try:
        with pinging(lab, "red-web1", "10.50.1.10"):
            answer = answers.diagnose(lab, *cases.one(OUT, 4, "icmp", lab).arguments)
    finally:
        apply(lab, [Do("customer1", ("nft", "delete", "table", "inet", "injected"))])
    assert (answer.document["loss"], answer.code, answer.first["kind"]) == ("no", 0, "left_domain"), answer.text()


@pytest.mark.parametrize("ip", [4, 6])
@pytest.mark.parametrize("way", [OUT, IN], ids=lambda way: way.name)
def test_the_color_stays_inside(lab: Facts, way: cases.Way, ip: int) -> None:
    check_marks(lab, way, 4 if ip == 4 else 6)


@pytest.fixture
def loop(lab: Facts) -> Iterator[None]:
    """The vBRouter and the VPC's router send the packets to and fro."""
    apply(lab, [faults.nb("lr-route-add", *LOOP)])
    yield
    apply(lab, [faults.nb("lr-route-del", *LOOP[:2])])


def test_a_loop_of_routes(lab: Facts, loop: None) -> None:
    """Open vSwitch gives up before the TTL ends."""
    with pinging(lab, "red-web1", "10.50.1.10"):
        answer = answers.diagnose(lab, *cases.one(OUT, 4, "icmp", lab).arguments)
    verdict, text = answer.first, answer.text()
    assert (answer.document["loss"], verdict["kind"], verdict["where"]["server"]) == ("yes", "dropped", "gw1"), text
    assert verdict["why"]["code"] in ("vswitch_pipeline_error", "ttl_exceeded"), text
    assert all(name in verdict["why"]["summary"] for name in ("red-router", "red-vbr")), text


def test_a_loop_in_which_the_ttl_ends(lab: Facts, loop: None) -> None:
    with pinging(lab, "red-web1", "-t", "7", "10.50.1.10"):
        answer = answers.diagnose(lab, *cases.one(OUT, 4, "icmp", lab).arguments)
    verdict, text = answer.first, answer.text()
    place = (verdict["where"]["server"], verdict["where"]["vfd"], verdict["why"]["code"])
    assert place == ("gw1", "red-router", "ttl_exceeded"), text
    assert all(name in verdict["why"]["summary"] for name in ("red-router", "red-join", "red-vbr")), text


def test_an_entry_of_the_provider_networks_bridge(lab: Facts) -> None:
    """Still on our server: behind the last logical port, before the wire to the customer."""
    on(lab.lab, "gw1", "ovs-ofctl", "add-flow", "br-peering", f"{PROVIDER_ENTRY},actions=drop")
    try:
        with pinging(lab, "red-web1", "10.50.1.10"):
            answer = answers.diagnose(lab, *cases.one(OUT, 4, "icmp", lab).arguments)
    finally:
        on(lab.lab, "gw1", "ovs-ofctl", "--strict", "del-flows", "br-peering", PROVIDER_ENTRY)
    verdict, text = answer.first, answer.text()
    assert (answer.document["loss"], verdict["kind"], verdict["where"]["server"]) == ("yes", "dropped", "gw1"), text
    assert verdict["why"]["code"] == "foreign_flow_entry", text


@pytest.mark.skipif(not is_soak(), reason="takes 15 s: VTRACE_SOAK=1 runs it")
def test_a_dead_gateway(lab: Facts) -> None:
    daemons = ("ovn-controller", "ovs-vswitchd")
    pids = " ".join(f"$(cat $OVS_RUNDIR/{name}.pid)" for name in daemons)
    on(lab.lab, "gw1", "sh", "-c", f"kill -STOP {pids}")
    try:
        with pinging(lab, "red-web1", "10.50.1.10"):
            answer = answers.diagnose(lab, *cases.one(OUT, 4, "icmp", lab).arguments)
    finally:
        on(lab.lab, "gw1", "sh", "-c", f"kill -CONT {pids}")
    assert "error" not in answer.document, answer.text()
    assert answer.first["why"]["code"] == "gateway_unavailable", answer.text()
