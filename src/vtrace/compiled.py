"""How functions are compiled to machine code (numba)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

from vtrace.kept_code import folder

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compiles a function at its first call, free of the interpreter's lock; later processes load what was compiled."""
    made: Callable[P, R] = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    return made


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Compiles a small function into each of its callers."""
    made: Callable[P, R] = numba.njit(inline="always", nogil=True, error_model="numpy")(function)
    return made


if "NUMBA_CACHE_DIR" not in os.environ and (kept := folder()) is not None:
    numba.config.CACHE_DIR = str(kept)
