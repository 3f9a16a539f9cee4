"""Waiting until a lab really forwards: whatever its topology promises to reach each other does."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import select
import socket
import struct
import threading
from time import monotonic
from typing import NamedTuple

from vtrace.errors import CannotWorkError
from vtrace.lab import namespaces
from vtrace.lab.declared import Topology
from vtrace.lab.programs import Patience, run_on, wait_for
from vtrace.lab.state import LabState, LabVm

REPEAT_S = 0.25
"""What is not answered is sent again after this."""

MAX_NAMED = 6

ECHO_REQUEST = {4: 8, 6: 128}
MESSAGE = b"vtrace lab ready"


class Probe(NamedTuple):
    """What has to answer whom: an echo, a datagram, a connection.

    `stream` names the socket. Probes of one socket share the ICMP identifier or source port: to a VIP and to a
    backend itself they would be one connection after the translation, and the second be lost.
    """

    node: str
    proto: str
    address: str
    port: int
    stream: str = ""

    @property
    def version(self) -> int:
        """The IP version."""
        return ipaddress.ip_address(self.address).version


def wait_until_configured(state: LabState, patience: Patience) -> None:
    """Wait for every chassis to register, every port to be up, and every ovn-controller to have caught up.

    Args:
        state: of the lab.
        patience: until when.

    Raises:
        CannotWorkError: says which chassis or port was waited for.
    """
    chassis = {server.chassis for server in state.servers}

    def missing_chassis() -> set[str]:
        text = run_on(state, "central", ["ovn-sbctl", "--bare", "--columns=name", "list", "Chassis"])
        return chassis - set(text.split())

    wait_for(
        lambda: not missing_chassis(),
        what="every ovn-controller to register its chassis",
        where="central",
        patience=patience,
        seen=lambda: f"not registered: {' '.join(sorted(missing_chassis()))}",
    )
    servers = {end.name: server.name for server in state.servers for end in state.ends_on(server.name)}

    def ports_down() -> set[str]:
        query = ["ovn-nbctl", "--bare", "--columns=name", "find", "Logical_Switch_Port", "up=true"]
        return set(servers) - set(run_on(state, "central", query).split())

    wait_for(
        lambda: not ports_down(),
        what="every VM's port to be up",
        where="central",
        patience=patience,
        seen=lambda: f"down: {', '.join(f'{name} on {servers[name]}' for name in sorted(ports_down()))}",
    )
    left_s = max(1, int(patience.left_s()))
    run_on(state, "central", ["ovn-nbctl", f"--timeout={left_s}", "--wait=hv", "sync"], timeout_s=left_s + 5)


def wait_until_healthy(state: LabState, topology: Topology, patience: Patience) -> None:
    """Wait until OVN's health checks have found every backend that listens.

    Args:
        state: of the lab.
        topology: of the lab.
        patience: until when.

    Raises:
        CannotWorkError: names the backends that are not online.
    """
    listens: set[tuple[str, ...]] = {(one.node, one.proto, str(one.port)) for one in state.listeners}
    balancers = {balancer.name for balancer in topology.load_balancers if balancer.health_check}
    checked: set[tuple[str, ...]] = {
        (backend.vm, vip.proto, str(vip.backend_port), backend.address)
        for vip in state.vips
        for backend in vip.backends
        if vip.balancer in balancers and (backend.vm, vip.proto, str(vip.backend_port)) in listens
    }

    def missing() -> set[tuple[str, ...]]:
        query = ["--format=csv", "--no-headings", "--columns=logical_port,protocol,port,ip"]
        text = run_on(state, "central", ["ovn-sbctl", *query, "find", "Service_Monitor", "status=online"])
        return checked - {tuple(line.replace('"', "").split(",")) for line in text.split()}

    wait_for(
        lambda: not missing(),
        what="the health checks to find every backend online",
        where="central",
        patience=patience,
        seen=lambda: f"not online: {', '.join('/'.join(one) for one in sorted(missing()))}",
    )


def probes(state: LabState, topology: Topology) -> list[Probe]:
    """What has to be reached: between VMs that a switch or router joins, each address; and what [[reach]] promises."""
    found = []
    for one, other in itertools.combinations(state.vms, 2):
        if one.switch == other.switch or (one.router is not None and one.router == other.router):
            found += [Probe(one.name, "icmp", text, 0) for text in _common(one.addresses, other.addresses)]
    nodes = {node.name: node for node in state.nodes}
    for reach in topology.reaches:
        for name, to in itertools.product(reach.source, reach.to):
            texts = nodes[to].addresses if to in nodes else (str(ipaddress.ip_address(to)),)
            texts = _common(nodes[name].addresses, texts)
            found += [Probe(name, reach.proto, text, reach.port or 0, f"{text} {reach.port}") for text in texts]
    return found


def _common(own: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the others' addresses whose IP version we have."""
    versions = {":" in text for text in own}
    return tuple(text for text in others if (":" in text) in versions)


