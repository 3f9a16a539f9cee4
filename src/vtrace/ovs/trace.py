"""Runs `ofproto/trace` (ovs-vswitchd(8)) and reads its text.

How the text is laid out (ofproto-dpif-trace.c, oftrace_node_print_details): nodes of even nesting level. A node
that is the last child of its parent and no action is printed at `level * 4` blanks and its children keep the
level (a tail call, so that a pipeline does not run off to the right); any other node is printed at
`(level + 1) * 4` and its children have `level + 2`. So an indent that is a multiple of 8 is a tail node, and the
rest of a division by 8 is 4 for all others. Details (` -> `), notes (` >> `) and errors (` >>>> … <<<<`) and
table numbers below 10 have one blank more.

A trace is of one moment and of no side effects. It never drops in a meter, follows no bucket of a select group
by hash, and takes conntrack for new unless told (`ct_next`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from vtrace.errors import ProtocolError
from vtrace.model.openflow import Cookie, Trace, TraceStep
from vtrace.ovs.flowtext import is_decimal, match_fields, number, split_top
from vtrace.ovs.trace_state import Registers, apply_action, apply_detail
from vtrace.ovs.unixctl import call

# Details that tell of a packet's end, though OVS prints them as mere details.
NO_BUCKET = "no live bucket"
_ENDING_DETAILS = (NO_BUCKET, "output to nonexistent group", "neighbor cache miss")


async def trace(path: str, bridge: str, flow: str, ct_next: Sequence[str] = (), *, timeout_s: float = 5) -> Trace:
    """Traces a packet that comes into `bridge`.

    Args:
        path: control socket of ovs-vswitchd (`unixctl.ctl_path`).
        bridge: name of the bridge.
        flow: the packet in the syntax of ovs-fields(7), with its `in_port`.
        ct_next: conntrack state at each recirculation in turn, for example ("trk,est",).

    Raises:
        UnixctlError: OVS refused the flow's text or the bridge is unknown.
    """
    return await _run(path, (bridge, flow), ct_next, timeout_s)


async def trace_passes(path: str, datapath: str, keys: Sequence[str]) -> Trace:
    """Traces datapath flows that follow one another: each pass of a packet from the flow that it really hit."""
    found: list[Trace] = []
    for key in keys:
        frozen_in = _froze_in(found[-1]) if found else ""
        found.append(await trace_datapath(path, datapath, key, frozen_in=frozen_in))
    return joined(found)


def _froze_in(trace: Trace) -> str:
    """The bridge in which a pass left for conntrack, where the next one resumes."""
    leaving = [step for step in trace.steps if any(action.startswith("ct(") for action in step.actions)]
    return (leaving or list(trace.steps))[-1].bridge if trace.steps else ""


async def trace_datapath(path: str, datapath: str, key: str, *, frozen_in: str = "", timeout_s: float = 5) -> Trace:
    """Traces the packet of a datapath flow's key, from where that flow resumes (`recirc_id`, `ct_state`).

    Only that one pass: what follows a recirculation has a flow, and the true conntrack state, of its own.

    Args:
        datapath: for example `netdev@ovs-netdev` (the part before "@" counts).
        key: as `dpctl/dump-flows -m` prints it.
        frozen_in: of a flow that resumes, the bridge that it resumes in.
    """
    # Open vSwitch prints the original tuple of IPv6 connections in a form that it does not read (3.1).
    readable = ",".join(word for word in split_top(key) if not word.startswith("ct_tuple6("))
    text = await call(path, "ofproto/trace", datapath.partition("@")[0], readable, timeout_s=timeout_s)
    return parse_trace(first_pass(text), frozen_in)


def first_pass(text: str) -> str:
    """The text of a trace's first pass."""
    lines = text.splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if line.startswith("Flow: ")]
    return "".join(lines[: starts[1]] if len(starts) > 1 else lines)


