"""Reconstruction as VTrace does it: by the compiled kernel, exact, to the whole of the answers or to paths alone."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path

from vtrace.analyzer import stored as stored_records
from vtrace.analyzer.stored import Source
from vtrace.measuring.tally import Tally, pair_tally, tally_of_answers
from vtrace.reconstruct.answers import KINDS
from vtrace.reconstruct.gathering import Gathered
from vtrace.reconstruct.parts import part_of


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

    stored_records.on_threads(work, stored.parts, threads)
    paths: dict[Hashable, list[tuple[str, int]]] = defaultdict(list)
    for one in gathered.paths:
        paths[gathered.pairs.names[one.pair]].append((KINDS[one.disposition], one.packets))
    pairs = []
    for name in sorted(paths, key=str):
        assert isinstance(name, tuple)
        own = paths[name]
        pairs.append(pair_tally(name, sum(count for _, count in own), own, says_apart=False))
    return Tally(records=gathered.records - gathered.repeated, unclaimed=gathered.unclaimed, pairs=tuple(pairs))
