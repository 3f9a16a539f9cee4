"""The command line: any words, up to where a command would begin to work."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator

from fuzzing import Target, or_refused

from vtrace.present.cli import diagnose, main
from vtrace.task import admission


@contextlib.contextmanager
def _helped() -> Iterator[None]:
    """--help and --version end the program with 0, and nothing else does."""
    try:
        yield
    except SystemExit as ended:
        if ended.code:
            raise AssertionError(f"it ended with {ended.code!r}") from ended


def words(data: bytes) -> None:
    """Arguments, divided by NUL as a kernel hands them over; what is no text comes as surrogates."""
    given = [os.fsdecode(word) for word in data.split(b"\0")]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main._require_text(given)
        with _helped():
            arguments = main.parser().parse_args(given)
            if arguments.command == "diagnose":
                admission.check(diagnose._spec(arguments))


def told(data: bytes) -> None:
    """Wrong usage, as it is told: in words and as a document."""
    given = ["reconstruct", "/dev/null/none", *(os.fsdecode(word) for word in data.split(b"\0"))]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), _helped():
        assert main.main(given) == 2


_SEEDS = (
    b"diagnose\0--from\0a,b\0--to\010.0.0.1\0--proto\0tcp\0--dport\x0080\0--tcp-flags\0+syn-ack\0--packets\x0010\0--timeout\x0020",
    b"diagnose\0--from\0blue/fd00::1\0--to\0c\0--icmp-type\x008\0--direction\0both\0--ip\x006\0--json",
    b"reconstruct\0f\0--cores\x002\0--task\0x",
    b"generate\0--out\0f\0--servers\x005\0--vpcs\x003",
    b"lab\0up\0--lab\0x",
    b"bench\0faults\0--cases\x003",
)
_WORDS = (
    b"\0--packets\0",
    b"99999999999999999999",
    b"9" * 4400,
    b"nan",
    b"inf",
    b"-1",
    b"1e309",
    b"\xff",
    b"--json\0",
    b"\0--",
    b"+-+",
)
TARGETS = (
    Target("command_words", or_refused(words), _SEEDS, _WORDS, 6144),
    Target("command_told", told, (b"--json", b"--cores\0-1", b"--nope"), _WORDS, 6144),
)
