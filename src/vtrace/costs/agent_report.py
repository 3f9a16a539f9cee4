"""The figures of `vtrace bench agent`, and the same as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vtrace.costs.agent import Coloring, Idle, Load

# Goals of an idle agent.
CORE_GOAL, MEMORY_GOAL_MB = 0.005, 80.0


def figures(idle: Idle, coloring: Sequence[Coloring], loads: Sequence[Load]) -> dict[str, Any]:
    """Of an idle agent, of agents that color, of what a task asks of ovs-vswitchd, and of its log.

    The `main_thread` ones are of the server where a task asked most: shares of a core beyond what it took at rest.
    """
    found: dict[str, Any] = {
        "idle_share_of_core": round(idle.share_of_core, 5),
        "idle_pss_mb": round(idle.pss_mb, 1),
        "idle_rss_mb": round(idle.rss_mb, 1),
        "idle_entries": idle.ours.length,
        "idle_meters": idle.meters,
        "idle_loaded": list(idle.loaded),
    }
    for one in coloring:
        name = f"coloring_{one.asked_pps:g}_pps"
        found[f"{name}_share_of_core"] = round(one.share_of_core, 4)
        found[f"{name}_core_us_per_record"] = round(one.core_us, 1)
        found[f"{name}_pss_mb"] = round(one.pss_mb, 1)
        found[f"{name}_records_per_packet"] = round(one.records_per_packet, 2)
    for case in dict.fromkeys(load.case for load in loads):
        found |= {f"{case}_{name}": value for name, value in _of_case([x for x in loads if x.case == case]).items()}
    if coloring:
        found["log_bytes_per_packet_and_hop_wire"] = round(coloring[0].record_bytes, 1)
    stored = [load.stored_bytes / load.records for load in loads if load.records]
    if stored:
        found["log_bytes_per_packet_and_hop_stored"] = round(max(stored), 1)
    return found


def _of_case(loads: Sequence[Load]) -> dict[str, Any]:
    busiest = max(loads, key=lambda load: load.unixctl)
    return {
        "task_s": round(busiest.took_s, 2),
        "unixctl_calls": busiest.unixctl,
        "unixctl_calls_busiest_second": busiest.busiest_calls,
        "unixctl_s": round(busiest.unixctl_s, 4),
        "unixctl_longest_ms": round(busiest.longest_s * 1e3, 1),
        "unixctl_answer_bytes": busiest.answer_bytes,
        "ofctl_calls": busiest.ofctl,
        "main_thread_share": round(max(0.0, max(x.working_share - x.resting_share for x in loads)), 4),
    }


def text(found: dict[str, Any]) -> list[str]:
    """A line for each figure, and the goals."""
    lines = [f"{name}: {value}" for name, value in found.items()]
    met = found["idle_share_of_core"] <= CORE_GOAL and found["idle_pss_mb"] <= MEMORY_GOAL_MB
    goal = f"goal of an idle agent: at most {CORE_GOAL:.1%} of a core and {MEMORY_GOAL_MB:g} MB"
    return [*lines, f"{goal}: {'met' if met else 'not met'}"]
