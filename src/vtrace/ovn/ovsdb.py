"""Reads rows of an OVSDB database (RFC 7047) by exact conditions: never a whole table without need.

The protocol is spoken by the `ovs` package; this module adds a time limit to every call and decodes values.
"""

from __future__ import annotations

import errno
import functools
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread
import ovs.jsonrpc
import ovs.poller
import ovs.stream

from vtrace.errors import CannotWorkError, ProtocolError

Row = dict[str, Any]
Condition = tuple[str, str, Any]
# By table and row: what was inserted, modified or deleted (ovsdb-server(7), update2).
TableUpdates = dict[str, dict[str, dict[str, Any]]]


def uuid_ref(uuid: str) -> list[str]:
    """A uuid as a condition's value."""
    return ["uuid", uuid]


def map_of(**pairs: str) -> list[Any]:
    """A map as a condition's value; an underscore in a name stands for a hyphen."""
    return ["map", [[k.replace("_", "-"), v] for k, v in pairs.items()]]


def decode(value: Any) -> Any:
    """An OVSDB value as a Python one: sets become tuples, maps dicts, uuids their text."""
    if isinstance(value, list) and len(value) == 2:
        tag, body = value
        if tag in ("uuid", "named-uuid"):
            return body
        if tag == "set":
            return tuple(decode(item) for item in body)
        if tag == "map":
            return {decode(k): decode(v) for k, v in body}
    return value


def as_tuple(value: Any) -> tuple[Any, ...]:
    """A column that holds a set: OVSDB sends a set of one as the bare value."""
    return value if isinstance(value, tuple) else (value,)


class _ClosedError(CannotWorkError):
    """The server closed the connection."""


