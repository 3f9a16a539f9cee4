"""`vtrace reconstruct`: from a file of log records to paths, and what became of the packets of each task and pair."""

from __future__ import annotations

import argparse
import os
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from vtrace.errors import UsageError

if TYPE_CHECKING:
    from vtrace.reconstruct.answers import Answers, Hop, LossAnswer, PairAnswer, PathAnswer

EXIT_NO_LOSS, EXIT_LOSS, EXIT_NO_VERDICT = 0, 1, 3
_PATHS_SHOWN = 4


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the command."""
    parser = commands.add_parser(
        "reconstruct",
        help="say what became of packets, from a file of log records",
        description="Chains log records into the paths of packets, and says for each task and pair how many arrived, "
        "where the others were lost, and what sets them apart. Needs no network, no root and no lab.",
        epilog="Exit codes: 0 no loss, 1 loss, 2 wrong usage, 3 no verdict. The records' format: docs/records.md.",
    )
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="Parquet, Arrow IPC, or a blob store")
    add("--task", metavar="ID", action="append", help="only this task (may be given several times)")
    add("--cores", type=int, default=0, metavar="N", help="how many cores to use (default: all)")
    add("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    if arguments.cores < 0:
        raise UsageError(f"--cores {arguments.cores} is out of range", "--cores", "", "Say 1 or more")
    from vtrace.analyzer.stored import open_stored, reconstruct_stored
    from vtrace.memory import keep_freed_memory

    keep_freed_memory()
    cores = arguments.cores or len(os.sched_getaffinity(0))
    _bound_memory()
    try:
        found = reconstruct_stored(open_stored(arguments.file), cores=cores)
    except MemoryError as error:
        what = "There is not enough memory for these log records"
        raise UsageError(what, str(arguments.file), str(error), "Write fewer into a file") from error
    if arguments.task:
        known = {task.task for task in found.tasks}
        for name in arguments.task:
            if name not in known:
                raise UsageError(f"There is no task {name!r}", str(arguments.file), f"it has {len(known)} others", "")
        found = msgspec.structs.replace(found, tasks=tuple(t for t in found.tasks if t.task in arguments.task))
    if arguments.json:
        document = {"schema": 1, "file": str(arguments.file), **msgspec.to_builtins(found)}
        print(msgspec.json.format(msgspec.json.encode(document)).decode())
    else:
        print("\n".join(text(found)))
    return exit_code(found)


def _bound_memory() -> None:
    """No more memory than the machine has: a small file can unpack to any size, and not at the cost of others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    own = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if soft == resource.RLIM_INFINITY or soft > own:
        resource.setrlimit(resource.RLIMIT_DATA, (own, hard))


def exit_code(found: Answers) -> int:
    """0 no loss, 1 loss, 3 no verdict; over pairs "yes" beats "unknown" beats "no"."""
    losses = {pair.loss for task in found.tasks for pair in task.pairs}
    if "yes" in losses:
        return EXIT_LOSS
    return EXIT_NO_VERDICT if "unknown" in losses or not losses else EXIT_NO_LOSS


def text(found: Answers) -> Iterator[str]:
    """The answer for people, line by line."""
    packets, records = _count(found.packets, "packet"), _count(found.records, "record")
    yield f"{packets} of {_count(len(found.tasks), 'task')}, from {records}"
    if found.repeated:
        yield f"  {_count(found.repeated, 'record')} came more than once"
    if found.unclaimed:
        yield f"  {_count(found.unclaimed, 'packet')} without a first-hop record: counted, not answered"
    if found.incomplete:
        missing = _count(found.records_missing, "record")
        yield f"  {missing} of {_count(len(found.incomplete), 'log stream')} are missing"
    for task in found.tasks:
        yield ""
        yield f"Task {task.task}"
        for pair in task.pairs:
            yield from _pair(pair)


def _pair(pair: PairAnswer) -> Iterator[str]:
    mark = {"yes": "✗", "no": "✓"}.get(pair.loss, "?")
    said = {"yes": "packets are lost", "no": "no loss", "unknown": "not known whether packets are lost"}[pair.loss]
    ratio = "" if not pair.loss_ratio else f" ({100 * pair.loss_ratio:.3g} % of the packets)"
    yield f"  {mark} pair {pair.pair}: {said}{ratio}{f', {pair.pattern}' if pair.pattern else ''}"
    parts = {
        "delivered": pair.delivered,
        "dropped": pair.dropped,
        "lost between servers": pair.lost_between,
        "left the domain": pair.left_domain,
        "without evidence": pair.evidence_missing,
    }
    yield f"    {pair.packets} = {' + '.join(f'{count} {name}' for name, count in parts.items() if count)}"
    for loss in pair.losses:
        yield f"    {_loss(loss)}"
        if loss.why is not None:
            named = " ".join(filter(None, (loss.why.object_type, loss.why.object_uuid, loss.why.object_name)))
            yield f"      because: {loss.why.summary} ({loss.why.code}{f', {named}' if named else ''})"
    yield from (f"    {difference.text}" for difference in pair.contrast)
    for path in pair.paths[:_PATHS_SHOWN]:
        yield f"    {_path(path)}"
    if len(pair.paths) > _PATHS_SHOWN:
        yield f"    and {len(pair.paths) - _PATHS_SHOWN} more paths (--json has them)"


def _loss(loss: LossAnswer) -> str:
    what = {
        "dropped": "dropped by",
        "lost_between": f"lost between {loss.where.chassis} and {loss.where.peer}, sent by",
        "evidence_missing": "without evidence after",
    }[loss.kind]
    return f"{loss.packets} {what} datapath {loss.where.datapath} of {loss.where.chassis}{_ports(loss.where)}"


def _ports(hop: Hop) -> str:
    ports = [f"{word} {key}" for word, key in (("in", hop.in_key), ("out", hop.out_key)) if key]
    return f" (port {', '.join(ports)})" if ports else ""


def _path(path: PathAnswer) -> str:
    return f"{_count(path.packets, 'packet')} by {' → '.join(_steps(path.hops))}: {path.disposition.replace('_', ' ')}"


def _steps(hops: Iterable[Hop]) -> Iterator[str]:
    """The datapaths of each chassis, in order: c1[3 5] → c2[5]."""
    chassis, datapaths = "", list[str]()
    for hop in hops:
        if hop.chassis != chassis and datapaths:
            yield f"{chassis}[{' '.join(datapaths)}]"
            datapaths = []
        chassis = hop.chassis
        if not datapaths or datapaths[-1] != str(hop.datapath):
            datapaths.append(str(hop.datapath))
    if datapaths:
        yield f"{chassis}[{' '.join(datapaths)}]"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
