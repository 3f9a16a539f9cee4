"""Looks at one host: everything the judges need, read and nothing written.

Each reading may fail by itself; what failed stands in `failures` under the name of its check.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import anyio
import msgspec

from vtrace.agent.privileges import Need, needed
from vtrace.agent.standing import controller_place, controller_state
from vtrace.doctor.clock import Clock, read_clock
from vtrace.doctor.database import HostDatabase, read_database
from vtrace.errors import VTraceError
from vtrace.model.openflow import BridgeLayout, InstalledEntry, MeterStat
from vtrace.ovs import layout as ovs_layout
from vtrace.ovs.bridge import read_bridge
from vtrace.ovs.flowtext import is_decimal
from vtrace.ovs.named_ids import NamedIds
from vtrace.ovs.ofctl import OfCtl
from vtrace.ovs.program import run_program
from vtrace.ovs.unixctl import call, ctl_path

_T = TypeVar("_T")
# For so long the load is looked at.
LOAD_WINDOW_S = 1.0
# Of a server with many VIFs so many are asked about their offloads.
MOST_VIFS = 64


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How busy ovs-vswitchd is.

    Attributes:
        main_busy: the part of a core that its main thread took, 0 to 1.
        answer_s: how long it took to answer a question that costs nothing.
        overflows: packet-ins that the bridges' queue had no room for, a second in the last minute.
    """

    main_busy: float
    answer_s: float
    overflows: float


class Host(msgspec.Struct, kw_only=True):
    """One host as it was found."""

    server: str
    rundir: str
    bridge: str
    is_root: bool = True
    keeps: tuple[Need, ...] = ()
    failures: dict[str, VTraceError] = {}
    database: HostDatabase | None = None
    tool_version: str = ""
    switch_version: str = ""
    controller_version: str = ""
    controller_state: str = ""
    layout: BridgeLayout | None = None
    named: NamedIds | None = None
    entries: tuple[InstalledEntry, ...] = ()
    meter_features: str = ""
    meters: tuple[MeterStat, ...] = ()
    drops_fragments: bool = False
    dp_features: dict[str, str] = {}
    ct_used: int = -1
    ct_limit: int = -1
    long_packets: tuple[str, ...] = ()
    load: Load | None = None
    clock: Clock | None = None


async def examine(server: str, rundir: str, bridge: str) -> Host:
    """Reads a host. Dumps and questions only; the load is looked at for a second."""
    host = Host(server=server, rundir=rundir, bridge=bridge, is_root=os.geteuid() == 0)
    host.keeps = needed([rundir], [bridge])
    ofctl = OfCtl(os.path.join(rundir, f"{bridge}.mgmt"))
    host.tool_version = await _try(host, "programs", _tool_version, "")
    host.database = await _try(host, "database", lambda: read_database(rundir, bridge), None)
    host.switch_version = await _try(host, "ovs-vswitchd", lambda: _version(ctl_path(rundir)), "")
    await _openflow(host, ofctl)
    await _controller(host)
    await _datapath(host)
    host.load = await _try(host, "load", lambda: _load(rundir), None)
    host.clock = read_clock()
    return host


async def _try(host: Host, check: str, step: Callable[[], Awaitable[_T]], otherwise: _T) -> _T:
    try:
        return await step()
    except VTraceError as error:
        host.failures = {**host.failures, check: error}
        return otherwise


async def _tool_version() -> str:
    return last_word((await run_program(["ovs-ofctl", "--version"])).stdout)


async def _version(path: str) -> str:
    return last_word(await call(path, "version"))


def last_word(text: str) -> str:
    """The version in "ovs-vswitchd (Open vSwitch) 3.1.0" or the first line of several."""
    words = text.splitlines()[0].split() if text.strip() else []
    return words[-1] if words else ""


async def _openflow(host: Host, ofctl: OfCtl) -> None:
    """What the bridge's management socket tells."""

    async def look() -> None:
        host.meter_features = await ofctl.meter_features()
        host.meters = await ofctl.meters()
        host.drops_fragments = await ofctl.drops_fragments()
        host.entries = await ofctl.dump_entries(table=0)

    async def understand() -> None:
        facts = await read_bridge(host.rundir, host.bridge)
        host.named = NamedIds()
        host.layout = await ovs_layout.discover_on(ofctl, facts, host.named)
        for table in (host.layout.remote_output, host.layout.log_to_physical):
            host.entries += await ofctl.dump_entries(table=table)

    await _try(host, "openflow", look, None)
    if "openflow" not in host.failures:
        await _try(host, "layout", understand, None)


async def _controller(host: Host) -> None:
    host.controller_state = await controller_state(host.rundir)
    # What keeps it from answering is its state, judged by itself.
    with contextlib.suppress(VTraceError):
        place = await controller_place(host.rundir)
        host.controller_version = await _version(ctl_path(place, "ovn-controller")) if place else ""


async def _datapath(host: Host) -> None:
    async def look() -> None:
        path = ctl_path(host.rundir)
        lines = (await call(path, "dpif/show-dp-features", host.bridge)).splitlines()
        host.dp_features = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        host.ct_used = _number(await call(path, "dpctl/ct-get-nconns"))
        host.ct_limit = _number(await call(path, "dpctl/ct-get-maxconns"))

    await _try(host, "datapath", look, None)
    if host.database is not None and not host.database.is_userspace:
        host.long_packets = await _long_packets(host, host.database)


def _number(text: str) -> int:
    return int(text) if is_decimal(text.strip()) else -1


async def _long_packets(host: Host, database: HostDatabase) -> tuple[str, ...]:
    """VIFs whose packets may be longer than their MTU (ethtool(8)); none where that can't be told."""
    pid = _pid(host.rundir)
    found: list[str] = []
    if not pid or shutil.which("ethtool") is None or shutil.which("nsenter") is None:
        return ()
    for interface in [i for i in database.interfaces if i.logical][:MOST_VIFS]:
        argv = ["nsenter", f"--net=/proc/{pid}/ns/net", "ethtool", "-k", interface.name]
        text = (await run_program(argv)).stdout
        if any(f"{name}-segmentation-offload: on" in text for name in ("tcp", "generic")):
            found.append(interface.name)
    return tuple(found)


async def _load(rundir: str) -> Load:
    path = ctl_path(rundir)
    pid = _pid(rundir)
    before, began = _main_thread_s(pid), time.monotonic()
    await anyio.sleep(LOAD_WINDOW_S)
    busy = (_main_thread_s(pid) - before) / (time.monotonic() - began)
    asked = time.monotonic()
    await call(path, "version")
    answer_s = time.monotonic() - asked
    return Load(main_busy=busy, answer_s=answer_s, overflows=overflows(await call(path, "coverage/show")))


def _pid(rundir: str) -> int:
    """The process id of ovs-vswitchd; 0 where it can't be told."""
    try:
        return int(Path(rundir, "ovs-vswitchd.pid").read_text())
    except (OSError, ValueError):
        return 0


def _main_thread_s(pid: int) -> float:
    """CPU time of a process's main thread, in seconds (proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def overflows(coverage: str) -> float:
    """How often a packet-in found no room, a second over the last minute (`coverage/show`)."""
    for line in coverage.splitlines():
        if line.startswith("packet_in_overflow"):
            rates = re.findall(r"(?<=\s)([0-9]{1,15}(?:\.[0-9]{1,15})?)/sec", line)
            return float(rates[1]) if len(rates) > 1 else 0.0
    return 0.0
