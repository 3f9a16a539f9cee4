"""`vtrace lab`: a real overlay network on this machine."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from vtrace.errors import UsageError, VTraceError
from vtrace.lab import build, namespaces, programs, status
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
    up.add_argument("topology", nargs="?", metavar="TOPOLOGY", help="a topology file (default: the one that ships)")

    show = _command(commands, "status", _status, "say what stands; exit code 1 when the lab is not up")
    show.add_argument("--json", action="store_true", help="print one JSON document")

    execute = _command(commands, "exec", _exec, "become a command on a node")
    execute.add_argument("node", metavar="NODE")
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD…")

    _command(commands, "down", _down, "remove all of the lab")


def _command(commands: Subparsers, name: str, func: Any, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    _add_option_lab(parser, argparse.SUPPRESS)
    parser.set_defaults(func=func)
    return parser


def _add_option_lab(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument("--lab", metavar="NAME", default=default, help="which lab (default: $VTRACE_LAB, else lab)")


def _progress(text: str) -> None:
    print(f"lab: {text}", file=sys.stderr, flush=True)


def _terminate(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def _up(args: argparse.Namespace) -> int:
    name = lab_state.lab_name(args.lab)
    signal.signal(signal.SIGTERM, _terminate)
    state = build.up(name, args.topology, _progress)
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


def _down(args: argparse.Namespace) -> int:
    name = lab_state.lab_name(args.lab)
    print(f"lab {name} is down" if build.down(name) else f"lab {name} was not up")
    return 0


def main() -> int:
    """Run `lab` alone (`python -m vtrace.present.cli.lab up`), as long as there is no `vtrace` around it."""
    parser = argparse.ArgumentParser(prog="vtrace")
    add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["lab", *sys.argv[1:]])
    try:
        return int(args.func(args))
    except VTraceError as error:
        print(f"vtrace: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
