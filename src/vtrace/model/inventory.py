"""The part of a cloud's logical and physical topology that a task's traffic can touch."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

import msgspec
import msgspec.structs

from vtrace.model.task import Endpoint

# Types of ports that lead to a physical network (ovn-sb(5), Port_Binding).
OUTWARD = ("localnet", "l2gateway")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
# Tunnel keys of multicast groups begin here (ovn-sb(5), Multicast_Group).
FIRST_MULTICAST_KEY = 0x8000


def claims(addresses: Iterable[str]) -> frozenset[str]:
    """The MAC and IP addresses in address texts of ports ("MAC IP IP", "unknown", "router"), without prefix lengths."""
    words = {word.partition("/")[0].lower() for text in addresses for word in text.split()}
    return frozenset(word for word in words if ":" in word or "." in word)


class LogicalDatapath(msgspec.Struct, frozen=True, kw_only=True):
    """A logical switch or router. `key` is its tunnel key (SB Datapath_Binding), `nb_uuid` its NB row.

    `chassis` are the names of all chassis that have bound a port of it. A `border` ends a VPC: a switch with a port
    to a physical network, or one that joins the routers of several VPCs. `forced` is what a router gives packets that
    it balances or translates as their source (its options lb_force_snat_ip, dnat_force_snat_ip): addresses, or
    "router_ip" for its own.
    """

    key: int
    name: str
    kind: str  # vswitch | vrouter | vbrouter
    nb_uuid: str
    sb_uuid: str
    vpc: str = ""
    chassis: tuple[str, ...] = ()
    border: bool = False
    forced: tuple[str, ...] = ()


class LogicalPort(msgspec.Struct, frozen=True, kw_only=True):
    """A port of a logical datapath (SB Port_Binding and its NB row).

    `key` is the tunnel key: reg14 or reg15 hold it. `chassis` is the chassis name that bound it, empty if none.
    `standby` are the other chassis that may take it over: the members of its HA group, or where a VM moves to.
    `ha_group` is the uuid of that group's row, the northbound one where there is one; `pinned` the one chassis that a
    gateway router's port may be on.
    `peer` names the port at the other side of a patch, `peer_datapath` that port's datapath key.
    """

    name: str
    key: int
    datapath: int
    type: str = ""
    chassis: str = ""
    standby: tuple[str, ...] = ()
    ha_group: str = ""
    pinned: str = ""
    peer: str = ""
    peer_datapath: int = 0
    mac: str = ""
    addresses: tuple[str, ...] = ()
    port_security: tuple[str, ...] = ()
    nb_uuid: str = ""
    sb_uuid: str = ""
    enabled: bool = True
    up: bool = True

    @property
    def claims(self) -> frozenset[str]:
        """The MAC and IP addresses that it says are its own."""
        return claims(self.addresses)


class Chassis(msgspec.Struct, frozen=True, kw_only=True):
    """A server that runs ovn-controller. `server` is what answers call it.

    `encap_uuid` is its first Encap row, `encap_port` the UDP port of its tunnels if that is not the usual one.
    """

    name: str
    server: str
    hostname: str = ""
    encap_ips: tuple[str, ...] = ()
    encap_types: tuple[str, ...] = ()
    encap_uuid: str = ""
    encap_port: str = ""
    uuid: str = ""


class Nat(msgspec.Struct, frozen=True, kw_only=True):
    """A NAT row of a logical router (ovn-nb(5)).

    `kind` is its type: snat, dnat or dnat_and_snat. `logical` is an address, or for snat a network. `port` is the
    logical port on whose chassis it is done; empty where that is the gateway's. `port_range` are the source ports that
    it may give ("5000-5999"; empty: all). `partial` says that it translates towards some addresses only.
    """

    router: int
    kind: str
    external: str
    logical: str
    uuid: str
    port: str = ""
    port_range: str = ""
    partial: bool = False

    @property
    def ports(self) -> int:
        """How many source ports it may give; 0 where nothing bounds them."""
        low, dash, high = self.port_range.partition("-")
        if not low.isdecimal():
            return 0
        return int(high) - int(low) + 1 if dash and high.isdecimal() else 1

    def covers(self, address: str) -> bool:
        """Whether an inner address is one that the row translates."""
        return ipaddress.ip_address(address) in ipaddress.ip_network(self.logical, strict=False)


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """One backend of a VIP. `status` is what its health check says: "online", "offline", … or "" without one."""

    address: str
    port: int = 0
    logical_port: str = ""
    status: str = ""


class Vip(msgspec.Struct, frozen=True, kw_only=True):
    """A VIP of a load balancer. `port` is 0 where it takes all. `datapaths` are those the load balancer is set on."""

    balancer: str
    uuid: str
    address: str
    proto: str = ""
    port: int = 0
    backends: tuple[Backend, ...] = ()
    datapaths: tuple[int, ...] = ()


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A static route of a logical router that an address of the task's ends matches. `nexthop` may be "discard"."""

    router: int
    prefix: str
    nexthop: str
    uuid: str


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A row that may drop packets of a datapath: of the table ACL, QoS or Logical_Router_Policy."""

    datapath: int
    table: str
    uuid: str


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """All that a task needs of the topology; a snapshot, taken when the task was made.

    `rivals` names ports of other owners that claim a MAC or IP address of an endpoint's, or of a router's next to it.
    `moved` names the ports whose chassis changed since the task began.
    `plain` says that there is no OVN: each datapath is a bridge, each chassis too, and keys are port numbers.
    """

    datapaths: tuple[LogicalDatapath, ...]
    ports: tuple[LogicalPort, ...]
    chassis: tuple[Chassis, ...]
    nats: tuple[Nat, ...] = ()
    vips: tuple[Vip, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()
    port_groups: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    plain: bool = False

    def datapath(self, key: int) -> LogicalDatapath | None:
        return next((d for d in self.datapaths if d.key == key), None)

    def port(self, name: str) -> LogicalPort | None:
        return next((p for p in self.ports if p.name == name), None)

    def port_by_key(self, datapath: int, key: int) -> LogicalPort | None:
        return next((p for p in self.ports if p.datapath == datapath and p.key == key), None)

    def with_ports(self, ports: Iterable[LogicalPort]) -> Inventory:
        """With ports besides, each once."""
        known = {(p.datapath, p.key) for p in self.ports}
        more = {(p.datapath, p.key): p for p in ports if (p.datapath, p.key) not in known}
        return msgspec.structs.replace(self, ports=(*self.ports, *more.values())) if more else self

    def chassis_named(self, name: str) -> Chassis | None:
        return next((c for c in self.chassis if c.name == name), None)

    def ends(self, endpoint: Endpoint) -> tuple[LogicalPort, ...]:
        """The ports where packets of an endpoint come in, and packets for it go out.

        Those it has; for an address outside all ports to physical networks.
        """
        if endpoint.outside:
            return tuple(p for p in self.ports if p.type in OUTWARD)
        return tuple(p for p in self.ports if p.name in endpoint.ports)

    def reach(self, datapath: int) -> frozenset[int]:
        """The VPC around a datapath: what is reached from it without crossing a border; borders included."""
        borders = {d.key for d in self.datapaths if d.border}
        found = {datapath}
        frontier = [datapath]
        while frontier:
            here = frontier.pop()
            if here in borders and here != datapath:
                continue
            around = {p.peer_datapath for p in self.ports if p.datapath == here and p.peer_datapath}
            frontier += around - found
            found |= around
        return frozenset(found)

    def own_addresses(self, datapath: int) -> tuple[str, ...]:
        """The IP addresses of a router's own ports."""
        texts = [text for port in self.ports if port.datapath == datapath for text in port.addresses]
        return tuple(sorted(word for word in claims(texts) if _MAC.fullmatch(word) is None))

    def entrances(self, outward: LogicalPort) -> frozenset[str]:
        """The chassis where packets from a physical network may enter: all that may have a gateway port there."""
        found: set[str] = set()
        for port in self.ports:
            router_port = self.port(port.name.removeprefix("cr-")) if port.type == "chassisredirect" else None
            here = router_port.peer_datapath if router_port else port.datapath if port.type == "l3gateway" else 0
            if here == outward.datapath:
                found.update(filter(None, (port.chassis, *port.standby)))
        return frozenset(found)

    def server(self, chassis: str) -> str:
        """What answers call the chassis: its host name where that is known and unique."""
        found = self.chassis_named(chassis)
        return found.server if found else chassis


class OvnObject(msgspec.Struct, frozen=True, kw_only=True):
    """What an OpenFlow entry stands for, found from its cookie.

    `kind` is "logical_flow", "physical" (a Port_Binding, Multicast_Group, … row), "default" (one of OVN's own
    cookie-0 entries), "ours" or "foreign" (no row has this cookie).
    `stage` is the logical flow's stage name ("ls_out_acl"), `flow_uuid` its row; `row_*` name the NB row behind it
    (stage-hint).
    """

    kind: str
    stage: str = ""
    flow_uuid: str = ""
    match: str = ""
    actions: str = ""
    row_table: str = ""
    row_uuid: str = ""
    row_name: str = ""
    row: dict[str, str] = {}
