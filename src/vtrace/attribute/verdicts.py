"""From the endings of packets to the answer: verdicts with counts, the loss of each pair and of the task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec
import msgspec.structs

from vtrace.attribute import causes_size, silence
from vtrace.attribute.case import Case
from vtrace.attribute.cause import Cause
from vtrace.attribute.causes import find_cause
from vtrace.attribute.contrast import contrast
from vtrace.attribute.endings import Ending, endings, is_lost
from vtrace.attribute.entrances import in_first_hop_order
from vtrace.attribute.paths import paths
from vtrace.attribute.patterns import TRANSIENT_AFTER, pattern
from vtrace.model.answer import KINDS, Contrast, Packets, PairAnswer, PathAnswer, Verdict, Why
from vtrace.model.task import Pair

# What was concluded from rows and tunnels, not from an inspection, stands as long as these do.
_STANDING = ("tunnel_misconfigured", "nat_missing", "address_conflict")
_PATTERNS = ("persistent", "unclear", "transient", None)
# More than this share of evidence missing, and "no loss" is no longer an honest answer.
MISSING_LIMIT = 0.1


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an answer that follows from the evidence alone."""

    loss: str
    loss_ratio: float | None
    pattern: str | None
    packets: Packets
    verdicts: tuple[Verdict, ...]
    pairs: tuple[PairAnswer, ...]
    paths: tuple[PathAnswer, ...]
    contrast: tuple[Contrast, ...] = ()
    for_others: int = 0


def attribute(case: Case) -> Attribution:
    """The verdicts of a case. The same case gives the same answer."""
    found, for_others = endings(case)
    by_pair: dict[int, list[Ending]] = defaultdict(list)
    for ending in found:
        by_pair[ending.pair].append(ending)
    verdicts: list[tuple[int, Verdict]] = []
    for pair in case.pairs:
        verdicts += [(pair.index, v) for v in _pair_verdicts(case, pair, by_pair[pair.index])]
        forward = case.forward_of(pair)
        asked = by_pair[forward.index] if forward is not None else []
        verdicts += [(pair.index, v) for v in silence.verdicts(case, pair, by_pair[pair.index], asked)]
    verdicts.sort(key=lambda item: _rank(item[1]))
    pairs = tuple(_pair_answer(case, pair, by_pair[pair.index], verdicts) for pair in case.pairs)
    packets = count(found)
    return Attribution(
        loss=worst(p.loss for p in pairs),
        loss_ratio=ratio(packets),
        pattern=_first_pattern([v for _, v in verdicts]),
        packets=packets,
        verdicts=tuple(v for _, v in verdicts),
        pairs=pairs,
        paths=paths(case, found),
        contrast=contrast(case, found),
        for_others=sum(for_others.values()),
    )


def count(found: Sequence[Ending]) -> Packets:
    """How many packets came to which end."""
    kinds = [ending.kind for ending in found]
    return Packets(
        colored=len(found),
        delivered=kinds.count("delivered"),
        dropped=kinds.count("dropped"),
        lost_between=kinds.count("lost_between"),
        left_domain=kinds.count("left_domain"),
        evidence_missing=kinds.count("evidence_missing"),
    )


def ratio(packets: Packets) -> float | None:
    """(dropped + lost_between) / (colored - evidence_missing); None where nothing is known."""
    known = packets.colored - packets.evidence_missing
    return (packets.dropped + packets.lost_between) / known if known else None


def worst(losses: Iterable[str]) -> str:
    """Over pairs: yes beats unknown beats no."""
    found = set(losses)
    return next((loss for loss in ("yes", "unknown", "no") if loss in found), "unknown")


def still_stands(case: Case, ending: Ending) -> bool:
    """Whether the last inspection at the place of a loss still shows its cause."""
    if ending.cause is None:
        return False
    if ending.cause.code == "mtu_exceeded":
        return causes_size.stands(case, ending.pair, ending.cause)
    latest = {(i.chassis, i.flow_id): i for i in case.inspections if i.pair == ending.pair}
    for inspection in latest.values():
        if case.inventory.server(inspection.chassis) != ending.where.server:
            continue
        cause = find_cause(inspection, case.inventory)
        if cause is not None and cause.key in (ending.cause.key, ending.cause.because):
            return True
    return ending.cause.code in _STANDING


