"""Makes a page of a file of outcomes: `python tests/lab/survival/report.py RESULTS [PAGE]`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from survival.cases import Case, whole
from survival.outcome import Outcome, read
from survival.trial import BOUND_S, LAST_ENTRY_S, PACKETS, RATE_PPS, TIMEOUT_S

HEAD = """# What VTrace survives: a run

Made by `tests/lab/survival/report.py` from the outcomes that `tests/lab/test_survival.py` keeps; not written by hand.

Each case: a lab of the topology `internet` on one machine, {rate} UDP packets a second from `red-web1` on `hv1` to
`red-web3` on `hv2` (where the gateway is to be hurt: by `gw1` to `internet1`), a task of {packets} packets with a time
limit of {limit} s, and in one state of that task the event. Then, by what the VMs' interfaces and `ovs-ofctl` showed:

- no entry of ours is left beyond its hard time-out ({last} s at most), no meter after the next task, and all other
  entries, groups and meters are as they were;
- no more packets are lost than the same event, for as long, costs with nothing of ours there (and 2.5 s of them, since
  ovn-controller comes back at its own pace; where it costs none: 6 packets);
- no packet shows a color to a VM or an outside box, but for the exceptions in [limits](limits.md);
- the task ends by itself, {bound} s after its time limit at most, with one document and the exit code that belongs to
  it; it tells no loss where there was none, and blames no tenant; a later task is right.

| Act | |
|---|---|
| kill | SIGKILL; started again after the answer |
| stop | SIGSTOP, SIGCONT 1.5 s later |
| hang | SIGSTOP, SIGCONT after the answer (the analyzer: when all time-outs are over) |
| restart | ended and started at once (the analyzer: killed, and a new task at once) |

"""
ROW = "| {state} | {verdict} | {answer} | {took} | {lost} | {colored} | {left} |"


def lost_of(outcome: Outcome) -> str:
    """Packets of the tenant that were lost, and by the event alone."""
    return f"{outcome.lost} ({outcome.control_lost})" if outcome.control_lost else str(outcome.lost)


def answer_of(outcome: Outcome) -> str:
    """What the task said."""
    if outcome.exit_code is not None and outcome.exit_code < 0:
        return "killed"
    if outcome.loss:
        return f"{outcome.state}, loss {outcome.loss}, exit {outcome.exit_code}"
    return f"error, exit {outcome.exit_code}"


def row(outcome: Outcome) -> str:
    """A case."""
    return ROW.format(
        state=outcome.case.state,
        verdict="**not as it has to be**" if outcome.complaints else "ok",
        answer=answer_of(outcome) if outcome.exit_code is not None else "–",
        took=f"{outcome.took_s:.1f}",
        lost=lost_of(outcome),
        colored=outcome.colored,
        left=f"{outcome.left_s:.0f}",
    )


def page(outcomes: dict[str, Outcome], cases: Sequence[Case]) -> str:
    """The page."""
    head = HEAD.format(rate=RATE_PPS, packets=PACKETS, limit=TIMEOUT_S, last=LAST_ENTRY_S, bound=BOUND_S)
    run = [outcomes[case.name] for case in cases if case.name in outcomes]
    missing = [case for case in cases if case.name not in outcomes]
    lines = [head + summary(run, missing, len(cases))]
    for event, place in dict.fromkeys((o.case.event, o.case.place) for o in run):
        lines.append(f"\n## {event}, {place}\n")
        lines.append("| State | | Answer | Took, s | Lost (by the event alone) | Colored | Last entry, s |")
        lines.append("|---|---|---|---|---|---|---|")
        here = [o for o in run if (o.case.event, o.case.place) == (event, place)]
        lines += [row(o) for o in here]
        lines += list(complaints(here))
    if missing:
        lines += ["\n## Not run\n", *(f"- {case.name}" for case in missing)]
    return "\n".join(lines) + "\n"


def complaints(outcomes: Iterable[Outcome]) -> Iterable[str]:
    """What was wrong, in short."""
    for outcome in outcomes:
        for text in outcome.complaints:
            first = " ".join(text.split())[:200].replace("`", "'").replace("|", "/")
            yield f"\n{outcome.case.state}: `{first}`"


def summary(run: Sequence[Outcome], missing: Sequence[Case], known: int) -> str:
    """The figures over all."""
    bad = [o for o in run if o.complaints]
    dates = sorted(o.date for o in run)
    commits = Counter(o.commit for o in run)
    ended = [
        o
        for o in run
        if o.exit_code is not None and o.exit_code >= 0 and not o.case.event.startswith(("hang-ana", "clock-"))
    ]
    slowest = max(ended, key=lambda o: o.took_s, default=None)
    lines = [
        "| | |",
        "|---|---|",
        f"| Run | {dates[0]} to {dates[-1]} |" if dates else "| Run | never |",
        f"| Commits | {', '.join(f'{name} ({count} cases)' for name, count in sorted(commits.items()))} |",
        f"| Versions | {'; '.join(sorted({o.versions for o in run}))} |",
        f"| Cases | {known}; run {len(run)}, not run {len(missing)} |",
        f"| As they have to be | {len(run) - len(bad)} of {len(run)} |",
    ]
    if slowest is not None:
        lines.append(f"| Longest task | {slowest.took_s:.1f} s ({slowest.case.name}), time limit {TIMEOUT_S} s |")
    if bad:
        lines.append(f"| Not as they have to be | {', '.join(o.case.name for o in bad)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Prints the page, or writes it."""
    text = page(read(Path(sys.argv[1])), list(whole()))
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(text)
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
