"""`vtrace bench forwarding`: what traffic loses while entries of VTrace are there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from vtrace.costs import children, slices, switching
from vtrace.costs.children import Stream
from vtrace.costs.running import SETTLE_S, Slice, Trip, Watch, measure, trips
from vtrace.costs.setting import (
    BESIDE,
    DESTINATION,
    ECHO_PORT,
    SINK_PORT,
    SOURCE,
    TASK_PORT,
    Progress,
    Setting,
    tasks,
)
from vtrace.costs.slices import Estimate
from vtrace.costs.stream import PROBED
from vtrace.costs.switching import Nothing, Switch
from vtrace.costs.tasks import State, Task
from vtrace.lab.programs import run_on

FLOWS, SIZE_BYTES = 32, 64
PROBE_PPS = 500
# Colored packets make four copies on their first server: well below what the meters let through.
COLORED_PPS = 200
# Of all tasks of a condition together.
BACKGROUND_PPS = {1: 100, 10: 300, 100: 500}
# How long turning on and off takes at most, for the size of a probe's file.
_SWITCH_S = 20.0

How = Literal["nothing", "idle", "match", "color", "diagnose"]
Load = Literal["flood", "bulk", "probe"]


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """What is on in the slices B, and by which traffic its cost is seen.

    Attributes:
        how: nothing; agents that idle; all entries of tasks but those that color; tasks; the program `vtrace diagnose`.
        load: datagrams as fast as can be; one TCP connection; few datagrams that come back.
        tasks: how many.
        scope: of the tasks: "other": another VPC of the same servers; "same": another pair through the switches and
            router of the measured traffic; "itself": the measured traffic is what they color.
        exact: whether the datapath has its cache of whole headers before that of masked ones; without, each packet
            goes through the masks.
    """

    name: str
    how: How
    load: Load
    tasks: int = 1
    scope: Literal["other", "same", "itself"] = "other"
    exact: bool = True
    text: str


CONDITIONS = (
    Condition(name="noise", how="nothing", load="flood", tasks=0, text="nothing, in A and B: what is found is noise"),
    Condition(name="idle", how="idle", load="flood", text="agents on both servers with their claims, no task"),
    Condition(name="match", how="match", load="flood", text="all entries of a task but those that color"),
    Condition(name="task", how="diagnose", load="flood", text="`vtrace diagnose` coloring another pair"),
    Condition(name="task_tcp", how="diagnose", load="bulk", text="the same, seen by one TCP connection"),
    Condition(name="tasks_10", how="color", load="flood", tasks=10, text="10 tasks coloring other pairs"),
    Condition(
        name="tasks_100",
        how="color",
        load="flood",
        tasks=100,
        text="100 pairs colored by 16 tasks, as many as can share a server",
    ),
    Condition(
        name="same_scope",
        how="diagnose",
        load="flood",
        scope="same",
        text="`vtrace diagnose` coloring another pair through the same switches and router",
    ),
    Condition(
        name="same_scope_masks",
        how="diagnose",
        load="flood",
        scope="same",
        exact=False,
        text="the same, and each packet looked up by masks, as where more connections are than the exact cache holds",
    ),
    Condition(name="low", how="diagnose", load="probe", text="`vtrace diagnose` coloring another pair, at low load"),
    Condition(
        name="low_same_scope",
        how="diagnose",
        load="probe",
        scope="same",
        text="the same, through the same switches and router",
    ),
    Condition(name="colored", how="color", load="probe", scope="itself", text="the measured packets are colored"),
)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a condition came to.

    Attributes:
        slices: all of them; trips: of each slice, if its load is a probe; between: of the time between slices.
        state: what the tasks' process said last.
        without, within: cached flows and masks of both servers, and entries of ours by role, in an A and in a B.
        pairs: colored at once.
    """

    condition: Condition
    labels: str
    slices: tuple[Slice, ...]
    trips: tuple[Trip, ...] = ()
    between: Trip | None = None
    state: State | None = None
    cache: dict[str, dict[str, int]] = {}
    lookups: dict[str, dict[str, float]] = {}
    pairs: int = 0


def run(condition: Condition, setting: Setting, folder: Path, count: int, seconds: float, say: Progress) -> Found:
    """One condition, `count` slices of so many seconds."""
    labels = slices.order(count)
    colored = _tasks(condition)
    with contextlib.ExitStack() as stack:
        if not condition.exact:
            stack.enter_context(_without_exact_cache(setting))
        stream = stack.enter_context(_measured(condition, setting, folder, count * (seconds + _SWITCH_S)))
        background = [] if condition.scope == "itself" else [stack.enter_context(_background(setting, folder, colored))]
        switch = stack.enter_context(_switch(condition, setting, colored))
        watch = Watch(setting, stream, background if condition.tasks else [])
        _steady(stream, condition)
        found = measure(watch, switch, labels, seconds, say)
        state = switch.told()
        told = _trips(stream, found) if condition.load == "probe" else ([], None)
    return Found(
        condition=condition,
        labels=labels,
        slices=tuple(found),
        trips=tuple(told[0]),
        between=told[1],
        state=state,
        cache=watch.cache,
        lookups=watch.lookups,
        pairs=sum(len(task.sources) * len(task.destinations) for task in colored),
    )


