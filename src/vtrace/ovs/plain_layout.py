"""Finds where packets can leave a bridge whose entries somebody wrote by hand, and a register for the guard.

A table from which packets can leave is an output table: one with an entry that outputs, or that entries are learned
into that do. Nothing is assumed of their numbers. What is not understood beyond doubt is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from vtrace.color.registry import PRIORITY_MATCH, is_our_entry
from vtrace.errors import BridgeNotUnderstoodError, RefusedError
from vtrace.match.mirror import MAX_MAC_AGE_S
from vtrace.model.openflow import GuardBits, InstalledEntry, TableId
from vtrace.model.plain import LearnedMac, MirroredEntry, OutputTable, PlainLayout, RegisterField
from vtrace.ovs.flowtext import is_decimal, match_fields, split_top
from vtrace.ovs.guard_bits import mentions
from vtrace.ovs.ofctl import OfCtl
from vtrace.ovs.outputs import Reach, learned_tables, not_understood, reach_of
from vtrace.ovs.trace_state import subfield
from vtrace.ovs.unixctl import call

MAX_MIRRORED = 2000
MAX_MACS = 500
# Reg8 to reg10 are for the claims of a run in table 0 (`color/guard.py`, `agent/claims.py`).
_REGISTERS = (15, 14, 13, 12, 11, 7, 6, 5, 4, 3, 2, 1, 0)
_LAST_TABLE = 253
_GUARD_WIDTH = 2
_MAX_TABLES = (32 - _GUARD_WIDTH) // 2
_DSCP_WORDS = ("nw_tos=", "ip_dscp=", "mod_nw_tos", "->nw_tos", "->ip_dscp", "NXM_OF_IP_TOS", "OXM_OF_IP_DSCP")


def discover(
    entries: Sequence[InstalledEntry],
    groups: Mapping[int, tuple[str, ...]],
    macs: Sequence[LearnedMac] = (),
    bridge: str = "",
) -> PlainLayout:
    """The layout of a bridge.

    Args:
        entries: all entries of the bridge; ours are left aside.
        groups: of each group the action lists of its buckets.
        macs: what NORMAL has learned.
        bridge: its name, for errors.

    Raises:
        BridgeNotUnderstoodError: something that we can't follow packets through.
        RefusedError: an entry at our own priority stands in an output table.
    """
    theirs = [entry for entry in entries if not is_our_entry(entry.cookie, entry.hard_timeout_s)]
    return _Discovery(theirs, groups, bridge).layout(tuple(macs)[: MAX_MACS + 1])


async def discover_on(ofctl: OfCtl, ctl_path: str, bridge: str) -> PlainLayout:
    """`discover` on a live bridge."""
    entries = await ofctl.dump_entries()
    macs = parse_fdb(await call(ctl_path, "fdb/show", bridge))
    return discover(entries, await ofctl.group_actions(), macs, bridge)


def parse_fdb(text: str) -> tuple[LearnedMac, ...]:
    """`fdb/show`: a header, then port, VLAN, MAC address and age."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 4 and is_decimal(words[0]) and is_decimal(words[1]):
            age = int(words[3]) if is_decimal(words[3]) else 0
            found.append(LearnedMac(port=int(words[0]), vlan=int(words[1]), mac=words[2].lower(), age_s=age))
    return tuple(found)


def dscp_entries(entries: Iterable[InstalledEntry]) -> list[str]:
    """Entries that read or write the DSCP: coloring would change what they do."""
    return [
        entry_text(entry)
        for entry in entries
        if not is_our_entry(entry.cookie, entry.hard_timeout_s)
        and any(word in f"{entry.match} {entry.actions}" for word in _DSCP_WORDS)
    ]


def entry_text(entry: InstalledEntry) -> str:
    """An entry in one line, for people."""
    match = f",{entry.match}" if entry.match else ""
    return f"table={entry.table},priority={entry.priority}{match} actions={entry.actions}"


