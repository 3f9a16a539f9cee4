"""What can't be built of a topology's outer parts: boxes, links, translations, load balancers, BGP, promises."""

from __future__ import annotations

from collections.abc import Iterator

from vtrace.lab.declared import (
    Bgp,
    LoadBalancer,
    Nat,
    Topology,
    address_of,
    health_source,
    interface_of,
    listener_of,
    network_of,
    router_address,
    vip_of,
)

MAX_VLAN = 4094

Problems = Iterator[tuple[str, str]]


def outer_problems(topology: Topology) -> Problems:
    """All that is wrong with them, as (key, reason)."""
    yield from _outside_problems(topology)
    yield from _network_problems(topology)
    yield from _router_problems(topology)
    yield from _link_problems(topology)
    for number, nat in enumerate(topology.nats, 1):
        yield from _nat_problems(topology, nat, f"nat {number}")
    yield from _balancer_name_problems(topology)
    for balancer in topology.load_balancers:
        yield from _balancer_problems(topology, balancer, f"load_balancer {balancer.name!r}")
    for bgp in topology.bgps:
        yield from _bgp_problems(topology, bgp, f"bgp {bgp.name!r}")
    yield from _reach_problems(topology)
    yield from _clashes(topology)


def _clashes(topology: Topology) -> Problems:
    """Addresses that two things of one switch claim."""
    claims: dict[tuple[str, str], str] = {}
    checked = {name for balancer in topology.load_balancers if balancer.health_check for name in balancer.backends}
    watched = {vm.switch for vm in topology.vms if vm.name in checked}
    for switch in topology.switches:
        networks = [network for network in map(network_of, switch.subnets) if network is not None]
        if switch.router is not None:
            claims |= {(switch.name, str(router_address(network))): f"router {switch.router!r}" for network in networks}
        if switch.name in watched:
            claims |= {(switch.name, str(health_source(network))): "health checks" for network in networks}
    for switch_name, key, texts in _claimants(topology):
        for text in texts:
            place = (switch_name, str(address_of(text)))
            if claims.setdefault(place, key) != key:
                yield f"{key}.addresses", f"{text} is taken on {switch_name!r} by {claims[place]}"


