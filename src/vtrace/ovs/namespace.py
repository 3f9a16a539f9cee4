"""The network namespace that ovs-vswitchd lives in, which may not be ours: of a lab, or of a container."""

from __future__ import annotations

import os

from vtrace.errors import CannotWorkError

# By run directory: whether it is another one. To tell takes privileges that are given up later.
_known: dict[str, bool] = {}


def pid_of(rundir: str) -> int:
    """The process id of ovs-vswitchd.

    Raises:
        OSError, ValueError: there is no pidfile, or none that can be read.
    """
    with open(os.path.join(rundir, "ovs-vswitchd.pid"), encoding="ascii") as file:
        return int(file.read(64))


def is_elsewhere(rundir: str) -> bool:
    """Whether it is another one than this process's. Found out once for each run directory.

    Raises:
        OSError, ValueError: it can't be told.
    """
    if rundir not in _known:
        theirs, ours = os.stat(f"/proc/{pid_of(rundir)}/ns/net"), os.stat("/proc/self/ns/net")
        _known[rundir] = (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino)
    return _known[rundir]


def entering(rundir: str) -> list[str]:
    """The words that begin a command which is to run there; none where that is here.

    Raises:
        OSError, ValueError: it can't be told.
        CannotWorkError: it may not be looked at.
    """
    try:
        elsewhere = is_elsewhere(rundir)
    except PermissionError as error:
        raise CannotWorkError("The network namespace of ovs-vswitchd can't be told", rundir, str(error)) from error
    return ["nsenter", f"--net=/proc/{pid_of(rundir)}/ns/net"] if elsewhere else []
