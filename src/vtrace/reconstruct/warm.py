"""Compiles all that reconstruction needs, so that nothing has to wait for it: `python -m vtrace.reconstruct.warm`."""

from __future__ import annotations

import functools
import gc

from vtrace.collect.blobs import compact
from vtrace.kept_code import note_whole
from vtrace.model.record import LogRecord, Point
from vtrace.model.record_schema import from_table, to_table
from vtrace.reconstruct.incremental import Incremental
from vtrace.reconstruct.live import hops_of
from vtrace.reconstruct.parts import part_of
from vtrace.reconstruct.streams import Streams
from vtrace.reconstruct.whole import reconstruct

_RECORD = LogRecord(
    chassis="a", incarnation=1, seq=1, color=3, epoch=1, key=1, pair=0, task="t", point=Point.FIRST_HOP, datapath=1,
    proto=17, src="192.0.2.1", dst="192.0.2.2",
)  # fmt: skip


@functools.cache
def load() -> None:
    """Loads what one task's answer needs: a third of a second, if all was compiled before; once in a process."""
    hops_of([_RECORD])
    from_table(reconstruct(to_table([_RECORD])).records)
    # A collection that looks at all of it takes 50 ms, in which no copy is read.
    gc.freeze()


@functools.cache
def load_parts() -> None:
    """Loads, or compiles, what parts of a file need; once in a process, and for all that are forked then."""
    part, streams = part_of([compact(to_table([_RECORD]))]), Streams()
    columns = part.prepared.columns
    streams.mark(streams.numbers(part.prepared.places), columns.place, columns.seq, columns.mono_ns)


def warm() -> None:
    """Reconstructs the smallest packets there are, in every way."""
    load()
    table = to_table([_RECORD])
    stream = Incremental()
    stream.add(compact(table), 0)
    stream.advance(0)
    stream.answers()
    note_whole()
    # What compiling left is more still, and `load` froze what was there before.
    gc.freeze()


if __name__ == "__main__":
    warm()
