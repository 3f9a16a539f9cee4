"""How and where each packet ended, and of what."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
import msgspec.structs

from vtrace.attribute.case import Case, TunnelCheck
from vtrace.attribute.cause import CANDIDATE, CONCLUDED, Cause, Place, rfc3339, trace_command
from vtrace.attribute.causes import find_cause
from vtrace.attribute.causes_balancer import backend_down
from vtrace.attribute.causes_elsewhere import astray, at_a_rival
from vtrace.attribute.causes_gateway import silent_gateway
from vtrace.attribute.causes_nat import untranslated
from vtrace.attribute.causes_overload import lost_by_receiver, lost_on_the_way
from vtrace.attribute.causes_size import (
    Links,
    longer_than_carried,
    refused_by_port,
    refused_by_receiver,
    refused_by_sender,
    too_large_for_router,
)
from vtrace.attribute.causes_tunnel import between, came_as_another, no_tunnel, unreachable
from vtrace.attribute.loops import loop, ttl_ends, with_loop
from vtrace.attribute.moving import MADE_IN_NS, SOON_NS, Moves, is_stale, shows_cause_soon
from vtrace.attribute.queues import dropped_by_queues, dropped_by_sender
from vtrace.attribute.rewriting import vip_of
from vtrace.model.answer import Evidence, Where
from vtrace.model.inspection import Inspection
from vtrace.model.inventory import FIRST_MULTICAST_KEY, OUTWARD, Inventory, LogicalPort
from vtrace.model.record import Disposition, LogRecord, Point, flow_id

TOP_PRIORITY = 65535
LOST = ("dropped", "lost_between")
# For so long before and after our entries were taken off a chassis a missing record there says nothing.
DISTURBED_NS = 3_000_000_000
# Types of ports that lead into another logical datapath (ovn-sb(5), Port_Binding).
_LEADS_ON = ("patch", "l3gateway", "chassisredirect")


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one packet.

    Attributes:
        order: its place in the pair's first-hop order.
        flow: `model.record.flow_id` of its first record.
        servers: those that it passed.
        hops: its records, as rows of the case's, in path order.
    """

    pair: int
    order: int
    kind: str
    where: Where
    cause: Cause | None
    chassis: str
    path: int
    flow: str = ""
    servers: frozenset[str] = frozenset()
    hops: tuple[int, ...] = ()


def endings(case: Case) -> tuple[list[Ending], dict[int, int]]:
    """The ending of every packet that is part of the answer: of each pair the first N by first-hop order.

    Returns:
        The endings, and for each pair the number of its packets that turned out to be for other endpoints.
    """
    found = _Endings(case)
    return found.all(), found.for_others


def is_lost(ending: Ending) -> bool:
    """Whether it did not arrive, or left in a form that is known to lead nowhere."""
    if ending.kind == "left_domain":
        return ending.cause is not None and ending.cause.confidence > CANDIDATE
    return ending.kind in LOST


