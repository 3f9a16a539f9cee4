"""Instructions that ovs-vswitchd takes for a packet: a figure that no other program on the machine moves.

Where the processor does not count them (a virtual machine), Valgrind does: one server's ovs-vswitchd is started again
under it, some fifty times slower. Packets stay on that server: tunnels need more than is put back here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from vtrace.costs import children, readings, slices, switching
from vtrace.costs.forwarding import FLOWS, SIZE_BYTES
from vtrace.costs.running import SETTLE_S
from vtrace.costs.setting import SINK_PORT, SOURCE, Progress, Setting, tasks
from vtrace.errors import CannotWorkError
from vtrace.lab.programs import ProgramError, node_command, node_environment, run_on
from vtrace.lab.state import LabServer, LabState

NEIGHBOR = "blue-c"
WARM_S = 3.0
STOP_TIMEOUT_S = 10.0
START_TIMEOUT_S = 60.0
_SUMMARY = re.compile(r"^(?:summary|totals): (\d+)", re.M)


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """Instructions of the thread that forwards, and packets that arrived, in a slice."""

    label: str
    instructions: int
    packets: int
    entries: int

    @property
    def per_packet(self) -> float:
        return self.instructions / max(1, self.packets)


def available() -> bool:
    """Whether Valgrind is installed."""
    return all(shutil.which(name) for name in ("valgrind", "callgrind_control"))


def count(setting: Setting, folder: Path, length: int, seconds: float, say: Progress) -> list[Counted]:
    """Slices with and without a task that colors others. The lab's tunnels do not work afterwards.

    Raises:
        CannotWorkError: ovs-vswitchd does not work under Valgrind.
    """
    here = setting.address(NEIGHBOR)
    there = {"namespace": setting.namespace(NEIGHBOR), "address": here}
    ends = {"namespace": setting.namespace(SOURCE), "source": setting.address(SOURCE), "destination": here}
    cores = setting.others
    task = tasks(1)[0]
    found = []
    with contextlib.ExitStack() as stack:
        pid = stack.enter_context(_under_valgrind(setting.state, setting.source, folder))
        os.sched_setaffinity(pid, (setting.forwarding,))
        sink = stack.enter_context(children.stream(folder, cores, {"role": "sink", "dport": SINK_PORT, **there}))
        sends = {
            "role": "flood",
            "dport": SINK_PORT,
            "flows": FLOWS,
            "ttls": [64],
            "size": SIZE_BYTES,
        }
        # Equal bursts: what the thread does each time that it wakes up is shared by as many packets.
        stack.enter_context(children.stream(folder, cores, {**sends, **ends, "follows": str(sink.path)}))
        switch = stack.enter_context(switching.agents(setting, "color", (task,)))
        is_on = False
        # What starts anew takes instructions that are no packet's.
        time.sleep(WARM_S)
        for label in slices.order(length):
            if (label == "B") != is_on:
                is_on = label == "B"
                (switch.on if is_on else switch.off)()
                time.sleep(2 * SETTLE_S)
            found.append(_slice(setting, sink, pid, folder, label, seconds))
            say(f"{label}: {found[-1].per_packet:,.0f} instructions a packet, {found[-1].packets} packets")
    return found


def _slice(setting: Setting, sink: children.Stream, pid: int, folder: Path, label: str, seconds: float) -> Counted:
    entries = sum(readings.ours(setting.state, server).length for server in setting.servers)
    _dump(pid)
    _take(folder)
    before = sink.counts()[0]
    time.sleep(seconds)
    packets = sink.counts()[0] - before
    _dump(pid)
    return Counted(label=label, instructions=_take(folder), packets=packets, entries=entries)


def _dump(pid: int) -> None:
    """Lets Valgrind write what was counted since the last time, and begin again."""
    subprocess.run(["callgrind_control", "-d", str(pid)], capture_output=True, check=True, timeout=STOP_TIMEOUT_S)


def _take(folder: Path) -> int:
    """What was counted of the first thread; the files go."""
    found = 0
    for path in folder.glob("callgrind.*"):
        if path.name.endswith("-01"):
            found += sum(map(int, _SUMMARY.findall(path.read_text())[:1]))
        path.unlink()
    return found


@contextlib.contextmanager
def _under_valgrind(state: LabState, server: LabServer, folder: Path) -> Iterator[int]:
    """The server's ovs-vswitchd, started again under Valgrind; its process id. Ended at the end."""
    entries = _entries(state, server)
    run_on(state, server.name, ["ovs-appctl", "-t", "ovs-vswitchd", "exit"])
    pidfile = Path(server.rundir, "ovs-vswitchd.pid")
    _until(lambda: not pidfile.exists(), "ovs-vswitchd does not end", STOP_TIMEOUT_S)
    valgrind = ["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={folder}/callgrind.%p"]
    daemon = [
        "ovs-vswitchd",
        f"unix:{server.rundir}/db.sock",
        "--disable-system",
        f"--pidfile={pidfile}",
        "-vconsole:off",
    ]
    with (folder / "valgrind.log").open("wb") as log:
        process = subprocess.Popen(
            node_command(state, server.name, [*valgrind, *daemon]),
            env=node_environment(state, server.name),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _until(pidfile.exists, "ovs-vswitchd does not start under Valgrind", START_TIMEOUT_S)
        # ovn-controller writes its entries anew.
        _until(lambda: _entries(state, server) >= entries, "the entries do not come back", START_TIMEOUT_S)
        yield int(pidfile.read_text())
    finally:
        children.end(process)


def _entries(state: LabState, server: LabServer) -> int:
    """How many entries the bridge has; none as long as it does not answer."""
    try:
        text = run_on(state, server.name, ["ovs-ofctl", "-O", "OpenFlow13", "dump-aggregate", server.bridge])
    except ProgramError:
        return 0
    found = re.search(r"flow_count=(\d+)", text)
    return int(found[1]) if found else 0


def _until(holds: Callable[[], bool], what: str, timeout_s: float) -> None:
    ends_s = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > ends_s:
            raise CannotWorkError(what, "", f"waited {timeout_s:g} s", "")
        time.sleep(0.1)
