"""The figures of `vtrace bench forwarding`, and the same as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from vtrace.costs import forwarding, slices
from vtrace.costs.disturbing import Disturbance
from vtrace.costs.forwarding import Found
from vtrace.costs.instructions import Counted
from vtrace.costs.slices import Estimate

# Below this share of a core, throughput is not bounded by the vSwitch, and its ratio says little.
SATURATED = 0.9

Document = dict[str, Any]
Disturbed = dict[str, list[Disturbance]]


def figures(found: Sequence[Found], disturbed: Disturbed, counted: Sequence[Counted]) -> Document:
    """Those that design names, null where they were not measured, and more beside them.

    Ratios are throughput (or what is said) with entries over that without; `_worst` is what may be lost at worst.
    """
    by_name = {one.condition.name: one for one in found}
    numbers: Document = {
        "throughput_ratio_idle": _throughput(by_name.get("idle")),
        "throughput_ratio_task_running": _throughput(by_name.get("task")),
        "instructions_per_packet_ratio": None,
        "added_latency_us_p99": _added(by_name.get("low"), 0.99),
        "packets_lost_by_us": _lost_by_us(by_name.values(), disturbed),
    }
    for one in found:
        numbers |= _of_condition(one)
    if counted:
        estimate = instructions(counted)
        numbers["instructions_per_packet_ratio"] = round(estimate.value, 5)
        numbers["instructions_per_packet_interval"] = _ends(estimate)
        without = [one.per_packet for one in counted if one.label == "A"]
        numbers["instructions_per_packet"] = round(float(np.mean(without)))
    for scope, windows in disturbed.items():
        numbers |= {f"{name}_{scope}_scope": value for name, value in _of_disturbances(windows).items()}
    return numbers


def instructions(counted: Sequence[Counted]) -> Estimate:
    """B over A: instructions a packet."""
    return slices.ratio([one.per_packet for one in counted], "".join(one.label for one in counted))


def _throughput(found: Found | None) -> float | None:
    return None if found is None else round(forwarding.throughput(found).value, 5)


def _added(found: Found | None, share: float) -> float | None:
    return None if found is None else round(forwarding.added_us(found, share).value, 1)


def _lost_by_us(found: Iterable[Found], disturbed: Disturbed) -> int | None:
    """Packets lost while entries were there or changed, at low load and beside a busy cache; null if none were sent."""
    probes = [one for one in found if one.trips]
    windows = [one for some in disturbed.values() for one in some if one.change != "none"]
    if not probes and not windows:
        return None
    return sum(forwarding.lost(one, label)[0] for one in probes for label in "B-") + sum(one.lost for one in windows)


def _of_condition(found: Found) -> Document:
    return _measured(found) | {
        f"{found.condition.name}_{what}_added": found.cache["B"][what] - found.cache["A"][what]
        for what in ("flows", "masks")
        if found.cache
    }


def _measured(found: Found) -> Document:
    name = found.condition.name
    if found.trips:
        numbers: Document = {}
        for label, word in (("A", "without"), ("B", "with"), ("-", "changing")):
            numbers[f"{name}_lost_{word}"], numbers[f"{name}_sent_{word}"] = forwarding.lost(found, label)
        for share in (0.5, 0.99):
            estimate = forwarding.added_us(found, share)
            numbers[f"{name}_added_us_p{share * 100:g}"] = round(estimate.value, 1)
            numbers[f"{name}_added_us_p{share * 100:g}_interval"] = _ends(estimate, 1)
        overtaken = [t.overtaken for t, label in zip(found.trips, found.labels, strict=True) if label == "B"]
        numbers[f"{name}_overtaken"] = sum(overtaken)
        return numbers
    through, processor = forwarding.throughput(found), forwarding.processor(found)
    worst = slices.cost(through)
    numbers = {
        f"{name}_throughput_ratio": round(through.value, 5),
        f"{name}_throughput_interval": _ends(through),
        f"{name}_throughput_worst": None if worst is None else round(worst, 5),
        f"{name}_processor_ratio": round(processor.value, 5),
        f"{name}_processor_interval": _ends(processor),
    }
    if found.condition.load == "flood":
        numbers[f"{name}_packets_per_s"] = round(_per_s(found))
        numbers[f"{name}_forwarding_share_of_core"] = round(busy(found), 3)
    return numbers


def _per_s(found: Found) -> float:
    return float(np.median([s.packets / s.seconds for s in found.slices if s.label == "A"]))


def busy(found: Found) -> float:
    """The share of their core that the threads that forward have in slices A: near 1 the vSwitch is saturated."""
    return float(np.median([sum(s.forwarding_ns) / 1e9 / s.seconds for s in found.slices if s.label == "A"]))


def _of_disturbances(windows: Sequence[Disturbance]) -> Document:
    numbers: Document = {"cached_flows": max(one.flows for one in windows)}
    for change in ("none", "on", "off"):
        chosen = [one for one in windows if one.change == change]
        numbers |= {
            f"rebuilt_{change}": max(one.rebuilt for one in chosen),
            f"upcalls_{change}": max(one.upcalls for one in chosen),
            f"lost_{change}": sum(one.lost for one in chosen),
            f"longest_us_{change}": round(float(np.median([one.most_us for one in chosen]))),
        }
    return numbers


def _ends(estimate: Estimate, digits: int = 5) -> list[float] | None:
    if estimate.low is None or estimate.high is None:
        return None
    return [round(estimate.low, digits), round(estimate.high, digits)]


def details(found: Sequence[Found], disturbed: Disturbed, counted: Sequence[Counted]) -> Document:
    """All that was seen, slice by slice, but single round trips."""
    told: Document = {}
    for one in found:
        slim = msgspec.to_builtins(one)
        slim["trips"] = [_slim(trip) for trip in slim["trips"]]
        slim["between"] = _slim(slim["between"]) if slim["between"] else None
        told[one.condition.name] = slim
    return {
        "conditions": told,
        "disturbances": msgspec.to_builtins(disturbed),
        "instructions": msgspec.to_builtins(counted),
    }


def _slim(trip: Document) -> Document:
    times = trip.pop("times_us")
    shares = {f"p{share * 100:g}_us": float(np.quantile(times, share)) for share in (0.5, 0.9, 0.99)} if times else {}
    return {**trip, **shares}


def text(found: Sequence[Found], disturbed: Disturbed, counted: Sequence[Counted]) -> list[str]:
    """Lines for people: of each condition its claim."""
    lines = []
    for one in found:
        lines += [f"{one.condition.name}: {one.condition.text}", *(f"  {line}" for line in _claims(one))]
    if counted:
        lines.append(f"instructions a packet: {_beside(instructions(counted))}")
    for scope, windows in disturbed.items():
        numbers = _of_disturbances(windows)
        lines.append(f"cache, {scope} scope: " + ", ".join(f"{name} {value}" for name, value in numbers.items()))
    return lines


def _claims(found: Found) -> list[str]:
    lines = []
    if found.trips:
        for share in (0.5, 0.99):
            lines.append(f"p{share * 100:g} of round trips: {_beside(forwarding.added_us(found, share), 'µs')}")
        counts = {label: forwarding.lost(found, label) for label in "AB-"}
        lines.append("lost of sent: " + ", ".join(f"{k} {lost} of {sent}" for k, (lost, sent) in counts.items()))
    else:
        lines.append(slices.claim(forwarding.throughput(found)))
        lines.append(f"processor time a packet: {_beside(forwarding.processor(found))}")
        if busy(found) < SATURATED:
            lines.append(
                f"NOT saturated: the threads that forward had {busy(found):.0%} of a core; others used the rest"
            )
    flows = ", ".join(
        f"{label}: {counts['flows']} flows, {counts['masks']} masks" for label, counts in found.cache.items()
    )
    return [*lines, f"cache {flows}"]


def _beside(estimate: Estimate, unit: str = "") -> str:
    ends = "no interval" if estimate.low is None else f"95 % interval {estimate.low:.5g} to {estimate.high:.5g}"
    return f"{estimate.value:.5g} {unit} ({ends})".replace("  ", " ")
