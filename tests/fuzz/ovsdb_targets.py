"""OVSDB: a server's bytes, and rows that are not what OVN's schema says."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import msgspec
import ovs.jsonrpc
import ovs.stream
from fuzzing import Target, check, or_refused

from vtrace.collect.link import Standing
from vtrace.doctor.database import read_database
from vtrace.model.inspection import Inspection
from vtrace.model.inventory import Inventory, LogicalDatapath
from vtrace.model.openflow import BridgeLayout, GuardBits
from vtrace.ovn import ovsdb
from vtrace.ovn.databases import OvnDatabases
from vtrace.ovn.dscp import dscp_users
from vtrace.ovn.endpoints import EndpointResolver
from vtrace.ovn.lagging import LagFinder
from vtrace.ovn.topology import InventoryReader
from vtrace.ovn.watch import TopologyWatch
from vtrace.ovs import bridge

UUID = "36bef046-7da7-43a5-905a-c17899216fcb"
_REF = ["uuid", UUID]
_NOTHING: list[Any] = ["set", []]
# One row that fits every table: what is asked for is in it, of the type that OVN's schema says.
ROW: dict[str, Any] = {
    "_uuid": _REF, "name": "vm1", "type": "", "ports": ["set", [_REF]], "external_ids": ["map", [["vtrace:vpc", "a"]]],
    "other_config": ["map", []], "options": ["map", [["router-port", "lrp1"], ["peer", "p"]]], "acls": ["set", [_REF]],
    "addresses": ["set", ["0a:00:00:00:00:01 10.0.0.1"]], "dynamic_addresses": _NOTHING, "port_security": _NOTHING,
    "enabled": True, "up": True, "peer": _NOTHING, "nat": ["set", [_REF]], "static_routes": ["set", [_REF]],
    "policies": _NOTHING, "qos_rules": _NOTHING, "load_balancer": ["set", [_REF]], "load_balancer_group": _NOTHING,
    "tunnel_key": 3, "datapath": _REF, "logical_port": "vm1", "chassis": _REF,
    "mac": ["set", ["0a:00:00:00:00:01 10.0.0.1"]],
    "ha_chassis_group": _NOTHING, "hostname": "hv1", "encaps": _REF, "ip": "192.0.2.1", "external_ip": "192.0.2.7",
    "logical_ip": "10.0.0.1", "external_mac": _NOTHING, "ip_prefix": "10.0.0.0/8", "nexthop": "10.0.0.9",
    "vips": ["map", [["192.0.2.8:80", "10.0.0.1:8080"]]], "protocol": "tcp",
    "ip_port_mappings": ["map", [["10.0.0.1", "vm1:x"]]],
    "status": "online", "match": "ip4.dst == 10.0.0.1 && ip.dscp == 3", "action": "drop", "priority": 100,
    "table_id": 1, "pipeline": "ingress",
}  # fmt: skip
_ROW = json.dumps(ROW).encode()
_TRACE = (
    'Flow: ip,in_port=1\n\nbridge("br-int")\n 9. metadata=0x3, priority 50, cookie 0x5137b08a\n    drop\n\n'
    "Final flow: unchanged\nMegaflow: ip\nDatapath actions: drop\n"
)
_LAYOUT = BridgeLayout(
    ingress_first=8, remote_output=39, local_output=40, check_loopback=41, egress_first=42, save_inport=64,
    log_to_physical=65, guard=GuardBits(register=10, lsb=26),
)  # fmt: skip


class Lying(ovsdb.Database):
    """A database whose server answers every query with the same rows."""

    def __init__(self, rows: Any) -> None:
        super().__init__("unix:/nowhere", "OVN")
        self._rows = rows

    def _call(self, method: str, params: list[Any]) -> Any:
        if method == "get_schema":
            return ovs.jsonrpc.Message.create_reply(self._rows, 0)
        return ovs.jsonrpc.Message.create_reply([{"rows": self._rows} for _ in params[1:]], 0)


def run(work: Coroutine[Any, Any, object]) -> object:
    """In an event loop of its own."""
    return asyncio.run(work)


def rows(data: bytes) -> None:
    """Every reader of the OVN databases, on the rows that the bytes are."""
    try:
        found = msgspec.json.decode(b"[" + data + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    databases = OvnDatabases(Lying(found), Lying(found))
    for read in _readers(databases):
        or_refused(lambda _, read=read: run(read()))(None)


def _readers(databases: OvnDatabases) -> Iterator[Callable[[], Coroutine[Any, Any, object]]]:
    async def resolved() -> object:
        ends = [
            end
            for text in ("vm1", "10.0.0.1", "192.0.2.8")
            for end in await EndpointResolver(databases).resolve(text, 4)
        ]
        return await InventoryReader(databases).read([(ends[0], ends[-1])])

    async def by_name() -> object:
        (end,) = await EndpointResolver(databases).resolve("vm1", 4)
        return await InventoryReader(databases).read([(end, end)])

    here = Inventory(
        datapaths=(LogicalDatapath(key=3, name="web", kind="vswitch", nb_uuid=UUID, sb_uuid=UUID),),
        ports=(),
        chassis=(),
    )
    inspection = Inspection(
        chassis="c", pair=0, wall_ns=0, mono_ns=0, entry="in_port=1", flow="ip", outcome="drop", text=_TRACE, steps=()
    )
    yield resolved
    yield by_name
    yield lambda: dscp_users(databases.nb, here)
    yield lambda: LagFinder(databases).missing_row(inspection, Standing(), _LAYOUT, here)


def session(data: bytes) -> None:
    """The bytes of a connection, in answer to a query, a request for the schema, or as changes; by the first byte."""
    ours, theirs = socket.socketpair()
    with theirs:
        number = ovs.jsonrpc.Message._next_id
        theirs.setblocking(False)
        theirs.send(data[1:].replace(b"ID", str(number).encode()))
        theirs.shutdown(socket.SHUT_WR)
        ours.setblocking(False)
        database = ovsdb.Database("unix:/nowhere", "OVN", timeout_s=0.5)
        stream = ovs.stream.Stream(ours, "unix:/nowhere", 0)
        database._connection = ovs.jsonrpc.Connection(ovsdb._Limited(stream))
        # It is not to be asked again.
        database._connect = lambda: database._fail("it is closed")  # type: ignore[method-assign]
        try:
            kind = data[0] % 3 if data else 0
            if kind == 0:
                database._transact([{"op": "select"}])
            elif kind == 1:
                database._table_names()
            else:
                watch = TopologyWatch(OvnDatabases(database, database))
                for update in database._waiting():
                    watch.matters(update)
                    watch.moves(update)
        finally:
            database.close()
            ours.close()


async def _exchanged(data: bytes) -> object:
    path = f"/dev/shm/vtrace-fuzz-{os.getpid()}/db.sock"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()

    os.makedirs(os.path.dirname(path), exist_ok=True)
    server = await asyncio.start_unix_server(answer, path)
    try:
        return [await bridge.read_bridge(os.path.dirname(path)), await read_database(os.path.dirname(path), "br-int")]
    finally:
        server.close()
        os.unlink(path)
        os.rmdir(os.path.dirname(path))


def chassis(data: bytes) -> object:
    """What the database of a chassis answers: the whole exchange, over a socket."""
    found = run(_exchanged(data))
    check(found)
    return found


def _replies() -> Sequence[bytes]:
    update = {
        "Port_Binding": {UUID: {"modify": {"chassis": _REF}}, "x": {"insert": {"type": "", "logical_port": "vm1"}}}
    }
    schema = {"name": "OVN", "version": "1", "tables": {"NAT": {"columns": {"type": {"type": "string"}}}}}
    return (
        b'\0{"id":ID,"error":null,"result":[{"rows":[' + _ROW[:300].rpartition(b",")[0] + b"}]}]}",
        b'\1{"id":ID,"error":null,"result":' + json.dumps(schema).encode() + b"}",
        b'\2{"id":null,"method":"update2","params":["vtrace",' + json.dumps(update).encode() + b"]}",
        b'\2{"id":"echo","method":"echo","params":[]}{"id":null,"method":"update","params":[]}',
        b'\0{"id":ID,"error":"no","result":null}',
    )


def _chassis_reply() -> bytes:
    none: list[Any] = ["set", []]
    row = {
        "_uuid": _REF, "name": "br-int", "ports": ["set", [_REF]], "datapath_id": "00", "datapath_type": "netdev",
        "protocols": none, "interfaces": _REF, "external_ids": ["map", [["system-id", "c1"]]],
        "other_config": ["map", []],
        "ovs_version": "3.1.0", "qos": none, "type": "geneve", "ofport": 3,
        "options": ["map", [["remote_ip", "192.0.2.2"]]],
        "statistics": ["map", [["rx_packets", 5]]], "dpdk_initialized": False, "role": none,
        "controller": none, "fail_mode": none, "target": "tcp:x", "is_connected": True,
        "admin_state": "up", "link_state": "up", "error": none, "mtu": 1500,
    }  # fmt: skip
    return json.dumps({"id": 0, "error": None, "result": [{"rows": [row]}] * 5}).encode()


_JSON = (
    b"null",
    b"[",
    b"{}",
    b'["set",[',
    b'["map",[["a",1]]]',
    b'["uuid",7]',
    b"true",
    b"1e400",
    b'""',
    b"-1",
    b"[" * 1100,
)
TARGETS = (
    Target(
        "ovsdb_rows",
        rows,
        (_ROW, _ROW + b"," + _ROW, b""),
        (*_JSON, b'"vm1"', b'"router"', b'"localnet"'),
        4096,
    ),
    Target("ovsdb_session", or_refused(session), tuple(_replies()), (*_JSON, b'"id":ID', b'"rows":'), 4096),
    Target("chassis_facts", or_refused(chassis), (_chassis_reply(),), _JSON, 8192),
)
