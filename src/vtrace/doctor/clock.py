"""The host's clock. VTrace compares no two hosts' clocks; records and answers carry times all the same."""

from __future__ import annotations

import ctypes
import time

import msgspec

# The year of this release: a clock before it is wrong.
FIRST_YEAR = 2026
_UNSYNCHRONIZED = 0x0040


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """`synchronized` is None where the kernel does not tell; `stepped_s` is by how much it jumped while we looked."""

    year: int
    synchronized: bool | None
    stepped_s: float = 0.0


class _Timex(ctypes.Structure):
    """The beginning of struct timex (adjtimex(2)); the rest is only room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("room", ctypes.c_char * 256),
    )


def read_clock() -> Clock:
    """Reads; with modes 0 adjtimex(2) changes nothing."""
    before = time.time() - time.monotonic()
    timex = _Timex(modes=0)
    try:
        failed = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0
    except (OSError, AttributeError):
        failed = True
    return Clock(
        year=time.gmtime().tm_year,
        synchronized=None if failed else not timex.status & _UNSYNCHRONIZED,
        stepped_s=round(time.time() - time.monotonic() - before, 3),
    )
