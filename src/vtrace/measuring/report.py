"""The figures of the runs: medians, and as tables for people."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vtrace.measuring.child import KERNEL, STAGES
from vtrace.measuring.running import Plan, Run, Setup, Store
from vtrace.measuring.tally import Tally, differences

Found = Mapping[Setup, Sequence[Run]]
_SHOWN = 5


def figures(
    plan: Plan, found: Found, wire: Mapping[str, Mapping[str, float]], compile_s: float | None
) -> dict[str, Any]:
    """All figures, the kernel's on the first store first.

    Args:
        wire: for each order bytes a record (`wire.bytes_per_record`).
        compile_s: of the kernel, where nothing was compiled.
    """
    records = {store.order: store.records for store in plan.stores}
    first = plan.stores[0].order
    rows = [measurement(setup, runs, records[setup.order]) for setup, runs in found.items() if setup.form != STAGES]
    headline: dict[str, Any] = {}
    for row in rows:
        if row["form"] == KERNEL and row["order"] == first:
            headline[f"records_per_s_{row['cores']}_core{'s' if row['cores'] > 1 else ''}"] = row["records_per_s"]
            headline["peak_memory_mb"] = max(row["peak_mb"], headline.get("peak_memory_mb", 0.0))
    return {
        **headline,
        "bytes_per_record": wire.get(first, {}).get("blobs"),
        "records": records,
        "packets": {store.order: _tally(found, store).packets for store in plan.stores if _runs(found, store)},
        "runs": plan.runs,
        "load_average_max": round(max((run.load for runs in found.values() for run in runs), default=0.0), 1),
        "compile_s": None if compile_s is None else round(compile_s, 2),
        "wire": wire,
        "measurements": rows,
        "stages": [stages(setup, runs, records[setup.order]) for setup, runs in found.items() if setup.form == STAGES],
        "disagreements": {store.order: disagreements(found, store) for store in plan.stores},
    }


def measurement(setup: Setup, runs: Sequence[Run], records: int) -> dict[str, Any]:
    """The medians of one setup's runs."""
    inner_s = statistics.median(run.inner_s for run in runs)

    def middle(name: str, digits: int) -> float:
        return round(float(statistics.median(getattr(run, name) for run in runs)), digits)

    return {
        "form": setup.form,
        "cores": setup.cores,
        "order": setup.order,
        "records_per_s": round(records / inner_s),
        "packets_per_s": round(runs[0].tally.packets / inner_s),
        "inner_s": round(inner_s, 3),
        "inner_s_min": round(min(run.inner_s for run in runs), 3),
        "inner_s_max": round(max(run.inner_s for run in runs), 3),
        "again_s": middle("again_s", 3),
        "cpu_s": middle("cpu_s", 3),
        "system_s": middle("system_s", 3),
        "import_s": middle("import_s", 2),
        "warm_s": middle("warm_s", 2),
        "before_mb": middle("before_mb", 0),
        "peak_mb": round(max(run.peak_mb for run in runs), 0),
        "mapped_mb": middle("mapped_mb", 0),
        "pairs": len(runs[0].tally.pairs),
        "paths": runs[0].tally.paths,
    }


def stages(setup: Setup, runs: Sequence[Run], records: int) -> dict[str, Any]:
    """Where the kernel's way spends its time: of the run with the median time.

    Returns:
        For each stage the seconds by the wall clock and on the core, and CPU nanoseconds a record. "alone_s": what is
        done before and after the parts, on one core however many there are.
    """
    run = sorted(runs, key=lambda run: run.inner_s)[(len(runs) - 1) // 2]
    return {
        "order": setup.order,
        "cores": setup.cores,
        "inner_s": round(run.inner_s, 3),
        "alone_s": round(run.inner_s - run.parts_s, 3),
        "stages": {
            name: {
                "wall_s": round(wall_s, 3),
                "cpu_s": round(cpu_s, 3),
                "ns_per_record": round(cpu_s * 1e9 / max(records, 1), 1),
            }
            for name, (wall_s, cpu_s) in run.stages.items()
        },
    }


def disagreements(found: Found, store: Store) -> dict[str, list[str]]:
    """For each formulation in what it does not agree with the others: with the one that says what it puts apart."""
    tallies: dict[str, Tally] = {}
    for setup, runs in found.items():
        if setup.order == store.order and setup.form != STAGES and runs:
            tallies.setdefault(setup.form, runs[0].tally)
    if not tallies:
        return {}
    judge = next((t for t in tallies.values() if all(p.apart is not None for p in t.pairs)), None)
    judge = judge or next(iter(tallies.values()))
    return {form: told[:_SHOWN] for form, tally in tallies.items() if (told := differences(judge, tally))}


def text(document: Mapping[str, Any]) -> Iterator[str]:
    """The figures for people, line by line."""
    told = document["figures"]
    yield f"medians of {told['runs']} runs, memory the highest; load average up to {told['load_average_max']:g}"
    heads = "M records/s", "seconds", "from", "to", "again", "CPU s", "system", "peak MiB", "before"
    yield f"{'':28} {heads[0]:>11} {' '.join(f'{head:>8}' for head in heads[1:])}"
    for row in told["measurements"]:
        seconds = [row[name] for name in ("inner_s", "inner_s_min", "inner_s_max", "again_s", "cpu_s", "system_s")]
        numbers = [f"{value:8.2f}" for value in seconds] + [f"{row[name]:8.0f}" for name in ("peak_mb", "before_mb")]
        name = f"{row['order']}, {row['form']} on {row['cores']}"
        yield f"{name:28} {row['records_per_s'] / 1e6:11.2f} {' '.join(numbers)}"
    for one in told["stages"]:
        yield ""
        yield f"kernel, {one['order']} on {one['cores']}: {one['inner_s']:.2f} s, {one['alone_s']:.2f} s of them alone"
        for name, spent in one["stages"].items():
            took = f"{spent['wall_s']:8.3f} s {spent['cpu_s']:8.3f} CPU s"
            yield f"  {name:20} {took} {spent['ns_per_record']:7.1f} ns a record"
    yield ""
    for order, sizes in told["wire"].items():
        yield f"bytes a record, {order}: {', '.join(f'{name} {size:g}' for name, size in sizes.items())}"
    if told["compile_s"] is not None:
        yield f"compilation of the kernel where nothing is kept: {told['compile_s']:g} s"
    for order, by_form in told["disagreements"].items():
        for form, lines in by_form.items():
            yield f"DISAGREES: {order}, {form}: {'; '.join(lines)}"


def _runs(found: Found, store: Store) -> bool:
    return any(setup.order == store.order and runs for setup, runs in found.items())


def _tally(found: Found, store: Store) -> Tally:
    return next(runs[0].tally for setup, runs in found.items() if setup.order == store.order and runs)