def joined(passes: Sequence[Trace]) -> Trace:
    """One trace of several that follow one another; errors and final actions are the last one's."""
    return Trace(
        steps=tuple(step for one in passes for step in one.steps),
        datapath_actions=passes[-1].datapath_actions,
        errors=passes[-1].errors,
        text="\n".join(one.text for one in passes),
    )


async def _run(path: str, what: tuple[str, str], ct_next: Sequence[str], timeout_s: float) -> Trace:
    options = [word for state in ct_next for word in ("--ct-next", state)]
    return parse_trace(await call(path, "ofproto/trace", *what, *options, timeout_s=timeout_s))


def parse_trace(text: str, frozen_in: str = "") -> Trace:
    """Reads the text of one `ofproto/trace`, all passes.

    Args:
        text: as Open vSwitch printed it.
        frozen_in: of a pass that begins with a thaw the bridge in which it resumes. Open vSwitch prints the name of the
            one that the packet came in by, for example a provider's, though it goes on in that which froze it.

    Raises:
        ProtocolError: the text holds no trace.
    """
    reader = _Reader(frozen_in)
    for line in text.splitlines():
        reader.line(line)
    reader.end_pass()
    if not reader.passes:
        raise ProtocolError("the answer to ofproto/trace is no trace", why=text[:200])
    return Trace(
        steps=tuple(draft.step() for draft in reader.steps),
        datapath_actions=tuple(reader.datapath_actions),
        errors=tuple(reader.errors),
        text=text,
    )


class _Clone:
    """Actions of a clone() that are still to be printed; the registers come back after them."""

    def __init__(self, action: str, registers: Registers) -> None:
        inner = action.removeprefix("clone(").removesuffix(")")
        self.remaining = list(split_top(inner))
        self.before = registers.copy()

    def takes(self, action: str) -> bool:
        """Whether this action still belongs to the clone."""
        if action in self.remaining:
            del self.remaining[: self.remaining.index(action) + 1]
            return True
        return bool(self.remaining)


class _Node:
    """A bridge, table look-up, bucket or thaw that lines below may belong to."""

    def __init__(self, level: int, bridge: str, before: Registers | None = None) -> None:
        self.level = level  # of its children
        self.bridge = bridge
        self.before = before  # to put back when the node ends
        self.clones: list[_Clone] = []
        self.draft: _Draft | None = None


class _Draft(msgspec.Struct):
    depth: int
    bridge: str
    table: int
    match: str
    priority: int
    cookie: int
    registers: Registers
    actions: list[str]

    def step(self) -> TraceStep:
        return TraceStep(
            depth=self.depth,
            bridge=self.bridge,
            table=self.table,
            match=self.match,
            priority=self.priority,
            cookie=Cookie(self.cookie),
            actions=tuple(self.actions),
            metadata=self.registers.metadata,
            reg14=self.registers.reg14,
            reg15=self.registers.reg15,
        )


