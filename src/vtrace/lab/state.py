"""Where a lab keeps its things, and what others may know about it.

A lab lives in one directory, `/run/vtrace/lab/<name>` (`VTRACE_LAB_DIR` moves the parent):

    state.json            what `load` reads
    inventory.toml        of a plain lab: what `vtrace diagnose` reads
    uts/<node>            the node's UTS namespace (a bind mount)
    nodes/<node>/         run directory of the node's daemons: sockets, pid files, databases, logs
    releases/<node>/      programs of a node that has another release's (`releases.py`)
    traffic/ faults/      what `lab traffic` and `lab break` have to remember
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import msgspec

from vtrace.errors import CannotWorkError, UsageError

DEFAULT_LAB_NAME = "lab"
LAB_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,23}")

Role = Literal["central", "hypervisor", "gateway", "wire", "outside", "speaker", "vm"]


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all that state.json holds."""


class LabServer(_Part, frozen=True, kw_only=True):
    """A hypervisor or gateway.

    Attributes:
        name: the NODE, equal to the chassis' hostname.
        chassis: the chassis name (system-id).
        rundir: where br-int.mgmt, db.sock and the control sockets of its daemons are.
        bridge: br-int; of a plain lab's server, its first bridge.
        bridges: of a plain lab's server, all with entries of their own.
        networks: the provider networks it has a bridge to, `br-<network>`.
    """

    name: str
    chassis: str
    role: Literal["hypervisor", "gateway"]
    region: str
    rundir: str
    bridge: str
    tunnel_address: str
    tunnel_mac: str
    mgmt_address: str
    networks: tuple[str, ...] = ()
    bridges: tuple[str, ...] = ()


class LabPatch(_Part, frozen=True, kw_only=True):
    """Two bridges of one server, joined."""

    server: str
    bridges: tuple[str, str]


class LabWire(_Part, frozen=True, kw_only=True):
    """The way between two servers; end i has the gateway address and MAC i."""

    name: str
    ends: tuple[str, str]
    addresses: tuple[str, str]
    macs: tuple[str, str]


class LabVm(_Part, frozen=True, kw_only=True):
    """A VM; its name is its Logical_Switch_Port's name, and its port's name on its bridge."""

    name: str
    server: str
    switch: str
    vpc: str
    router: str | None
    mac: str
    addresses: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    bridge: str = "br-int"


class LabOutside(_Part, frozen=True, kw_only=True):
    """A box in a provider network.

    Attributes:
        vlan: its frames' tag in the provider network.
        mac: of the bridge that joins its links to the servers.
        servers: those with a bridge to the network; each has a port of the box's name in it.
        addresses: its own, with prefix length.
        hosts: those behind it, answered by itself.
        vpcs: whose routers have a port in the network and translate nothing.
    """

    name: str
    network: str
    vlan: int | None
    mac: str
    servers: tuple[str, ...]
    addresses: tuple[str, ...]
    hosts: tuple[str, ...]
    vpcs: tuple[str, ...]


class LabSpeaker(_Part, frozen=True, kw_only=True):
    """A BGP speaker beside a logical router; its name is its Logical_Switch_Port's name."""

    name: str
    server: str
    switch: str
    router: str
    mac: str
    addresses: tuple[str, ...]
    peer: str


class LabListener(_Part, frozen=True, kw_only=True):
    """A program that answers on all addresses of a node as long as the lab is up."""

    node: str
    proto: Literal["tcp", "udp"]
    port: int


class LabBackend(_Part, frozen=True, kw_only=True):
    """Where connections to a VIP end."""

    vm: str
    address: str


class LabVip(_Part, frozen=True, kw_only=True):
    """A VIP of a load balancer; one without a port stands for every port and protocol."""

    balancer: str
    vpcs: tuple[str, ...]
    address: str
    port: int | None
    proto: Literal["tcp", "udp"]
    backend_port: int | None
    backends: tuple[LabBackend, ...]


class LabFloating(_Part, frozen=True, kw_only=True):
    """A floating address of a VM."""

    external: str
    vm: str
    address: str


class LabNode(_Part, frozen=True, kw_only=True):
    """Anything `lab exec` can enter."""

    name: str
    role: Role
    region: str | None
    addresses: tuple[str, ...]
    connects: tuple[str, ...]


