"""Links, addresses and routes of a lab. Every link is made inside the namespaces it joins."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from vtrace.lab import namespaces, plan
from vtrace.lab.declared import Topology, router_address
from vtrace.lab.programs import run
from vtrace.lab.state import LabOutside, LabServer, LabSpeaker, LabState, LabVm, LabWire, namespace

WIRE_MTU = 1500
VM_LINK = "eth0"


def wire_port(towards: str) -> str:
    """Name of the port of a server's br-phy, or of a wire's link, that leads to a server."""
    return f"to-{towards}"


def create(state: LabState, topology: Topology, keep_fds: Iterable[int]) -> None:
    """Make all veth pairs, and set up the namespaces of wires, VMs and central.

    What hangs on Open vSwitch's own port of a server is set up later, by `set_up_underlay`.
    """
    keep_fds = list(keep_fds)
    run(["ip", "-batch", "-"], text="\n".join(_pairs(state, topology)) + "\n", keep_fds=keep_fds)
    for node in state.nodes:
        end = node.role in ("vm", "outside", "speaker")
        _in_network(state, node.name, _set_sysctls_of_vm if end else _set_sysctls_of_router)
    _on(state, "central", _central_lines(state), keep_fds)
    for server in state.servers:
        lines = [f"addr add {server.mgmt_address}/{plan.MGMT_PREFIX_LENGTH} dev mgmt0", "link set dev mgmt0 up"]
        lines += [f"link set dev {wire_port(end)} up" for end in _others(state, server)]
        lines += [f"link set dev {port} up" for port in ports_of(state, server)]
        _on(state, server.name, ["link set dev lo up", *lines], keep_fds)
    for wire in state.wires:
        _on(state, wire.name, _wire_lines(state, wire), keep_fds)
    for vm in state.vms:
        _on(state, vm.name, _vm_lines(vm, topology), keep_fds)
    for box in state.outsides:
        _on(state, box.name, _outside_lines(box, topology), keep_fds)
    for speaker in state.speakers:
        _on(state, speaker.name, _own_address_lines(speaker, topology), keep_fds)
    _turn_offload_off(state, keep_fds)


def _pairs(state: LabState, topology: Topology) -> list[str]:
    def pair(one: str, link: str, other: str, peer: str, extra: str = "", peer_extra: str = "") -> str:
        a, b = namespace(state.name, one), namespace(state.name, other)
        return f"link add name {link} {extra} netns {a} type veth peer name {peer} {peer_extra} netns {b}"

    lines = [pair("central", f"to-{s.name}", s.name, "mgmt0") for s in state.servers]
    for wire in state.wires:
        for end, mac in zip(wire.ends, wire.macs, strict=True):
            other = wire.ends[1] if end == wire.ends[0] else wire.ends[0]
            lines.append(pair(wire.name, wire_port(end), end, wire_port(other), f"address {mac} mtu {WIRE_MTU}"))
    for vm in state.vms:
        lines.append(pair(vm.name, VM_LINK, vm.server, vm.name, f"address {vm.mac} mtu {topology.vm_mtu}"))
    for one in state.speakers:
        lines.append(pair(one.name, VM_LINK, one.server, one.name, f"address {one.mac} mtu {topology.vm_mtu}"))
    for box in state.outsides:
        bridge = f"address {box.mac} mtu {WIRE_MTU} netns {namespace(state.name, box.name)}"
        lines.append(f"link add name {VM_LINK} {bridge} type bridge mcast_snooping 0")
        lines += [pair(box.name, wire_port(server), server, box.name) for server in box.servers]
    return lines


def ports_of(state: LabState, server: LabServer) -> list[str]:
    """The ports of a server's bridges that are links to VMs, BGP speakers and outside boxes."""
    ports = [end.name for end in state.ends_on(server.name)]
    return ports + [box.name for box in state.outsides if server.name in box.servers]


def _others(state: LabState, server: LabServer) -> list[str]:
    return [other.name for other in state.servers if other.name != server.name]


def _central_lines(state: LabState) -> list[str]:
    address = f"{plan.CENTRAL_MGMT_ADDRESS}/{plan.MGMT_PREFIX_LENGTH}"
    lines = [
        "link set dev lo up",
        "link add name mgmt type bridge",
        f"addr add {address} dev mgmt",
        "link set dev mgmt up",
    ]
    for server in state.servers:
        lines.append(f"link set dev to-{server.name} master mgmt up")
    return lines


def _wire_lines(state: LabState, wire: LabWire) -> list[str]:
    lines = ["link set dev lo up"]
    servers = {server.name: server for server in state.servers}
    for end, address in zip(wire.ends, wire.addresses, strict=True):
        server, link = servers[end], wire_port(end)
        lines += [
            f"addr add {address}/32 dev {link}",
            f"link set dev {link} up",
            f"route add {server.tunnel_address}/32 dev {link}",
            f"neigh add {server.tunnel_address} lladdr {server.tunnel_mac} dev {link} nud permanent",
        ]
    return lines


def _own_address_lines(end: LabVm | LabSpeaker, topology: Topology) -> list[str]:
    lines = ["link set dev lo up", f"link set dev {VM_LINK} up"]
    networks = plan.subnets(topology, end.switch)
    for text in end.addresses:
        network = next(network for network in networks if ipaddress.ip_address(text) in network)
        nodad = " nodad" if network.version == 6 else ""
        lines.append(f"addr add {text}/{network.prefixlen} dev {VM_LINK}{nodad}")
    return lines


