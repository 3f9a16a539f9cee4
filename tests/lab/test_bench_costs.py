"""The two programs that measure VTrace's costs, live and tiny: what they say they did was done."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
from faults.facts import PROGRAM

from vtrace.costs.setting import TOPOLOGY

pytestmark = [pytest.mark.lab, pytest.mark.timeout(240)]

LAB = "c5test"
UP_TIMEOUT_S, RUN_TIMEOUT_S = 80, 150


@pytest.fixture(scope="module")
def lab() -> Any:
    subprocess.run(
        [*PROGRAM, "lab", "up", str(TOPOLOGY), "--lab", LAB], check=True, capture_output=True, timeout=UP_TIMEOUT_S
    )
    yield LAB
    subprocess.run([*PROGRAM, "lab", "down", "--lab", LAB], check=True, capture_output=True, timeout=UP_TIMEOUT_S)


def run(file: Path, *words: str) -> dict[str, Any]:
    """The document that a benchmark writes."""
    argv = [*PROGRAM, "bench", *words, "--lab", LAB, "--json", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=RUN_TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(file.read_text())
    assert {"name", "figures", "machine", "commit", "command"} <= set(document)
    assert document["name"] == words[0]
    return document


def nothing_left() -> None:
    for server in ("hv1", "hv2"):
        ours = "cookie=0x5654000000000000/0xffff000000000000"
        for words in (("dump-flows", "br-int", ours), ("dump-meters", "br-int")):
            argv = [*PROGRAM, "lab", "exec", "--lab", LAB, server, "--", "ovs-ofctl", "-O", "OpenFlow13", *words]
            told = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout
            assert "0x5654" not in told, told
            assert "meter=" not in told, told


def test_forwarding_is_measured_with_entries_and_without(lab: str, tmp_path: Path) -> None:
    # Open vSwitch tells of packets that it counted half a second late.
    words = ("--only", "task,colored,cache", "--slices", "4", "--seconds", "1.2", "--rounds", "1")
    document = run(tmp_path / "f.json", "forwarding", *words)
    figures, task = document["figures"], document["conditions"]["task"]
    # The entries of the program itself, on both servers, in the slices B and in no slice A; they did color.
    assert [one["label"] for one in task["slices"]] == list("ABBA")
    for one in (*task["slices"], *document["conditions"]["colored"]["slices"]):
        assert (one["before"] == {}) == (one["label"] == "A"), one
        assert (one["after"] == {}) == (one["label"] == "A"), one
        assert one["label"] == "A" or one["before"].keys() >= {"match", "restore", "doubt", "claim"}, one
        assert one["label"] == "B" or one["colored"] == 0, one
    assert all(one["packets"] > 0 and min(one["forwarding_ns"]) > 0 for one in task["slices"])
    # The program was seen coloring before each B; the agents color throughout.
    colored = document["conditions"]["colored"]["slices"]
    assert all((one["before"].get("color", 0) > 0) == (one["label"] == "B") for one in colored)
    assert sum(one["colored"] for one in colored) > 0
    # The stream was never made anew: what the tasks color was sent in all slices alike.
    assert all(one["background"] > 0 for one in task["slices"])
    rates = [one["packets"] / (one["ended_ns"] - one["began_ns"]) for one in task["slices"]]
    wanted = math.sqrt(rates[1] * rates[2] / rates[0] / rates[3])
    assert figures["throughput_ratio_task_running"] == pytest.approx(wanted, abs=1e-4)
    assert figures["task_throughput_interval"] is None
    assert (figures["throughput_ratio_idle"], figures["instructions_per_packet_ratio"]) == (None, None)
    # Colored packets go their own way through the cache, with copies; nobody else's do.
    cache = document["conditions"]["colored"]["cache"]
    assert (cache["A"]["copying"], cache["B"]["copying"] > 0) == (0, True)
    changing = sum(figures[f"lost_{change}_{scope}_scope"] for change in ("on", "off") for scope in ("other", "same"))
    lost = figures["colored_lost_with"] + figures["colored_lost_changing"] + changing
    assert figures["packets_lost_by_us"] == lost
    assert figures["colored_sent_with"] > 50
    # Entries are scoped: a busy cache beside the scope is left alone, one within it is built anew.
    assert figures["cached_flows_other_scope"] >= 200
    assert (figures["rebuilt_on_other_scope"], figures["rebuilt_off_other_scope"]) == (0, 0)
    assert figures["rebuilt_on_same_scope"] >= 200
    nothing_left()


def test_an_agent_is_watched_idle_coloring_and_at_work(lab: str, tmp_path: Path) -> None:
    words = ("--idle", "0.5", "--coloring", "1", "--rates", "100")
    document = run(tmp_path / "a.json", "agent", *words)
    figures = document["figures"]
    # It held what an agent holds that has no task.
    assert document["idle"]["ours"]["entries"] == {"claim": 1}
    assert (document["idle"]["meters"], document["idle"]["loaded"]) == (2, [])
    assert 5 < figures["idle_pss_mb"] <= figures["idle_rss_mb"] <= 80
    # Four copies on the first server, two on the second.
    assert document["coloring"][0]["records_per_packet"] == pytest.approx(6, rel=0.2)
    assert figures["log_bytes_per_packet_and_hop_wire"] > figures["log_bytes_per_packet_and_hop_stored"] > 0
    healthy, lossy = ([one for one in document["tasks"] if one["case"] == case] for case in ("healthy", "lossy"))
    assert {one["answer"]["loss"] for one in healthy} == {"no"}
    assert {one["answer"]["loss"] for one in lossy} == {"yes"}
    for one in (*healthy, *lossy):
        assert one["commands"]["ofproto/trace"] >= 1, one
        assert one["unixctl"] + one["ofctl"] == sum(one["commands"].values()), one
        assert 0 < one["unixctl_s"] < one["took_s"], one
    # What is lost is asked about, where it is lost.
    dropped_at = max(one["commands"]["ofproto/trace"] for one in lossy)
    assert dropped_at > max(one["commands"]["ofproto/trace"] for one in healthy)
    nothing_left()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("forwarding", "--slices", "6"), "no multiple of 4"),
        (("forwarding", "--only", "tasks_7"), "no condition 'tasks_7'"),
        (("forwarding", "--json", "/nowhere/x.json"), "can't be written"),
        (("agent", "--rates", "many"), "can't be"),
        (("agent", "--rates", "9000"), "out of range"),
    ],
)
def test_what_makes_no_sense_is_refused(words: tuple[str, ...], what: str) -> None:
    done = subprocess.run([*PROGRAM, "bench", *words], capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 2
    assert what in done.stderr
