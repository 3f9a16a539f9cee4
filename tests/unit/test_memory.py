"""Freed memory that is kept: what a process of its own gives back to the system."""

from __future__ import annotations

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
