"""Two Open vSwitch installations in network namespaces, with real VMs' interfaces and a tunnel between them.

    plain-vm1 ── br0 ── vxlan ── br-phy ══ wire ══ br-phy ── vxlan ── br0 ── plain-vm2
                 └──── plain-left ────┘            └──── plain-right ────┘

Userspace datapath, so that no kernel module is needed. br0 has hand-written entries, br-phy switches by itself.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from private_switch import SCHEMA, wait_until

SIDES = ("left", "right")
VM, TUNNEL = 1, 2
ADDRESSES = {"left": "10.0.0.1", "right": "10.0.0.2"}
MACS = {"left": "0a:00:00:00:00:01", "right": "0a:00:00:00:00:02"}
UNDERLAY = {"left": "192.0.2.1", "right": "192.0.2.2"}
VMS = {"left": "vm1", "right": "vm2"}


def run(*argv: str, namespace: str = "", env: dict[str, str] | None = None) -> str:
    """Runs a program, in a namespace or here; fails with what it said."""
    where = ["ip", "netns", "exec", f"plain-{namespace}"] if namespace else []
    done = subprocess.run([*where, *argv], check=False, capture_output=True, text=True, timeout=30, env=env)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr}")
    return done.stdout


class Overlay:
    """Both servers, with a VM each. Everything ends with `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._spaces: list[str] = []

    def start(self) -> None:
        """Makes everything; `stop` ends what there is, whether or not this came to its end."""
        for name in (*SIDES, *VMS.values()):
            run("ip", "netns", "add", f"plain-{name}")
            self._spaces.append(f"plain-{name}")
            run("ip", "link", "set", "lo", "up", namespace=name)
        run("ip", "link", "add", "wire", "netns", "plain-left", "type", "veth", "peer", "wire", "netns", "plain-right")
        for side in SIDES:
            self._server(side)
        for side in SIDES:
            self._warm_up(side)

    def _server(self, side: str) -> None:
        vm, rundir = VMS[side], self.rundir(side)
        rundir.mkdir()
        run("ip", "link", "add", "eth0", "netns", f"plain-{vm}", "type", "veth", "peer", vm, "netns", f"plain-{side}")
        run("ip", "link", "set", "eth0", "address", MACS[side], "up", namespace=vm)
        run("ip", "address", "add", f"{ADDRESSES[side]}/24", "dev", "eth0", namespace=vm)
        # For good: a VM that forgets its neighbor while a fault stands would send nothing but ARP.
        other = SIDES[side == "left"]
        run(
            "ip",
            "neigh",
            "add",
            ADDRESSES[other],
            "lladdr",
            MACS[other],
            "dev",
            "eth0",
            "nud",
            "permanent",
            namespace=vm,
        )
        # Userspace datapaths take frames as they are: checksums must be there.
        run("ethtool", "-K", "eth0", "tx", "off", namespace=vm)
        for link in (vm, "wire"):
            run("ip", "link", "set", link, "up", namespace=side)
        env = {**os.environ, **dict.fromkeys(("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"), str(rundir))}
        run("ovsdb-tool", "create", str(rundir / "conf.db"), SCHEMA, env=env)
        self._start(side, env, "ovsdb-server", str(rundir / "conf.db"), f"--remote=punix:{rundir}/db.sock")
        wait_until("ovsdb-server's socket", (rundir / "db.sock").exists)
        self.vsctl(side, "--no-wait", "init")
        self._start(side, env, "ovs-vswitchd", f"unix:{rundir}/db.sock", "--disable-system")
        wait_until("ovs-vswitchd's pidfile", (rundir / "ovs-vswitchd.pid").exists)
        self.vsctl(side, "add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type=netdev",
                   "--", "add-port", "br-phy", "wire")  # fmt: skip
        run("ip", "address", "add", f"{UNDERLAY[side]}/24", "dev", "br-phy", namespace=side)
        run("ip", "link", "set", "br-phy", "up", namespace=side)
        peer = UNDERLAY[SIDES[side == "left"]]
        self.vsctl(side, "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail_mode=secure",
                   "--", "add-port", "br0", vm, "--", "set", "interface", vm, f"ofport_request={VM}",
                   "--", "add-port", "br0", "tun", "--", "set", "interface", "tun", "type=vxlan",
                   f"options:remote_ip={peer}", "options:key=42", f"ofport_request={TUNNEL}")  # fmt: skip

    def _start(self, side: str, env: dict[str, str], name: str, *args: str) -> None:
        rundir = self.rundir(side)
        argv = ["ip", "netns", "exec", f"plain-{side}", name, *args, f"--pidfile={rundir}/{name}.pid"]
        argv += [f"--log-file={rundir}/{name}.log", "-vconsole:off", "--no-chdir"]
        null = subprocess.DEVNULL
        self._processes.append(subprocess.Popen(argv, env=env, stdout=null, stderr=null))

    def _warm_up(self, side: str) -> None:
        """Until a packet went through: tunnels lose the first ones while they look for their neighbors."""
        self.entries(side, f"in_port={VM},actions=output:{TUNNEL}", f"in_port={TUNNEL},actions=output:{VM}")
        if side == SIDES[-1]:
            wait_until("a ping through the tunnel", self._pings, timeout_s=20)

    def _pings(self) -> bool:
        argv = ["ip", "netns", "exec", "plain-vm1", "ping", "-c1", "-W1", ADDRESSES["right"]]
        return subprocess.run(argv, check=False, capture_output=True, timeout=10).returncode == 0

    def rundir(self, side: str) -> Path:
        return self.folder / side

    def vsctl(self, side: str, *args: str) -> None:
        run("ovs-vsctl", f"--db=unix:{self.rundir(side)}/db.sock", "--timeout=10", *args)

    def entries(self, side: str, *lines: str) -> None:
        """Puts these entries on br0, in place of all others."""
        target = f"unix:{self.rundir(side)}/br0.mgmt"
        run("ovs-ofctl", "-O", "OpenFlow13", "del-flows", target)
        for line in lines:
            run("ovs-ofctl", "-O", "OpenFlow13", "add-flow", target, line)

    def inventory(self) -> Path:
        """The inventory file."""
        path = self.folder / "plain.toml"
        parts = []
        for side in SIDES:
            parts.append(
                f'[[server]]\nname = "{side}"\nrundir = "{self.rundir(side)}"\nbridges = ["br0"]\n'
                f'address = "{UNDERLAY[side]}"\n[[endpoint]]\nname = "{VMS[side]}"\nserver = "{side}"\n'
                f'bridge = "br0"\nport = "{VMS[side]}"\nmac = "{MACS[side]}"\naddresses = ["{ADDRESSES[side]}"]\n'
            )
        ends = ", ".join(f'{{ server = "{side}", bridge = "br0", port = "tun" }}' for side in SIDES)
        path.write_text("\n".join([*parts, f'[[link]]\nkind = "tunnel"\nends = [{ends}]\n']))
        return path

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=10)
        for space in self._spaces:
            subprocess.run(["ip", "netns", "delete", space], check=False, capture_output=True, timeout=10)
