"""Conntrack as the reason: zones without room, and packets that it calls invalid."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from faults import answers
from faults.facts import Facts
from faults.running import eventually, lab_command

pytestmark = pytest.mark.lab

FILLER, PORT = 7, 5433


def nb(facts: Facts, *argv: str) -> None:
    facts.execute("central", "ovn-nbctl", "--wait=hv", "--timeout=20", *argv)


def appctl(facts: Facts, server: str, *argv: str) -> str:
    return facts.execute(server, "ovs-appctl", *argv)


def send(facts: Facts, destination: str, port: int) -> None:
    words = ("--from", "red-web1", "--to", destination, "--proto", "udp", "--dport", str(port), "--rate", "50")
    lab_command(facts, "traffic", "start", *words)


@pytest.fixture
def answers_only(facts: Facts) -> Iterator[str]:
    """red-web1 gets nothing but answers, and its zone is empty; the zone."""
    nb(facts, "acl-add", "red-web", "from-lport", "1001", 'inport == "red-web1" && ip', "allow-related")
    nb(facts, "acl-add", "red-web", "to-lport", "1000", 'outport == "red-web1" && ip', "drop")
    zones = facts.execute("hv1", "ovn-appctl", "-t", "ovn-controller", "ct-zone-list").split("\n")
    zone = next(line.split()[1] for line in zones if line.startswith("red-web1 "))
    appctl(facts, "hv1", "dpctl/flush-conntrack")
    try:
        yield zone
    finally:
        lab_command(facts, "traffic", "stop")
        appctl(facts, "hv1", "dpctl/ct-del-limits", f"zone={zone}")
        nb(facts, "acl-del", "red-web")


@pytest.mark.parametrize("limit", [1, 1000], ids=["full", "room left"])
def test_a_zone_with_and_without_room(facts: Facts, answers_only: str, limit: int) -> None:
    zone = answers_only
    appctl(facts, "hv1", "dpctl/ct-set-limits", f"zone={zone},limit={limit}")
    send(facts, "red-db2", FILLER)
    eventually(lambda: "count=1" in appctl(facts, "hv1", "dpctl/ct-get-limits", f"zone={zone}"), "a first connection")
    send(facts, "red-db1", PORT)
    words = ("--from", "red-web1", "--to", "red-db1", "--proto", "udp", "--dport", str(PORT), "--packets", "20")
    answer = answers.diagnose(facts, *words, "--direction", "reply")
    answers.check_sound(answer, 20)
    if limit > 1:
        assert (answer.document["loss"], answer.first["kind"]) == ("no", "delivered"), answer.text()
        return
    where, why = answer.first["where"], answer.first["why"]
    assert (answer.document["loss"], answer.first["kind"]) == ("yes", "dropped"), answer.text()
    assert (where["server"], where["vfd"], where["port"]) == ("hv1", "red-web", "red-web1"), answer.text()
    assert (why["code"], why["actor"], why["object"]["type"]) == ("ct_limit", "provider", "Logical_Datapath")
    (uuid,) = facts.execute(
        "central", "ovn-sbctl", "--bare", "--columns=_uuid", "find", "Datapath_Binding", "external_ids:name=red-web"
    ).split()
    assert why["object"]["uuid"] == uuid, answer.text()
    assert f"zone {zone} on hv1" in why["summary"], answer.text()
    assert any("1 connections of at most 1" in e["text"] for e in why["evidence"]), answer.text()


@pytest.mark.parametrize("state", ["on", "off"])
def test_a_guest_that_leaves_its_checksums_open(facts: Facts, state: str) -> None:
    nb(facts, "acl-add", "red-db", "to-lport", "1001", "ip", "allow-related")
    facts.execute("red-web1", "ethtool", "-K", "eth0", "tx", state)
    try:
        send(facts, "red-db1", PORT)
        words = ("--from", "red-web1", "--to", "red-db1", "--proto", "udp", "--dport", str(PORT), "--packets", "20")
        answer = answers.diagnose(facts, *words)
        invalid = facts.execute("central", "ovn-sbctl", "--bare", "--columns=_uuid,match", "list", "Logical_Flow")
    finally:
        lab_command(facts, "traffic", "stop")
        facts.execute("red-web1", "ethtool", "-K", "eth0", "tx", "off")
        nb(facts, "acl-del", "red-db")
    answers.check_sound(answer, 20)
    if state == "off":
        assert (answer.document["loss"], answer.first["kind"]) == ("no", "delivered"), answer.text()
        return
    why = answer.first["why"]
    assert (answer.first["where"]["server"], answer.first["where"]["vfd"]) == ("hv3", "red-db"), answer.text()
    assert (why["code"], why["actor"], why["object"]["type"]) == ("ct_invalid", "guest", "Logical_Flow"), answer.text()
    assert re.search(rf"^{why['object']['uuid']}\n.*ct\.inv", invalid, re.MULTILINE), answer.text()
