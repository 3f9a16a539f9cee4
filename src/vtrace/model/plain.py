"""Bridges without OVN: what an inventory file says of them, and where packets can leave them."""

from __future__ import annotations

import msgspec

from vtrace.model.openflow import Cookie, GuardBits, TableId

# Numbers of bridges begin here; OVN's datapaths have 24 bits (ovn-sb(5), Datapath_Binding).
FIRST_BRIDGE = 1 << 24
# Of a port that is the bridge itself (openflow-1.3.h, OFPP_LOCAL, as Open vSwitch numbers it).
LOCAL_PORT = 65534
# Its key: those of multicast groups begin at 0x8000.
LOCAL_KEY = 0x7FFE
# Key of what leaves a bridge by several ports at once, or by one that can't be told beforehand.
SEVERAL_PORTS = 0x1_0000
# Keys of listed ports that the bridge does not have begin after this one.
MISSING_PORTS = 0x2_0000


class PlainServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server with Open vSwitch: the run directory of its sockets, and what it is for tunnels."""

    name: str
    rundir: str
    bridges: tuple[str, ...]
    region: str = ""
    address: str = ""


class PortRef(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A port of a bridge of a server, by its interface's name."""

    server: str
    bridge: str
    port: str

    def __str__(self) -> str:
        return f"{self.server}/{self.bridge}/{self.port}"


class PlainEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A VM (or whatever has an address) at a port. `vlan` is the tag of its packets as the bridge gets them."""

    name: str
    at: PortRef
    mac: str
    addresses: tuple[str, ...]
    vlan: int = 0
    vpc: str = ""


class PlainLink(msgspec.Struct, frozen=True, kw_only=True):
    """What joins two bridges: "tunnel", "patch" or "wire"."""

    kind: str
    ends: tuple[PortRef, PortRef]


class PlainCloud(msgspec.Struct, frozen=True, kw_only=True):
    """An inventory file, read."""

    servers: tuple[PlainServer, ...]
    endpoints: tuple[PlainEndpoint, ...]
    links: tuple[PlainLink, ...]
    path: str = ""

    def bridges(self) -> tuple[tuple[PlainServer, str], ...]:
        """All bridges, each with its server, in the order of the file."""
        return tuple((server, bridge) for server in self.servers for bridge in server.bridges)


def is_bridge(datapath: int) -> bool:
    """Whether a datapath's number is that of a bridge without OVN."""
    return datapath >= FIRST_BRIDGE


def port_key(ofport: int) -> int:
    """The key of a bridge's port."""
    return LOCAL_KEY if ofport == LOCAL_PORT else ofport


def port_number(key: int) -> int:
    """The reverse of `port_key`."""
    return LOCAL_PORT if key == LOCAL_KEY else key


def chassis_name(server: str, bridge: str) -> str:
    """What stands for an OVN chassis: one bridge of a server, since one agent works one bridge."""
    return f"{server}/{bridge}"


class LearnedMac(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `fdb/show`: where NORMAL sends packets for a MAC address."""

    port: int
    vlan: int
    mac: str
    age_s: int = 0


class RegisterField(msgspec.Struct, frozen=True, kw_only=True):
    """Some bits of a register, as `NXM_NX_REG0[0..15]` names them."""

    register: int
    lsb: int
    width: int


class MirroredEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of an output table, and what it may do with a packet.

    Attributes:
        rank: its place among the table's priorities, from 1: higher wins, equal are equal.
        terms: the words of its match, as the bridge reports them.
        ports: port numbers it outputs to, known beforehand.
        field: the register bits that hold the port, for `output:NXM_NX_REG0[0..15]`.
        normal: it leaves the decision to Open vSwitch's own MAC learning.
        leaves: it outputs to some port, known beforehand or not.
        unsure: why the color has to go whatever the port is; empty where it may stay.
        once: it passes the packet to conntrack, and it comes back to this table: the color may stay the first time.
        text: table, priority, match and actions, for people.
    """

    rank: int
    terms: tuple[str, ...]
    ports: tuple[int, ...] = ()
    field: RegisterField | None = None
    normal: bool = False
    leaves: bool = False
    unsure: str = ""
    once: bool = False
    cookie: Cookie
    text: str


class OutputTable(msgspec.Struct, frozen=True, kw_only=True):
    """A table with entries that output.

    Attributes:
        mirror: a table of the bridge that nobody uses: our entries of this table stand there.
        lsb: of the two bits of the guard's register that say that a packet was looked at here.
        returns: packets come back to it after conntrack, so that it is looked at once untracked and once tracked.
    """

    table: TableId
    mirror: TableId
    lsb: int
    returns: bool = False
    entries: tuple[MirroredEntry, ...]


class PlainLayout(msgspec.Struct, frozen=True, kw_only=True):
    """Where packets can leave a bridge that somebody wrote the entries of.

    `guard` stands in a register that nothing on the bridge mentions; the register's other bits are the tables'.
    """

    guard: GuardBits
    tables: tuple[OutputTable, ...]
    macs: tuple[LearnedMac, ...] = ()
    notes: tuple[str, ...] = ()
