"""Programs that a measurement starts, and ends with itself; the numbers that they keep."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from vtrace.costs.stream import COUNTS
from vtrace.errors import CannotWorkError

STREAM = Path(__file__).with_name("stream.py")
READY_TIMEOUT_S = 15.0
END_TIMEOUT_S = 40.0
# What takes packets must not wait for what sends, measures or colors, where they share a core. What sends as fast as it
# can is not among them: nothing else would get anywhere.
MEASURED, FIRST = ("sink", "probe", "echo"), -10


class Stream:
    """A running `stream.py`."""

    def __init__(self, process: subprocess.Popen[str], counts: Path) -> None:
        self.process = process
        self.path = counts
        self._file = counts.open("rb", buffering=0)

    def counts(self) -> tuple[int, int]:
        """Packets and bytes so far.

        Raises:
            CannotWorkError: it ended by itself.
        """
        if self.process.poll() is not None:
            why = (self.process.stderr.read() if self.process.stderr else "")[-500:]
            raise CannotWorkError("A measured traffic ended by itself", str(self.process.args)[:200], why, "")
        packets, size_bytes = COUNTS.unpack(os.pread(self._file.fileno(), COUNTS.size, 0))
        return int(packets), int(size_bytes)

    def close(self) -> None:
        self._file.close()


@contextlib.contextmanager
def stream(
    folder: Path, cores: Sequence[int], options: Mapping[str, object], counts_bytes: int = COUNTS.size
) -> Iterator[Stream]:
    """Runs one end of a traffic on some cores; it is ready when this begins, and has ended when it ends.

    Args:
        folder: for its file of counts, of `counts_bytes`.
        options: as `stream.py` wants them.

    Raises:
        CannotWorkError: it did not start.
    """
    counts = folder / f"{options['role']}-{len(list(folder.iterdir()))}"
    counts.write_bytes(bytes(counts_bytes))
    words = [sys.executable, "-S", "-E", str(STREAM), json.dumps({**options, "counts": str(counts)})]
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        os.sched_setaffinity(process.pid, cores)
        if options["role"] in MEASURED:
            os.setpriority(os.PRIO_PROCESS, process.pid, FIRST)
        read_line(process, f"The traffic {options['role']} did not start")
        found = Stream(process, counts)
        yield found
        found.close()
    finally:
        end(process, signal.SIGKILL)


def read_line(process: subprocess.Popen[str], what: str, timeout_s: float = READY_TIMEOUT_S) -> str:
    """The next line that a program prints; it prints nothing before it is asked for more.

    Raises:
        CannotWorkError: none came in time, or it ended; `what` says what that means.
    """
    out = _pipe(process.stdout)
    with selectors.DefaultSelector() as selector:
        selector.register(out, selectors.EVENT_READ)
        line = out.readline() if selector.select(timeout_s) else ""
    if not line:
        process.kill()
        process.wait()
        why = _pipe(process.stderr).read()[-2000:] if process.stderr else ""
        raise CannotWorkError(what, str(process.args)[:300], why or f"nothing came in {timeout_s:g} s", "")
    return line.rstrip("\n")


def end(process: subprocess.Popen[Any], number: signal.Signals = signal.SIGTERM) -> None:
    """Ends a program of ours, and waits for it."""
    if process.poll() is None:
        process.send_signal(number)
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None and not pipe.closed:
            pipe.close()


def end_of_input(process: subprocess.Popen[str]) -> None:
    """Lets a program of ours end by the end of its input, and waits for it."""
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_TIMEOUT_S)
    end(process)


def probed(path: Path) -> list[tuple[int, int, int]]:
    """Of each packet of a probe: when it was sent and came back (monotonic ns; 0: it did not), and as which one."""
    found = []
    for sent_ns, back_ns, place in struct.iter_unpack("=QQQ", path.read_bytes()):
        if not sent_ns:
            break
        found.append((sent_ns, back_ns, place))
    return found


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise RuntimeError("the program was started without this pipe")
    return pipe
