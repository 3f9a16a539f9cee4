"""How functions are compiled to machine code (numba), and where that is kept from one process to the next.

Numba keeps what it compiled beside the source file of each function, and looks only whether that file is newer: it
goes on to use what was compiled with an old version of another file that the function calls. So here the folder is
named after all sources that belong together.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")

_PREFIX = "compiled-"
_SOURCES = Path(__file__).parent / "reconstruct"


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compiles a function at its first call, free of the interpreter's lock; later processes load what was compiled."""
    made: Callable[P, R] = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    return made


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Compiles a small function into each of its callers."""
    made: Callable[P, R] = numba.njit(inline="always", nogil=True, error_model="numpy")(function)
    return made


def _folder() -> Path | None:
    """Where compiled code is kept: in the package if that can be written to, else in the user's cache."""
    digest = hashlib.sha256()
    for path in sorted(_SOURCES.glob("*.py")):
        digest.update(path.read_bytes())
    name = _PREFIX + digest.hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vtrace"
    for parent in (_SOURCES / "__pycache__", cache):
        try:
            (parent / name).mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(parent / name, os.W_OK):
            for other in parent.glob(f"{_PREFIX}*"):
                if other.name != name:
                    shutil.rmtree(other, ignore_errors=True)
            return parent / name
    return None


if "NUMBA_CACHE_DIR" not in os.environ and (folder := _folder()) is not None:
    numba.config.CACHE_DIR = str(folder)
