"""The declared topology of a lab: a TOML file, decoded strictly and checked as a whole.

Every error names the file and the key. docs/lab.md has the format.
"""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path

import msgspec

from vtrace.errors import UsageError
from vtrace.lab.checks import problems
from vtrace.lab.declared import Topology

DEFAULT = "default"
BARE_NAME = re.compile(r"[A-Za-z0-9_-]+")


def read(source: str | None) -> tuple[Topology, str]:
    """Read a topology file, or one that ships.

    Args:
        source: path of a TOML file, the bare name of one that ships, or None for the default topology.

    Returns:
        The checked topology and the name of its file.

    Raises:
        UsageError: the file can't be read, or says something that can't be built.
    """
    if source is None or source in shipped():
        name = f"{source or DEFAULT}.toml"
        return parse((resources.files("vtrace.lab") / "topologies" / name).read_text(), name), name
    try:
        text = Path(source).read_text()
    except (OSError, UnicodeDecodeError) as error:
        bare = BARE_NAME.fullmatch(source) is not None
        hint = f"those that ship are {' '.join(shipped())}" if bare else ""
        raise UsageError("the topology file can't be read", source, str(error), hint) from error
    return parse(text, source), source


def shipped() -> list[str]:
    """The names of the topologies that ship."""
    files = (resources.files("vtrace.lab") / "topologies").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def parse(text: str, file_name: str) -> Topology:
    """Decode and check the text of a topology file.

    Raises:
        UsageError: naming the file and the key.
    """
    try:
        topology = msgspec.convert(tomllib.loads(text), Topology)
    except tomllib.TOMLDecodeError as error:
        raise UsageError("the topology file is not TOML", file_name, str(error)) from error
    except msgspec.ValidationError as error:
        raise UsageError("the topology file has a wrong key or value", file_name, str(error)) from error
    for key, why in problems(topology):
        raise UsageError("the topology can't be built", f"{file_name}: {key}", why)
    return topology
