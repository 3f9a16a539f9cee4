"""Which bits of reg10 (OVN's logical flags, MFF_LOG_FLAGS) nobody on a bridge matches or sets.

A load of zero into the whole register is no use of its bits: that is how OVN clears the flags where a packet
crosses to the next logical datapath, and how our guard is cleared with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vtrace.model.openflow import InstalledEntry
from vtrace.ovs.flowtext import masked, match_fields, number
from vtrace.ovs.trace_state import subfield

ALL_BITS = 0xFFFF_FFFF
# Bits 26 and 27 are free in every release read; 25 to 27 up to 26.03 (facts-ovs-ovn.md).
PREFERRED_LSBS = (26, 25, *range(30, -1, -1))

# Fields that hold reg10, their width, and the lowest bit of reg10 in them.
_MATCHED = {"reg10": (32, 0), "xreg5": (64, 32), "xxreg2": (128, 32)}
_ASSIGNED = {
    "NXM_NX_REG10": (32, 0),
    "OXM_OF_PKT_REG5": (64, 32),
    "NXM_NX_XXREG2": (128, 32),
}
_MARKS = (*_MATCHED, *_ASSIGNED)


def mentions_reg10(line: str) -> bool:
    """Whether a line of a dump may use reg10."""
    return any(mark in line for mark in _MARKS)


def used_bits(entries: Iterable[InstalledEntry]) -> int:
    """The bits of reg10 that the entries match or set."""
    used = 0
    for entry in entries:
        if mentions_reg10(entry.match):
            used |= _matched_bits(entry.match)
        if mentions_reg10(entry.actions):
            for word in _words(entry.actions):
                used |= _word_bits(word)
    return used


def free_pair(used: int) -> int | None:
    """The lower of two neighboring bits that are free, None if there are none."""
    return next((lsb for lsb in PREFERRED_LSBS if not used & (0b11 << lsb)), None)


def _matched_bits(match: str) -> int:
    used = 0
    for name, value in match_fields(match).items():
        if name in _MATCHED:
            width, shift = _MATCHED[name]
            used |= masked(value, width)[1] >> shift
    return used & ALL_BITS


def _words(actions: str) -> Iterator[str]:
    """The innermost words of an action list, whatever they are nested in."""
    for mark in "()":
        actions = actions.replace(mark, ",")
    return (word for word in actions.split(",") if mentions_reg10(word))


def _word_bits(word: str) -> int:
    source, arrow, target = word.rpartition("->")
    verb, _, value = source.partition(":")
    if arrow and verb == "set_field" and target in _MATCHED:
        width, shift = _MATCHED[target]
        return _assigned(value, width) >> shift & ALL_BITS
    used = 0
    for name, (width, shift) in _ASSIGNED.items():
        for mention in word.split(name)[1:]:
            if not mention.startswith("["):
                continue
            bits = mention[1:].partition("]")[0]
            low, count = subfield(bits, width)
            whole = verb == "load" and bool(arrow) and target == f"{name}[]"
            mask = number(value) if whole else ((1 << count) - 1) << low
            used |= mask >> shift
    if arrow or used or "=" not in word:
        return used & ALL_BITS
    # Within learn(): a match such as reg10=0x1/0x1.
    return _matched_bits(word)


def _assigned(value: str, width: int) -> int:
    """The bits that `set_field:VALUE[/MASK]` uses; of a whole field those it sets."""
    number_text, slash, _ = value.partition("/")
    return masked(value, width)[1] if slash else number(number_text)
