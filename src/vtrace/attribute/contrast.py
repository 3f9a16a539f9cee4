"""What tells lost packets from delivered ones, where only some are lost: size, backend, next hop, server, …

Only what separates them, exactly or but for a few that are counted, and what chance, time or the loss itself would
hardly make so (see `separation`). Of several fields that separate equally well all are given, the simplest first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby

from vtrace.attribute import separation
from vtrace.attribute.case import Case
from vtrace.attribute.contrast_words import Finding, Hedge, direction_words, finding_words, rate_words
from vtrace.attribute.endings import Ending
from vtrace.attribute.policing import Limit, Sent, limit
from vtrace.attribute.separation import (
    CHANCE,
    ERRS,
    Chooser,
    Point,
    Split,
    blind_chance,
    by_class,
    by_range,
    by_threshold,
)
from vtrace.attribute.traits import ICMP, TCP, Traits, traits_of
from vtrace.model.answer import CONTRAST_FIELDS, Contrast
from vtrace.model.task import Direction

# How the values of a field are divided: by a threshold, by a range, or as names without an order.
_CHOOSERS: dict[str, Chooser] = {
    "size": by_threshold,
    "fragment": by_class,
    "conntrack_state": by_class,
    "tcp_flags": by_class,
    "protocol": by_class,
    "destination_port": by_class,
    "backend": by_class,
    "ecmp_member": by_class,
    "source_port": by_range,
}
# Each packet has its own value of these; the others belong to a connection, which is then the unit of evidence.
_OF_PACKETS = ("size", "fragment", "conntrack_state", "tcp_flags")
# Causes that may depend on how long a packet is: no ACL, route, port or OpenFlow match looks at that.
_BY_SIZE = (
    *("", "unknown", "physical_loss", "mtu_exceeded", "fragment_dropped", "vif_queue_full"),
    *("qos_rate_limit", "vswitch_overload", "vswitch_pipeline_error", "tunnel_misconfigured", "misdelivered"),
)
_UNNAMED = ("", "unknown")
_LIMITS = ("qos_rate_limit",)
_BY_RATE = (*_LIMITS, "", "unknown", "physical_loss", "vif_queue_full", "vswitch_overload")
# Of these what lies in a packet's headers is not known to be looked at, but its length matters.
_BY_LINK = ("physical_loss", "mtu_exceeded", "fragment_dropped", "vif_queue_full", "tunnel_misconfigured")
_ACLS = ("acl_drop", "acl_reject")
# Said only where nothing else decides: ports and flags come along with much else.
_LAST = ("destination_port", "source_port", "tcp_flags")
# Of so large a share of the packets a value has to be known.
_KNOWN = 0.5
# A connection has this state until its first packet has been answered: also if that is lost, for whatever cause.
_STATE_OF_LOST = ("new",)


def contrast(case: Case, found: Sequence[Ending]) -> tuple[Contrast, ...]:
    """What tells lost packets from delivered ones; the same for records in any order, repeated or not."""
    return tell_apart(case, traits_of(case, found))


def tell_apart(case: Case, packets: Sequence[Traits]) -> tuple[Contrast, ...]:
    """The same, of packets whose traits are known: in the order of sending at each first hop, pair by pair."""
    answers = _directions(case, packets)
    for direction in Direction:
        answers += _one_way(case, [t for t in packets if t.direction is direction])
    return tuple(answers)


def _one_way(case: Case, packets: Sequence[Traits]) -> list[Contrast]:
    """Of all pairs of one direction: what holds for them together, else what holds for each."""
    by_pair = {pair: list(own) for pair, own in groupby(packets, key=lambda t: t.pair)}
    mixed = [own for own in by_pair.values() if 0 < sum(t.lost for t in own) < len(own)]
    packets = _as_sent(packets)
    together = _as_sent([t for own in mixed for t in own])
    common = _fields(together, 1) if len(mixed) > 1 else []
    if common:
        return [finding_words(case, one, together) for one in common]
    answers: list[Contrast] = []
    across = _server(packets, 1, across=True) if len(by_pair) > 1 else None
    if across is not None:
        answers.append(finding_words(case, across, packets))
    for own in mixed:
        found = _of_pair(case, own, len(mixed))
        answers += [one for one in found if not (across and one.field == "server")]
    return answers


def _of_pair(case: Case, packets: Sequence[Traits], scopes: int) -> list[Contrast]:
    """What holds for all that a pair lost; else, where it lost some for several causes, what holds for each."""
    found = _of_losses(case, packets, scopes)
    causes = {t.cause for t in packets if t.lost}
    if found or len(causes) < 2:
        return found
    named = sorted({t.cause for t in packets if t.lost and t.code not in _UNNAMED})
    for cause in named:
        own = [t for t in packets if not t.lost or t.cause == cause]
        found += _of_losses(case, own, scopes * (1 + len(named)), f" to {cause}")
    return found


def _of_losses(case: Case, packets: Sequence[Traits], scopes: int, cause: str = "") -> list[Contrast]:
    pair = case.pair(packets[0].pair)
    fields = _fields(packets, scopes)
    rate = None if fields else _limit(packets, CHANCE / scopes)
    words = [finding_words(case, one, packets, pair, cause) for one in fields]
    return words + ([rate_words(rate, pair)] if rate else [])


def _as_sent(packets: Sequence[Traits]) -> list[Traits]:
    """Those of several pairs in the order of sending: by the clock of their first hop. The clocks of two are not
    compared: all were colored from the same moment on, so each one's n-th packets stand together."""
    one_clock = len({t.order[0] for t in packets}) == 1
    return sorted(packets, key=lambda t: (t.at_ns if one_clock else t.order[1], t.pair, t.order))


