"""Traffic between two VPCs, diagnosed: whole ways, a loss at each virtual device, and what looks like one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crossing import cases, faults
from crossing.color import check_marks
from crossing.running import PACKETS, apply, pinging, run_all, running, up
from crossing.ways import VPCS
from faults import answers
from faults.facts import Facts
from test_lab import on

pytestmark = pytest.mark.lab

THERE, BACK, LOCAL, REPLY = VPCS
SAME_ADDRESS = "0a:00:99:00:00:01 10.2.1.12"
LOOP = ("blue-router", "10.2.1.12/32", "169.254.100.1")


@pytest.fixture(scope="module")
def lab() -> Iterator[Facts]:
    with up("vpc-vpc") as found:
        yield found


@pytest.mark.parametrize("batch", cases.chosen(VPCS), ids=cases.name_of)
def test_each_device(lab: Facts, batch: cases.Batch) -> None:
    run_all(lab, cases.build(batch, lab))


def test_a_route_that_says_discard(lab: Facts) -> None:
    """For one VM of the other VPC; its neighbor is still reached."""
    lost = cases.one(THERE, 4, "icmp", lab, faults.discard, "blue-router")
    run_all(lab, [lost, cases.one(LOCAL, 4, "udp", lab, number=1)])


def test_no_route_into_the_other_vpc(lab: Facts) -> None:
    """Of one IP version; the other one is not touched."""
    lost = cases.one(THERE, 6, "udp", lab, faults.no_route, "red-router")
    run_all(lab, [lost, cases.one(THERE, 4, "tcp", lab, number=1)])


def test_the_way_back_has_no_route(lab: Facts) -> None:
    """The forward direction is whole; the replies are lost, and only they."""
    run = cases.one(REPLY, 4, "udp", lab, faults.no_route, "blue-router")
    with running(lab, [run]):
        start, end = REPLY.task[4]
        words = ("--from", start, "--to", end, "--proto", "udp", "--direction", "both", "--packets", str(PACKETS))
        answer = answers.diagnose(lab, *words)
    text = answer.text()
    answers.check_sound(answer, PACKETS)
    assert (answer.document["loss"], answer.code) == ("yes", 1), text
    assert {p["direction"]: p["loss"] for p in answer.document["pairs"]} == {"forward": "no", "reply": "yes"}, text
    first = answer.first
    place = (first["where"]["server"], first["where"]["vfd"], first["why"]["code"], first["why"]["object"]["name"])
    assert place == ("hv2", "blue-router", "no_route", "blue-router"), text


def test_a_wire_loses_what_goes_one_way(lab: Facts) -> None:
    """From hv1 to hv2; what goes from hv3 to hv2 is not touched."""
    lost = cases.one(THERE, 4, "udp", lab, faults.wire, THERE.crossing.vfd)
    run_all(lab, [lost, cases.one(BACK, 4, "icmp", lab, number=1)])


@pytest.mark.parametrize("ip", [4, 6])
def test_the_color_stays_inside(lab: Facts, ip: int) -> None:
    check_marks(lab, THERE, 4 if ip == 4 else 6)


def test_a_third_vpc_with_the_same_address(lab: Facts) -> None:
    """By its address alone a VM is ambiguous; by name or VPC nothing changes."""
    name = "external_ids:vtrace\\:vpc=green"
    made = ("ls-add", "green", "--", "set", "Logical_Switch", "green", name, "--", "lsp-add", "green", "green-x")
    on(lab.lab, "central", "ovn-nbctl", *made, "--", "lsp-set-addresses", "green-x", SAME_ADDRESS)
    try:
        unsure = answers.diagnose(lab, "--from", "red-web1", "--to", "10.2.1.12")
        assert (unsure.code, set(unsure.document)) == (2, {"error"})
        for words in ("blue/10.2.1.12", "green/10.2.1.12"):
            assert words in unsure.document["error"]["why"]
        run_all(lab, [cases.one(THERE, 4, "udp", lab)])
    finally:
        on(lab.lab, "central", "ovn-nbctl", "ls-del", "green")


@pytest.fixture
def loop(lab: Facts) -> Iterator[None]:
    """The routers of the two VPCs send the packets to and fro."""
    apply(lab, [faults.nb("lr-route-add", *LOOP)])
    yield
    apply(lab, [faults.nb("lr-route-del", *LOOP[:2])])


def test_a_loop_of_routes(lab: Facts, loop: None) -> None:
    """Open vSwitch gives up before the TTL ends."""
    with pinging(lab, "red-web1", "10.2.1.12"):
        answer = answers.diagnose(lab, *cases.one(THERE, 4, "icmp", lab).arguments, "--timeout", "8")
    verdict, text = answer.first, answer.text()
    assert (answer.document["loss"], verdict["kind"], verdict["where"]["server"]) == ("yes", "dropped", "hv1"), text
    assert verdict["why"]["code"] in ("vswitch_pipeline_error", "ttl_exceeded"), text
    assert all(name in verdict["why"]["summary"] for name in ("red-router", "blue-router")), text


def test_a_loop_in_which_the_ttl_ends(lab: Facts, loop: None) -> None:
    with pinging(lab, "red-web1", "-t", "9", "10.2.1.12"):
        answer = answers.diagnose(lab, *cases.one(THERE, 4, "icmp", lab).arguments)
    verdict, text = answer.first, answer.text()
    place = (verdict["where"]["server"], verdict["where"]["vfd"], verdict["why"]["code"])
    assert place == ("hv1", "red-router", "ttl_exceeded"), text
    assert all(name in verdict["why"]["summary"] for name in ("red-router", "transit", "blue-router")), text