class LabState(_Part, frozen=True, kw_only=True):
    """One lab.

    Attributes:
        crossings: pairs of VPCs that a transit switch joins.
        kind: `plain` has no OVN: no databases, no remotes.
        patches: of a plain lab.
        releases: by node the folder that its Open vSwitch and OVN are taken from, where that is not this machine.
    """

    name: str
    phase: Literal["building", "up"]
    encap: Literal["geneve", "vxlan"]
    topology: str
    started: str
    nb_remote: str
    sb_remote: str
    servers: tuple[LabServer, ...]
    wires: tuple[LabWire, ...]
    vms: tuple[LabVm, ...]
    nodes: tuple[LabNode, ...]
    outsides: tuple[LabOutside, ...] = ()
    speakers: tuple[LabSpeaker, ...] = ()
    listeners: tuple[LabListener, ...] = ()
    vips: tuple[LabVip, ...] = ()
    floating: tuple[LabFloating, ...] = ()
    crossings: tuple[tuple[str, str], ...] = ()
    kind: Literal["ovn", "plain"] = "ovn"
    patches: tuple[LabPatch, ...] = ()
    releases: dict[str, str] = {}

    def node(self, name: str) -> LabNode:
        """The node of that name.

        Raises:
            UsageError: there is none; names those there are.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        known = " ".join(node.name for node in self.nodes)
        raise UsageError(f"lab {self.name!r} has no node {name!r}", "", f"its nodes are {known}")

    def vm(self, name: str) -> LabVm:
        """The VM of that name.

        Raises:
            UsageError: there is none; names those there are.
        """
        for vm in self.vms:
            if vm.name == name:
                return vm
        known = " ".join(vm.name for vm in self.vms)
        raise UsageError(f"lab {self.name!r} has no VM {name!r}", "", f"its VMs are {known}")

    def ends_on(self, server: str) -> tuple[LabVm | LabSpeaker, ...]:
        """What hangs on a server's br-int: VMs and BGP speakers."""
        ends: tuple[LabVm | LabSpeaker, ...] = (*self.vms, *self.speakers)
        return tuple(end for end in ends if end.server == server)

    def wire_between(self, one: str, other: str) -> LabWire:
        """The wire between two servers.

        Raises:
            UsageError: there is none.
        """
        for wire in self.wires:
            if set(wire.ends) == {one, other}:
                return wire
        known = " ".join(wire.name for wire in self.wires)
        raise UsageError(f"there is no wire between {one!r} and {other!r}", "", f"the wires are {known}")


def lab_name(given: str | None) -> str:
    """The lab a command is about: the one given, else `VTRACE_LAB`, else `lab`.

    Raises:
        UsageError: the name can't be one.
    """
    name = given or os.environ.get("VTRACE_LAB") or DEFAULT_LAB_NAME
    if not LAB_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} can't be the name of a lab",
            "--lab or VTRACE_LAB",
            "at most 24 small letters, digits, hyphens and underscores",
        )
    return name


def directory(name: str) -> Path:
    """The lab's directory."""
    return Path(os.environ.get("VTRACE_LAB_DIR") or "/run/vtrace/lab").absolute() / name


def node_directory(name: str, node: str) -> Path:
    """The run directory of a node's daemons."""
    return directory(name) / "nodes" / node


def uts_file(name: str, node: str) -> Path:
    """The file a node's UTS namespace is mounted on."""
    return directory(name) / "uts" / node


def inventory_file(name: str) -> Path:
    """The inventory file of a plain lab."""
    return directory(name) / "inventory.toml"


def namespace_prefix(name: str) -> str:
    """What the names of all network namespaces of the lab begin with, and of no other lab's."""
    return f"vt-{name}."


def namespace(name: str, node: str) -> str:
    """The name of a node's network namespace."""
    return namespace_prefix(name) + node


def read_state(name: str) -> LabState | None:
    """The state file as it is, also of a lab that is still being built.

    Raises:
        CannotWorkError: there is a state file and it can't be read.
    """
    path = directory(name) / "state.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=LabState)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise CannotWorkError(
            "the lab's state file can't be read", str(path), str(error), f"vtrace lab down --lab {name}"
        ) from error


def load(name: str) -> LabState | None:
    """The lab of that name, or None when it is not up. Reads one file, enters nothing."""
    state = read_state(name)
    if state is None or state.phase != "up":
        return None
    return state if Path("/run/netns", namespace(name, "central")).exists() else None


def require(name: str) -> LabState:
    """The lab of that name.

    Raises:
        CannotWorkError: it is not up.
    """
    state = load(name)
    if state is None:
        raise CannotWorkError(f"lab {name!r} is not up", "", "", f"vtrace lab up --lab {name}")
    return state


def write_state(state: LabState) -> None:
    """Replace the state file in one step."""
    path = directory(state.name) / "state.json"
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
    temporary.replace(path)
