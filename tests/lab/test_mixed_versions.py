"""Servers of two releases in one cloud: Debian 12's and Debian 13's Open vSwitch and OVN, answers right both ways.

An ordinary run makes the folder of the other release if it can (scripts/release-folder.sh, kept under /var/tmp
for the next run), and runs a few cases on one mix, drawn from the commit; a soak run takes all mixes, and clouds of
the other release throughout.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import answers, matrix, running
from faults.facts import PROGRAM, Facts
from faults.running import Traffic
from test_diagnose_safety import ask, wait_until

from vtrace.lab import state as lab_state
from vtrace.lab.namespaces import existing, processes

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
FOLDER_TIMEOUT_S = 110
UP_TIMEOUT_S = 80
SOAK = os.environ.get("VTRACE_SOAK", "0") == "1"
KNOWN = matrix.entries()
# Which servers are of the other release: red-web1 is on hv1, red-web3 on hv2, red-db1 on hv3.
MIXES = {"newer receivers": ("hv2", "hv3"), "newer sender": ("hv1", "gw1")}
MORE = {
    "newer servers, older central": ("hv1", "hv2", "hv3", "gw1"),
    "newer central": ("central",),
    "all newer": ("all",),
}
CASES = ("healthy", "acl_drop_stateful_to", "acl_drop_stateless_from", "foreign_sender-remote-output_65535_no-cookie",
         "foreign_receiver-egress_200_cookie", "no_route")  # fmt: skip


def other_release() -> str:
    """This machine's is Debian 12's or 13's: the other one."""
    done = subprocess.run(["ovs-vswitchd", "--version"], capture_output=True, text=True, timeout=10, check=True)
    return "trixie" if " 3.1." in done.stdout else "bookworm"


