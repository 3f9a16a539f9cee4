"""A real lab: built, used, broken, healed and removed. Needs root, Open vSwitch and OVN; about a minute."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from vtrace.lab import state as lab_state
from vtrace.lab import traffic as lab_traffic
from vtrace.lab.namespaces import existing, processes
from vtrace.lab.programs import run_on
from vtrace.present.cli.main import main

pytestmark = pytest.mark.lab

UP_LIMIT_S = 60
COMMAND = [sys.executable, "-m", "vtrace.present.cli.main", "lab"]

SMALL_TOPOLOGY = """
encap = "vxlan"
[[server]]
name = "one"
region = "r"
[[server]]
name = "two"
region = "r"
[[switch]]
name = "s"
vpc = "v"
subnets = ["10.1.1.0/24"]
[[vm]]
name = "red-web1"
switch = "s"
server = "one"
addresses = ["10.1.1.11"]
[[vm]]
name = "b"
switch = "s"
server = "two"
addresses = ["10.1.1.12"]
"""


def vtrace(lab: str, command: str, *args: str, text: str | None = None, code: int = 0) -> str:
    """Run `vtrace lab COMMAND --lab NAME ARGS`, check its exit code, return what it printed.

    In this process, unless it is `up` or `exec` (which becomes another program): starting Python costs more time
    than most commands.
    """
    words = [*command.split(), "--lab", lab, *args]
    if command in ("up", "exec"):
        done = subprocess.run(
            [*COMMAND, *words],
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=UP_LIMIT_S + 20,
            check=False,
        )
        found, out, err = done.returncode, done.stdout, done.stderr
    else:
        with redirect_stdout(StringIO()) as stdout, redirect_stderr(StringIO()) as stderr:
            found = main(["lab", *words])
        out, err = stdout.getvalue(), stderr.getvalue()
    assert found == code, f"{command} {args}: {found}\n{out}\n{err}"
    return out if code == 0 else err


def on(lab: str, node: str, *argv: str) -> str:
    """What a command prints on a node (in the environment of `lab exec`, without starting a vtrace)."""
    return run_on(lab_state.require(lab), node, argv)


def eventually(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.05)


def root_links() -> set[str]:
    """The links of the root namespace."""
    return set(os.listdir("/sys/class/net"))


def assert_nothing_left(lab: str) -> None:
    """No namespace, process, mount or file of that lab."""
    assert existing(lab) == []
    assert not lab_state.directory(lab).exists()
    assert f"/lab/{lab}/" not in Path("/proc/self/mountinfo").read_text()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            assert f"/lab/{lab}/".encode() not in command, command


@contextmanager
def standing(*topology: str) -> Iterator[str]:
    """A lab of that topology, by its file or name; the default if not given."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    name = f"t{secrets.token_hex(3)}"
    began = time.monotonic()
    vtrace(name, "up", *topology)
    assert time.monotonic() - began < UP_LIMIT_S
    try:
        yield name
    finally:
        vtrace(name, "down")
    assert_nothing_left(name)


@pytest.fixture(scope="module")
def lab() -> Iterator[str]:
    """A lab of the default topology."""
    with standing() as name:
        yield name


def start_traffic(lab: str, *args: str) -> Callable[[], dict[str, int]]:
    """Start a traffic; what it returns reads its counts."""
    identifier = vtrace(lab, "traffic start", *args).strip()
    state = lab_state.require(lab)
    (one,) = [one for one in lab_traffic.all_of(state) if one.id == identifier]
    return lambda: {**lab_traffic.counts(state, one), "running": lab_traffic.is_running(one)}


@pytest.fixture
def traffic(lab: str) -> Iterator[Callable[..., Callable[[], dict[str, int]]]]:
    """Starts a traffic; what it returns reads its counts."""
    yield lambda *args: start_traffic(lab, *args)
    vtrace(lab, "heal")
    vtrace(lab, "traffic stop")