# --- fields -----------------------------------------------------------------------------------------------


def _fields(packets: Sequence[Traits], scopes: int) -> list[Finding]:
    """The fields that separate these packets, the simplest first; none if none does."""
    tried = [name for name in _CHOOSERS if len({t.values[name] for t in packets if name in t.values}) > 1]
    tries = max(1, len(tried) + (len({t.servers for t in packets}) > 1)) * scopes
    found = [_field(name, packets, tries) for name in tried]
    found.append(_server(packets, tries))
    return _simplest([one for one in found if one is not None], [t for t in packets if t.lost])


def _field(name: str, packets: Sequence[Traits], tries: int) -> Finding | None:
    known = [t for t in packets if name in t.values]
    for lost in (True, False):
        if sum(t.lost is lost for t in known) < _KNOWN * sum(t.lost is lost for t in packets):
            return None
    points = [Point(value=t.values[name], unit=t.unit, lost=t.lost) for t in known]
    split = separation.find(points, _CHOOSERS[name], tries)
    if split is None:
        return None
    hedge = _hedges(name, split, [t for t in known if t.lost])
    if hedge is None or (name == "source_port" and _are_begun_anew(known)):
        return None
    names = len(split.lost_values) if _CHOOSERS[name] is by_class else 1
    return Finding(field=name, split=split, names=names, hedge=hedge, known=len(known) == len(packets))


def _hedges(name: str, split: Split, lost: Sequence[Traits]) -> Hedge | None:
    """What a split leaves open; None where it leaves too much open to be told.

    A connection that loses its packets changes: it repeats its SYN, stays new, sends larger segments again. Such a
    field says something only within connections that have packets on both sides.
    """
    within, units = split.evidence == "within", split.evidence == "units"
    if name == "conntrack_state":
        return _state_hedges(split, lost)
    if name not in _OF_PACKETS:
        # Echoes of several pings look like one five-tuple.
        sound = units or (within and not any(t.proto in ICMP for t in lost))
    elif name == "tcp_flags" or any(t.proto == TCP for t in lost):
        sound = within
    else:
        sound = True
    if not sound or (name == "size" and any(t.code not in _BY_SIZE for t in lost)):
        return None
    return Hedge.TIED if name in ("size", "fragment") and split.evidence == "packets" else Hedge.NONE


def _state_hedges(split: Split, lost: Sequence[Traits]) -> Hedge | None:
    """An ACL whose match names no state looks at one all the same: answers of a connection that it let begin pass."""
    if all(t.by_state for t in lost):
        return Hedge.NONE
    if split.evidence == "packets":
        return None
    answers = [
        ["rpl" in str(value).split(",") for value in side] for side in (split.lost_values, split.delivered_values)
    ]
    if not any(answers[0]) and all(answers[1]):
        return Hedge.NONE
    if any(t.code in _ACLS and not t.by_state for t in lost):
        return None
    new = split.evidence == "units" and set(split.lost_values) <= set(_STATE_OF_LOST)
    return Hedge.EFFECT if new else Hedge.NONE


def _are_begun_anew(packets: Sequence[Traits]) -> bool:
    """Whether all that was lost are attempts to connect, and all else are connections that stood already: a client
    tries again from the next port, so that the ports come of the loss."""
    return all((t.values.get("tcp_flags") == "SYN") is t.lost for t in packets)


