"""Runs the command line and counts what it asks ovs-vswitchd: control calls (unixctl) and runs of ovs-ofctl.

    python -m vtrace.costs.calls FILE diagnose …

Both are answered by ovs-vswitchd's main thread. FILE takes a JSON list of `Call`. The functions that make the calls
are replaced by ones that look at the clock first, in this process and nowhere else.
"""

from __future__ import annotations

import functools
import importlib
import os
import runpy
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from vtrace.ovs import jsonrpc, ofctl, program, unixctl
from vtrace.ovs.jsonrpc import Reply
from vtrace.ovs.program import Finished


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call.

    Attributes:
        to: whose main thread answered, by the run directory of its sockets.
        kind: "unixctl" or "ofctl"; name: of the command.
        began_s: by the monotonic clock; took_s: until the answer was there, the start of ovs-ofctl included.
        answer_bytes: of the answer's text.
    """

    to: str
    kind: str
    name: str
    began_s: float
    took_s: float
    answer_bytes: int


CALLS: list[Call] = []


def _note(path: str, kind: str, name: str, began_s: float, answer: str) -> None:
    took_s = time.monotonic() - began_s
    place = os.path.basename(os.path.dirname(path))
    CALLS.append(
        Call(to=place, kind=kind, name=name, began_s=began_s, took_s=took_s, answer_bytes=len(answer.encode()))
    )


def count() -> None:
    """Counts from now on."""
    transact, run_program = jsonrpc.transact, program.run_program

    @functools.wraps(transact)
    async def counted_call(path: str, method: str, params: Sequence[Any], **more: Any) -> Reply:
        began_s = time.monotonic()
        reply = await transact(path, method, params, **more)
        if os.path.basename(path).startswith("ovs-vswitchd."):
            _note(path, "unixctl", method, began_s, str(reply.result or reply.error or ""))
        return reply

    @functools.wraps(run_program)
    async def counted_run(argv: Sequence[str], **more: Any) -> Finished:
        began_s = time.monotonic()
        done = await run_program(argv, **more)
        at = next(number for number, word in enumerate(argv) if word.startswith("unix:"))
        _note(argv[at].removeprefix("unix:"), "ofctl", argv[at - 1], began_s, done.stdout)
        return done

    # What the two modules imported by name.
    vars(unixctl)["transact"] = counted_call
    vars(ofctl)["run_program"] = counted_run


def main() -> None:
    """Runs the command as a shell would, then writes what it called."""
    file = Path(sys.argv.pop(1))
    count()
    try:
        runpy.run_module("vtrace.present.cli.main", run_name="__main__")
    finally:
        file.write_bytes(msgspec.json.encode(CALLS))


if __name__ == "__main__":
    # Not the module of this name that others import: there is one list of calls.
    importlib.import_module("vtrace.costs.calls").main()
