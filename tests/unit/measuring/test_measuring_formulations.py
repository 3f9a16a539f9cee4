"""Four formulations of reconstruction say the same, whatever the order and repetition of the records."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clouds import EVENTFUL, FORMS, LAB, make_cloud, shaken
from hypothesis import given, settings
from hypothesis import strategies as st

from vtrace.measuring.tally import Tally, differences
from vtrace.model.record_schema import RECORD_SCHEMA
from vtrace.synthetic.kinds import KINDS

OTHERS = [name for name in FORMS if name != "kernel"]
SHARES = st.sampled_from([0.0, 0.0, 0.1, 0.5])


@pytest.fixture(scope="module")
def lab() -> Tally:
    return FORMS["kernel"](LAB, 1)


@pytest.mark.parametrize("name", OTHERS)
def test_the_labs_records_are_told_alike(name: str, lab: Tally) -> None:
    found = FORMS[name](LAB, 1)
    assert differences(found, lab) == []
    assert found.packets == lab.packets > 2000
    assert found.records == 13_763


@pytest.mark.parametrize("name", FORMS)
def test_order_and_repetition_change_nothing(name: str, lab: Tally, tmp_path: Path) -> None:
    table = pq.read_table(LAB)
    for seed in range(2):
        assert differences(FORMS[name](shaken(table, tmp_path / "x.parquet", seed), 2), lab) == []


def test_the_formulations_put_the_same_packets_apart(tmp_path: Path) -> None:
    path = make_cloud(tmp_path / "x.blobs", **EVENTFUL)
    polars, pandas, duckdb = (FORMS[name](path, 2) for name in ("polars", "pandas", "duckdb"))
    assert polars == pandas == duckdb
    assert 0 < sum(pair.apart or 0 for pair in polars.pairs) < polars.packets / 2


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", OTHERS)
def test_all_kinds_of_traffic_and_faults_are_told_alike(name: str, threads: int, tmp_path: Path) -> None:
    path = make_cloud(tmp_path / "x.blobs", **EVENTFUL | {"tasks": 8})
    kernel = FORMS["kernel"](path, 1)
    assert differences(FORMS[name](path, threads), kernel) == []
    assert {kind for pair in kernel.pairs for kind, _ in pair.paths} >= {"delivered", "dropped", "lost_between"}


@pytest.mark.parametrize("name", FORMS)
def test_packets_without_a_first_hop_are_counted(name: str, tmp_path: Path) -> None:
    table = pq.read_table(make_cloud(tmp_path / "x.parquet"))
    first_hops = pa.compute.equal(table["point"], 0)
    pq.write_table(table.filter(pa.compute.invert(first_hops)), tmp_path / "less.parquet")
    found = FORMS[name](tmp_path / "less.parquet", 1)
    assert (found.packets, found.unclaimed) == (0, len(table.filter(first_hops)))
    assert found.records == len(table) - found.unclaimed


@pytest.mark.parametrize("name", FORMS)
def test_no_records_are_no_packets(name: str, tmp_path: Path) -> None:
    pq.write_table(RECORD_SCHEMA.empty_table(), tmp_path / "x.parquet")
    assert FORMS[name](tmp_path / "x.parquet", 1) == Tally(records=0, unclaimed=0, pairs=())


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 1 << 40),
    tasks=st.integers(1, 3),
    pairs=st.integers(1, 6),
    packets=st.integers(1, 60),
    kinds=st.sets(st.sampled_from(KINDS), min_size=1),
    faults=SHARES,
    floods=SHARES,
    loops=SHARES,
    moves=SHARES,
    identical=SHARES,
    repeat=SHARES,
    late=SHARES,
    restarts=SHARES,
    shuffle=st.booleans(),
)
def test_polars_says_what_the_kernel_says(
    tmp_path_factory: pytest.TempPathFactory, kinds: set[str], **options: object
) -> None:
    path = tmp_path_factory.mktemp("cloud") / "x.blobs"
    make_cloud(path, kinds=tuple(kind for kind in KINDS if kind in kinds), **options)
    assert differences(FORMS["polars"](path, 1), FORMS["kernel"](path, 1)) == []
