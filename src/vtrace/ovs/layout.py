"""Finds where OVN put its physical stages on a bridge, from the entries that are there (controller/physical.c).

The table numbers moved between releases and inside a stable series, so nothing is assumed. The evidence:

- check loopback: its priority-0 entry clears reg0 to reg9 and goes on to the first egress table;
- local output: its entries for one local port (reg15, metadata) go to check loopback; its priority-0 entry drops;
- tunnel ports: table 0's entry for each tunnel goes to local output;
- remote output: its priority-0 entry goes to local output (since 25.09 by way of one table for VTEPs), and it has
  the entries that keep some packets local by a bit of reg10;
- first ingress table: where table 0's entries for local ports go, or on a server without such ports where a packet
  goes that crosses into the next logical datapath;
- save-inport: its entries push the in port and go to the table that its priority-0 entry goes to, log-to-physical.

All of it has to agree, or nothing is said.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import anyio.lowlevel

from vtrace.color.registry import is_our_entry
from vtrace.errors import BridgeNotUnderstoodError
from vtrace.model.openflow import BridgeLayout, Cookie, GuardBits, InstalledEntry, TableId
from vtrace.ovs.bridge import BridgeFacts
from vtrace.ovs.flowtext import is_decimal, is_entry, match_fields, number, parse_entry, split_top, table_of
from vtrace.ovs.guard_bits import OVN_FLAGS, free_pair, mentions, used_bits
from vtrace.ovs.named_ids import NamedIds
from vtrace.ovs.ofctl import OfCtl

_CATCH_ALL = "priority=0 actions="
_PUSH_IN_PORT = "push:NXM_OF_IN_PORT[]"
# Bridges of up to so many entries are read in one dump: each dump is a program to start.
ONE_DUMP_ENTRIES = 5000
_T = TypeVar("_T")


def discover(
    entries: Sequence[InstalledEntry], tunnel_ofports: Sequence[int], buckets: Iterable[str] = ()
) -> BridgeLayout:
    """The layout of an integration bridge.

    Args:
        entries: at least all entries of tables that have a priority-0 entry without a match, and all that
            mention reg10. Entries of ours are left aside.
        tunnel_ofports: port numbers of the tunnels, empty on a single chassis.
        buckets: the action lists of all groups.

    Raises:
        BridgeNotUnderstoodError: a piece of evidence is missing or contradicts another.
    """
    evidence = _Evidence([entry for entry in entries if not is_our_entry(entry.cookie, entry.hard_timeout_s)])
    check_loopback, egress_first = evidence.check_loopback()
    local_output = evidence.local_output(check_loopback)
    evidence.agree_on_tunnels(tunnel_ofports, local_output)
    remote_output = evidence.remote_output(local_output, tunnel_ofports)
    ingress_first = evidence.ingress_first(tunnel_ofports)
    save_inport, log_to_physical = evidence.save_inport()
    order = (0, ingress_first, remote_output, local_output, check_loopback, egress_first, save_inport, log_to_physical)
    if list(order) != sorted(set(order)):
        raise _unsure(f"the tables found are not in the order of the pipeline: {order}")
    in_groups = (InstalledEntry(table=TableId(0), priority=0, cookie=Cookie(0), match="", actions=b) for b in buckets)
    guard_lsb = free_pair(used_bits([*evidence.entries, *in_groups], OVN_FLAGS))
    if guard_lsb is None:
        raise _unsure("no two neighboring bits of reg10 are free")
    return BridgeLayout(
        ingress_first=TableId(ingress_first),
        remote_output=TableId(remote_output),
        local_output=TableId(local_output),
        check_loopback=TableId(check_loopback),
        egress_first=TableId(egress_first),
        save_inport=TableId(save_inport),
        log_to_physical=TableId(log_to_physical),
        guard=GuardBits(register=OVN_FLAGS, lsb=guard_lsb),
    )


async def discover_on(ofctl: OfCtl, facts: BridgeFacts, named: NamedIds | None = None) -> BridgeLayout:
    """`discover` on a live bridge.

    Of a large bridge the tables are dumped one by one, so that vswitchd's main thread is never held for longer
    than one table takes. Of the logical tables only the lines that mention reg10 are read.

    Args:
        named: takes the meters and controller ids that entries and groups of others name.
    """
    named = named or NamedIds()
    entries: list[InstalledEntry] = []
    buckets = [actions for lists in (await ofctl.group_actions()).values() for actions in lists]
    named.take(buckets)
    counts = await ofctl.table_counts()
    if sum(counts.values()) <= ONE_DUMP_ENTRIES:
        by_table: dict[int, list[str]] = defaultdict(list)
        for line in (await ofctl.dump_text()).splitlines():
            if is_entry(line):
                by_table[table_of(line)].append(line)
        for lines in by_table.values():
            named.take(lines)
        return discover(
            [entry for lines in by_table.values() for entry in _needed("\n".join(lines))],
            [tunnel.ofport for tunnel in facts.tunnels if tunnel.ofport > 0],
            buckets,
        )
    for table, count in counts.items():
        if not count:
            continue
        text = await ofctl.dump_text(table=table)
        named.take(text.splitlines())
        entries += _needed(text)
        await anyio.lowlevel.checkpoint()
    return discover(entries, [tunnel.ofport for tunnel in facts.tunnels if tunnel.ofport > 0], buckets)


def _needed(text: str) -> Iterator[InstalledEntry]:
    physical = _CATCH_ALL in text
    for line in text.splitlines():
        if is_entry(line) and (physical or mentions(line, OVN_FLAGS)):
            yield parse_entry(line)


class _Evidence:
    """The entries by table, and the questions asked of them."""

    def __init__(self, entries: Sequence[InstalledEntry]) -> None:
        self.entries = entries
        self.tables: dict[int, list[InstalledEntry]] = defaultdict(list)
        for entry in entries:
            self.tables[entry.table].append(entry)
        # Where each table's priority-0 entry without a match goes, if that is all it does.
        self.default_next: dict[int, int] = {}
        for table, entry in self._catch_alls():
            if (target := _sole_resubmit(entry.actions)) is not None:
                self.default_next[table] = target

    def check_loopback(self) -> tuple[int, int]:
        """(check loopback, first egress table)."""
        found = []
        for table, entry in self._catch_alls():
            words = list(split_top(entry.actions))
            targets = _resubmits(entry.actions)
            if len(targets) == 1 and sum(map(_clears_register, words)) >= 2:
                found.append((table, targets[0]))
        return _only(found, "table whose priority-0 entry clears the registers and goes on (check loopback)")

    def local_output(self, check_loopback: int) -> int:
        found = {
            table
            for table, entries in self.tables.items()
            for entry in entries
            if _is_unicast(entry) and _last_target(entry.actions) == check_loopback
        }
        local_output = _only(sorted(found), f"table whose entries for local ports go to table {check_loopback}")
        if not self._drops_by_default(local_output):
            raise _unsure(f"table {local_output} (local output) has no priority-0 entry that drops")
        return local_output

    def agree_on_tunnels(self, tunnel_ofports: Sequence[int], local_output: int) -> None:
        """Checks that table 0 sends what comes through tunnels to local output.

        A tunnel without an entry contradicts nothing as long as another has one: then somebody took it away.
        """
        targets: dict[int, int | None] = {}
        for entry in self.tables[0]:
            fields = match_fields(entry.match)
            if set(fields) == {"in_port"} and is_decimal(fields["in_port"]):
                targets[int(fields["in_port"])] = _last_target(entry.actions)
        if tunnel_ofports and not targets.keys() & set(tunnel_ofports):
            raise _unsure(f"table 0 has no entry for any tunnel port ({', '.join(map(str, tunnel_ofports))})")
        for ofport in targets.keys() & set(tunnel_ofports):
            if targets[ofport] != local_output:
                raise _unsure(
                    f"table 0 sends tunnel port {ofport} to table {targets[ofport]}, "
                    f"but local output seems to be table {local_output}"
                )

    def remote_output(self, local_output: int, tunnel_ofports: Sequence[int]) -> int:
        before = [table for table, target in self.default_next.items() if target == local_output]
        table = _only(before, f"table whose priority-0 entry goes to table {local_output} (remote output)")
        chain = [table]
        # Since 25.09 a table for VTEPs lies between; the table before remote output is two tables
        # (large packet detect and process), or none in 23.03.0.
        earlier = [t for t, target in self.default_next.items() if target == table]
        if len(earlier) == 1:
            table = earlier[0]
            chain.append(table)
        keeps_local = [
            entry
            for entry in self.tables[table]
            if set(match_fields(entry.match)) == {"reg10"} and _sole_resubmit(entry.actions) == local_output
        ]
        if not keeps_local:
            raise _unsure(f"table {table} (remote output) has no entry that keeps packets local by a bit of reg10")
        ports = set(tunnel_ofports)
        sending = {t for t, entries in self.tables.items() if any(ports & _outputs(e.actions) for e in entries)}
        if sending and not sending & set(chain):
            raise _unsure(f"packets leave through tunnels from tables {sorted(sending)}, not from table {table}")
        return table

    def ingress_first(self, tunnel_ofports: Sequence[int]) -> int:
        ports = set(tunnel_ofports)
        found = set()
        for entry in self.tables[0]:
            in_port = match_fields(entry.match).get("in_port", "")
            target = _last_target(entry.actions)
            if not in_port or target is None or (is_decimal(in_port) and int(in_port) in ports):
                continue
            if _sets(entry.actions, "metadata") and _sets(entry.actions, "reg14"):
                # 25.03 may look up a conntrack zone first: a table that only goes on.
                found.add(self.default_next.get(target, target))
        # A gateway may have no port of its own: what crosses into the next logical datapath begins there too.
        found = found or self._behind_patches()
        return _only(sorted(found), "table that table 0 sends local ports to (first ingress table)")

    def _behind_patches(self) -> set[int]:
        """Where log-to-physical's entries for patch ports go on, in a clone, with another datapath and in port."""
        found = set()
        for entries in self.tables.values():
            for entry in entries:
                for word in split_top(entry.actions):
                    inner = word.removeprefix("clone(").removesuffix(")") if word.startswith("clone(") else ""
                    target = _last_target(inner)
                    if target is not None and _sets(inner, "metadata") and _sets(inner, "reg14"):
                        found.add(self.default_next.get(target, target))
        return found

    def save_inport(self) -> tuple[int, int]:
        """(save-inport, log-to-physical)."""
        found = [
            (table, target)
            for table, target in self.default_next.items()
            if any(_PUSH_IN_PORT in e.actions and target in _resubmits(e.actions) for e in self.tables[table])
        ]
        save_inport, log_to_physical = _only(found, "table that saves the in port")
        if not self._drops_by_default(log_to_physical):
            raise _unsure(f"table {log_to_physical} (log-to-physical) has no priority-0 entry that drops")
        return save_inport, log_to_physical

    def _catch_alls(self) -> Iterator[tuple[int, InstalledEntry]]:
        for table, entries in self.tables.items():
            for entry in entries:
                if entry.priority == 0 and not entry.match:
                    yield table, entry

    def _drops_by_default(self, table: int) -> bool:
        # With OVN's drop debugging the entry samples the packet before it ends (ovn-nb(5), debug_drop_mode).
        return any(
            entry.priority == 0 and not entry.match and (entry.actions == "drop" or "sample(" in entry.actions)
            for entry in self.tables[table]
        )


