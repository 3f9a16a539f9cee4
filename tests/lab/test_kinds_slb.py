"""Through a load balancer, diagnosed: to a VIP, to a backend behind it, and back; and backends that are not there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crossing.running import CrossingFacts, apply
from faults.answers import Answer
from faults.facts import Facts
from kinds import cases, faults
from kinds.faults import nb
from kinds.running import diagnose_all, make, run_all, running
from kinds.ways import BACKEND, FROM_VIP, SLB, SLB_WAYS, VIP, Ip
from test_lab import eventually, on, standing, start_traffic, vtrace

pytestmark = pytest.mark.lab


def balancer(facts: Facts) -> str:
    find = ("ovn-nbctl", "--bare", "--columns=_uuid", "find", "Load_Balancer", "name=any")
    return facts.execute("central", *find).strip()


def backends(facts: Facts, *names: str) -> None:
    """Give the VIP that takes all ports these backends; hv1 forgets its connections, so that all are new."""
    words = []
    for ip in (0, 1):
        vip = SLB["vip"][ip]
        ends = ",".join({"web2": SLB["web2"], "web3": ("10.1.2.13", "fd00:1:2::13")}[name][ip] for name in names)
        words.append(f'vips:"{vip}"="{ends}"')
    apply(facts, [nb("set", "Load_Balancer", balancer(facts), *words)])
    facts.execute("hv1", "ovs-appctl", "dpctl/flush-conntrack")


@pytest.fixture(scope="module")
def lab() -> Iterator[Facts]:
    """With one backend, so that it is known which one is chosen."""
    with standing("slb") as name:
        facts = CrossingFacts(name)
        backends(facts, "web2")
        yield facts


@pytest.mark.parametrize("batch", cases.chosen(SLB_WAYS), ids=cases.name_of)
def test_each_device(lab: Facts, batch: cases.Batch) -> None:
    run_all(lab, cases.build(batch, lab))


def test_wires(lab: Facts) -> None:
    run_all(lab, [make(lab, 40, VIP, 4, "udp", faults.wire(4))])
    run_all(lab, [make(lab, 41, FROM_VIP, 6, "udp", faults.wire(3))])


def check(answer: Answer, code: str, place: tuple[str, str, str], facts: Facts) -> None:
    verdict, text = answer.first, answer.text()
    where, why = verdict["where"], verdict["why"]
    assert (answer.document["loss"], verdict["kind"], verdict["pattern"]) == ("yes", "dropped", "persistent"), text
    assert (where["server"], where["vfd"], where["vfd_kind"]) == place, text
    assert (why["code"], why["actor"], why["object"]["type"]) == (code, "tenant", "Load_Balancer"), text
    assert why["object"]["uuid"] == balancer(facts), text
    assert verdict["confidence"] >= 0.8, text


@pytest.mark.parametrize("ip", [4, 6])
def test_a_vip_without_a_backend(lab: Facts, ip: Ip) -> None:
    run = make(lab, 42, VIP, ip, "udp")
    with running(lab, [run]) as capture:
        backends(lab)
        try:
            capture.forget()
            (found,) = diagnose_all(lab, [run])
            capture.read()
        finally:
            backends(lab, "web2")
        assert not capture.colored()
        assert not capture.arrived(run)
    check(found, "lb_no_backend", ("hv1", "any", "slb"), lab)


def test_a_backend_whose_port_nobody_has(lab: Facts) -> None:
    """The interface loses its name; the load balancer has no health check, and goes on giving it packets."""
    runs = [make(lab, 43, VIP, 4, "udp"), make(lab, 44, BACKEND, 4, "udp")]
    bound = ("ovn-sbctl", "--bare", "--columns=chassis", "find", "Port_Binding", "logical_port=red-web2")
    with running(lab, runs):
        lab.execute("hv2", "ovs-vsctl", "remove", "Interface", "red-web2", "external_ids", "iface-id")
        eventually(lambda: not on(lab.lab, "central", *bound).strip(), "the port to be unbound")
        try:
            found = diagnose_all(lab, runs)
        finally:
            lab.execute("hv2", "ovs-vsctl", "set", "Interface", "red-web2", "external_ids:iface-id=red-web2")
            eventually(lambda: bool(on(lab.lab, "central", *bound).strip()), "the port to be bound")
    for answer in found:
        check(answer, "lb_backend_down", ("hv1", "red-web", "vswitch"), lab)


def test_packets_for_other_backends_are_counted_apart(lab: Facts) -> None:
    """Of two backends: what the other one gets is neither lost nor part of N."""
    backends(lab, "web2", "web3")
    try:
        run = make(lab, 45, BACKEND, 4, "udp")
        words = ("--from", "red-client1", "--to", SLB["vip"][0], "--proto", "udp", "--dport", str(run.packets.port))
        counts = start_traffic(lab.lab, *words, "--flows", "16", "--rate", "200")
        eventually(lambda: counts()["received"] > 0, "echoes")
        (found,) = diagnose_all(lab, [run])
    finally:
        vtrace(lab.lab, "traffic stop")
        backends(lab, "web2")
    assert found.document["loss"] == "no", found.text()
    assert found.first["kind"] == "delivered", found.text()
    assert found.first["where"]["server"] == "hv2", found.text()
    assert found.document["cost"]["packets_for_others"] > 0, found.text()
