"""What the kernel and Open vSwitch count: processor time, memory, cached flows and their masks, our entries."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from vtrace.color import registry
from vtrace.lab.programs import run_on
from vtrace.lab.state import LabServer, LabState
from vtrace.memory import bytes_told
from vtrace.ovs.flowtext import parse_dump

_OURS = f"cookie=0x{registry.COOKIE_MAGIC << 48:x}/0x{registry.COOKIE_MAGIC_MASK:x}"
# Values of a flow's key: those of fields, and those of Geneve options, which have no name.
_VALUE = re.compile(r"([a-z_0-9]+[(=])(?![a-z_0-9]+=|\{)([^(),={}]*)|(0x[0-9a-f]+)(?=[,/}])")
_COUNTED = re.compile(r", packets:(\d+), ")


class Ours(msgspec.Struct, frozen=True, kw_only=True):
    """Our entries on a bridge: by role's name how many, and how many packets those that color have taken."""

    entries: dict[str, int]
    colored: int

    @property
    def length(self) -> int:
        return sum(self.entries.values())


class CachedFlow(msgspec.Struct, frozen=True, kw_only=True):
    """A cached flow: its key and actions as text, and the packets it took."""

    key: str
    actions: str
    packets: int


class Cached(msgspec.Struct, frozen=True, kw_only=True):
    """The datapath's cache.

    Attributes:
        flows: by their ids; missed: packets so far that no cached flow took, each of which is an upcall.
    """

    flows: dict[str, CachedFlow]
    missed: int

    @property
    def masks(self) -> int:
        """How many different masks the flows have."""
        return len({mask(flow.key) for flow in self.flows.values()})

    @property
    def copying(self) -> int:
        """How many flows make copies for us."""
        return sum(f"rule_cookie=0x{registry.COOKIE_MAGIC:x}" in flow.actions for flow in self.flows.values())

    def rebuilt(self, later: Cached, *which: str) -> int:
        """How many of the flows whose key has these texts were deleted since, whether they came again or not."""
        mine = {ufid: flow for ufid, flow in self.flows.items() if all(text in flow.key for text in which)}
        same = {ufid for ufid, flow in mine.items() if _goes_on(flow, later.flows.get(ufid))}
        return len(mine) - len(same)


def _goes_on(flow: CachedFlow, later: CachedFlow | None) -> bool:
    return later is not None and later.packets >= flow.packets and mask(later.key) == mask(flow.key)


def main_thread_ns(pid: int) -> int:
    """The processor time of a process's first thread, in ns (/proc/PID/task/TID/schedstat, proc(5))."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0])


def process_ns(pid: int) -> int:
    """The processor time of all threads that a process has now, in ns; one that ends meanwhile is left out."""
    found = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    return found


def children_ns(pid: int) -> int:
    """The processor time of the children that a process has waited for, in ns, to 10 ms (proc_pid_stat(5))."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[13]) + int(after_name[14])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> dict[str, float]:
    """PSS and RSS of a process, in MiB (/proc/PID/smaps_rollup, proc(5))."""
    told = bytes_told(f"{pid}/smaps_rollup")
    return {name.lower(): told[name] / (1 << 20) for name in ("Rss", "Pss")}


def vswitchd_pid(server: LabServer) -> int:
    """The process id of a server's ovs-vswitchd."""
    return int(Path(server.rundir, "ovs-vswitchd.pid").read_text())


def ours(state: LabState, server: LabServer) -> Ours:
    """Our entries on a server's bridge, of all runs, by an ordinary `ovs-ofctl dump-flows`."""
    words = ["ovs-ofctl", "-O", "OpenFlow13", "--no-names", "dump-flows", server.bridge, _OURS]
    entries = parse_dump(run_on(state, server.name, words))
    roles: Counter[str] = Counter(registry.Role(registry.role_of(e.cookie)).name.lower() for e in entries)
    colored = sum(e.n_packets for e in entries if registry.role_of(e.cookie) == registry.Role.COLOR)
    return Ours(entries=dict(roles), colored=colored)


def meters(state: LabState, server: LabServer) -> int:
    """How many meters a server's bridge has."""
    words = ["ovs-ofctl", "-O", "OpenFlow13", "dump-meters", server.bridge]
    return sum(line.lstrip().startswith("meter=") for line in run_on(state, server.name, words).splitlines())


def cached(state: LabState, server: LabServer) -> Cached:
    """The datapath's cached flows, and its misses."""
    dump = run_on(state, server.name, ["ovs-appctl", "dpctl/dump-flows", "-m"]).splitlines()
    shown = run_on(state, server.name, ["ovs-appctl", "dpctl/show"])
    missed = re.search(r"lookups: hit:\d+ missed:(\d+)", shown)
    return Cached(flows=parse_cached(dump), missed=int(missed[1]) if missed else 0)


def parse_cached(lines: Iterable[str]) -> dict[str, CachedFlow]:
    """The flows of `dpctl/dump-flows -m`, by their ids."""
    found = {}
    for line in lines:
        counted = _COUNTED.search(line)
        ufid, _, key = line.partition(", ")
        if counted is None or not ufid.startswith("ufid:"):
            continue
        actions = line.partition(" actions:")[2].partition(", dp-extra-info")[0]
        found[ufid] = CachedFlow(key=key[: key.index(", packets:")], actions=actions, packets=int(counted[1]))
    return found


def lookups(state: LabState, server: LabServer) -> dict[str, float]:
    """What `dpif-netdev/pmd-stats-show` says of the thread that forwards, by its own words."""
    text = run_on(state, server.name, ["ovs-appctl", "dpif-netdev/pmd-stats-show"])
    return {name.strip(): float(value) for name, value in re.findall(r"^  ([^:\n]+): ([\d.]+)$", text, re.M)}


def mask(key: str) -> str:
    """The mask of a datapath flow as `dpctl/dump-flows -m` writes it: the key with its values taken out.

    A field that is not matched is written with a mask of 0; one without a mask is matched whole.
    """
    return _VALUE.sub(_mask_of, key)


def _mask_of(found: re.Match[str]) -> str:
    if found.group(3):
        return ""
    return f"{found.group(1)}/{found.group(2).partition('/')[2]}"
