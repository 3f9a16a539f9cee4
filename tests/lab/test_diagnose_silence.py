"""Sources that send nothing, and those whose neighbor stays unknown."""

from __future__ import annotations

import subprocess
import sys

import pytest
from faults import answers
from faults.facts import PROGRAM, Facts
from faults.model import Expect, Row
from faults.running import Traffic, lab_command

pytestmark = pytest.mark.lab

KNOCKING = """
import socket, sys, time
end = time.monotonic() + 60
while time.monotonic() < end:
    with socket.socket() as s:
        s.connect_ex((sys.argv[1], 9))
    time.sleep(0.01)
"""
UNUSED = {4: "10.1.1.77", 6: "fd00:1:1::77"}
UNUSED_BEHIND_ROUTER = {4: "10.1.2.77", 6: "fd00:1:2::77"}


def unresolved(server: str, vfd: str, port: str, *words: str) -> Expect:
    return Expect(
        "no_traffic",
        server,
        vfd,
        code="neighbor_unresolved",
        row=Row("Logical_Switch_Port", f"name={port}"),
        evidence_words=words,
        loss="unknown",
        pattern=None,
        exit_code=3,
    )


@pytest.mark.parametrize("placement", ["switched-local", "routed-remote"])
def test_nobody_sends(facts: Facts, placement: str) -> None:
    """The blue VPC sends from and to the same addresses meanwhile: that is no traffic of red's."""
    pair, blue = facts.pair(placement, 4), facts.pair("routed-remote", 4, "blue")
    identifier = lab_command(facts, "traffic", "start", "--from", blue.source, "--to", blue.destination).strip()
    try:
        answer = answers.diagnose(facts, "--from", pair.source, "--to", pair.destination, "--timeout", "3")
    finally:
        lab_command(facts, "traffic", "stop", identifier)
    answers.check_sound(answer, 100)
    expect = Expect(
        "no_traffic",
        pair.source_server,
        pair.source_switch,
        code="source_silent",
        row=Row("Logical_Switch_Port", f"name={pair.source}"),
        loss="unknown",
        pattern=None,
        exit_code=3,
    )
    answers.check_expected(answer, expect, facts)
    assert answer.document["packets"]["colored"] == 0


@pytest.mark.parametrize("ip", [4, 6])
def test_the_source_asks_for_an_address_that_nobody_has(facts: Facts, traffic: Traffic, ip: int) -> None:
    pair = facts.pair("switched-local", 4 if ip == 4 else 6)
    traffic.ping(pair, ("-i", "0.2", UNUSED[ip]), 0)
    to = f"red/{UNUSED[ip]}"
    answer = answers.diagnose(facts, "--from", pair.source, "--to", to, "--timeout", "6", "--ip", str(ip))
    answers.check_sound(answer, 100)
    expect = unresolved(pair.source_server, pair.source_switch, pair.source, UNUSED[ip])
    answers.check_expected(answer, expect, facts)
    assert "OpenFlow entry" not in answer.first["why"]["summary"], answer.text()


def test_the_sources_gateway_is_an_address_that_nobody_has(facts: Facts, traffic: Traffic) -> None:
    """What it asks for is neither the destination nor the router, and yet it is why nothing is sent."""
    pair = facts.pair("routed-remote", 4)
    route = ("10.9.1.0/24", "via", UNUSED[4])
    facts.execute(pair.source, "ip", "route", "add", *route)
    try:
        traffic.ping(pair, ("-i", "0.2", pair.alias or ""), 0)
        answer = answers.diagnose(facts, "--from", pair.source, "--to", pair.destination, "--timeout", "6")
    finally:
        facts.execute(pair.source, "ip", "route", "del", *route, check=False)
    expect = unresolved(pair.source_server, pair.source_switch, pair.source, UNUSED[4])
    answers.check_expected(answer, expect, facts)


def test_the_sources_request_is_dropped(facts: Facts, traffic: Traffic) -> None:
    """Somebody has the address, and an ACL keeps the question from being answered: it is named as the reason."""
    pair = facts.pair("switched-local", 4)
    match = f'inport == "{pair.source}" && arp'
    acl = ("acl-add", pair.source_switch, "from-lport", "1777", match, "drop")
    facts.execute("central", "ovn-nbctl", "--wait=hv", "--timeout=20", *acl)
    try:
        facts.execute(pair.source, "ip", "neigh", "flush", "all")
        traffic.ping(pair, ("-i", "0.2", pair.dst), 0)
        answer = answers.diagnose(facts, "--from", pair.source, "--to", pair.destination, "--timeout", "6")
        expect = unresolved(pair.source_server, pair.source_switch, pair.source, pair.dst, "1777")
        answers.check_expected(answer, expect, facts)
    finally:
        facts.execute("central", "ovn-nbctl", "--wait=hv", "--timeout=20", "acl-del", pair.source_switch)


@pytest.mark.parametrize("ip", [4, 6])
def test_the_router_asks_for_an_address_that_nobody_has(facts: Facts, traffic: Traffic, ip: int) -> None:
    pair = facts.pair("routed-remote", 4 if ip == 4 else 6)
    address = UNUSED_BEHIND_ROUTER[ip]
    traffic.ping(pair, ("-i", "0.02", address), 0)
    args = ("--from", pair.source, "--to", f"red/{address}", "--packets", "20", "--ip", str(ip), "--timeout", "15")
    answer = answers.diagnose(facts, *args)
    answers.check_sound(answer, 20)
    row = Row("Logical_Router_Port", f"name={pair.router}-{pair.destination_switch}")
    expect = Expect("dropped", pair.source_server, pair.router, "vrouter", code="neighbor_unresolved", row=row)
    answers.check_expected(answer, expect, facts)


def test_an_answer_that_is_no_is_an_answer(facts: Facts, traffic: Traffic) -> None:
    """Nobody listens, and the guest says so: packets are delivered and answered."""
    pair = facts.pair("switched-remote", 4)
    argv = [*PROGRAM, "lab", "exec", "--lab", facts.lab, pair.source, "--", sys.executable, "-c", KNOCKING, pair.dst]
    with subprocess.Popen(argv) as sender:
        try:
            args = ("--from", pair.source, "--to", pair.destination, "--proto", "tcp", "--packets", "25")
            answer = answers.diagnose(facts, *args)
        finally:
            sender.terminate()
    answers.check_sound(answer, 25)
    assert answer.code == 0, answer.text()
    assert all(v["kind"] == "delivered" for v in answer.document["verdicts"]), answer.text()


def test_one_of_two_flows_is_lost(facts: Facts, traffic: Traffic) -> None:
    """The lost packets are explained by themselves, not by the flow of the pair that is well."""
    pair = facts.pair("routed-remote", 4)
    traffic.start(pair, "udp", to=pair.destination, dscp=0)
    traffic.ping(pair, ("-t", "1", pair.dst), 0)
    answer = answers.diagnose(facts, "--from", pair.source, "--to", pair.destination, "--packets", "60")
    answers.check_sound(answer, 60)
    row = Row("Logical_Router", f"name={pair.router}")
    expect = Expect("dropped", pair.source_server, pair.router, "vrouter", code="ttl_exceeded", row=row)
    answers.check_expected(answer, expect, facts)
    assert answer.document["packets"]["delivered"] > 0, answer.text()
