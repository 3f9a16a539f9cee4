"""A private ovsdb-server and ovs-vswitchd with dummy devices: no namespace, no tap, nothing of the machine's."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vtrace.ovs.jsonrpc import transact
from vtrace.ovs.unixctl import ctl_path

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


def wait_until(what: str, condition: Callable[[], bool], timeout_s: float = 10) -> None:
    """Polls a condition; fails with its name when it does not come true."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {timeout_s} s: {what}")
        time.sleep(0.01)


class Switch:
    """The daemons and one bridge, br0, with the dummy ports p1 and p2 (port numbers 1 and 2)."""

    def __init__(self, rundir: Path) -> None:
        self.rundir = str(rundir)
        self.mgmt = str(rundir / "br0.mgmt")
        env = {**os.environ, "OVS_RUNDIR": self.rundir, "OVS_LOGDIR": self.rundir, "OVS_DBDIR": self.rundir}
        self._env = env
        self._processes: list[subprocess.Popen[bytes]] = []
        subprocess.run(["ovsdb-tool", "create", str(rundir / "conf.db"), SCHEMA], check=True, timeout=10, env=env)
        self._start("ovsdb-server", str(rundir / "conf.db"), f"--remote=punix:{rundir}/db.sock")
        wait_until("ovsdb-server's socket", (rundir / "db.sock").exists)
        self.vsctl("--no-wait", "init")
        self._start("ovs-vswitchd", f"unix:{rundir}/db.sock", "--enable-dummy=override", "--disable-system")
        wait_until("ovs-vswitchd's pidfile", lambda: (rundir / "ovs-vswitchd.pid").exists())
        self.vsctl("add-br", "br0", "--", "set", "bridge", "br0", "fail_mode=secure", "datapath_type=dummy")
        for number in (1, 2):
            name = f"p{number}"
            self.vsctl(
                "add-port", "br0", name, "--", "set", "interface", name, "type=dummy", f"ofport_request={number}"
            )
        self.vsctl("set", "open", ".", "external_ids:system-id=hv1", "external_ids:ovn-encap-ip=192.0.2.1")
        self.ctl = ctl_path(self.rundir)

    def _start(self, name: str, *args: str) -> None:
        argv = [name, *args, f"--pidfile={self.rundir}/{name}.pid", f"--log-file={self.rundir}/{name}.log"]
        argv += ["-vconsole:off", "--no-chdir"]
        null = subprocess.DEVNULL
        self._processes.append(subprocess.Popen(argv, env=self._env, stdout=null, stderr=null))

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=10)

    def vsctl(self, *args: str) -> str:
        argv = ["ovs-vsctl", f"--db=unix:{self.rundir}/db.sock", "--timeout=10", *args]
        return subprocess.run(argv, check=True, timeout=15, env=self._env, capture_output=True, text=True).stdout

    def ofctl(self, *args: str, bridge: str = "br0") -> str:
        """ovs-ofctl by hand: what somebody else does to the bridge."""
        command, *rest = args
        argv = ["ovs-ofctl", "-O", "OpenFlow13", command, f"unix:{self.rundir}/{bridge}.mgmt", *rest]
        return subprocess.run(argv, check=True, timeout=15, env=self._env, capture_output=True, text=True).stdout

    async def receive(self, port: str, packet: bytes) -> None:
        """Lets a packet come in at a port."""
        # Not by `unixctl.call`, which bounds how often VTrace calls; this is traffic.
        words = (port, packet.hex())
        reply = await transact(self.ctl, "netdev-dummy/receive", words, daemon="ovs-vswitchd", timeout_s=5)
        assert reply.error is None, reply.error
