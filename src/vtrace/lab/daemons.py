"""The daemons of a lab: OVN's databases and ovn-northd on central; Open vSwitch and ovn-controller on each server.

A plain lab has Open vSwitch alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vtrace.errors import CannotWorkError
from vtrace.lab import bgp, bridges, links, plan
from vtrace.lab import state as lab_state
from vtrace.lab.namespaces import start_time
from vtrace.lab.programs import Patience, ProgramError, run_on, wait_for
from vtrace.lab.state import LabServer, LabState

OVN_SCHEMAS = Path("/usr/share/ovn")
OVS_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
START_TIMEOUT_S = 30.0
NEIGHBOR_AGING_S = 3600
"""How long an idle tunnel remembers its next hop (the longest Open vSwitch allows); its first packet then is lost."""
PROBE_INTERVAL_S = 60
"""Between ovn-controller and its databases and bridge: patient, for a machine of two cores runs it all."""

DATABASES: tuple[Literal["nb"], Literal["sb"]] = ("nb", "sb")
CENTRAL_DAEMONS = ("ovnnb_db", "ovnsb_db", "ovn-northd")
SWITCH_DAEMONS = ("ovsdb-server", "ovs-vswitchd")


def daemons_of(state: LabState) -> list[tuple[str, str]]:
    """All (node, daemon) of a lab; `<rundir>/<daemon>.pid` holds the process id."""
    found = [(server.name, daemon) for server in state.servers for daemon in SWITCH_DAEMONS]
    if state.kind == "ovn":
        found = [("central", daemon) for daemon in CENTRAL_DAEMONS] + found
        found += [(server.name, "ovn-controller") for server in state.servers]
    return found + bgp.daemons_of(state)


def is_alive(state: LabState, node: str, daemon: str) -> bool:
    """Whether a daemon runs: the process its pid file names exists."""
    try:
        pid = int((lab_state.node_directory(state.name, node) / f"{daemon}.pid").read_text())
    except (OSError, ValueError):
        return False
    return start_time(pid) is not None


def _start(state: LabState, node: str, argv: list[str], daemon: str) -> None:
    """Start a daemon that detaches once it is ready."""
    rundir = lab_state.node_directory(state.name, node)
    options = ["--detach", f"--pidfile={rundir}/{daemon}.pid", f"--log-file={rundir}/{daemon}.log"]
    try:
        run_on(state, node, [*argv, *options, "-vconsole:off"], timeout_s=START_TIMEOUT_S)
    except ProgramError as error:
        log = rundir / f"{daemon}.log"
        tail = log.read_text().splitlines()[-3:] if log.exists() else []
        raise CannotWorkError(f"{daemon} did not start", node, "; ".join([error.why, *tail])) from error


def start_central(state: LabState) -> None:
    """Start the northbound and southbound databases and ovn-northd."""
    rundir = lab_state.node_directory(state.name, "central")
    rundir.mkdir(parents=True, exist_ok=True)
    for short in DATABASES:
        database, schema = rundir / f"ovn{short}_db.db", OVN_SCHEMAS / f"ovn-{short}.ovsschema"
        run_on(state, "central", ["ovsdb-tool", "create", str(database), str(schema)])
        start_database(state, short)
    start_northd(state)


def start_database(state: LabState, short: Literal["nb", "sb"]) -> None:
    """Start the server of OVN's northbound or southbound database."""
    rundir, daemon = lab_state.node_directory(state.name, "central"), f"ovn{short}_db"
    argv = ["ovsdb-server", f"--remote=punix:{rundir}/{daemon}.sock", f"--unixctl={rundir}/{daemon}.ctl"]
    if short == "sb":
        argv.append(f"--remote=ptcp:{plan.SB_PORT}:{plan.CENTRAL_MGMT_ADDRESS}")
    _start(state, "central", [*argv, str(rundir / f"{daemon}.db")], daemon)


def start_northd(state: LabState) -> None:
    """Start ovn-northd."""
    northd = ["ovn-northd", f"--ovnnb-db={state.nb_remote}", f"--ovnsb-db={state.sb_remote}"]
    _start(state, "central", northd, "ovn-northd")


def start_switch(state: LabState, server: LabServer) -> None:
    """Start a server's ovsdb-server and ovs-vswitchd, with br-phy, br-int and the VMs' ports in it."""
    rundir = Path(server.rundir)
    rundir.mkdir(parents=True, exist_ok=True)
    run_on(state, server.name, ["ovsdb-tool", "create", str(rundir / "conf.db"), str(OVS_SCHEMA)])
    start_switch_database(state, server)
    run_on(state, server.name, ["ovs-vsctl", "--no-wait", *_switch_configuration(state, server)])
    start_vswitchd(state, server)


def start_switch_database(state: LabState, server: LabServer) -> None:
    """Start a server's ovsdb-server."""
    ovsdb = ["ovsdb-server", f"{server.rundir}/conf.db", f"--remote=punix:{server.rundir}/db.sock"]
    _start(state, server.name, [*ovsdb, "--remote=db:Open_vSwitch,Open_vSwitch,manager_options"], "ovsdb-server")


