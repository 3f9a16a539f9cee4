"""The doctor on databases that say what this machine can't be: a real ovsdb-server, prepared contents."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from private_switch import SCHEMA, Switch, wait_until

from vtrace.doctor.database import read_database
from vtrace.doctor.host import Host, examine
from vtrace.doctor.judging import judge
from vtrace.errors import CannotWorkError
from vtrace.present.cli.main import main

pytestmark = [pytest.mark.ovs, pytest.mark.anyio]


class Database:
    """An ovsdb-server with a br-int, and no ovs-vswitchd that would make any of it true."""

    def __init__(self, rundir: Path) -> None:
        self.rundir = str(rundir)
        env = {**os.environ, "OVS_RUNDIR": self.rundir}
        subprocess.run(["ovsdb-tool", "create", str(rundir / "conf.db"), SCHEMA], check=True, timeout=10, env=env)
        argv = ["ovsdb-server", str(rundir / "conf.db"), f"--remote=punix:{rundir}/db.sock", "-vconsole:off"]
        argv += [f"--pidfile={rundir}/ovsdb-server.pid", f"--unixctl={rundir}/ovsdb.ctl", "--no-chdir"]
        null = subprocess.DEVNULL
        self.process = subprocess.Popen(argv, env=env, stdout=null, stderr=null)
        wait_until("ovsdb-server's socket", (rundir / "db.sock").exists)
        self.vsctl("init", "--", "add-br", "br-int", "--", "set", "open", ".", "external_ids:system-id=hv7")

    def vsctl(self, *words: str) -> None:
        argv = ["ovs-vsctl", f"--db=unix:{self.rundir}/db.sock", "--no-wait", "--timeout=10", *words]
        subprocess.run(argv, check=True, timeout=15)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)


@pytest.fixture
def prepared() -> Iterator[Database]:
    with tempfile.TemporaryDirectory(prefix="vtrace-doctor-") as folder:
        database = Database(Path(folder))
        try:
            yield database
        finally:
            database.stop()


async def found(prepared: Database) -> set[tuple[str, str, str]]:
    """What is said of the database's contents alone."""
    database = await read_database(prepared.rundir, "br-int")
    host = Host(server="hv7", rundir=prepared.rundir, bridge="br-int", database=database)
    host.failures = {"openflow": CannotWorkError("not asked")}
    return {(f.level, f.check, f.what.split(",")[0]) for f in judge(host) if f.what != "not asked" and f.level != "ok"}


KERNEL = ("warning", "datapath", "the kernel's datapath was never run with VTrace")
OFFLOAD = ("warning", "datapath", "hardware offload (hw-offload=true) was never run with VTrace")
DPDK = ("warning", "datapath", "DPDK was never run with VTrace")


async def test_a_host_with_the_kernels_datapath_and_an_offloading_card(prepared: Database) -> None:
    prepared.vsctl("set", "open", ".", "other_config:hw-offload=true")
    prepared.vsctl("set", "bridge", "br-int", "datapath_type=system")
    assert await found(prepared) == {KERNEL, OFFLOAD}


async def test_a_host_with_dpdk(prepared: Database) -> None:
    prepared.vsctl("set", "open", ".", "other_config:dpdk-init=true")
    prepared.vsctl("set", "bridge", "br-int", "datapath_type=netdev")
    prepared.vsctl("add-port", "br-int", "vhu1", "--", "set", "interface", "vhu1", "type=dpdkvhostuserclient")
    assert await found(prepared) == {DPDK}


async def test_a_userspace_host_needs_no_warning(prepared: Database) -> None:
    prepared.vsctl("set", "open", ".", "other_config:hw-offload=false", "other_config:dpdk-init=false")
    prepared.vsctl("set", "bridge", "br-int", "datapath_type=netdev")
    assert await found(prepared) == set()


