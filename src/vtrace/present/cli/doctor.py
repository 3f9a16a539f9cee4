"""`vtrace doctor`: can VTrace work here, and what stands in the way?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import msgspec

from vtrace.errors import CannotWorkError
from vtrace.present.cli.where import add_where

if TYPE_CHECKING:
    from vtrace.doctor.finding import Examination

EXIT_CODES = {"fine": 0, "warnings": 1, "cannot_work": 4}
_MARKS = {"problem": "✗", "warning": "!", "note": "·", "ok": "✓"}
_ENDINGS = {
    "fine": "VTrace can work here.",
    "warnings": "VTrace can work here; read the warnings first.",
    "cannot_work": "VTrace can't work here.",
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the command."""
    parser = commands.add_parser(
        "doctor",
        help="say whether VTrace can work on this host, and what stands in the way",
        description="Looks at this host (or all of a lab's) before the first color: versions, sockets, the bridge's "
        "layout, meters, other controllers, the datapath, the load. It changes nothing.",
        epilog="Exit codes: 0 it can work, 1 it can, with warnings, 2 wrong usage, 4 can't work here.",
    )
    add = parser.add_argument
    add("--json", action="store_true", help="print one JSON document")
    add_where(parser, verb="look at")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    import anyio

    from vtrace.doctor.examining import examine_cloud
    from vtrace.doctor.finding import examination, from_error
    from vtrace.embedded import find_cloud

    try:
        cloud = find_cloud(
            lab=arguments.lab,
            nb=arguments.nb,
            sb=arguments.sb,
            rundir=arguments.rundir,
            bridge=arguments.bridge,
        )
    except CannotWorkError as error:
        found = examination((), [from_error("cloud", "", error)])
    else:
        if cloud.plain is not None:
            raise CannotWorkError("A plain lab has no OVN to look at", "--lab", "", "See docs/plain-ovs.md")
        found = anyio.run(examine_cloud, cloud)
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        print("\n".join(lines(found)))
    return EXIT_CODES[found.state]


def lines(found: Examination) -> list[str]:
    """The examination for people: the worst first; what several servers have in common is said once."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for one in found.findings:
        alike.setdefault((one.level, one.check, one.what, one.why, one.next_step), []).append(one.where)
    shown = [line for texts, places in alike.items() for line in _lines(*texts, place=", ".join(filter(None, places)))]
    return [*shown, "", _ENDINGS[found.state]]


def _lines(level: str, check: str, what: str, why: str, next_step: str, *, place: str) -> list[str]:
    shown = [f"{_MARKS[level]} {check}{f' ({place})' if place else ''}: {what}"]
    shown += [f"    why: {why}"] if why else []
    shown += [f"    do:  {next_step}"] if next_step else []
    return shown
