"""The lab that is measured on, and which core does what on it.

The thread that forwards (ovs-vswitchd's first one: the userspace datapath polls veth in it) has a core to itself as far
as that goes; what sends, receives, colors and measures has the others.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from vtrace.costs.readings import vswitchd_pid
from vtrace.costs.tasks import Task
from vtrace.errors import UsageError
from vtrace.lab import build
from vtrace.lab import state as lab_state
from vtrace.lab.state import LabServer, LabState

TOPOLOGY = Path(__file__).with_name("topology.toml")
# The measured traffic, and what of the measured VPC tasks may color beside it.
SOURCE, DESTINATION, BESIDE = "blue-a", "blue-b", "blue-d"
SINK_PORT, ECHO_PORT, TASK_PORT = 9000, 9001, 7000
SOURCES = tuple(f"red-a{n}" for n in range(1, 5))
DESTINATIONS = tuple(f"red-b{n}" for n in range(1, 8))
# So many tasks can share a server (docs/limits.md).
MOST_TASKS = 16

Progress = Callable[[str], None]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A lab, and its servers by name.

    Attributes:
        forwarding: the core of the threads that forward; others: all other cores, or the same where there is one.
    """

    state: LabState
    source: LabServer
    destination: LabServer
    forwarding: int
    others: tuple[int, ...]

    @property
    def servers(self) -> tuple[LabServer, ...]:
        return (self.source, self.destination)

    def namespace(self, node: str) -> str:
        """The network namespace of a node."""
        return lab_state.namespace(self.state.name, node)

    def address(self, vm: str) -> str:
        """A VM's first address."""
        return self.state.vm(vm).addresses[0]

    def pids(self) -> tuple[int, ...]:
        """The process ids of both ovs-vswitchd."""
        return tuple(vswitchd_pid(server) for server in self.servers)


def tasks(count: int) -> tuple[Task, ...]:
    """So many tasks of one pair each; or, where more than can be at once are asked for, as many as can, with that many
    pairs together.

    All pairs differ in source, destination or port.
    """
    found = []
    for number in range(min(count, MOST_TASKS)):
        pairs = count // MOST_TASKS + (number < count % MOST_TASKS) if count > MOST_TASKS else 1
        if pairs > len(DESTINATIONS):
            raise ValueError(f"{count} pairs are more than this lab has")
        first = number if pairs == 1 else 0
        ends = tuple(DESTINATIONS[(first + n) % len(DESTINATIONS)] for n in range(pairs))
        found.append(Task(sources=(SOURCES[number % len(SOURCES)],), destinations=ends, dport=TASK_PORT + number))
    return tuple(found)


@contextlib.contextmanager
def setting(name: str | None, say: Progress) -> Iterator[Setting]:
    """The lab of that name, or one of its own, that goes at the end; its threads on their cores.

    Raises:
        UsageError: the lab has not the topology that is needed.
    """
    own = name is None
    chosen = name or f"c{secrets.token_hex(3)}"
    state = build.up(chosen, str(TOPOLOGY), say) if own else lab_state.require(chosen)
    try:
        names = {vm.name for vm in state.vms}
        if not {SOURCE, DESTINATION, BESIDE, *SOURCES, *DESTINATIONS} <= names:
            raise UsageError(f"lab {chosen!r} is of another topology", "--lab", "", f"vtrace lab up {TOPOLOGY}")
        servers = {server.name: server for server in state.servers}
        cores = sorted(os.sched_getaffinity(0))
        found = Setting(
            state=state,
            source=servers[state.vm(SOURCE).server],
            destination=servers[state.vm(DESTINATION).server],
            forwarding=cores[-1],
            others=tuple(cores[:-1] or cores),
        )
        _pin(found)
        yield found
    finally:
        if own:
            build.down(chosen)


def _pin(found: Setting) -> None:
    for pid in found.pids():
        for thread in map(int, os.listdir(f"/proc/{pid}/task")):
            os.sched_setaffinity(thread, (found.forwarding,) if thread == pid else found.others)
    os.sched_setaffinity(0, found.others)
