"""What a host's Open_vSwitch database says that the doctor judges (ovs-vswitchd.conf.db(5))."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from vtrace.errors import CannotWorkError, ProtocolError
from vtrace.ovn.ovsdb import as_tuple, decode
from vtrace.ovs.bridge import TUNNEL_KINDS, select

_COLUMNS = {
    "Open_vSwitch": ["external_ids", "other_config", "ovs_version", "dpdk_initialized"],
    "Bridge": ["name", "ports", "controller", "datapath_type", "external_ids", "fail_mode", "protocols"],
    "Port": ["_uuid", "name", "interfaces", "external_ids"],
    "Interface": ["_uuid", "name", "type", "ofport", "options", "external_ids", "mtu", "error"],
    "Controller": ["_uuid", "target", "role", "is_connected"],
}


class HostInterface(msgspec.Struct, frozen=True, kw_only=True):
    """An interface of any bridge. `mtu` is 0 where it is not known; `logical` says that a logical port is there."""

    name: str
    bridge: str
    kind: str = ""
    logical: bool = False
    mtu: int = 0
    error: str = ""
    options: dict[str, str] = {}

    @property
    def is_tunnel(self) -> bool:
        return self.kind in TUNNEL_KINDS


class HostController(msgspec.Struct, frozen=True, kw_only=True):
    """A controller that the integration bridge is configured with."""

    target: str
    role: str = ""
    connected: bool = False


class HostDatabase(msgspec.Struct, frozen=True, kw_only=True):
    """The rows that matter, of one host and its integration bridge."""

    ovs_version: str = ""
    system_id: str = ""
    external_ids: dict[str, str] = {}
    other_config: dict[str, str] = {}
    dpdk_initialized: bool = False
    datapath_type: str = ""
    fail_mode: str = ""
    protocols: tuple[str, ...] = ()
    bridge_ids: dict[str, str] = {}
    controllers: tuple[HostController, ...] = ()
    interfaces: tuple[HostInterface, ...] = ()

    @property
    def is_userspace(self) -> bool:
        return self.datapath_type in ("netdev", "dummy")

    @property
    def offloads(self) -> bool:
        return self.other_config.get("hw-offload") == "true"

    @property
    def has_dpdk(self) -> bool:
        kinds = {interface.kind for interface in self.interfaces}
        wanted = self.other_config.get("dpdk-init", "false") not in ("", "false")
        return self.dpdk_initialized or wanted or any(kind.startswith("dpdk") for kind in kinds)

    def own(self, key: str) -> str:
        """An OVN setting: one for this chassis name alone comes before the general one (ovn-controller(8))."""
        return self.external_ids.get(f"{key}-{self.system_id}") or self.external_ids.get(key, "")


async def read_database(rundir: str, bridge: str, *, timeout_s: float = 5) -> HostDatabase:
    """Reads `<rundir>/db.sock` in one transaction.

    Raises:
        CannotWorkError: the database is out of reach, or has no such bridge.
        ProtocolError: its answer can't be read.
    """
    path = os.path.join(rundir, "db.sock")
    results = await select(path, _COLUMNS, timeout_s=timeout_s)
    try:
        tables = [[{k: decode(v) for k, v in row.items()} for row in result["rows"]] for result in results]
        root, bridges, ports, interfaces, controllers = tables
        named = next((row for row in bridges if row["name"] == bridge), None)
        if named is not None:
            found = _read(root[0], named, bridges, ports, interfaces, controllers)
            msgspec.convert(msgspec.to_builtins(found), HostDatabase)
            return found
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise ProtocolError("can't read what ovsdb-server answered", where=path, why=repr(error)) from error
    raise CannotWorkError(
        f"there is no bridge {bridge}",
        where=path,
        next_step="Name the integration bridge with --bridge, or check that ovn-controller runs",
    )


_Rows = list[dict[str, Any]]


def _read(
    root: dict[str, Any], bridge: dict[str, Any], bridges: _Rows, ports: _Rows, interfaces: _Rows, controllers: _Rows
) -> HostDatabase:
    of_port = {row["_uuid"]: as_tuple(row["interfaces"]) for row in ports}
    homes = {i: row["name"] for row in bridges for p in as_tuple(row["ports"]) for i in of_port.get(p, ())}
    used = as_tuple(bridge["controller"])
    return HostDatabase(
        ovs_version=_one(root["ovs_version"]),
        system_id=root["external_ids"].get("system-id", ""),
        external_ids=root["external_ids"],
        other_config=root["other_config"],
        dpdk_initialized=root["dpdk_initialized"] is True,
        datapath_type=bridge["datapath_type"],
        fail_mode=_one(bridge["fail_mode"]),
        protocols=as_tuple(bridge["protocols"]),
        bridge_ids=bridge["external_ids"],
        controllers=tuple(
            HostController(target=row["target"], role=_one(row["role"]), connected=row["is_connected"] is True)
            for row in controllers
            if row["_uuid"] in used
        ),
        interfaces=tuple(
            HostInterface(
                name=row["name"],
                bridge=homes.get(row["_uuid"], ""),
                kind=row["type"],
                logical="iface-id" in row["external_ids"],
                mtu=int(_one(row["mtu"]) or 0),
                error=_one(row["error"]),
                options=row["options"],
            )
            for row in interfaces
        ),
    )


def _one(value: Any) -> str:
    """An optional column as text."""
    if isinstance(value, tuple):
        return str(value[0]) if value else ""
    return str(value)
