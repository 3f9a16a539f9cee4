"""The logical network of a lab: the northbound rows of its topology, in one transaction."""

from __future__ import annotations

import ipaddress

from vtrace.lab import plan
from vtrace.lab.declared import LoadBalancer, Router, Switch, Topology, health_source, router_address
from vtrace.lab.programs import run_on
from vtrace.lab.state import LabState

VPC_KEY = "vtrace:vpc"
"""external_ids key of a Logical_Switch and Logical_Router that names the VPC it is part of."""
KIND_KEY = "vtrace:kind"
"""external_ids key of a Logical_Router that says what it is for."""
PRIORITY_STEP = 10
"""Between the priorities of a gateway port's chassis; the last one's."""
HEALTH_OPTIONS = ("options:interval=1", "options:timeout=1", "options:success_count=1", "options:failure_count=2")
"""OVN's shortest: a dead backend is offline after some three seconds."""


def write(state: LabState, topology: Topology) -> None:
    """Write switches, routers, ports, routes, translations and load balancers into the northbound database."""
    arguments = ["init"]
    for router in topology.routers:
        arguments += _router(router)
    for switch in topology.switches:
        arguments += _switch(topology, switch)
    for number, link in enumerate(topology.links):
        networks = [_in_subnet(topology, link.switch, text) for text in link.addresses]
        arguments += _router_port(link.switch, link.router, plan.link_mac(number), networks)
        for rank, chassis in enumerate(reversed(link.gateways), 1):
            port = f"{link.router}-{link.switch}"
            arguments += ["--", "lrp-set-gateway-chassis", port, chassis, str(PRIORITY_STEP * rank)]
    for vm in state.vms:
        owned = " ".join((vm.mac, *vm.addresses))
        allowed = " ".join((vm.mac, *vm.addresses, *vm.aliases))
        arguments += ["--", "lsp-add", vm.switch, vm.name, "--", "lsp-set-addresses", vm.name, owned]
        arguments += ["--", "lsp-set-port-security", vm.name, allowed]
    for speaker in state.speakers:
        owned = " ".join((speaker.mac, *speaker.addresses))
        arguments += ["--", "lsp-add", speaker.switch, speaker.name, "--", "lsp-set-addresses", speaker.name, owned]
    routers = {router.name for router in topology.routers}
    for route in topology.routes:
        if route.router in routers:
            arguments += ["--", "lr-route-add", route.router, route.prefix, route.nexthop]
    for number, nat in enumerate(topology.nats):
        arguments += ["--", "lr-nat-add", nat.router, nat.type, nat.external, nat.logical]
        arguments += [nat.vm, plan.floating_mac(number)] if nat.vm is not None else []
    for number, balancer in enumerate(topology.load_balancers):
        arguments += _load_balancer(state, topology, balancer, f"@lb{number}")
    run_on(state, "central", ["ovn-nbctl", *arguments])


def _router(router: Router) -> list[str]:
    columns = [_external_id(VPC_KEY, router.vpc)]
    columns += [_external_id(KIND_KEY, router.kind)] if router.kind is not None else []
    columns += [f"options:chassis={router.chassis}"] if router.chassis is not None else []
    columns += [f'options:{key}="{value}"' for key, value in router.options.items()]
    return ["--", "lr-add", router.name, "--", "set", "Logical_Router", router.name, *columns]


def _switch(topology: Topology, switch: Switch) -> list[str]:
    arguments = ["--", "ls-add", switch.name]
    columns = [_external_id(VPC_KEY, switch.vpc)] if switch.vpc is not None else []
    # As ovn-ic marks the switches it makes.
    columns += [f"other_config:interconn-ts={switch.name}"] if switch.transit else []
    if columns:
        arguments += ["--", "set", "Logical_Switch", switch.name, *columns]
    if switch.network is not None:
        port = f"{switch.name}-localnet"
        arguments += ["--", "lsp-add", switch.name, port, "--", "lsp-set-type", port, "localnet"]
        arguments += ["--", "lsp-set-addresses", port, "unknown"]
        arguments += ["--", "lsp-set-options", port, f"network_name={switch.network}"]
        if switch.vlan is not None:
            arguments += ["--", "set", "Logical_Switch_Port", port, f"tag_request={switch.vlan}"]
    if switch.router is not None:
        networks = [f"{router_address(n)}/{n.prefixlen}" for n in plan.subnets(topology, switch.name)]
        arguments += _router_port(switch.name, switch.router, plan.router_mac(topology, switch.name), networks)
    return arguments


def _external_id(key: str, value: str) -> str:
    return f'external_ids:"{key}"="{value}"'


def _in_subnet(topology: Topology, switch: str, text: str) -> str:
    """An address with the length of the switch's subnet that it is in."""
    address = ipaddress.ip_address(text)
    network = next(network for network in plan.subnets(topology, switch) if address in network)
    return f"{address}/{network.prefixlen}"


def _router_port(switch: str, router: str, mac: str, networks: list[str]) -> list[str]:
    """Arguments that join a switch and a router."""
    router_side, switch_side = f"{router}-{switch}", f"{switch}-{router}"
    return [
        *("--", "lrp-add", router, router_side, mac, *networks),
        *("--", "lsp-add", switch, switch_side, "--", "lsp-set-type", switch_side, "router"),
        *("--", "lsp-set-addresses", switch_side, "router"),
        *("--", "lsp-set-options", switch_side, f"router-port={router_side}"),
    ]


def _load_balancer(state: LabState, topology: Topology, balancer: LoadBalancer, row: str) -> list[str]:
    """Arguments that make one Load_Balancer row, its health checks, and put it where it belongs."""
    arguments: list[str] = []
    vips, checks = [], []
    for number, vip in enumerate(vip for vip in state.vips if vip.balancer == balancer.name):
        key = _endpoint(vip.address, vip.port)
        vips.append(f'"{key}"="{",".join(_endpoint(b.address, vip.backend_port) for b in vip.backends)}"')
        if balancer.health_check:
            checks.append(f"{row}c{number}")
            arguments += ["--", f"--id={checks[-1]}", "create", "Load_Balancer_Health_Check"]
            arguments += [f'vip="{key}"', *HEALTH_OPTIONS]
    arguments += ["--", f"--id={row}", "create", "Load_Balancer", f'name="{balancer.name}"']
    arguments += [f"vips={{{' '.join(vips)}}}"]
    arguments += [f"protocol={balancer.protocol}"] if balancer.port is not None else []
    if checks:
        backends = {b.address: b.vm for vip in state.vips if vip.balancer == balancer.name for b in vip.backends}
        mappings = " ".join(_health_mapping(state, topology, *one) for one in backends.items())
        arguments += [f"health_check=[{','.join(checks)}]", f"ip_port_mappings={{{mappings}}}"]
    for switch in balancer.switches:
        arguments += ["--", "add", "Logical_Switch", switch, "load_balancer", row]
    for router in balancer.routers:
        arguments += ["--", "add", "Logical_Router", router, "load_balancer", row]
    return arguments


def _endpoint(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _health_mapping(state: LabState, topology: Topology, address: str, name: str) -> str:
    """Through which port, and from which address, OVN looks after a backend (IPv6 addresses in brackets)."""
    networks = plan.subnets(topology, state.vm(name).switch)
    source = health_source(next(network for network in networks if ipaddress.ip_address(address) in network))
    if source.version == 6:
        return f'"[{address}]"="{name}:[{source}]"'
    return f'"{address}"="{name}:{source}"'
