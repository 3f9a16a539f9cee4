"""What a trace lets be known of metadata, reg14 and reg15: OVN's logical datapath, in port and out port."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from vtrace.errors import ProtocolError
from vtrace.ovs.flowtext import masked, number

# The widest field there is: xxreg0 and the like.
_WIDEST = 128
_WIDTH = {"metadata": 64, "reg14": 32, "reg15": 32}
# Names in `load:`, `move:` and "is now" lines (ovs-actions(7), "Field specifications").
_NAMES = {"OXM_OF_METADATA": "metadata", "NXM_NX_REG14": "reg14", "NXM_NX_REG15": "reg15"}


class Registers(msgspec.Struct):
    """The three values, 0 where not set."""

    metadata: int = 0
    reg14: int = 0
    reg15: int = 0

    def copy(self) -> Registers:
        return Registers(self.metadata, self.reg14, self.reg15)

    def take_match(self, fields: Mapping[str, str]) -> None:
        """Learns from the match of an entry that was hit, or from the flow of a pass."""
        for name, width in _WIDTH.items():
            if name in fields:
                self._set(name, *masked(fields[name], width))

    def _set(self, name: str, value: int, mask: int) -> None:
        setattr(self, name, getattr(self, name) & ~mask | value & mask)


def apply_action(registers: Registers, action: str) -> None:
    """Follows `set_field:VALUE[/MASK]->reg15` and `load:VALUE->NXM_NX_REG15[…]`; others change nothing here."""
    verb, colon, rest = action.partition(":")
    value, arrow, target = rest.rpartition("->")
    if not colon or not arrow:
        return
    if verb == "set_field" and target in _WIDTH:
        registers._set(target, *masked(value, _WIDTH[target]))
    elif verb == "load":
        _assign(registers, target, value)


def apply_detail(registers: Registers, detail: str) -> None:
    """Follows `NXM_NX_REG15[0..14] is now 0x2`, which OVS prints after `move:` and `pop:`."""
    target, found, value = detail.partition(" is now ")
    if found:
        _assign(registers, target, value)


def _assign(registers: Registers, target: str, value: str) -> None:
    name, bracket, bits = target.partition("[")
    known = _NAMES.get(name)
    if known is None or not bracket:
        return
    low, width = subfield(bits.removesuffix("]"), _WIDTH[known])
    mask = ((1 << width) - 1) << low
    registers._set(known, number(value) << low, mask)


def subfield(bits: str, full_width: int) -> tuple[int, int]:
    """(lowest bit, number of bits) of ``, `7` or `0..14`.

    Raises:
        ProtocolError: not a range of bits.
    """
    if not bits:
        return 0, full_width
    low_text, dots, high_text = bits.partition("..")
    low = number(low_text)
    high = number(high_text) if dots else low
    if not 0 <= low <= high < _WIDEST:
        raise ProtocolError("not a range of bits", why=f"[{bits[:40]}]")
    return low, high - low + 1
