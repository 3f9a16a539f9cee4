"""Verdicts about traffic that was not there: a silent source, an unanswered ARP, a guest that does not answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec.structs import replace

from vtrace.attribute.case import Case, NeighborWatch
from vtrace.attribute.cause import CONCLUDED, SEEN_ACTING, Cause, Place, rfc3339, trace_command
from vtrace.attribute.causes import find_cause
from vtrace.attribute.causes_gateway import no_gateway
from vtrace.attribute.causes_nat import unaddressable
from vtrace.attribute.endings import Ending, where_of
from vtrace.attribute.operator import port_type
from vtrace.model.answer import Evidence, ObjectRef, Verdict, Where, Why
from vtrace.model.inspection import Inspection
from vtrace.model.inventory import Inventory, LogicalPort
from vtrace.model.task import Direction, Endpoint, Pair

_NUMBERS = {"tcp": "6", "udp": "17", "icmp": "1 58"}


def verdicts(case: Case, pair: Pair, found: Sequence[Ending], asked: Sequence[Ending] = ()) -> list[Verdict]:
    """The no_traffic verdicts of a pair.

    Args:
        found: its packets.
        asked: of a reply those of the forward direction, which it answers.
    """
    if pair.index in case.not_begun:
        return [_not_begun(case, pair)]
    kept = _kept_from_color(case, pair, seen=bool(found))
    if not found and kept is None and case.entered.get(pair.index):
        return [_unheard(case, pair)]
    if not found and kept is None and case.taken.get(pair.index):
        return [_taken(case, pair)]
    if not found:
        return [kept or _no_traffic(case, pair, asked)]
    if kept is not None:
        return [kept]
    if pair.direction is Direction.FORWARD and not case.reply_asked:
        silent = _not_answering(case, pair, found)
        return [silent] if silent is not None else []
    return []


def _vif(inventory: Inventory, end: Endpoint, seen_on: str = "") -> Where:
    """Where an endpoint's packets come in; of an address outside the gateway's port to the physical network.

    Args:
        seen_on: the chassis where they did, of several where they may.
    """
    found = next(iter(inventory.ends(end)), None)
    if found is None:
        return Where(port=end.name)
    chassis = found.chassis or (seen_on if end.outside else "") or next(iter(sorted(inventory.entrances(found))), "")
    return where_of(inventory, chassis, Place(datapath=found.datapath, in_key=found.key))


def _port_ref(inventory: Inventory, port: LogicalPort | None, name: str) -> ObjectRef:
    """An endpoint's port as an answer's object; by the endpoint's name where it has none."""
    return ObjectRef(type=port_type(inventory), uuid=port.nb_uuid if port else "", name=port.name if port else name)


def _no_traffic(case: Case, pair: Pair, forward: Sequence[Ending]) -> Verdict:
    asked = [n for n in case.neighbors if n.pair == pair.index and n.requests and not n.answers]
    start, end = pair.task_ends
    others = case.for_others.get(pair.index, 0)
    kept_out = _apart(case, pair) or _kept_out(case, pair)
    if forward and kept_out is None and not asked and not others:
        silent = _not_answering(case, case.pair(forward[0].pair), forward)
        if silent is not None:
            return silent
    if kept_out is not None:
        why = kept_out
    elif others:
        why = _balanced_away(case, pair, others)
    elif forward and not asked and not any(_has_arrived(e, case.pair(e.pair)) for e in forward):
        why = _nothing_to_answer(case, pair, len(forward))
    elif pair.source.outside:
        why = _silent_outside(case, pair)
    else:
        why = _unresolved(case, pair, asked[0]) if asked else _silent(case, pair)
    return Verdict(
        kind="no_traffic",
        direction=pair.direction.word,
        from_=start,
        to=end,
        packets=0,
        confidence=SEEN_ACTING if asked else CONCLUDED,
        where=_vif(case.inventory, pair.source),
        why=why,
    )


def _unheard(case: Case, pair: Pair) -> Verdict:
    """Packets went by our entries, and no copy of them came: that is no silence of the source."""
    return _nothing_known(
        case,
        pair,
        f"{case.entered[pair.index]} packets of this traffic left {pair.source.name}, and no copy of them came to us",
        "ask again, without ports (--dport) or once this traffic has paused for ten seconds; or when the server is "
        "less busy",
    )


def _taken(case: Case, pair: Pair) -> Verdict:
    """Another run of VTrace colored the packets first: a packet has one color."""
    return _nothing_known(
        case,
        pair,
        f"another task of VTrace colored {case.taken[pair.index]} packets of this traffic where they come in, and none "
        "was left for this one",
        "ask again when the other task has ended; what one that was killed left ends 5 s after its time limit",
    )


