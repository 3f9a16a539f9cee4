"""`vtrace diagnose`: is there a loss, where, and why."""

from __future__ import annotations

import argparse
import ipaddress
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from vtrace.errors import CannotWorkError, UsageError
from vtrace.model.answer import Answer
from vtrace.model.task import Direction, TaskSpec, TrafficFilter
from vtrace.present.cli.ending import end_as_by_ctrl_c
from vtrace.present.cli.where import add_where
from vtrace.task import admission

if TYPE_CHECKING:
    from vtrace.embedded import Cloud

EXIT_NO_LOSS, EXIT_LOSS, EXIT_NO_VERDICT = 0, 1, 3
_DIRECTIONS = {
    "forward": (Direction.FORWARD,),
    "reply": (Direction.REPLY,),
    "both": (Direction.FORWARD, Direction.REPLY),
}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the command."""
    parser = commands.add_parser(
        "diagnose",
        help="say whether packets are lost between VMs, where, and why",
        description="Colors a few real packets of the traffic, follows them through every virtual device, and says "
        "whether there is a loss, which device on which server is responsible, and why.",
        epilog="Exit codes: 0 no loss, 1 loss, 2 wrong usage, 3 no verdict, 4 can't work here.",
    )
    add = parser.add_argument
    add("--from", dest="sources", metavar="A[,A…]", required=True, help="port name, VPC/address, address or CIDR")
    add("--to", dest="destinations", metavar="B[,B…]", required=True, help="the same")
    add("--proto", choices=("tcp", "udp", "icmp"), default="", help="only this protocol (default: any IP)")
    add("--sport", type=int, metavar="P", help="only this source port")
    add("--dport", type=int, metavar="P", help="only this destination port")
    add("--tcp-flags", metavar="F", help="only TCP packets with these flags, as in +syn-ack")
    add("--icmp-type", type=int, metavar="T", help="only this ICMP type")
    add("--ip", type=int, choices=(4, 6), help="IP version (default: that of the addresses given, else 4)")
    add("--direction", choices=tuple(_DIRECTIONS), default="forward", help="default: forward")
    add("--packets", type=int, default=100, metavar="N", help="packets a pair and direction (default 100)")
    add("--timeout", type=float, default=30.0, metavar="S", help="time limit in seconds (default 30)")
    add("--json", action="store_true", help="print one JSON document")
    add("--watch", action="store_true", help="go on with new tasks until interrupted")
    add("--allow-dscp", action="store_true", help="color although something on the path reads or writes the DSCP")
    add("--records", type=Path, metavar="FILE", help="keep all log records in FILE (.parquet or .arrow)")
    add("--controller", metavar="URL", help="give the task to a controller (not built yet)")
    add_where(parser, verb="work on")
    add(
        "--inventory", metavar="FILE", help="bridges without OVN: what they are and what joins them (docs/plain-ovs.md)"
    )
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    # Imported here, so that other commands don't wait for Arrow and the databases' protocol.
    import anyio

    from vtrace.embedded import find_cloud, plain_cloud

    spec = _spec(arguments)
    admission.check(spec)
    if arguments.controller:
        raise CannotWorkError(
            "There is no controller to give the task to",
            "--controller",
            "the distributed shape is not built yet",
            "Leave it out",
        )
    if arguments.inventory:
        if arguments.lab or arguments.nb or arguments.sb or arguments.rundir:
            raise UsageError(
                "--inventory stands alone", "--inventory", "the file says where the bridges are", "Leave the others out"
            )
        cloud = plain_cloud(arguments.inventory)
    else:
        cloud = find_cloud(
            lab=arguments.lab,
            nb=arguments.nb,
            sb=arguments.sb,
            rundir=arguments.rundir,
            bridge=arguments.bridge,
        )
    end_as_by_ctrl_c()
    _give_up_privileges(cloud, arguments.records)
    if arguments.records:
        # Not before: Arrow has threads of its own, and privileges are each thread's.
        from vtrace.collect.writing import check_path

        check_path(arguments.records)
    while True:
        answer = anyio.run(partial(_diagnose, spec, cloud, arguments.records))
        _print(answer, as_json=arguments.json)
        if not arguments.watch:
            return exit_code(answer)


def _give_up_privileges(cloud: Cloud, records: Path | None) -> None:
    """Keeps of root what the task takes, and says so; a kernel that refuses is told of, too."""
    from vtrace.agent import privileges

    plain = (
        [(server.rundir, bridge) for server in cloud.plain.servers for bridge in server.bridges] if cloud.plain else []
    )
    places = [*((server.rundir, server.bridge) for server in cloud.servers), *plain]
    rundirs, bridges = (list(dict.fromkeys(names)) for names in zip(*places, strict=True))
    writes = [str(records.parent)] if records else []
    keep = privileges.needed(rundirs, bridges, remotes=[cloud.nb, cloud.sb], writes=writes)
    try:
        left = privileges.drop(keep)
    except OSError as error:
        _say(f"privileges could not be given up: {error}")
        return
    _say(privileges.told(keep, left))


def _say(text: str) -> None:
    print(f"vtrace: {text}", file=sys.stderr, flush=True)


async def _diagnose(spec: TaskSpec, cloud: Cloud, records: Path | None) -> Answer:
    from vtrace.embedded import diagnose

    return await diagnose(spec, cloud, _say, records)


def _print(answer: Answer, *, as_json: bool) -> None:
    """Writes the answer to stdout.

    Raises:
        CannotWorkError: it can't be written (a full disk), and exit codes 0 to 3 would say what nobody can read.
    """
    try:
        if as_json:
            print(msgspec.json.format(msgspec.json.encode(answer)).decode(), flush=True)
        else:
            from vtrace.present.cli.render import render

            render(answer)
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CannotWorkError(
            f"The answer could not be written (loss: {answer.loss})",
            "stdout",
            error.strerror or str(error),
            "Nothing of ours is left on the bridges; make room, and ask again",
        ) from error


def exit_code(answer: Answer) -> int:
    """0 no loss, 1 loss, 3 no verdict."""
    return {"no": EXIT_NO_LOSS, "yes": EXIT_LOSS}.get(answer.loss, EXIT_NO_VERDICT)


def _spec(arguments: argparse.Namespace) -> TaskSpec:
    sources, destinations = _listed(arguments.sources), _listed(arguments.destinations)
    return TaskSpec(
        task_id="",
        sources=sources,
        destinations=destinations,
        traffic=TrafficFilter(
            proto=arguments.proto,
            sport=arguments.sport,
            dport=arguments.dport,
            tcp_flags=_flags(arguments.tcp_flags),
            icmp_type=arguments.icmp_type,
            ip_version=arguments.ip or _version((*sources, *destinations)),
        ),
        directions=_DIRECTIONS[arguments.direction],
        packets=arguments.packets,
        timeout_s=arguments.timeout,
        allow_dscp_conflict=arguments.allow_dscp,
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _version(endpoints: tuple[str, ...]) -> int:
    """6 if any endpoint is written as an IPv6 address or CIDR, with or without its VPC."""
    return 6 if any(_is_ipv6(text) or _is_ipv6(text.partition("/")[2]) for text in endpoints) else 4


def _is_ipv6(text: str) -> bool:
    """Port names may have colons too."""
    try:
        return ipaddress.ip_network(text, strict=False).version == 6
    except ValueError:
        return False


_TCP_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns")


def _flags(text: str | None) -> str | None:
    """TCP flags as ovs-fields(7) writes them; "syn" and "syn,ack" are taken as "+syn" and "+syn+ack"."""
    if text is None:
        return None
    if text and text[0] not in "+-":
        text = "".join(f"+{word.strip()}" for word in text.split(","))
    words = text.replace("+", " +").replace("-", " -").split()
    wrong = [word for word in words if word[0] not in "+-" or word[1:].lower() not in _TCP_FLAGS]
    if wrong or not words:
        raise UsageError(
            f"--tcp-flags {text!r} is not understood",
            "--tcp-flags",
            f"flags are {', '.join(_TCP_FLAGS)}",
            "Write +syn-ack",
        )
    return "".join(word.lower() for word in words)
