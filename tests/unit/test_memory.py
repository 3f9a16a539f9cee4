"""Memory: freed blocks that a process of its own keeps, and the part that each of several may take."""

from __future__ import annotations

import resource
import subprocess
import sys

_PROGRAM = """
import ctypes, re, sys
from pathlib import Path
from vtrace.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
C = ctypes.CDLL(None)
C.malloc.restype, C.malloc.argtypes, C.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
block = C.malloc(16 << 20)
ctypes.memset(block, 1, 16 << 20)
C.free(block)
print(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def _resident_kb(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True, timeout=30)
    return int(done.stdout)


def test_freed_blocks_stay_with_the_process() -> None:
    assert _resident_kb("keep") - _resident_kb("give") > 12 << 10


_DIVIDED = """
import resource, sys
from vtrace.memory import divide_memory
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]), resource.RLIM_INFINITY))
divide_memory(4)
print(resource.getrlimit(resource.RLIMIT_DATA)[0])
"""


def _limit_after(limit: int) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _DIVIDED, str(limit)], capture_output=True, text=True, check=True, timeout=30
    )
    return int(done.stdout)


def test_processes_take_their_part_of_what_is_left() -> None:
    # Beside what it has, which is a few megabytes.
    assert 1 << 38 < _limit_after(1 << 40) < (1 << 38) + (1 << 30)


def test_no_limit_stays_none() -> None:
    assert _limit_after(resource.RLIM_INFINITY) == resource.RLIM_INFINITY
