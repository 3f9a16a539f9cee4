"""What the answer needs is loaded so that it holds nothing up later."""

from __future__ import annotations

import subprocess
import sys

_CODE = """
import gc
from vtrace.reconstruct.warm import load
load()
frozen = gc.get_freeze_count()
load()
print(len(gc.get_objects()), frozen, gc.get_freeze_count() - frozen)
"""


def test_collections_do_not_look_at_what_was_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=True, timeout=300)
    looked_at, frozen, more = map(int, done.stdout.split())
    assert frozen > 100_000
    assert looked_at < frozen / 100
    assert more <= 0, "once in a process"
