"""The paths packets took, hop by hop, in the answer's words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from vtrace.attribute.case import Case
from vtrace.attribute.endings import Ending
from vtrace.attribute.rewriting import rewrites
from vtrace.model.answer import HopAnswer, PathAnswer, Rewrite
from vtrace.model.inventory import Inventory
from vtrace.model.record import LogRecord, Point

PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}


def paths(case: Case, found: Sequence[Ending]) -> tuple[PathAnswer, ...]:
    """The distinct paths, each with its packets and how they ended; most packets first within a pair."""
    counts: dict[tuple[int, int, str], int] = defaultdict(int)
    for ending in found:
        counts[(ending.pair, ending.path, ending.kind)] += 1
    rows = case.reconstruction.paths.to_pylist()
    packets_table = case.reconstruction.packets
    with_gaps = set(packets_table.filter(packets_table.column("gap")).column("path").to_pylist())
    answers: list[PathAnswer] = []
    seen: dict[tuple[object, ...], int] = {}
    for (index, path, kind), packets in sorted(counts.items(), key=lambda item: (item[0][0], -item[1], item[0])):
        pair = case.pair(index)
        start, end = pair.task_ends
        hops = tuple(hops_of([case.records[number] for number in rows[path]["hops"]], case.inventory))
        way = (
            index,
            kind,
            *((h.server, h.vfd, h.point, h.in_port, h.out_port, *(r.kind for r in h.rewritten)) for h in hops),
        )
        if way in seen:
            # Records differ in more than an answer shows: which chassis was thought to be the tunnel's other end.
            known = answers[seen[way]]
            lacking = known.packets_with_gaps + (packets if path in with_gaps else 0)
            answers[seen[way]] = replace(known, packets=known.packets + packets, packets_with_gaps=lacking)
            continue
        seen[way] = len(answers)
        answers.append(
            PathAnswer(
                packets=packets,
                packets_with_gaps=packets if path in with_gaps else 0,
                disposition=kind,
                hops=hops,
                from_=start,
                to=end,
                direction=pair.direction.word,
            )
        )
    return _filled(answers)


def _filled(answers: Sequence[PathAnswer]) -> tuple[PathAnswer, ...]:
    """The paths, those of which hops are missing added to the whole one that they fit, if there is just one."""
    whole = [path for path in answers if not path.packets_with_gaps]
    found = {id(path): path for path in answers}
    for path in answers:
        fitting = [other for other in whole if path.packets_with_gaps and _fits(path, other)]
        if len(fitting) == 1:
            known = found[id(fitting[0])]
            lacking = known.packets_with_gaps + path.packets_with_gaps
            found[id(fitting[0])] = replace(known, packets=known.packets + path.packets, packets_with_gaps=lacking)
            del found[id(path)]
    order = {id(path): number for number, path in enumerate(answers)}
    pairs = {ends: number for number, ends in reversed(list(enumerate(map(_ends, answers))))}
    left = sorted(found, key=lambda name: (pairs[_ends(found[name])], -found[name].packets, order[name]))
    return tuple(found[name] for name in left)


def _ends(path: PathAnswer) -> tuple[str, str, str]:
    return path.from_, path.to, path.direction


def _fits(path: PathAnswer, whole: PathAnswer) -> bool:
    """Whether a path is another one but for hops that are missing between its ends."""
    if (_ends(path), path.disposition) != (_ends(whole), whole.disposition):
        return False
    hops = iter(map(_place, whole.hops))
    ends = {_place(path.hops[0]), _place(path.hops[-1])} == {_place(whole.hops[0]), _place(whole.hops[-1])}
    return ends and all(_place(hop) in hops for hop in path.hops)


def _place(hop: HopAnswer) -> tuple[object, ...]:
    return hop.server, hop.vfd, hop.point, hop.in_port, hop.out_port, hop.ttl


def hops_of(records: Sequence[LogRecord], inventory: Inventory) -> Iterator[HopAnswer]:
    """The records of one packet as hops; a load balancer that chose a backend on the way is a hop of its own."""
    before: LogRecord | None = None
    for record in records:
        found = rewrites(before, record, inventory) if before is not None else ()
        balanced = [r for r in found if r.object is not None and r.object.type == "Load_Balancer"]
        for rewrite in balanced[:1]:
            yield HopAnswer(
                server=inventory.server(record.chassis),
                vfd=rewrite.object.name if rewrite.object else "",
                vfd_kind="slb",
                point=Point.LOGICAL_EGRESS.word,
                in_port="",
                out_port="",
                five_tuple=five_tuple(record),
                ttl=record.ttl,
                rewritten=tuple(balanced),
            )
        yield hop(record, inventory, tuple(r for r in found if r not in balanced))
        before = record


def hop(record: LogRecord, inventory: Inventory, rewritten: tuple[Rewrite, ...] = ()) -> HopAnswer:
    """One record as a hop."""
    datapath = inventory.datapath(record.datapath)
    return HopAnswer(
        server=inventory.server(record.chassis),
        vfd=datapath.name if datapath else "",
        vfd_kind=datapath.kind if datapath else "",
        point=Point(record.point).word,
        in_port=_in_port(record, inventory),
        out_port=_name(inventory, record.datapath, record.out_key),
        five_tuple=five_tuple(record),
        ttl=record.ttl,
        rewritten=rewritten,
    )


def five_tuple(record: LogRecord) -> dict[str, object]:
    """The inner headers; ICMP has a type and a code instead of ports."""
    proto = PROTOCOLS.get(record.proto, str(record.proto))
    ports: dict[str, object] = {"sport": record.sport, "dport": record.dport}
    if proto in ("icmp", "icmp6"):
        ports = {"sport": None, "dport": None, "icmp_type": record.sport, "icmp_code": record.dport}
    return {"proto": proto, "src": record.src, "dst": record.dst, **ports}


def _in_port(record: LogRecord, inventory: Inventory) -> str:
    if record.point == Point.INGRESS and not inventory.plain:
        return f"tunnel from {inventory.server(record.peer)}"
    return _name(inventory, record.datapath, record.in_key)


def _name(inventory: Inventory, datapath: int, key: int) -> str:
    port = inventory.port_by_key(datapath, key) if key else None
    return port.name if port else ""
