"""`vtrace bench reconstruct` and `vtrace bench accuracy`: how fast reconstruction is, and how often it is right."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vtrace.errors import UsageError
from vtrace.present.cli.bench_files import check_bounds, check_folder, document, write

if TYPE_CHECKING:
    from vtrace.measuring.running import Store
    from vtrace.reconstruct.schema import Goal
    from vtrace.synthetic.options import Options

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

RECORDS, RUNS, SEED = 10_000_000, 5, 1
ACCURACY_RECORDS = 1_500_000
FLOODS = 0.02
ARRIVAL, SHUFFLED = "arrival", "shuffled"
# Names of `measuring.child.FORMS`, and the package that each needs beside what VTrace itself does.
FORMS = {"kernel": "", "kernel-paths": "", "polars": "polars", "pandas": "pandas", "duckdb": "duckdb"}
_MOST_RECORDS = 1_000_000_000
_TASK_RECORDS = 500_000
_PAIRS = 32
_REGIONS = 3
_BLOB_RECORDS = 10_000
_MOST_BUCKETS = 16


def add_parser(kinds: Subparsers) -> None:
    """Registers the benchmarks."""
    speed = kinds.add_parser(
        "reconstruct",
        help="time the reconstruction of stored records, beside other formulations of it",
        description="Makes the log records of a synthetic cloud, in the order of their arrival and in none, and times "
        "each formulation of their reconstruction from the stored blobs to the answers, in a process of its own.",
    )
    add = speed.add_argument
    add("--records", type=int, default=RECORDS, metavar="N", help=f"about so many (default {RECORDS:,})")
    add("--seed", type=int, default=SEED, metavar="S", help=f"default {SEED}")
    add("--runs", type=int, default=RUNS, metavar="R", help=f"rounds, of which medians are taken (default {RUNS})")
    add("--cores", default="1,2", metavar="N[,N…]", help="on how many cores (default 1,2)")
    add("--only", default="", metavar="FORM[,FORM…]", help=f"of {', '.join(FORMS)}")
    add(
        "--floods",
        type=float,
        default=FLOODS,
        metavar="R",
        help=f"share of pairs that are flooded (default {FLOODS:g})",
    )
    add("--loops", type=float, default=0.0, metavar="R", help="share of pairs whose packets go round (default 0)")
    add("--data", type=Path, action="append", metavar="X.blobs", help="a blob store of your own (more than once: more)")
    add("--no-compile", action="store_true", help="don't measure how long the kernel's compilation takes")
    add("--json", type=Path, metavar="FILE", help="write the figures there")
    speed.set_defaults(func=_speed)
    truth = kinds.add_parser(
        "accuracy",
        help="hold the reconstruction of stored records against the truth",
        description="Makes the log records of a synthetic cloud with all kinds of traffic and faults, loses shares of "
        "them, and holds what is said of each packet and each pair against what became of it.",
    )
    add = truth.add_argument
    add(
        "--records",
        type=int,
        default=ACCURACY_RECORDS,
        metavar="N",
        help=f"about so many (default {ACCURACY_RECORDS:,})",
    )
    add("--seed", type=int, default=SEED, metavar="S", help=f"default {SEED}")
    add("--losses", default="0,0.01,0.1", metavar="R[,R…]", help="shares of records to lose (default 0,0.01,0.1)")
    add("--json", type=Path, metavar="FILE", help="write the figures there")
    truth.set_defaults(func=_accuracy)


def _speed(args: argparse.Namespace) -> int:
    forms, cores = _checked(args)
    check_folder(args.json)
    # Imported here, so that other commands don't wait for them.
    from vtrace.measuring import report, running, wire

    running.available_cores(cores)
    with tempfile.TemporaryDirectory(prefix="vtrace-bench-") as name:
        folder = Path(name)
        stores = _given(args.data) if args.data else _made(args, folder)
        plan = running.Plan(forms=forms, cores=cores, stores=stores, warm=_small(folder), runs=args.runs)
        found = running.measure(plan, _say)
        sizes = {store.order: wire.bytes_per_record(store.path) for store in stores}
        compile_s = running.compile_s(plan) if "kernel" in forms and not args.no_compile else None
        figures = report.figures(plan, found, sizes, compile_s)
    told = document("reconstruct", figures, _command(args, "records seed runs cores only floods loops data"))
    print("\n".join(report.text(told)))
    write(args.json, told)
    return 0


def _accuracy(args: argparse.Namespace) -> int:
    check_bounds([("--records", args.records, 1, _MOST_RECORDS)])
    check_folder(args.json)
    try:
        losses = tuple(dict.fromkeys(float(word) for word in args.losses.split(",")))
    except ValueError as error:
        raise UsageError(f"--losses {args.losses} can't be", "--losses", "", "Say 0,0.01, for example") from error
    check_bounds([("--losses", loss, 0, 1) for loss in losses])
    from vtrace.measuring import accuracy
    from vtrace.synthetic.options import Options

    found = {}
    tasks = max(2, round(args.records / _TASK_RECORDS * 10))
    for loss in losses:
        options = Options(
            tasks=tasks, pairs=16, records=args.records, regions=_REGIONS, seed=args.seed, log_loss=loss, shuffle=True,
            faults=0.3, floods=0.03, loops=0.01, moves=0.2, identical=0.02, repeat=0.01, late=0.01, restarts=0.05,
            skew_s=7200,
        )  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="vtrace-bench-") as name:
            path, truth = Path(name) / "x.blobs", Path(name) / "x.truth.parquet"
            _say(f"{loss:.3g} of about {args.records:,} records lost")
            _generate(options, path, truth)
            found[f"{loss:g}"] = accuracy.accuracy(path, truth, _goals(options))
    told = document("accuracy", accuracy.document(found), _command(args, "records seed losses"))
    print("\n".join(accuracy.text(told)))
    write(args.json, told)
    return 0


def _goals(options: Options) -> dict[tuple[str, int], Goal]:
    """Where each pair's packets should come out, as an analyzer reads it from the topology: only a VM's port is one."""
    import numpy as np

    from vtrace.model.record import Point
    from vtrace.reconstruct.schema import Goal
    from vtrace.synthetic import templates
    from vtrace.synthetic.generating import build_world
    from vtrace.synthetic.pairs import draw_pairs
    from vtrace.synthetic.ways import lay_ways

    world = build_world(options)
    pairs = draw_pairs(options, world.chance, world.tasks, 0, options.tasks)
    ways, stops = lay_ways(options.switches, world.cloud, world.chance, world.tasks, pairs)
    last = ways.start + ways.length - 1
    ends = np.column_stack([stops.server[last], stops.datapath[last], stops.out_key[last]])
    same = np.ones(len(pairs.task), bool)
    np.logical_and.at(same, ways.pair, (ends == ends[ways.first[ways.pair]]).all(axis=1))
    same &= (stops.point[last] == Point.EGRESS)[ways.first] & ~templates.LEAVES[ways.template[ways.first]]
    tasks, chassis = world.tasks.names.to_pylist(), world.cloud.chassis.to_pylist()
    return {
        (tasks[pairs.task[row]], int(pairs.number[row])): Goal(datapath=datapath, key=key, chassis=chassis[server])
        for row, (server, datapath, key) in enumerate(ends[ways.first].tolist())
        if same[row]
    }


def _checked(args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[int, ...]]:
    check_bounds((("--records", args.records, 1, _MOST_RECORDS), ("--runs", args.runs, 1, 1000)))
    forms = tuple(filter(None, args.only.split(","))) or tuple(FORMS)
    for form in forms:
        if form not in FORMS:
            raise UsageError(f"there is no formulation {form!r}", "--only", f"there is {' '.join(FORMS)}", "Name some")
    missing = [FORMS[form] for form in forms if FORMS[form] and importlib.util.find_spec(FORMS[form]) is None]
    if missing:
        what = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        step = "pip install 'vtrace-overlay[bench]', or leave them out: --only kernel"
        raise UsageError(what, "bench reconstruct", "the kernel is measured beside them", step)
    try:
        cores = tuple(dict.fromkeys(int(word) for word in args.cores.split(",")))
    except ValueError as error:
        raise UsageError(f"--cores {args.cores} can't be", "--cores", "", "Say 1,2, for example") from error
    check_bounds([("--cores", number, 1, 1024) for number in cores])
    return forms, cores


def _given(paths: Sequence[Path]) -> tuple[Store, ...]:
    from vtrace.collect.store import BlobStore
    from vtrace.measuring.running import Store

    return tuple(
        Store(order=path.stem, path=path, records=sum(one.records for one in BlobStore(path))) for path in paths
    )


def _made(args: argparse.Namespace, folder: Path) -> tuple[Store, ...]:
    from vtrace.measuring.running import Store
    from vtrace.synthetic.options import Options

    stores = []
    for order in (ARRIVAL, SHUFFLED):
        tasks = max(2, round(args.records / _TASK_RECORDS))
        options = Options(
            tasks=tasks, pairs=_PAIRS, records=args.records, regions=_REGIONS, seed=args.seed, faults=0.1,
            floods=args.floods, loops=args.loops, shuffle=order == SHUFFLED,
        )  # fmt: skip
        path = folder / f"{order}.blobs"
        _say(f"making {path.name}: about {args.records:,} records")
        stores.append(Store(order=order, path=path, records=_generate(options, path)))
    return tuple(stores)


def _small(folder: Path) -> Path:
    """A store that takes every way through the code there is, so that all of it is compiled."""
    from vtrace.synthetic.options import Options

    path = folder / "small.blobs"
    options = Options(
        servers=20, vpcs=6, tasks=3, pairs=8, packets=200, faults=0.5, floods=0.2, loops=0.1, identical=0.2,
        log_loss=0.1, repeat=0.1, restarts=0.2,
    )  # fmt: skip
    _generate(options, path)
    return path


def _generate(options: Options, path: Path, truth: Path | None = None) -> int:
    """Writes a blob store; how many records it has."""
    from vtrace.synthetic.generating import build_world, generate
    from vtrace.synthetic.output import BlobSink
    from vtrace.synthetic.truth import TruthFile

    buckets = _MOST_BUCKETS
    while buckets > 1 and (options.records or 1) < buckets * options.tasks * options.regions * _BLOB_RECORDS // 2:
        buckets //= 2
    sink = BlobSink(path, buckets=buckets, blob_records=_BLOB_RECORDS, shuffle=options.shuffle)
    return generate(build_world(options), sink, TruthFile(truth)).delivered


def _command(args: argparse.Namespace, names: str) -> str:
    words = ["vtrace", "bench", args.benchmark]
    for name in names.split():
        values = getattr(args, name)
        for value in values if isinstance(values, list) else [values]:
            if value not in (None, ""):
                words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
