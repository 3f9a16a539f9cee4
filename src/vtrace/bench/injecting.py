"""Puts a case's traffic and faults into a lab, watches what they do, and takes everything back."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Iterable, Iterator

from vtrace.bench.capture import ECHO_REPLIES, ECHO_REQUESTS, Packet, Sniffer
from vtrace.bench.fault import Command
from vtrace.bench.filling import Flow, Ready
from vtrace.errors import VTraceError
from vtrace.lab import state as lab_state
from vtrace.lab import traffic
from vtrace.lab.programs import ProgramError, run_on
from vtrace.lab.state import LabState

ARRIVES_S = 15.0
ACTS_S = 12.0
QUIET_S = 0.08
POLL_S = 0.03
IN_FLIGHT = 2
"""Packets that the capture at one end may have and the other's not, since the two are read one after the other."""
END_TCP = ("ss", "--kill", "--tcp", "--numeric", "state", "connected")
RESET = 0x04
"""Of the flags in a TCP header (RFC 9293, 3.1)."""
TCP_STREAMS = 4
"""A connection that gets nothing through sends few packets, so there are several."""


class VoidError(VTraceError):
    """The case says nothing of the diagnoser: what was to be injected did not come about."""


class Capture:
    """Packets at both ends of some flows."""

    def __init__(self, state: LabState, flows: Iterable[Flow]) -> None:
        self._flows = tuple(flows)
        self._stack = contextlib.ExitStack()
        self._senders = sorted({flow.way.sending for flow in self._flows})
        self._receivers = sorted({flow.way.receiving for flow in self._flows} - set(self._senders))
        nodes = (*self._senders, *self._receivers)
        self._sniffers = {
            node: self._stack.enter_context(Sniffer(lab_state.namespace(state.name, node))) for node in nodes
        }
        self._packets: dict[str, list[Packet]] = {node: [] for node in nodes}

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self) -> None:
        """Senders first: what they have sent has arrived by the time the receivers are read."""
        for node in (*self._senders, *self._receivers):
            self._packets[node] += self._sniffers[node].read()

    def forget(self) -> None:
        """The other way round, so that nothing is forgotten at the receiver that counts as sent later."""
        for node in (*self._receivers, *self._senders):
            self._sniffers[node].read()
            self._packets[node].clear()

    def sent(self, flow: Flow) -> int:
        return sum(_is_of(p, flow, sent=True) for p in self._packets[flow.way.sending])

    def arrived(self, flow: Flow) -> int:
        return sum(_is_of(p, flow, sent=False) for p in self._packets[flow.way.receiving])


def _is_of(packet: Packet, flow: Flow, *, sent: bool) -> bool:
    """Whether a captured packet is one of a flow, as it looks at that end."""
    place = flow.way.places[0 if sent else -1]
    src, dst = flow.ends(place)
    if packet.outgoing != sent or packet.proto != flow.proto:
        return False
    if (src and packet.src != src) or (dst and packet.dst != dst):
        return False
    forward = flow.way.direction == "forward"
    if packet.proto == "icmp":
        return packet.body[0] in (ECHO_REQUESTS if forward else ECHO_REPLIES)
    # With a reset a host answers what it takes for a connection that it does not know: no packet of the flow.
    if len(packet.body) < 4 or (packet.proto == "tcp" and packet.body[13:14] and packet.body[13] & RESET):
        return False
    return int(struct.unpack_from("!HH", packet.body)[1 if forward else 0]) == (place.dport or flow.port)


def until(condition: Callable[[], bool], what: str, limit_s: float) -> None:
    """Polls a condition.

    Raises:
        VoidError: it did not come true in time.
    """
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise VoidError(f"waited for {what}", "", f"{limit_s:g} s")
        time.sleep(POLL_S)


