"""Calls commands of an OVS daemon through its control socket (ovs-appctl(8))."""

from __future__ import annotations

import os

from vtrace.errors import CannotWorkError, ProtocolError
from vtrace.ovs.jsonrpc import transact


class UnixctlError(CannotWorkError):
    """The daemon answered, with an error: the command is unknown or it refused the arguments."""


def ctl_path(rundir: str, daemon: str = "ovs-vswitchd") -> str:
    """The control socket of `daemon`, from its pidfile: `<rundir>/<daemon>.<pid>.ctl`.

    Raises:
        CannotWorkError: no pidfile, or an unreadable one.
    """
    pidfile = os.path.join(rundir, f"{daemon}.pid")
    try:
        with open(pidfile, encoding="ascii") as file:
            pid = int(file.read(64))
    except (OSError, ValueError) as error:
        raise CannotWorkError(
            f"can't tell the process id of {daemon}",
            where=pidfile,
            why=str(error),
            next_step=f"Check that {daemon} runs and that this is its run directory",
        ) from error
    return os.path.join(rundir, f"{daemon}.{pid}.ctl")


async def call(path: str, command: str, *args: str, timeout_s: float = 5) -> str:
    """Runs one command and returns its text.

    Args:
        path: the control socket.
        command: for example `ofproto/trace`; `args` are passed as they are.
        timeout_s: limit for the whole call.

    Raises:
        CannotWorkError: nobody serves the socket, or no answer within the limit.
        UnixctlError: the daemon refused the command.
        ProtocolError: the answer is no JSON-RPC reply.
    """
    daemon = os.path.basename(path).split(".", 1)[0] or "the daemon"
    reply = await transact(path, command, args, daemon=daemon, timeout_s=timeout_s)
    if reply.error is not None:
        raise UnixctlError(f"{command} failed", where=path, why="; ".join(str(reply.error).split("\n")).strip("; "))
    if not isinstance(reply.result, str):
        raise ProtocolError(f"{command} returned no text", where=path, why=f"result is {reply.result!r:.80}")
    return reply.result
