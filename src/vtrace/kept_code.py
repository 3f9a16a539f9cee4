"""Where compiled code is kept from one process to the next, and whether all of it is there.

Numba keeps what it compiled beside the source file of each function, and looks only whether that file is newer: it
goes on to use what was compiled with an old version of another file that the function calls. So the folder is named
after all sources that belong together. Apart from `compiled`, since importing numba takes a while.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

_PREFIX = "compiled-"
_WHOLE = "whole"
_SOURCES = Path(__file__).parent / "reconstruct"


@cache
def folder() -> Path | None:
    """The folder: in the package if that can be written to, else in the user's cache; None if neither can be."""
    digest = hashlib.sha256()
    for path in sorted(_SOURCES.glob("*.py")):
        source = path.read_bytes()
        # What is compiled, and the numbers that it was compiled with.
        if path.name == "layout.py" or b"from vtrace.compiled import" in source:
            digest.update(source)
    name = _PREFIX + digest.hexdigest()[:16]
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vtrace"
    for parent in (_SOURCES / "__pycache__", user):
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


def is_whole() -> bool:
    """Whether all that is needed was compiled before, so that nobody has to wait for it."""
    found = folder()
    return found is not None and (found / _WHOLE).exists()


def make_whole(say: Callable[[str], None]) -> None:
    """Compiles what is not there yet, and says so first. Nothing else runs meanwhile: nothing may be colored then."""
    if not is_whole():
        say("compiling what reconstructs paths (half a minute, once)")
        importlib.import_module("vtrace.reconstruct.warm").warm()


def note_whole() -> None:
    """Notes that all that is needed is compiled now."""
    if (found := folder()) is not None:
        (found / _WHOLE).touch()