class Database:
    """One database at one remote, over one connection that is opened when first used.

    Args:
        remote: "unix:PATH", "tcp:HOST:PORT" or "ssl:HOST:PORT"; several, divided by commas, are tried in order.
        name: the database's schema name, for example "OVN_Northbound".
        timeout_s: the limit of each call.
    """

    def __init__(self, remote: str, name: str, timeout_s: float = 5.0) -> None:
        self.remote = remote
        self.name = name
        self._timeout_s = timeout_s
        self._connection: Any = None
        self._tables: frozenset[str] | None = None
        self._turn = anyio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def select(self, table: str, where: Iterable[Condition] = (), columns: Sequence[str] = ()) -> list[Row]:
        """The rows that meet all conditions, decoded.

        Raises:
            CannotWorkError: the database is out of reach or does not answer in time.
            ProtocolError: it answers with an error (an unknown table or column, say).
        """
        (rows,) = await self.select_many([(table, list(where), columns)])
        return rows

    async def select_many(self, queries: Sequence[tuple[str, Sequence[Condition], Sequence[str]]]) -> list[list[Row]]:
        """Several selects in one transaction."""
        if not queries:
            return []
        operations = [
            {
                "op": "select",
                "table": table,
                "where": [list(condition) for condition in where],
                **({"columns": [*columns]} if columns else {}),
            }
            for table, where, columns in queries
        ]
        async with self._turn:
            results = await anyio.to_thread.run_sync(functools.partial(self._transact, operations))
        return [[{name: decode(value) for name, value in row.items()} for row in result["rows"]] for result in results]

    async def has_table(self, table: str) -> bool:
        """Whether the database's schema (which differs from version to version) has the table."""
        if self._tables is None:
            async with self._turn:
                self._tables = await anyio.to_thread.run_sync(self._table_names)
        return table in self._tables

    async def monitor(self, wanted: Mapping[str, tuple[Sequence[str], Sequence[Condition]]]) -> None:
        """Has the server tell of changes from now on: of these columns, in the rows that meet any of the conditions.

        Columns that the schema of this version does not have are left out. A connection that monitors is of no other
        use.
        """
        async with self._turn:
            await anyio.to_thread.run_sync(functools.partial(self._monitor, wanted))

    def _monitor(self, wanted: Mapping[str, tuple[Sequence[str], Sequence[Condition]]]) -> None:
        schema = self._call("get_schema", [self.name]).result["tables"]
        requests = {
            table: [
                {
                    "columns": [column for column in columns if column in schema[table]["columns"]],
                    "where": [list(condition) for condition in conditions],
                    "select": {"initial": False},
                }
            ]
            for table, (columns, conditions) in wanted.items()
            if table in schema
        }
        self._call("monitor_cond", [self.name, "vtrace", requests])

    async def changes(self) -> list[TableUpdates]:
        """Waits until something changes of what is monitored.

        Raises:
            CannotWorkError: the connection broke.
        """
        while not (found := self._waiting()):
            await anyio.wait_readable(self._connection.stream.socket)
        return found

    def forget(self) -> None:
        """Drops what was told of changes so far.

        Raises:
            CannotWorkError: the connection broke.
        """
        self._waiting()

    def _waiting(self) -> list[TableUpdates]:
        """The changes that came in, without waiting for more."""
        found: list[TableUpdates] = []
        if self._connection is None:
            self._fail("the connection was closed")
        while (message := self._read(0.0)) is not None:
            if message.method in ("update2", "update"):
                found.append(message.params[1])
        return found

    def _table_names(self) -> frozenset[str]:
        reply = self._call("get_schema", [self.name])
        return frozenset(reply.result["tables"])

    def _transact(self, operations: list[dict[str, Any]]) -> list[dict[str, Any]]:
        was_open = self._connection is not None
        try:
            reply = self._call("transact", [self.name, *operations])
        except _ClosedError:
            # The server was started anew meanwhile, say: it only reads, so it may be asked again.
            if not was_open:
                raise
            reply = self._call("transact", [self.name, *operations])
        for result in reply.result:
            if result and "error" in result:
                raise ProtocolError("The database refused a query", f"{self.name} at {self.remote}", json.dumps(result))
        return list(reply.result)

    def _call(self, method: str, params: list[Any]) -> Any:
        deadline = time.monotonic() + self._timeout_s
        if self._connection is None:
            self._connection = self._connect()
        request = ovs.jsonrpc.Message.create_request(method, params)
        failed = self._connection.send(request)
        if failed:
            self._fail(f"sending failed: {errno.errorcode.get(failed, failed)}", _ClosedError)
        reply = self._receive(request.id, deadline)
        if reply.type == ovs.jsonrpc.Message.T_ERROR:
            raise ProtocolError("The database refused a request", self.remote, json.dumps(reply.error))
        return reply

    def _connect(self) -> Any:
        reason = "no remote given"
        for remote in self.remote.split(","):
            error, stream = ovs.stream.Stream.open_block(
                ovs.stream.Stream.open(remote), timeout=int(self._timeout_s * 1000)
            )
            if not error:
                return ovs.jsonrpc.Connection(stream)
            reason = errno.errorcode.get(error, str(error))
        raise self._out_of_reach(reason)

    def _receive(self, request_id: Any, deadline: float) -> Any:
        while True:
            message = self._read(deadline)
            if message is None:
                self._fail(f"no answer within {self._timeout_s:g} s")
            elif message.id == request_id:
                return message

    def _read(self, deadline: float) -> Any:
        """The next message, or None where there is none until the deadline. Answers the server's echo requests."""
        while True:
            error, message = self._connection.recv()
            if error == errno.EAGAIN:
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._connection.run()
                poller = ovs.poller.Poller()
                self._connection.wait(poller)
                self._connection.recv_wait(poller)
                poller.timer_wait(max(1, int(left * 1000)))
                poller.block()
            elif error:
                self._fail("the connection was closed", _ClosedError)
            elif message.type == ovs.jsonrpc.Message.T_REQUEST and message.method == "echo":
                self._connection.send(ovs.jsonrpc.Message.create_reply(message.params, message.id))
            else:
                return message

    def _fail(self, reason: str, kind: type[CannotWorkError] = CannotWorkError) -> None:
        self.close()
        raise self._out_of_reach(reason, kind)

    def _out_of_reach(self, reason: str, kind: type[CannotWorkError] = CannotWorkError) -> CannotWorkError:
        return kind(
            f"The database {self.name} is out of reach",
            self.remote,
            reason,
            "Check that its ovsdb-server runs and that the remote is right (--nb, --sb, OVN_NB_DB, OVN_SB_DB)",
        )