def test_status_says_what_stands(lab: str) -> None:
    document = json.loads(vtrace(lab, "status", "--json"))
    nodes = {node["name"]: node for node in document["nodes"]}
    assert nodes["gw1"]["role"] == "gateway"
    assert nodes["wire-hv1-hv2"]["connects"] == ["hv1", "hv2"]
    assert {vm["name"] for vm in document["vms"]} == {name for name in nodes if nodes[name]["role"] == "vm"}
    assert "dead" not in vtrace(lab, "status")
    assert "is not up" in vtrace("no-such-lab", "status", code=1)


def test_a_lab_that_is_up_is_not_built_again(lab: str) -> None:
    assert "up already" in vtrace(lab, "up", code=4)
    assert "no node" in vtrace(lab, "exec", "hv9", "--", "true", code=2)


def test_nothing_of_the_lab_is_in_the_root_namespace(lab: str) -> None:
    state = lab_state.require(lab)
    in_use = {vm.name for vm in state.vms} | {f"to-{server.name}" for server in state.servers}
    assert not in_use & root_links()
    assert all(name.startswith(f"vt-{lab}.") for name in existing(lab))


def test_exec_becomes_the_command(lab: str) -> None:
    assert vtrace(lab, "exec", "red-web1", "--", "cat", text="through\n") == "through\n"
    printed = vtrace(lab, "exec", "red-web1", "--", "printf", "%s|", "a b", "$HOME", "*", "--lab")
    assert printed == "a b|$HOME|*|--lab|"
    vtrace(lab, "exec", "red-web1", "--", "sh", "-c", "exit 7", code=7)
    vtrace(lab, "exec", "red-web1", "--", "sh", "-c", "kill -TERM $$", code=-signal.SIGTERM)
    assert "no-such-command" in vtrace(lab, "exec", "red-web1", "--", "no-such-command", code=127)
    assert vtrace(lab, "exec", "hv2", "--", "uname", "-n") == "hv2\n"
    assert set(vtrace(lab, "exec", "red-web1", "--", "ls", "/sys/class/net").split()) == {"eth0", "lo"}
    assert "red-router" in vtrace(lab, "exec", "central", "--", "ovn-nbctl", "show")


