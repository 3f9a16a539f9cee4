"""Waiting until a lab really forwards: every VM is reached by every VM it should be reached by."""

from __future__ import annotations

import ipaddress
import itertools
import select
import socket
import struct
import threading
from time import monotonic

from vtrace.errors import CannotWorkError
from vtrace.lab import namespaces
from vtrace.lab.programs import Patience, run_on, wait_for
from vtrace.lab.state import LabState, LabVm

REPEAT_S = 0.25
"""Echo requests that are not answered are sent again after this."""

MAX_NAMED = 6

ECHO_REQUEST = {4: 8, 6: 128}

Probe = tuple[LabVm, LabVm, str]
"""(from, to, address)"""


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
    servers = {vm.name: vm.server for vm in state.vms}

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


def probes(state: LabState) -> list[Probe]:
    """What has to be reached from where: each pair of VMs that a switch or a router joins, at each address."""
    found = []
    for one, other in itertools.combinations(state.vms, 2):
        if one.switch == other.switch or (one.router is not None and one.router == other.router):
            versions = {ipaddress.ip_address(text).version for text in one.addresses}
            found += [(one, other, a) for a in other.addresses if ipaddress.ip_address(a).version in versions]
    return found


def wait_until_forwarding(state: LabState, patience: Patience) -> None:
    """Send echo requests between all VMs until each was answered. Warms tunnels, neighbors and caches up.

    Args:
        state: of the lab.
        patience: until when.

    Raises:
        CannotWorkError: names the VMs that were not reached.
    """
    waiting = {(one.name, address): (one, other) for one, other, address in probes(state)}
    sockets: dict[tuple[str, int], socket.socket] = {}
    try:
        for vm in state.vms:
            sockets.update(_echo_sockets(state.name, vm))
        owners = {sock: vm for (vm, _), sock in sockets.items()}
        began = monotonic()
        while waiting:
            for one, address in waiting:
                version = ipaddress.ip_address(address).version
                _send_echo(sockets[one, version], version, address)
            repeat = monotonic() + REPEAT_S
            while waiting and (left := repeat - monotonic()) > 0:
                for sock in select.select(list(owners), [], [], left)[0]:
                    waiting.pop((owners[sock], sock.recvfrom(2048)[1][0]), None)
            if waiting and not patience.left_s():
                raise CannotWorkError(
                    f"waited {monotonic() - began:.0f} s for echo replies", "", f"none for {_names(waiting)}"
                )
    finally:
        for sock in sockets.values():
            sock.close()


def _names(waiting: dict[tuple[str, str], tuple[LabVm, LabVm]]) -> str:
    """Who does not reach whom, in words; at most MAX_NAMED of them."""
    texts = [
        f"{one.name} ({one.server}) to {other.name} ({other.server}) at {address}"
        for (_, address), (one, other) in waiting.items()
    ]
    more = f" and {len(texts) - MAX_NAMED} more" if len(texts) > MAX_NAMED else ""
    return ", ".join(texts[:MAX_NAMED]) + more


def _echo_sockets(lab: str, vm: LabVm) -> dict[tuple[str, int], socket.socket]:
    """One ICMP socket per IP version, opened inside the VM's namespace (a socket stays where it was opened)."""
    made: dict[tuple[str, int], socket.socket] = {}
    failures: list[Exception] = []

    def work() -> None:
        try:
            namespaces.enter_network(lab, vm.name)
            made[vm.name, 4] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
            made[vm.name, 6] = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6)
        except (OSError, CannotWorkError) as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return made


def _send_echo(sock: socket.socket, version: int, address: str) -> None:
    """Send one echo request; the kernel fills in the identifier and the checksum."""
    message = struct.pack("!BBHHH", ECHO_REQUEST[version], 0, 0, 0, 1) + b"vtrace lab ready"
    try:
        sock.sendto(message, (address, 0))
    except OSError:  # no neighbor yet, or an ICMP error from an earlier try: the next try tells
        return
