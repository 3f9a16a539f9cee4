"""Other runs of VTrace on a bridge: what they color, and whether they still live."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from builders import installed
from msgspec.structs import replace

from vtrace.agent.other_runs import counted, hit, may_meet, taken
from vtrace.agent.run_mark import RunMark
from vtrace.color.registry import Role, cookie
from vtrace.model.openflow import InstalledEntry

OWN, OTHER = 5, 9
FLOW = "udp,reg10=0/0xc000000,in_port=4,nw_src=10.1.1.11,nw_dst=10.1.2.11,nw_tos=0"


def coloring(generation: int, match: str = FLOW, packets: int = 0, *, index: int = 0) -> InstalledEntry:
    entry = installed(f"{match} actions=drop", cookie=cookie(Role.COLOR, generation, color=3, index=index))
    return replace(entry, n_packets=packets)


@pytest.mark.parametrize(
    ("other", "meets"),
    [
        (FLOW, True),
        (FLOW.replace("udp", "ip"), True),
        (FLOW.replace("udp", "tcp"), False),
        (FLOW.replace("udp,", "udp6,"), False),
        (FLOW.replace("in_port=4", "in_port=5"), False),
        (FLOW.replace("nw_dst=10.1.2.11", "nw_dst=10.1.2.0/24"), True),
        (FLOW.replace("nw_dst=10.1.2.11", "nw_dst=10.1.3.0/24"), False),
        (FLOW.replace("nw_dst=10.1.2.11", "nw_dst=10.1.2.12"), False),
        (FLOW.replace(",nw_tos=0", ",nw_tos=40"), False),
        (f"{FLOW},tp_dst=80", True),
        (FLOW.replace("0/0xc000000", "0x4000000/0x4000000"), True),
    ],
)
def test_which_entries_may_meet_a_packet(other: str, meets: bool) -> None:
    assert may_meet(FLOW, other) is meets
    assert may_meet(other, FLOW) is meets


def test_ports_tell_entries_apart_that_both_name_them() -> None:
    assert not may_meet(f"{FLOW},tp_dst=80", f"{FLOW},tp_dst=81")
    assert may_meet(f"{FLOW},tp_dst=80", f"{FLOW},tp_dst=0x50/0xfff0")


def test_what_another_run_colored_since_ours_began_was_taken_from_it() -> None:
    before = counted([coloring(OTHER, packets=100)])
    now = [coloring(OWN, index=2), coloring(OTHER, packets=130)]
    assert taken(now, OWN, before) == {2: 30}


def test_packets_of_other_pairs_and_of_before_were_not() -> None:
    elsewhere = FLOW.replace("10.1.2.11", "10.1.2.12")
    before = counted([coloring(OTHER, packets=100)])
    now = [coloring(OWN), coloring(OTHER, packets=100), coloring(OTHER + 1, elsewhere, 50), coloring(OWN, packets=7)]
    assert taken(now, OWN, before) == {}


@pytest.mark.parametrize(
    ("duration_s", "idle_s", "packets", "counted_packets"),
    [(5.0, 0, 178, 178), (5.0, 3, 10, 10), (5.0, 4, 10, 0), (5.0, 5, 10, 0), (1.9, 0, 40, 0), (9.0, 9, 0, 0)],
    ids=["now", "later", "just then", "before", "too young to tell", "never"],
)
def test_what_hit_ours_is_told_by_when(duration_s: float, idle_s: int, packets: int, counted_packets: int) -> None:
    entry = replace(coloring(OWN, packets=packets, index=2), duration_s=duration_s, idle_s=idle_s)
    assert hit([entry], OWN) == ({2: counted_packets} if counted_packets else {})
    assert hit([entry], OTHER) == {}


def test_fragments_are_not_all_asked_for() -> None:
    entry = replace(coloring(OWN, f"{FLOW},nw_frag=yes", 40), duration_s=9.0)
    assert hit([entry], OWN) == {}


def test_other_roles_color_nothing() -> None:
    probe = replace(coloring(OTHER, packets=9), cookie=cookie(Role.PROBE, OTHER))
    assert taken([coloring(OWN), probe], OWN, {}) == {}


def test_a_run_that_lives_is_let_be_and_one_that_ended_leaves_no_file(tmp_path: Path) -> None:
    alive = RunMark(str(tmp_path), "br-int")
    alive.hold(OTHER)
    assert RunMark(str(tmp_path), "br-int").dead([coloring(OTHER)]) == []
    alive.drop()
    alive.drop()
    assert list(tmp_path.iterdir()) == []
    assert RunMark(str(tmp_path), "br-int").dead([coloring(OTHER)]) == []


def test_a_run_that_was_killed_is_known_once(tmp_path: Path) -> None:
    program = (
        "import sys, time; from vtrace.agent.run_mark import RunMark\n"
        "for bridge, generation in (('br-int', 9), ('br-int', 10), ('br-other', 9)):\n"
        "    mark = RunMark(sys.argv[1], bridge); mark.hold(generation); globals()[bridge + str(generation)] = mark\n"
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "held\n"
        mark = RunMark(str(tmp_path), "br-int")
        assert mark.dead([coloring(OTHER)]) == []
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    # Of generation 10 nothing is left to end but its file.
    assert mark.dead([coloring(OTHER)]) == [OTHER]
    assert mark.dead([coloring(OTHER)]) == []
    assert [path.name for path in tmp_path.iterdir()] == ["vtrace.br-other.9.run"]


def test_where_no_file_can_be_made_nothing_is_known(tmp_path: Path) -> None:
    mark = RunMark(str(tmp_path / "missing"), "br-int")
    mark.hold(OTHER)
    assert mark.dead([coloring(OTHER)]) == []
    mark.drop()
