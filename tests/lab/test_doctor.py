"""`vtrace doctor` on a real lab: right about it, and nothing is different afterwards."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from typing import Any

import pytest
from faults import answers
from faults.facts import PROGRAM, Facts
from faults.running import Traffic, eventually
from test_diagnose_safety import ask, wait_until

from vtrace.lab import state as lab_state

pytestmark = pytest.mark.lab

SERVERS = ["hv1", "hv2", "hv3", "gw1"]


def doctor(facts: Facts, *words: str) -> tuple[int, dict[str, Any]]:
    argv = [*PROGRAM, "doctor", "--lab", facts.lab, "--json", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    document: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, document


def said(document: dict[str, Any], *levels: str) -> set[tuple[str, str]]:
    return {(f["check"], f["where"]) for f in document["findings"] if f["level"] in levels}


def everything(facts: Facts) -> dict[str, str]:
    """All that a doctor could change: entries, groups, meters, both kinds of database, files, links."""
    script = (
        "ovs-ofctl --no-stats dump-flows br-int; ovs-ofctl -O OpenFlow13 dump-groups br-int | tail -n +2;"
        "ovs-ofctl -O OpenFlow13 dump-meters br-int | tail -n +2; ovs-ofctl get-frags br-int;"
        "ovs-vsctl --columns=name,ports,controller,datapath_type,other_config,protocols list bridge;"
        "ovs-vsctl --columns=other_config,external_ids list open;"
        "ovs-vsctl --columns=name,type,options,external_ids list interface; ovs-appctl dpctl/ct-get-limits;"
        "ls $OVS_RUNDIR; ip -o link show"
    )
    found = {name: facts.execute(name, "sh", "-c", script) for name in SERVERS}
    script = "ovn-nbctl show; ovn-sbctl --columns=name,hostname list Chassis; ovn-nbctl list NB_Global"
    return {**found, "central": facts.execute("central", "sh", "-c", script)}


def test_a_lab_where_all_is_well_and_nothing_is_different_afterwards(facts: Facts) -> None:
    before = everything(facts)
    code, document = doctor(facts)
    assert everything(facts) == before
    assert (code, document["schema"], document["state"]) == (0, 1, "fine"), document
    assert document["servers"] == SERVERS
    assert said(document, "problem", "warning") == set()
    per_server = {
        "privileges",
        "versions",
        "datapath",
        "layout",
        "meters",
        "colors",
        "leftovers",
        "load",
        "ovn-controller",
    }
    # OVN has put no logical port on the gateway yet, so that there is no pipeline to understand.
    wanted = {(check, name) for check in per_server for name in SERVERS} - {("layout", "gw1")}
    assert wanted <= said(document, "ok"), document
    assert said(document, "note") >= {("layout", "gw1")}
    assert {(check, "") for check in ("southbound", "chassis", "dscp")} <= said(document, "ok")
    # What it says of the layout is what a task then uses.
    (layout,) = {f["what"] for f in document["findings"] if (f["check"], f["where"]) == ("layout", "hv1")}
    assert re.fullmatch(
        r"tables 0, \d+ \(remote output\), \d+ \(log-to-physical\); guard bits \d+ and \d+ of reg10", layout
    )


def test_what_stands_in_the_way_is_found(facts: Facts) -> None:
    """One change a check; all are taken back."""
    tunnel = "ovn-hv2-0"
    facts.execute("hv1", "ovs-vsctl", "set", "open", ".", "external_ids:ovn-encap-tos=inherit")
    eventually(lambda: "inherit" in facts.execute("hv1", "ovs-vsctl", "get", "interface", tunnel, "options"), "options")
    facts.execute("hv2", "ovs-ofctl", "add-flow", "br-int", "table=0,priority=65535,dl_type=0x88b5,actions=drop")
    facts.execute("hv3", "ovs-appctl", "dpctl/ct-set-maxconns", "1")
    facts.execute("central", "ovn-nbctl", "acl-add", "red-web", "from-lport", "7", "ip4 && ip.dscp == 46", "allow")
    facts.execute("gw1", "ovn-appctl", "-t", "ovn-controller", "debug/pause")
    try:
        code, document = doctor(facts)
    finally:
        facts.execute("gw1", "ovn-appctl", "-t", "ovn-controller", "debug/resume")
        facts.execute("central", "ovn-nbctl", "acl-del", "red-web", "from-lport", "7", "ip4 && ip.dscp == 46")
        facts.execute("hv3", "ovs-appctl", "dpctl/ct-set-maxconns", "3000000")
        facts.execute("hv2", "ovs-ofctl", "--strict", "del-flows", "br-int", "table=0,priority=65535,dl_type=0x88b5")
        facts.execute("hv1", "ovs-vsctl", "remove", "open", ".", "external_ids", "ovn-encap-tos")
        eventually(
            lambda: "inherit" not in facts.execute("hv1", "ovs-vsctl", "get", "interface", tunnel, "options"), "options"
        )
    assert (code, document["state"]) == (1, "warnings"), document
    warned = said(document, "warning")
    assert {("tunnels", f"hv1: {tunnel}"), ("tunnels", "hv1"), ("dscp", ""), ("ovn-controller", "gw1")} <= warned
    assert ("layout", "hv2") in said(document, "note")
    assert all(f["why"] and f["next_step"] for f in document["findings"] if f["level"] in ("warning", "problem"))
    facts.execute("central", "ovn-nbctl", "--wait=hv", "--timeout=20", "sync")
    assert doctor(facts)[0] == 0


def test_a_task_at_work_and_what_a_killed_one_leaves(facts: Facts, traffic: Traffic) -> None:
    pair = facts.pair("routed-remote", 4)
    traffic.start(pair, "udp", to=pair.destination, dscp=0)
    task = answers.start(facts, *ask(pair, "--packets", "100000", "--timeout", "4"))
    try:
        wait_until(task, "coloring")
        code, document = doctor(facts)
    finally:
        task.send_signal(signal.SIGKILL)
        task.communicate(timeout=10)
    assert code == 0, document
    assert {("leftovers", pair.source_server), ("leftovers", pair.destination_server)} <= said(document, "note")
    colors = {f["where"]: f["what"] for f in document["findings"] if f["check"] == "colors"}
    assert colors[pair.source_server] == "15 of 16 colors free"
    # A task puts away what the killed one left; its entries go by their time-outs.
    assert answers.diagnose(facts, *ask(pair, "--packets", "10")).code == 0


def test_servers_without_an_agent_are_named(facts: Facts) -> None:
    """One server's run directory alone, as on a hypervisor of a larger cloud."""
    state = lab_state.require(facts.lab)
    argv = [*PROGRAM, "doctor", "--json", "--nb", state.nb_remote, "--sb", state.sb_remote]
    argv += ["--rundir", next(s.rundir for s in state.servers if s.name == "hv1")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    document = json.loads(done.stdout)
    assert (done.returncode, document["servers"]) == (1, ["this server"]), document
    (finding,) = [f for f in document["findings"] if f["level"] == "warning"]
    assert (finding["check"], finding["what"]) == ("chassis", "3 chassis have no agent: gw1, hv2, hv3")
    wrong = subprocess.run(
        [*argv[:-4], "--sb", "unix:/no/such.sock", *argv[-2:]], capture_output=True, text=True, timeout=60
    )
    document = json.loads(wrong.stdout)
    assert wrong.returncode == 4
    assert ("southbound", "unix:/no/such.sock") in said(document, "problem")
