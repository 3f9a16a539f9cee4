"""What a fuzz target is: bytes from outside go in, and either a value comes out or the documented error.

The same targets are run by hypothesis (`tests/unit/test_bad_input.py`, in `make unit`) and by atheris (`run.py`, in
`make fuzz`). `corpus/NAME/` holds inputs that once broke a target: both begin with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from vtrace.errors import VTraceError

HERE = Path(__file__).parent
CAPTURED = HERE.parent / "unit" / "ovs" / "data"


class Target(NamedTuple):
    """One reader.

    Attributes:
        name: also the folder of its corpus.
        read: takes bytes; raises nothing that it does not document.
        seeds: valid inputs; words: what inputs are made of, so that mutations get past the first check.
        most_bytes: of a mutated input.
    """

    name: str
    read: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    most_bytes: int = 4096

    def inputs(self) -> list[bytes]:
        """The valid inputs, and those that once broke it."""
        folder = HERE / "corpus" / self.name
        return [*self.seeds, *(path.read_bytes() for path in sorted(folder.glob("*")))]


def or_refused(read: Callable[[Any], object]) -> Callable[[Any], None]:
    """The reader, whose own errors are an answer like any other."""

    def held(given: Any) -> None:
        try:
            check(read(given))
        except VTraceError as error:
            # An error that can't be told is none: it is printed as text and as JSON.
            msgspec.json.encode(error.as_dict())
            str(error)

    return held


def of_text(read: Callable[[str], object]) -> Callable[[bytes], None]:
    """A target for a reader of text, as programs' output is decoded."""
    return or_refused(lambda data: read(data.decode("utf-8", "replace")))


def check(value: object) -> None:
    """Holds a struct, or several, against the types of their fields: readers promise those, and nobody asks again."""
    if isinstance(value, msgspec.Struct):
        msgspec.convert(msgspec.to_builtins(value, builtin_types=(bytes,)), type(value))
    elif isinstance(value, tuple | list):
        for item in value:
            check(item)
    elif isinstance(value, dict):
        for item in (*value.keys(), *value.values()):
            check(item)


def captured(*names: str) -> tuple[bytes, ...]:
    """What Open vSwitch once printed."""
    return tuple((CAPTURED / name).read_bytes() for name in names)


def lines(seeds: Sequence[bytes], count: int) -> tuple[bytes, ...]:
    """The first lines of texts."""
    return tuple(b"\n".join(seed.splitlines()[:count]) for seed in seeds)