class _Endings:
    def __init__(self, case: Case) -> None:
        self._case = case
        self._inventory = case.inventory
        # Copies the meter cut on a chassis explain at most as many packets without a record there.
        self._unexplained = defaultdict(int, case.copies_cut)
        # Of a packet that was seen nowhere on a chassis all copies there would have to be cut.
        whole = case.cut_of_counted
        self._unseen = self._unexplained if whole is None else defaultdict(int, whole)
        self.for_others: dict[int, int] = defaultdict(int)
        self._moves = Moves(case)

    def all(self) -> list[Ending]:
        found: list[Ending] = []
        lasts: list[LogRecord] = []
        links = Links(self._case)
        taken: dict[int, int] = defaultdict(int)
        for row in self._case.reconstruction.packets.sort_by(
            [("pair", "ascending"), ("order", "ascending")]
        ).to_pylist():
            if self._is_for_another(row):
                self.for_others[row["pair"]] += 1
            elif taken[row["pair"]] < self._case.packets_asked:
                taken[row["pair"]] += 1
                ending = self._ending(row)
                links.note(row, len(found), ending.kind, ending.cause)
                lasts.append(self._case.records[row["hops"][-1]])
                found.append(ending)
        self._by_either_end(found, links, lasts)
        for number, confidence, seen, remedy in links.too_long():
            ending = found[number]
            if ending.cause is not None and ending.cause.code == "physical_loss":
                between = f"between {ending.where.server} and {ending.where.next_server}"
                cause = longer_than_carried(ending.cause, confidence, seen, remedy, between)
                found[number] = msgspec.structs.replace(ending, cause=cause)
        handed = {n: (e.chassis, e.where.port or "") for n, e in enumerate(found) if e.kind == "delivered"}
        for number, cause in dropped_by_queues(self._case, handed).items():
            found[number] = msgspec.structs.replace(found[number], kind="dropped", cause=cause)
        return found

    def _by_either_end(self, found: list[Ending], links: Links, lasts: Sequence[LogRecord]) -> None:
        """What did not come in at another server, where the sender's device or the receiver's load explains that."""
        for sender, receiver, lost, passed in links.losses():
            pairs = {found[number].pair for number in lost}
            server, cause = sender, dropped_by_sender(self._case, sender, pairs, len(lost), passed)
            if cause is None:
                server, cause = receiver, lost_by_receiver(self._case, receiver, pairs, len(lost), passed)
            if cause is None:
                server, cause = sender, self._not_sent(sender, receiver, found, lasts)
                lost = links.lost_at_last(sender, receiver)
            for number in lost if cause is not None else ():
                last = lasts[number]
                place = Place(datapath=last.datapath, in_key=last.in_key, out_key=last.out_key)
                where = where_of(self._inventory, server, place)
                found[number] = msgspec.structs.replace(found[number], kind="dropped", where=where, cause=cause)

    def _not_sent(
        self, sender: str, receiver: str, found: Sequence[Ending], lasts: Sequence[LogRecord]
    ) -> Cause | None:
        """Why the sender could send nothing to the receiver, if that was seen of another packet.

        Each packet is held against the inspection of its own flow, and a flow that the switch cached before the
        tunnel broke still shows an output.
        """
        for ending, last in zip(found, lasts, strict=True):
            cause = ending.cause
            seen = cause is not None and cause.code == "tunnel_unreachable" and ending.kind == "dropped"
            if cause is not None and seen and (last.chassis, last.peer) == (sender, receiver):
                return msgspec.structs.replace(cause, confidence=min(cause.confidence, CONCLUDED), place=Place())
        return None

    def _is_for_another(self, row: dict[str, Any]) -> bool:
        """Whether it went to a shared address (a VIP, a source NAT's) and was translated to another endpoint's."""
        pair = self._case.pair(row["pair"])
        last = self._case.records[row["hops"][-1]]
        return pair.is_for_another(self._first(row).dst, last.dst)

    def _ending(self, row: dict[str, Any]) -> Ending:
        last = self._case.records[row["hops"][-1]]
        if row["disposition"] == Disposition.EGRESS:
            kind, where, cause = self._left(row, last)
        elif row["disposition"] == Disposition.SENT:
            kind, where, cause = self._sent(row, last)
        else:
            kind, where, cause = self._stopped(row, last)
        if cause is not None and cause.code in ("unknown", "physical_loss"):
            kind, cause = ("dropped", moving) if (moving := self._moves.cause(row)) else (kind, cause)
        if kind != "delivered":
            records = [self._case.records[number] for number in row["hops"]]
            strayed = came_as_another(records, self._case.tunnels, self._inventory)
            if strayed is not None:
                kind, where, cause = "lost_between", self._into_tunnel(strayed[0]), strayed[1]
        going_round = loop([self._case.records[number] for number in row["hops"]], self._inventory)
        if going_round is not None and (kind == "evidence_missing" or (cause is not None and cause.code == "unknown")):
            cause = ttl_ends(going_round, self._inventory)
            kind, where = "dropped", where_of(self._inventory, going_round.last.chassis, cause.place)
        if cause is not None:
            cause = with_loop(cause, going_round) if going_round else cause
            wanted = self._inventory.ends(self._case.pair(row["pair"]).destination)
            cause = at_a_rival(self._by_balancer(row, cause), wanted, self._inventory)
            if cause.balancer:
                where = msgspec.structs.replace(where, vfd=cause.balancer, vfd_kind="slb")
        return Ending(
            pair=row["pair"],
            order=row["order"],
            kind=kind,
            where=where,
            cause=cause,
            chassis=last.chassis,
            path=row["path"],
            flow=flow_id(self._first(row)),
            servers=frozenset(self._inventory.server(self._case.records[number].chassis) for number in row["hops"]),
            hops=tuple(row["hops"]),
        )

    def _first(self, row: dict[str, Any]) -> LogRecord:
        hops: list[int] = row["hops"]
        return self._case.records[hops[0]]

    def _by_balancer(self, row: dict[str, Any], cause: Cause) -> Cause:
        """The cause, or the load balancer's if that chose where the packet went."""
        records = [self._case.records[number] for number in row["hops"]]
        for before, after in itertools.pairwise(records):
            if before.dst != after.dst:
                here = {before.datapath, after.datapath}
                ends = (before.dst, before.dport), (after.dst, after.dport)
                vip = vip_of(*ends, before, self._inventory, here)
                if vip is not None:
                    return backend_down(cause, vip)
        return cause

    def _left(self, row: dict[str, Any], last: LogRecord) -> tuple[str, Where, Cause | None]:
        """Handed to a port's entry: delivered, if the entry passed it on and it was the right port."""
        pair = self._case.pair(row["pair"])
        wanted = self._inventory.ends(pair.destination)
        inspection = nearest(self._case, self._first(row), last, same_flow=True)
        place = Place(datapath=last.datapath, in_key=last.in_key, out_key=last.out_key)
        if inspection is not None:
            cause = after_egress(inspection, self._inventory) or _diverted(inspection, wanted, self._inventory)
            if cause is not None:
                where = where_of(self._inventory, last.chassis, place)
                if self._came_later(row, last, inspection):
                    return "evidence_missing", where, None
                return "dropped", where, cause
        here = where_of(self._inventory, last.chassis, place)
        port = self._inventory.port_by_key(last.datapath, last.out_key)
        refused = self._refused(inspection, last, port)
        if refused is not None:
            return "dropped", here, refused
        if port is not None and port.type in OUTWARD:
            return "left_domain", here, self._untranslated(row)
        if port is not None and port in wanted:
            return "delivered", here, None
        if pair.destination.outside:
            return "left_domain", here, None
        if port is not None and port.type in _LEADS_ON:
            return "evidence_missing", self._beyond(here, port), None
        cause = find_cause(inspection, self._inventory) if inspection is not None else None
        if cause is not None and cause.code == "foreign_flow_entry":
            return "dropped", here, cause
        if port is None and self._was_balanced(row):
            return "evidence_missing", here, None
        return "dropped", here, astray(port, last, wanted, pair.destination.name, self._inventory)

    def _came_later(self, row: dict[str, Any], last: LogRecord, asked: Inspection) -> bool:
        """Whether the state that a later inspection found may have come after the packet: before it all was well."""
        if asked.mono_ns - last.mono_ns <= SOON_NS:
            return False
        asked_before = self._case.of_flow(row["pair"], last.chassis, flow_id(self._first(row)))
        well = [i for i in asked_before if i.mono_ns <= last.mono_ns + MADE_IN_NS]
        return bool(well) and after_egress(max(well, key=lambda i: i.mono_ns), self._inventory) is None

    def _refused(self, inspection: Inspection | None, last: LogRecord, port: LogicalPort | None) -> Cause | None:
        """The device behind the port that it was handed to, where that carries nothing so long."""
        if inspection is None or port is None or inspection.outcome != "output" or port.type in _LEADS_ON:
            return None
        return refused_by_port(last, inspection, port.name, self._inventory)

    def _untranslated(self, row: dict[str, Any]) -> Cause | None:
        """Why nobody can answer what left, if its address says so."""
        return untranslated([self._case.records[number] for number in row["hops"]], self._inventory)

    def _was_balanced(self, row: dict[str, Any]) -> bool:
        """Whether it was sent to the VIP that the task names and given to a backend: perhaps a former one.

        Connections go on to the backend that they were given to, also when the load balancer has it no more.
        """
        vip = self._case.pair(row["pair"]).destination.only
        last = self._case.records[row["hops"][-1]]
        return bool(vip) and self._first(row).dst == vip != last.dst

    def _check(self, last: LogRecord) -> TunnelCheck | None:
        """What was found of the tunnel that a record says a packet was sent by."""
        checks = self._case.tunnels
        return next((t for t in checks if (t.sender, t.receiver) == (last.chassis, last.peer)), None)

    def _into_tunnel(self, last: LogRecord) -> Where:
        """Where a packet was that its last record says was sent to another chassis."""
        place = Place(datapath=last.datapath, in_key=last.in_key, out_key=last.out_key)
        check, datapath = self._check(last), self._inventory.datapath(last.datapath)
        return msgspec.structs.replace(
            where_of(self._inventory, last.chassis, place),
            port=(check.tunnel if check else "") or None,
            next_server=self._inventory.server(last.peer),
            next_vfd=datapath.name if datapath else None,
        )

    def _sent(self, row: dict[str, Any], last: LogRecord) -> tuple[str, Where, Cause | None]:
        """Sent to another chassis, and not seen there."""
        case, inventory = self._case, self._inventory
        place = Place(datapath=last.datapath, in_key=last.in_key, out_key=last.out_key)
        check = self._check(last)
        where = self._into_tunnel(last)
        if inventory.plain:
            beyond = next((d for d in inventory.datapaths if last.peer in d.chassis), None)
            where = msgspec.structs.replace(where, next_vfd=beyond.name if beyond else None)
        if last.peer not in case.covered:
            port = inventory.port_by_key(last.datapath, last.out_key)
            if last.peer in case.silent_servers and port is not None:
                cause = silent_gateway(port, last.peer, inventory)
                if cause is not None:
                    return "lost_between", where, cause
            return "evidence_missing", where, None
        if self._went_uncolored(last):
            return "evidence_missing", where, None
        first = self._first(row)
        at_sender = shows_cause_soon(case, first, last, nearest(case, first, last))
        if at_sender is not None and (at_sender.outcome == "drop" or at_sender.lagging):
            cause = find_cause(at_sender, inventory) or no_tunnel(last, check, inventory)
            if cause is not None:
                here = where_of(inventory, last.chassis, _more_exact(cause.place, place))
                return "dropped", here, unreachable(cause, last, check, inventory)
        for inspection in reversed(case.of_flow(row["pair"], last.peer, flow_id(first))):
            cause = find_cause(inspection, inventory)
            if cause is not None and cause.code == "foreign_flow_entry" and _stood_above(inspection):
                return "dropped", where_of(inventory, last.peer, place), cause
            if cause is not None and (cause.code == "vswitch_pipeline_error" or _dropped_unseen(cause, inspection)):
                # Of a packet that it can't translate a switch does nothing at all, our copy included.
                return "dropped", where_of(inventory, last.peer, cause.place if cause.place.datapath else place), cause
        if self._was_disturbed(last.peer, last) or _cut_explains(self._unseen, last.peer):
            return "evidence_missing", where, None
        cause = between(last, check, inventory)
        if cause.code == "physical_loss":
            there = next(reversed(case.of_flow(row["pair"], last.peer, flow_id(first))), None)
            cause = (
                refused_by_sender(last, at_sender, inventory) or refused_by_receiver(last, there, inventory) or cause
            )
        return "lost_between", where, cause

    def _went_uncolored(self, last: LogRecord) -> bool:
        """Whether the color was taken off before its gateway, since a member of that has no entries of ours."""
        port = self._inventory.port_by_key(last.datapath, last.out_key)
        bare = self._case.bare.get(last.epoch, frozenset())
        return port is not None and not bare.isdisjoint({port.chassis, *port.standby} - {last.peer})

    def _stopped(self, row: dict[str, Any], last: LogRecord) -> tuple[str, Where, Cause | None]:
        """No record after one that should have been followed by another here."""
        first = self._first(row)
        inspection = shows_cause_soon(self._case, first, last, nearest(self._case, first, last))
        place = _went_to(last, self._inventory)
        cause = find_cause(inspection, self._inventory) if inspection is not None else None
        if row["disposition"] == Disposition.UNPLANNED and is_stale(self._case, inspection, last):
            return "evidence_missing", where_of(self._inventory, last.chassis, place), None
        # What is too large is diverted where that is checked, before whatever ends a short one further on.
        cause = too_large_for_router(last, inspection, place.datapath, self._inventory) or cause
        if cause is not None:
            return "dropped", where_of(self._inventory, last.chassis, _more_exact(cause.place, place)), cause
        here = where_of(self._inventory, last.chassis, place)
        passed_on = inspection is not None and inspection.outcome in ("output", "tunnel")
        if row["disposition"] == Disposition.UNPLANNED and passed_on and last.out_key < FIRST_MULTICAST_KEY:
            port = self._inventory.port_by_key(last.datapath, last.out_key)
            if port is not None and port.type in _LEADS_ON:
                return "evidence_missing", self._beyond(here, port), None
            if port is not None and port in self._inventory.ends(self._case.pair(row["pair"]).destination):
                # The right port, and its color already off here: it was on the move, or nothing watches beyond.
                return "evidence_missing", here, None
            if self._case.pair(row["pair"]).destination.outside:
                # To a VM of another server, which may pass it on: nobody watches that port.
                vm = port is not None and not port.type
                return "evidence_missing" if vm else "left_domain", here, None
            if port is None and self._was_balanced(row):
                return "evidence_missing", here, None
            wanted = self._inventory.ends(self._case.pair(row["pair"]).destination)
            name = self._case.pair(row["pair"]).destination.name
            if port is not None and port.chassis:
                # It was sent on without its color, to where nobody of the task is: there it comes out.
                here = where_of(self._inventory, port.chassis, place)
            return "dropped", here, astray(port, last, wanted, name, self._inventory)
        if self._was_disturbed(last.chassis, last) or _cut_explains(self._unexplained, last.chassis):
            return "evidence_missing", here, None
        return "dropped", here, lost_on_the_way(self._case, inspection) or _unknown(inspection, self._case)

    def _was_disturbed(self, chassis: str, last: LogRecord) -> bool:
        """Whether our entries on the chassis were taken off about the time of a record, so that none could follow."""
        return any(
            name == chassis and abs(at_ns - last.wall_ns) <= DISTURBED_NS for name, at_ns in self._case.disturbances
        )

    def _beyond(self, here: Where, port: LogicalPort) -> Where:
        """It went on into a datapath that was not armed: what became of it there is not known."""
        beyond = self._inventory.datapath(port.peer_datapath)
        return msgspec.structs.replace(here, next_vfd=beyond.name if beyond else None)