class _Reader:
    """Goes through the lines once and keeps the stack of open nodes."""

    def __init__(self, frozen_in: str = "") -> None:
        self._frozen_in = frozen_in
        self.steps: list[_Draft] = []
        self.datapath_actions: list[str] = []
        self.errors: list[str] = []
        self.passes = 0
        self._in_tree = False
        self._registers = Registers()
        self._stack: list[_Node] = []

    def line(self, line: str) -> None:
        stripped = line.strip()
        if line.startswith("Flow: "):
            self._begin_pass(line.removeprefix("Flow: "))
        elif line.startswith("Datapath actions: "):
            self.datapath_actions.append(line.removeprefix("Datapath actions: "))
        elif line.startswith(("Translation failed", "Action execution failed", "Bad actions")):
            self.errors.append(stripped)
        elif line.startswith("Final flow: "):
            self.end_pass()
        elif self._in_tree and stripped and set(stripped) != {"-"}:
            self._node(len(line) - len(line.lstrip(" ")), stripped)

    def end_pass(self) -> None:
        self._in_tree = False
        self._stack.clear()

    def _begin_pass(self, flow: str) -> None:
        self.passes += 1
        self._in_tree = True
        self._stack.clear()
        self._registers = Registers()
        self._registers.take_match(match_fields(flow))

    def _node(self, blanks: int, text: str) -> None:
        indent = blanks // 4 * 4
        tail = indent % 8 == 0
        level = indent // 4 if tail else indent // 4 - 1
        self._unwind(level)
        children = level if tail else level + 2
        if text.startswith(">>"):
            self._note(text.strip("<> "))
        elif text.startswith("-> "):
            self._detail(text.removeprefix("-> "))
        elif text.startswith('bridge("') and text.endswith('")'):
            self._bridge(children, text.removeprefix('bridge("').removesuffix('")'))
        elif (look_up := _look_up(text)) is not None:
            self._table(children, *look_up)
        elif text.startswith("bucket ") and is_decimal(text.removeprefix("bucket ")):
            self._end_clones()
            self._push(children, _Draft(children // 2, self._bridge_name(), -1, text, -1, 0, self._registers, []))
        elif text == "thaw":
            self._stack.append(_Node(children, self._bridge_name()))
        else:
            self._action(text)

    def _note(self, text: str) -> None:
        # A trace learns nothing and changes no state: that note is about the trace, not about the packet.
        if not text.startswith("suppressing side effects"):
            self.errors.append(text)

    def _unwind(self, level: int) -> None:
        while self._stack and self._stack[-1].level > level:
            node = self._stack.pop()
            if node.clones:
                self._registers = node.clones[0].before
            if node.before is not None:
                self._registers = node.before

    def _bridge(self, children: int, name: str) -> None:
        # A patch port: the peer's pipeline begins without registers, ours has them again after it.
        before = self._registers if self._stack else None
        if before is not None:
            self._registers = Registers()
        elif self._frozen_in:
            name = self._frozen_in
        self._stack.append(_Node(children, name, before))

    def _bridge_name(self) -> str:
        return self._stack[-1].bridge if self._stack else ""

    def _table(self, children: int, table: int, match: str, priority: int, cookie: int) -> None:
        if priority >= 0:
            self._registers.take_match(match_fields(match))
        self._push(
            children,
            _Draft(children // 2, self._bridge_name(), table, match, priority, cookie, self._registers.copy(), []),
        )

    def _push(self, children: int, draft: _Draft) -> None:
        bucket = draft.table < 0
        if bucket:
            draft.registers = self._registers.copy()
        node = _Node(children, draft.bridge, self._registers.copy() if bucket else None)
        node.draft = draft
        self.steps.append(draft)
        self._stack.append(node)

    def _end_clones(self) -> None:
        """Ends the clones of the innermost node that have printed all their actions."""
        clones = self._stack[-1].clones if self._stack else []
        while clones and not clones[-1].remaining:
            self._registers = clones.pop().before

    def _action(self, text: str) -> None:
        node = self._stack[-1] if self._stack else None
        if node is None:
            return
        while node.clones and not node.clones[-1].takes(text):
            self._registers = node.clones.pop().before
        if node.draft is not None:
            node.draft.actions.append(text)
        if text.startswith("clone(") and text.endswith(")"):
            node.clones.append(_Clone(text, self._registers))
        else:
            apply_action(self._registers, text)

    def _detail(self, text: str) -> None:
        apply_detail(self._registers, text)
        if text.startswith(_ENDING_DETAILS) or "dropping" in text or "skipping output" in text:
            self.errors.append(text)


def _look_up(text: str) -> tuple[int, str, int, int] | None:
    """(table, match, priority, cookie) of a line such as `33. metadata=0x1, priority 50, cookie 0x6be17ad8`."""
    table, dot, rest = text.partition(". ")
    if not dot or not is_decimal(table):
        return None
    if rest.startswith(("No match", "Packets are IP fragments")):
        return int(table), rest, -1, 0
    body, found, cookie = rest.rpartition(", cookie ")
    if not found:
        body, cookie = rest, "0"
    match, found, priority = body.rpartition("priority ")
    if not found or (match and not match.endswith((", ", " "))):
        return None
    return int(table), match.rstrip(", "), number(priority), number(cookie)
