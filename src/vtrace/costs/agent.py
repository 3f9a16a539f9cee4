"""`vtrace bench agent`: what an agent takes of a server, and what it makes that server's ovs-vswitchd do."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from vtrace.costs import children, readings, switching
from vtrace.costs.calls import Call
from vtrace.costs.readings import Ours
from vtrace.costs.setting import DESTINATIONS, SOURCES, TASK_PORT, Progress, Setting
from vtrace.costs.tasks import Task
from vtrace.errors import CannotWorkError
from vtrace.lab.programs import run_on

TASK = Task(sources=SOURCES[:1], destinations=DESTINATIONS[:1], dport=TASK_PORT)
READY_TIMEOUT_S, TASK_TIMEOUT_S = 30.0, 90.0
SETTLE_S = 1.0
PACKETS, TASK_PPS = 100, 100
ACL = ("red-db", "to-lport", "1777", f'outport == "{DESTINATIONS[0]}" && udp', "drop")
# Parts of the program that an agent has no use for.
HEAVY = ("numpy", "pyarrow", "numba", "llvmlite", "pandas", "rich", "vtrace.reconstruct", "vtrace.attribute")


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """An agent without a task, in a process of its own.

    Attributes:
        seconds: for how long it was watched; share_of_core: of them.
        loaded: heavy parts that it has loaded without need.
        ours, meters: what it holds on its bridge.
    """

    seconds: float
    share_of_core: float
    pss_mb: float
    rss_mb: float
    loaded: tuple[str, ...]
    ours: Ours
    meters: int


class Coloring(msgspec.Struct, frozen=True, kw_only=True):
    """Agents of both servers in one process, with what plans their entries, while packets are colored.

    Attributes:
        asked_pps, rate_pps: of packets sent, and colored; records: made of their copies meanwhile, by both agents.
        share_of_core: of both agents together; core_us: a record. pss_mb, rss_mb: at the end.
        record_bytes: of a record as a MessagePack array; records_per_packet: on both servers.
        unread, cut: copies lost on the way, and by the meters.
    """

    asked_pps: float
    rate_pps: float
    seconds: float
    records: int
    share_of_core: float
    core_us: float
    pss_mb: float
    rss_mb: float
    record_bytes: float
    records_per_packet: float
    unread: int
    cut: int


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What one whole task asks of the ovs-vswitchd of a server, and what it logs.

    Attributes:
        case: "healthy" or "lossy" (every packet is dropped at its destination).
        took_s: of the whole task; resting_share, working_share: of a core that the main thread takes before it and
            while it runs, forwarding included.
        unixctl, ofctl: calls; unixctl_s: their time, waiting included; longest_s: of one; answer_bytes: of the
            unixctl answers; most_bytes: of one; busiest_calls: unixctl calls within any one second.
        commands: calls by name.
        records, stored_bytes: that the task logged, on all servers, and as they are stored; colored: packets.
    """

    case: str
    server: str
    took_s: float
    resting_share: float
    working_share: float
    unixctl: int
    ofctl: int
    unixctl_s: float
    longest_s: float
    answer_bytes: int
    most_bytes: int
    busiest_calls: int
    commands: dict[str, int]
    records: int
    stored_bytes: int
    colored: int
    answer: dict[str, Any]


def idle(setting: Setting, seconds: float) -> Idle:
    """Watches an agent that idles."""
    server = setting.source
    words = [sys.executable, "-m", "vtrace.costs.agent_alone", server.rundir, server.bridge]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        children.read_line(process, "The agent did not start", READY_TIMEOUT_S)
        time.sleep(SETTLE_S)
        began_s, began_ns = time.monotonic(), readings.process_ns(process.pid) + readings.children_ns(process.pid)
        time.sleep(seconds)
        used_ns = readings.process_ns(process.pid) + readings.children_ns(process.pid) - began_ns
        watched_s = time.monotonic() - began_s
        memory = readings.memory_mb(process.pid)
        held, meters = readings.ours(setting.state, server), readings.meters(setting.state, server)
    finally:
        children.end_of_input(process)
    return Idle(
        seconds=watched_s,
        share_of_core=used_ns / 1e9 / watched_s,
        pss_mb=memory["pss"],
        rss_mb=memory["rss"],
        loaded=loaded(),
        ours=held,
        meters=meters,
    )


def loaded() -> tuple[str, ...]:
    """The heavy parts that `agent_alone` loads, by what its imports bring into a fresh interpreter."""
    text = "import json, sys, vtrace.costs.agent_alone; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=60)
    return tuple(name for name in HEAVY if name in json.loads(done.stdout))


