"""Entries of OVN whose rows went while the bridge was asked (ovn-controller removes them a moment later)."""

from __future__ import annotations

from builders import inspection, step
from msgspec.structs import replace

from vtrace.analyzer.outdated import outdated, without_row
from vtrace.model.inventory import OvnObject

FOREIGN = OvnObject(kind="foreign")
LOGICAL = OvnObject(kind="logical_flow", stage="ls_in_acl")
GONE, BY_HAND, WIDE = 0xAABBCCDD, 0, 0x1_0000_0001


def made(cookie: int, *, outcome: str = "drop"):  # type: ignore[no-untyped-def]
    passed = step(LOGICAL, ("resubmit(,9)",), table=8)
    last = replace(step(FOREIGN, ("drop",), table=9), cookie=cookie)
    return inspection(passed, last, outcome=outcome)


def test_only_cookies_like_ovns_may_have_lost_their_row() -> None:
    assert without_row(made(GONE)) == {GONE}
    assert without_row(made(BY_HAND)) == set()
    assert without_row(made(WIDE)) == set()


def test_an_entry_that_outlived_its_row_says_that_the_bridge_lags() -> None:
    found = outdated(made(GONE), frozenset({GONE}))
    assert "table=9" in found.lagging
    assert [s.object.kind for s in found.steps] == ["logical_flow", "default"]


def test_where_it_did_not_end_the_packet_nothing_lags() -> None:
    found = outdated(made(GONE, outcome="output"), frozenset({GONE}))
    assert found.lagging == ""
    assert [s.object.kind for s in found.steps] == ["logical_flow", "default"]


def test_what_stays_without_a_row_stays_foreign() -> None:
    found = outdated(made(GONE), frozenset())
    assert found.steps[-1].object.kind == "foreign"
