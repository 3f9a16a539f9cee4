"""What an action list can do with a packet: ports, tables, controllers (ovs-actions(7)).

Every action is known by name or refused: one that we do not know might output.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from vtrace.errors import BridgeNotUnderstoodError, ProtocolError
from vtrace.model.plain import LOCAL_PORT
from vtrace.ovs.flowtext import is_decimal, number, split_top

# Actions that change the packet or its metadata and neither output it nor look it up again.
_QUIET = frozenset(
    (
        "drop", "set_field", "load", "move", "push", "pop", "mod_vlan_vid", "mod_vlan_pcp", "set_vlan_vid",
        "set_vlan_pcp", "strip_vlan", "pop_vlan", "push_vlan", "push_mpls", "pop_mpls", "dec_ttl", "set_mpls_label",
        "set_mpls_tc", "set_mpls_ttl", "dec_mpls_ttl", "mod_dl_src", "mod_dl_dst", "mod_nw_src", "mod_nw_dst",
        "mod_nw_tos", "mod_nw_ecn", "mod_nw_ttl", "mod_tp_src", "mod_tp_dst", "set_tunnel", "set_tunnel64",
        "set_queue", "pop_queue", "note", "exit", "fin_timeout", "meter", "write_metadata", "ct_clear",
        "clear_actions", "check_pkt_larger", "delete_field", "multipath", "bundle_load", "encap", "decap",
        "dec_nsh_ttl", "sample", "learn", "conjunction",
    )
)  # fmt: skip

# Open vSwitch goes no deeper (MAX_DEPTH of ofproto-dpif-xlate.c).
_MOST_NESTED_GROUPS = 64


class Reach(msgspec.Struct):
    """What an action list may do.

    Attributes:
        ports: port numbers it outputs to.
        fields: where the port is read from a field.
        normal: NORMAL; spread: why it may go to several ports, or to one that can't be told.
        controller: it sends packets to a controller.
        tables: where it looks them up again at once; ct_tables: after conntrack.
        groups: that it goes through.
    """

    ports: set[int] = msgspec.field(default_factory=set)
    fields: set[str] = msgspec.field(default_factory=set)
    normal: bool = False
    spread: str = ""
    controller: bool = False
    tables: set[int] = msgspec.field(default_factory=set)
    ct_tables: set[int] = msgspec.field(default_factory=set)
    groups: set[int] = msgspec.field(default_factory=set)

    @property
    def outputs(self) -> bool:
        return bool(self.ports or self.fields or self.normal or self.spread or self.controller)

    @property
    def ways(self) -> int:
        """How many outputs there are; 2 where there may be several."""
        return 2 if self.spread else len(self.ports) + len(self.fields) + self.normal + self.controller


def reach_of(actions: str, table: int, groups: Mapping[int, tuple[str, ...]], where: str) -> Reach:
    """What an entry's actions may do.

    Args:
        actions: as a dump prints them, with port numbers.
        table: the entry's table.
        groups: of each group the action lists of its buckets.
        where: the entry, for errors.

    Raises:
        BridgeNotUnderstoodError: an action that we do not know.
    """
    reach = Reach()
    try:
        _walk(actions, table, groups, reach, (), where)
    except ProtocolError as error:
        raise not_understood(where, str(error)) from error
    return reach


def not_understood(where: str, why: str) -> BridgeNotUnderstoodError:
    return BridgeNotUnderstoodError(
        "An entry of the bridge is not one that VTrace can follow packets through",
        where,
        why,
        "See docs/plain-ovs.md for what it understands",
    )


def _walk(
    actions: str, table: int, groups: Mapping[int, tuple[str, ...]], reach: Reach, seen: tuple[int, ...], where: str
) -> None:
    for word in split_top(actions):
        name, argument = _name_of(word)
        if name in ("clone", "write_actions"):
            _walk(argument, table, groups, reach, seen, where)
        elif name == "group":
            _group(number(argument), table, groups, reach, seen, where)
        elif name in ("resubmit", "goto_table"):
            reach.tables.add(_target(name, argument, word, table, where))
        elif name == "ct":
            _conntrack(argument, reach)
        elif not _output(name, argument, reach) and name not in _QUIET:
            raise not_understood(where, f"the action {word[:80]!r} is not known")


def _name_of(word: str) -> tuple[str, str]:
    """`output:3`, `output(port=3)` and `NORMAL` as (name, argument)."""
    at = min((i for i in (word.find(":"), word.find("(")) if i >= 0), default=len(word))
    name, rest = word[:at], word[at:]
    return name, rest[1:-1] if rest.startswith("(") else rest[1:]


def _output(name: str, argument: str, reach: Reach) -> bool:
    if name == "output":
        ports = [term.partition("=")[2] for term in argument.split(",") if term.startswith("port=")]
        _port(ports[0] if ports else argument, reach)
    elif name == "enqueue":
        _port(argument.replace(",", ":").split(":")[0], reach)
    elif name in ("LOCAL", "NORMAL", "IN_PORT", "FLOOD", "ALL"):
        _port(name, reach)
    elif name in ("controller", "CONTROLLER"):
        reach.controller = True
    elif name in ("bundle", "TABLE"):
        reach.spread = name
    else:
        return False
    return True


def _port(text: str, reach: Reach) -> None:
    if is_decimal(text):
        reach.ports.add(int(text))
    elif text == "LOCAL":
        reach.ports.add(LOCAL_PORT)
    elif text == "NORMAL":
        reach.normal = True
    elif text in ("CONTROLLER",):
        reach.controller = True
    elif "[" in text:
        reach.fields.add(text)
    else:
        reach.spread = text


def _target(name: str, argument: str, word: str, table: int, where: str) -> int:
    """The table of `goto_table:N`, `resubmit(,N)`, `resubmit(PORT,N)`, `resubmit:PORT`."""
    if name == "goto_table":
        return number(argument)
    if "(" not in word:
        return table
    terms = argument.split(",")
    if len(terms) > 2:
        raise not_understood(where, f"{word} looks up by conntrack's original tuple")
    target = terms[1] if len(terms) == 2 and terms[1] else "255"
    return table if number(target) == 255 else number(target)


def _conntrack(argument: str, reach: Reach) -> None:
    for term in split_top(argument):
        if term.startswith("table="):
            reach.ct_tables.add(number(term.removeprefix("table=")))


def _group(
    group: int,
    table: int,
    groups: Mapping[int, tuple[str, ...]],
    reach: Reach,
    seen: tuple[int, ...],
    where: str,
) -> None:
    if group in seen:
        raise not_understood(where, f"group {group} leads to itself")
    if group in reach.groups:
        # Once is enough: groups that lead to the same ones from every bucket would be gone through without end.
        return
    if len(seen) >= _MOST_NESTED_GROUPS:
        raise not_understood(where, "its groups lead to too many others")
    for bucket in groups.get(group, ()):
        _walk(bucket, table, groups, reach, (*seen, group), where)
    reach.groups.add(group)


def learned_tables(actions: str) -> Iterable[tuple[int, bool]]:
    """The tables that an action list learns entries into, and whether these output."""
    for word in split_top(actions):
        name, argument = _name_of(word)
        if name in ("clone", "write_actions"):
            yield from learned_tables(argument)
        elif name == "learn":
            terms = list(split_top(argument))
            target = next((number(t.removeprefix("table=")) for t in terms if t.startswith("table=")), 1)
            yield target, any(term.startswith("output:") for term in terms)
