"""Clocks in parts: they add up to what they were, and what is left of each record is small."""

from __future__ import annotations

import numpy as np
from builders import PROPERTY
from hypothesis import given
from hypothesis import strategies as st

from vtrace.collect.clocks import MOST_NS, Clocks, in_parts

MS = 1_000_000
ROWS = st.lists(
    st.tuples(st.integers(-(2**63), 2**63 - 1) | st.integers(-MOST_NS, MOST_NS), st.integers(0, 3), st.integers(0, 5)),
    max_size=12,
)


def numbered(values: list[int]) -> np.ndarray:
    """From 0 without gaps, as the numbers of places and packets are."""
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def added(parts: Clocks, place: np.ndarray, packet: np.ndarray) -> list[int]:
    with np.errstate(over="ignore"):
        found: list[int] = (parts.place[place] + parts.packet[packet] + parts.record).tolist()
    return found


@PROPERTY
@given(rows=ROWS, chassis=st.lists(st.integers(0, 2), min_size=4, max_size=4))
def test_parts_add_up(rows: list[tuple[int, int, int]], chassis: list[int]) -> None:
    clock_ns = np.array([row[0] for row in rows], np.int64)
    place, packet = numbered([row[1] for row in rows]), numbered([row[2] for row in rows])
    own = numbered(chassis[: int(place.max(initial=-1)) + 1])
    parts = in_parts(clock_ns, own, place, packet)
    assert added(parts, place, packet) == clock_ns.tolist()
    if np.all((clock_ns >= -MOST_NS) & (clock_ns <= MOST_NS)):
        assert all(np.all((part >= -MOST_NS) & (part <= MOST_NS)) for part in parts)


def test_what_is_left_is_how_long_a_packet_was_on_its_way() -> None:
    # Four chassis in a row, whose clocks began years apart; a packet a second, a millisecond from one to the next.
    begun = [0, 10**17, -(10**17), 3 * 10**16]
    packets = 20
    place = np.tile(np.arange(4), packets)
    packet = np.repeat(np.arange(packets), 4)
    clock_ns = np.array(begun)[place] + packet * 1000 * MS + place * MS
    parts = in_parts(clock_ns, np.arange(4), place, packet)
    assert np.abs(parts.record).max() <= 4 * MS
    assert np.abs(parts.packet).max() < packets * 1000 * MS


def test_chassis_that_share_no_packet_are_told_apart() -> None:
    clock_ns = np.array([5, 6, 10**17, 10**17 + 3])
    parts = in_parts(clock_ns, np.arange(2), np.array([0, 0, 1, 1]), np.arange(4))
    assert np.abs(parts.packet).max() <= 3
    assert not parts.record.any()


def test_chassis_in_a_chain_are_brought_together() -> None:
    # Each packet was seen on two of them, in no order.
    hops = [(2, 1), (1, 0), (3, 2), (0, 1), (3, 0)]
    begun = np.array([7 * 10**15, -(10**16), 0, 10**17])
    place = np.array([one for hop in hops for one in hop])
    packet = np.repeat(np.arange(len(hops)), 2)
    parts = in_parts(begun[place] + packet * 1000 * MS, np.arange(4), place, packet)
    assert np.abs(parts.record).max() <= 5000 * MS
