"""What benchmarks have in common on the command line: bounds of options, and the document of their figures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vtrace.errors import UsageError


def check_bounds(bounds: Sequence[tuple[str, float, float, float]]) -> None:
    """Checks (option, value, lowest, highest).

    Raises:
        UsageError: one is out of range.
    """
    for name, value, low, high in bounds:
        if not low <= value <= high:
            why = f"it has to be {low:,} to {high:,}"
            raise UsageError(f"{name} {value} is out of range", name, why, "See vtrace bench --help")


def check_folder(path: Path | None) -> None:
    """Before everything is measured, not after.

    Raises:
        UsageError: no file can be written there.
    """
    if path is not None and (path.is_dir() or not os.access(path.absolute().parent, os.W_OK)):
        why = "it is a folder" if path.is_dir() else "its folder is not there, or may not be written"
        raise UsageError("The figures can't be written", str(path), why, "Name a file in a folder that may be written")


def document(name: str, figures: Mapping[str, Any], command: str) -> dict[str, Any]:
    """The document of a benchmark's figures."""
    from vtrace.bench.figures import commit, machine

    return {"name": name, "figures": figures, "machine": machine(), "commit": commit(), "command": command}


def write(path: Path | None, found: Mapping[str, Any]) -> None:
    """Writes a document, if there is a path."""
    if path is not None:
        path.write_text(json.dumps(found, indent=1) + "\n")