def _cut_explains(unexplained: dict[str, int], chassis: str) -> bool:
    """Whether a copy that a meter cut may be the record that is missing: each explains one."""
    if unexplained[chassis] <= 0:
        return False
    unexplained[chassis] -= 1
    return True


def _more_exact(found: Place, known: Place) -> Place:
    """A place from an inspection, with what the record before it knows: a resumed trace may not say the in port."""
    if found.datapath not in (0, known.datapath):
        return found
    return Place(datapath=known.datapath, in_key=found.in_key or known.in_key, out_key=found.out_key or known.out_key)


def _dropped_unseen(cause: Cause, inspection: Inspection) -> bool:
    """Whether the bridge dropped it for being a fragment, before any entry."""
    return cause.code == "fragment_dropped" and inspection.steps[-1].table == 0


def _stood_above(inspection: Inspection) -> bool:
    """Whether the entry that ended a packet may have taken it before ours of table 0 saw it."""
    last = inspection.steps[-1]
    # Without OVN all entries are somebody else's: only one at our own priority may win over ours.
    return last.table == 0 and (last.object.kind != "operator" or last.priority >= TOP_PRIORITY)


def nearest(case: Case, first: LogRecord, last: LogRecord, *, same_flow: bool = False) -> Inspection | None:
    """The inspection, on the chassis of a packet's last record, that tells most about it.

    Of the packet's own flow that which was made nearest to the record, by that chassis's clock. Where its flow was not
    inspected, one of the same pair and protocol is taken, unless `same_flow`.
    """
    found = case.of_flow(first.pair, last.chassis, flow_id(first))
    if not found and not same_flow:
        proto = f"{first.proto} "
        found = [i for i in case.of_pair(first.pair, last.chassis) if i.flow_id.startswith(proto)]
    return min(found, key=lambda i: abs(i.mono_ns - last.mono_ns)) if found else None


