"""Running ordinary programs for the lab: in the root namespaces or in a node's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic, sleep
from typing import Any

from vtrace.errors import CannotWorkError, VTraceError
from vtrace.lab import releases
from vtrace.lab import state as lab_state
from vtrace.lab.state import LabState

OVN_PACKAGES = {
    "ovn-nbctl": "ovn-central",
    "ovn-sbctl": "ovn-central",
    "ovn-northd": "ovn-central",
    "ovn-controller": "ovn-host",
}
"""Every program that every lab with OVN runs, and the Debian package that has it."""
PACKAGES = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "umount": "mount",
    "hostname": "hostname",
    "ethtool": "ethtool",
    "nft": "nftables",
    "ovs-vsctl": "openvswitch-switch",
    "ovs-ofctl": "openvswitch-switch",
    "ovs-appctl": "openvswitch-switch",
    "ovs-vswitchd": "openvswitch-switch",
    "ovsdb-server": "openvswitch-switch",
    "ovsdb-tool": "openvswitch-switch",
}
"""Every program that every lab runs."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMMAND_TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.03


class ProgramError(VTraceError):
    """A program the lab ran failed."""


def require_root() -> None:
    """Raise CannotWorkError unless we are root (namespaces need it)."""
    if os.geteuid() != 0:
        raise CannotWorkError("the lab needs root", "", "it makes network namespaces", "run it with sudo")


def require_programs(also: Mapping[str, str] | None = None) -> None:
    """Raise CannotWorkError naming the packages of the programs that are missing.

    Args:
        also: further programs, and the package of each.
    """
    wanted = {**PACKAGES, **(also or {})}
    missing = [name for name in wanted if shutil.which(name, path=search_path()) is None]
    if missing:
        packages = " ".join(sorted({wanted[name] for name in missing}))
        raise CannotWorkError(
            "programs are missing", "", " ".join(missing), f"apt-get install --no-install-recommends {packages}"
        )


def search_path() -> str:
    """PATH with the system directories in it, whoever calls (cron and sudo drop sbin)."""
    return os.environ.get("PATH", "") + ":" + SYSTEM_PATH


def node_environment(state: LabState, node: str) -> dict[str, str]:
    """The environment a command has on a node: its own tools find its own daemons."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("OVS_", "OVN_"))}
    env["PATH"] = releases.search_path(state, node, search_path())
    role = state.node(node).role
    if role in ("hypervisor", "gateway", "central"):
        rundir = str(lab_state.node_directory(state.name, node))
        for variable in ("RUNDIR", "LOGDIR", "DBDIR", "SYSCONFDIR"):
            env[f"OVS_{variable}"] = env[f"OVN_{variable}"] = rundir
    if role in ("outside", "speaker"):
        env["BIRD_SOCKET"] = str(lab_state.node_directory(state.name, node) / "bird.ctl")
    if role == "central" and state.kind == "ovn":
        env["OVN_NB_DB"] = state.nb_remote
        env["OVN_SB_DB"] = state.sb_remote
    return env


def node_command(state: LabState, node: str, argv: Sequence[str]) -> list[str]:
    """The command that runs argv in a node's network and UTS namespaces."""
    return [
        "nsenter",
        f"--net=/run/netns/{lab_state.namespace(state.name, node)}",
        f"--uts={lab_state.uts_file(state.name, node)}",
        "--",
        *argv,
    ]


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    text: str | None = None,
    keep_fds: Iterable[int] = (),
    timeout_s: float = COMMAND_TIMEOUT_S,
) -> str:
    """Run a program to its end and return what it printed.

    Args:
        argv: the program and its arguments.
        env: its environment; ours, with a full PATH, if not given.
        text: its standard input.
        keep_fds: file descriptors it inherits.
        timeout_s: in seconds.

    Raises:
        ProgramError: it is missing, failed, or took too long.
    """
    environment = dict(env) if env is not None else {**os.environ, "PATH": search_path()}
    try:
        done = subprocess.run(
            list(argv),
            env=environment,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            pass_fds=tuple(keep_fds),
            check=False,
        )
    except FileNotFoundError as error:
        raise ProgramError("a program is missing", argv[0]) from error
    except subprocess.TimeoutExpired as error:
        raise ProgramError("a program did not end in time", " ".join(argv), f"{timeout_s:g} s") from error
    if done.returncode != 0:
        raise ProgramError("a program failed", " ".join(argv), done.stderr.strip() or f"exit code {done.returncode}")
    return done.stdout


def run_on(
    state: LabState, node: str, argv: Sequence[str], *, text: str | None = None, timeout_s: float = COMMAND_TIMEOUT_S
) -> str:
    """Run a program on a node, as `lab exec` would, and return what it printed.

    Raises:
        ProgramError: it is missing, failed, or took too long.
    """
    command = node_command(state, node, argv)
    return run(command, env=node_environment(state, node), text=text, timeout_s=timeout_s)


class Patience:
    """How long `lab up` may go on: until its time is over, or somebody sends SIGINT or SIGTERM.

    A signal only sets a mark, which the next look at the clock turns into SystemExit: between two steps, so that
    no thread is left behind that goes on building what is being removed. Inside a `with`; main thread only.
    """

    def __init__(self, seconds: float) -> None:
        self._until = monotonic() + seconds
        self._signal: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Patience:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._mark)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _mark(self, number: int, _frame: object) -> None:
        self._signal = number

    def left_s(self) -> float:
        """Seconds that are left, 0 when it is over.

        Raises:
            SystemExit: a signal came.
        """
        if self._signal is not None:
            raise SystemExit(128 + self._signal)
        return max(0.0, self._until - monotonic())


def wait_for(check: Callable[[], bool], *, what: str, where: str, patience: Patience, seen: Callable[[], str]) -> None:
    """Poll until a condition holds.

    Args:
        check: the condition.
        what: what is waited for, in words.
        where: the node.
        patience: until when.
        seen: describes the state found, for the error.

    Raises:
        CannotWorkError: it did not come to hold in time; says what was waited for and what was seen.
    """
    began = monotonic()
    while not check():
        if not patience.left_s():
            raise CannotWorkError(f"waited {monotonic() - began:.0f} s for {what}", where, seen())
        sleep(POLL_INTERVAL_S)
