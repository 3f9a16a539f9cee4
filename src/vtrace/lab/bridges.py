"""The bridges of a plain lab: entries that the topology has, tunnels, patches, and the inventory file of it all."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from vtrace.errors import UsageError
from vtrace.lab import state as lab_state
from vtrace.lab.declared import Topology
from vtrace.lab.programs import ProgramError, run_on
from vtrace.lab.state import LabServer, LabState

TUNNEL_KEY = 42

End = tuple[str, str, str]
"""Server, bridge, port."""


def tunnel_port(towards: str) -> str:
    """The port of a server's first bridge whose tunnel leads to another server."""
    return f"vx-{towards}"


def patch_port(towards: str) -> str:
    """The port of a bridge that leads to another one of its server."""
    return f"to-{towards}"


def configuration(state: LabState, server: LabServer) -> list[str]:
    """Arguments of ovs-vsctl that make a server's bridges with all their ports."""
    argv = []
    for bridge in server.bridges:
        argv += ["--", "add-br", bridge, "--", "set", "Bridge", bridge, "datapath_type=netdev", "fail_mode=secure"]
    for end in state.vms:
        if end.server == server.name:
            argv += ["--", "add-port", end.bridge, end.name]
    for other in state.servers:
        if other.name != server.name:
            options = (f"options:remote_ip={other.tunnel_address}", f"options:key={TUNNEL_KEY}")
            argv += _port(server.bridge, tunnel_port(other.name), f"type={state.encap}", *options)
    for patch in state.patches:
        if patch.server == server.name:
            for here, there in (patch.bridges, patch.bridges[::-1]):
                argv += _port(here, patch_port(there), "type=patch", f"options:peer={patch_port(here)}")
    return argv


def _port(bridge: str, name: str, *columns: str) -> list[str]:
    return ["--", "add-port", bridge, name, "--", "set", "Interface", name, *columns]


def write_entries(state: LabState, topology: Topology) -> None:
    """Put the topology's entries on all bridges.

    Raises:
        UsageError: Open vSwitch does not take them; names the bridge and says what it said.
    """
    for bridge in topology.bridges:
        try:
            run_on(state, bridge.server, ["ovs-ofctl", "add-flows", bridge.name, "-"], text=bridge.entries)
        except ProgramError as error:
            where = f"{state.topology}: bridge {bridge.name!r} of {bridge.server!r}.entries"
            raise UsageError("Open vSwitch does not take these entries", where, error.why) from error


def write_inventory(state: LabState) -> Path:
    """Write the file that `vtrace diagnose` reads; its path."""
    path = lab_state.inventory_file(state.name)
    path.write_text(inventory(state))
    return path


def inventory(state: LabState) -> str:
    """The inventory file of a plain lab (docs/plain-ovs.md)."""
    tables = [
        _table(
            "server",
            name=server.name,
            rundir=server.rundir,
            bridges=list(server.bridges),
            address=server.tunnel_address,
            region=server.region,
        )
        for server in state.servers
    ]
    tables += [
        _table(
            "endpoint",
            name=vm.name,
            server=vm.server,
            bridge=vm.bridge,
            port=vm.name,
            mac=vm.mac,
            addresses=list(vm.addresses + vm.aliases),
            vpc=vm.vpc,
        )
        for vm in state.vms
    ]
    tables += [f'[[link]]\nkind = "{kind}"\nends = [{_inline(ends)}]\n' for kind, ends in _links(state)]
    return f"# Written by `vtrace lab up`: lab {state.name}, topology {state.topology}.\n\n" + "\n".join(tables)


def _links(state: LabState) -> Iterator[tuple[str, tuple[End, End]]]:
    for one, two in itertools.combinations(state.servers, 2):
        ends = ((one.name, one.bridge, tunnel_port(two.name)), (two.name, two.bridge, tunnel_port(one.name)))
        yield "tunnel", ends
    for patch in state.patches:
        first, second = patch.bridges
        yield "patch", ((patch.server, first, patch_port(second)), (patch.server, second, patch_port(first)))


def _table(heading: str, /, **values: str | list[str]) -> str:
    """A table of TOML, whose texts and lists of texts are written as JSON's are."""
    lines = (f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    return f"[[{heading}]]\n{''.join(lines)}"


def _inline(ends: Iterable[End]) -> str:
    keys = ("server", "bridge", "port")
    pairs = (", ".join(f"{key} = {json.dumps(text)}" for key, text in zip(keys, end, strict=True)) for end in ends)
    return ", ".join(f"{{ {pair} }}" for pair in pairs)