def where_of(inventory: Inventory, chassis: str, place: Place) -> Where:
    """The place in the answer's words; the port is the out port once that was chosen, else the in port."""
    datapath = inventory.datapath(place.datapath)
    port = inventory.port_by_key(place.datapath, place.out_key) if place.out_key else None
    port = port or inventory.port_by_key(place.datapath, place.in_key)
    known = inventory.chassis_named(chassis)
    return Where(
        server=inventory.server(chassis),
        server_ip=known.encap_ips[0] if known and known.encap_ips else None,
        vfd=datapath.name if datapath else None,
        vfd_kind=datapath.kind if datapath else None,
        port=port.name if port else None,
    )


def _went_to(last: LogRecord, inventory: Inventory) -> Place:
    """The logical datapath a packet was in after its last record."""
    if last.point == Point.LOGICAL_EGRESS:
        port = inventory.port_by_key(last.datapath, last.out_key)
        if port is not None and port.peer_datapath:
            peer = inventory.port(port.peer)
            return Place(datapath=port.peer_datapath, in_key=peer.key if peer else 0)
    return Place(datapath=last.datapath, in_key=last.in_key, out_key=last.out_key)


def after_egress(inspection: Inspection, inventory: Inventory) -> Cause | None:
    """What ended a packet that had been handed to its port's entry: only what stands after that counts."""
    if not inspection.steps:
        return None
    cause = find_cause(inspection, inventory)
    if cause is None:
        return None
    if cause.code == "vif_down":
        return cause
    beyond = inspection.steps[-1].table >= inspection.log_to_physical > 0
    return cause if beyond and inspection.outcome == "drop" else None


