"""What changes a running cloud: ordinary commands on the lab's nodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from test_lab import on

from vtrace.lab import daemons, plan
from vtrace.lab import state as lab_state

Step = Callable[[str], object]
"""Does something to the lab of that name."""


def run(node: str, *argv: str) -> Step:
    """A command on a node."""
    return lambda lab: on(lab, node, *argv)


def nb(*argv: str) -> Step:
    """A change of the northbound database."""
    return run("central", "ovn-nbctl", "--timeout=20", *argv)


def bound() -> Step:
    """Waits until every server has what the databases say."""
    return nb("--wait=hv", "sync")


def move(vm: str, origin: str, to: str) -> Step:
    """A VM's interface goes from one server to another: away first, then up there, as in a stop-and-copy migration."""

    def step(lab: str) -> None:
        on(lab, origin, "ovs-vsctl", "del-port", "br-int", vm)
        on(lab, origin, "ip", "link", "set", vm, "netns", lab_state.namespace(lab, to))
        on(lab, to, "ip", "link", "set", vm, "up")
        on(lab, to, "ethtool", "-K", vm, "tx", "off")
        plug(vm, to)(lab)

    return step


def plug(vm: str, server: str) -> Step:
    """The VM's interface becomes a port of the server's bridge."""
    words = ("set", "interface", vm, f"external_ids:iface-id={vm}")
    return run(server, "ovs-vsctl", "add-port", "br-int", vm, "--", *words)


def unplug(vm: str, server: str) -> Step:
    return run(server, "ovs-vsctl", "del-port", "br-int", vm)


def daemon(node: str, name: str, signal: str) -> Step:
    """A signal to a daemon of a node, by its pid file."""

    def step(lab: str) -> None:
        pid = (lab_state.node_directory(lab, node) / f"{name}.pid").read_text().strip()
        on(lab, node, "kill", f"-{signal}", pid)

    return step


def pid_file(lab: str, node: str, name: str) -> Path:
    return lab_state.node_directory(lab, node) / f"{name}.pid"


def pause(seconds: float) -> Step:
    """Lets a change stand for a while."""
    return run("central", "sleep", str(seconds))


def restart_database(short: str) -> Step:
    """Ends and starts the northbound ("nb") or southbound ("sb") database's server."""

    def step(lab: str) -> None:
        state = lab_state.require(lab)
        rundir = lab_state.node_directory(lab, "central")
        name = f"ovn{short}_db"
        on(lab, "central", "ovs-appctl", "-t", str(rundir / f"{name}.ctl"), "exit")
        argv = ["ovsdb-server", f"--remote=punix:{rundir}/{name}.sock", f"--unixctl={rundir}/{name}.ctl"]
        if short == "sb":
            argv.append(f"--remote=ptcp:{plan.SB_PORT}:{plan.CENTRAL_MGMT_ADDRESS}")
        daemons._start(state, "central", [*argv, str(rundir / f"{name}.db")], name)

    return step


def start_controller(server: str) -> Step:
    def step(lab: str) -> None:
        state = lab_state.require(lab)
        daemons.start_controller(state, next(s for s in state.servers if s.name == server))

    return step


def remake(port: str, switch: str) -> Step:
    """Makes a VM's logical port anew."""

    def step(lab: str) -> None:
        vm = next(vm for vm in lab_state.require(lab).vms if vm.name == port)
        addresses = " ".join((vm.mac, *vm.addresses, *vm.aliases))
        on(lab, "central", "ovn-nbctl", "lsp-add", switch, port, "--", "lsp-set-addresses", port, addresses)

    return step


def set_nexthop(prefix: str, nexthop: str, *, of: str) -> Step:
    """A route of a router keeps its row and goes another way."""

    def step(lab: str) -> None:
        routes = on(lab, "central", "ovn-nbctl", "--bare", "--columns=static_routes", "list", "Logical_Router", of)
        for uuid in routes.split():
            if (
                on(lab, "central", "ovn-nbctl", "get", "Logical_Router_Static_Route", uuid, "ip_prefix").strip()
                == f'"{prefix}"'
            ):
                on(lab, "central", "ovn-nbctl", "set", "Logical_Router_Static_Route", uuid, f'nexthop="{nexthop}"')

    return step
