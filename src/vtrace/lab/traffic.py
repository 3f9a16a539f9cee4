"""`lab traffic`: real packets between VMs, sent and answered by programs inside them."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import sys
from pathlib import Path
from typing import Literal

import msgspec

from vtrace.errors import UsageError
from vtrace.lab import state as lab_state
from vtrace.lab.lock import locked
from vtrace.lab.namespaces import start_time
from vtrace.lab.programs import run_on
from vtrace.lab.state import LabState, LabVm

WORKER = Path(__file__).with_name("traffic_worker.py")
FIRST_DPORT = 20000
FIRST_SPORT = 30000
DEFAULT_SECONDS = 3600.0
DEFAULT_RATE_PPS = 100.0
DEFAULT_SIZE_BYTES = 64
MIN_SIZE_BYTES = 4
MAX_SIZE_BYTES = 65000

Proto = Literal["tcp", "udp", "icmp"]


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for.

    Attributes:
        to: a VM, `VM:address`, or an address.
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

    def text(self) -> str:
        """One line about it."""
        ports = "" if self.proto == "icmp" else f":{self.sport or '*'}"
        dport = "" if self.proto == "icmp" else f":{self.dport}"
        return (
            f"{self.id}: {self.proto} {self.source} [{self.source_address}]{ports} to "
            f"{self.to} [{self.destination_address}]{dport}, {self.rate:g}/s of {self.size} bytes"
        )


def start(state: LabState, wish: Wish) -> Traffic:
    """Start a traffic; it is under way when this returns.

    Raises:
        UsageError: there is no such VM or address, or a number is out of range.
        ProgramError: a worker could not start, for example since a port is taken.
    """
    _check(wish)
    sender = state.vm(wish.source)
    receiver, destination = _destination(state, sender, wish)
    version = ipaddress.ip_address(destination).version
    source = _address_of(sender, version)
    with locked(state.name):
        _directory(state).mkdir(exist_ok=True)
        identifier = f"t{max((int(t.id[1:]) for t in all_of(state)), default=0) + 1}"
        number = int(identifier[1:]) % 10000
        sport = wish.sport or (0 if wish.proto == "tcp" else FIRST_SPORT + number)
        dport = 0 if wish.proto == "icmp" else wish.dport or FIRST_DPORT + number
        options: dict[str, object] = {
            "proto": wish.proto,
            "source": source,
            "destination": destination,
            "sport": sport,
            "dport": dport,
            "rate": wish.rate,
            "size": wish.size,
            "dscp": wish.dscp,
            "seconds": wish.seconds,
            "stats": str(_directory(state) / f"{identifier}.stats"),
        }
        listens = wish.server and wish.proto != "icmp"
        server = receiver.name if receiver is not None and listens else None
        started = Traffic(
            id=identifier,
            source=sender.name,
            to=wish.to,
            proto=wish.proto,
            source_address=source,
            destination_address=destination,
            sport=sport,
            dport=dport,
            rate=wish.rate,
            size=wish.size,
            processes=_workers(state, sender.name, server, options),
        )
        (_directory(state) / f"{identifier}.json").write_bytes(msgspec.json.encode(started))
    return started


def _workers(state: LabState, sender: str, server: str | None, options: dict[str, object]) -> tuple[Process, ...]:
    """Start the one who answers, if any, and then the one who sends; both or none."""
    processes: list[Process] = []
    try:
        if server is not None:
            processes.append(_worker(state, server, {**options, "role": "serve"}))
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


def _check(wish: Wish) -> None:
    """Raise UsageError for a number out of range."""
    bounds = [
        ("--rate", wish.rate, 0.01, 100_000),
        ("--size", wish.size, MIN_SIZE_BYTES, MAX_SIZE_BYTES),
        ("--dscp", wish.dscp, 0, 63),
        ("--seconds", wish.seconds, 0.1, 86_400),
    ]
    ports = (("--sport", wish.sport), ("--dport", wish.dport))
    bounds += [(name, port, 1, 65535) for name, port in ports if port is not None]
    for name, value, low, high in bounds:
        if not low <= value <= high:
            raise UsageError(f"{name} {value:g} is out of range", "lab traffic", f"{low:g} to {high:g}")
    if wish.proto == "icmp" and (wish.dport is not None or wish.sport is not None):
        raise UsageError("icmp has no ports", "lab traffic")


def _destination(state: LabState, sender: LabVm, wish: Wish) -> tuple[LabVm | None, str]:
    """The VM that answers, if it is one of the sender's VPC, and the address to send to."""
    name, _, given = wish.to.partition(":")
    try:
        text = str(ipaddress.ip_address(wish.to))
    except ValueError:
        vm = state.vm(name)
        if vm.vpc != sender.vpc:
            what = f"{vm.name} is in VPC {vm.vpc!r}, {sender.name} in {sender.vpc!r}"
            raise UsageError(what, "--to", "", "give the address if you mean it") from None
        if not given:
            return vm, _address_of(vm, wish.ip or _common_version(sender, vm))
        try:
            text = str(ipaddress.ip_address(given))
        except ValueError:
            raise UsageError(f"{given!r} is not an address", "--to") from None
        if text not in vm.addresses + vm.aliases:
            raise UsageError(f"{vm.name} has no address {text}", "--to") from None
        return vm, text
    if wish.ip is not None and ipaddress.ip_address(text).version != wish.ip:
        raise UsageError(f"{text} is not an IPv{wish.ip} address", "--to")
    owners = [vm for vm in state.vms if vm.vpc == sender.vpc and text in vm.addresses + vm.aliases]
    return (owners[0] if owners else None), text


def _common_version(one: LabVm, other: LabVm) -> int:
    """The lowest IP version both have."""
    versions = [{ipaddress.ip_address(a).version for a in vm.addresses} for vm in (one, other)]
    return min(versions[0] & versions[1], default=4)


def _address_of(vm: LabVm, version: int) -> str:
    for text in vm.addresses:
        if ipaddress.ip_address(text).version == version:
            return text
    raise UsageError(f"{vm.name} has no IPv{version} address")


def _worker(state: LabState, node: str, options: dict[str, object]) -> Process:
    """Start a worker on a node; it is ready when this returns."""
    # -S -E: the worker needs none of our packages, and starts in half the time without them.
    printed = run_on(state, node, [sys.executable, "-S", "-E", str(WORKER), json.dumps(options)])
    pid = int(printed)
    return Process(pid=pid, started=start_time(pid) or "")


def _end(process: Process) -> None:
    if start_time(process.pid) == process.started:
        try:
            os.kill(process.pid, signal.SIGTERM)
        except ProcessLookupError:
            return
