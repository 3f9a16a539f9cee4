"""`lab status`: what stands, and which of its daemons are dead."""

from __future__ import annotations

from vtrace.lab import breaking, releases, traffic
from vtrace.lab.daemons import daemons_of, is_alive
from vtrace.lab.state import LabState, LabVm


def document(state: LabState) -> dict[str, object]:
    """The document of `lab status --json` (design.md, "The lab")."""
    nodes = [
        {
            "name": node.name,
            "role": node.role,
            "region": node.region,
            "addresses": list(node.addresses),
            "connects": list(node.connects),
        }
        for node in state.nodes
    ]
    vms = [
        {
            "name": vm.name,
            "server": vm.server,
            "switch": _switch(state, vm),
            "vpc": vm.vpc,
            "addresses": list(vm.addresses + vm.aliases),
        }
        for vm in state.vms
    ]
    return {"nodes": nodes, "vms": vms}


def _switch(state: LabState, vm: LabVm) -> str:
    """The virtual device next to a VM."""
    return vm.bridge if state.kind == "plain" else vm.switch


def dead_daemons(state: LabState) -> list[tuple[str, str]]:
    """(node, daemon) of every daemon that does not run."""
    return [(node, daemon) for node, daemon in daemons_of(state) if not is_alive(state, node, daemon)]


def text(state: LabState) -> str:
    """What `lab status` prints for people."""
    lines = [f"lab {state.name}: up since {state.started}, {state.encap}, from {state.topology}", ""]
    width = max(len(node.name) for node in state.nodes)
    for node in state.nodes:
        region = node.region or "-"
        addresses = " ".join(node.addresses)
        lines.append(f"  {node.name:{width}}  {node.role:10}  {region:6}  {addresses}")
    lines += [f"  {line}" for line in releases.shown(state.releases)]
    lines.append("")
    for vm in state.vms:
        lines.append(f"  VM {vm.name:{width}}  VPC {vm.vpc}, switch {_switch(state, vm)}, on {vm.server}")
    lines += [f"  traffic {one.text()}" for one in traffic.all_of(state)]
    lines += [f"  broken {one.text()}" for one in breaking.all_of(state)]
    for node_name, daemon in dead_daemons(state):
        lines.append(f"  dead: {daemon} on {node_name}")
    return "\n".join(lines)
