"""`vtrace bench`: benchmarks that print their figures and write them to a file."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtrace.errors import UsageError
from vtrace.lab import programs
from vtrace.present.cli import bench_costs, bench_reconstruct
from vtrace.present.cli.ending import end_as_by_ctrl_c

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

CASES, SEED, LANES = 100, 1, 3


def add_parser(commands: Subparsers) -> None:
    """Registers the command."""
    bench = commands.add_parser("bench", help="measure VTrace itself", description="Measures VTrace itself.")
    kinds = bench.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    faults = kinds.add_parser(
        "faults",
        help="inject faults into labs, and hold the answers against them",
        description="Draws cases from a seed (fault, traffic, protocol, placement, addresses, load), runs them live in "
        "labs of its own, several side by side, and holds every answer against what was injected. Can be interrupted: "
        "the same command goes on where it was.",
    )
    add = faults.add_argument
    add("--cases", type=int, default=CASES, metavar="N", help=f"how many (default {CASES}); more only add to them")
    add("--seed", type=int, default=SEED, metavar="S", help=f"default {SEED}")
    add("--lanes", type=int, default=LANES, metavar="L", help=f"labs side by side (default {LANES})")
    add("--results", type=Path, metavar="FILE", help="a line for each case (default vtrace-faults-SEED.jsonl)")
    add("--json", type=Path, metavar="FILE", help="write the figures there")
    add("--report", type=Path, metavar="FILE", help="write a report there, in Markdown")
    add("--only", metavar="FAULT[,FAULT…]", default="", help="only these faults")
    add("--traffic", metavar="KIND[,KIND…]", default="", help="only these kinds of traffic")
    add("--mode", choices=("fault", "two faults", "near-miss", "healthy"), help="only such cases")
    add("--catalogue", type=Path, metavar="DIR", help="faults of your own instead of those that ship")
    add("--list", action="store_true", help="list the faults, and which codes have some")
    faults.set_defaults(func=_faults)
    bench_reconstruct.add_parser(kinds)
    bench_costs.add_parser(kinds)


def _faults(args: argparse.Namespace) -> int:
    # Imported here, so that other commands don't wait for them.
    from vtrace.bench import drawing, fault, figures, report
    from vtrace.bench.running import Results, Run

    known = fault.catalogue(args.catalogue)
    if args.list:
        print("\n".join(f"{f.name}: {f.code}, {f.actor}, {' '.join(f.traffic)}: {f.text}" for f in known))
        return 0
    _check(args, known)
    chosen = [f for f in known if f.name in args.only.split(",")] if args.only else list(known)
    kinds = tuple(args.traffic.split(",")) if args.traffic else ()
    programs.require_root()
    end_as_by_ctrl_c()
    cases = drawing.draw(chosen, args.cases, args.seed, kinds=kinds, mode=args.mode)
    results = Results(args.results or Path(f"vtrace-faults-{args.seed}.jsonl"))
    try:
        Run(chosen, cases, results, args.lanes, lambda text: print(text, file=sys.stderr, flush=True)).run()
    finally:
        results.close()
    done = [results.done[case.number] for case in cases if case.number in results.done]
    command = shlex.join(("vtrace", "bench", "faults", "--cases", str(args.cases), "--seed", str(args.seed)))
    found: dict[str, Any] = report.figures(done)
    document = {
        "name": "faults",
        "figures": found,
        "machine": figures.machine(),
        "commit": " ".join(found["commits"]),
        "command": command,
        "confusion": {code or "healthy": dict(given) for code, given in sorted(report.confusion(done).items())},
    }
    if args.json:
        args.json.write_text(json.dumps(document, indent=1) + "\n")
    if args.report:
        args.report.write_text(report.markdown(done, command))
    for name, value in found.items():
        print(f"{name}: {value}")
    return 0


def _check(args: argparse.Namespace, known: Any) -> None:
    from vtrace.bench.fault import KINDS, Fault

    names = {f.name for f in known if isinstance(f, Fault)}
    bounds = (("--cases", args.cases, 1, 1_000_000), ("--lanes", args.lanes, 1, 16))
    for name, value, low, high in bounds:
        if not low <= value <= high:
            raise UsageError(f"{name} {value} is out of range", "bench faults", f"{low} to {high}")
    for name in filter(None, args.only.split(",")):
        if name not in names:
            raise UsageError(f"there is no fault {name!r}", "--only", "", "vtrace bench faults --list")
    for name in filter(None, args.traffic.split(",")):
        if name not in KINDS:
            raise UsageError(f"there is no kind of traffic {name!r}", "--traffic", f"there is {' '.join(KINDS)}")
