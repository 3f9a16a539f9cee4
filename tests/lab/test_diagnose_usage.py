"""Bad input, and places where it can't work: one error document, the right exit code, and nothing changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import bridges
from faults.facts import PROGRAM, Facts

from vtrace.lab import state as lab_state

pytestmark = pytest.mark.lab

GOOD = ("--from", "red-web1", "--to", "red-db1")
NOBODY = "65534"
NETDEV = ("--", "set", "Bridge", "br-int", "datapath_type=netdev")


@pytest.fixture
def unchanged(facts: Facts) -> Iterator[None]:
    """Nothing of the lab's bridges may change."""
    before = bridges.all_standing(facts.lab)
    yield
    assert bridges.complaints(before, bridges.all_standing(facts.lab)) == []


def error_of(argv: list[str], code: int, env: dict[str, str] | None = None) -> dict[str, str]:
    """The error document of a diagnosis that can't be."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=env)
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    document = json.loads(done.stdout)
    assert set(document) == {"error"}
    assert set(document["error"]) == {"what", "where", "why", "next_step"}
    assert document["error"]["what"]
    assert "Traceback" not in done.stderr
    return dict(document["error"])


def diagnose(facts: Facts, *args: str) -> list[str]:
    return [*PROGRAM, "diagnose", "--lab", facts.lab, "--json", *args]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--from", "no-such-vm", "--to", "red-db1"), ("no-such-vm",)),
        (("--from", "red-web1", "--to", "no-such-vm"), ("no-such-vm",)),
        (("--from", "", "--to", ""), ("--from",)),
        (("--from", "red-web1", "--to", ""), ("--to",)),
        (("--from", "red-web1"), ("--to",)),
        ((), ("--from",)),
        (("--from", "10.1.1.11", "--to", "red-db1"), ("10.1.1.11", "red/10.1.1.11", "blue/10.1.1.11")),
        (("--from", "red-web1", "--to", "10.1.2.11"), ("red-db1", "blue-db1")),
        (("--from", "fd00:1:1::11", "--to", "red-db1"), ("red-web1", "blue-web1")),
        (("--from", "green/10.1.1.11", "--to", "red-db1"), ("green",)),
        ((*GOOD, "--packets", "0"), ("--packets",)),
        ((*GOOD, "--packets", "x"), ("--packets",)),
        ((*GOOD, "--timeout", "0"), ("--timeout",)),
        ((*GOOD, "--proto", "sctp"), ("sctp",)),
        ((*GOOD, "--dport", "80"), ("--dport",)),
        ((*GOOD, "--proto", "udp", "--dport", "65536"), ("65536",)),
        ((*GOOD, "--proto", "icmp", "--dport", "80"), ("--dport",)),
        ((*GOOD, "--ip", "5"), ("5",)),
        ((*GOOD, "--no-such-option"), ("--no-such-option",)),
    ],
    ids=" ".join,
)
def test_wrong_usage(facts: Facts, unchanged: None, args: tuple[str, ...], words: tuple[str, ...]) -> None:
    error = error_of(diagnose(facts, *args), 2)
    for word in words:
        assert word in json.dumps(error), error


def test_a_lab_that_is_not_up(facts: Facts, unchanged: None) -> None:
    argv = [*PROGRAM, "diagnose", "--lab", "no-such-lab", "--json", *GOOD]
    assert "no-such-lab" in json.dumps(error_of(argv, 4))


@pytest.mark.parametrize("option", ["--nb", "--sb"])
def test_a_database_out_of_reach(facts: Facts, unchanged: None, option: str) -> None:
    error = error_of(diagnose(facts, *GOOD, option, "unix:/nonexistent"), 4)
    assert "/nonexistent" in json.dumps(error)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="there is no setpriv")
def test_without_root(facts: Facts, unchanged: None) -> None:
    argv = ["setpriv", f"--reuid={NOBODY}", "--clear-groups", *diagnose(facts, *GOOD)]
    probe = subprocess.run([*argv[:3], PROGRAM[0], "-c", ""], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("nobody can't run this Python (its folder is closed to others)")
    assert "root" in json.dumps(error_of(argv, 4))


@pytest.fixture
def plain_ovs(tmp_path: Path) -> Iterator[Path]:
    """An Open vSwitch with a bridge br-int that OVN has never seen."""
    env = {**os.environ, "OVS_RUNDIR": str(tmp_path), "OVS_LOGDIR": str(tmp_path), "OVS_DBDIR": str(tmp_path)}
    sock = f"unix:{tmp_path}/db.sock"

    def run(*argv: str) -> None:
        subprocess.run(argv, env=env, check=True, capture_output=True, timeout=30)

    run("ovsdb-tool", "create", f"{tmp_path}/conf.db", "/usr/share/openvswitch/vswitch.ovsschema")
    daemon = ("--detach", "--no-chdir", "--pidfile", "--log-file", "-vconsole:off")
    run("ovsdb-server", f"{tmp_path}/conf.db", f"--remote=p{sock}", *daemon)
    run("ovs-vsctl", f"--db={sock}", "--no-wait", "init")
    run("unshare", "--net", "ovs-vswitchd", sock, "--disable-system", *daemon)
    run("ovs-vsctl", f"--db={sock}", "--timeout=20", "add-br", "br-int", *NETDEV)
    try:
        yield tmp_path
    finally:
        for name in ("ovs-vswitchd", "ovsdb-server"):
            subprocess.run(["ovs-appctl", "-t", name, "exit"], env=env, check=False, capture_output=True, timeout=30)


def on_bridge(facts: Facts, rundir: Path, bridge: str) -> list[str]:
    """A diagnosis with the lab's databases on a bridge that is none of the lab's."""
    state = lab_state.require(facts.lab)
    databases = ["--nb", state.nb_remote, "--sb", state.sb_remote]
    return [*PROGRAM, "diagnose", "--json", *GOOD, *databases, "--rundir", str(rundir), "--bridge", bridge]


def test_a_bridge_without_ovns_tables(facts: Facts, unchanged: None, plain_ovs: Path) -> None:
    before = entries_of(plain_ovs)
    error = error_of(on_bridge(facts, plain_ovs, "br-int"), 4)
    assert error["why"] or error["next_step"], error
    assert entries_of(plain_ovs) == before


def test_a_bridge_that_does_not_exist(facts: Facts, unchanged: None, plain_ovs: Path) -> None:
    error_of(on_bridge(facts, plain_ovs, "br-none"), 4)
    error_of(on_bridge(facts, plain_ovs / "none", "br-int"), 4)


def entries_of(rundir: Path) -> str:
    argv = ["ovs-ofctl", "--no-stats", "dump-flows", f"unix:{rundir}/br-int.mgmt"]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout
