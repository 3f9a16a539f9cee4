"""Network and UTS namespaces of a lab, and the processes that live in them.

Everything of a lab runs in one of its network namespaces, so that is how its processes are found: never by
name (another lab, or the machine's own Open vSwitch, runs programs of the same names).
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from vtrace.errors import CannotWorkError
from vtrace.lab import state as lab_state
from vtrace.lab.programs import ProgramError, run

NETNS_DIRECTORY = Path("/run/netns")
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWNET = 0x40000000
MS_REC, MS_SLAVE = 0x4000, 0x80000
TERM_GRACE_S = 3.0

_libc = ctypes.CDLL(None, use_errno=True)


def enter_network(name: str, node: str) -> None:
    """Move the calling thread into a node's network namespace."""
    _set_namespace(NETNS_DIRECTORY / lab_state.namespace(name, node), CLONE_NEWNET)


def enter(name: str, node: str) -> None:
    """Move the calling process into a node: its network, its UTS name, and a /sys that shows its links.

    Where / is no mount point (under chroot) mounts can't be kept to ourselves: /sys then stays as it is.
    """
    enter_network(name, node)
    _set_namespace(lab_state.uts_file(name, node), CLONE_NEWUTS)
    _check(_libc.unshare(CLONE_NEWNS), "unshare")
    if _libc.mount(b"none", b"/", None, MS_REC | MS_SLAVE, None) == 0:
        _libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None)


def _set_namespace(path: Path, kind: int) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CannotWorkError("the node's namespace can't be entered", str(path), str(error)) from error
    try:
        _check(_libc.setns(descriptor, kind), str(path))
    finally:
        os.close(descriptor)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise CannotWorkError("the node's namespace can't be entered", what, os.strerror(number))


def create(name: str, nodes: Iterable[str], keep_fds: Iterable[int]) -> None:
    """Make the network and UTS namespaces of all nodes.

    Args:
        name: of the lab.
        nodes: names.
        keep_fds: the lab's lock, inherited by every helper so that `down` waits for stragglers.
    """
    nodes, keep_fds = list(nodes), list(keep_fds)
    lines = [f"netns add {lab_state.namespace(name, node)}" for node in nodes]
    run(["ip", "-batch", "-"], text="\n".join(lines) + "\n", keep_fds=keep_fds)
    for node in nodes:
        mount_point = lab_state.uts_file(name, node)
        mount_point.parent.mkdir(parents=True, exist_ok=True)
        mount_point.touch()
        run(["unshare", f"--uts={mount_point}", "hostname", node], keep_fds=keep_fds)


def existing(name: str) -> list[str]:
    """Names of the network namespaces of a lab, whatever became of its `up`."""
    prefix = lab_state.namespace_prefix(name)
    try:
        return sorted(entry.name for entry in NETNS_DIRECTORY.iterdir() if entry.name.startswith(prefix))
    except FileNotFoundError:
        return []


def processes(name: str) -> list[int]:
    """Ids of all processes that have a thread group leader in a network namespace of the lab."""
    wanted = set()
    for namespace in existing(name):
        status = (NETNS_DIRECTORY / namespace).stat()
        wanted.add((status.st_dev, status.st_ino))
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            status = (entry / "ns" / "net").stat()
        except OSError:  # it ended meanwhile, or is a zombie
            continue
        if (status.st_dev, status.st_ino) in wanted:
            found.append(int(entry.name))
    return found


def end_processes(name: str) -> None:
    """End all processes of a lab: TERM, and KILL for those that don't listen."""
    deadline = time.monotonic() + TERM_GRACE_S
    told: set[int] = set()
    while remaining := processes(name):
        late = time.monotonic() > deadline
        if time.monotonic() > deadline + TERM_GRACE_S:
            raise CannotWorkError("processes of the lab don't end", "", " ".join(map(str, remaining)))
        for pid in remaining:
            if late or pid not in told:
                told.add(pid)
                _signal(pid, signal.SIGKILL if late else signal.SIGTERM)
        time.sleep(0.02)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def remove(name: str) -> None:
    """Remove all network and UTS namespaces of a lab."""
    base = str(lab_state.directory(name)) + "/"
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount_point in reversed([mount for mount in mounts if mount.startswith(base)]):
        run(["umount", mount_point])
    for namespace in existing(name):
        try:
            run(["ip", "netns", "delete", namespace])
        except ProgramError:  # a killed `ip netns add` leaves a file that is no mount
            (NETNS_DIRECTORY / namespace).unlink(missing_ok=True)


def start_time(pid: int) -> str | None:
    """When a process began, in clock ticks since boot (tells it from a later one of the same id); None if gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