def _diverted(inspection: Inspection, wanted: Sequence[LogicalPort], inventory: Inventory) -> Cause | None:
    """What sent a packet elsewhere, also by a tunnel, although it had been handed to the right port's entry."""
    if inspection.outcome not in ("output", "tunnel"):
        return None
    names = {port.name for port in wanted}
    right = [str(p.ofport) for p in inspection.ports if p.iface_id in names]
    if not right or not inspection.outputs or set(right) & set(inspection.outputs):
        return None
    cause = find_cause(inspection, inventory)
    return cause if cause is not None and cause.code == "foreign_flow_entry" else None


def _unknown(inspection: Inspection | None, case: Case) -> Cause:
    changes = "; ".join(change.text for change in case.changes)
    meanwhile = f"; while the task ran: {changes}" if changes else ""
    if inspection is None:
        return Cause(
            code="unknown",
            actor="unknown",
            summary=f"it went in and did not come out; the slow path could not be asked why{meanwhile}",
            confidence=CANDIDATE,
        )
    server = case.inventory.server(inspection.chassis)
    return Cause(
        code="unknown",
        actor="unknown",
        summary=f"it went in and did not come out; asked after that, the pipeline of {server} would have passed it "
        f"({inspection.outcome}){meanwhile}",
        confidence=CANDIDATE,
        evidence=(
            Evidence(
                source=trace_command(inspection),
                text=f"ends in: {inspection.outcome} {' '.join(inspection.outputs)}".strip(),
                chassis=server,
                at=rfc3339(inspection.wall_ns),
            ),
        ),
    )