class _Discovery:
    def __init__(self, entries: Sequence[InstalledEntry], groups: Mapping[int, tuple[str, ...]], bridge: str) -> None:
        self._entries = entries
        self._groups = groups
        self._bridge = bridge
        self._tables: dict[int, list[tuple[InstalledEntry, Reach]]] = defaultdict(list)
        self._learned: set[int] = set()
        for entry in entries:
            reach = reach_of(entry.actions, entry.table, groups, f"{bridge}: {entry_text(entry)}")
            self._tables[entry.table].append((entry, reach))
            self._learned |= {table for table, outputs in learned_tables(entry.actions) if outputs}
        self._next = {table: set().union(*(r.tables for _, r in found)) for table, found in self._tables.items()}
        self._ct = {table: set().union(*(r.ct_tables for _, r in found)) for table, found in self._tables.items()}

    def layout(self, macs: tuple[LearnedMac, ...]) -> PlainLayout:
        register = self._free_register()
        out = sorted({t for t, found in self._tables.items() if any(r.outputs for _, r in found)} | self._learned)
        if len(out) > _MAX_TABLES:
            raise self._unsure(
                f"{len(out)} of its tables have entries that output, at most {_MAX_TABLES} can be watched"
            )
        self._refuse_top(out)
        count = sum(len(self._tables[table]) for table in out)
        if count > MAX_MIRRORED:
            raise self._unsure(f"its output tables hold {count} entries, at most {MAX_MIRRORED} can be mirrored")
        used = {*self._tables, *out, *(t for targets in (*self._next.values(), *self._ct.values()) for t in targets)}
        used |= {table for entry in self._entries for table, _ in learned_tables(entry.actions)}
        free = [table for table in range(_LAST_TABLE, 0, -1) if table not in used]
        if len(free) < len(out):
            raise self._unsure("there is no unused table for our entries")
        tables = [self._table(table, free[number], _GUARD_WIDTH + 2 * number) for number, table in enumerate(out)]
        return PlainLayout(
            guard=GuardBits(register=register, lsb=0),
            tables=tuple(tables),
            macs=macs if len(macs) <= MAX_MACS else (),
            notes=tuple(note for table in tables for note in _notes(table)),
        )

    def _free_register(self) -> int:
        buckets = [actions for lists in self._groups.values() for actions in lists]
        lines = [*(f"{entry.match} {entry.actions}" for entry in self._entries), *buckets]
        for register in _REGISTERS:
            if not any(mentions(line, register) for line in lines):
                return register
        raise self._unsure("every register is used by some entry")

    def _refuse_top(self, out: Sequence[int]) -> None:
        """An entry at our own priority may win over ours, and let a color out."""
        for table in out:
            for entry, _ in self._tables[table]:
                if entry.priority >= PRIORITY_MATCH:
                    raise RefusedError(
                        "An entry that outputs packets, or stands beside such, has the highest priority there is",
                        f"{self._bridge}: {entry_text(entry)}",
                        "which of it and ours would win is undefined",
                        "Give it a lower priority",
                    )

    def _table(self, table: int, mirror: int, lsb: int) -> OutputTable:
        found = self._tables[table]
        ranks = {p: n for n, p in enumerate(sorted({entry.priority for entry, _ in found}), 1)}
        entries = tuple(self._mirrored(entry, reach, ranks[entry.priority]) for entry, reach in found)
        return OutputTable(
            table=TableId(table),
            mirror=TableId(mirror),
            lsb=lsb,
            returns=any(entry.once for entry in entries),
            entries=entries,
        )

    def _mirrored(self, entry: InstalledEntry, reach: Reach, rank: int) -> MirroredEntry:
        if "conj_id" in match_fields(entry.match) or "conjunction(" in entry.actions:
            raise not_understood(f"{self._bridge}: {entry_text(entry)}", "conjunctive matches can't be mirrored")
        comes_back = entry.table in self._reachable(reach.tables, conntrack=False)
        after_ct = entry.table in self._reachable(reach.tables | reach.ct_tables, conntrack=True)
        goes_on = bool(reach.tables or reach.ct_tables)
        fields = [_register_field(field) for field in sorted(reach.fields)]
        if None in fields:
            reach.spread = ", ".join(sorted(reach.fields))
        return MirroredEntry(
            rank=rank,
            terms=tuple(split_top(entry.match)),
            ports=tuple(sorted(reach.ports)),
            field=fields[0] if fields else None,
            normal=reach.normal,
            leaves=bool(reach.ports or reach.fields or reach.normal or reach.spread),
            unsure=_unsure_of(reach, comes_back=comes_back, goes_on=goes_on),
            once=after_ct and not comes_back,
            cookie=entry.cookie,
            text=entry_text(entry),
        )

    def _reachable(self, start: Iterable[int], *, conntrack: bool) -> set[int]:
        """The tables that a packet may come to from some, these included."""
        found: set[int] = set()
        waiting = list(start)
        while waiting:
            table = waiting.pop()
            if table not in found:
                found.add(table)
                waiting += self._next.get(table, ())
                waiting += self._ct.get(table, ()) if conntrack else ()
        return found

    def _unsure(self, why: str) -> BridgeNotUnderstoodError:
        return BridgeNotUnderstoodError(
            "VTrace can't work on this bridge", self._bridge, why, "See docs/plain-ovs.md for what it needs"
        )


def _unsure_of(reach: Reach, *, comes_back: bool, goes_on: bool) -> str:
    """Why an entry's packets must lose their color; empty where it may stay if the port leads to an armed bridge."""
    if reach.controller:
        return "it sends packets to a controller"
    if reach.spread:
        return f"it outputs to ports that can't be told beforehand ({reach.spread})"
    if reach.ways > 1:
        return "it outputs to several ports"
    if comes_back:
        return "its packets come back to the same table"
    if reach.outputs and goes_on:
        return "it outputs packets and passes them on too"
    return ""


def _notes(table: OutputTable) -> Iterable[str]:
    for entry in table.entries:
        if entry.unsure:
            yield f"packets can't be followed beyond an entry, since {entry.unsure}: {entry.text}"


def _register_field(text: str) -> RegisterField | None:
    """The bits that `NXM_NX_REG0[0..15]` names; None for a field that is no register."""
    name, _, bits = text.partition("[")
    digits = name.removeprefix("NXM_NX_REG")
    if not is_decimal(digits):
        return None
    lsb, width = subfield(bits.removesuffix("]"), 32)
    return RegisterField(register=int(digits), lsb=lsb, width=width)


def essence(layout: PlainLayout) -> tuple[object, ...]:
    """What has to be the same for our entries to be right still: not the age of a MAC address."""
    macs = layout.macs if any(entry.normal for table in layout.tables for entry in table.entries) else ()
    rows = frozenset((row.port, row.vlan, row.mac, row.age_s <= MAX_MAC_AGE_S) for row in macs)
    return (layout.guard, layout.tables, rows)
