"""The figures of both programs, of slices made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from vtrace.costs import forwarding, forwarding_report, instructions
from vtrace.costs.agent import Coloring, Idle, Load
from vtrace.costs.agent_report import figures as agent_figures
from vtrace.costs.agent_report import text as agent_text
from vtrace.costs.disturbing import Disturbance
from vtrace.costs.forwarding import CONDITIONS, Found
from vtrace.costs.instructions import Counted
from vtrace.costs.readings import Ours
from vtrace.costs.running import Slice, Trip
from vtrace.present.cli import bench_costs

LABELS = "ABBA" * 5
CONDITION = {one.name: one for one in CONDITIONS}


def slices(without: int, within: int, forwarding_ns: int = 1_000_000) -> tuple[Slice, ...]:
    """A second each; packets by label, with a drift."""
    found = []
    for number, label in enumerate(LABELS):
        packets = (without if label == "A" else within) * (1000 - number) // 1000
        found.append(
            Slice(
                label=label, began_ns=0, ended_ns=1_000_000_000, packets=packets, size_bytes=2 * packets, background=0,
                forwarding_ns=(forwarding_ns, forwarding_ns), holder_ns=0, before={}, after={}, colored=0,
            )
        )  # fmt: skip
    return tuple(found)


def found(name: str, without: int, within: int) -> Found:
    cache = {"A": {"flows": 7, "masks": 4, "copying": 0}, "B": {"flows": 9, "masks": 5, "copying": 1}}
    return Found(condition=CONDITION[name], labels=LABELS, slices=slices(without, within), cache=cache)


def probed(name: str, without_us: float, within_us: float, lost: int) -> Found:
    def trip(label: str, lost: int) -> Trip:
        us = without_us if label == "A" else within_us
        return Trip(sent=100, lost=lost, overtaken=2, times_us=tuple([us] * (100 - lost)))

    trips = tuple(trip(label, lost if label == "B" else 1) for label in LABELS)
    return Found(condition=CONDITION[name], labels=LABELS, slices=slices(0, 0), trips=trips, between=trip("A", 3))


def test_those_that_were_not_measured_are_null() -> None:
    figures = forwarding_report.figures([], {}, [])
    assert figures == {
        "throughput_ratio_idle": None,
        "throughput_ratio_task_running": None,
        "instructions_per_packet_ratio": None,
        "added_latency_us_p99": None,
        "packets_lost_by_us": None,
    }


def test_ratios_are_those_of_b_over_a() -> None:
    figures = forwarding_report.figures([found("idle", 10_000, 10_000), found("task", 10_000, 9_000)], {}, [])
    assert figures["throughput_ratio_idle"] == pytest.approx(1.0, abs=1e-3)
    assert figures["throughput_ratio_task_running"] == pytest.approx(0.9, abs=1e-3)
    low, high = figures["task_throughput_interval"]
    assert low <= 0.9 <= high
    assert figures["task_throughput_worst"] == pytest.approx(1 - low)
    assert (figures["task_flows_added"], figures["task_masks_added"]) == (2, 1)
    # The thread took as long for fewer packets.
    assert figures["task_processor_ratio"] == pytest.approx(1 / 0.9, abs=1e-3)
    text = "\n".join(forwarding_report.text([found("task", 10_000, 9_000)], {}, []))
    assert "costs at most 10" in text
    # Two threads of a millisecond each in a second: nobody would take that for a full vSwitch.
    assert figures["task_forwarding_share_of_core"] == 0.002
    assert "NOT saturated" in text


def test_what_is_lost_with_entries_and_while_they_change_counts() -> None:
    low, colored = probed("low", 500.0, 620.0, lost=2), probed("colored", 500.0, 900.0, lost=0)
    figures = forwarding_report.figures([low, colored], {}, [])
    assert (figures["low_lost_without"], figures["low_lost_with"], figures["low_lost_changing"]) == (10, 20, 3)
    assert figures["packets_lost_by_us"] == 20 + 3 + 3
    assert figures["added_latency_us_p99"] == pytest.approx(120.0)
    assert figures["colored_added_us_p50"] == pytest.approx(400.0)
    assert figures["colored_overtaken"] == 2 * LABELS.count("B")


def test_instructions_are_counted_by_packet() -> None:
    counted = [
        Counted(label=label, instructions=10_000_000 if label == "A" else 10_100_000, packets=1000, entries=0)
        for label in LABELS
    ]
    figures = forwarding_report.figures([], {}, counted)
    assert figures["instructions_per_packet_ratio"] == pytest.approx(1.01)
    assert figures["instructions_per_packet"] == 10_000


def test_only_the_first_threads_instructions_are_taken(tmp_path: Path) -> None:
    for name, text in (
        ("callgrind.9.1-01", "version: 1\nevents: Ir\nfn=x\n3 77\n\ntotals: 1234\n"),
        ("callgrind.9.1-02", "events: Ir\ntotals: 999999\n"),
        ("callgrind.9", ""),
    ):
        (tmp_path / name).write_text(text)
    assert instructions._take(tmp_path) == 1234
    assert list(tmp_path.iterdir()) == []


def test_a_change_to_a_busy_cache_is_told_beside_none() -> None:
    def window(change: str, rebuilt: int, most_us: float) -> Disturbance:
        return Disturbance(
            change=change, flows=200, rebuilt=rebuilt, upcalls=rebuilt, sent=9, lost=1, p50_us=1.0, most_us=most_us
        )  # type: ignore[arg-type]

    windows = [window("none", 0, 5.0), window("on", 200, 50.0), window("none", 0, 7.0), window("off", 1, 9.0)]
    figures = forwarding_report.figures([], {"same": windows}, [])
    assert (figures["rebuilt_none_same_scope"], figures["rebuilt_on_same_scope"]) == (0, 200)
    assert (figures["rebuilt_off_same_scope"], figures["lost_none_same_scope"]) == (1, 2)
    assert figures["longest_us_none_same_scope"] == 6
    # Of those that were lost only the ones while entries changed are ours.
    assert figures["packets_lost_by_us"] == 2


def test_conditions_are_those_that_the_command_line_knows() -> None:
    assert tuple(CONDITION) == bench_costs.CONDITIONS
    assert {forwarding._tasks(one)[0].dport for one in CONDITIONS} == {7000, 9001}


def test_an_agents_figures_and_its_goal() -> None:
    def idle(share: float) -> Idle:
        ours = Ours(entries={"claim": 1}, colored=0)
        return Idle(seconds=30, share_of_core=share, pss_mb=17, rss_mb=27, loaded=(), ours=ours, meters=2)

    coloring = Coloring(
        asked_pps=100, rate_pps=99, seconds=20, records=12000, share_of_core=0.03, core_us=55, pss_mb=20, rss_mb=30,
        record_bytes=131, records_per_packet=6, unread=0, cut=0,
    )  # fmt: skip
    loads = [
        Load(
            case="lossy", server=server, took_s=2, resting_share=0.01, working_share=working, unixctl=calls, ofctl=30,
            unixctl_s=0.1, longest_s=0.01, answer_bytes=1000, most_bytes=500, busiest_calls=calls, commands={},
            records=500, stored_bytes=9000, colored=100, answer={},
        )
        for server, calls, working in (("hv1", 6, 0.05), ("hv2", 20, 0.03))
    ]  # fmt: skip
    figures = agent_figures(idle(0.004), [coloring], loads)
    assert (figures["lossy_unixctl_calls"], figures["lossy_main_thread_share"]) == (20, pytest.approx(0.04))
    assert figures["log_bytes_per_packet_and_hop_stored"] == 18.0
    assert figures["coloring_100_pps_core_us_per_record"] == 55
    assert agent_text(figures)[-1].endswith(": met")
    assert agent_text(agent_figures(idle(0.006), [], []))[-1].endswith(": not met")
