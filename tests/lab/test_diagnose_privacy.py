"""What a task gives up and what it keeps to itself: root's privileges, and tenants' payload."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pytest
from faults import answers
from faults.facts import PROGRAM, Facts
from faults.model import Pair
from faults.running import namespace

from unit.payload import MARKER, found_in
from vtrace.collect.store import read_records
from vtrace.lab import state as lab_state

pytestmark = pytest.mark.lab

PORT = 20998
# The VM's own programs: a datagram whose payload begins with the marker, a hundred times a second.
SENDER = """
import socket, sys, time
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    try:
        udp.sendto(bytes.fromhex(sys.argv[2]) * 8, (sys.argv[1], int(sys.argv[3])))
    except ConnectionRefusedError:
        pass
    time.sleep(0.01)
"""
KEPT = 1 << 19 | 1 << 21
"""CAP_SYS_PTRACE and CAP_SYS_ADMIN (linux/capability.h): every ovs-vswitchd of a lab is in a namespace of its own."""


@pytest.fixture
def pair(facts: Facts) -> Pair:
    return facts.pair("routed-remote", 4)


@pytest.fixture
def telling(facts: Facts, pair: Pair) -> Iterator[None]:
    """Traffic with the marker in it; nobody listens, so that ICMP errors quote it."""
    argv = [*PROGRAM, "lab", "exec", "--lab", facts.lab, pair.source, "--", "python3", "-c", SENDER]
    sender = subprocess.Popen([*argv, pair.dst, MARKER.hex(), str(PORT)])
    try:
        yield
    finally:
        sender.kill()
        sender.wait(timeout=5)


def threads(process: int) -> list[dict[str, str]]:
    """What /proc says of each thread of a process."""
    texts = [path.read_text() for path in Path(f"/proc/{process}/task").glob("*/status")]
    return [dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line) for text in texts]


def until(words: str, error: int) -> str:
    """What a program says on stderr, up to these words."""
    said = b""
    deadline = time.monotonic() + 20
    while words.encode() not in said:
        assert time.monotonic() < deadline, f"waited for {words!r}:\n{said.decode()}"
        piece = os.read(error, 4096)
        assert piece, f"it ended without {words!r}:\n{said.decode()}"
        said += piece
    return said.decode()


def capabilities(process: int) -> set[tuple[int, ...]]:
    names = ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")
    return {tuple(int(thread[name], 16) for name in names) for thread in threads(process)}


def test_root_keeps_what_it_needs_and_no_more(facts: Facts, pair: Pair, telling: None, tmp_path: Path) -> None:
    words = ("--from", pair.source, "--to", pair.destination, "--packets", "100000", "--timeout", "3")
    words += ("--records", str(tmp_path / "records.parquet"))
    process = answers.start(facts, *words)
    assert process.stderr is not None
    try:
        said = until("coloring", process.stderr.fileno())
        assert capabilities(process.pid) == {(KEPT, KEPT, KEPT, 0, 0)}
        assert {thread["NoNewPrivs"].strip() for thread in threads(process.pid)} == {"1"}
    finally:
        answer = answers.finish(process, time.monotonic())
    assert "keeps CAP_SYS_PTRACE, CAP_SYS_ADMIN" in said
    assert "another network namespace" in said
    assert answer.document["packets"]["colored"] > 0, answer.text()
    assert answer.document["cost"]["entries_left"] == 0, answer.text()


def test_root_keeps_nothing_beside_the_switch(facts: Facts, pair: Pair, telling: None) -> None:
    """As on a server: in the network namespace of its ovs-vswitchd, an agent works without any capability."""
    state = lab_state.load(facts.lab)
    assert state is not None
    server = next(s for s in state.servers if s.name == facts.vm(pair.source)["server"])
    argv = [*PROGRAM, "diagnose", "--nb", state.nb_remote, "--sb", state.sb_remote, "--rundir", str(server.rundir)]
    argv += ["--from", pair.source, "--to", pair.destination, "--packets", "100000", "--timeout", "3", "--json"]
    inside = ["ip", "netns", "exec", namespace(facts, server.name)]
    process = subprocess.Popen([*inside, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = until("coloring", process.stderr.fileno())
        assert capabilities(process.pid) == {(0, 0, 0, 0, 0)}
        assert {thread["NoNewPrivs"].strip() for thread in threads(process.pid)} == {"1"}
    finally:
        answer = answers.finish(process, time.monotonic())
    assert "gave up all privileges" in said
    assert answer.document["packets"]["colored"] > 0, answer.text()
    assert answer.document["cost"]["entries_left"] == 0, answer.text()


# A word of strace's output: every byte as \xNN.
_SAID = re.compile(rb'"((?:\\x[0-9a-f]{2})+)"')
_CALLS = "trace=write,writev,pwrite64,pwritev,sendto,sendmsg,sendmmsg"


def sent(log: Path) -> bytes:
    """Everything that a program and what it ran wrote to any file, pipe or socket, as strace saw it."""
    return b"\n".join(bytes.fromhex(said.replace(b"\\x", b"").decode()) for said in _SAID.findall(log.read_bytes()))


@pytest.mark.parametrize("dropped", [False, True], ids=["delivered", "dropped by an ACL"])
@pytest.mark.timeout(180)
def test_payload_stays_on_the_server(facts: Facts, pair: Pair, telling: None, tmp_path: Path, dropped: bool) -> None:
    """All that a task writes anywhere is searched: files, pipes, sockets, its answer, and the daemons' logs."""
    state = lab_state.load(facts.lab)
    assert state is not None
    work = tmp_path / "work"
    work.mkdir()
    records, log = work / "records.arrow", tmp_path / "strace"
    match = f'outport == "{pair.destination}" && udp.dst == {PORT}'
    acl = (pair.destination_switch, "to-lport", "1000", match)
    if dropped:
        facts.execute("central", "ovn-nbctl", "--wait=hv", "acl-add", *acl, "drop")
    try:
        argv = ["strace", "-f", "-qq", "-xx", "-s", "1048576", "-e", _CALLS, "-e", "signal=none", "-o", str(log)]
        argv += [*PROGRAM, "diagnose", "--lab", facts.lab, "--json", "--packets", "40"]
        argv += ["--from", pair.source, "--to", pair.destination, "--proto", "udp", "--dport", str(PORT)]
        argv += ["--timeout", "10", "--records", str(records)]
        env = {**os.environ, "TMPDIR": str(work), "XDG_CACHE_HOME": str(work)}
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        answer = answers.finish(process, time.monotonic())
    finally:
        if dropped:
            facts.execute("central", "ovn-nbctl", "--wait=hv", "acl-del", *acl)
    # The task saw packets with the marker, and asked the slow path about them where they are lost.
    assert answer.document["packets"]["colored"] >= 40, answer.text()
    assert answer.document["loss"] == ("yes" if dropped else "no"), answer.text()
    table = read_records(records)
    assert table.num_rows >= 40
    written = sent(log)
    # It was seen: the answer and the entries went this way.
    assert b'"loss"' in written
    assert b"hard_timeout=" in written
    plain = pa.BufferOutputStream()
    with pa.ipc.new_stream(plain, table.schema) as writer:
        writer.write_table(table)
    assert found_in(written) == []
    assert found_in(bytes(plain.getvalue())) == []
    assert found_in(answer.text().encode()) == []
    for path in work.rglob("*"):
        assert not path.is_file() or found_in(path.read_bytes()) == [], path
    for path in Path(state.servers[0].rundir).parent.glob("*/*.log"):
        assert found_in(path.read_bytes()) == [], path