def _outside_lines(box: LabOutside, topology: Topology) -> list[str]:
    """A box joins its links to the servers by a bridge, which has its address."""
    lines = ["link set dev lo up"]
    lines += [f"link set dev {wire_port(server)} master {VM_LINK} up" for server in box.servers]
    lines.append(f"link set dev {VM_LINK} up")
    for text in box.addresses:
        lines.append(f"addr add {text} dev {VM_LINK}{' nodad' if ':' in text else ''}")
    lines += [f"addr add {text} dev lo" for text in box.hosts]
    for route in topology.routes:
        if route.router == box.name:
            lines.append(f"route add {route.prefix} via {route.nexthop} dev {VM_LINK}")
    return lines


def _vm_lines(vm: LabVm, topology: Topology) -> list[str]:
    lines = _own_address_lines(vm, topology)
    networks = plan.subnets(topology, vm.switch)
    for text in vm.aliases:
        lines.append(f"addr add {text} dev lo")
    if vm.router is not None:
        for network in networks:
            if any(ipaddress.ip_address(text) in network for text in vm.addresses):
                lines.append(f"-{network.version} route add default via {router_address(network)} dev {VM_LINK}")
    return lines


def set_up_underlay(state: LabState, server: LabServer) -> None:
    """Give the local port of br-phy the tunnel address, and a route to every other server over its wire.

    The address has a /16 because Open vSwitch picks a route's source address by the mask; `noprefixroute`
    keeps the kernel from thinking that the other servers are neighbors.
    """
    bridge = plan.UNDERLAY_BRIDGE
    address = f"{server.tunnel_address}/{plan.TUNNEL_PREFIX_LENGTH}"
    lines = [f"addr replace {address} dev {bridge} noprefixroute", f"link set dev {bridge} mtu {WIRE_MTU} up"]
    for other in state.servers:
        if other.name != server.name:
            gateway = gateway_of(state.wire_between(server.name, other.name), server.name)
            lines.append(f"route replace {other.tunnel_address}/32 via {gateway} dev {bridge} onlink")
    _on(state, server.name, lines, ())


def gateway_of(wire: LabWire, server: str) -> str:
    """The wire's address towards a server."""
    return wire.addresses[wire.ends.index(server)]


def _on(state: LabState, node: str, lines: Sequence[str], keep_fds: Iterable[int]) -> None:
    """Run lines of `ip` inside a node. By nsenter: `ip -n` wants / to be a mount point, which under chroot it is not.

    A line that begins with an option (`-6 route …`) is a run of its own; a batch takes none.
    """
    keep_fds = list(keep_fds)
    enter = ["nsenter", f"--net=/run/netns/{namespace(state.name, node)}", "ip"]
    plain = [line for line in lines if not line.startswith("-")]
    run([*enter, "-batch", "-"], text="\n".join(plain) + "\n", keep_fds=keep_fds)
    for line in lines:
        if line.startswith("-"):
            run([*enter, *line.split()], keep_fds=keep_fds)


def _in_network(state: LabState, node: str, action: Callable[[], None]) -> None:
    """Do something in a thread of its own that has entered the node's network namespace."""
    failures: list[Exception] = []

    def work() -> None:
        try:
            namespaces.enter_network(state.name, node)
            action()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _write_sysctls(settings: dict[str, str]) -> None:
    for key, value in settings.items():
        Path("/proc/sys/net", key).write_text(value)


def _set_sysctls_of_router() -> None:
    """Wires route; servers and central don't, and none of them speaks IPv6 or answers ARP for another link."""
    settings = {"ipv4/ip_forward": "1"}
    for scope in ("all", "default"):
        settings[f"ipv4/conf/{scope}/rp_filter"] = "0"
        settings[f"ipv4/conf/{scope}/arp_ignore"] = "1"
        settings[f"ipv4/conf/{scope}/send_redirects"] = "0"
        settings[f"ipv6/conf/{scope}/disable_ipv6"] = "1"
    _write_sysctls(settings)


def _set_sysctls_of_vm() -> None:
    settings = {"ipv4/ping_group_range": "0 2147483647"}
    for scope in ("all", "default", VM_LINK):
        settings[f"ipv4/conf/{scope}/rp_filter"] = "0"
        # OVN's routers answer ARP only from an address of their own subnet: not from a host's behind an outside box.
        settings[f"ipv4/conf/{scope}/arp_announce"] = "1"
        settings[f"ipv6/conf/{scope}/disable_ipv6"] = "0"
        settings[f"ipv6/conf/{scope}/accept_ra"] = "0"
        settings[f"ipv6/conf/{scope}/dad_transmits"] = "0"
        settings[f"ipv6/conf/{scope}/router_solicitations"] = "0"
    _write_sysctls(settings)


def _turn_offload_off(state: LabState, keep_fds: Iterable[int]) -> None:
    """Have every sender fill in its checksums: veth leaves them open, and userspace forwarding does not close them."""
    for server in state.servers:
        for end in state.ends_on(server.name):
            _ethtool(state, end.name, VM_LINK, keep_fds)
            _ethtool(state, server.name, end.name, keep_fds)
    for box in state.outsides:
        for name in box.servers:
            _ethtool(state, box.name, wire_port(name), keep_fds)
            _ethtool(state, name, box.name, keep_fds)
    for wire in state.wires:
        for name in wire.ends:
            other = wire.ends[1] if name == wire.ends[0] else wire.ends[0]
            _ethtool(state, wire.name, wire_port(name), keep_fds)
            _ethtool(state, name, wire_port(other), keep_fds)


def _ethtool(state: LabState, node: str, link: str, keep_fds: Iterable[int]) -> None:
    path = f"--net=/run/netns/{namespace(state.name, node)}"
    run(["nsenter", path, "ethtool", "-K", link, "tx", "off"], keep_fds=keep_fds)
