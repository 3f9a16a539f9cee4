"""What the database of a chassis says about its integration bridge (ovs-vswitchd.conf.db(5), ovn-controller(8)).

One read-only OVSDB transaction (RFC 7047, 4.1.3). Interface statistics are those of vswitchd's last refresh, up
to 5 s old; `OfCtl.port_counters` has live ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from vtrace.errors import CannotWorkError, ProtocolError
from vtrace.model.openflow import BridgePort, OfPort, TunnelPort
from vtrace.ovs.jsonrpc import transact

TUNNEL_KINDS = frozenset(("geneve", "vxlan", "stt", "gre", "erspan", "ip6gre", "ip6erspan"))
# QoS types that say that Open vSwitch leaves the device's queue alone; ovn-controller sets one on devices it minds.
_NO_LIMIT = ("", "linux-noop")
_COLUMNS = {
    "Open_vSwitch": ["external_ids", "other_config", "ovs_version"],
    "Bridge": ["name", "ports", "datapath_id", "datapath_type", "protocols"],
    "Port": ["_uuid", "name", "interfaces", "external_ids", "qos"],
    "Interface": [
        "_uuid", "name", "type", "ofport", "options", "external_ids", "statistics",
        "admin_state", "link_state", "error", "mtu",
    ],
    "QoS": ["_uuid", "type", "other_config"],
}  # fmt: skip


class BridgeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A chassis and its bridge. Tunnels are in `ports` too, under the same name.

    `system_id` is the chassis name. `protocols` is empty where every OpenFlow version is allowed. `others` are the
    ports of the other bridges there. `segments`: what is longer than a port's MTU may leave by it in pieces.
    """

    name: str
    datapath_id: str
    datapath_type: str
    system_id: str
    hostname: str
    ovs_version: str
    encap_ips: tuple[str, ...]
    encap_types: tuple[str, ...]
    ports: tuple[BridgePort, ...]
    tunnels: tuple[TunnelPort, ...]
    protocols: tuple[str, ...] = ()
    others: tuple[BridgePort, ...] = ()
    segments: bool = False


async def select(path: str, columns: Mapping[str, Sequence[str]], *, timeout_s: float) -> Any:
    """What ovsdb-server answers when it is asked for these columns of all rows, by table, in one transaction.

    Raises:
        CannotWorkError: the database is out of reach.
        ProtocolError: it refused.
    """
    operations = [{"op": "select", "table": table, "where": [], "columns": names} for table, names in columns.items()]
    reply = await transact(path, "transact", ["Open_vSwitch", *operations], daemon="ovsdb-server", timeout_s=timeout_s)
    if reply.error is not None:
        raise ProtocolError("ovsdb-server refused to read", where=path, why=str(reply.error))
    return reply.result


async def read_bridge(rundir: str, bridge: str = "br-int", *, timeout_s: float = 5) -> BridgeFacts:
    """Reads the chassis facts from `<rundir>/db.sock`.

    Raises:
        CannotWorkError: the database is out of reach, or has no such bridge.
        ProtocolError: the database's answer can't be read.
    """
    path = os.path.join(rundir, "db.sock")
    results = await select(path, _COLUMNS, timeout_s=timeout_s)
    try:
        tables = [[_row(row) for row in result["rows"]] for result in results]
        root, bridges, ports, interfaces, qos = tables
        named = next((row for row in bridges if row["name"] == bridge), None)
        if named is not None:
            behind = _behind_patches(bridges, ports, interfaces)
            facts = _facts(root[0], named, ports, interfaces, behind, _limits(ports, qos))
            msgspec.convert(msgspec.to_builtins(facts), BridgeFacts)
            return facts
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise ProtocolError("can't read what ovsdb-server answered", where=path, why=repr(error)) from error
    raise CannotWorkError(
        f"there is no bridge {bridge}",
        where=path,
        next_step="Name the integration bridge of this chassis, or check that ovn-controller runs",
    )


def _facts(
    root: dict[str, Any],
    bridge: dict[str, Any],
    ports: list[dict[str, Any]],
    interfaces: list[dict[str, Any]],
    behind: dict[str, tuple[dict[str, Any], ...]],
    limits: dict[str, str],
) -> BridgeFacts:
    ids = root["external_ids"]
    system_id = ids.get("system-id", "")
    members = set(bridge["ports"])
    by_uuid = {row["_uuid"]: row for row in interfaces}
    pairs = [(port, by_uuid[one]) for port in ports if port["_uuid"] in members for one in port["interfaces"]]
    own = {interface["_uuid"] for _, interface in pairs}
    return BridgeFacts(
        name=bridge["name"],
        datapath_id=_one(bridge["datapath_id"]),
        datapath_type=bridge["datapath_type"],
        system_id=system_id,
        hostname=ids.get("hostname", ""),
        ovs_version=_one(root["ovs_version"]),
        encap_ips=_listed(ids, "ovn-encap-ip", system_id),
        encap_types=_listed(ids, "ovn-encap-type", system_id),
        protocols=bridge["protocols"],
        ports=tuple(_port(interface, behind, limits) for _, interface in pairs),
        others=tuple(_port(row, behind, limits) for uuid, row in by_uuid.items() if uuid not in own),
        # The kernel's datapath takes what comes in by an offloading card, or out of conntrack, as one long packet.
        segments=bridge["datapath_type"] != "netdev" or root["other_config"].get("userspace-tso-enable") == "true",
        tunnels=tuple(_tunnel(port, interface) for port, interface in pairs if interface["type"] in TUNNEL_KINDS),
    )