def _simplest(found: Sequence[Finding], lost: Sequence[Traits]) -> list[Finding]:
    """Those that separate best; what is only perhaps so, or comes along with another, where there is no other."""
    kept = [one for one in found if one.hedge is Hedge.NONE] or list(found)
    fewest = min((one.split.errors for one in kept), default=0)
    kept = [one for one in kept if one.split.errors == fewest]
    if any(_decides(one, lost) for one in kept):
        kept = [one for one in kept if one.field not in _LAST]
    between = all(t.between for t in lost)

    def rank(one: Finding) -> tuple[bool, int, int]:
        # What was lost between two servers is a matter of the servers first.
        place = -1 if between and one.field == "server" else CONTRAST_FIELDS.index(one.field)
        return one.field in _LAST, one.names, place

    return sorted(kept, key=rank)


def _decides(one: Finding, lost: Sequence[Traits]) -> bool:
    """Whether a field leaves nothing to ports that happen to separate as well."""
    if one.field in ("size", "fragment", "conntrack_state"):
        known = [t for t in lost if one.field in t.values]
        looked_at = all(t.by_state if one.field == "conntrack_state" else t.code in _BY_LINK for t in known)
        return one.split.evidence == "within" or looked_at
    return one.field not in _LAST


def _server(packets: Sequence[Traits], tries: int, *, across: bool = False) -> Finding | None:
    """The server that all lost packets, and no delivered one, passed or were sent to.

    Only this way around: lost packets pass fewer servers, since they are lost.

    Args:
        across: the packets are of several pairs. One server with one endpoint is then not to be told from that
            endpoint, unless what was lost was lost on the way between servers.
    """
    everywhere = frozenset.intersection(*(t.servers for t in packets)) if packets else frozenset()
    servers = sorted(frozenset().union(*(t.servers for t in packets)) - everywhere)
    best: Finding | None = None
    for server in servers:
        points = [Point(value=server in t.servers, unit=t.unit, lost=t.lost) for t in packets]
        split = separation.judge(points, frozenset({True}), len(servers), tries)
        if split is None or (best is not None and best.split.errors <= split.errors):
            continue
        hedge = _server_hedges(server, split, packets, across=across)
        if hedge is not None:
            best = Finding(field="server", split=split, hedge=hedge, server=server)
    return best


def _server_hedges(server: str, split: Split, packets: Sequence[Traits], *, across: bool) -> Hedge | None:
    lost = [t for t in packets if t.lost]
    between = all(t.between for t in lost)
    if across and not between:
        ends = {t.ends for t in packets if server in t.servers}
        others = {t.ends for t in packets if server not in t.servers}
        for side in (0, 1):
            mine = {end[side] for end in ends}
            if len(mine) == 1 and not mine & {end[side] for end in others}:
                return None
    units = split.evidence == "units" or (split.evidence == "within" and not any(t.proto in ICMP for t in lost))
    if units:
        return Hedge.NONE
    return Hedge.TIED if across and between else None


# --- directions and rates ---------------------------------------------------------------------------------


def _directions(case: Case, packets: Sequence[Traits]) -> list[Contrast]:
    """Ends between which one direction arrives and the other is lost."""
    by_ends: dict[tuple[str, str], list[Traits]] = defaultdict(list)
    for packet in packets:
        by_ends[packet.ends].append(packet)
    found = {ends: lost for ends, own in by_ends.items() if (lost := _lost_way(own, len(by_ends))) is not None}
    if len(found) == len(by_ends) > 1 and len(set(found.values())) == 1:
        return [direction_words(packets, next(iter(found.values())), None)]
    return [direction_words(by_ends[ends], lost, ends) for ends, lost in found.items()]


def _lost_way(packets: Sequence[Traits], scopes: int) -> Direction | None:
    """The direction that is lost, where the other arrives."""
    lost = sum(t.lost for t in packets)
    for way in Direction:
        chosen = [t.lost for t in packets if t.direction is way]
        others = lost - sum(chosen)
        rare = blind_chance(len(packets), len(chosen), lost, sum(chosen)) * 2 * scopes < CHANCE
        if rare and sum(chosen) >= (1 - ERRS) * len(chosen) and others <= ERRS * (len(packets) - len(chosen)):
            return way
    return None


def _limit(packets: Sequence[Traits], chance: float) -> Limit | None:
    """The rate limit that a pair's packets met at one first hop, if that is what took them."""
    codes = {t.code for t in packets if t.lost}
    if not codes <= set(_BY_RATE) or len({t.order[0] for t in packets}) > 1:
        return None
    sent = [
        Sent(at_ns=t.at_ns, like=(t.unit, t.values.get("tcp_flags"), t.values["fragment"]), lost=t.lost)
        for t in packets
    ]
    return limit(sent, known=codes <= set(_LIMITS), chance=chance)