async def test_what_else_the_database_tells(prepared: Database) -> None:
    prepared.vsctl("set", "bridge", "br-int", "datapath_type=netdev", "protocols=OpenFlow10,OpenFlow15")
    prepared.vsctl("set-controller", "br-int", "tcp:192.0.2.1:6653")
    prepared.vsctl("set", "open", ".", "external_ids:ovn-encap-tos=inherit")
    prepared.vsctl(
        "add-port", "br-int", "ovn-hv8-0", "--", "set", "interface", "ovn-hv8-0", "type=geneve", "options:tos=inherit",
        "options:remote_ip=192.0.2.8",
    )  # fmt: skip
    assert await found(prepared) == {
        ("problem", "openflow", "bridge br-int does not speak OpenFlow 1.3"),
        ("warning", "controllers", "bridge br-int has a controller"),
        ("warning", "tunnels", "ovn-encap-tos is 'inherit'"),
        ("warning", "tunnels", "the tunnel copies the inner TOS byte to the outer header"),
    }
    database = await read_database(prepared.rundir, "br-int")
    assert database.system_id == "hv7"
    assert [c.target for c in database.controllers] == ["tcp:192.0.2.1:6653"]
    assert [i.name for i in database.interfaces if i.is_tunnel] == ["ovn-hv8-0"]
    with pytest.raises(CannotWorkError, match="no bridge br-x"):
        await read_database(prepared.rundir, "br-x")


async def test_a_host_without_its_daemon_cant_be_worked(prepared: Database) -> None:
    host = await examine("hv7", prepared.rundir, "br-int")
    problems = {f.check for f in judge(host) if f.level == "problem"}
    assert {"openflow", "ovs-vswitchd"} <= problems
    assert all(f.next_step for f in judge(host) if f.level == "problem")


@pytest.fixture
def vif(switch: Switch) -> Iterator[None]:
    """A port of br0 that is said to be a logical one; the other tests find br0 without it again."""
    switch.vsctl("add-port", "br0", "vm", "--", "set", "interface", "vm", "type=internal", "external_ids:iface-id=vm")
    yield
    switch.vsctl("del-port", "br0", "vm")


@pytest.mark.usefixtures("vif")
async def test_a_real_bridge_that_is_not_ovns(switch: Switch) -> None:
    """Everything is read; the layout is refused, since a port of it is said to be a logical one."""
    switch.ofctl("add-flow", "cookie=0x5654100100000001,table=0,priority=9,actions=drop")
    switch.ofctl("add-meter", "meter=262144,pktps,burst,stats,band=type=drop,rate=1000,burst_size=25")
    before = [switch.ofctl(words, "--no-stats") for words in ("dump-flows", "dump-meters", "dump-groups")]
    host = await examine("here", switch.rundir, "br0")
    judged = judge(host)
    assert [f.check for f in judged if f.level == "problem"] == ["layout"]
    assert host.switch_version.partition(".")[0].isdecimal()
    assert host.tool_version.partition(".")[0].isdecimal()
    assert host.meter_features
    assert host.load is not None
    assert host.load.answer_s > 0
    assert host.clock is not None
    said = {(f.level, f.check) for f in judged}
    assert {("warning", "controllers"), ("ok", "leftovers"), ("ok", "colors"), ("warning", "ovn-controller")} <= said
    assert [f.what for f in judged if f.check == "meters"] == [
        "511 meter ids free, up to 262144; others have 1, up to 262144"
    ]
    after = [switch.ofctl(words, "--no-stats") for words in ("dump-flows", "dump-meters", "dump-groups")]
    assert [text.partition("\n")[2] for text in after] == [text.partition("\n")[2] for text in before]


def test_without_a_cloud_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OVN_NB_DB", "OVN_SB_DB", "OVS_RUNDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VTRACE_LAB", "no-such-lab")
    assert main(["doctor", "--json"]) == 4
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["state"], document["servers"]) == (1, "cannot_work", [])
    assert [(f["level"], f["check"]) for f in document["findings"]] == [("problem", "cloud")]
    assert main(["doctor"]) == 4
    assert capsys.readouterr().out.splitlines()[-1] == "VTrace can't work here."
