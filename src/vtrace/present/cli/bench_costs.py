"""`vtrace bench forwarding` and `vtrace bench agent`: what VTrace costs the servers it works on."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from vtrace.errors import UsageError
from vtrace.present.cli import bench_files
from vtrace.present.cli.ending import end_as_by_ctrl_c

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

SLICES, SECONDS, ROUNDS = 40, 3.0, 3
INSTRUCTION_SLICES = 20
IDLE_S, COLORING_S, RATES = 30.0, 20.0, "100,1000"
CACHE, INSTRUCTIONS = "cache", "instructions"
# Names of `costs.forwarding.CONDITIONS`; that module is not imported for `--help`.
CONDITIONS = (
    "noise", "idle", "match", "task", "task_tcp", "tasks_10", "tasks_100", "same_scope", "same_scope_masks", "low",
    "low_same_scope", "colored",
)  # fmt: skip


def add_parser(kinds: Subparsers) -> None:
    """Registers the benchmarks."""
    ways = kinds.add_parser(
        "forwarding",
        help="what other traffic loses while entries of VTrace are there",
        description="Sends traffic through a lab without a pause, puts entries on and takes them off again, in slices "
        "of the order ABBA, and says what throughput, round trips and cached flows they cost (docs/cost.md).",
    )
    add = ways.add_argument
    add("--only", default="", metavar="NAME[,NAME…]", help=f"of {', '.join((*CONDITIONS, CACHE, INSTRUCTIONS))}")
    add(
        "--slices", type=int, default=SLICES, metavar="N", help=f"of each condition, a multiple of 4 (default {SLICES})"
    )
    add("--seconds", type=float, default=SECONDS, metavar="S", help=f"of each slice (default {SECONDS:g})")
    add("--rounds", type=int, default=ROUNDS, metavar="N", help=f"of changes to a busy cache (default {ROUNDS})")
    add("--lab", metavar="NAME", help="a lab of the topology that is needed (default: one of its own)")
    add("--json", type=Path, metavar="FILE", help="write the figures there")
    ways.set_defaults(func=_forwarding)
    alone = kinds.add_parser(
        "agent",
        help="what an agent takes of its server, and of its ovs-vswitchd",
        description="Watches an agent that idles, agents while packets are colored, and whole tasks: processor time, "
        "memory, calls to ovs-vswitchd, bytes of log (docs/cost.md).",
    )
    add = alone.add_argument
    add(
        "--idle",
        type=float,
        default=IDLE_S,
        metavar="S",
        help=f"how long an idle agent is watched (default {IDLE_S:g})",
    )
    add("--coloring", type=float, default=COLORING_S, metavar="S", help=f"and one that colors (default {COLORING_S:g})")
    add("--rates", default=RATES, metavar="R[,R…]", help=f"packets/s that are colored (default {RATES})")
    add("--lab", metavar="NAME", help="a lab of the topology that is needed (default: one of its own)")
    add("--json", type=Path, metavar="FILE", help="write the figures there")
    alone.set_defaults(func=_agent)


def _forwarding(args: argparse.Namespace) -> int:
    names = _chosen(args.only)
    bounds = (
        ("--slices", args.slices, 4, 1000),
        ("--seconds", args.seconds, 0.1, 60),
        ("--rounds", args.rounds, 1, 100),
    )
    bench_files.check_bounds(bounds)
    if args.slices % 4:
        raise UsageError(f"--slices {args.slices} is no multiple of 4", "--slices", "their order is ABBA", "Say 40")
    bench_files.check_folder(args.json)
    # Imported here, so that other commands don't wait for them.
    from vtrace import kept_code
    from vtrace.costs import disturbing, forwarding, forwarding_report, instructions
    from vtrace.costs.setting import setting
    from vtrace.lab import programs

    programs.require_root()
    end_as_by_ctrl_c()
    if INSTRUCTIONS in names and not instructions.available():
        if args.only:
            raise UsageError(
                "valgrind is not installed", "--only", "it counts instructions", "apt-get install valgrind"
            )
        _say("instructions are not counted: valgrind is not installed")
        names = tuple(name for name in names if name != INSTRUCTIONS)
    kept_code.make_whole(_say)
    found: list[forwarding.Found] = []
    disturbed: dict[str, list[disturbing.Disturbance]] = {}
    counted: list[instructions.Counted] = []

    def keep() -> None:
        """Writes what there is so far: what comes after may end in an error."""
        figures = forwarding_report.figures(found, disturbed, counted)
        details = forwarding_report.details(found, disturbed, counted)
        command = _command(args, "only slices seconds rounds")
        bench_files.write(args.json, bench_files.document("forwarding", figures, command) | details)

    with tempfile.TemporaryDirectory(prefix="vtrace-bench-") as folder:
        if set(names) - {INSTRUCTIONS}:
            with setting(args.lab, _say) as place:
                for condition in forwarding.CONDITIONS:
                    if condition.name in names:
                        _say(f"{condition.name}: {condition.text}")
                        found.append(forwarding.run(condition, place, Path(folder), args.slices, args.seconds, _say))
                        keep()
                for scope in ("other", "same") if CACHE in names else ():
                    disturbed[scope] = disturbing.disturbances(place, Path(folder), scope, args.rounds, _say)
                    keep()
        if INSTRUCTIONS in names:
            # In a lab of its own: its tunnels don't work afterwards.
            with setting(None, _say) as place:
                count = min(args.slices, INSTRUCTION_SLICES)
                counted = instructions.count(place, Path(folder), count, args.seconds, _say)
                keep()
    print("\n".join(forwarding_report.text(found, disturbed, counted)))
    return 0


def _agent(args: argparse.Namespace) -> int:
    try:
        rates = tuple(dict.fromkeys(float(word) for word in args.rates.split(",")))
    except ValueError as error:
        raise UsageError(f"--rates {args.rates} can't be", "--rates", "", "Say 100,1000, for example") from error
    bounds = [("--idle", args.idle, 0.5, 3600), ("--coloring", args.coloring, 0.5, 200)]
    bench_files.check_bounds([*bounds, *(("--rates", rate, 1, 5000) for rate in rates)])
    bench_files.check_folder(args.json)
    from vtrace import kept_code
    from vtrace.costs import agent, agent_report
    from vtrace.costs.setting import setting
    from vtrace.lab import programs

    programs.require_root()
    end_as_by_ctrl_c()
    kept_code.make_whole(_say)
    with tempfile.TemporaryDirectory(prefix="vtrace-bench-") as name, setting(args.lab, _say) as place:
        folder = Path(name)
        _say("an idle agent")
        idle = agent.idle(place, args.idle)
        coloring = []
        for rate in rates:
            _say(f"coloring {rate:g} packets/s")
            coloring.append(agent.coloring(place, folder, rate, args.coloring))
        loads = [load for case in ("healthy", "lossy") for load in agent.loads(place, folder, case, _say)]
    figures = agent_report.figures(idle, coloring, loads)
    details = {name: msgspec.to_builtins(x) for name, x in (("idle", idle), ("coloring", coloring), ("tasks", loads))}
    document = bench_files.document("agent", figures, _command(args, "idle coloring rates")) | details
    print("\n".join(agent_report.text(figures)))
    bench_files.write(args.json, document)
    return 0


def _chosen(only: str) -> tuple[str, ...]:
    known = (*CONDITIONS, CACHE, INSTRUCTIONS)
    names = tuple(filter(None, only.split(","))) or known
    for name in names:
        if name not in known:
            raise UsageError(f"there is no condition {name!r}", "--only", f"there is {' '.join(known)}", "Name some")
    return names


def _command(args: argparse.Namespace, names: str) -> str:
    words = ["vtrace", "bench", args.benchmark]
    for name in names.split():
        if getattr(args, name) not in (None, ""):
            words += [f"--{name}", str(getattr(args, name))]
    return shlex.join(words)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