def _claimants(topology: Topology) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(switch, key, addresses) of what is declared to have addresses on a switch."""
    for vm in topology.vms:
        yield vm.switch, f"vm {vm.name!r}", vm.addresses
    for number, link in enumerate(topology.links, 1):
        yield link.switch, f"link {number}", link.addresses
    for bgp in topology.bgps:
        yield bgp.switch, f"bgp {bgp.name!r}", bgp.addresses
    for box in topology.outsides:
        for switch in topology.switches:
            if (switch.network, switch.vlan) == (box.network, box.vlan):
                own = tuple(text.partition("/")[0] for text in box.addresses)
                yield switch.name, f"outside {box.name!r}", own


def _networks(topology: Topology) -> set[str]:
    return {network for server in topology.servers for network in server.networks}


def _outside_problems(topology: Topology) -> Problems:
    places: set[tuple[str, int | None]] = set()
    for box in topology.outsides:
        key = f"outside {box.name!r}"
        if box.network not in _networks(topology):
            yield f"{key}.network", f"no server has the network {box.network!r}"
        if box.vlan is not None and not 1 <= box.vlan <= MAX_VLAN:
            yield f"{key}.vlan", f"{box.vlan} is outside 1..{MAX_VLAN}"
        if (box.network, box.vlan) in places:
            yield f"{key}.network", f"{box.network!r} has an outside box already; a second would close a loop"
        places.add((box.network, box.vlan))
        if not box.addresses:
            yield f"{key}.addresses", "at least one is needed"
        for text in box.addresses:
            if interface_of(text) is None:
                yield f"{key}.addresses", f"{text!r} is not an address with prefix length such as 192.0.2.1/24"
        for text in box.hosts:
            if address_of(text) is None:
                yield f"{key}.hosts", f"{text!r} is not an address"
        for text in box.listens:
            if listener_of(text) is None:
                yield f"{key}.listens", f"{text!r} is not tcp/PORT or udp/PORT"


def _network_problems(topology: Topology) -> Problems:
    for switch in topology.switches:
        key = f"switch {switch.name!r}"
        if switch.network is not None and switch.network not in _networks(topology):
            yield f"{key}.network", f"no server has the network {switch.network!r}"
        if switch.vlan is not None and switch.network is None:
            yield f"{key}.vlan", "only a switch of a provider network has one"
        if switch.vlan is not None and not 1 <= switch.vlan <= MAX_VLAN:
            yield f"{key}.vlan", f"{switch.vlan} is outside 1..{MAX_VLAN}"


def _router_problems(topology: Topology) -> Problems:
    servers = {server.name for server in topology.servers}
    for router in topology.routers:
        key = f"router {router.name!r}"
        if router.chassis is not None and router.chassis not in servers:
            yield f"{key}.chassis", f"there is no server {router.chassis!r}"
        if router.kind is not None and router.chassis is None:
            yield f"{key}.chassis", f"a {router.kind} is a gateway router and needs one"
        if "chassis" in router.options:
            yield f"{key}.options", "say chassis = … instead"


def _link_problems(topology: Topology) -> Problems:
    servers = {server.name: server for server in topology.servers}
    routers = {router.name: router for router in topology.routers}
    switches = {switch.name: switch for switch in topology.switches}
    joined = {(switch.router, switch.name) for switch in topology.switches}
    for number, link in enumerate(topology.links, 1):
        key = f"link {number}"
        if link.router not in routers:
            yield f"{key}.router", f"there is no router {link.router!r}"
            continue
        if link.switch not in switches:
            yield f"{key}.switch", f"there is no switch {link.switch!r}"
            continue
        if (link.router, link.switch) in joined:
            yield f"{key}.switch", f"{link.router!r} and {link.switch!r} are joined already"
        joined.add((link.router, link.switch))
        if switches[link.switch].vpc not in (None, routers[link.router].vpc):
            yield f"{key}.switch", f"{link.switch!r} is in another VPC than {link.router!r}"
        if not link.addresses:
            yield f"{key}.addresses", "at least one is needed"
        for text in link.addresses:
            address = address_of(text)
            networks = [network_of(subnet) for subnet in switches[link.switch].subnets]
            if address is None or not any(n is not None and address in n for n in networks):
                yield f"{key}.addresses", f"{text!r} is in none of the subnets of {link.switch!r}"
        network = switches[link.switch].network
        for chassis in link.gateways:
            if chassis not in servers:
                yield f"{key}.gateways", f"there is no server {chassis!r}"
            elif network is not None and network not in servers[chassis].networks:
                yield f"{key}.gateways", f"{chassis!r} has no network {network!r}"
        if link.gateways and routers[link.router].chassis is not None:
            yield f"{key}.gateways", f"{link.router!r} is a gateway router and has a chassis already"


def _nat_problems(topology: Topology, nat: Nat, key: str) -> Problems:
    vpcs = {router.name: router.vpc for router in topology.routers}
    switches = {switch.name: switch.vpc for switch in topology.switches}
    external = address_of(nat.external)
    if nat.router not in vpcs:
        yield f"{key}.router", f"there is no router {nat.router!r}"
        return
    if nat.router not in _central_routers(topology):
        yield f"{key}.router", f"{nat.router!r} has neither a chassis nor a link with gateways: OVN would not translate"
    if external is None:
        yield f"{key}.external", f"{nat.external!r} is not an address"
        return
    if nat.type == "snat":
        network = network_of(nat.logical)
        if network is None or network.version != external.version:
            yield f"{key}.logical", f"{nat.logical!r} is not a network of the family of {nat.external}"
        if nat.vm is not None:
            yield f"{key}.vm", "only a dnat_and_snat can be distributed"
        return
    address = address_of(nat.logical)
    if address is None or address.version != external.version:
        yield f"{key}.logical", f"{nat.logical!r} is not an address of the family of {nat.external}"
    if nat.vm is None:
        return
    vm = next((vm for vm in topology.vms if vm.name == nat.vm), None)
    if vm is None or switches.get(vm.switch) != vpcs[nat.router]:
        yield f"{key}.vm", f"there is no VM {nat.vm!r} in the VPC of {nat.router!r}"
        return
    networks = {switch.name: switch.network for switch in topology.switches}
    outer = {networks.get(link.switch) for link in topology.links if link.router == nat.router and link.gateways}
    if not outer & {network for server in topology.servers if server.name == vm.server for network in server.networks}:
        yield f"{key}.vm", f"its server {vm.server!r} has no bridge to a network of {nat.router!r}"


def _central_routers(topology: Topology) -> set[str]:
    """The routers that have a place to translate and balance at: gateway routers, and those with gateway ports."""
    return {router.name for router in topology.routers if router.chassis is not None} | {
        link.router for link in topology.links if link.gateways
    }


def _balancer_name_problems(topology: Topology) -> Problems:
    names: set[str] = set()
    for balancer in topology.load_balancers:
        if not balancer.name or balancer.name in names:
            yield f"load_balancer {balancer.name!r}.name", "the name is empty or taken"
        names.add(balancer.name)


def _balancer_problems(topology: Topology, balancer: LoadBalancer, key: str) -> Problems:
    vms = {vm.name: vm for vm in topology.vms}
    if not balancer.switches and not balancer.routers:
        yield f"{key}.switches", "it is on no switch and on no router"
    for kind, given, known in (
        ("switch", balancer.switches, {switch.name for switch in topology.switches}),
        ("router", balancer.routers, {router.name for router in topology.routers}),
    ):
        for name in given:
            if name not in known:
                yield f"{key}.{kind}{'es' if kind == 'switch' else 's'}", f"there is no {kind} {name!r}"
    for name in balancer.routers:
        if name not in _central_routers(topology):
            yield f"{key}.routers", f"{name!r} has neither a chassis nor a link with gateways: OVN would not balance"
    if not balancer.vips or not balancer.backends:
        yield f"{key}.{'backends' if balancer.vips else 'vips'}", "at least one is needed"
    if balancer.port is not None and not 1 <= balancer.port <= 65535:
        yield f"{key}.port", f"{balancer.port} is outside 1..65535"
    for text in balancer.vips:
        vip = vip_of(text)
        if vip is None:
            yield f"{key}.vips", f"{text!r} is not an address, 192.0.2.1:80 or [2001:db8::1]:80"
            continue
        if (vip[1] is None) != (balancer.port is None):
            yield f"{key}.port", "the VIPs and the backends have a port, or neither has"
        for name in balancer.backends:
            if name not in vms:
                yield f"{key}.backends", f"there is no VM {name!r}"
            elif not any(":" in a if vip[0].version == 6 else "." in a for a in vms[name].addresses):
                yield f"{key}.backends", f"{name!r} has no IPv{vip[0].version} address"
    if balancer.health_check and balancer.port is None:
        yield f"{key}.health_check", "a VIP without a port can't be checked"


def _bgp_problems(topology: Topology, bgp: Bgp, key: str) -> Problems:
    switches = {switch.name: switch for switch in topology.switches}
    box = next((box for box in topology.outsides if box.name == bgp.peer), None)
    if box is None:
        yield f"{key}.peer", f"there is no outside box {bgp.peer!r}"
    if bgp.server not in {server.name for server in topology.servers}:
        yield f"{key}.server", f"there is no server {bgp.server!r}"
    if bgp.switch not in switches:
        yield f"{key}.switch", f"there is no switch {bgp.switch!r}"
        return
    switch = switches[bgp.switch]
    if box is not None and (switch.network, switch.vlan) != (box.network, box.vlan):
        yield f"{key}.switch", f"{bgp.peer!r} is not in its network"
    link = next((one for one in topology.links if (one.router, one.switch) == (bgp.router, bgp.switch)), None)
    if link is None:
        yield f"{key}.router", f"no link joins {bgp.router!r} and {bgp.switch!r}"
    if not bgp.addresses:
        yield f"{key}.addresses", "at least one is needed"
    networks = [network_of(subnet) for subnet in switch.subnets]
    for text in bgp.addresses:
        address = address_of(text)
        if address is None or not any(n is not None and address in n for n in networks):
            yield f"{key}.addresses", f"{text!r} is in none of the subnets of {bgp.switch!r}"
    for name, prefixes in (("announce", bgp.announce), ("peer_announce", bgp.peer_announce)):
        for text in prefixes:
            if network_of(text) is None:
                yield f"{key}.{name}", f"{text!r} is not a network"
    if bgp.asn == bgp.peer_asn:
        yield f"{key}.peer_asn", "the two speakers are in autonomous systems of their own"


def _reach_problems(topology: Topology) -> Problems:
    vms = {vm.name for vm in topology.vms}
    ends = vms | {box.name for box in topology.outsides}
    for number, reach in enumerate(topology.reaches, 1):
        key = f"reach {number}"
        for name in reach.source:
            if name not in ends:
                yield f"{key}.from", f"there is no VM or outside box {name!r}"
        for text in reach.to:
            if text not in vms and address_of(text) is None:
                yield f"{key}.to", f"{text!r} is neither a VM nor an address"
        if (reach.port is None) != (reach.proto == "icmp"):
            yield f"{key}.port", "tcp and udp have one, icmp has none"