def _goes_elsewhere(group: Sequence[Ending], found: Sequence[Ending]) -> bool:
    """Whether the flow that a group was lost of has taken another way since: what took it there may well stand."""
    last = group[-1]
    place = last.where.next_server or last.where.server
    later = [e for e in found if e.flow == last.flow and e.order > last.order]
    return len(later) >= TRANSIENT_AFTER and not any(place in e.servers or is_lost(e) for e in later)


def _pair_verdicts(case: Case, pair: Pair, found: Sequence[Ending]) -> list[Verdict]:
    found = in_first_hop_order(case, found)
    known = [e for e in found if e.kind != "evidence_missing"]
    groups: dict[tuple[object, ...], list[Ending]] = defaultdict(list)
    for ending in found:
        groups[_group_of(ending)].append(ending)
    standing = {
        key: is_lost(group[-1]) and still_stands(case, group[-1]) and not _goes_elsewhere(group, known)
        for key, group in groups.items()
    }
    # What a standing cause took says nothing of whether another loss has passed.
    passing = [is_lost(e) for e in known if not standing[_group_of(e)]]
    verdicts = []
    start, end = pair.task_ends
    for key, group in groups.items():
        lost = is_lost(group[0])
        verdicts.append(
            Verdict(
                kind=group[0].kind,
                pattern=pattern(passing if not standing[key] else [True], stands=standing[key]) if lost else None,
                direction=pair.direction.word,
                from_=start,
                to=end,
                packets=len(group),
                confidence=group[0].cause.confidence if group[0].cause else 1.0,
                where=group[0].where,
                why=_why(group),
            )
        )
    return verdicts


def _group_of(ending: Ending) -> tuple[object, ...]:
    """What has to be equal for two packets to be in one verdict of their pair."""
    return (ending.kind, msgspec.structs.astuple(ending.where), ending.cause.key if ending.cause else None)


def _why(group: Sequence[Ending]) -> Why | None:
    best: Cause | None = max((e.cause for e in group if e.cause), key=lambda c: c.confidence, default=None)
    if best is None:
        return None
    return Why(
        code=best.code,
        actor=best.actor,
        summary=best.summary,
        object=best.object,
        evidence=best.evidence,
        fix=best.fix,
    )


def _rank(verdict: Verdict) -> tuple[object, ...]:
    """Lost ones first, persistent before transient, then by packets; the rest only makes the order definite."""
    lost = verdict.pattern is not None
    return (
        not lost,
        _PATTERNS.index(verdict.pattern),
        -verdict.packets,
        KINDS.index(verdict.kind),
        verdict.direction,
        verdict.from_,
        verdict.to,
        str(msgspec.structs.astuple(verdict.where)),
    )


def _pair_answer(
    case: Case, pair: Pair, found: Sequence[Ending], verdicts: Sequence[tuple[int, Verdict]]
) -> PairAnswer:
    packets = count(found)
    own = [(number, verdict) for number, (index, verdict) in enumerate(verdicts) if index == pair.index]
    patterns = {v.pattern for _, v in own}
    if "persistent" in patterns:
        loss = "yes"
    elif not packets.colored and any(v.why is not None and v.why.code == "guest_not_answering" for _, v in own):
        # Of packets that nobody sent none is lost.
        loss = "no"
    elif "unclear" in patterns or not packets.colored or packets.evidence_missing > MISSING_LIMIT * packets.colored:
        loss = "unknown"
    elif pair.index in case.blinded:
        # What came before all arrived. Whether anything goes in now nobody knows.
        loss = "unknown"
    else:
        loss = "no"
    start, end = pair.task_ends
    return PairAnswer(
        from_=start,
        to=end,
        direction=pair.direction.word,
        loss=loss,
        loss_ratio=ratio(packets),
        colored=packets.colored,
        verdicts=tuple(number for number, _ in own),
    )


def _first_pattern(verdicts: Sequence[Verdict]) -> str | None:
    return next((v.pattern for v in verdicts if v.pattern is not None), None)