def _not_begun(case: Case, pair: Pair) -> Verdict:
    """The task ended before it was the pair's turn to be colored."""
    return _nothing_known(
        case,
        pair,
        "the time was over before this pair was colored: the copies of the other pairs' packets are as many as the "
        "servers' meters allow",
        "give more time (--timeout), fewer pairs, or fewer packets of each (--packets)",
    )


def _nothing_known(case: Case, pair: Pair, summary: str, fix: str) -> Verdict:
    start, end = pair.task_ends
    return Verdict(
        kind="evidence_missing",
        direction=pair.direction.word,
        from_=start,
        to=end,
        packets=0,
        where=_vif(case.inventory, pair.source),
        why=Why(
            code="unknown",
            actor="unknown",
            summary=summary,
            fix=fix,
        ),
    )


def keeps_from_color(inspection: Inspection, pair: Pair, inventory: Inventory, *, seen: bool) -> Cause | None:
    """What ends a pair's packets before they can be colored, as the datapath's cache shows.

    An entry before ours, or that the switch can't translate them. `seen` says whether any of them was colored.
    """
    cause = find_cause(inspection, inventory) if inspection.uncolored and inspection.pair == pair.index else None
    if cause is None or not _is_of(pair, inspection.flow):
        return None
    if inspection.errors and cause.code in ("vswitch_pipeline_error", "foreign_flow_entry") and not seen:
        summary = f"{cause.summary}; so it does nothing at all with them, and they could not be colored"
        return replace(cause, summary=summary)
    if cause.code == "fragment_dropped" and inspection.steps and inspection.steps[-1].table == 0:
        return replace(cause, summary=f"{cause.summary}, before they could be colored")
    if cause.code == "stale_flow_entry" and inspection.steps and inspection.steps[-1].table == 0:
        return replace(cause, summary=f"{cause.summary}; so what comes in there could not be colored")
    # In table 0, or on a bridge that packets come through first, an entry comes before ours.
    foreign = [step for step in inspection.steps if step.object.kind == "foreign"]
    if cause.code == "foreign_flow_entry" and (not foreign or foreign[-1].table == 0):
        return replace(cause, summary=f"{cause.summary}; it comes before ours, so what it takes could not be colored")
    return None


def _kept_from_color(case: Case, pair: Pair, *, seen: bool) -> Verdict | None:
    """That packets were ended before they could be colored, if the datapath's cache shows it."""
    start, end = pair.task_ends
    for inspection in reversed(case.inspections):
        cause = keeps_from_color(inspection, pair, case.inventory, seen=seen)
        if cause is None:
            continue
        untranslated = cause.code == "vswitch_pipeline_error" or bool(inspection.errors)
        here = where_of(case.inventory, inspection.chassis, cause.place)
        return Verdict(
            kind="dropped",
            pattern="persistent",
            direction=pair.direction.word,
            from_=start,
            to=end,
            packets=0,
            confidence=CONCLUDED,
            where=here if untranslated else _vif(case.inventory, pair.source, inspection.chassis),
            why=Why(
                code=cause.code,
                actor=cause.actor,
                summary=cause.summary,
                object=cause.object,
                evidence=cause.evidence,
                fix=cause.fix,
            ),
        )
    return None


def _apart(case: Case, pair: Pair) -> Why | None:
    """That source and destination are in VPCs apart, where one and the same address is of two VMs."""
    if not pair.unreachable:
        return None
    here, there = pair.source, pair.destination
    port = next(iter(case.inventory.ends(here)), None)
    return Why(
        code="source_silent",
        actor="guest",
        summary=f"nothing that {here.name} sends can be for {there.name}: it is in another VPC ({there.vpc}), and what "
        f"is sent to {', '.join(pair.elsewhere)} in {here.vpc} goes to the VM that has that address there",
        object=ObjectRef(
            type=port_type(case.inventory), uuid=port.nb_uuid if port else "", name=here.port or here.name
        ),
        fix=f"name the VM that is meant as {here.vpc}/{pair.elsewhere[0]}",
    )


def _kept_out(case: Case, pair: Pair) -> Why | None:
    """Why nothing of an address outside can come in: no live gateway, or no address that is one outside."""
    if not pair.source.outside or not pair.destination.ports:
        return None
    inventory = case.inventory
    around = {key for port in inventory.ends(pair.destination) for key in inventory.reach(port.datapath)}
    routers = {d.key for d in inventory.datapaths if d.key in around and d.kind != "vswitch"}
    distributed = {nat.external for nat in inventory.nats if nat.port in pair.destination.ports}
    cause = None
    if not distributed.intersection(alias.address for alias in pair.destination.aliases):
        cause = no_gateway([p for p in inventory.ports if p.datapath in routers], inventory)
    # What a source NAT translated is answered by way of it: that needs no address of one's own.
    answers = pair.direction is Direction.REPLY and any(a.kind == "translated" for a in pair.destination.aliases)
    cause = cause or (None if answers else unaddressable(pair, inventory))
    if cause is None:
        return None
    return Why(
        code=cause.code,
        actor=cause.actor,
        summary=cause.summary,
        object=cause.object,
        evidence=cause.evidence,
        fix=cause.fix,
    )


