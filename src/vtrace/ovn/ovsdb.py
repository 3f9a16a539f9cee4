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
from typing import Any, Self, TypeVar

import anyio
import anyio.to_thread
import msgspec
import ovs.jsonrpc
import ovs.poller
import ovs.stream

from vtrace.errors import CannotWorkError, ProtocolError

_T = TypeVar("_T")
Row = dict[str, Any]
Condition = tuple[str, str, Any]
# By table and row: what was inserted, modified or deleted (ovsdb-server(7), update2).
_REPLIES = (ovs.jsonrpc.Message.T_REPLY, ovs.jsonrpc.Message.T_ERROR)
TableUpdates = dict[str, dict[str, dict[str, Any]]]


def uuid_ref(uuid: str) -> list[str]:
    """A uuid as a condition's value."""
    return ["uuid", uuid]


def map_of(**pairs: str) -> list[Any]:
    """A map as a condition's value; an underscore in a name stands for a hyphen."""
    return ["map", [[k.replace("_", "-"), v] for k, v in pairs.items()]]


def decode(value: Any) -> Any:
    """An OVSDB value (RFC 7047, 5.1) as a Python one: sets become tuples, maps dicts, uuids their text.

    Raises:
        ProtocolError: it is none.
    """
    tag, body = _tagged(value)
    if tag == "set" and isinstance(body, list):
        return tuple(_atom(item) for item in body)
    if tag == "map" and isinstance(body, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in body):
        return {_atom(key): _atom(item) for key, item in body}
    return _atom(value)


def _atom(value: Any) -> Any:
    """A text, number, boolean or uuid: all that sets and maps hold."""
    if isinstance(value, str | int | float):
        return value
    tag, body = _tagged(value)
    if tag in ("uuid", "named-uuid") and isinstance(body, str):
        return body
    raise ProtocolError("The database sent a value that is none of OVSDB's", "", f"{value!r:.80}")


def _tagged(value: Any) -> tuple[Any, Any]:
    return (value[0], value[1]) if isinstance(value, list) and len(value) == 2 else (None, None)


def as_tuple(value: Any) -> tuple[Any, ...]:
    """A column that holds a set: OVSDB sends a set of one as the bare value."""
    return value if isinstance(value, tuple) else (value,)


# A whole northbound database of a large cloud has some hundred MB.
MESSAGE_MAX_BYTES = 256 << 20
# Changes taken at once, and how long may be read for them: the others wait.
_MOST_CHANGES = 1000
_READ_S = 0.1


class _Schema(msgspec.Struct):
    """What is needed of a database's schema: the columns of each table."""

    tables: dict[str, _TableSchema]


class _TableSchema(msgspec.Struct):
    columns: dict[str, Any]


class _Result(msgspec.Struct):
    """The result of one operation."""

    rows: list[dict[str, Any]]


class _Limited:
    """A stream that pauses at a deadline and ends after so many bytes of one message, whatever still comes.

    Attributes:
        deadline: of the monotonic clock; left: bytes that the message may still have.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.deadline = 0.0
        self.left = MESSAGE_MAX_BYTES

    def recv(self, size: int) -> tuple[int, bytes]:
        """As of `ovs.stream.Stream`: EAGAIN past the deadline, EMSGSIZE past the bytes."""
        if self.left <= 0:
            return errno.EMSGSIZE, b""
        if time.monotonic() > self.deadline:
            return errno.EAGAIN, b""
        error, data = self._stream.recv(size)
        self.left -= len(data)
        return error, data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _unusable(remote: str) -> str:
    """Why a remote can't be used, as far as it can be told from its text; empty if it can."""
    kind, _, rest = remote.partition(":")
    port = rest.rpartition(":")[2]
    if kind == "ssl":
        return "no certificates can be given for ssl: remotes"
    if kind == "tcp" and port.isdecimal() and (len(port) > 5 or int(port) > 0xFFFF):
        return f"{port[:20]} is no port"
    return ""


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
        return [[{name: decode(value) for name, value in row.items()} for row in rows] for rows in results]

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
        schema = self._schema()
        requests = {
            table: [
                {
                    "columns": [column for column in columns if column in schema[table].columns],
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

    def _waiting(self) -> list[TableUpdates]:
        """The changes that came in, without waiting for more."""
        found: list[TableUpdates] = []
        if self._connection is None:
            self._fail("the connection was closed")
        while len(found) < _MOST_CHANGES and (message := self._read(0.0)) is not None:
            if message.method in ("update2", "update"):
                found.append(self._understood(message.params[1:2], tuple[TableUpdates])[0])
        return found

    def _table_names(self) -> frozenset[str]:
        return frozenset(self._schema())

    def _schema(self) -> dict[str, _TableSchema]:
        return self._understood(self._call("get_schema", [self.name]).result, _Schema).tables

    def _transact(self, operations: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """The rows of each operation."""
        was_open = self._connection is not None
        try:
            reply = self._call("transact", [self.name, *operations])
        except _ClosedError:
            # The server was started anew meanwhile, say: it only reads, so it may be asked again.
            if not was_open:
                raise
            reply = self._call("transact", [self.name, *operations])
        for result in reply.result if isinstance(reply.result, list) else ():
            if isinstance(result, dict) and "error" in result:
                raise ProtocolError("The database refused a query", f"{self.name} at {self.remote}", json.dumps(result))
        found = self._understood(reply.result, list[_Result])
        if len(found) != len(operations):
            raise self._not_understood(f"{len(found)} results to {len(operations)} queries")
        return [result.rows for result in found]

    def _understood(self, value: Any, type_: type[_T]) -> _T:
        try:
            return msgspec.convert(value, type_)
        except (msgspec.ValidationError, RecursionError) as error:
            raise self._not_understood(str(error)) from error

    def _not_understood(self, why: str) -> ProtocolError:
        return ProtocolError("The database's answer can't be read", f"{self.name} at {self.remote}", why)

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
            if unusable := _unusable(remote):
                reason = unusable
                continue
            try:
                error, stream = ovs.stream.Stream.open_block(
                    ovs.stream.Stream.open(remote), timeout=int(self._timeout_s * 1000)
                )
            except (OSError, OverflowError, ValueError) as failed:
                # The `ovs` package hands an address to the kernel as it is.
                reason = str(failed)
                continue
            if not error:
                return ovs.jsonrpc.Connection(_Limited(stream))
            reason = errno.errorcode.get(error, str(error))
        raise self._out_of_reach(reason)

    def _receive(self, request_id: Any, deadline: float) -> Any:
        while True:
            message = self._read(deadline) if time.monotonic() < deadline else None
            if message is None:
                self._fail(f"no answer within {self._timeout_s:g} s")
            elif message.id == request_id and message.type in _REPLIES:
                return message

    def _read(self, deadline: float) -> Any:
        """The next message, or None where there is none until the deadline. Answers the server's echo requests.

        Args:
            deadline: of the monotonic clock; 0 for what has come already.
        """
        stream = self._connection.stream
        stream.deadline = deadline or time.monotonic() + _READ_S
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
            elif error == errno.EMSGSIZE:
                self._fail(f"its answer had no end within {MESSAGE_MAX_BYTES:,} bytes")
            elif error:
                self._fail("the connection was closed", _ClosedError)
            else:
                stream.left = MESSAGE_MAX_BYTES
                if message.type != ovs.jsonrpc.Message.T_REQUEST or message.method != "echo":
                    return message
                self._connection.send(ovs.jsonrpc.Message.create_reply(message.params, message.id))
                if len(self._connection.output) > MESSAGE_MAX_BYTES or time.monotonic() > stream.deadline:
                    return None

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
