"""Runs one of Open vSwitch's own programs with a time limit."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from typing import IO

import anyio
import msgspec

from vtrace.errors import CannotWorkError

# A million entries, more than any bridge was seen with.
OUTPUT_MAX_BYTES = 256 << 20


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """What a program left behind."""

    status: int
    stdout: str
    stderr: str


async def run_program(argv: Sequence[str], *, stdin: str = "", timeout_s: float = 10.0) -> Finished:
    """Runs `argv` to its end, whatever its exit status.

    Raises:
        CannotWorkError: the program is not installed, did not end within `timeout_s`, or printed more than
            `OUTPUT_MAX_BYTES` (it is killed then).
    """
    try:
        # A file and no pipe: a program that ends before it has read its input is no error of ours.
        with tempfile.TemporaryFile() as given, anyio.fail_after(timeout_s):
            given.write(stdin.encode())
            given.seek(0)
            done = await _run(list(argv), given)
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
    return done


async def _run(argv: list[str], given: IO[bytes]) -> Finished:
    process = await anyio.open_process(argv, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    printed = {"stdout": bytearray(), "stderr": bytearray()}
    streams = {"stdout": process.stdout, "stderr": process.stderr}

    async def read(name: str) -> None:
        stream = streams[name]
        assert stream is not None
        async for chunk in stream:
            printed[name] += chunk
            if len(printed[name]) > OUTPUT_MAX_BYTES:
                process.kill()
                return

    async with process:
        try:
            async with anyio.create_task_group() as group:
                for name in printed:
                    group.start_soon(read, name)
            await process.wait()
        except BaseException:
            process.kill()
            raise
    if any(len(text) > OUTPUT_MAX_BYTES for text in printed.values()):
        raise CannotWorkError(
            f"{argv[0]} prints without end", " ".join(argv[1:])[:200], f"more than {OUTPUT_MAX_BYTES:,} bytes"
        )
    texts = {name: text.decode("utf-8", "replace") for name, text in printed.items()}
    return Finished(status=process.returncode or 0, **texts)
