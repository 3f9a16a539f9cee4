"""How the C library's allocator treats memory that was freed: for programs that read great files, part by part."""

from __future__ import annotations

import ctypes
import re
import resource
from pathlib import Path

# Parameters of mallopt(3). Blocks below the threshold are kept when freed; it can't be higher (HEAP_MAX_SIZE / 2).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BLOCK_BYTES = 32 << 20
_KEPT_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """Lets this process use memory again that it freed, rather than give it back and ask for it anew.

    Memory from the system is cleared when it is first touched: for arrays of some megabytes, made and dropped over and
    over, that takes a fifth of the time. Does nothing where the C library has no `mallopt` (it is glibc's).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def divide_memory(processes: int) -> None:
    """Lets this process take its part of what may still be taken (RLIMIT_DATA): so many processes do the same."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY:
        used = bytes_told("self/status")["VmData"]
        resource.setrlimit(resource.RLIMIT_DATA, (used + max(soft - used, 0) // processes, hard))


def bytes_told(file: str) -> dict[str, int]:
    """Fields of a file below /proc that are kilobytes, in bytes (proc(5): PID/status, PID/smaps_rollup)."""
    text = Path("/proc", file).read_text()
    return {name: 1024 * int(kilobytes) for name, kilobytes in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.M)}
