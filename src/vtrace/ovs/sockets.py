"""Unix socket paths longer than the kernel takes, and what to say when nobody answers there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from vtrace.errors import CannotWorkError

# unix(7): sun_path has 108 bytes, the last one a NUL.
SUN_PATH_MAX = 107


@contextlib.contextmanager
def connectable(path: str) -> Iterator[str]:
    """A name of `path` that connect(2) takes, through /proc/self/fd if it is too long (as OVS does)."""
    if len(os.fsencode(path)) <= SUN_PATH_MAX:
        yield path
        return
    folder, name = os.path.split(path)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def unreachable(path: str, cause: OSError | str, daemon: str = "ovs-vswitchd") -> CannotWorkError:
    """The error for a socket of `daemon` that is not there or that nobody serves."""
    why = (cause.strerror or str(cause)) if isinstance(cause, OSError) else cause
    return CannotWorkError(
        f"can't reach {daemon} at its socket",
        where=path,
        why=why,
        next_step=f"Check that {daemon} runs, that the path is right and that you are root",
    )


def silent(path: str, timeout_s: float, doing: str, daemon: str = "ovs-vswitchd") -> CannotWorkError:
    """The error for a daemon that took the request and did not answer in time."""
    return CannotWorkError(
        f"{daemon} did not answer within {timeout_s:g} s",
        where=path,
        why=f"while waiting for {doing}",
        next_step=f"Look at the log and the load of {daemon}, then try again",
    )
