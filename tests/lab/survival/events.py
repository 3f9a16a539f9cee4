"""What can happen around a task: to daemons, to the network, to the disk, to the clock."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from changing import steps
from faults.facts import PROGRAM
from test_lab import on

from survival.cases import ACTS, Case
from vtrace.lab import daemons, plan
from vtrace.lab import state as lab_state
from vtrace.lab.state import LabServer

SOURCE, DESTINATION, BOX = "red-web1", "red-web3", "internet1"
SERVERS = {"source": "hv1", "destination": "hv2", "gateway": "gw1"}
"""In the topology `internet`: red-web1 on hv1 sends to red-web3 on hv2, or by the gateway gw1 to internet1."""
SPARE_SERVER = "gw2"
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
CLOCK_STEP_S = 3600
CUT = """
table inet survival {
    chain in { type filter hook input priority 0; iifname != "lo" drop; }
    chain out { type filter hook output priority 0; oifname != "lo" drop; }
}
"""
RECORDS = "records.parquet"


@dataclass
class Scene:
    """Where a case plays.

    Attributes:
        directory: of the case, for files.
        task: the diagnosing process, once it runs.
        saved: what an event has to remember until its end.
    """

    lab: str
    directory: Path
    task: subprocess.Popen[str] | None = None
    saved: dict[str, str] = field(default_factory=dict)

    def pid(self, node: str, daemon: str) -> int:
        return int((lab_state.node_directory(self.lab, node) / f"{daemon}.pid").read_text())

    def server(self, name: str) -> LabServer:
        return next(s for s in lab_state.require(self.lab).servers if s.name == name)


Action = Callable[[Scene], object]


def nothing(_: Scene) -> None:
    """Nothing is to be done."""


def plainly(_: Scene) -> tuple[str, ...]:
    """The program as it is."""
    return PROGRAM


@dataclass(frozen=True)
class Event:
    """What happens, and how it is taken back.

    Attributes:
        hold: when it is taken back: at once, after a while, when the task has answered, or when all time-outs of our
            entries are over.
        prepare: what has to be so before the task.
        program: how the diagnosis is begun; `arguments` are more of them.
        full: the answer goes to a full disk.
        kills: there is no answer, since the process that would give it is gone.
    """

    begin: Action
    end: Action = nothing
    hold: Literal["none", "while", "task", "expiry"] = "none"
    prepare: Action = nothing
    program: Callable[[Scene], tuple[str, ...]] = plainly
    arguments: Callable[[Scene], tuple[str, ...]] = lambda scene: ()
    full: bool = False
    kills: bool = False


def send(number: int, node: str, daemon: str, scene: Scene) -> None:
    """A signal to a daemon."""
    os.kill(scene.pid(node, daemon), number)


def start(node: str, daemon: str, scene: Scene) -> None:
    """Starts a daemon that has ended."""
    state = lab_state.require(scene.lab)
    if daemon == "ovs-vswitchd":
        daemons.start_vswitchd(state, scene.server(node))
    elif daemon == "ovsdb-server":
        daemons.start_switch_database(state, scene.server(node))
    elif daemon == "ovn-controller":
        daemons.start_controller(state, scene.server(node))
    elif daemon == "ovn-northd":
        daemons.start_northd(state)
    else:
        daemons.start_database(state, "nb" if "nb" in daemon else "sb")


def end(node: str, daemon: str, scene: Scene) -> None:
    """Ends a daemon as its service would, and waits for that."""
    pid = scene.pid(node, daemon)
    if daemon == "ovn-controller":
        on(scene.lab, node, "ovn-appctl", "-t", "ovn-controller", "exit", "--restart")
    else:
        os.kill(pid, signal.SIGTERM)
    waiting = f"for n in $(seq 400); do [ -e /proc/{pid} ] || exit 0; sleep 0.01; done; exit 1"
    on(scene.lab, node, "sh", "-c", waiting)


def both(*actions: Action) -> Action:
    """One after the other."""

    def act(scene: Scene) -> None:
        for action in actions:
            action(scene)

    return act


def to_daemon(act: str, node: str, daemon: str) -> Event:
    """One of the four acts on a daemon."""
    kill, stop, go = (partial(send, n, node, daemon) for n in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT))
    up = partial(start, node, daemon)
    return {
        "kill": Event(begin=kill, end=up, hold="task"),
        "stop": Event(begin=stop, end=go, hold="while"),
        "hang": Event(begin=stop, end=go, hold="task"),
        "restart": Event(begin=both(partial(end, node, daemon), up)),
    }[act]


def to_analyzer(act: str) -> Event:
    """One of the four acts on the diagnosing process, in which the agents run too."""

    def signaled(number: int) -> Action:
        def act_on(scene: Scene) -> None:
            assert scene.task is not None
            scene.task.send_signal(number)

        return act_on

    kill, stop, go = (signaled(number) for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT))
    return {
        "kill": Event(begin=kill, kills=True, hold="expiry"),
        "stop": Event(begin=stop, end=go, hold="while"),
        "hang": Event(begin=stop, end=go, hold="expiry"),
        # A new task comes at once, while what the old one left still stands.
        "restart": Event(begin=kill, kills=True),
    }[act]


def disappear(node: str) -> Event:
    """All daemons of a server die, and its cables are pulled."""
    names = ("ovn-controller", "ovs-vswitchd", "ovsdb-server")

    def links(state: str) -> Action:
        def act(scene: Scene) -> None:
            lab = lab_state.require(scene.lab)
            for wire in lab.wires:
                if node in wire.ends:
                    on(scene.lab, wire.name, "ip", "link", "set", f"to-{node}", state)
            on(scene.lab, "central", "ip", "link", "set", f"to-{node}", state)
            if state == "up":
                for wire in lab.wires:
                    if node in wire.ends:
                        server = scene.server(node)
                        route = ("route", "replace", f"{server.tunnel_address}/32", "dev", f"to-{node}")
                        on(scene.lab, wire.name, "ip", *route)

        return act

    die = [partial(send, signal.SIGKILL, node, name) for name in names]
    rise = [partial(start, node, name) for name in reversed(names)]
    return Event(begin=both(*die, links("down")), end=both(links("up"), *rise), hold="task")


def save_and_restore(node: str) -> Event:
    """ovs-vswitchd restarted as `ovs-ctl restart` does it: entries saved before, put back after, meters not."""

    def act(scene: Scene) -> None:
        save = "/usr/share/openvswitch/scripts/ovs-save save-flows br-int"
        scene.saved["restore"] = on(scene.lab, node, "sh", "-c", f"PATH=$PATH:/usr/sbin {save}")
        end(node, "ovs-vswitchd", scene)
        start(node, "ovs-vswitchd", scene)
        on(scene.lab, node, "sh", "-c", scene.saved["restore"])

    return Event(begin=act)


def cut_management(*, of_analyzer: bool) -> Event:
    """Nothing passes between central and the servers any more, and nobody is told: of the analyzer too, or not."""

    def inside(scene: Scene) -> tuple[str, ...]:
        return ("nsenter", f"--net=/run/netns/{lab_state.namespace(scene.lab, SPARE_SERVER)}", "--", *PROGRAM)

    def by_tcp(_: Scene) -> tuple[str, ...]:
        return ("--sb", f"tcp:{plan.CENTRAL_MGMT_ADDRESS}:{plan.SB_PORT}")

    return Event(
        begin=lambda scene: on(scene.lab, "central", "nft", CUT),
        end=lambda scene: on(scene.lab, "central", "nft", "delete", "table", "inet", "survival"),
        hold="task",
        program=inside if of_analyzer else plainly,
        arguments=by_tcp if of_analyzer else lambda scene: (),
    )


def move(vm: str, origin: str, to: str) -> Event:
    """A VM goes to another server, and back after the answer."""
    away, back = steps.move(vm, origin, to), steps.move(vm, to, origin)
    return Event(begin=lambda scene: away(scene.lab), end=lambda scene: back(scene.lab), hold="task")


def step_clock(seconds: int) -> Event:
    """The clock that the analyzer's process and its agents see is set; the machine's is not touched."""

    def write(offset: int) -> Action:
        return lambda scene: (scene.directory / "clock").write_text(f"{offset:+d}s\n")

    def faked(scene: Scene) -> tuple[str, ...]:
        settings = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(scene.directory / "clock"),
            "FAKETIME_CACHE_DURATION": "1",
            # One that is killed while it holds the lock that all of them share would keep the others from the time.
            "FAKETIME_SKIP_CMDS": "ovs-ofctl,ovs-vsctl",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        return ("env", *(f"{key}={value}" for key, value in settings.items()), *PROGRAM)

    return Event(prepare=write(0), begin=write(seconds), program=faked)


def full_records() -> Event:
    """`--records` goes to a file system of one page, which only that process sees."""

    def small(scene: Scene) -> tuple[str, ...]:
        mount = 'mount -t tmpfs -o size=4k none "$0" && exec "$@"'
        return ("unshare", "--mount", "sh", "-c", mount, str(scene.directory), *PROGRAM)

    return Event(begin=nothing, program=small, arguments=lambda scene: ("--records", str(scene.directory / RECORDS)))


def fill_run_directory() -> Event:
    """No byte is left where the lab's daemons have their logs and databases, and VTrace its locks."""

    def filler(scene: Scene) -> Path:
        return lab_state.directory(scene.lab).parent / "filler"

    def fill(scene: Scene) -> None:
        with filler(scene).open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        with filler(scene).open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(64))

    return Event(begin=fill, end=lambda scene: filler(scene).unlink(), hold="task")


def of(case: Case) -> Event:
    """The event of a case at its place."""
    name, node = case.event, SERVERS.get(case.place, "central")
    act, _, daemon = name.partition("-")
    if act in ACTS:
        return to_analyzer(act) if daemon == "analyzer" else to_daemon(act, node, daemon)
    vm = SOURCE if case.place == "source" else DESTINATION
    return {
        "server-disappears": lambda: disappear(node),
        "restore-saved-entries": lambda: save_and_restore(node),
        "management-lost": lambda: cut_management(of_analyzer=False),
        "management-lost-to-analyzer": lambda: cut_management(of_analyzer=True),
        "vm-moves": lambda: move(vm, node, SPARE_SERVER),
        "clock-forward": lambda: step_clock(CLOCK_STEP_S),
        "clock-back": lambda: step_clock(-CLOCK_STEP_S),
        "answer-to-full-disk": lambda: Event(begin=nothing, full=True),
        "records-to-full-disk": full_records,
        "run-directory-full": fill_run_directory,
    }[name]()
