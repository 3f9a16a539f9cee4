"""The logical network of a lab: the northbound rows of its topology, in one transaction."""

from __future__ import annotations

from vtrace.lab import plan
from vtrace.lab.programs import run_on
from vtrace.lab.state import LabState
from vtrace.lab.topology import Topology, router_address

VPC_KEY = "vtrace:vpc"
"""external_ids key of a Logical_Switch and Logical_Router that names the VPC it is part of."""


def write(state: LabState, topology: Topology) -> None:
    """Write switches, routers, ports and routes into the northbound database."""
    arguments = ["init"]
    for router in topology.routers:
        arguments += ["--", "lr-add", router.name]
        arguments += ["--", "set", "Logical_Router", router.name, _vpc(router.vpc)]
    for switch in topology.switches:
        arguments += ["--", "ls-add", switch.name]
        arguments += ["--", "set", "Logical_Switch", switch.name, _vpc(switch.vpc)]
        if switch.router is not None:
            arguments += _router_port(topology, switch.name, switch.router)
    for vm in state.vms:
        owned = " ".join((vm.mac, *vm.addresses))
        allowed = " ".join((vm.mac, *vm.addresses, *vm.aliases))
        arguments += ["--", "lsp-add", vm.switch, vm.name, "--", "lsp-set-addresses", vm.name, owned]
        arguments += ["--", "lsp-set-port-security", vm.name, allowed]
    for route in topology.routes:
        arguments += ["--", "lr-route-add", route.router, route.prefix, route.nexthop]
    run_on(state, "central", ["ovn-nbctl", *arguments])


def _vpc(name: str) -> str:
    return f'external_ids:"{VPC_KEY}"="{name}"'


def _router_port(topology: Topology, switch: str, router: str) -> list[str]:
    """Arguments that join a switch and a router."""
    router_side, switch_side = f"{router}-{switch}", f"{switch}-{router}"
    networks = [f"{router_address(n)}/{n.prefixlen}" for n in plan.subnets(topology, switch)]
    mac = plan.router_mac(topology, switch)
    return [
        *("--", "lrp-add", router, router_side, mac, *networks),
        *("--", "lsp-add", switch, switch_side, "--", "lsp-set-type", switch_side, "router"),
        *("--", "lsp-set-addresses", switch_side, "router"),
        *("--", "lsp-set-options", switch_side, f"router-port={router_side}"),
    ]