@pytest.fixture(scope="session")
def folder() -> Path:
    """The other release's programs."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    found = Path("/var/tmp", f"vtrace-release-{other_release()}")
    if not found.exists():
        script = [ROOT / "scripts" / "release-folder.sh", other_release()]
        try:
            done = subprocess.run(script, capture_output=True, text=True, timeout=FOLDER_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"debootstrap takes longer than {FOLDER_TIMEOUT_S} s here")
        if done.returncode:
            pytest.skip(f"no folder of {other_release()}: {done.stderr[-300:]}")
    return found


@pytest.fixture(scope="module", params=[*MIXES, *MORE] if SOAK else [random.Random(matrix.seed()).choice(list(MIXES))])
def mixed(folder: Path, request: pytest.FixtureRequest) -> Iterator[Facts]:
    """A lab of the default topology, some of whose nodes are of the other release."""
    name = f"m{secrets.token_hex(3)}"
    nodes = {**MIXES, **MORE}[request.param]
    releases = [word for node in nodes for word in ("--release", f"{node}={folder}")]
    argv = [*PROGRAM, "lab", "up", "--lab", name, *releases]
    subprocess.run(argv, capture_output=True, text=True, timeout=UP_TIMEOUT_S, check=True)
    found = Facts(name)
    found.port_security  # noqa: B018 (read before any fault is in)
    try:
        yield found
    finally:
        subprocess.run([*PROGRAM, "lab", "down", "--lab", name], timeout=UP_TIMEOUT_S, check=True)


def version(facts: Facts, node: str, program: str = "ovs-vswitchd") -> str:
    return facts.execute(node, "ovs-appctl", "-t", program, "version").split()[-1]


def test_the_releases_are_what_they_should_be(mixed: Facts, folder: Path) -> None:
    """By what the daemons say of themselves."""
    releases = lab_state.require(mixed.lab).releases
    servers = {server.name for server in lab_state.require(mixed.lab).servers}
    found = {node: version(mixed, node) for node in servers}
    newer = {node: v for node, v in found.items() if node in releases}
    older = {node: v for node, v in found.items() if node not in releases}
    assert len(set(newer.values())) <= 1
    assert len(set(older.values())) <= 1
    assert not set(newer.values()) & set(older.values()), found
    assert releases


@pytest.mark.parametrize("number", range(len(CASES) if SOAK else 4))
def test_answers_across_versions(mixed: Facts, number: int) -> None:
    """Healthy, an ACL at either end, a broken entry at either end: on real traffic between servers of two releases."""
    entry = KNOWN[CASES[number]]
    remote = [p for p in entry.placements if "remote" in p] or list(entry.placements)
    coordinates = {
        "name": entry.name,
        "placement": remote[number % len(remote)],
        "proto": entry.protos[number % len(entry.protos)],
        "ip": 4 if number % 2 or 6 not in entry.ips else 6,
        "opened_before": number != 1,
        "dscp": 0,
        "near_miss": False,
    }
    running.run(running.build(entry, mixed, coordinates), mixed)


if SOAK:

    def test_the_whole_matrixs_core(mixed: Facts) -> None:
        """In a soak run every kind of fault once; what fails is listed."""
        failed = []
        for coordinates in matrix.core():
            try:
                running.run(running.build(KNOWN[str(coordinates["name"])], mixed, coordinates), mixed)
            except AssertionError as error:
                failed.append(f"{matrix.name_of(coordinates)}: {str(error)[:500]}")
        assert not failed, "\n".join(failed)


def test_meters_of_ovn_and_ours_are_far_apart(mixed: Facts) -> None:
    """OVN takes ids from 1 upwards, before 24.03 to 65535, since then higher; ours are the last ones."""
    pair = mixed.pair("routed-remote", 4)
    traffic = Traffic(mixed)
    mixed.execute("central", "ovn-nbctl", "meter-add", "few", "drop", "100", "pktps")
    acl = ("red-db", "to-lport", "9", "icmp4")
    mixed.execute("central", "ovn-nbctl", "--log", "--meter=few", "acl-add", *acl, "allow")
    mixed.execute("central", "ovn-nbctl", "--wait=hv", "--timeout=20", "sync")
    task = None
    try:
        traffic.start(pair, "udp", to=pair.destination, dscp=0)
        task = answers.start(mixed, *ask(pair, "--packets", "100000", "--timeout", "4"))
        wait_until(task, "coloring")
        for server in (pair.source_server, pair.destination_server):
            text = mixed.execute(server, "ovs-ofctl", "-O", "OpenFlow13", "dump-meters", "br-int")
            ids = sorted(int(meter) for meter in re.findall(r"meter=(\d+)", text))
            features = mixed.execute(server, "ovs-ofctl", "-O", "OpenFlow13", "meter-features", "br-int")
            largest = int(re.findall(r"max_meter:(\d+)", features)[0])
            assert ids[-2:] == [largest - 1, largest], text
            assert server != pair.destination_server or ids[:-2], "OVN has a meter for the ACL's log"
            assert all(meter <= 65535 for meter in ids[:-2]), text
    finally:
        if task is not None:
            task.send_signal(signal.SIGINT)
            task.communicate(timeout=30)
        traffic.stop()
        mixed.execute("central", "ovn-nbctl", "acl-del", *acl)
        mixed.execute("central", "ovn-nbctl", "meter-del", "few")


def contents(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


def test_nothing_is_left_of_another_releases_daemons(folder: Path) -> None:
    """Not in the folder, no mount, no process; also after all of them were killed."""
    name = f"m{secrets.token_hex(3)}"
    before = contents(folder)
    argv = [*PROGRAM, "lab", "up", "--lab", name, "--release", f"hv2={folder}"]
    subprocess.run(argv, capture_output=True, text=True, timeout=UP_TIMEOUT_S, check=True)
    try:
        inside = [pid for pid in processes(name) if Path(f"/proc/{pid}/root").resolve() == folder]
        assert len(inside) == 3, "ovsdb-server, ovs-vswitchd and ovn-controller run under the folder"
        mounts = Path("/proc/self/mountinfo").read_text()
        assert str(folder) not in mounts, "their mounts are their own"
        for pid in inside:
            os.kill(pid, signal.SIGKILL)
    finally:
        subprocess.run([*PROGRAM, "lab", "down", "--lab", name], timeout=UP_TIMEOUT_S, check=True)
    assert not existing(name)
    assert not lab_state.directory(name).exists()
    assert contents(folder) == before
    assert [pid for pid in inside if Path(f"/proc/{pid}/exe").exists()] == []