def wait_until_forwarding(state: LabState, topology: Topology, patience: Patience) -> None:
    """Send between all that should reach each other until each was answered. Warms tunnels, neighbors and caches up.

    Args:
        state: of the lab.
        topology: of the lab.
        patience: until when.

    Raises:
        CannotWorkError: names what was not reached.
    """
    waiting = set(probes(state, topology))
    began = monotonic()
    with contextlib.closing(Prober(state.name)) as prober:
        while waiting:
            for probe in sorted(waiting):
                prober.send(probe)
            repeat = monotonic() + REPEAT_S
            while waiting and (left := repeat - monotonic()) > 0:
                waiting -= prober.answered(left)
            prober.give_up()
            if waiting and not patience.left_s():
                raise CannotWorkError(
                    f"waited {monotonic() - began:.0f} s for replies", "", f"none for {_names(state, waiting)}"
                )


def _names(state: LabState, waiting: set[Probe]) -> str:
    """Who does not reach whom, in words; at most MAX_NAMED of them."""
    servers = {vm.name: f" ({vm.server})" for vm in state.vms}

    def owner(probe: Probe) -> str:
        found = [node.name for node in state.nodes if probe.address in node.addresses]
        mine = [vm for vm in state.vms if vm.name in found and vm.vpc == _vpc_of(state.vms, probe.node)]
        name = mine[0].name if mine else found[0] if found else ""
        return f"{name}{servers.get(name, '')} at {probe.address}".strip()

    def text(probe: Probe) -> str:
        how = "" if probe.proto == "icmp" else f" {probe.proto} port {probe.port}"
        return f"{probe.node}{servers.get(probe.node, '')} to {owner(probe)}{how}"

    more = f" and {len(waiting) - MAX_NAMED} more" if len(waiting) > MAX_NAMED else ""
    return ", ".join(map(text, sorted(waiting)[:MAX_NAMED])) + more


def _vpc_of(vms: tuple[LabVm, ...], name: str) -> str | None:
    return next((vm.vpc for vm in vms if vm.name == name), None)


class Prober:
    """Sends probes from inside the nodes' namespaces (a socket stays where it was opened) and takes the answers."""

    def __init__(self, lab: str) -> None:
        self._lab = lab
        self._sockets: dict[tuple[str, str, int, str], socket.socket] = {}
        self._attempts: dict[socket.socket, Probe] = {}

    def send(self, probe: Probe) -> None:
        """Send one echo request (the kernel fills in identifier and checksum) or datagram, or begin to connect."""
        try:
            if probe.proto == "tcp":
                sock = self._open(probe)
                self._attempts[sock] = probe
                with contextlib.suppress(BlockingIOError):
                    sock.connect((probe.address, probe.port))
                return
            key = (probe.node, probe.proto, probe.version, probe.stream)
            if key not in self._sockets:
                self._sockets[key] = self._open(probe)
            icmp = struct.pack("!BBHHH", ECHO_REQUEST[probe.version], 0, 0, 0, 1) if probe.proto == "icmp" else b""
            self._sockets[key].sendto(icmp + MESSAGE, (probe.address, probe.port))
        except OSError:  # no neighbor yet, or an ICMP error from an earlier try: the next try tells
            return

    def answered(self, timeout_s: float) -> set[Probe]:
        """Those that were answered, as soon as there are any."""
        keys = {sock: key for key, sock in self._sockets.items()}
        ready, settled, _ = select.select(list(keys), list(self._attempts), [], timeout_s)
        found = set()
        for sock in ready:
            node, proto, _version, stream = keys[sock]
            with contextlib.suppress(OSError):
                address, port = sock.recvfrom(2048)[1][:2]
                found.add(Probe(node, proto, address, port if proto == "udp" else 0, stream))
        for sock in settled:
            probe = self._attempts.pop(sock)
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.add(probe)
            sock.close()
        return found

    def give_up(self) -> None:
        """Drop the connections that are not made yet, and the source ports of datagrams.

        A datagram that came too early, before all chassis had the translation, leaves a connection in conntrack
        that sends all later ones of its source port astray, for as long as they keep coming.
        """
        for sock in self._attempts:
            sock.close()
        self._attempts.clear()
        for key in [key for key in self._sockets if key[1] == "udp"]:
            self._sockets.pop(key).close()

    def close(self) -> None:
        """Close all sockets."""
        self.give_up()
        for sock in self._sockets.values():
            sock.close()

    def _open(self, probe: Probe) -> socket.socket:
        """A non-blocking socket, opened inside the node's namespace."""
        made: list[socket.socket] = []
        failures: list[Exception] = []
        family = socket.AF_INET if probe.version == 4 else socket.AF_INET6
        kind = socket.SOCK_STREAM if probe.proto == "tcp" else socket.SOCK_DGRAM
        icmp = socket.IPPROTO_ICMP if probe.version == 4 else socket.IPPROTO_ICMPV6

        def work() -> None:
            try:
                namespaces.enter_network(self._lab, probe.node)
                made.append(socket.socket(family, kind, icmp if probe.proto == "icmp" else 0))
            except (OSError, CannotWorkError) as error:
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
        made[0].setblocking(False)
        return made[0]
