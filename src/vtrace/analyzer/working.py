"""Reconstructs parts of stored records on several cores: by processes, each of which gathers what it finds itself.

Threads would wait for each other: a part takes thousands of short steps of the interpreter, which runs one thread at a
time. A worker is forked when all is loaded and compiled. It takes the next part until none is left, then tells its
findings (`gathering.Findings`); its packets it keeps, and gives those that are asked for.

Which records of each log stream are at hand stands in memory that all workers share.
"""

from __future__ import annotations

import gc
import mmap
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import pyarrow as pa

from vtrace.errors import CannotWorkError, VTraceError
from vtrace.memory import divide_memory
from vtrace.reconstruct.gathering import Gathered
from vtrace.reconstruct.parts import part_of
from vtrace.reconstruct.schema import Goal
from vtrace.reconstruct.streams import Streams
from vtrace.reconstruct.warm import load_parts

Goals = Mapping[tuple[str, int], Goal]

_FORK = multiprocessing.get_context("fork")
_NUMBER_BYTES = 4
_MOST_TURNS = 1000


class Source(Protocol):
    """One part: gives its records, in the compact form, whenever it is asked."""

    def read(self) -> Sequence[pa.RecordBatch]:
        """All records of the part."""
        ...


@contextmanager
def gathered(parts: Sequence[Source], streams: Streams, goals: Goals | None, cores: int) -> Iterator[Gathered]:
    """All that was found in the parts; the packets can be had until it is left.

    Args:
        streams: with room for all records, for several cores in `shared_zeros`; takes note of those that are at hand.
        goals: where the packets of each (task, pair) should come out, if that is one place.
        cores: how many parts are worked on at once; no more than there are.

    Raises:
        VTraceError: as in `Source.read`; or a worker came to an end before it was done.
        MemoryError: there is not enough; all workers together may use as much as this process may.
    """
    found = Gathered()
    if cores <= 1:
        for part in parts:
            take_in(part, found, streams, goals)
        yield found
        return
    load_parts()
    workers: list[_Worker] = []
    # What is there now is looked at by no worker's collector: it would be copied for that.
    gc.freeze()
    try:
        with _turns(len(parts)) as turns:
            job = _Job(parts, streams, goals, cores, turns)
            for _ in range(job.workers):
                workers.append(_Worker(job, [worker.connection for worker in workers]))
        waiting = {worker.connection: worker for worker in workers}
        while waiting:
            for ready in wait(list(waiting)):
                worker = waiting.pop(cast("Connection", ready))
                findings, names, spans = worker.take()
                found.join(findings, worker)
                streams.widen_by_name(names, spans)
        yield found
    finally:
        gc.unfreeze()
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.wait()


def shared_zeros(length: int) -> np.ndarray:
    """Numbers in memory that forked processes share.

    Raises:
        MemoryError: there is not so much. The system doesn't count such memory with a process's own (RLIMIT_DATA).
    """
    if not length:
        return np.zeros(0, np.int64)
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY and 8 * length > soft:
        raise MemoryError(f"{8 * length:,} bytes for log streams")
    try:
        return np.frombuffer(mmap.mmap(-1, 8 * length), np.int64)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"{8 * length:,} bytes for log streams") from error


def take_in(part: Source, found: Gathered, streams: Streams, goals: Goals | None) -> None:
    """Reconstructs a part, and takes note of its packets and records."""
    own = part_of(part.read(), goals)
    columns = own.prepared.columns
    numbers = streams.numbers(own.prepared.places)
    _, spans = streams.mark(numbers, columns.place, columns.seq, columns.mono_ns)
    streams.widen(spans)
    found.add(own)


@contextmanager
def _turns(parts: int) -> Iterator[int]:
    """A pipe that holds where each run of parts begins. A worker reads one number, and no other reads it again.

    No lock: nobody who is killed can hold it.
    """
    reading, writing = os.pipe()
    try:
        # Few enough for the smallest pipe there is (pipe(7)), so that nobody waits for room.
        os.write(writing, b"".join(first.to_bytes(_NUMBER_BYTES) for first in range(0, parts, _run_of(parts))))
        os.close(writing)
        yield reading
    finally:
        os.close(reading)


def _run_of(parts: int) -> int:
    """How many parts are taken at once."""
    return -(-parts // _MOST_TURNS)


class _Job(NamedTuple):
    """What all workers are given; `turns`: a pipe to take the number of the next parts from."""

    parts: Sequence[Source]
    streams: Streams
    goals: Goals | None
    workers: int
    turns: int


class _Worker:
    """A worker, from the outside."""

    def __init__(self, job: _Job, others: Sequence[Connection]) -> None:
        try:
            self.connection, theirs = _FORK.Pipe()
            # With a copy of our ends a worker would never see that we are gone.
            self._process = _FORK.Process(target=_work, args=(job, [*others, self.connection], theirs), daemon=True)
            self._process.start()
        except OSError as error:
            what = "A process that reconstructs paths can't be started"
            raise CannotWorkError(what, "", str(error), "Use fewer cores") from error
        theirs.close()

    def take(self) -> Any:
        """What it says next."""
        try:
            said = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            raise self._ended() from error
        if isinstance(said, Exception):
            raise said
        return said

    def cut(self, wanted: np.ndarray) -> Callable[[], dict[str, np.ndarray]]:
        """Asks for its packets of the pairs that are wanted."""
        try:
            self.connection.send(wanted)
        except ConnectionError as error:
            raise self._ended() from error
        return self.take

    def _ended(self) -> CannotWorkError:
        self._process.join()
        what = "A process that reconstructs paths came to an end before it was done"
        return CannotWorkError(what, "", f"exit code {self._process.exitcode}", "Is there enough memory?")

    def stop(self) -> None:
        """Ends it, whatever it does."""
        self._process.kill()

    def wait(self) -> None:
        """Waits until it has ended."""
        self._process.join()
        self._process.close()
        self.connection.close()


def _work(job: _Job, ours: Sequence[Connection], connection: Connection) -> None:
    """What a worker does, until nobody asks any more."""
    # Who interrupts the program ends the one that started it, and so its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for one in ours:
        one.close()
    divide_memory(job.workers)
    try:
        try:
            found = _found(job, connection)
            connection.send((found.findings(), job.streams.names, job.streams.spans))
            while True:
                connection.send(found.cut(connection.recv())())
        except (VTraceError, MemoryError) as error:
            connection.send(error)
    except (EOFError, ConnectionError):
        # Who started us has ended.
        return


def _found(job: _Job, connection: Connection) -> Gathered:
    """All that is found in the parts that this worker gets."""
    found = Gathered()
    while number := os.read(job.turns, _NUMBER_BYTES):
        first = int.from_bytes(number)
        for part in job.parts[first : first + _run_of(len(job.parts))]:
            # Nothing is asked before all is told: there is something to read only when the other end is gone.
            if connection.poll():
                raise EOFError
            take_in(part, found, job.streams, job.goals)
    return found
