"""OVSDB values in Python (RFC 7047, 5.1)."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vtrace.errors import CannotWorkError, ProtocolError
from vtrace.ovn.ovsdb import Database, as_tuple, decode, map_of, uuid_ref

UUID = "36bef046-7da7-43a5-905a-c17899216fcb"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        (7, 7),
        (True, True),
        (1.5, 1.5),
        (["uuid", UUID], UUID),
        (["named-uuid", "row1"], "row1"),
        (["set", []], ()),
        (["set", ["a", "b"]], ("a", "b")),
        (["set", [["uuid", UUID]]], (UUID,)),
        (["map", []], {}),
        (["map", [["a", "b"], ["c", 1]]], {"a": "b", "c": 1}),
        (["map", [["a", ["uuid", UUID]]]], {"a": UUID}),
    ],
)
def test_decode(value: Any, expected: Any) -> None:
    assert decode(value) == expected


@pytest.mark.parametrize(("value", "expected"), [((), ()), (("a", "b"), ("a", "b")), ("a", ("a",)), (False, (False,))])
def test_a_set_of_one_is_sent_as_the_bare_value(value: Any, expected: tuple[Any, ...]) -> None:
    assert as_tuple(value) == expected


def test_values_of_conditions() -> None:
    assert uuid_ref(UUID) == ["uuid", UUID]
    assert map_of(router_port="lrp1") == ["map", [["router-port", "lrp1"]]]


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        ["set", 5],
        ["set", [["set", []]]],
        ["map", [["a"]]],
        ["map", {"a": 1}],
        ["uuid", 5],
        {"a": 1},
        ["x", "y"],
    ],
)
def test_what_is_no_value_of_ovsdb_is_refused(value: Any) -> None:
    with pytest.raises(ProtocolError):
        decode(value)


@pytest.mark.parametrize(
    "remote",
    [
        "",
        ",",
        "x",
        "tcp:",
        "tcp:127.0.0.1:99999999",
        "tcp:[::1:1",
        "unix:",
        "unix:/dev/null",
        "ssl:127.0.0.1:1",
        "fd:3",
    ],
)
@pytest.mark.anyio
async def test_a_remote_that_is_none_is_told(remote: str) -> None:
    async with Database(remote, "OVN", timeout_s=1) as database:
        with pytest.raises(CannotWorkError, match="out of reach"):
            await database.select("NAT")


@contextlib.contextmanager
def server(path: Path, *said: bytes, without_end: bytes = b"") -> Iterator[str]:
    """Says this to whoever connects, then goes on saying something until that one hangs up."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def talk() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"".join(said))
                while without_end:
                    connection.sendall(without_end)

        talking = threading.Thread(target=talk)
        talking.start()
        try:
            yield f"unix:{path}"
        finally:
            talking.join(10)
            assert not talking.is_alive()


@pytest.mark.parametrize(
    "without_end",
    [
        b'["a",' + b'"b",' * 1000,
        b'{"id":null,"method":"update2","params":["v",{}]}' * 100,
        b'{"id":"e","method":"echo","params":[]}' * 100,
    ],
    ids=["one answer", "changes", "echo requests"],
)
@pytest.mark.anyio
async def test_a_server_that_never_ends_is_given_up(tmp_path: Path, without_end: bytes) -> None:
    with server(tmp_path / "db.sock", without_end=without_end) as remote:
        async with Database(remote, "OVN", timeout_s=0.3) as database:
            with pytest.raises(CannotWorkError, match="no answer within"):
                await database.select("NAT")


@pytest.mark.anyio
async def test_changes_without_end_are_taken_in_pieces(tmp_path: Path) -> None:
    """What came is worked off, though more is there: a task is not to wait for a server that never stops."""
    update = b'{"id":null,"method":"update2","params":["v",{"NAT":{"u":{"modify":{}}}}]}'
    with server(tmp_path / "db.sock", without_end=update * 50) as remote:
        async with Database(remote, "OVN", timeout_s=5) as database:
            database._connection = database._connect()
            found = await database.changes()
            again = await database.changes()
    assert 0 < len(found) <= 1000
    assert again