def start_vswitchd(state: LabState, server: LabServer) -> None:
    """Start a server's ovs-vswitchd, with the bridge of the underlay ready. Started anew, too."""
    # --disable-system: never look for the kernel's Open vSwitch, which belongs to the machine.
    _start(state, server.name, ["ovs-vswitchd", f"unix:{server.rundir}/db.sock", "--disable-system"], "ovs-vswitchd")
    _wait_for_port(server, plan.UNDERLAY_BRIDGE, state)
    links.set_up_underlay(state, server)
    entries = "\n".join(_underlay_entries(state, server)) + "\n"
    run_on(state, server.name, ["ovs-ofctl", "add-flows", plan.UNDERLAY_BRIDGE, "-"], text=entries)
    run_on(state, server.name, ["ovs-appctl", "tnl/neigh/aging", str(NEIGHBOR_AGING_S)])


def start_controller(state: LabState, server: LabServer) -> None:
    """Start a server's ovn-controller."""
    _start(state, server.name, ["ovn-controller", f"unix:{server.rundir}/db.sock"], "ovn-controller")


def _wait_for_port(server: LabServer, port: str, state: LabState) -> None:
    def links_seen() -> str:
        return run_on(state, server.name, ["ip", "-o", "link", "show"])

    wait_for(
        lambda: f" {port}: " in links_seen(),
        what=f"ovs-vswitchd to make {port}",
        where=server.name,
        patience=Patience(START_TIMEOUT_S),
        seen=lambda: f"its links are {[line.split(': ')[1] for line in links_seen().splitlines()]}",
    )


def _switch_configuration(state: LabState, server: LabServer) -> list[str]:
    """Arguments of the one ovs-vsctl that configures a server."""
    external_ids = {"system-id": server.chassis}
    if state.kind == "ovn":
        external_ids |= _controller_settings(state, server)
    argv = ["init", "--", "set", "Open_vSwitch", "."]
    argv += [f'external_ids:{key}="{value}"' for key, value in external_ids.items()]
    argv += ["other_config:n-revalidator-threads=1"]
    argv += ["--", "add-br", plan.UNDERLAY_BRIDGE, "--", "set", "Bridge", plan.UNDERLAY_BRIDGE]
    argv += ["datapath_type=netdev", "fail_mode=secure", f'other_config:hwaddr="{server.tunnel_mac}"']
    for number, other in enumerate((s for s in state.servers if s.name != server.name), 1):
        port = links.wire_port(other.name)
        argv += ["--", "add-port", plan.UNDERLAY_BRIDGE, port]
        argv += ["--", "set", "Interface", port, f"ofport_request={number}"]
    if state.kind == "plain":
        return argv + bridges.configuration(state, server)
    argv += ["--", "add-br", plan.BRIDGE, "--", "set", "Bridge", plan.BRIDGE]
    argv += ["datapath_type=netdev", "fail_mode=secure"]
    for end in state.ends_on(server.name):
        argv += ["--", "add-port", plan.BRIDGE, end.name]
        argv += ["--", "set", "Interface", end.name, f'external_ids:iface-id="{end.name}"']
    return argv + _provider_configuration(state, server)


def _controller_settings(state: LabState, server: LabServer) -> dict[str, str]:
    """The external_ids that ovn-controller reads."""
    settings = {
        "ovn-remote": f"tcp:{plan.CENTRAL_MGMT_ADDRESS}:{plan.SB_PORT}",
        "ovn-encap-type": state.encap,
        "ovn-encap-ip": server.tunnel_address,
        "ovn-bridge-datapath-type": "netdev",
        "ovn-remote-probe-interval": str(PROBE_INTERVAL_S * 1000),
        "ovn-openflow-probe-interval": str(PROBE_INTERVAL_S),
    }
    if server.networks:
        mappings = (f"{network}:{plan.provider_bridge(network)}" for network in server.networks)
        settings["ovn-bridge-mappings"] = ",".join(mappings)
    return settings


def _provider_configuration(state: LabState, server: LabServer) -> list[str]:
    """Arguments that make a bridge for each provider network, with a port for each outside box in it."""
    argv = []
    for network in server.networks:
        bridge = plan.provider_bridge(network)
        argv += ["--", "add-br", bridge, "--", "set", "Bridge", bridge, "datapath_type=netdev"]
        for box in state.outsides:
            if box.network == network:
                argv += ["--", "add-port", bridge, box.name, *([f"tag={box.vlan}"] if box.vlan else [])]
    return argv


def _underlay_entries(state: LabState, server: LabServer) -> list[str]:
    """Entries of br-phy: to each wire by its own MAC, so that nothing is ever flooded to another wire."""
    lines = []
    for other in state.servers:
        if other.name == server.name:
            continue
        wire = state.wire_between(server.name, other.name)
        end = wire.ends.index(server.name)
        port = links.wire_port(other.name)
        lines += [
            f"priority=100,in_port=LOCAL,arp,arp_tpa={wire.addresses[end]},actions=output:{port}",
            f"priority=90,in_port=LOCAL,dl_dst={wire.macs[end]},actions=output:{port}",
            f"priority=90,in_port={port},actions=LOCAL",
        ]
    return lines
