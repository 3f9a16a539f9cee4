"""VPC and Internet, diagnosed: floating addresses, central and distributed, and the shared one, both ways."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from crossing.running import CrossingFacts, apply
from faults import answers
from faults.answers import Answer
from faults.facts import Facts
from faults.model import Do
from faults.running import lab_command
from kinds import cases, faults
from kinds.faults import nb
from kinds.running import PACKETS, Run, diagnose_all, make, run_all, running
from kinds.ways import CENTRAL, CENTRAL_IN, DISTRIBUTED, INTERNET_WAYS, QUIET, SHARED
from test_lab import eventually, on, standing

pytestmark = pytest.mark.lab

SNAT = ("red-router", "snat", "10.1.1.0/24")
SILENT_S = 6
"""For what sees nothing until its time limit."""
FLOATING = ("red-router", "dnat_and_snat", "203.0.113.21")


@pytest.fixture(scope="module")
def lab() -> Iterator[Facts]:
    with standing("internet") as name:
        yield CrossingFacts(name)


@pytest.mark.parametrize("batch", cases.chosen(INTERNET_WAYS), ids=cases.name_of)
def test_each_device(lab: Facts, batch: cases.Batch) -> None:
    run_all(lab, cases.build(batch, lab))


def one(facts: Facts, run: Run) -> Answer:
    (found,) = diagnose_all(facts, [run])
    answers.check_sound(found, PACKETS)
    return found


def told(answer: Answer) -> tuple[str, str, str, str]:
    verdict = answer.first
    why = verdict["why"] or {"code": "", "object": None}
    return answer.document["loss"], verdict["kind"], why["code"], (why["object"] or {"type": ""})["type"]


def test_a_wire_to_a_vm_loses_what_comes_in(lab: Facts) -> None:
    run_all(lab, [make(lab, 40, CENTRAL_IN, 4, "udp", faults.wire(3)), make(lab, 41, DISTRIBUTED, 4, "tcp")])


def test_what_leaves_untranslated_is_said_to_have_left_for_nothing(lab: Facts) -> None:
    """Without its SNAT row; a VM with a floating address goes on."""
    lost, other = make(lab, 42, SHARED, 4, "udp"), make(lab, 43, CENTRAL, 4, "udp")
    with running(lab, [lost, other]):
        apply(lab, [nb("lr-nat-del", *SNAT)])
        try:
            found, healthy = diagnose_all(lab, [lost, other])
        finally:
            apply(lab, [nb("lr-nat-add", "red-router", "snat", "203.0.113.20", "10.1.1.0/24")])
    where = found.first["where"]
    assert told(found) == ("yes", "left_domain", "nat_missing", "Logical_Router"), found.text()
    assert (where["server"], where["vfd"], where["port"]) == ("gw1", "public", "public-localnet"), found.text()
    assert told(healthy)[:3] == ("no", "left_domain", ""), healthy.text()


def received(lab: Facts) -> dict[str, int]:
    """By source port, how many answers the programs that send got."""
    lines = lab_command(lab, "traffic", "list").splitlines()
    found = (re.search(r"\]:(3\d{4}) to .*sent [1-9]\d* received (\d+)", line) for line in lines)
    return {match[1]: int(match[2]) for match in found if match}


def test_a_row_with_fewer_ports_than_connections(lab: Facts) -> None:
    """Of three connections to one address and port two get one of its two ports; these are the near-miss."""
    wanted = ("type=snat", "external_ip=203.0.113.20")
    (row,) = lab.execute("central", "ovn-nbctl", "--bare", "--columns=_uuid", "find", "NAT", *wanted).split()
    lab.execute("central", "ovn-nbctl", "--wait=hv", "set", "NAT", row, "external_port_range=5000-5001")
    ports = ("30881", "30882", "30883")
    words = ("--from", "red-web3", "--to", "internet1", "--proto", "udp", "--dport", "9881", "--rate", "50")
    try:
        for port in ports:
            lab_command(lab, "traffic", "start", *words, "--sport", port)
        eventually(lambda: sorted(n > 0 for n in received(lab).values()) == [False, True, True], "two to be answered")
        for port in ports:
            flow = ("--proto", "udp", "--sport", port, "--dport", "9881", "--packets", "10")
            found = answers.diagnose(lab, "--from", "red-web3", "--to", "198.51.100.10", *flow)
            answers.check_sound(found, 10)
            if received(lab)[port]:
                assert told(found)[:3] == ("no", "left_domain", ""), found.text()
                continue
            assert told(found) == ("yes", "left_domain", "nat_port_exhausted", "NAT"), found.text()
            assert found.first["why"]["object"]["uuid"] == row, found.text()
            assert found.first["where"]["server"] == "gw1", found.text()
    finally:
        lab_command(lab, "traffic", "stop")
        lab.execute("central", "ovn-nbctl", "--wait=hv", "set", "NAT", row, 'external_port_range=""')


def test_nothing_comes_in_for_an_address_that_is_gone(lab: Facts) -> None:
    """Without its NAT row nobody answers ARP for the floating address."""
    run = make(lab, 44, CENTRAL_IN, 4, "udp")
    run.timeout_s = SILENT_S
    with running(lab, [run]) as capture:
        apply(lab, [nb("lr-nat-del", *FLOATING)])
        try:
            found = one(lab, run)
            capture.read()
        finally:
            apply(lab, [nb("lr-nat-add", *FLOATING, "10.1.1.11")])
        assert not capture.colored()
    assert told(found) == ("unknown", "no_traffic", "nat_missing", "Logical_Router"), found.text()


def test_the_providers_bridge_keeps_out_what_comes_in(lab: Facts) -> None:
    """It drops before br-int sees anything: no packet is colored, and the entry is named all the same."""
    run = make(lab, 45, CENTRAL_IN, 4, "udp", faults.provider_bridge(0))
    with running(lab, [run]):
        found = one(lab, run)
    assert told(found) == ("yes", "dropped", "foreign_flow_entry", "OpenFlow entry"), found.text()
    assert "br-public" in found.first["why"]["summary"], found.text()
    assert found.first["where"]["server"] == "gw1", found.text()


def test_what_the_outside_loses_is_none_of_ours(lab: Facts) -> None:
    """The box drops it: it left, nothing comes back, and that is said."""
    run = make(lab, 46, QUIET, 4, "udp")
    chain = f"chain c {{ type filter hook input priority 0; udp dport {run.packets.port} drop; }}"
    on(lab.lab, "internet1", "nft", f"table inet injected {{ {chain}; }}")
    try:
        with running(lab, [run]):
            # Any packet of that host that the datapath remembers is taken for an answer.
            lab.execute("gw1", "ovs-appctl", "dpctl/del-flows")
            found = one(lab, run)
    finally:
        on(lab.lab, "internet1", "nft", "delete", "table", "inet", "injected")
    assert (found.document["loss"], found.code) == ("no", 0), found.text()
    codes = {(v["kind"], (v["why"] or {"code": ""})["code"]) for v in found.document["verdicts"]}
    assert codes == {("left_domain", ""), ("no_traffic", "guest_not_answering")}, found.text()


def test_a_gateway_that_its_sender_takes_for_dead(lab: Facts) -> None:
    """The wire loses BFD too: packets go to the standby gateway, which does not have the port."""
    run = make(lab, 47, CENTRAL, 4, "udp", faults.wire(2))
    status = ("ovs-vsctl", "get", "Interface", "ovn-gw1-0", "bfd_status:state")
    with running(lab, [run]):
        eventually(lambda: "up" not in on(lab.lab, "hv1", *status), "BFD to be down", 20)
        found = one(lab, run)
    eventually(lambda: "up" in on(lab.lab, "hv1", *status), "BFD to be up", 20)
    assert told(found) == ("yes", "dropped", "gateway_unavailable", "HA_Chassis_Group"), found.text()
    where = found.first["where"]
    assert (where["server"], where["vfd"], where["vfd_kind"]) == ("gw2", "red-router", "vrouter"), found.text()
    assert "hv1" in found.first["why"]["summary"], found.text()
    assert "gw1" in found.first["why"]["summary"], found.text()


def test_no_live_gateway(lab: Facts) -> None:
    """The last one: both gateways' ovn-controllers are gone. Distributed addresses need none."""
    lost, inward, other = (make(lab, 48 + n, way, 4, "udp") for n, way in enumerate((SHARED, CENTRAL_IN, DISTRIBUTED)))
    inward.timeout_s = SILENT_S
    with running(lab, [lost, inward, other]):
        for server in ("gw1", "gw2"):
            lab.execute(server, "ovn-appctl", "-t", "ovn-controller", "exit")
        try:
            apply(lab, [])
            out, inn, healthy = diagnose_all(lab, [lost, inward, other])
        finally:
            start = "ovn-controller unix:$OVS_RUNDIR/db.sock --detach --pidfile --log-file"
            for server in ("gw1", "gw2"):
                apply(lab, [Do(server, ("sh", "-c", start))])
    assert told(out) == ("yes", "dropped", "gateway_unavailable", "HA_Chassis_Group"), out.text()
    assert (out.first["where"]["server"], out.first["where"]["vfd"]) == ("hv2", "red-router"), out.text()
    assert told(inn) == ("unknown", "no_traffic", "gateway_unavailable", "HA_Chassis_Group"), inn.text()
    assert told(healthy)[:3] == ("no", "left_domain", ""), healthy.text()
