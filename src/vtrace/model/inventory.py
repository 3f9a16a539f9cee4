"""The part of a cloud's logical and physical topology that a task's traffic can touch."""

from __future__ import annotations

import msgspec


class LogicalDatapath(msgspec.Struct, frozen=True, kw_only=True):
    """A logical switch or router. `key` is its tunnel key (SB Datapath_Binding), `nb_uuid` its NB row.

    `chassis` are the names of all chassis that have bound a port of it.
    """

    key: int
    name: str
    kind: str  # vswitch | vrouter | vbrouter
    nb_uuid: str
    sb_uuid: str
    vpc: str = ""
    chassis: tuple[str, ...] = ()


class LogicalPort(msgspec.Struct, frozen=True, kw_only=True):
    """A port of a logical datapath (SB Port_Binding and its NB row).

    `key` is the tunnel key: reg14 or reg15 hold it. `chassis` is the chassis name that bound it, empty if none.
    `peer` names the port at the other side of a patch, `peer_datapath` that port's datapath key.
    """

    name: str
    key: int
    datapath: int
    type: str = ""
    chassis: str = ""
    peer: str = ""
    peer_datapath: int = 0
    mac: str = ""
    addresses: tuple[str, ...] = ()
    port_security: tuple[str, ...] = ()
    nb_uuid: str = ""
    sb_uuid: str = ""
    enabled: bool = True
    up: bool = True


class Chassis(msgspec.Struct, frozen=True, kw_only=True):
    """A server that runs ovn-controller. `server` is what answers call it."""

    name: str
    server: str
    hostname: str = ""
    encap_ips: tuple[str, ...] = ()
    encap_types: tuple[str, ...] = ()


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """All that a task needs of the topology; a snapshot, taken when the task was made."""

    datapaths: tuple[LogicalDatapath, ...]
    ports: tuple[LogicalPort, ...]
    chassis: tuple[Chassis, ...]

    def datapath(self, key: int) -> LogicalDatapath | None:
        return next((d for d in self.datapaths if d.key == key), None)

    def port(self, name: str) -> LogicalPort | None:
        return next((p for p in self.ports if p.name == name), None)

    def port_by_key(self, datapath: int, key: int) -> LogicalPort | None:
        return next((p for p in self.ports if p.datapath == datapath and p.key == key), None)

    def chassis_named(self, name: str) -> Chassis | None:
        return next((c for c in self.chassis if c.name == name), None)

    def server(self, chassis: str) -> str:
        """What answers call the chassis: its host name where that is known and unique."""
        found = self.chassis_named(chassis)
        return found.server if found else chassis


class OvnObject(msgspec.Struct, frozen=True, kw_only=True):
    """What an OpenFlow entry stands for, found from its cookie.

    `kind` is "logical_flow", "physical" (a Port_Binding, Multicast_Group, … row), "default" (one of OVN's own
    cookie-0 entries), "ours" or "foreign" (no row has this cookie).
    `stage` is the logical flow's stage name ("ls_out_acl"); `row_*` name the NB row behind it (stage-hint).
    """

    kind: str
    stage: str = ""
    match: str = ""
    actions: str = ""
    row_table: str = ""
    row_uuid: str = ""
    row_name: str = ""
    row: dict[str, str] = {}
