"""What installing and removing entries does to a busy cache, and to the traffic that lives by it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from vtrace.costs import children, readings, switching
from vtrace.costs.children import probed
from vtrace.costs.forwarding import PROBE_PPS
from vtrace.costs.readings import Cached
from vtrace.costs.setting import BESIDE, DESTINATION, ECHO_PORT, SINK_PORT, SOURCE, TASK_PORT, Progress, Setting, tasks
from vtrace.costs.stream import PROBED
from vtrace.costs.tasks import Task
from vtrace.errors import CannotWorkError

# A router lowers the TTL, so that each makes a cached flow of its own on the sender's server.
TTLS = tuple(range(40, 240))
BUSY_PPS = 2000
# For so long after a change its consequences are looked for; cached flows are checked within a second.
WINDOW_S = 1.5
_FILL_S = 20.0
_SWITCH_S = 20.0

Change = Literal["none", "on", "off"]


class Disturbance(msgspec.Struct, frozen=True, kw_only=True):
    """What happened within a window that began with a change, or with none.

    Attributes:
        flows: cached for the busy traffic before; rebuilt: of them, deleted meanwhile; upcalls: packets of all traffic
            of the server that no cached flow took.
        sent, lost, p50_us, most_us: round trips of the probe in the window.
    """

    change: Change
    flows: int
    rebuilt: int
    upcalls: int
    sent: int
    lost: int
    p50_us: float
    most_us: float


def disturbances(
    setting: Setting, folder: Path, scope: Literal["other", "same"], rounds: int, say: Progress
) -> list[Disturbance]:
    """Windows in the order none, on, none, off; as often as there are rounds."""
    other = scope == "other"
    task = tasks(1)[0] if other else Task(sources=(BESIDE,), destinations=(DESTINATION,), dport=TASK_PORT)
    most = int(PROBE_PPS * (_FILL_S + rounds * 4 * (WINDOW_S + _SWITCH_S)))
    to, cores = setting.address(DESTINATION), setting.others
    way = [setting.namespace(SOURCE), setting.address(SOURCE), setting.namespace(DESTINATION), to, SINK_PORT]
    ends: dict[str, object] = {"namespace": way[0], "source": way[1], "destination": to, "dport": ECHO_PORT}
    with contextlib.ExitStack() as stack:
        echo = {"role": "echo", "namespace": way[2], "address": to, "dport": ECHO_PORT}
        stack.enter_context(children.stream(folder, cores, echo))
        sends = {"role": "probe", "rate": PROBE_PPS, "most": most, **ends}
        probe = stack.enter_context(children.stream(folder, cores, sends, PROBED.size * most))
        busy = {"role": "paced", "rate": BUSY_PPS, "ways": [way], "ttls": TTLS}
        stack.enter_context(children.stream(folder, cores, busy))
        switch = stack.enter_context(switching.agents(setting, "color", (task,)))
        _filled(setting)
        windows: list[tuple[Change, int, int, Cached, Cached]] = []
        for change in ("none", "on", "none", "off") * rounds:
            act = {"none": lambda: None, "on": switch.on, "off": switch.off}[change]
            windows.append(_window(setting, change, act))
            say(f"{change}: {_rebuilt(windows[-1])} of {len(TTLS)} cached flows rebuilt")
        packets = probed(probe.path)
    return [_told(window, packets) for window in windows]


def _filled(setting: Setting) -> None:
    ends_s = time.monotonic() + _FILL_S
    while (there := _busy(readings.cached(setting.state, setting.source))) < len(TTLS):
        if time.monotonic() > ends_s:
            raise CannotWorkError("The cache does not fill", setting.source.name, f"{there} of {len(TTLS)} flows", "")
        time.sleep(0.2)


def _busy(found: Cached) -> int:
    return sum(all(text in flow.key for text in _WHICH) for flow in found.flows.values())


def _window(setting: Setting, change: Change, act: Callable[[], None]) -> tuple[Change, int, int, Cached, Cached]:
    before = readings.cached(setting.state, setting.source)
    began_ns = time.monotonic_ns()
    act()
    time.sleep(WINDOW_S)
    ended_ns = time.monotonic_ns()
    return change, began_ns, ended_ns, before, readings.cached(setting.state, setting.source)


def _rebuilt(window: tuple[Change, int, int, Cached, Cached]) -> int:
    return window[3].rebuilt(window[4], *_WHICH)


# Of the busy traffic's and the probe's cached flows.
_WHICH = (f"in_port({SOURCE})", "ipv4(")


def _told(window: tuple[Change, int, int, Cached, Cached], packets: Sequence[tuple[int, int, int]]) -> Disturbance:
    change, began_ns, ended_ns, before, after = window
    sent = [packet for packet in packets if began_ns <= packet[0] < ended_ns]
    times = sorted((back_ns - sent_ns) / 1e3 for sent_ns, back_ns, _ in sent if back_ns)
    return Disturbance(
        change=change,
        flows=_busy(before),
        rebuilt=_rebuilt(window),
        upcalls=after.missed - before.missed,
        sent=len(sent),
        lost=len(sent) - len(times),
        p50_us=times[len(times) // 2] if times else 0.0,
        most_us=times[-1] if times else 0.0,
    )
