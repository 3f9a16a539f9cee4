"""Nodes whose Open vSwitch and OVN are of another release, out of a folder (`lab up --release NODE=FOLDER`).

Every program of Open vSwitch and OVN of such a node, daemons and tools alike, is one of the folder's: a short script of
the same name stands before all others in the node's PATH, and becomes the program under chroot. It makes a mount
namespace of its own first, in which the folder has the node's run directory, /proc, /dev and /sys: nothing is written
into the folder, and what was mounted is gone with the process. `scripts/release-folder.sh` makes a folder.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from vtrace.errors import UsageError
from vtrace.lab import state as lab_state
from vtrace.lab.state import LabState

ALL = "all"
VARIABLE = "VTRACE_LAB_RELEASE"
"""What `lab up` takes where no --release is given: NODE=FOLDER words."""
_PREFIXES = ("ovs-", "ovsdb-", "ovn-")
_PLACES = ("usr/bin", "usr/sbin", "usr/lib/openvswitch-switch")
_NEEDED = ("ovs-vswitchd", "ovsdb-server", "ovs-vsctl", "ovs-ofctl", "ovn-controller", "ovn-northd", "ovn-nbctl")
# Where a run directory can be shown without hiding what the programs need.
_SHOWN_UNDER = ("/run", "/tmp", "/var")

_SCRIPT = """#!/bin/sh
exec unshare --mount --propagation private -- /bin/sh -ec '
folder=$1 top=$2 rundir=$3 program=$4
shift 4
mount -t tmpfs -o mode=755 tmpfs "$folder$top"
mkdir -p "$folder$rundir"
mount --bind "$rundir" "$folder$rundir"
mount --rbind /proc "$folder/proc"
mount --rbind /dev "$folder/dev"
mount -t sysfs sysfs "$folder/sys"
exec chroot "$folder" "$program" "$@"
' sh {arguments} "$@"
"""


def chosen(words: Sequence[str] | None, nodes: Collection[str]) -> dict[str, str]:
    """The folder of each node that has one.

    Args:
        words: NODE=FOLDER each, later ones first; `all` stands for every node. None: those of VTRACE_LAB_RELEASE.
        nodes: the servers, and central.

    Raises:
        UsageError: there is no such node, or no release in the folder.
    """
    found: dict[str, str] = {}
    for word in os.environ.get(VARIABLE, "").split() if words is None else words:
        node, equals, folder = word.partition("=")
        if not equals or not folder or (node != ALL and node not in nodes):
            known = " ".join((ALL, *sorted(nodes)))
            raise UsageError(f"{word!r} is no NODE=FOLDER", "--release", f"nodes with daemons are {known}")
        _check(Path(folder))
        found.update(dict.fromkeys(nodes if node == ALL else (node,), str(Path(folder).resolve())))
    return found


def _check(folder: Path) -> None:
    have = programs_in(folder)
    missing = [name for name in _NEEDED if name not in have]
    if missing:
        raise UsageError(
            "the folder has no Open vSwitch and OVN",
            str(folder),
            f"{' '.join(missing)} not found",
            "scripts/release-folder.sh trixie makes one",
        )


def programs_in(folder: Path) -> dict[str, str]:
    """The programs of Open vSwitch and OVN in a folder: name to path, as the folder's own root sees it."""
    found: dict[str, str] = {}
    for place in _PLACES:
        directory = folder / place
        for path in sorted(directory.iterdir()) if directory.is_dir() else ():
            if path.name.startswith(_PREFIXES):
                found.setdefault(path.name, f"/{place}/{path.name}")
    return found


def programs_directory(state: LabState, node: str) -> Path:
    """Where the scripts of a node with a release are."""
    return lab_state.directory(state.name) / "releases" / node


def write_programs(state: LabState) -> None:
    """Write the scripts of all nodes that have a release.

    Raises:
        UsageError: the lab's directory is where it would hide the programs' own files.
    """
    for node, folder in state.releases.items():
        rundir = lab_state.node_directory(state.name, node)
        top = "/" + rundir.parts[1]
        if top not in _SHOWN_UNDER:
            raise UsageError(
                "a lab with --release can't be there", str(rundir), "", f"VTRACE_LAB_DIR under {' '.join(_SHOWN_UNDER)}"
            )
        rundir.mkdir(parents=True, exist_ok=True)
        directory = programs_directory(state, node)
        directory.mkdir(parents=True)
        for name, path in programs_in(Path(folder)).items():
            script = directory / name
            script.write_text(_SCRIPT.format(arguments=shlex.join((folder, top, str(rundir), path))))
            script.chmod(0o755)


def search_path(state: LabState, node: str, path: str) -> str:
    """The PATH of a node: its release's programs first."""
    return f"{programs_directory(state, node)}:{path}" if node in state.releases else path


def shown(releases: Mapping[str, str]) -> list[str]:
    """Lines for people."""
    return [f"{node}: programs of {folder}" for node, folder in sorted(releases.items())]
