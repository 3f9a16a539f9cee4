"""`vtrace generate`: synthetic clouds and their log records, with the truth beside them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtrace.errors import UsageError, VTraceError

if TYPE_CHECKING:
    from vtrace.synthetic.options import Options
    from vtrace.synthetic.output import Sink

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

BUCKETS, BLOB_RECORDS = 16, 10_000
_MAX_BUCKETS, _MAX_BLOB_RECORDS = 1 << 20, 1_000_000
_SECONDS_PER_HOUR = 3600.0


def add_parser(commands: Subparsers) -> None:
    """Registers the command."""
    generate = commands.add_parser(
        "generate",
        help="make log records of a synthetic cloud, with known truth",
        description="Makes log records of a synthetic cloud, as agents would write them, and the truth about each "
        "packet. The same options give the same bytes.",
    )
    add = generate.add_argument
    add("--out", type=Path, required=True, metavar="FILE", help="X.parquet (flat), or X.blobs (a blob store)")
    add("--truth", type=Path, metavar="FILE", help="write what became of each packet there, as Parquet")
    add("--json", action="store_true", help="print the summary as JSON")
    add("--seed", type=int, default=1, metavar="S", help="default 1")
    _add_cloud(generate)
    _add_faults(generate)
    _add_log_faults(generate)
    generate.set_defaults(func=_generate)


def _add_cloud(generate: argparse.ArgumentParser) -> None:
    add = generate.add_argument_group("the cloud and its tasks").add_argument
    add("--servers", type=int, default=100, metavar="N", help="default 100")
    add("--regions", type=int, default=3, metavar="N", help="default 3")
    add("--vpcs", type=int, default=50, metavar="N", help="default 50; many have the same addresses")
    add("--switches", type=int, default=4, metavar="N", help="of each VPC, beside 6 more devices (default 4)")
    add("--kinds", default="", metavar="KIND[,KIND…]", help="only these kinds of traffic")
    add("--tasks", type=int, default=20, metavar="N", help="default 20")
    add("--pairs", type=int, default=4, metavar="N", help="of each task, both directions counted (default 4)")
    add("--packets", type=int, metavar="N", help="of each task (default 1000)")
    add("--records", type=int, default=0, metavar="N", help="instead of --packets: about so many in all")
    add("--buckets", type=int, default=BUCKETS, metavar="B", help=f"of a blob store, a power of 2 (default {BUCKETS})")
    add("--blob-records", type=int, default=BLOB_RECORDS, metavar="N", help=f"at most (default {BLOB_RECORDS})")


def _add_faults(generate: argparse.ArgumentParser) -> None:
    add = generate.add_argument_group("what happens to packets").add_argument
    add("--faults", type=float, default=0.0, metavar="R", help="share of pairs that lose packets, all or a part")
    add("--floods", type=float, default=0.0, metavar="R", help="share of pairs whose packets are flooded")
    add(
        "--loops", type=float, default=0.0, metavar="R", help="share of pairs whose packets go round until the TTL ends"
    )
    add("--moves", type=float, default=0.0, metavar="R", help="share of tasks during which VMs move")
    add("--identical", type=float, default=0.0, metavar="R", help="share of packets with an earlier one's key")


def _add_log_faults(generate: argparse.ArgumentParser) -> None:
    add = generate.add_argument_group("what happens to records").add_argument
    add("--log-loss", type=float, default=0.0, metavar="R", help="share that is lost on its way")
    add("--repeat", type=float, default=0.0, metavar="R", help="share that comes twice")
    add("--late", type=float, default=0.0, metavar="R", help="share of deliveries that come long after the others")
    add("--shuffle", action="store_true", help="in no order at all; else as they would arrive")
    add("--skew", type=float, default=0.0, metavar="HOURS", help="wall clocks are wrong by up to that, some are set")
    add("--restarts", type=float, default=0.0, metavar="R", help="share of servers whose agents restart meanwhile")


def _generate(args: argparse.Namespace) -> int:
    # Imported here, so that other commands don't wait for them.
    from vtrace.synthetic.generating import build_world, generate
    from vtrace.synthetic.truth import TruthFile

    options = _options(args)
    _check(args)
    world = build_world(options)
    truth = TruthFile(args.truth)
    try:
        sink = _sink(args)
    except VTraceError:
        truth.abandon()
        raise
    totals = generate(world, sink, truth)
    summary: dict[str, Any] = {
        "records": totals.delivered,
        "written": totals.written,
        "lost": totals.lost,
        "repeated": totals.repeated,
        "packets": totals.packets,
        "tasks": options.tasks,
        "servers": options.servers,
        "streams": totals.streams,
        "dispositions": totals.dispositions,
        "kinds": totals.kinds,
        "seed": options.seed,
        "bytes": sink.size_bytes,
        "out": str(args.out),
        "truth": str(args.truth or ""),
    }
    print(json.dumps(summary, indent=1) if args.json else _text(summary))
    return 0


def _options(args: argparse.Namespace) -> Options:
    from vtrace.synthetic.kinds import KINDS
    from vtrace.synthetic.options import Options

    if args.records and args.packets is not None:
        raise UsageError("--records and --packets both say how much", "--records, --packets", "", "Give one of them")
    names = "servers regions vpcs switches tasks pairs records seed faults floods loops moves identical log_loss repeat"
    given = {name: getattr(args, name) for name in f"{names} late shuffle restarts".split()}
    if args.packets is not None:
        given["packets"] = args.packets
    kinds = tuple(args.kinds.split(",")) if args.kinds else KINDS
    return Options(**given, kinds=kinds, skew_s=args.skew * _SECONDS_PER_HOUR).check()


def _check(args: argparse.Namespace) -> None:
    if args.buckets < 1 or args.buckets & (args.buckets - 1) or args.buckets > _MAX_BUCKETS:
        why = f"it has to be a power of two, at most {_MAX_BUCKETS:,}"
        raise UsageError(f"--buckets {args.buckets} can't be", "--buckets", why, "Use 16, for example")
    if not 1 <= args.blob_records <= _MAX_BLOB_RECORDS:
        what = f"--blob-records {args.blob_records} is out of range"
        raise UsageError(what, "--blob-records", f"it has to be 1 to {_MAX_BLOB_RECORDS:,}", "Use 10000, for example")
    if args.truth is not None and args.truth == args.out:
        raise UsageError("records and truth can't be in one file", "--out, --truth", "", "Name two files")


def _sink(args: argparse.Namespace) -> Sink:
    from vtrace.synthetic.output import BLOBS, PARQUET, BlobSink, ParquetSink, ShuffledSink

    if args.out.suffix == BLOBS:
        return BlobSink(args.out, buckets=args.buckets, blob_records=args.blob_records, shuffle=args.shuffle)
    if args.out.suffix == PARQUET:
        return ShuffledSink(ParquetSink(args.out)) if args.shuffle else ParquetSink(args.out)
    why = f"its name ends in {args.out.suffix or 'nothing'}"
    raise UsageError("--out names no kind of file", str(args.out), why, f"Let it end in {PARQUET} or {BLOBS}")


def _text(summary: dict[str, Any]) -> str:
    """The summary for people."""
    dispositions = ", ".join(f"{count:,} {word}" for word, count in summary["dispositions"].items())
    lines = [
        f"{summary['records']:,} records of {summary['packets']:,} packets ({dispositions})",
        f"{summary['written']:,} were written, {summary['lost']:,} lost on the way, {summary['repeated']:,} came twice",
        f"{summary['tasks']:,} tasks, {summary['servers']:,} servers, {summary['streams']:,} log streams",
        f"{summary['out']}: {summary['bytes']:,} bytes",
    ]
    return "\n".join(lines)
