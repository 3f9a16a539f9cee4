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


def test_removal_by_mask_gives_what_the_bridge_would_remove() -> None:
    own = OwnEntries()
    own.add([COLORING, *MATCHING])
    assert own.tables() == [0, 65]
    assert own.remove(MATCHING[1].cookie, FULL_MASK) == [MATCHING[1]]
    assert own.remove(cookie(Role.MATCH, 5, color=4), COLOR_MASK) == []
    assert own.remove(cookie(Role.MATCH, 5), ROLE_MASK) == [MATCHING[0]]
    assert own.has(0, 9, COLORING.cookie)
    assert own.remove(cookie(Role.CLAIM, 5), GENERATION_MASK) == [COLORING]
    assert not own.has(0, 9, COLORING.cookie)
    assert own.tables() == []


def test_an_entry_added_again_is_one() -> None:
    own = OwnEntries()
    own.add([COLORING])
    own.add([COLORING])
    assert own.remove(COLORING.cookie, FULL_MASK) == [COLORING]
    assert not own.has(0, 9, COLORING.cookie)


def test_every_change_is_a_new_version() -> None:
    own = OwnEntries()
    seen = [own.version]
    own.add([COLORING])
    seen.append(own.version)
    own.remove(COLORING.cookie, FULL_MASK)
    seen.append(own.version)
    assert len(set(seen)) == 3


def test_whether_entries_are_about_to_end() -> None:
    own = OwnEntries()
    own.add([COLORING])
    assert not own.expiring()
    own.add([entry("in_port=9", COLORING.cookie, hard_timeout_s=1)])
    assert own.expiring()


def test_other_runs_are_told_from_strangers() -> None:
    assert is_of_another_run(cookie(Role.MATCH, 6), 30, 5)
    assert not is_of_another_run(cookie(Role.MATCH, 5), 30, 5)
    assert not is_of_another_run(cookie(Role.MATCH, 6), 0, 5)
    assert not is_of_another_run(0x1234, 30, 5)
