"""The one home of every bit, mark, cookie field, meter id and controller id that VTrace uses.

Cookie, 64 bits (OVN's own cookies are the first 32 bits of a southbound row's uuid, so bits 32 to 63 are 0):

    63        48 47  44 43           32 31    26 25                     0
    +-----------+------+---------------+--------+------------------------+
    |  0x5654   | role |  generation   | color  |         index          |
    +-----------+------+---------------+--------+------------------------+

- role: what the entry does (`Role`).
- generation: 12 bits claimed by one running agent on one bridge; every entry of a run carries it, and one
  masked delete removes all of a run.
- color: the DSCP value the entry colors, matches or restores (0 where it has none).
- index: for a coloring entry the number of the pair and direction in the task; else the number of the entry.

Register bits: two neighboring bits of reg10 (OVN's logical flags), found free on the bridge (`BridgeLayout`).
Their value is the stage a packet has passed in this logical datapath: 0 none, 1 table 0, 2 remote output,
3 log-to-physical. On a bridge without OVN they stand in a register that nothing mentions, and two more bits of it for
each output table say that a packet was looked at there (`match/mirror.py`).
"""

from __future__ import annotations

from enum import IntEnum

from vtrace.model.openflow import Cookie

COOKIE_MAGIC = 0x5654
COOKIE_MAGIC_MASK = 0xFFFF_0000_0000_0000
GENERATION_BITS = 12
GENERATION_MASK = COOKIE_MAGIC_MASK | (((1 << GENERATION_BITS) - 1) << 32)
ROLE_MASK = GENERATION_MASK | (0xF << 44)
COLOR_MASK = ROLE_MASK | (0x3F << 26)
FULL_MASK = 0xFFFF_FFFF_FFFF_FFFF
INDEX_BITS = 26

PRIORITY_MATCH = 65535
PRIORITY_COLOR = 65535
# What colors packets of any protocol, below what colors its TCP and UDP packets.
PRIORITY_COLOR_REST = 65534
# Entries that only watch stand below, each run at a priority of its own (base plus generation), so that no two runs
# ever have an entry with the same table, priority and match: the later would replace the earlier.
PRIORITY_PROBE_BASE = 50000
PRIORITY_COUNT_BASE = 40000

# DSCP pool 2 (RFC 2474, section 6): xxxx11, experimental and local use.
POOL_2 = tuple(value for value in range(64) if value & 0b11 == 0b11)

# Our meters are taken from the top of the bridge's meter id space, within this many ids of it.
METER_ID_SPAN = 512
# What the two meters of a run let through: copies of packets that are being colored, and all others. A run that is
# alone on a bridge has the first rates, others have the next. Nobody else would choose these: a meter that has one,
# among the last ids, was left behind by a run of ours.
FIRST_RATES_PPS = (1009, 503, 251, 127, 61)
COPY_RATES_PPS = (3011, 1511, 751, 379, 191)
FIRST_RATE_PPS, COPY_RATE_PPS = FIRST_RATES_PPS[0], COPY_RATES_PPS[0]
# An OpenFlow controller id of ours: this base plus the generation (ovn-controller uses 0).
CONTROLLER_ID_BASE = 0x5000


class Role(IntEnum):
    """What an entry of ours does."""

    COLOR = 1
    MATCH = 2
    RESTORE = 3
    COUNT = 4
    PROBE = 5
    DOUBT = 6
    CLAIM = 7
    NEIGHBOR = 8
    REFRESH = 9


_ROLES = frozenset(Role)


class Stage(IntEnum):
    """Value of the guard bits."""

    NONE = 0
    TABLE_0 = 1
    REMOTE_OUTPUT = 2
    LOG_TO_PHYSICAL = 3


def cookie(role: Role, generation: int, *, color: int = 0, index: int = 0) -> Cookie:
    """Builds a cookie. Raises ValueError for a field that does not fit."""
    if not 0 <= generation < 1 << GENERATION_BITS:
        raise ValueError(f"generation {generation} does not fit {GENERATION_BITS} bits")
    if not 0 <= color < 64:
        raise ValueError(f"color {color} is no DSCP value")
    if not 0 <= index < 1 << INDEX_BITS:
        raise ValueError(f"index {index} does not fit {INDEX_BITS} bits")
    return Cookie(COOKIE_MAGIC << 48 | role << 44 | generation << 32 | color << 26 | index)


def is_ours(value: int) -> bool:
    """Whether the cookie has our magic number."""
    return value >> 48 == COOKIE_MAGIC


def is_our_entry(value: int, hard_timeout_s: int) -> bool:
    """Whether an entry is of our form: our magic number, a role and generation that exist, and a hard time-out.

    Somebody else may choose cookies that begin as ours do; all of ours end by themselves.
    """
    return is_ours(value) and role_of(value) in _ROLES and generation_of(value) > 0 and hard_timeout_s > 0


def role_of(value: int) -> int:
    return (value >> 44) & 0xF


def generation_of(value: int) -> int:
    return (value >> 32) & 0xFFF


def color_of(value: int) -> int:
    return (value >> 26) & 0x3F


def index_of(value: int) -> int:
    return value & ((1 << INDEX_BITS) - 1)
