"""Which bits of a register nobody on a bridge matches or sets: reg10 with OVN (its logical flags, MFF_LOG_FLAGS).

A load of zero into the whole register is no use of its bits: that is how OVN clears the flags where a packet
crosses to the next logical datapath, and how our guard is cleared with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from vtrace.model.openflow import InstalledEntry
from vtrace.ovs.flowtext import masked, match_fields, number
from vtrace.ovs.trace_state import subfield

OVN_FLAGS = 10
ALL_BITS = 0xFFFF_FFFF
# Bits 26 and 27 are free in every release read; 25 to 27 up to 26.03 (facts-ovs-ovn.md).
PREFERRED_LSBS = (26, 25, *range(30, -1, -1))


class _Register:
    """The fields that hold a register, their width, and the lowest bit of the register in them (ovs-fields(7))."""

    def __init__(self, number: int) -> None:
        double, quad = 32 * (1 - number % 2), 32 * (3 - number % 4)
        self.matched = {f"reg{number}": (32, 0), f"xreg{number // 2}": (64, double), f"xxreg{number // 4}": (128, quad)}
        self.assigned = {
            f"NXM_NX_REG{number}": (32, 0),
            f"OXM_OF_PKT_REG{number // 2}": (64, double),
            f"NXM_NX_XXREG{number // 4}": (128, quad),
        }
        self.mark = re.compile(rf"\b(?:{'|'.join((*self.matched, *self.assigned))})\b")


@lru_cache(maxsize=16)
def _register(number: int) -> _Register:
    return _Register(number)


def mentions(line: str, register: int) -> bool:
    """Whether a line of a dump may use the register."""
    return _register(register).mark.search(line) is not None


def used_bits(entries: Iterable[InstalledEntry], register: int) -> int:
    """The bits of the register that the entries match or set."""
    fields = _register(register)
    used = 0
    for entry in entries:
        if mentions(entry.match, register):
            used |= _matched_bits(entry.match, fields)
        if mentions(entry.actions, register):
            for word in _words(entry.actions, fields):
                used |= _word_bits(word, fields)
    return used


def free_pair(used: int) -> int | None:
    """The lower of two neighboring bits that are free, None if there are none."""
    return next((lsb for lsb in PREFERRED_LSBS if not used & (0b11 << lsb)), None)


def _matched_bits(match: str, fields: _Register) -> int:
    used = 0
    for name, value in match_fields(match).items():
        if name in fields.matched:
            width, shift = fields.matched[name]
            used |= masked(value, width)[1] >> shift
    return used & ALL_BITS


def _words(actions: str, fields: _Register) -> Iterator[str]:
    """The innermost words of an action list, whatever they are nested in."""
    for mark in "()":
        actions = actions.replace(mark, ",")
    return (word for word in actions.split(",") if fields.mark.search(word))


def _word_bits(word: str, fields: _Register) -> int:
    source, arrow, target = word.rpartition("->")
    verb, _, value = source.partition(":")
    if arrow and verb == "set_field" and target in fields.matched:
        width, shift = fields.matched[target]
        return _assigned(value, width) >> shift & ALL_BITS
    used = 0
    for name, (width, shift) in fields.assigned.items():
        for mention in word.split(f"{name}[")[1:]:
            bits = mention.partition("]")[0]
            low, count = subfield(bits, width)
            whole = verb == "load" and bool(arrow) and target == f"{name}[]"
            mask = number(value) if whole else ((1 << count) - 1) << low
            used |= mask >> shift
    if arrow or used or "=" not in word:
        return used & ALL_BITS
    # Within learn(): a match such as reg10=0x1/0x1.
    return _matched_bits(word, fields)


def _assigned(value: str, width: int) -> int:
    """The bits that `set_field:VALUE[/MASK]` uses; of a whole field those it sets."""
    number_text, slash, _ = value.partition("/")
    return masked(value, width)[1] if slash else number(number_text)
