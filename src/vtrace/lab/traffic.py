"""`lab traffic`: real packets between VMs and outside boxes, sent and answered by programs inside them."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
from pathlib import Path
from typing import Literal

import msgspec

from vtrace.errors import UsageError
from vtrace.lab import state as lab_state
from vtrace.lab.listeners import start_worker
from vtrace.lab.lock import locked
from vtrace.lab.namespaces import start_time
from vtrace.lab.parties import End, destination_of, party_of, source_of
from vtrace.lab.state import LabState

FIRST_DPORT = 20000
FIRST_SPORT = 30000
FIRST_SPORT_OF_MANY = 36000
MAX_FLOWS = 256
DEFAULT_SECONDS = 3600.0
DEFAULT_RATE_PPS = 100.0
DEFAULT_SIZE_BYTES = 64
MIN_SIZE_BYTES = 4
MAX_SIZE_BYTES = 65000

Proto = Literal["tcp", "udp", "icmp"]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for.

    Attributes:
        source: a VM or outside box, or `NAME:address`.
        to: the same, or an address.
        rate: messages per second.
        size: bytes of payload in each.
        seconds: the sender and the server end after that.
        server: whether somebody listens at the other side.
    """

    source: str
    to: str
    proto: Proto = "udp"
    sport: int | None = None
    dport: int | None = None
    rate: float = DEFAULT_RATE_PPS
    size: int = DEFAULT_SIZE_BYTES
    ip: Literal[4, 6] | None = None
    dscp: int = 0
    seconds: float = DEFAULT_SECONDS
    server: bool = True


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A worker; its start time tells it from a later process of the same id."""

    pid: int
    started: str


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """A traffic that was started."""

    id: str
    source: str
    to: str
    proto: Proto
    source_address: str
    destination_address: str
    sport: int
    dport: int
    rate: float
    size: int
    processes: tuple[Process, ...]
    flows: int = 1

    def text(self) -> str:
        """One line about it."""
        ports = "" if self.proto == "icmp" else f":{self.sport or '*'}"
        dport = "" if self.proto == "icmp" else f":{self.dport}"
        what = "identifiers" if self.proto == "icmp" else "source ports"
        many = f" ({self.flows} {what})" if self.flows > 1 else ""
        return (
            f"{self.id}: {self.proto} {self.source} [{self.source_address}]{ports}{many} to "
            f"{self.to} [{self.destination_address}]{dport}, {self.rate:g}/s of {self.size} bytes"
        )


def start(state: LabState, wish: Wish, *, flows: int = 1, source_address: str | None = None) -> Traffic:
    """Start a traffic; it is under way when this returns.

    Args:
        state: of the lab.
        wish: what is asked for.
        flows: so many source ports (ICMP: identifiers) are used in turn.
        source_address: one of the sender's, to send from.

    Raises:
        UsageError: there is no such VM or address, or a number is out of range.
        ProgramError: a worker could not start, for example since a port is taken.
    """
    _check(wish, flows)
    name, _, given = wish.source.partition(":")
    sender = party_of(state, name)
    with locked(state.name):
        _directory(state).mkdir(exist_ok=True)
        identifier = f"t{max((int(t.id[1:]) for t in all_of(state)), default=0) + 1}"
        number = int(identifier[1:]) % 10000
        asked = 0 if wish.proto == "icmp" else wish.dport
        to = destination_of(state, sender, wish.to, version=wish.ip, proto=wish.proto, dport=asked)
        dport = 0 if wish.proto == "icmp" else to.dport or FIRST_DPORT + number
        source = source_of(sender, ipaddress.ip_address(to.address).version, given or source_address)
        options: dict[str, object] = {
            "proto": wish.proto,
            "source": source,
            "destination": to.address,
            "sport": wish.sport or _source_port(wish.proto, number, flows),
            "dport": dport,
            "flows": flows,
            "rate": wish.rate,
            "size": wish.size,
            "dscp": wish.dscp,
            "seconds": wish.seconds,
            "stats": str(_directory(state) / f"{identifier}.stats"),
        }
        answers = to.ends if wish.server and wish.proto != "icmp" else ()
        ends = [end if end.port else msgspec.structs.replace(end, port=dport) for end in answers]
        started = Traffic(
            id=identifier,
            source=sender.name,
            to=wish.to,
            proto=wish.proto,
            source_address=source,
            destination_address=to.address,
            sport=int(str(options["sport"])),
            dport=dport,
            rate=wish.rate,
            size=wish.size,
            processes=_workers(state, sender.name, ends, options),
            flows=flows,
        )
        (_directory(state) / f"{identifier}.json").write_bytes(msgspec.json.encode(started))
    return started


def _source_port(proto: str, number: int, flows: int) -> int:
    """The first source port of the n-th traffic; 0 lets the kernel choose."""
    if proto == "tcp":
        return 0
    return FIRST_SPORT + number if flows == 1 else FIRST_SPORT_OF_MANY + number % 100 * MAX_FLOWS


def _workers(state: LabState, sender: str, ends: list[End], options: dict[str, object]) -> tuple[Process, ...]:
    """Start those who answer, unless somebody does already, and then the one who sends; all or none."""
    listening = {(one.node, one.proto, one.port) for one in state.listeners}
    processes: list[Process] = []
    try:
        for end in ends:
            if (end.node, options["proto"], end.port) not in listening:
                listens = [[options["proto"], end.address, end.port]]
                processes.append(_worker(state, end.node, {**options, "role": "serve", "listens": listens}))
        processes.append(_worker(state, sender, {**options, "role": "send"}))
    except BaseException:
        for process in processes:
            _end(process)
        raise
    return tuple(processes)


def stop(state: LabState, identifier: str | None) -> list[Traffic]:
    """Stop one traffic, or all.

    Raises:
        UsageError: there is no such traffic.
    """
    with locked(state.name):
        chosen = [traffic for traffic in all_of(state) if identifier in (None, traffic.id)]
        if identifier is not None and not chosen:
            known = " ".join(traffic.id for traffic in all_of(state)) or "none"
            raise UsageError(f"there is no traffic {identifier!r}", "", f"there is {known}")
        for traffic in chosen:
            for process in traffic.processes:
                _end(process)
            for suffix in ("stats", "stats.new", "json"):
                (_directory(state) / f"{traffic.id}.{suffix}").unlink(missing_ok=True)
    return chosen


def all_of(state: LabState) -> list[Traffic]:
    """Every traffic that was started and not stopped, oldest first."""
    files = _directory(state).glob("*.json")
    found = [msgspec.json.decode(file.read_bytes(), type=Traffic) for file in files]
    return sorted(found, key=lambda traffic: int(traffic.id[1:]))


def counts(state: LabState, traffic: Traffic) -> dict[str, int]:
    """What the sender last reported (five times a second): messages sent, received, and connections made."""
    try:
        return dict(json.loads((_directory(state) / f"{traffic.id}.stats").read_text()))
    except FileNotFoundError:
        return {"sent": 0, "received": 0, "connects": 0}


def is_running(traffic: Traffic) -> bool:
    """Whether its workers are all there (they end by themselves when their time is over)."""
    return all(start_time(process.pid) == process.started for process in traffic.processes)


def _directory(state: LabState) -> Path:
    return lab_state.directory(state.name) / "traffic"


def _check(wish: Wish, flows: int) -> None:
    """Raise UsageError for a number out of range."""
    bounds = [
        ("--rate", wish.rate, 0.01, 100_000),
        ("--size", wish.size, MIN_SIZE_BYTES, MAX_SIZE_BYTES),
        ("--dscp", wish.dscp, 0, 63),
        ("--seconds", wish.seconds, 0.1, 86_400),
        ("--flows", flows, 1, MAX_FLOWS),
    ]
    ports = (("--sport", wish.sport), ("--dport", wish.dport))
    bounds += [(name, port, 1, 65535) for name, port in ports if port is not None]
    for name, value, low, high in bounds:
        if not low <= value <= high:
            raise UsageError(f"{name} {value:g} is out of range", "lab traffic", f"{low:g} to {high:g}")
    if wish.proto == "icmp" and (wish.dport is not None or wish.sport is not None):
        raise UsageError("icmp has no ports", "lab traffic")


def _worker(state: LabState, node: str, options: dict[str, object]) -> Process:
    """Start a worker on a node; it is ready when this returns."""
    pid = start_worker(state, node, options)
    return Process(pid=pid, started=start_time(pid) or "")


def _end(process: Process) -> None:
    if start_time(process.pid) == process.started:
        try:
            os.kill(process.pid, signal.SIGTERM)
        except ProcessLookupError:
            return
