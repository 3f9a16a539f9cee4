"""Discovery of OVN's stages: a real bridge of 23.03.1, and the same renumbered as other releases have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from vtrace.errors import BridgeNotUnderstoodError
from vtrace.model.openflow import BridgeLayout, GuardBits, InstalledEntry
from vtrace.ovs.flowtext import parse_dump, parse_entry
from vtrace.ovs.guard_bits import free_pair, used_bits
from vtrace.ovs.layout import discover

DUMP = (Path(__file__).parent / "data" / "dump_23.03.1.txt").read_text()
TUNNELS = (8,)
GUARD = GuardBits(register=10, lsb=26)


def renumbered(tables: Mapping[int, int | None], text: str = DUMP) -> str:
    """The dump with other table numbers; None removes a table."""
    lines = []
    for line in text.splitlines():
        entry = parse_entry(line)
        to = tables.get(entry.table, entry.table)
        if to is None:
            continue
        line = line.replace(f" table={entry.table},", f" table={to},", 1)
        for old in sorted(tables, reverse=True):
            line = line.replace(f"resubmit(,{old})", f"resubmit(,@{tables[old]})")
        lines.append(line.replace("(,@", "(,"))
    return "\n".join(lines) + "\n"


def shifted(by: int, first: int = 37) -> dict[int, int | None]:
    return {table: table + by for table in range(first, 55)}


# 23.03.0 has no tables for large packets (lflow.h): 37 to 40 are remote, local, loopback, egress.
V23_03_0 = renumbered({37: None, 38: None, **{table: table - 2 for table in range(39, 55)}})
V25_03 = renumbered(shifted(3))


def with_default(text: str, table: int, target: int) -> str:
    """Replaces the priority-0 entry of a table."""
    lines = [
        f" table={table}, priority=0 actions=resubmit(,{target})" if is_default(line, table) else line
        for line in text.splitlines()
    ]
    return "\n".join(lines) + "\n"


def is_default(line: str, table: int) -> bool:
    entry = parse_entry(line)
    return (entry.table, entry.priority, entry.match) == (table, 0, "")


# 25.09: remote output 43, a table for VTEPs 44, local output 45.
V25_09 = with_default(
    renumbered({37: 41, 38: 42, 39: 43, **{table: table + 5 for table in range(40, 55)}})
    + " cookie=0x0, duration=1s, table=44, n_packets=0, n_bytes=0, priority=0 actions=resubmit(,45)\n",
    43,
    44,
)
# The development tree of 2026: everything moved, here without its table for VTEPs.
DEVELOPMENT = renumbered({37: 52, 38: 53, 39: 54, 40: 55, 41: 57, 42: 62, 64: 88, 65: 89})


def layout(text: str, tunnels: tuple[int, ...] = TUNNELS) -> BridgeLayout:
    return discover(parse_dump(text), tunnels)


def numbers(found: BridgeLayout) -> tuple[int, ...]:
    return (
        found.ingress_first,
        found.remote_output,
        found.local_output,
        found.check_loopback,
        found.egress_first,
        found.save_inport,
        found.log_to_physical,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DUMP, (8, 39, 40, 41, 42, 64, 65)),
        (V23_03_0, (8, 37, 38, 39, 40, 64, 65)),
        (V25_03, (8, 42, 43, 44, 45, 64, 65)),
        (V25_09, (8, 43, 45, 46, 47, 64, 65)),
        (DEVELOPMENT, (8, 54, 55, 57, 62, 88, 89)),
    ],
    ids=["23.03.1", "23.03.0", "25.03", "25.09", "development"],
)
def test_layouts_of_releases(text: str, expected: tuple[int, ...]) -> None:
    found = layout(text)
    assert numbers(found) == expected
    assert found.guard == GUARD


def test_a_real_bridge_of_25_03() -> None:
    # Too-big ICMP errors that come in by a tunnel have entries of their own, which go to two tables.
    text = (Path(__file__).parent / "data" / "dump_25.03.0.txt").read_text()
    found = layout(text, (3, 4, 5))
    assert numbers(found) == (8, 42, 43, 44, 45, 64, 65)
    assert used_bits(parse_dump(text), 10) == 0x11053
    assert found.guard == GUARD


def test_a_single_chassis_without_tunnels() -> None:
    lines = [line for line in DUMP.splitlines() if "output:8" not in line and "in_port=8 " not in line]
    assert numbers(layout("\n".join(lines), ())) == (8, 39, 40, 41, 42, 64, 65)


def test_a_tunnel_whose_entry_somebody_took_away_contradicts_nothing() -> None:
    assert layout(DUMP, (8, 9)) == layout(DUMP, (8,))


def test_ours_are_left_aside() -> None:
    ours = (
        " cookie=0x5654100100000001, table=39, hard_timeout=30, priority=65535,reg10=0/0xc000000 "
        "actions=load:1->NXM_NX_REG10[26..27],resubmit(,77)\n"
    )
    assert layout(DUMP + ours) == layout(DUMP)


USED_BY_OTHERS = {
    "a match": " cookie=0x7, table=20, priority=9,ip,reg10=0x4000000/0x4000000 actions=drop\n",
    "a load": " cookie=0x7, table=20, priority=9,ip actions=load:0x1->NXM_NX_REG10[27],resubmit(,21)\n",
    "a move": " cookie=0x7, table=20, priority=9,ip actions=move:NXM_NX_REG10[26]->NXM_NX_REG0[0],drop\n",
    "in a clone": " cookie=0x7, table=20, priority=9,ip actions=clone(set_field:0x8000000/0x8000000->reg10)\n",
    "by xreg5": " cookie=0x7, table=20, priority=9,ip actions=set_field:0x400000000000000/0x400000000000000->xreg5\n",
    "in learn": " cookie=0x7, table=20, priority=9,ip actions=learn(table=21,load:0x1->NXM_NX_REG10[26])\n",
    "like ours": " cookie=0x5654100100000001, table=20, priority=9,ip,reg10=0x4000000/0x4000000 actions=drop\n",
}


@pytest.mark.parametrize("line", USED_BY_OTHERS.values(), ids=list(USED_BY_OTHERS))
def test_bits_that_somebody_elses_entry_reads_or_writes_are_not_chosen(line: str) -> None:
    found = layout(DUMP + line)
    assert numbers(found) == numbers(layout(DUMP))
    used = used_bits(parse_dump(line), 10)
    assert used, line
    assert not used & 3 << found.guard.lsb


def test_bits_that_a_groups_bucket_writes_are_not_chosen() -> None:
    found = discover(parse_dump(DUMP), TUNNELS, ["load:0x3->NXM_NX_REG10[26..27],resubmit(,9)"])
    assert found.guard == GuardBits(register=10, lsb=30)


def test_without_two_free_bits_a_bridge_is_refused() -> None:
    every_other = " cookie=0x7, table=20, priority=9,ip,reg10=0x55555555/0x55555555 actions=drop\n"
    with pytest.raises(BridgeNotUnderstoodError, match="no two neighboring bits"):
        layout(DUMP + every_other)


def drop(where: Callable[[InstalledEntry], bool]) -> str:
    return "\n".join(line for line in DUMP.splitlines() if not where(parse_entry(line)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "check loopback"),
        (drop(lambda e: e.table == 41 and e.priority == 0), "check loopback"),
        (drop(lambda e: e.table == 40 and e.priority == 0), "no priority-0 entry that drops"),
        (drop(lambda e: e.table == 39 and e.priority == 0), "remote output"),
        (drop(lambda e: e.table == 39 and e.priority == 150), "keeps packets local"),
        (drop(lambda e: e.table == 0 and e.match == "in_port=8"), "no entry for any tunnel port"),
        (drop(lambda e: e.table == 64 and e.priority == 0), "saves the in port"),
        (drop(lambda e: e.table == 65 and e.priority == 0), "log-to-physical"),
        (
            drop(lambda e: (e.table == 0 and e.match != "in_port=8") or (e.table == 65 and "clone(" in e.actions)),
            "first ingress table",
        ),
        (DUMP.replace("resubmit(,40)\n", "resubmit(,47)\n"), "tunnel port 8"),
        (DUMP + " table=50, priority=0 actions=resubmit(,40)\n", "more than one"),
        (DUMP + " table=20, priority=1,reg10=0xffffffff actions=drop\n", "reg10"),
    ],
)
def test_missing_or_contradicting_evidence_is_named(text: str, says: str) -> None:
    with pytest.raises(BridgeNotUnderstoodError, match=says):
        layout(text)


REAL_25_03 = (Path(__file__).parent / "data" / "dump_25.03.0.txt").read_text()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (renumbered({43: 60}, REAL_25_03), "not in the order of the pipeline"),
        (renumbered({42: 7}, REAL_25_03), "not in the order of the pipeline"),
        (REAL_25_03 + " table=60, priority=0 actions=resubmit(,43)\n", "more than one"),
        (
            REAL_25_03 + " table=61, priority=0 actions=load:0->NXM_NX_REG0[],load:0->NXM_NX_REG1[],resubmit(,62)\n",
            "more than",
        ),
        (REAL_25_03 + " table=20, priority=1,reg10=0xffffffff actions=drop\n", "reg10"),
        (with_default(REAL_25_03, 65, 66), "log-to-physical"),
        (with_default(REAL_25_03, 43, 44), "no priority-0 entry that drops"),
    ],
)
def test_changed_dumps_of_25_03_are_refused(text: str, says: str) -> None:
    """A table moved where no release has it, two candidates for one stage, all bits in use, a stage without its end."""
    with pytest.raises(BridgeNotUnderstoodError, match=says):
        layout(text, (3, 4, 5))


def test_a_table_that_moves_with_all_its_resubmits_is_found() -> None:
    moved = renumbered({table: table + 10 for table in range(42, 60)}, REAL_25_03)
    assert numbers(layout(moved, (3, 4, 5))) == (8, 52, 53, 54, 55, 64, 65)


@pytest.mark.parametrize(
    ("match", "actions", "expected"),
    [
        ("reg10=0x1/0x801", "drop", 0x801),
        ("ip,reg10=0x5", "drop", 0xFFFFFFFF),
        ("xreg5=0/0xc00000000000000", "drop", 0xC000000),
        ("xxreg2=0/0x800000000000000000000000", "drop", 0),
        ("xxreg2=0/0x8000000000000000", "drop", 0x80000000),
        ("", "load:0x1->NXM_NX_REG10[26..27]", 0xC000000),
        ("", "load:0->NXM_NX_REG10[]", 0),
        ("", "load:0x10->NXM_NX_REG10[]", 0x10),
        ("", "clone(ct_clear,set_field:0->reg10,resubmit(,8))", 0),
        ("", "set_field:0/0x1000->reg10", 0x1000),
        ("", "move:NXM_NX_REG10[12]->NXM_NX_XXREG0[111]", 0x1000),
        ("", "move:NXM_NX_REG1[]->NXM_NX_REG10[]", 0xFFFFFFFF),
        ("", "learn(table=70,reg10=0x4/0x4,NXM_NX_REG10[3]=NXM_NX_REG1[0],load:0x1->NXM_NX_REG10[5])", 0x2C),
        ("", "set_field:0x300000000/0x300000000->xreg5", 0x3),
        ("", "pop:NXM_NX_REG10[]", 0xFFFFFFFF),
        ("reg1=0x4", "load:0x1->NXM_NX_REG11[0]", 0),
    ],
)
def test_used_bits(match: str, actions: str, expected: int) -> None:
    line = f" table=9, priority=5,{match} actions={actions}" if match else f" table=9, priority=5 actions={actions}"
    assert used_bits([parse_entry(line)], 10) == expected


@pytest.mark.parametrize(
    ("register", "line", "expected"),
    [
        (1, "reg1=0x4 actions=load:0x1->NXM_NX_REG11[0]", 0xFFFFFFFF),
        (1, "xreg0=0x3/0x700000003 actions=drop", 0x3),
        (0, "xreg0=0x3/0x700000003 actions=drop", 0x7),
        (3, "xxreg0=0/0xf0 actions=drop", 0xF0),
        (0, " actions=set_field:0x1000000000000000000000000->xxreg0", 0x1),
        (15, "reg1=0x5 actions=push:NXM_NX_REG5[]", 0),
    ],
)
def test_used_bits_of_other_registers(register: int, line: str, expected: int) -> None:
    assert used_bits([parse_entry(f" table=9, priority=5,{line}")], register) == expected


@pytest.mark.parametrize(
    ("used", "lsb"), [(0x7FFF, 26), (0x0800_0000, 25), (0x0C00_0000, 30), (0x1FFF_FFFF, 30), (0x5555_5555, None)]
)
def test_free_pair(used: int, lsb: int | None) -> None:
    assert free_pair(used) == lsb


def test_a_server_without_ports_of_its_own_is_understood_by_its_patches() -> None:
    # A gateway of a router that no VM is next to: its table 0 has tunnels only.
    lines = [
        line for line in DUMP.splitlines() if "table=0," not in line or "in_port=8 " in line or "priority=0 " in line
    ]
    assert numbers(layout("\n".join(lines) + "\n")) == numbers(layout(DUMP))
