"""The answer of a task: the document that `--json` prints (schema 1)."""

from __future__ import annotations

from typing import Any

import msgspec

CONTRAST_FIELDS = (
    "direction",
    "size",
    "fragment",
    "conntrack_state",
    "tcp_flags",
    "protocol",
    "destination_port",
    "backend",
    "ecmp_member",
    "server",
    "source_port",
    "rate",
)
KINDS = ("dropped", "lost_between", "left_domain", "evidence_missing", "no_traffic", "delivered")


class ObjectRef(msgspec.Struct, frozen=True, kw_only=True):
    """A row of OVN, or an "OpenFlow entry"."""

    type: str
    uuid: str = ""
    name: str = ""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was seen: which command or record says it, on which chassis, when (RFC 3339)."""

    source: str
    text: str
    chassis: str = ""
    at: str = ""


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """The place where the packet was last in our hands."""

    server: str | None = None
    server_ip: str | None = None
    vfd: str | None = None
    vfd_kind: str | None = None
    port: str | None = None
    next_server: str | None = None
    next_vfd: str | None = None


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """The reason: a code of the closed list, whose doing it is, the object, what was seen, what to do."""

    code: str
    actor: str
    summary: str
    object: ObjectRef | None = None
    evidence: tuple[Evidence, ...] = ()
    fix: str | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One (kind, direction, from, to, where, code, object) and how many packets it happened to."""

    kind: str
    pattern: str | None = None
    direction: str = "forward"
    from_: str = msgspec.field(name="from", default="")
    to: str = ""
    packets: int = 0
    confidence: float = 1.0
    where: Where = Where()
    why: Why | None = None


class Packets(msgspec.Struct, frozen=True, kw_only=True):
    """How many packets came to which end; `colored` is the sum of the others."""

    colored: int = 0
    delivered: int = 0
    dropped: int = 0
    lost_between: int = 0
    left_domain: int = 0
    evidence_missing: int = 0


class PairAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer for one pair and direction; `verdicts` are indexes into the answer's list."""

    from_: str = msgspec.field(name="from", default="")
    to: str = ""
    direction: str = "forward"
    loss: str = "unknown"
    loss_ratio: float | None = None
    colored: int = 0
    verdicts: tuple[int, ...] = ()


class Rewrite(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses that changed at a hop, as "ADDRESS" or "ADDRESS:PORT", and the row that says so.

    `kind`: snat, dnat (a NAT row), load_balancing (a VIP), or unsnat, undnat (what a connection's other direction had
    changed is put back); unknown where no row that the task knows does it.
    """

    kind: str
    before: str
    after: str
    object: ObjectRef | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the topology while the task ran: when it was read (RFC 3339), in words, and the row."""

    at: str
    text: str
    object: ObjectRef | None = None


class Contrast(msgspec.Struct, frozen=True, kw_only=True):
    """What tells lost packets from delivered ones: the values of a field on either side, and a sentence.

    `from`, `to` and `direction` are those of the pair; null where it holds for several together.
    """

    field: str
    lost: str
    delivered: str
    text: str
    from_: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    direction: str | None = None


class HopAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One hop of a path; `rewritten` is what it changed of the headers."""

    server: str
    vfd: str
    vfd_kind: str
    point: str
    in_port: str
    out_port: str
    five_tuple: dict[str, Any]
    ttl: int
    rewritten: tuple[Rewrite, ...] = ()


class PathAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Packets that took the same hops and came to the same end.

    Of `packets_with_gaps` of them records of some of these hops are missing: they fit this path and no other.
    """

    packets: int
    disposition: str
    hops: tuple[HopAnswer, ...]
    packets_with_gaps: int = 0
    from_: str = msgspec.field(name="from", default="")
    to: str = ""
    direction: str = "forward"


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What the task cost, and what it left behind (`entries_left` should be 0).

    `packets_for_others` were colored at a shared address (a VIP, a source NAT's) and translated to other endpoints.
    """

    entries_installed: int = 0
    entries_left: int = 0
    packets_colored_beyond_n: int = 0
    packets_for_others: int = 0
    packets_in_doubt: int = 0
    copies_cut: int = 0
    log_bytes: int = 0
    log_records_lost: int = 0
    time_to_verdict_s: float = 0.0


class TaskAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The task, as the answer repeats it."""

    id: str
    state: str
    from_: tuple[str, ...] = msgspec.field(name="from", default=())
    to: tuple[str, ...] = ()
    five_tuple: dict[str, Any] = {}
    direction: str = "forward"
    packets_asked: int = 0
    started: str = ""
    finished: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The whole document."""

    schema: int = 1
    task: TaskAnswer
    loss: str = "unknown"
    loss_ratio: float | None = None
    pattern: str | None = None
    packets: Packets = Packets()
    verdicts: tuple[Verdict, ...] = ()
    pairs: tuple[PairAnswer, ...] = ()
    contrast: tuple[Contrast, ...] = ()
    paths: tuple[PathAnswer, ...] = ()
    cost: Cost = Cost()
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
