"""Runs one of Open vSwitch's own programs with a time limit."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence

import anyio
import msgspec

from vtrace.errors import CannotWorkError


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """What a program left behind."""

    status: int
    stdout: str
    stderr: str


async def run_program(argv: Sequence[str], *, stdin: str = "", timeout_s: float = 10.0) -> Finished:
    """Runs `argv` to its end, whatever its exit status.

    Raises:
        CannotWorkError: the program is not installed, or did not end within `timeout_s` (it is killed then).
    """
    try:
        # A file and no pipe: a program that ends before it has read its input is no error of ours.
        with tempfile.TemporaryFile() as given, anyio.fail_after(timeout_s):
            given.write(stdin.encode())
            given.seek(0)
            done = await anyio.run_process(
                list(argv), stdin=given, check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
    except FileNotFoundError as error:
        raise CannotWorkError(
            f"the program {argv[0]} is missing",
            why=str(error),
            next_step="Install Open vSwitch's tools (Debian: openvswitch-switch)",
        ) from error
    except TimeoutError as error:
        raise CannotWorkError(
            f"{argv[0]} did not end within {timeout_s:g} s",
            where=" ".join(argv[1:])[:200],
            next_step="Look at the load of ovs-vswitchd and ovsdb-server, then try again",
        ) from error
    return Finished(
        status=done.returncode,
        stdout=done.stdout.decode("utf-8", "replace"),
        stderr=done.stderr.decode("utf-8", "replace"),
    )
