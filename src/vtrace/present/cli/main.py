"""The `vtrace` program."""

from __future__ import annotations

import argparse
import atexit
import gc
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import msgspec

from vtrace import __version__
from vtrace.errors import CannotWorkError, UsageError, VTraceError, first_leaf

# In the order in which help lists them.
COMMANDS = ("diagnose", "doctor", "lab", "reconstruct", "generate", "bench")
EXIT_CANNOT_WORK = 4
EXIT_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting, so that wrong usage too is one JSON document with --json."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(message, self.prog, "", f"See {self.prog} --help")


def parser(*commands: str) -> argparse.ArgumentParser:
    """The command line's grammar; of these commands only, whose modules alone are loaded then."""
    root = _Parser(prog="vtrace", description="Says why real packets are persistently lost in a cloud overlay network.")
    root.add_argument("--version", action="version", version=f"vtrace {__version__}")
    grammar: argparse._SubParsersAction[argparse.ArgumentParser] = root.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser
    )
    for command in commands or COMMANDS:
        importlib.import_module(f"vtrace.present.cli.{command}").add_parser(grammar)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    # All memory is the system's again when the process ends: collecting what a library made takes a sixth of a second.
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
    try:
        _require_text(words)
        arguments = parser(*(word for word in words[:1] if word in COMMANDS)).parse_args(words)
        return int(arguments.func(arguments))
    except VTraceError as error:
        report(error, as_json=wants_json(words))
        return error.exit_code
    except BaseExceptionGroup as group:
        leaf = first_leaf(group)
        if isinstance(leaf, VTraceError):
            report(leaf, as_json=wants_json(words))
            return leaf.exit_code
        if isinstance(leaf, KeyboardInterrupt):
            return interrupted(as_json=wants_json(words))
        return broken(group, as_json=wants_json(words))
    except KeyboardInterrupt:
        return interrupted(as_json=wants_json(words))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001  # the entry point
        return broken(error, as_json=wants_json(words))


def broken(error: BaseException, *, as_json: bool) -> int:
    """Says that VTrace itself failed. Python's own exit code for that is 1, which here means "loss"."""
    traceback.print_exception(error)
    cause = first_leaf(error) if isinstance(error, BaseExceptionGroup) else error
    report(
        CannotWorkError(
            "VTrace itself failed, so there is no answer",
            "",
            f"{type(cause).__name__}: {cause}",
            "Please report it with the lines above",
        ),
        as_json=as_json,
    )
    return EXIT_CANNOT_WORK


def interrupted(*, as_json: bool) -> int:
    """Says that the user broke it off."""
    report(VTraceError("Interrupted", "", "", "Everything of ours was removed"), as_json=as_json)
    return EXIT_INTERRUPTED


def wants_json(words: Sequence[str]) -> bool:
    """Whether --json is among our own options."""
    return "--json" in _own(words)


def _own(words: Sequence[str]) -> Sequence[str]:
    """The words before `--`: what follows belongs to somebody else."""
    return words[: words.index("--")] if "--" in words else words


def _require_text(words: Sequence[str]) -> None:
    """Checks that our own words are UTF-8: they go into documents and queries, which hold nothing else.

    Raises:
        UsageError: one is not.
    """
    for number, word in enumerate(_own(words), 1):
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError(f"Argument {number} is no UTF-8 text", "", ascii(word)[:200], "") from None


def report(error: VTraceError, *, as_json: bool) -> None:
    """Says what went wrong: text to stderr, and with --json the one document to stdout, if that takes it."""
    try:
        if as_json:
            print(msgspec.json.format(msgspec.json.encode({"error": error.as_dict()})).decode())
        sys.stdout.flush()
    except OSError:
        # What is still to be written would be tried again at the end, and make an exit code of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    print(f"vtrace: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