def coloring(setting: Setting, folder: Path, rate_pps: float, seconds: float) -> Coloring:
    """Watches agents while packets of one pair are colored."""
    with _traffic(setting, folder, rate_pps) as sent, switching.agents(setting, "color", (TASK,)) as switch:
        switch.on()
        pid = switch.pid()
        time.sleep(SETTLE_S)
        began_s, began_ns, first = time.monotonic(), readings.process_ns(pid), switch.tell()
        time.sleep(seconds)
        used_ns, watched_s, last = readings.process_ns(pid) - began_ns, time.monotonic() - began_s, switch.tell()
        memory = readings.memory_mb(pid)
        switch.off()
        told = switch.told() or last
    records, packets = last.records - first.records, last.packets - first.packets
    if not records or not packets:
        raise CannotWorkError("Nothing was colored", setting.source.name, f"{sent.counts()[0]} were sent", "")
    return Coloring(
        asked_pps=rate_pps,
        rate_pps=packets / watched_s,
        seconds=watched_s,
        records=records,
        share_of_core=used_ns / 1e9 / watched_s,
        core_us=used_ns / 1e3 / records,
        pss_mb=memory["pss"],
        rss_mb=memory["rss"],
        record_bytes=told.record_bytes / told.records,
        records_per_packet=records / packets,
        unread=told.unread,
        cut=told.copies_cut,
    )


def loads(setting: Setting, folder: Path, case: str, say: Progress) -> list[Load]:
    """Runs one whole task, and says what it asked of each server."""
    nb = ["ovn-nbctl", "--wait=hv", "--timeout=20"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_traffic(setting, folder, TASK_PPS))
        if case == "lossy":
            run_on(setting.state, "central", [*nb, "acl-add", *ACL])
            stack.callback(run_on, setting.state, "central", [*nb, "acl-del", *ACL[:-1]])
        time.sleep(2 * SETTLE_S)
        began_s, began = time.monotonic(), _main_threads(setting)
        time.sleep(3 * SETTLE_S)
        resting = _shares(began, _main_threads(setting), time.monotonic() - began_s)
        began_s, began = time.monotonic(), _main_threads(setting)
        answer, calls, records = _diagnosed(setting, folder)
        took_s = time.monotonic() - began_s
        working = _shares(began, _main_threads(setting), took_s)
    say(f"{case}: {len(calls)} calls in {took_s:.1f} s")
    return [
        _load(case, server.name, took_s, (resting[number], working[number]), calls, answer, records)
        for number, server in enumerate(setting.servers)
    ]


def _load(
    case: str,
    server: str,
    took_s: float,
    shares: tuple[float, float],
    calls: Sequence[Call],
    answer: dict[str, Any],
    records: int,
) -> Load:
    mine = [call for call in calls if call.to == server]
    asked = [call for call in mine if call.kind == "unixctl"]
    names = sorted({call.name for call in mine})
    return Load(
        case=case,
        server=server,
        took_s=took_s,
        resting_share=shares[0],
        working_share=shares[1],
        unixctl=len(asked),
        ofctl=len(mine) - len(asked),
        unixctl_s=sum(call.took_s for call in asked),
        longest_s=max((call.took_s for call in asked), default=0.0),
        answer_bytes=sum(call.answer_bytes for call in asked),
        most_bytes=max((call.answer_bytes for call in asked), default=0),
        busiest_calls=busiest([call.began_s for call in asked]),
        commands={name: sum(call.name == name for call in mine) for name in names},
        records=records,
        stored_bytes=int(answer["cost"]["log_bytes"]),
        colored=int(answer["packets"]["colored"]) + int(answer["cost"]["packets_colored_beyond_n"]),
        answer={"loss": answer["loss"], "packets": answer["packets"]},
    )


def busiest(times_s: Sequence[float], window_s: float = 1.0) -> int:
    """The most of these times that lie within any such window."""
    ordered = sorted(times_s)
    most = first = 0
    for last, at_s in enumerate(ordered):
        while at_s - ordered[first] >= window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


def _diagnosed(setting: Setting, folder: Path) -> tuple[dict[str, Any], list[Call], int]:
    """The answer of a task, its calls, and how many records it logged."""
    import pyarrow.parquet as pq

    file, kept = folder / "calls.json", folder / "kept.parquet"
    ends = ("--from", TASK.sources[0], "--to", TASK.destinations[0], "--proto", "udp", "--dport", str(TASK.dport))
    words = ("diagnose", "--lab", setting.state.name, *ends, "--packets", str(PACKETS), "--json")
    done = subprocess.run(
        [sys.executable, "-m", "vtrace.costs.calls", str(file), *words, "--records", str(kept)],
        capture_output=True,
        text=True,
        timeout=TASK_TIMEOUT_S,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise CannotWorkError(
            "The task gave no answer", "vtrace diagnose", done.stderr[-2000:] + done.stdout[-500:], ""
        )
    calls = msgspec.json.decode(file.read_bytes(), type=list[Call])
    return json.loads(done.stdout), calls, pq.read_metadata(kept).num_rows


def _main_threads(setting: Setting) -> list[int]:
    return [readings.main_thread_ns(pid) for pid in setting.pids()]


def _shares(began: Sequence[int], ended: Sequence[int], seconds: float) -> list[float]:
    return [(b - a) / 1e9 / seconds for a, b in zip(began, ended, strict=True)]


@contextlib.contextmanager
def _traffic(setting: Setting, folder: Path, rate_pps: float) -> Iterator[children.Stream]:
    """What is colored; when it begins its first packets have found their way."""
    source, to = TASK.sources[0], TASK.destinations[0]
    way = [setting.namespace(source), setting.address(source), setting.namespace(to), setting.address(to), TASK.dport]
    with children.stream(folder, setting.others, {"role": "paced", "rate": rate_pps, "ways": [way]}) as stream:
        time.sleep(SETTLE_S)
        yield stream
