"""Which node gets which release's programs."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from vtrace.errors import UsageError
from vtrace.lab import plan, releases
from vtrace.lab import state as lab_state
from vtrace.lab.topology import read

NODES = ("central", "hv1", "hv2")
PROGRAMS = ("ovs-vsctl", "ovs-ofctl", "ovsdb-server", "ovn-controller", "ovn-northd", "ovn-nbctl")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As Debian lays it out: ovs-vswitchd apart."""
    found = tmp_path / "trixie"
    for place in ("usr/bin", "usr/sbin", "usr/lib/openvswitch-switch"):
        (found / place).mkdir(parents=True)
    for name in (*PROGRAMS, "ls"):
        (found / "usr/bin" / name).touch()
    (found / "usr/lib/openvswitch-switch/ovs-vswitchd").touch()
    return found


def test_a_node_or_all_of_them(folder: Path) -> None:
    assert releases.chosen([], NODES) == {}
    assert releases.chosen([f"hv2={folder}"], NODES) == {"hv2": str(folder)}
    assert releases.chosen([f"all={folder}"], NODES) == dict.fromkeys(NODES, str(folder))


def test_the_environment_stands_for_what_was_not_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTRACE_LAB_RELEASE", f"hv1={folder} hv2={folder}")
    assert releases.chosen(None, NODES) == {"hv1": str(folder), "hv2": str(folder)}
    assert releases.chosen([], NODES) == {}


@pytest.mark.parametrize("word", ["hv2", "=x", "hv2=", "hv9={}", "red-web1={}"])
def test_what_is_no_node_or_no_folder(word: str, folder: Path) -> None:
    with pytest.raises(UsageError, match="NODE=FOLDER"):
        releases.chosen([word.format(folder)], NODES)


@pytest.mark.parametrize("missing", [*PROGRAMS[1:], "ovs-vswitchd"])
def test_a_folder_that_lacks_a_program(missing: str, folder: Path) -> None:
    for path in folder.rglob(missing):
        path.unlink()
    with pytest.raises(UsageError, match=missing):
        releases.chosen([f"hv1={folder}"], NODES)


def test_programs_are_known_by_their_paths_inside(folder: Path) -> None:
    found = releases.programs_in(folder)
    assert found["ovs-vswitchd"] == "/usr/lib/openvswitch-switch/ovs-vswitchd"
    assert found["ovn-nbctl"] == "/usr/bin/ovn-nbctl"
    assert "ls" not in found


def test_scripts_stand_first_in_the_path_of_their_node(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VTRACE_LAB_DIR", str(tmp_path / "labs"))
    topology, name = read(None)
    made = plan.make_state("l", topology, name, "")
    state = lab_state.LabState(
        **{**{f: getattr(made, f) for f in made.__struct_fields__}, "releases": {"hv2": str(folder)}}
    )
    releases.write_programs(state)
    directory = releases.programs_directory(state, "hv2")
    assert {path.name for path in directory.iterdir()} == {*PROGRAMS, "ovs-vswitchd"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o755 for path in directory.iterdir())
    last = (directory / "ovs-vswitchd").read_text().splitlines()[-1]
    rundir = lab_state.node_directory("l", "hv2")
    assert last == f'\' sh {folder} /{tmp_path.parts[1]} {rundir} /usr/lib/openvswitch-switch/ovs-vswitchd "$@"'
    assert releases.search_path(state, "hv2", "/bin") == f"{directory}:/bin"
    assert releases.search_path(state, "hv1", "/bin") == "/bin"


def test_a_lab_must_not_hide_the_programs_own_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VTRACE_LAB_DIR", "/usr/labs")
    topology, name = read(None)
    made = plan.make_state("l", topology, name, "")
    state = lab_state.LabState(
        **{**{f: getattr(made, f) for f in made.__struct_fields__}, "releases": {"hv2": str(folder)}}
    )
    with pytest.raises(UsageError, match="can't be there"):
        releases.write_programs(state)