def _unsure(why: str) -> BridgeNotUnderstoodError:
    return BridgeNotUnderstoodError(
        "the layout of the integration bridge is not clear",
        why=why,
        next_step="Check that ovn-controller runs and has bound a port here; if so, report the version of OVN",
    )


def _only(found: Sequence[_T], what: str) -> _T:
    if len(found) != 1:
        raise _unsure(f"there is no {what}" if not found else f"there is more than one {what}: {list(found)}")
    return found[0]


def _resubmits(actions: str) -> list[int]:
    """Tables of the resubmits at the top level, in order."""
    tables = []
    for word in split_top(actions):
        if word.startswith("resubmit(,") and word.endswith(")"):
            tables.append(number(word.removeprefix("resubmit(,").removesuffix(")")))
    return tables


def _sole_resubmit(actions: str) -> int | None:
    targets = _resubmits(actions)
    return targets[0] if len(targets) == 1 and sum(1 for _ in split_top(actions)) == 1 else None


def _last_target(actions: str) -> int | None:
    targets = _resubmits(actions)
    return targets[-1] if targets else None


def _is_unicast(entry: InstalledEntry) -> bool:
    """Whether the entry is for one logical port: reg15 below OVN's multicast keys (0x8000), and metadata."""
    fields = match_fields(entry.match)
    if set(fields) != {"reg15", "metadata"} or "/" in fields["reg15"]:
        return False
    return number(fields["reg15"]) < 0x8000 and len(_resubmits(entry.actions)) == 1


def _clears_register(word: str) -> bool:
    if word.startswith("set_field:0->reg"):
        return True
    return word.startswith("load:0->NXM_NX_REG") and word.endswith("[]")


def _sets(actions: str, name: str) -> bool:
    """Whether a whole field is given a constant at the top level."""
    long = {"metadata": "OXM_OF_METADATA[]", "reg14": "NXM_NX_REG14[]"}[name]
    return any(
        word.startswith(("set_field:", "load:")) and word.endswith((f"->{name}", f"->{long}"))
        for word in split_top(actions)
    )


def _outputs(actions: str) -> set[int]:
    """Port numbers of the outputs at the top level."""
    words: Iterable[str] = split_top(actions)
    ports = (word.removeprefix("output:") for word in words if word.startswith("output:"))
    return {int(port) for port in ports if is_decimal(port)}