def _silent_outside(case: Case, pair: Pair) -> Why:
    inventory = case.inventory
    ports = inventory.ends(pair.source)
    places = sorted({inventory.server(c) for p in ports for c in inventory.entrances(p)})
    port = next(iter(ports), None)
    carried = ", ".join(dict.fromkeys(a.address for a in pair.destination.aliases if a.kind != "translated"))
    return Why(
        code="source_silent",
        actor="guest",
        summary=f"nothing of this traffic came in from {pair.source.name}, neither by "
        f"{', '.join(places) or 'a gateway'} nor by the server of the VM",
        object=_port_ref(case.inventory, port, pair.source.name),
        fix=f"does {pair.source.name} send to {carried or pair.destination.address}? capture on the provider network, "
        "and look whether anybody answers ARP or ND for that address there",
    )


def _is_of(pair: Pair, key: str) -> bool:
    """Whether a datapath flow's key, where it names a protocol and a port, names those of the pair."""
    traffic = pair.traffic
    words = re.findall(r"\b(tcp|udp)\(([^)]*)\)", key)
    number = _NUMBERS.get(traffic.proto, "")
    named = re.search(r"proto=(\d+)[,)]", key)
    if named and number and named[1] not in number.split():
        return False
    ends = [traffic.sport, traffic.dport]
    shared = {alias.address for alias in pair.destination.aliases if alias.kind == "translated"}
    to = re.search(r"\bipv[46]\([^)]*\bdst=([^,)]*)", key)
    wanted = dict(zip(("src", "dst"), ends if pair.direction is Direction.FORWARD else reversed(ends), strict=True))
    for _, fields in words:
        ports = dict(word.partition("=")[::2] for word in fields.split(","))
        for name, aliases in (("src", pair.source.aliases), ("dst", pair.destination.aliases)):
            port = ports.get(name, "")
            known = {wanted[name], *(number for a in aliases for number in (a.port, a.own_port))}
            if wanted[name] and port.isdecimal() and int(port) not in known:
                return False
            if name == "dst" and not wanted[name] and port.isdecimal() and to and to[1] in shared:
                # Behind a source NAT the port tells whose it is, and we do not know which is the pair's.
                return False
    return True


def _balanced_away(case: Case, pair: Pair, others: int) -> Why:
    """Packets for the shared address came, and all of them were translated to other endpoints."""
    shared = sorted({alias.address for alias in pair.destination.aliases if alias.shared})
    traffic = pair.traffic
    for vip in case.inventory.vips:
        if vip.proto and traffic.proto and vip.proto != traffic.proto:
            continue
        for backend in vip.backends:
            meant = not vip.port or traffic.dport in (None, vip.port, backend.port)
            down = backend.status not in ("", "online")
            if meant and down and backend.address in pair.destination.addresses:
                return Why(
                    code="lb_backend_down",
                    actor="tenant",
                    summary=f"the load balancer {vip.balancer} sends nothing to {pair.destination.name}: its health "
                    f"check says {backend.status}; {others} packets went on to other backends",
                    object=ObjectRef(type="Load_Balancer", uuid=vip.uuid, name=vip.balancer),
                    fix=f"in {pair.destination.name}: does something listen on port {backend.port}? "
                    f"ovn-sbctl find Service_Monitor logical_port={pair.destination.port}",
                )
    return Why(
        code="unknown",
        actor="unknown",
        summary=f"{others} packets were sent to {', '.join(shared)}, and all of them went on to other endpoints than "
        f"{pair.destination.name}",
        fix="wait for a connection that is given to it, or name the address itself with --to",
    )


def _silent(case: Case, pair: Pair) -> Why:
    port = next(iter(case.inventory.ends(pair.source)), None)
    asked = [n for n in case.neighbors if n.pair == pair.index]
    answered = any(n.answers for n in asked)
    rest = "though its ARP or ND requests were answered" if answered else "no ARP or ND request either"
    return Why(
        code="source_silent",
        actor="guest",
        summary=f"nothing of this traffic left {pair.source.name}, {rest}",
        object=_port_ref(case.inventory, port, pair.source.name),
        evidence=(
            Evidence(
                source=f"entries at the interface of {port.name if port else pair.source.name}",
                text=f"0 packets of this traffic, {sum(n.requests for n in asked)} ARP or ND requests, "
                f"{sum(n.answers for n in asked)} answers",
                chassis=case.inventory.server(port.chassis) if port else "",
            ),
        ),
        fix=f"check that {pair.source.name} sends to {pair.destination.address}: its address, routes and firewall",
    )


