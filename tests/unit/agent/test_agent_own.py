"""What an agent knows of its own entries."""

from __future__ import annotations

from vtrace.agent.own import OwnEntries, is_of_another_run
from vtrace.color.registry import COLOR_MASK, FULL_MASK, GENERATION_MASK, ROLE_MASK, Role, cookie
from vtrace.model.openflow import FlowEntry, TableId


def entry(match: str, value: int, *, table: int = 0, hard_timeout_s: int = 30) -> FlowEntry:
    return FlowEntry(
        table=TableId(table),
        priority=9,
        cookie=value,  # type: ignore[arg-type]
        match=match,
        actions="drop",
        hard_timeout_s=hard_timeout_s,
    )


COLORING = entry("in_port=1", cookie(Role.COLOR, 5, color=3, index=1))
MATCHING = [entry(f"in_port={n}", cookie(Role.MATCH, 5, color=3, index=n), table=65) for n in (1, 2)]


def add(own: OwnEntries, *entries: FlowEntry) -> None:
    with own.adding(entries):
        pass


def remove(own: OwnEntries, value: int, mask: int) -> list[FlowEntry]:
    with own.removing(value, mask) as gone:
        return gone


def test_removal_by_mask_gives_what_the_bridge_would_remove() -> None:
    own = OwnEntries()
    add(own, COLORING, *MATCHING)
    assert own.tables() == [0, 65]
    assert remove(own, MATCHING[1].cookie, FULL_MASK) == [MATCHING[1]]
    assert remove(own, cookie(Role.MATCH, 5, color=4), COLOR_MASK) == []
    assert remove(own, cookie(Role.MATCH, 5), ROLE_MASK) == MATCHING
    assert remove(own, cookie(Role.CLAIM, 5), GENERATION_MASK) == [COLORING, *MATCHING]


def test_what_was_removed_is_no_strangers() -> None:
    """Its addition may have been under way when its removal came: then it is there."""
    own = OwnEntries()
    assert not own.has(0, 9, COLORING.cookie)
    with own.adding([COLORING]):
        remove(own, COLORING.cookie, FULL_MASK)
    assert own.has(0, 9, COLORING.cookie)
    assert remove(own, COLORING.cookie, GENERATION_MASK) == [COLORING]


def test_every_change_is_a_new_version_when_it_begins_and_when_it_ends() -> None:
    own = OwnEntries()
    seen = [own.version]
    with own.adding([COLORING]):
        seen.append(own.version)
    seen.append(own.version)
    with own.removing(COLORING.cookie, FULL_MASK):
        seen.append(own.version)
    seen.append(own.version)
    assert len(set(seen)) == 5


def test_whether_entries_are_about_to_end() -> None:
    own = OwnEntries()
    add(own, COLORING)
    assert not own.expiring()
    short = entry("in_port=9", COLORING.cookie, hard_timeout_s=1)
    add(own, short)
    assert own.expiring()
    remove(own, short.cookie, FULL_MASK)
    assert not own.expiring()


def test_other_runs_are_told_from_strangers() -> None:
    assert is_of_another_run(cookie(Role.MATCH, 6), 30, 5)
    assert not is_of_another_run(cookie(Role.MATCH, 5), 30, 5)
    assert not is_of_another_run(cookie(Role.MATCH, 6), 0, 5)
    assert not is_of_another_run(0x1234, 30, 5)