@contextlib.contextmanager
def _without_exact_cache(setting: Setting) -> Iterator[None]:
    """No connection that begins now gets into the exact-match cache (ovs-vswitchd.conf.db(5))."""
    key = "emc-insert-inv-prob"
    for server in setting.servers:
        run_on(setting.state, server.name, ["ovs-vsctl", "set", "Open_vSwitch", ".", f"other_config:{key}=0"])
    try:
        yield
    finally:
        for server in setting.servers:
            run_on(setting.state, server.name, ["ovs-vsctl", "remove", "Open_vSwitch", ".", "other_config", key])


def _trips(stream: Stream, found: Sequence[Slice]) -> tuple[list[Trip], Trip | None]:
    # The last packets may be on their way.
    time.sleep(SETTLE_S)
    return trips(stream, found)


def _tasks(condition: Condition) -> tuple[Task, ...]:
    if condition.scope == "same":
        return (Task(sources=(BESIDE,), destinations=(DESTINATION,), dport=TASK_PORT),)
    if condition.scope == "itself":
        return (Task(sources=(SOURCE,), destinations=(DESTINATION,), dport=ECHO_PORT),)
    return tasks(max(1, condition.tasks))


@contextlib.contextmanager
def _measured(condition: Condition, setting: Setting, folder: Path, most_s: float) -> Iterator[Stream]:
    """The measured traffic; of what it yields the counts are those at its end."""
    to, cores = setting.address(DESTINATION), setting.others
    ends: dict[str, object] = {
        "namespace": setting.namespace(SOURCE),
        "source": setting.address(SOURCE),
        "destination": to,
    }
    there: dict[str, object] = {"namespace": setting.namespace(DESTINATION), "address": to}
    with contextlib.ExitStack() as stack:
        if condition.load == "probe":
            rate = COLORED_PPS if condition.scope == "itself" else PROBE_PPS
            most = int(rate * most_s)
            stack.enter_context(children.stream(folder, cores, {"role": "echo", "dport": ECHO_PORT, **there}))
            ends |= {"role": "probe", "dport": ECHO_PORT, "rate": rate, "most": most}
            yield stack.enter_context(children.stream(folder, cores, ends, PROBED.size * most))
            return
        sink = stack.enter_context(children.stream(folder, cores, {"role": "sink", "dport": SINK_PORT, **there}))
        ends |= {"role": condition.load, "dport": SINK_PORT, "flows": FLOWS, "ttls": [64], "size": SIZE_BYTES}
        stack.enter_context(children.stream(folder, cores, ends))
        yield sink


def _background(setting: Setting, folder: Path, colored: Sequence[Task]) -> contextlib.AbstractContextManager[Stream]:
    """What the tasks color; it goes on in all slices, so that only coloring makes a difference."""
    ways = [
        [setting.namespace(source), setting.address(source), setting.namespace(to), setting.address(to), task.dport]
        for task in colored
        for source in task.sources
        for to in task.destinations
    ]
    rate = BACKGROUND_PPS[next(most for most in sorted(BACKGROUND_PPS) if len(ways) <= most)]
    return children.stream(folder, setting.others, {"role": "paced", "rate": rate, "ways": ways})


def _switch(
    condition: Condition, setting: Setting, colored: tuple[Task, ...]
) -> contextlib.AbstractContextManager[Switch]:
    if condition.how == "nothing":
        return contextlib.nullcontext(Nothing())
    if condition.how == "diagnose":
        return switching.diagnose(setting, colored[0])
    return switching.agents(setting, condition.how, colored)


def _steady(stream: Stream, condition: Condition) -> None:
    """Waits until something arrives: tunnels resolve their neighbors first."""
    ends_s = time.monotonic() + children.READY_TIMEOUT_S
    while not any(stream.counts()) and time.monotonic() < ends_s:
        time.sleep(0.05)
    time.sleep(SETTLE_S)


def throughput(found: Found) -> Estimate:
    """B over A: packets (of TCP bytes) a second."""
    counted = [(s.size_bytes if found.condition.load == "bulk" else s.packets) / s.seconds for s in found.slices]
    return slices.ratio(counted, found.labels)


def processor(found: Found) -> Estimate:
    """B over A: processor time of the threads that forward, a packet (of TCP a byte). What else runs moves it less."""
    counted = [sum(s.forwarding_ns) / max(1, _amount(found, s)) for s in found.slices]
    return slices.ratio(counted, found.labels)


def _amount(found: Found, one: Slice) -> int:
    return one.size_bytes if found.condition.load == "bulk" else one.packets


def added_us(found: Found, share: float) -> Estimate:
    """B less A: what that share of a slice's round trips takes at most, in µs."""
    return slices.difference([float(np.quantile(trip.times_us, share)) for trip in found.trips], found.labels)


def lost(found: Found, label: str) -> tuple[int, int]:
    """How many of the packets sent in slices A or B, or between ("-"), were lost; and how many were sent."""
    chosen = [t for t, one in zip(found.trips, found.labels, strict=True) if one == label]
    if label == "-":
        chosen = [found.between] if found.between else []
    return sum(t.lost for t in chosen), sum(t.sent for t in chosen)
