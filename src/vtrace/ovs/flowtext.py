"""Reads the text of `ovs-ofctl dump-flows` (ovs-fields(7), ovs-actions(7)): no regular expressions.

Every splitter here knows brackets, so that `in_port=12` is one word and `learn(a,b)` one action.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from vtrace.errors import ProtocolError
from vtrace.model.openflow import Cookie, InstalledEntry, TableId

DEFAULT_PRIORITY = 32768
# Open vSwitch nests actions as deep as it translates (MAX_DEPTH of ofproto-dpif-xlate.c: 64), a copy of ours has three.
MOST_BRACKETS = 200
# 128 bits in decimal are 39 digits.
_MOST_DIGITS = 40
_MOST_DECIMALS = 20
_OPEN = "([{"
_CLOSE = ")]}"

# Words of a dump line that say something about the entry and are no part of its match.
_NUMBERS = ("n_packets", "n_bytes", "hard_timeout", "priority", "table", "cookie", "duration")
_AGES = ("idle_timeout", "idle_age", "hard_age", "importance", "n_offload_packets", "n_offload_bytes")
_FLAGS = frozenset(("send_flow_rem", "check_overlap", "reset_counts", "no_packet_counts", "no_byte_counts"))


def split_top(text: str, separator: str = ",") -> Iterator[str]:
    """Splits at separators that are outside all brackets; parts are stripped, empty ones left out.

    Raises:
        ProtocolError: brackets that do not balance, or that are deeper than `MOST_BRACKETS`.
    """
    depth = 0
    start = 0
    for index, char in enumerate(text):
        if char in _OPEN:
            depth += 1
            if depth > MOST_BRACKETS:
                raise ProtocolError("brackets are too deep", why=text[:200])
        elif char in _CLOSE:
            depth -= 1
            if depth < 0:
                raise ProtocolError("brackets do not balance", why=text[:200])
        elif char == separator and depth == 0:
            part = text[start:index].strip()
            if part:
                yield part
            start = index + 1
    if depth:
        raise ProtocolError("brackets do not balance", why=text[:200])
    part = text[start:].strip()
    if part:
        yield part


def number(text: str) -> int:
    """A number as OVS prints it (decimal or 0x…). Raises ProtocolError."""
    try:
        if len(text) <= _MOST_DIGITS:
            return int(text, 16) if text[:2] in ("0x", "0X") else int(text, 10)
    except ValueError:
        pass
    raise ProtocolError("not a number", why=repr(text[:80]))


def is_decimal(text: str) -> bool:
    """Whether it is a plain number of up to 64 bits, as OVS prints it: Python takes other digits, too, and any many."""
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DECIMALS


def seconds(text: str) -> float:
    """A time as OVS prints it (`1.5s`). Raises ProtocolError."""
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ProtocolError("not a time", why=repr(text[:80]))
    return value


def masked(text: str, width_bits: int) -> tuple[int, int]:
    """Reads `value` or `value/mask`; without a mask it is all ones."""
    value, slash, mask = text.partition("/")
    return number(value), number(mask) if slash else (1 << width_bits) - 1


def match_fields(match: str) -> dict[str, str]:
    """The words of a match: `{"tcp": "", "in_port": "12", "reg10": "0x1/0x1"}`."""
    fields: dict[str, str] = {}
    for word in split_top(match):
        name, _, value = word.partition("=")
        fields[name] = value
    return fields


def is_entry(line: str) -> bool:
    """Whether a line of a dump is an entry (and no header such as `NXST_FLOW reply …`)."""
    return " actions=" in line or line.startswith("actions=")


def table_of(line: str) -> int:
    """The table of an entry's line; 0 where it names none."""
    head = line.partition("actions=")[0]
    words = (word.strip() for word in head.split(","))
    return next((int(word[6:]) for word in words if word.startswith("table=") and is_decimal(word[6:])), 0)


def parse_entry(line: str) -> InstalledEntry:
    """One line of `ovs-ofctl --no-names dump-flows`.

    Raises:
        ProtocolError: the line is no entry.
    """
    head, found, actions = line.strip().partition("actions=")
    if not found or (head and not head.endswith((" ", ","))):
        raise ProtocolError("a line of a flow dump has no actions", why=line[:200])
    values: dict[str, str] = {}
    match: list[str] = []
    # Flags such as send_flow_rem are followed by a blank, everything else by a comma.
    for word in split_top(head.replace(" ", ",")):
        name, equals, value = word.partition("=")
        if equals and (name in _NUMBERS or name in _AGES):
            values[name] = value
        elif word not in _FLAGS:
            match.append(word)
    return InstalledEntry(
        table=TableId(number(values.get("table", "0"))),
        priority=number(values.get("priority", str(DEFAULT_PRIORITY))),
        cookie=Cookie(number(values.get("cookie", "0"))),
        match=",".join(match),
        actions=actions,
        n_packets=number(values.get("n_packets", "0")),
        n_bytes=number(values.get("n_bytes", "0")),
        duration_s=seconds(values.get("duration", "0s")),
        idle_s=number(values.get("idle_age", "0")),
        hard_timeout_s=number(values.get("hard_timeout", "0")),
    )


def parse_dump(text: str) -> tuple[InstalledEntry, ...]:
    """All entries of a dump; header lines are skipped."""
    return tuple(parse_entry(line) for line in text.splitlines() if is_entry(line))