def _listed(ids: dict[str, str], key: str, system_id: str) -> tuple[str, ...]:
    """A comma-separated setting; one for this chassis name alone (`key-<name>`) comes before the general one."""
    text = ids.get(f"{key}-{system_id}") or ids.get(key, "")
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _behind_patches(
    bridges: list[dict[str, Any]], ports: list[dict[str, Any]], interfaces: list[dict[str, Any]]
) -> dict[str, tuple[dict[str, Any], ...]]:
    """For each patch interface the other interfaces of the bridge it leads to."""
    by_uuid = {row["_uuid"]: row for row in interfaces}
    of_port = {port["_uuid"]: [by_uuid[one] for one in port["interfaces"]] for port in ports}
    members = [[row for port in bridge["ports"] for row in of_port[port]] for bridge in bridges]
    home = {row["name"]: rows for rows in members for row in rows}
    return {
        row["name"]: tuple(r for r in home.get(row["options"].get("peer", ""), ()) if r["type"] != "patch")
        for row in interfaces
        if row["type"] == "patch"
    }


def _limits(ports: list[dict[str, Any]], rows: list[dict[str, Any]]) -> dict[str, str]:
    """The QoS that each interface's port has, as text, by the interface's uuid."""
    texts = {
        row["_uuid"]: " ".join((row["type"], *(f"{key}={value}" for key, value in sorted(row["other_config"].items()))))
        for row in rows
        if row["type"] not in _NO_LIMIT
    }
    return {uuid: texts[_one(p["qos"])] for p in ports if _one(p["qos"]) in texts for uuid in p["interfaces"]}


def _port(row: dict[str, Any], behind: dict[str, tuple[dict[str, Any], ...]], limits: dict[str, str]) -> BridgePort:
    beyond = behind.get(row["name"], ())
    # A provider's bridge leads out by its network cards; its own internal port leads nowhere.
    cards = [r for r in beyond if r["type"] != "internal"]
    return BridgePort(
        name=row["name"],
        ofport=_ofport(row),
        kind=row["type"],
        behind=tuple(r["name"] for r in beyond),
        cut_off=bool(cards) and all(_one(r["link_state"]) == "down" or _one(r["error"]) for r in cards),
        iface_id=row["external_ids"].get("iface-id", ""),
        # Not set: an interface that could not be opened (then `error` is), or an ovsdb-server that has started anew,
        # which keeps no states (ovsdb-server(7)), and ovs-vswitchd has not written them yet.
        admin_up=_one(row["admin_state"]) != "down",
        link_up=_one(row["link_state"]) != "down",
        error=_one(row["error"]),
        mtu=int(_one(row["mtu"]) or 0),
        limit=limits.get(row["_uuid"], ""),
        statistics={name: int(value) for name, value in row["statistics"].items()},
    )


def _tunnel(port: dict[str, Any], row: dict[str, Any]) -> TunnelPort:
    # ovn-controller's encaps.c: "<chassis>@<remote ip>" and, since 24.03, "%<local ip>".
    tunnel_id = port["external_ids"].get("ovn-chassis-id", "")
    return TunnelPort(
        name=row["name"],
        ofport=_ofport(row),
        kind=row["type"],
        remote_ip=row["options"].get("remote_ip", ""),
        chassis=tunnel_id.partition("@")[0],
        options=row["options"],
    )


def _ofport(row: dict[str, Any]) -> OfPort:
    """The port number, -1 where the interface has none (it failed, `error` says why)."""
    return OfPort(int(_one(row["ofport"]) or -1))


def _one(value: Any) -> str:
    """An optional column (a set of at most one) as text."""
    if isinstance(value, tuple):
        return str(value[0]) if value else ""
    return str(value)


def _row(row: dict[str, Any]) -> dict[str, Any]:
    values = {name: _value(raw) for name, raw in row.items()}
    for name in ("ports", "interfaces", "protocols"):
        if name in values and not isinstance(values[name], tuple):
            values[name] = (values[name],)
    return values


def _value(raw: Any) -> Any:
    """RFC 7047, 5.1: <set> to tuple, <map> to dict, <uuid> to its text, atoms as they are."""
    if isinstance(raw, list) and len(raw) == 2:
        kind, content = raw
        if kind == "set":
            return tuple(_value(item) for item in content)
        if kind == "map":
            return {_value(key): _value(value) for key, value in content}
        if kind == "uuid":
            return str(content)
    return raw
