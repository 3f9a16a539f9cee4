"""An answer for people: the three answers first, in words, then the path, hop by hop."""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest

from msgspec.structs import replace
from rich.console import Console
from rich.markup import escape

from vtrace.model.answer import Answer, Contrast, HopAnswer, PathAnswer, Verdict
from vtrace.present.cli.matrix import MOST_CAUSES, causes, has_several_pairs, matrix

_LOST = ("dropped", "lost_between")
# Of several pairs: so many paths, and so many of a cause's pairs by name.
_MOST_PATHS = 4
_MOST_SHARES = 6
_KINDS = {
    "vswitch": "vSwitch",
    "vrouter": "vRouter",
    "vbrouter": "vBRouter",
    "slb": "SLB",
}
_REWRITES = {
    "load_balancing": "chose",
    "snat": "SNAT",
    "dnat": "DNAT",
    "unsnat": "SNAT undone",
    "undnat": "DNAT undone",
    "unknown": "rewritten",
}


class _Console(Console):
    """Who reads the answer may stop reading it (`| head`): the library would then exit with 1, which means "loss"."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def render(answer: Answer, console: Console | None = None) -> None:
    """Prints an answer to a terminal or a pipe."""
    out = console or _Console(highlight=False, soft_wrap=True)
    out.print(_headline(answer))
    several = has_several_pairs(answer)
    for line in _of_several(answer) if several else [line for v in answer.verdicts for line in _verdict(v)]:
        out.print(line)
    for number, contrast in enumerate(answer.contrast):
        out.print(("" if number else "\n") + _contrast(contrast))
    for change in answer.changes:
        out.print(f"\n[yellow]Δ[/] {escape(change.at)}: {escape(change.text)}")
    packets = answer.packets
    out.print(
        f"\nPackets: {packets.colored} colored = {packets.delivered} delivered + {packets.dropped} dropped + "
        f"{packets.lost_between} lost between servers + {packets.left_domain} left the domain + "
        f"{packets.evidence_missing} without evidence"
    )
    if answer.cost.packets_for_others:
        out.print(
            f"{answer.cost.packets_for_others} more went to the same shared address and on to others: not counted"
        )
    for path in _paths_of_several(answer) if several else answer.paths:
        for line in _path(path):
            out.print(line)
    for note in answer.notes:
        out.print(f"[yellow]Note:[/] {escape(note)}")
    cost = answer.cost
    out.print(
        f"[dim]Task {answer.task.id} ({answer.task.state}), {cost.time_to_verdict_s:.1f} s. {cost.entries_installed} "
        f"entries installed, {cost.entries_left} left; {cost.packets_colored_beyond_n} packets colored beyond N, "
        f"{cost.packets_in_doubt} in doubt, {cost.copies_cut} copies cut.[/]"
    )


def _headline(answer: Answer) -> str:
    transient = [v for v in answer.verdicts if v.kind in _LOST and v.pattern == "transient"]
    if answer.loss == "yes" and any(v.kind == "left_domain" and v.pattern for v in answer.verdicts[:1]):
        return "[bold red]Yes: packets left with an address that nobody can answer.[/]"
    if answer.loss == "yes":
        share = f" ({answer.loss_ratio:.0%} of the packets)" if answer.loss_ratio is not None else ""
        return f"[bold red]Yes, packets are lost{share}.[/]"
    if answer.loss == "no":
        if transient:
            count = sum(v.packets for v in transient)
            return f"[bold yellow]{count} packets were lost for a while; it passed. No persistent loss.[/]"
        return "[bold green]No, packets are not lost.[/]"
    if not answer.packets.colored:
        return "[bold yellow]No verdict: no packet of this traffic was seen.[/]"
    return "[bold yellow]No verdict: the evidence is not enough.[/]"


def _of_several(answer: Answer) -> list[str]:
    """The matrix of several pairs, and each cause once, with the packets it took of each pair."""
    found = causes(answer)
    losses = [pair.loss for pair in answer.pairs]
    lines = [
        f"{len(losses)} pairs (each direction is one): {losses.count('yes')} with loss, {losses.count('no')} without, "
        f"{losses.count('unknown')} unknown",
        "",
        *(escape(line) for line in matrix(answer, found)),
    ]
    for cause in found[:MOST_CAUSES]:
        first = cause.verdicts[0]
        whom = _pair(first) if len(cause.verdicts) == 1 else f"{len(cause.verdicts)} pairs"
        described = _verdict(replace(first, packets=cause.packets), f"{cause.letter}. {whom}")
        if len(cause.verdicts) > 1:
            shares = [f"{_pair(v)} {v.packets}" for v in cause.verdicts[:_MOST_SHARES]]
            more = len(cause.verdicts) - len(shares)
            described.insert(2, escape(f"  of {', '.join(shares)}{f' and {more} more' if more else ''}"))
        lines += described
    if len(found) > MOST_CAUSES:
        lines += ["", f"and {len(found) - MOST_CAUSES} more causes: --json has them"]
    missing: Counter[str] = Counter()
    for verdict in answer.verdicts:
        if verdict.kind == "evidence_missing" and verdict.packets:
            missing[verdict.where.server or "unknown"] += verdict.packets
    if missing:
        places = ", ".join(f"{server} ({packets} packets)" for server, packets in missing.most_common(_MOST_SHARES))
        lines += ["", f"[yellow]•[/] evidence is missing after {escape(places)}"]
    return lines


def _paths_of_several(answer: Answer) -> list[PathAnswer]:
    """Of many paths a few of those that did not lead to the end."""
    return [path for path in answer.paths if path.disposition in _LOST][:_MOST_PATHS]


def _pair(verdict: Verdict) -> str:
    ends = (verdict.from_, verdict.to)
    return " → ".join(ends if verdict.direction == "forward" else reversed(ends))


def _verdict(verdict: Verdict, whom: str = "") -> list[str]:
    """A verdict in words.

    Args:
        whom: what to call its pair, if not by its ends.
    """
    where = verdict.where
    pair = whom or _pair(verdict)
    device = f"{_KINDS.get(where.vfd_kind or '', 'device')} {where.vfd}" if where.vfd else "an unknown device"
    place = f"{device} on server {where.server or 'unknown'}"
    if where.server_ip:
        place += f" ({where.server_ip})"
    lines = [""]
    if verdict.kind == "delivered":
        lines.append(
            f"[green]✓[/] {escape(pair)}: {verdict.packets} delivered at {escape(where.port or '?')}, {escape(place)}"
        )
        return lines
    if verdict.kind == "left_domain" and verdict.why is None:
        goal = verdict.to if verdict.direction == "forward" else verdict.from_
        by = f"{where.port or '?'}, {place}"
        lines.append(f"[green]✓[/] {escape(pair)}: {verdict.packets} left for {escape(goal)} by {escape(by)}")
        return lines
    if verdict.kind == "lost_between":
        what = f"{verdict.packets} lost between {place} and server {where.next_server or 'unknown'}"
    elif verdict.kind == "dropped":
        what = f"{verdict.packets} dropped by {place}"
        if where.port:
            what += f", port {where.port}"
    elif verdict.kind == "no_traffic":
        what = f"no traffic at {where.port} of {place}"
    elif verdict.kind == "left_domain":
        what = f"{verdict.packets} left the domain at {place}"
    else:
        what = f"{verdict.packets} without evidence after {place}"
    mark = "[red]✗[/]" if verdict.kind in _LOST or verdict.pattern else "[yellow]•[/]"
    if verdict.pattern:
        what += f" ({verdict.pattern})"
    lines.append(f"{mark} {escape(pair)}: {escape(what)}")
    if verdict.why is not None:
        why = verdict.why
        lines.append(f"  because: {escape(why.summary)}")
        lines.append(f"  reason {why.code}, by the {why.actor}; confidence {verdict.confidence:g}")
        if why.object is not None and (why.object.uuid or why.object.name):
            lines.append(f"  object: {escape(f'{why.object.type} {why.object.uuid} {why.object.name}'.strip())}")
        if why.fix:
            lines.append(f"  to show or remove it: [bold]{escape(why.fix)}[/]")
    return lines


def _contrast(contrast: Contrast) -> str:
    where = ""
    if contrast.from_ is not None:
        ends = (contrast.from_, contrast.to or "")
        way = " ↔ " if contrast.direction is None else " → "
        where = way.join(reversed(ends) if contrast.direction == "reply" else ends) + ": "
    return f"[yellow]≠[/] {escape(where)}[bold]lost and delivered packets differ:[/] {escape(contrast.text)}"


def _path(path: PathAnswer) -> list[str]:
    ends = {
        "delivered": "[green]delivered[/]",
        "evidence_missing": "[yellow]evidence missing[/]",
        "left_domain": "left the domain",
    }
    ending = ends.get(path.disposition, f"[red]{path.disposition.replace('_', ' ')}[/]")
    lines = [f"\nPath of {path.packets} packets, {escape(path.from_)} → {escape(path.to)} ({path.direction}):"]
    if path.packets_with_gaps:
        lines.append(f"  [yellow]of {path.packets_with_gaps} of them records of some of these hops are missing[/]")
    server = ""
    for hop, after in zip_longest(path.hops, path.hops[1:]):
        if hop.server != server:
            lines.append(f"  server {escape(hop.server)}")
            server = hop.server
        lines.append(f"    {_hop(hop, after)}")
    lines.append(f"    └─ {ending}")
    return lines


def _hop(hop: HopAnswer, after: HopAnswer | None) -> str:
    # Two bridges of one server are joined by a patch.
    stays = after is not None and after.server == hop.server
    words = {
        "first_hop": "colored on its way in",
        "ingress": "came in",
        "logical_egress": "passed on",
        "remote_output": "handed on" if stays else "sent by tunnel",
        "egress": "handed out",
    }
    ports = " → ".join(filter(None, (hop.in_port, hop.out_port)))
    kind = _KINDS.get(hop.vfd_kind, hop.vfd_kind)
    changes = "".join(f", {_REWRITES.get(r.kind, r.kind)} {r.before} → {r.after}" for r in hop.rewritten)
    if hop.vfd_kind == "slb":
        return escape(f"├─ {kind} {hop.vfd}: {changes.removeprefix(', ')}")
    return escape(f"├─ {kind} {hop.vfd}: {words.get(hop.point, hop.point)} ({ports}), TTL {hop.ttl}{changes}")
