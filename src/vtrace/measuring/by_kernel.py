"""Reconstruction as VTrace does it: by the compiled kernel, exact, to the whole of the answers or to paths alone."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vtrace.analyzer import stored as stored_records
from vtrace.analyzer.stored import Source, Stored
from vtrace.measuring.tally import Tally, pair_tally, tally_of_answers
from vtrace.reconstruct.answers import KINDS
from vtrace.reconstruct.gathering import Gathered
from vtrace.reconstruct.parts import part_of
from vtrace.reconstruct.schema import Goal
from vtrace.reconstruct.streams import Streams


def run(path: Path, threads: int) -> Tally:
    """Reconstructs a file: the whole of the answers, as `vtrace reconstruct` prints them."""
    return tally_of_answers(stored_records.reconstruct_stored(stored_records.open_stored(path), threads=threads))


def run_paths(path: Path, threads: int) -> Tally:
    """Reconstructs a file as far as the other formulations go: no holes, no patterns, no contrast."""
    stored = stored_records.open_stored(path)
    gathered = Gathered()
    lock = threading.Lock()

    def work(source: Source) -> None:
        part = part_of(source.read())
        with lock:
            gathered.add(part)

    _on_threads(work, stored, threads)
    paths: dict[Hashable, list[tuple[str, int]]] = defaultdict(list)
    for one in gathered.paths:
        paths[gathered.pairs.names[one.pair]].append((KINDS[one.disposition], one.packets))
    pairs = []
    for name in sorted(paths, key=str):
        assert isinstance(name, tuple)
        own = paths[name]
        pairs.append(pair_tally(name, sum(count for _, count in own), own, says_apart=False))
    return Tally(records=gathered.records - gathered.repeated, unclaimed=gathered.unclaimed, pairs=tuple(pairs))


def gather(stored: Stored, threads: int, goals: Mapping[tuple[str, int], Goal]) -> tuple[Gathered, Streams]:
    """What `reconstruct_stored` makes its answers of: all packets, and which records are at hand of each stream.

    Args:
        stored: with what the writers have written in all.
    """
    streams = Streams(stored.ends, records=stored.records)
    gathered = Gathered()
    lock = threading.Lock()

    def work(source: Source) -> None:
        part = part_of(source.read(), goals)
        columns = part.prepared.columns
        with lock:
            numbers = streams.numbers(part.prepared.places)
        _, spans = streams.mark(numbers, columns.place, columns.seq, columns.mono_ns)
        with lock:
            streams.widen(spans)
            gathered.add(part)

    _on_threads(work, stored, threads)
    return gathered, streams


def _on_threads(work: Callable[[Source], None], stored: Stored, threads: int) -> None:
    if threads <= 1:
        for source in stored.parts:
            work(source)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, stored.parts):
            pass