def test_signals_reach_the_command(lab: str) -> None:
    argv = [*COMMAND, "exec", "--lab", lab, "hv1", "--", "sh", "-c", "trap 'exit 9' INT; echo on; while :; do :; done"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 9


def test_the_tools_of_a_node_find_its_daemons(lab: str) -> None:
    assert "red-router" in on(lab, "central", "ovn-nbctl", "show")
    chassis = on(lab, "central", "ovn-sbctl", "--bare", "--columns=name,hostname", "list", "Chassis").split()
    assert sorted(chassis) == sorted(["hv1", "hv2", "hv3", "gw1"] * 2)
    vpc = on(lab, "central", "ovn-nbctl", "get", "Logical_Switch", "blue-web", 'external_ids:"vtrace:vpc"')
    assert vpc.strip() in ("blue", '"blue"')
    assert "red-web3" in on(lab, "hv2", "ovs-vsctl", "list-ports", "br-int")
    assert "table=0" in on(lab, "hv2", "ovs-ofctl", "dump-flows", "br-int")
    assert "geneve" in on(lab, "hv2", "ovs-appctl", "dpif/show")
    assert on(lab, "hv2", "ovn-appctl", "-t", "ovn-controller", "connection-status").strip() == "connected"


def test_load_tells_where_the_sockets_are(lab: str) -> None:
    state = lab_state.load(lab)
    assert state is not None
    for server in state.servers:
        rundir = Path(server.rundir)
        assert (rundir / "br-int.mgmt").is_socket()
        assert (rundir / "db.sock").is_socket()
        pid = (rundir / "ovs-vswitchd.pid").read_text().strip()
        assert (rundir / f"ovs-vswitchd.{pid}.ctl").is_socket()
    for remote in (state.nb_remote, state.sb_remote):
        done = subprocess.run(["ovsdb-client", "list-dbs", remote], capture_output=True, text=True, check=True)
        assert "OVN_" in done.stdout


@pytest.mark.parametrize(("sender", "address"), [("red-web1", "10.1.2.11"), ("red-web3", "fd00:9:2::1")])
def test_vms_reach_each_other(lab: str, sender: str, address: str) -> None:
    assert " 0% packet loss" in on(lab, sender, "ping", "-c3", "-i0.05", "-W2", address)


def test_a_wire_carries_the_tunnel_packets_of_its_pair_only(lab: str) -> None:
    wires = [wire.name for wire in lab_state.require(lab).wires]
    chain = "chain forward { type filter hook forward priority 0; ip protocol udp udp dport 6081 counter; };"
    for wire in wires:
        on(lab, wire, "nft", f"table inet probe {{ {chain} }}")
    on(lab, "red-web1", "ping", "-c20", "-i0.02", "10.1.1.13")
    for wire in wires:
        found = re.search(r"packets (\d+)", on(lab, wire, "nft", "list", "table", "inet", "probe"))
        assert found is not None
        on(lab, wire, "nft", "delete", "table", "inet", "probe")
        if wire == "wire-hv1-hv2":
            assert int(found[1]) >= 40
        else:
            assert int(found[1]) == 0, wire


@pytest.mark.parametrize("proto", ["udp", "tcp", "icmp"])
@pytest.mark.parametrize("ip", ["4", "6"])
def test_traffic_runs(traffic: Callable[..., Callable[[], dict[str, int]]], proto: str, ip: str) -> None:
    counts = traffic("--from", "red-web1", "--to", "red-db1", "--proto", proto, "--ip", ip, "--rate", "200")
    eventually(lambda: counts()["received"] >= 150, "echoes")
    assert counts()["running"]


def test_traffic_keeps_its_pace(traffic: Callable[..., Callable[[], dict[str, int]]]) -> None:
    slow = traffic("--from", "red-web1", "--to", "red-web3", "--rate", "100", "--seconds", "3")
    fast = traffic("--from", "red-db2", "--to", "red-db1", "--rate", "1000", "--seconds", "3")
    eventually(lambda: not slow()["running"] and not fast()["running"], "both to end by themselves")
    assert 295 <= slow()["sent"] <= 301
    assert 2800 <= fast()["sent"] <= 3001
    assert slow()["received"] >= 0.98 * slow()["sent"]


def test_traffic_to_where_nobody_listens(lab: str, traffic: Callable[..., Callable[[], dict[str, int]]]) -> None:
    counts = traffic("--from", "red-web1", "--to", "red-web3", "--no-server", "--dport", "9")
    eventually(lambda: counts()["sent"] >= 20, "packets")
    assert counts()["received"] == 0
    assert "VPC" in vtrace(lab, "traffic start", "--from", "red-web1", "--to", "blue-web3", code=2)
    assert "out of range" in vtrace(lab, "traffic start", "--from", "red-web1", "--to", "red-web3", "--rate=0", code=2)


def snapshot(lab: str) -> str:
    """What faults change: northbound rows, the entries of br-int without counters, nft on a wire."""
    rows = on(lab, "central", "ovn-nbctl", "show")
    for table in ("ACL", "QoS", "Logical_Router_Static_Route", "Logical_Switch_Port"):
        query = ("ovn-nbctl", "--bare", "list", table)
        rows += "\n".join(sorted(line for line in on(lab, "central", *query).split("\n\n"))) + "\n"
    rows = re.sub(r"^_uuid *:? .*$|^[0-9a-f-]{36}$", "", rows, flags=re.M)
    rows = re.sub(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b", "UUID", rows)
    entries = []
    for server in ("hv1", "hv2", "hv3"):
        dump = on(lab, server, "ovs-ofctl", "--no-stats", "dump-flows", "br-int")
        entries += sorted(re.sub(r"cookie=0x[0-9a-f]+, ", "", line.strip()) for line in dump.splitlines())
    return rows + "\n".join(entries) + on(lab, "wire-hv1-hv2", "nft", "list", "ruleset")


FAULTS = {
    "acl_drop": "from=red-web1 to=red-web3 proto=udp",
    "acl_drop stateful=yes": "from=red-web1 to=red-web3 direction=from-lport",
    "acl_reject": "from=red-web1 to=red-web3",
    "blackhole_route": "to=red-db1",
    "no_route": "to=red-db1",
    "port_security": "vm=red-web1",
    "qos_rate_limit": "from=red-web1 to=red-web3",
    "foreign_flow_entry": "from=red-web1 to=red-web3 cookie=0x1 priority=65535",
    "foreign_flow_entry table=12": "from=red-web1 to=red-web3",
    "foreign_flow_entry node=hv2": "from=red-web1 to=red-web3 table=44",
    "physical_loss": "a=hv1 b=hv2",
    "partial_loss": "a=hv1 b=hv2 direction=a-b",
    "port_disabled": "vm=red-web3",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_loses_packets_and_healing_leaves_all_as_before(
    lab: str, traffic: Callable[..., Callable[[], dict[str, int]]], fault: str
) -> None:
    to = {"no_route": "red-db1:10.9.1.1", "blackhole_route": "red-db1"}.get(fault, "red-web3")
    counts = traffic("--from", "red-web1", "--to", to, "--rate", "200")
    beside = traffic("--from", "blue-web1", "--to", "blue-web3")
    eventually(lambda: counts()["received"] > 0, "the traffic to flow")
    before = snapshot(lab)
    identifier = vtrace(lab, "break", *fault.split(), *FAULTS[fault].split()).strip()
    other = beside()
    start = counts()
    eventually(lambda: counts()["sent"] >= start["sent"] + 150, "packets of the broken traffic")
    now = counts()
    passed = (now["received"] - start["received"]) / (now["sent"] - start["sent"])
    assert (0.5 < passed < 0.85) if fault == "partial_loss" else passed < 0.6, (start, now)
    if fault not in ("physical_loss", "partial_loss"):
        after = beside()
        assert after["received"] - other["received"] >= 0.9 * (after["sent"] - other["sent"]), "the other VPC too"
    vtrace(lab, "heal", identifier)
    start = counts()
    eventually(lambda: counts()["received"] >= start["received"] + 40, "the traffic to flow again")
    eventually(lambda: snapshot(lab) == before, "everything to be as before")


def test_a_transient_loss_ends_by_itself(lab: str, traffic: Callable[..., Callable[[], dict[str, int]]]) -> None:
    counts = traffic("--from", "red-web1", "--to", "red-web3", "--rate", "200")
    eventually(lambda: counts()["received"] > 0, "the traffic to flow")
    vtrace(lab, "break", "transient_loss", "a=hv1", "b=hv2", "seconds=0.5", "direction=a-b")
    eventually(lambda: counts()["sent"] - counts()["received"] >= 80, "a burst of loss")
    start = counts()
    eventually(lambda: counts()["sent"] >= start["sent"] + 200, "more packets")
    lost = counts()["sent"] - counts()["received"]
    assert 80 <= lost <= 130, "0.5 s of 200 packets a second"


def test_a_connection_lives_through_a_blackhole(lab: str, traffic: Callable[..., Callable[[], dict[str, int]]]) -> None:
    counts = traffic("--from", "red-web1", "--to", "red-web3", "--proto", "tcp")
    eventually(lambda: counts()["received"] > 50, "the connection")
    vtrace(lab, "break", "physical_loss", "a=hv2", "b=hv1")
    start = counts()
    eventually(lambda: counts()["sent"] >= start["sent"] + 100, "messages into the hole")
    vtrace(lab, "heal", "physical_loss")
    eventually(lambda: counts()["received"] >= start["received"] + 200, "the connection to go on")
    assert counts()["connects"] == 1


def test_break_and_heal_refuse_what_they_do_not_know(lab: str) -> None:
    assert "acl_drop" in vtrace(lab, "break", "gremlins", code=2)
    assert "needs from=" in vtrace(lab, "break", "acl_drop", code=2)
    assert "f99" in vtrace(lab, "heal", "f99", code=2)
    assert "stateful" in vtrace(lab, "break", "--list")


def test_a_dead_daemon_is_named(lab: str) -> None:
    on(lab, "gw1", "ovn-appctl", "-t", "ovn-controller", "exit", "--restart")
    eventually(lambda: "dead: ovn-controller on gw1" in vtrace(lab, "status"), "the daemon to be named dead")
    on(lab, "gw1", "sh", "-c", "ovn-controller unix:$OVS_RUNDIR/db.sock --detach --pidfile --log-file -vconsole:off")
    assert "dead" not in vtrace(lab, "status")


def test_a_second_lab_stands_beside_the_first(lab: str, tmp_path: Path) -> None:
    topology = tmp_path / "small.toml"
    topology.write_text(SMALL_TOPOLOGY)
    links = root_links()
    second = f"{lab}-x"
    vtrace(second, "up", str(topology))
    try:
        assert on(second, "one", "uname", "-n") == "one\n"
        assert " 0% packet loss" in on(second, "red-web1", "ping", "-c2", "-i0.05", "-W2", "10.1.1.12")
        assert on(second, "one", "ovs-vsctl", "get", "Interface", "ovn-two-0", "type").strip() == "vxlan"
        vtrace(second, "traffic start", "--from", "red-web1", "--to", "b")
        assert processes(second)
    finally:
        vtrace(second, "down")
    assert_nothing_left(second)
    assert root_links() <= links
    assert " 0% packet loss" in on(lab, "red-web1", "ping", "-c2", "-i0.05", "-W2", "10.1.1.13")
    assert "was not up" in vtrace(second, "down")


@pytest.mark.parametrize("stage", ["making", "starting", "waiting for OVN", "waiting for every VM"])
@pytest.mark.parametrize("later_s", [0.0, 0.1])
def test_down_after_up_was_killed(lab: str, stage: str, later_s: float) -> None:
    name = f"{lab}-k"
    with subprocess.Popen([*COMMAND, "up", "--lab", name], stderr=subprocess.PIPE, text=True) as up:
        assert up.stderr is not None
        while stage not in up.stderr.readline():
            pass
        time.sleep(later_s)  # the moment of death, not a wait
        up.kill()
    vtrace(name, "down")
    assert_nothing_left(name)


def test_up_after_up_was_killed(lab: str, tmp_path: Path) -> None:
    topology = tmp_path / "small.toml"
    topology.write_text(SMALL_TOPOLOGY)
    name = f"{lab}-k"
    with subprocess.Popen([*COMMAND, "up", "--lab", name], stderr=subprocess.PIPE, text=True) as up:
        assert up.stderr is not None
        while "starting" not in up.stderr.readline():
            pass
        up.kill()
    vtrace(name, "up", str(topology))
    vtrace(name, "down")
    assert_nothing_left(name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_leaves_nothing(lab: str, number: signal.Signals) -> None:
    name = f"{lab}-i"
    with subprocess.Popen([*COMMAND, "up", "--lab", name], stderr=subprocess.PIPE, text=True) as up:
        assert up.stderr is not None
        while "starting" not in up.stderr.readline():
            pass
        up.send_signal(number)
        assert up.wait(timeout=20) != 0
        up.stderr.read()
    assert_nothing_left(name)


def test_an_up_that_fails_says_what_failed_and_leaves_nothing(
    lab: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = tmp_path / "ovn-controller"
    stub.write_text("#!/bin/sh\necho 'no such luck' >&2\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    message = vtrace(f"{lab}-f", "up", code=4)
    assert "ovn-controller did not start" in message
    assert "no such luck" in message
    assert_nothing_left(f"{lab}-f")