class Injector:
    """The faults and the traffic of one case."""

    def __init__(self, state: LabState, ready: Ready) -> None:
        self._state = state
        self._ready = ready
        self._undo: list[Command] = []
        self._traffic: list[str] = []

    def begin(self, capture: Capture) -> None:
        """Starts the packets, and the fault or its near-miss: afterwards it acts.

        Raises:
            VoidError: the packets did not come through before the fault, or came through all the same.
        """
        ready = self._ready
        faults = ready.faults
        late = any(filled.fault.packets.new for filled in faults)
        self._apply(ready.prepare)
        for filled in faults:
            self._apply(filled.prepare)
        self._sync(command for filled in faults for command in filled.prepare)
        if not late:
            self._start()
            until(lambda: self._all_arrive(capture), "packets before the fault", ARRIVES_S)
        for filled in faults:
            self._apply(filled.near if ready.case.mode == "near-miss" else filled.inject)
        self._sync(command for filled in faults for command in (*filled.inject, *filled.near))
        if late:
            self._start()
        if ready.case.mode != "near-miss":
            for filled in faults:
                if filled.settled is not None:
                    until(lambda s=filled.settled: self._succeeds(s), "the fault to settle", ACTS_S)  # type: ignore[misc]
            until(lambda: self._acts(capture), "the fault to act", ACTS_S)

    def end(self) -> list[str]:
        """Takes everything back, in the opposite order; what could not be."""
        failed = []
        for identifier in self._traffic:
            traffic.stop(self._state, identifier)
        self._traffic.clear()
        self._end_connections()
        taken_back, self._undo = self._undo[::-1], []
        for command in taken_back:
            try:
                self._run(command)
            except ProgramError as error:
                failed.append(str(error))
        try:
            self._sync(taken_back)
        except ProgramError as error:
            failed.append(str(error))
        return failed

    def _end_connections(self) -> None:
        """Ends the TCP connections of both ends, which would repeat for seconds what a fault lost.

        Conntrack and load balancer are others by then: in the next case such packets are lost for reasons of their own.
        """
        tcp = [flow for flow in self._ready.flows if flow.proto == "tcp"]
        for node in sorted({end for flow in tcp for end in (flow.way.client, flow.way.server)}):
            # A kernel without INET_DIAG_DESTROY can't.
            with contextlib.suppress(ProgramError):
                self._run(Command(on=node, run=END_TCP))

    def check(self, capture: Capture) -> list[tuple[int, int]]:
        """Holds what the capture saw during the diagnosis against what the faults claim to do.

        Returns:
            How many packets of each flow were sent, and how many arrived.

        Raises:
            VoidError: the faults did something else.
        """
        capture.read()
        counts = []
        for number, flow in enumerate(self._ready.flows):
            effect = self._effect(number)
            sent, arrived = capture.sent(flow), capture.arrived(flow)
            counts.append((sent, arrived))
            right = {
                "all lost": sent > 0 and not arrived,
                "some lost": 0 < arrived < sent,
                "none lost": 0 < sent <= arrived + IN_FLIGHT,
                "nothing sent": not sent,
            }[effect]
            if not right:
                raise VoidError(f"{effect} was injected", flow.way.name, f"{sent} sent, {arrived} arrived")
        return counts

    def _effect(self, number: int) -> str:
        if self._ready.case.mode == "near-miss" or number >= len(self._ready.faults):
            return "none lost"
        return self._ready.faults[number].fault.effect

    def _acts(self, capture: Capture) -> bool:
        by_effect = [(self._effect(number), flow) for number, flow in enumerate(self._ready.flows)]
        lost = [flow for effect, flow in by_effect if effect == "all lost"]
        silent = [flow for effect, flow in by_effect if effect == "nothing sent"]
        if not lost and not silent:
            return True
        capture.forget()
        time.sleep(QUIET_S)
        capture.read()
        return not any(capture.arrived(flow) for flow in lost) and not any(capture.sent(flow) for flow in silent)

    def _all_arrive(self, capture: Capture) -> bool:
        capture.read()
        return all(capture.arrived(flow) for flow in self._ready.flows)

    def _start(self) -> None:
        ready = self._ready
        for flow in ready.flows:
            sources = flow.way.sources[flow.ip == 6]
            streams = max(ready.streams, TCP_STREAMS) if flow.proto == "tcp" else ready.streams
            wish = traffic.Wish(
                source=f"{flow.way.client}:{sources}" if sources else flow.way.client,
                to=flow.way.towards[flow.ip == 6],
                proto=flow.proto,  # type: ignore[arg-type]
                dport=None if flow.proto == "icmp" else flow.port,
                rate=ready.rate_pps,
                size=ready.size_bytes,
                ip=flow.ip,  # type: ignore[arg-type]
                seconds=120,
            )
            self._traffic.append(traffic.start(self._state, wish, flows=streams).id)
        if ready.case.busy:
            self._others()

    def _others(self) -> None:
        """Other VMs of the lab are busy too."""
        used = {flow.way.client for flow in self._ready.flows} | {flow.way.server for flow in self._ready.flows}
        vms = [vm for vm in self._state.vms if vm.name not in used]
        pairs = [(a, b) for a in vms for b in vms if a.name != b.name and a.vpc == b.vpc]
        rng = self._ready.case.rng
        for one, other in rng.sample(pairs, min(2, len(pairs))):
            wish = traffic.Wish(source=one.name, to=other.name, rate=100, size=200, seconds=120)
            self._traffic.append(traffic.start(self._state, wish).id)

    def _apply(self, commands: Iterable[Command]) -> None:
        for command in commands:
            self._undo += [Command(on=command.on, run=words) for words in reversed(command.undo)]
            try:
                self._run(command)
            except ProgramError as error:
                raise VoidError("a command of the fault failed", " ".join(command.run), str(error)) from error

    def _sync(self, commands: Iterable[Command]) -> None:
        """Waits until the servers have what was written into the databases, unless the commands wait themselves."""
        waits = [any(word.startswith("--wait=") for word in c.run) for c in commands if c.on == "central"]
        if not all(waits):
            self._run(Command(on="central", run=("ovn-nbctl", "--wait=hv", "--timeout=20", "sync")))

    def _run(self, command: Command) -> str:
        return run_on(self._state, command.on, command.run)

    def _succeeds(self, command: Command) -> bool:
        try:
            self._run(command)
        except ProgramError:
            return False
        return True


@contextlib.contextmanager
def injected(state: LabState, ready: Ready) -> Iterator[tuple[Injector, Capture]]:
    """The case's faults, acting, for the time of the block.

    Raises:
        VoidError: they did not come about, or could not be taken back, so that the lab is not what it was.
    """
    injector = Injector(state, ready)
    with Capture(state, ready.flows) as capture:
        try:
            injector.begin(capture)
            yield injector, capture
        except BaseException:
            injector.end()
            raise
        failed = injector.end()
    if failed:
        raise VoidError("a fault could not be taken back", "", "; ".join(failed))
