"""Figures, confusion matrix and wrong cases of a fault benchmark."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from vtrace.bench.figures import interval, machine, percentile
from vtrace.bench.running import Outcome


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The figures of `vtrace bench faults --json` (ratios 0..1); void cases are counted, not judged."""
    judged = [o for o in outcomes if o.judgement is not None]
    count = len(judged)

    def share(name: str) -> float:
        return round(sum(getattr(o.judgement, name) for o in judged) / count, 4) if count else 0.0

    low, high = interval(sum(o.judgement.all_three for o in judged if o.judgement), count)
    times = sorted(o.took_s for o in judged)
    return {
        "cases": count,
        "all_three_right": share("all_three"),
        "all_three_right_95_low": low,
        "all_three_right_95_high": high,
        "loss_right": share("loss"),
        "where_right": share("where"),
        "why_right": share("why"),
        "unknown": share("unknown"),
        "false_alarms": sum(o.judgement.false_alarm for o in judged if o.judgement),
        "without_loss": sum(o.right.loss == "no" for o in judged if o.right),
        "void": len(outcomes) - count,
        "time_to_verdict_median_s": percentile(times, 0.5),
        "time_to_verdict_p95_s": percentile(times, 0.95),
        "commits": sorted({o.commit[:12] for o in judged}),
    }


def confusion(outcomes: Iterable[Outcome]) -> dict[str, Counter[str]]:
    """For each right code ("" healthy) how often each code was given; cases of one fault only."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        if outcome.judgement is not None and outcome.right is not None and len(outcome.right.verdicts) == 1:
            found[outcome.right.verdicts[0].code][(outcome.judgement.given or ("no verdict",))[0]] += 1
    return dict(found)


def markdown(outcomes: Sequence[Outcome], command: str) -> str:
    """The report."""
    found = figures(outcomes)
    lines = ["## Figures", "", f"`{command}`", "", "| | |", "|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in found.items() if name != "commits"]
    lines += [f"| machine | {machine()} |", f"| commits | {' '.join(found['commits'])} |", ""]
    lines += ["## By mode, kind of traffic and protocol", "", "| | cases | all three right |", "|---|---|---|"]
    for name, key in (("mode", _mode), ("traffic", _kind), ("protocol", _proto), ("machine busy", _busy)):
        lines += [f"| {name}: {label} | {count} | {share:.1%} |" for label, count, share in _shares(outcomes, key)]
    lines += ["", "## Confusion: what was given for each right code", ""]
    lines += ["| code | cases | all three right | code right | else given |", "|---|---|---|---|---|"]
    table = confusion(outcomes)
    for label, count, share in _shares([o for o in outcomes if len(o.codes) < 2], _code):
        code = "" if label == "healthy" else label
        others = [f"{given or 'none'} {n}" for given, n in table.get(code, Counter()).most_common() if given != code]
        lines.append(f"| {label} | {count} | {share:.1%} | {table.get(code, Counter())[code]} | {', '.join(others)} |")
    lines += ["", "## Wrong cases", "", "| case | injected | traffic | wrong | given |", "|---|---|---|---|---|"]
    for outcome in sorted(outcomes, key=lambda o: o.case.number):
        judgement = outcome.judgement
        if judgement is None or judgement.all_three:
            continue
        wrong = " ".join(name for name in ("loss", "where", "why") if not getattr(judgement, name))
        what = f"{outcome.case.mode}: {' + '.join(outcome.case.faults) or 'nothing'}"
        traffic = f"{outcome.case.kind}, {' '.join(outcome.way)}, {outcome.proto}{outcome.ip}"
        lines.append(
            f"| {outcome.case.number} | {what} | {traffic} | {wrong} | {', '.join(judgement.given) or 'none'} |"
        )
    lines += ["", "## Void cases", "", "| case | injected | why |", "|---|---|---|"]
    lines += [f"| {o.case.number} | {' + '.join(o.case.faults)} | {o.void} |" for o in outcomes if o.void]
    return "\n".join(lines) + "\n"


def _shares(outcomes: Iterable[Outcome], key: Any) -> list[tuple[str, int, float]]:
    groups: dict[str, list[bool]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.judgement is not None:
            groups[key(outcome)].append(outcome.judgement.all_three)
    return [(name, len(group), sum(group) / len(group)) for name, group in sorted(groups.items())]


def _mode(outcome: Outcome) -> str:
    return outcome.case.mode


def _kind(outcome: Outcome) -> str:
    return outcome.case.kind


def _proto(outcome: Outcome) -> str:
    return f"{outcome.proto}, IPv{outcome.ip}"


def _busy(outcome: Outcome) -> str:
    return "yes" if outcome.case.busy else "no"


def _code(outcome: Outcome) -> str:
    return (outcome.right.verdicts[0].code if outcome.right else "") or "healthy"
