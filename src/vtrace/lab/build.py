"""`lab up` and `lab down`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import msgspec

from vtrace.errors import CannotWorkError
from vtrace.lab import bgp, bridges, daemons, links, listeners, logical, namespaces, plan, programs, readiness, releases
from vtrace.lab import state as lab_state
from vtrace.lab.declared import Topology
from vtrace.lab.lock import locked
from vtrace.lab.programs import Patience
from vtrace.lab.state import LabState
from vtrace.lab.topology import read

Progress = Callable[[str], None]

UP_TIMEOUT_S = 55.0
"""`lab up` is done or has given up after that."""


def up(name: str, source: str | None, progress: Progress, release: Sequence[str] | None = None) -> LabState:
    """Build a lab and wait until it forwards. Leaves nothing when it fails.

    Args:
        name: of the lab.
        source: topology file, or None for the default.
        progress: told in words what is being done.
        release: NODE=FOLDER words (`releases.chosen`).

    Raises:
        UsageError: the topology or a release is wrong.
        CannotWorkError: not root, programs missing, already up, or it did not come up (says what was waited for).
    """
    topology, file_name = read(source)
    folders = releases.chosen(release, ["central", *(server.name for server in topology.servers)])
    programs.require_root()
    also = {**programs.OVN_PACKAGES, **(bgp.PACKAGES if topology.bgps else {})}
    programs.require_programs(also if topology.kind == "ovn" else {})
    with Patience(UP_TIMEOUT_S) as patience, locked(name) as lock:
        if lab_state.load(name) is not None:
            raise CannotWorkError(f"lab {name!r} is up already", "", "", f"vtrace lab down --lab {name}")
        if lab_state.read_state(name) is not None or namespaces.existing(name):
            progress("removing what an interrupted `lab up` left")
            _clear(name)
        started = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        state = msgspec.structs.replace(plan.make_state(name, topology, file_name, started), releases=folders)
        try:
            lab_state.write_state(state)
            _build(state, topology, lock, patience, progress)
            state = msgspec.structs.replace(state, phase="up")
            lab_state.write_state(state)
        except BaseException:  # also the SystemExit of a signal: half a lab helps nobody
            progress("removing the unfinished lab")
            _clear(name)
            _remove_directory(name)
            raise
    return state


def _build(state: LabState, topology: Topology, lock: int, patience: Patience, progress: Progress) -> None:
    progress(f"making {len(state.nodes)} nodes and {len(state.wires)} wires")
    namespaces.create(state.name, [node.name for node in state.nodes], [lock])
    links.create(state, topology, [lock])
    releases.write_programs(state)
    patience.left_s()
    if state.kind == "plain":
        _start_plain(state, topology, progress)
    else:
        _start_ovn(state, topology, patience, progress)
    progress("waiting for every VM to reach every other of its VPC")
    readiness.wait_until_forwarding(state, topology, patience)


def _start_plain(state: LabState, topology: Topology, progress: Progress) -> None:
    progress("starting Open vSwitch")
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda server: daemons.start_switch(state, server), state.servers))
        list(pool.map(lambda node: listeners.start_listeners(state, node), listeners.listening_nodes(state)))
    progress("writing the bridges' entries")
    bridges.write_entries(state, topology)
    bridges.write_inventory(state)


def _start_ovn(state: LabState, topology: Topology, patience: Patience, progress: Progress) -> None:
    progress("starting Open vSwitch and OVN")
    with ThreadPoolExecutor(max_workers=4) as pool:
        central = pool.submit(daemons.start_central, state)
        switches = [pool.submit(daemons.start_switch, state, server) for server in state.servers]
        central.result()
        written = pool.submit(logical.write, state, topology)
        for switch in switches:
            switch.result()
        written.result()
        list(pool.map(lambda server: daemons.start_controller(state, server), state.servers))
        list(pool.map(lambda node: listeners.start_listeners(state, node), listeners.listening_nodes(state)))
    progress("waiting for OVN to bind the VMs' ports")
    readiness.wait_until_configured(state, patience)
    bgp.start(state, topology)
    readiness.wait_until_healthy(state, topology, patience)


def down(name: str) -> bool:
    """Remove all of a lab, in whatever state it is.

    Returns:
        Whether there was anything.

    Raises:
        CannotWorkError: not root, or something could not be removed.
    """
    if not lab_state.directory(name).exists() and not namespaces.existing(name):
        return False
    programs.require_root()
    if os.getpid() in namespaces.processes(name):
        raise CannotWorkError("`lab down` can't run on a node of the lab it removes", "", "", "leave the node first")
    with locked(name):
        _clear(name)
        _remove_directory(name)
    return True


def _clear(name: str) -> None:
    """End the lab's processes and remove all but its directory."""
    namespaces.end_processes(name)
    namespaces.remove(name)
    path = lab_state.directory(name)
    for entry in path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _remove_directory(name: str) -> None:
    """Remove the lab's directory, and its parents when they are empty now."""
    path = lab_state.directory(name)
    path.rmdir()
    for parent in (path.parent, path.parent.parent):
        if parent.name not in ("lab", "vtrace"):
            return
        try:
            parent.rmdir()
        except OSError:  # another lab is in it
            return
