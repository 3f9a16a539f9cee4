"""Giving up root's privileges, in processes of their own: there is no way back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vtrace.agent import privileges

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="who is not root has no privileges to keep")


def said(code: str, *args: str) -> Any:
    """What a Python program prints, as JSON."""
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_a_program_that_it_runs_has_no_more() -> None:
    code = """
import json, subprocess
from vtrace.agent import privileges
left = privileges.drop(())
status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout
child = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith(("Cap", "NoNew"))}
print(json.dumps([left.capabilities, left.no_new_privileges, child]))
"""
    capabilities, no_new, child = said(code)
    assert capabilities == []
    assert no_new is True
    assert {int(child[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}
    assert child["NoNewPrivs"] == "1"


@as_root
def test_what_is_kept_is_all_that_is_left() -> None:
    code = """
import json
from vtrace.agent.privileges import Need, drop
left = drop([Need(capability="CAP_SYS_PTRACE", why="x")])
print(json.dumps([left.capabilities, left.bounding]))
"""
    assert said(code) == [["CAP_SYS_PTRACE"], ["CAP_SYS_PTRACE"]]


@as_root
def test_a_thread_that_kept_all_is_told_of() -> None:
    code = """
import json, threading
from vtrace.agent.privileges import drop, told
done = threading.Event()
thread = threading.Thread(target=done.wait); thread.start()
left = drop(()); done.set(); thread.join()
print(json.dumps([len(left.capabilities), told((), left)]))
"""
    count, text = said(code)
    assert count > 30
    assert "they could not be given up" in text


@as_root
def test_files_of_somebody_else_take_an_override(tmp_path: Path) -> None:
    """Open vSwitch may run as another user (Red Hat: openvswitch)."""
    theirs = tmp_path / "theirs"
    theirs.mkdir(0o700)
    (theirs / "db.sock").touch(0o600)
    (tmp_path / "ours").mkdir()
    assert privileges.needed([str(tmp_path / "ours")]) == ()
    os.chown(theirs, NOBODY, NOBODY)
    found = privileges.needed([str(theirs)])
    assert [need.capability for need in found] == ["CAP_DAC_OVERRIDE"]
    assert str(theirs) in found[0].why
    assert [n.capability for n in privileges.needed([], writes=[str(theirs)])] == ["CAP_DAC_OVERRIDE"]
    assert privileges.needed([], remotes=["tcp:192.0.2.1:6641"]) == ()
    assert [n.capability for n in privileges.needed([], remotes=[f"unix:{theirs}/db.sock"])] == ["CAP_DAC_OVERRIDE"]


def test_what_is_asked_leaves_everything_as_it_is(tmp_path: Path) -> None:
    before = privileges.held()
    privileges.needed([str(tmp_path)])
    assert privileges.held() == before


def test_nobody_has_anything_there() -> None:
    assert privileges.told((), privileges.Held(capabilities=(), bounding=(), no_new_privileges=True)).startswith(
        "gave up"
    )
