"""Reconstruction as VTrace does it: by the compiled kernel, exact, to the whole of the answers or to paths alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path

from vtrace.analyzer import stored as stored_records
from vtrace.measuring.tally import Tally, pair_tally, tally_of_answers
from vtrace.reconstruct.answers import KINDS


def run(path: Path, cores: int) -> Tally:
    """Reconstructs a file: the whole of the answers, as `vtrace reconstruct` prints them."""
    return tally_of_answers(stored_records.reconstruct_stored(stored_records.open_stored(path), cores=cores))


def run_paths(path: Path, cores: int) -> Tally:
    """Reconstructs a file as far as the other formulations go: no holes, no patterns, no contrast."""
    paths: dict[Hashable, list[tuple[str, int]]] = defaultdict(list)
    with stored_records.gather(stored_records.open_stored(path), cores=cores) as (gathered, _):
        for one in gathered.paths:
            paths[gathered.pairs.names[one.pair]].append((KINDS[one.disposition], one.packets))
    pairs = []
    for name in sorted(paths, key=str):
        assert isinstance(name, tuple)
        own = paths[name]
        pairs.append(pair_tally(name, sum(count for _, count in own), own, says_apart=False))
    return Tally(records=gathered.records - gathered.repeated, unclaimed=gathered.unclaimed, pairs=tuple(pairs))
