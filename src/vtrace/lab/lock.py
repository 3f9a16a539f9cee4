"""One change of a lab at a time: a lock on the lab's directory.

Helpers that `up` runs in the root namespaces inherit the lock's descriptor. When `up` is killed, whoever comes
next therefore waits until the last of them has ended, and sees all they made.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vtrace.errors import CannotWorkError
from vtrace.lab import state as lab_state

LOCK_TIMEOUT_S = 20.0


@contextmanager
def locked(name: str, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[int]:
    """Hold the lock of a lab; makes its directory when there is none.

    Args:
        name: of the lab.
        timeout_s: how long to wait for another command on the same lab, in seconds.

    Yields:
        The descriptor that holds the lock.

    Raises:
        CannotWorkError: another command holds it all that time, or the directory can't be made.
    """
    path = lab_state.directory(name)
    deadline = time.monotonic() + timeout_s
    while True:
        descriptor = _try_lock(path)
        if descriptor is not None:
            break
        if time.monotonic() > deadline:
            raise CannotWorkError(f"another command is changing lab {name!r}", str(path), "", "try again later")
        time.sleep(0.02)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(path: Path) -> int | None:
    """Lock the directory; None if another has it, or removed it meanwhile."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:  # removed between the two calls
        return None
    except OSError as error:
        raise CannotWorkError("the lab's directory can't be made", str(path), str(error)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None