def _unresolved(case: Case, pair: Pair, asked: NeighborWatch) -> Why:
    """The source asks who has an address, and nobody answers: say why nobody does."""
    port = case.inventory.port(pair.source.port)
    reason = ""
    evidence: tuple[Evidence, ...] = ()
    fix = None
    for inspection in reversed([i for i in case.inspections if i.pair == -1 - pair.index]):
        cause = find_cause(inspection, case.inventory)
        evidence = (
            Evidence(
                source=trace_command(inspection),
                text=f"the request ends in: {inspection.outcome} {' '.join(inspection.outputs)}".strip(),
                chassis=case.inventory.server(inspection.chassis),
                at=rfc3339(inspection.wall_ns),
            ),
        )
        if inspection.outcome == "controller":
            # Handed over, not dropped: OVN answers neighbor solicitations itself (ovn-northd(8), ARP/ND responder).
            here = case.inventory.server(inspection.chassis)
            state = f": it {inspection.controller}" if inspection.controller else ""
            reason = f"ovn-controller of {here} has to answer, and did not{state}"
            fix = f"on {here}: is ovn-controller alive? ovn-appctl -t ovn-controller connection-status"
        elif cause is not None:
            reason, fix, evidence = cause.summary, cause.fix, cause.evidence
        break
    reason = reason or _nobody_has(case, pair, asked)
    return Why(
        code="neighbor_unresolved",
        actor="provider",
        summary=f"{pair.source.name} asked {asked.requests} times for the MAC address of {asked.target} and nobody "
        f"answered: {reason}",
        object=ObjectRef(type=port_type(case.inventory), uuid=port.nb_uuid if port else "", name=pair.source.port),
        evidence=evidence,
        fix=fix or ("" if case.inventory.plain else "ovn-nbctl show: ") + "which port has that address, and is it up?",
    )


def _nobody_has(case: Case, pair: Pair, asked: NeighborWatch) -> str:
    owner = next(
        (p for p in case.inventory.ports if any(asked.target in a.split() for a in p.addresses)),
        None,
    )
    if owner is None:
        return f"no port that this task knows has the address {asked.target}"
    if not owner.enabled:
        return f"the port {owner.name} has it and is disabled"
    if not owner.chassis:
        return f"the port {owner.name} has it and no chassis has bound it"
    if not owner.up:
        return f"the port {owner.name} has it and is not up"
    if case.inventory.plain:
        return f"{owner.name} has it: its guest does not answer, or request or answer were lost between the bridges"
    return f"the port {owner.name} has it, and its guest does not answer"


def _nothing_to_answer(case: Case, pair: Pair, packets: int) -> Why:
    port = next(iter(case.inventory.ends(pair.source)), None)
    return Why(
        code="source_silent",
        actor="guest",
        summary=f"nothing of this traffic left {pair.source.name}, and there was nothing to answer: none of the "
        f"{packets} packets from {pair.destination.name} is known to have reached it",
        object=_port_ref(case.inventory, port, pair.source.name),
        fix="see what became of the forward direction",
    )


def _has_arrived(ending: Ending, pair: Pair) -> bool:
    return ending.kind == ("left_domain" if pair.destination.outside else "delivered")


def _not_answering(case: Case, pair: Pair, found: Sequence[Ending]) -> Verdict | None:
    """That nothing came back for the packets of a forward pair that arrived; None where that can't be said."""
    arrived = [e for e in found if _has_arrived(e, pair)]
    reply = next((r for r in case.replies if r.pair == pair.index), None)
    if not arrived or reply is None or reply.packets + reply.resets + reply.errors:
        return None
    port = next(iter(case.inventory.ends(pair.destination)), None)
    start, end = pair.task_ends
    outside = pair.destination.outside
    verb = "left for" if outside else "were delivered to"
    return Verdict(
        kind="no_traffic",
        direction=Direction.REPLY.word,
        from_=start,
        to=end,
        packets=0,
        confidence=SEEN_ACTING,
        where=arrived[-1].where if outside else _vif(case.inventory, pair.destination),
        why=Why(
            code="guest_not_answering",
            actor="guest",
            summary=f"{len(arrived)} packets {verb} {pair.destination.name}, and nothing came back from it",
            object=_port_ref(case.inventory, port, pair.destination.name),
            evidence=(
                Evidence(
                    source=f"counting entries at the interface of {port.name if port else pair.destination.name}",
                    text="0 packets, 0 TCP resets and 0 ICMP errors came back",
                    chassis=case.inventory.server(port.chassis) if port else "",
                ),
            ),
            fix=f"{'behind the provider network' if outside else f'in {pair.destination.name}'}: does something "
            "listen, and does its firewall let it answer?",
        ),
    )
