"""`vtrace lab`: a real overlay network on this machine."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from vtrace.errors import UsageError
from vtrace.lab import breaking, build, faults, namespaces, programs, status, traffic
from vtrace.lab import state as lab_state

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

EXIT_NOT_UP = 1
EXIT_NO_SUCH_COMMAND = 127
EXIT_CANNOT_RUN = 126


def add_parser(subparsers: Subparsers) -> None:
    """Register `lab` and its commands."""
    lab = subparsers.add_parser("lab", help="a real overlay network on this machine", description=__doc__)
    commands = lab.add_subparsers(dest="lab_command", required=True, metavar="COMMAND")
    _add_option_lab(lab, None)

    up = _command(commands, "up", _up, "build the lab and wait until it forwards")
    up.add_argument("topology", nargs="?", metavar="TOPOLOGY", help="a topology file, or the name of one that ships")
    up.add_argument(
        "--release",
        action="append",
        metavar="NODE=FOLDER",
        help="run a node's (or all nodes') Open vSwitch and OVN out of this folder (default: VTRACE_LAB_RELEASE)",
    )

    show = _command(commands, "status", _status, "say what stands; exit code 1 when the lab is not up")
    show.add_argument("--json", action="store_true", help="print one JSON document")

    execute = _command(commands, "exec", _exec, "become a command on a node")
    execute.add_argument("node", metavar="NODE")
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD…")

    _add_traffic(commands)

    cut = _command(commands, "break", _break, "put a named fault in")
    cut.add_argument("fault", nargs="?", metavar="FAULT")
    cut.add_argument("parameters", nargs="*", metavar="KEY=VALUE")
    cut.add_argument("--list", action="store_true", help="list the faults and their parameters")

    heal = _command(commands, "heal", _heal, "take one fault out, or all")
    heal.add_argument("what", nargs="?", metavar="ID|FAULT")

    _command(commands, "down", _down, "remove all of the lab")


def _add_traffic(commands: Subparsers) -> None:
    parser = commands.add_parser("traffic", help="keep real traffic going between VMs")
    _add_option_lab(parser, argparse.SUPPRESS)
    traffics = parser.add_subparsers(required=True, metavar="start|stop|list")

    start = _command(traffics, "start", _traffic_start, "start a traffic and print its id")
    start.add_argument("--from", dest="source", required=True, metavar="NODE[:ADDRESS]", help="a VM or outside box")
    start.add_argument("--source", dest="source_address", metavar="ADDRESS", help="one of the sender's, to send from")
    start.add_argument("--to", required=True, metavar="NODE[:ADDRESS]|ADDRESS")
    start.add_argument("--proto", choices=("tcp", "udp", "icmp"), default="udp")
    start.add_argument("--sport", type=int, metavar="PORT")
    start.add_argument("--dport", type=int, metavar="PORT", help="default: one that no other traffic uses")
    start.add_argument("--rate", type=float, default=traffic.DEFAULT_RATE_PPS, metavar="PPS", help="messages a second")
    start.add_argument("--size", type=int, default=traffic.DEFAULT_SIZE_BYTES, metavar="BYTES", help="of payload")
    start.add_argument("--flows", type=int, default=1, metavar="N", help="N source ports, used in turn (default: 1)")
    start.add_argument("--ip", type=int, choices=(4, 6))
    start.add_argument("--dscp", type=int, default=0)
    start.add_argument("--seconds", type=float, default=traffic.DEFAULT_SECONDS, help="it ends by itself after that")
    start.add_argument("--no-server", dest="server", action="store_false", help="nobody listens at the other side")

    stop = _command(traffics, "stop", _traffic_stop, "stop one traffic, or all")
    stop.add_argument("id", nargs="?", metavar="ID")

    show = _command(traffics, "list", _traffic_list, "list the traffics and their counts")
    show.add_argument("--json", action="store_true", help="print one JSON document")


def _command(commands: Subparsers, name: str, func: Any, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    _add_option_lab(parser, argparse.SUPPRESS)
    parser.set_defaults(func=func)
    return parser


def _add_option_lab(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument("--lab", metavar="NAME", default=default, help="which lab (default: $VTRACE_LAB, else lab)")


def _progress(text: str) -> None:
    print(f"lab: {text}", file=sys.stderr, flush=True)


def _up(args: argparse.Namespace) -> int:
    name = lab_state.lab_name(args.lab)
    state = build.up(name, args.topology, _progress, args.release)
    print(f"lab {name} is up: {len(state.servers)} servers, {len(state.vms)} VMs. vtrace lab status --lab {name}")
    return 0


def _status(args: argparse.Namespace) -> int:
    name = lab_state.lab_name(args.lab)
    state = lab_state.load(name)
    if state is None:
        print(f"lab {name} is not up", file=sys.stderr)
        return EXIT_NOT_UP
    print(json.dumps(status.document(state), indent=2) if args.json else status.text(state))
    return 0


def _exec(args: argparse.Namespace) -> int:
    """Become the command; returns only when that fails."""
    command = list(args.command)
    if command[:1] == ["--lab"] and len(command) > 1:  # argparse takes all after NODE for the command
        args.lab = command[1]
        del command[:2]
    if command[:1] == ["--"]:
        del command[0]
    if not command:
        raise UsageError("there is no command to run", "lab exec", "", "vtrace lab exec NODE -- CMD…")
    programs.require_root()
    state = lab_state.require(lab_state.lab_name(args.lab))
    node = state.node(args.node)
    env = programs.node_environment(state, node.name)
    program = shutil.which(command[0], path=env["PATH"])
    if program is None:
        print(f"vtrace lab exec: {command[0]}: there is no such command", file=sys.stderr)
        return EXIT_NO_SUCH_COMMAND
    namespaces.enter(state.name, node.name)
    try:
        os.execve(program, command, env)
    except OSError as error:
        print(f"vtrace lab exec: {command[0]}: {error.strerror}", file=sys.stderr)
        return EXIT_CANNOT_RUN


def _traffic_start(args: argparse.Namespace) -> int:
    programs.require_root()
    state = lab_state.require(lab_state.lab_name(args.lab))
    fields = traffic.Wish.__struct_fields__
    wish = traffic.Wish(**{name: getattr(args, name) for name in fields})
    started = traffic.start(state, wish, flows=args.flows, source_address=args.source_address)
    print(started.text(), file=sys.stderr)
    print(started.id)
    return 0


def _traffic_stop(args: argparse.Namespace) -> int:
    programs.require_root()
    for stopped in traffic.stop(lab_state.require(lab_state.lab_name(args.lab)), args.id):
        print(f"stopped {stopped.text()}", file=sys.stderr)
    return 0


def _traffic_list(args: argparse.Namespace) -> int:
    state = lab_state.require(lab_state.lab_name(args.lab))
    rows = []
    for one in traffic.all_of(state):
        running = traffic.is_running(one)
        rows.append({**msgspec.to_builtins(one), **traffic.counts(state, one), "running": running})
        if not args.json:
            counts = " ".join(f"{key} {value}" for key, value in traffic.counts(state, one).items())
            print(f"{one.text()}: {counts}{'' if running else ', ended'}")
    if args.json:
        print(json.dumps(rows, indent=2))
    return 0


def _break(args: argparse.Namespace) -> int:
    if args.list:
        print(faults.listing())
        return 0
    if args.fault is None:
        raise UsageError("which fault?", "lab break", "", "vtrace lab break --list")
    programs.require_root()
    broken = breaking.apply(lab_state.require(lab_state.lab_name(args.lab)), args.fault, args.parameters)
    for command in broken.done:
        print(f"on {command.node}: {shlex.join(command.argv)}", file=sys.stderr)
    print(broken.id)
    return 0


def _heal(args: argparse.Namespace) -> int:
    programs.require_root()
    for broken in breaking.heal(lab_state.require(lab_state.lab_name(args.lab)), args.what):
        print(f"healed {broken.text()}", file=sys.stderr)
    return 0


def _down(args: argparse.Namespace) -> int:
    name = lab_state.lab_name(args.lab)
    print(f"lab {name} is down" if build.down(name) else f"lab {name} was not up")
    return 0
