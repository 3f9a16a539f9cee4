"""Reads what an agent must know of its bridge before it changes anything."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from vtrace.color import registry
from vtrace.errors import ProtocolError
from vtrace.model.openflow import InstalledEntry, OfPort
from vtrace.model.plan import LocalVif
from vtrace.ovs.flowtext import is_decimal, number


def local_vifs(table_0: Sequence[InstalledEntry]) -> tuple[LocalVif, ...]:
    """The bridge's logical ports, from the entries of table 0 that load a datapath and an in port.

    OVN writes one such entry for each VIF: `in_port=N actions=…,set_field:D->metadata,set_field:K->reg14,…`
    """
    found = []
    for entry in table_0:
        match = dict(term.partition("=")[::2] for term in entry.match.split(","))
        loads = dict(_load(action) for action in entry.actions.split(",") if "->" in action)
        in_port, datapath, key = (match.get("in_port", ""), loads.get("metadata", ""), loads.get("reg14", ""))
        if is_decimal(in_port) and _is_number(datapath) and _is_number(key) and not _is_ours(entry):
            vlan = match.get("dl_vlan", "0")
            found.append(
                LocalVif(
                    ofport=OfPort(int(in_port)),
                    datapath=number(datapath),
                    key=number(key),
                    vlan=number(vlan) if _is_number(vlan) else 0,
                )
            )
    tagged = {vif.ofport for vif in found if vif.vlan}
    return tuple(replace(vif, shared=vif.ofport in tagged) for vif in found)


# The same field in the two syntaxes of ovs-actions(7).
_FIELDS = {"OXM_OF_METADATA[]": "metadata", "NXM_NX_REG14[]": "reg14"}


def _load(action: str) -> tuple[str, str]:
    value, _, field = action.partition("->")
    return _FIELDS.get(field, field), value.partition(":")[2]


def _is_ours(entry: InstalledEntry) -> bool:
    return registry.is_our_entry(entry.cookie, entry.hard_timeout_s)


def _is_number(text: str) -> bool:
    try:
        number(text)
    except ProtocolError:
        # A masked load ("0x1/0xff") is none of OVN's.
        return False
    return True


def colors_used(ours: Sequence[InstalledEntry]) -> tuple[int, ...]:
    """The colors that entries with our cookie magic hold on the bridge."""
    return tuple(sorted({registry.color_of(e.cookie) for e in ours if _is_ours(e)} - {0}))


def entries_at_top(entries: Sequence[InstalledEntry]) -> tuple[str, ...]:
    """Entries of others at the priorities of ours that hold packets: which of two wins is undefined."""
    return tuple(
        f"table={e.table},priority={e.priority},{e.match} actions={e.actions}"
        for e in entries
        if e.priority >= (registry.PRIORITY_MATCH if e.table else registry.PRIORITY_COLOR_REST) and not _is_ours(e)
    )
