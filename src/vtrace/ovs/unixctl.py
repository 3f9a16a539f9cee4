"""Calls commands of an OVS daemon through its control socket (ovs-appctl(8))."""

from __future__ import annotations

import os
import time

import anyio

from vtrace.errors import CannotWorkError, ProtocolError
from vtrace.ovs.allowance import Allowance
from vtrace.ovs.jsonrpc import transact

# Of each control socket, for all that this process asks there.
ALLOWANCES: dict[str, Allowance] = {}
# What a call is taken to cost at most where the daemon's processor time can't be seen.
UNSEEN_S = 0.1


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


def main_thread_s(path: str) -> float:
    """The processor time of a daemon's main thread so far, in seconds (/proc/PID/task/TID/schedstat, proc(5)).

    0 where it can't be told: the daemon is in another PID namespace, or gone. One that hangs takes no time.
    """
    daemon, _, rest = os.path.basename(path).partition(".")
    pid = rest.partition(".")[0]
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as name, open(f"/proc/{pid}/task/{pid}/schedstat") as file:
            return int(file.read().split()[0]) / 1e9 if daemon.startswith(name.read().strip()) else 0.0
    except (OSError, ValueError, IndexError):
        return 0.0


async def call(path: str, command: str, *args: str, timeout_s: float = 5) -> str:
    """Runs one command and returns its text; waits first where the daemon was asked much of late (`allowance`).

    Args:
        path: the control socket.
        command: for example `ofproto/trace`; `args` are passed as they are.
        timeout_s: limit for the call, once it is its turn.

    Raises:
        CannotWorkError: nobody serves the socket, or no answer within the limit.
        UnixctlError: the daemon refused the command.
        ProtocolError: the answer is no JSON-RPC reply.
    """
    daemon = os.path.basename(path).split(".", 1)[0] or "the daemon"
    allowance = ALLOWANCES.setdefault(path, Allowance(time.monotonic()))
    if wait_s := allowance.ask(time.monotonic()):
        await anyio.sleep(wait_s)
    began_s, worked_s = time.monotonic(), main_thread_s(path)
    try:
        reply = await transact(path, command, args, daemon=daemon, timeout_s=timeout_s)
    finally:
        ended_s = time.monotonic()
        took_s = main_thread_s(path) - worked_s if worked_s else min(ended_s - began_s, UNSEEN_S)
        allowance.spend(ended_s, min(max(0.0, took_s), ended_s - began_s))
    if reply.error is not None:
        raise UnixctlError(f"{command} failed", where=path, why="; ".join(str(reply.error).split("\n")).strip("; "))
    if not isinstance(reply.result, str):
        raise ProtocolError(f"{command} returned no text", where=path, why=f"result is {reply.result!r:.80}")
    return reply.result
