"""A small cloud made by hand, and records, inspections and cases in it.

Two switches (web, db) and a router between them; web1 on hv1, web2 and db1 on hv2, a gateway gw. A chassis's name
("c-hv1") is never its server's ("hv1"), so that a mix-up shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from hypothesis import settings
from msgspec.structs import replace

from vtrace.attribute.case import Case
from vtrace.model.inspection import Inspection, ResolvedStep
from vtrace.model.inventory import Chassis, Inventory, LogicalDatapath, LogicalPort, OvnObject
from vtrace.model.openflow import BridgeLayout, Cookie, GuardBits, InstalledEntry, OfPort, TableId, TunnelPort
from vtrace.model.plan import Claim, ColorUse, LocalVif, Scope
from vtrace.model.record import LogRecord, Point
from vtrace.model.record_schema import from_table, to_table
from vtrace.model.task import Direction, Endpoint, Pair, TrafficFilter
from vtrace.reconstruct.whole import reconstruct

PROPERTY = settings(deadline=None, max_examples=25)

HV1, HV2, GW = "c-hv1", "c-hv2", "c-gw"
WEB, DB, R1 = 1, 2, 3
# Ports' keys: the VMs, and both ends of each patch.
WEB1, WEB2, DB1 = 2, 3, 2
TO_ROUTER, R1_WEB, R1_DB = 1, 1, 2

DATAPATHS = (
    LogicalDatapath(key=WEB, name="web", kind="vswitch", nb_uuid="nb-web", sb_uuid="sb-web", vpc="blue"),
    LogicalDatapath(key=DB, name="db", kind="vswitch", nb_uuid="nb-db", sb_uuid="sb-db", vpc="blue"),
    LogicalDatapath(key=R1, name="r1", kind="vrouter", nb_uuid="nb-r1", sb_uuid="sb-r1", vpc="blue"),
)
PORTS = (
    LogicalPort(
        name="web1",
        key=WEB1,
        datapath=WEB,
        chassis=HV1,
        addresses=("0a:00:00:00:00:01 10.0.1.1",),
        port_security=("0a:00:00:00:00:01 10.0.1.1",),
        nb_uuid="nb-web1",
    ),
    LogicalPort(
        name="web2", key=WEB2, datapath=WEB, chassis=HV2, addresses=("0a:00:00:00:00:02 10.0.1.2",), nb_uuid="nb-web2"
    ),
    LogicalPort(
        name="db1", key=DB1, datapath=DB, chassis=HV2, addresses=("0a:00:00:00:00:03 10.0.2.1",), nb_uuid="nb-db1"
    ),
    LogicalPort(name="web-r1", key=TO_ROUTER, datapath=WEB, type="patch", peer="r1-web", peer_datapath=R1),
    LogicalPort(
        name="r1-web", key=R1_WEB, datapath=R1, type="patch", peer="web-r1", peer_datapath=WEB, nb_uuid="nb-r1-web"
    ),
    LogicalPort(name="r1-db", key=R1_DB, datapath=R1, type="patch", peer="db-r1", peer_datapath=DB, nb_uuid="nb-r1-db"),
    LogicalPort(name="db-r1", key=TO_ROUTER, datapath=DB, type="patch", peer="r1-db", peer_datapath=R1),
)
CHASSIS = (
    Chassis(name=HV1, server="hv1", hostname="hv1", encap_ips=("192.0.2.1",), encap_types=("geneve",)),
    Chassis(name=HV2, server="hv2", hostname="hv2", encap_ips=("192.0.2.2",), encap_types=("geneve",)),
    Chassis(name=GW, server="gw", hostname="gw", encap_ips=("192.0.2.9",), encap_types=("geneve",)),
)
INVENTORY = Inventory(datapaths=DATAPATHS, ports=PORTS, chassis=CHASSIS)

# As on a bridge of OVN 23.03.1 (facts-ovs-ovn.md; lflow.h of that release).
LAYOUT = BridgeLayout(
    ingress_first=TableId(8),
    remote_output=TableId(39),
    local_output=TableId(40),
    check_loopback=TableId(41),
    egress_first=TableId(42),
    save_inport=TableId(64),
    log_to_physical=TableId(65),
    guard=GuardBits(register=10, lsb=26),
)
CLAIM = Claim(
    generation=0xABC, controller_id=0x5ABC, first_meter=500, copy_meter=499, first_rate_pps=1009, copy_rate_pps=3011
)
USE = ColorUse(color=7, epoch=3, original_dscp=10)

_ADDRESSES = {"web1": "10.0.1.1", "web2": "10.0.1.2", "db1": "10.0.2.1"}


def endpoint(name: str, *addresses: str, by_port: bool = False) -> Endpoint:
    found = addresses or (_ADDRESSES[name],)
    return Endpoint(name=name, port=name, address=found[0], addresses=found, by_port=by_port, vpc="blue")


def pair(
    source: str = "web1",
    destination: str = "web2",
    *,
    index: int = 0,
    direction: Direction = Direction.FORWARD,
    traffic: TrafficFilter | None = None,
) -> Pair:
    return Pair(
        index=index,
        direction=direction,
        source=endpoint(source),
        destination=endpoint(destination),
        traffic=traffic or TrafficFilter(),
    )


def without(inventory: Inventory, **changed: LogicalPort) -> Inventory:
    """The inventory with some ports replaced; names are written with an underscore for the hyphen."""
    ports = {name.replace("_", "-"): port for name, port in changed.items()}
    return replace(inventory, ports=tuple(ports.get(p.name, p) for p in inventory.ports))


def port(name: str, **changes: object) -> LogicalPort:
    return replace(next(p for p in PORTS if p.name == name), **changes)


def tunnel(peer: str, ofport: int, kind: str = "geneve", **changes: object) -> TunnelPort:
    remote = next(c for c in CHASSIS if c.name == peer).encap_ips[0]
    made = TunnelPort(name=f"ovn-{peer}", ofport=OfPort(ofport), kind=kind, remote_ip=remote, chassis=peer)
    return replace(made, **changes)


def scope(chassis: str = HV1, **changes: object) -> Scope:
    """The scope of a task from web1 to web2 and db1 on a chassis; all three have agents."""
    vifs = {
        HV1: (LocalVif(ofport=OfPort(5), datapath=WEB, key=WEB1),),
        HV2: (LocalVif(ofport=OfPort(6), datapath=WEB, key=WEB2), LocalVif(ofport=OfPort(7), datapath=DB, key=DB1)),
        GW: (),
    }[chassis]
    others = [name for name in (HV1, HV2, GW) if name != chassis]
    made = Scope(
        chassis=chassis,
        layout=LAYOUT,
        datapaths=DATAPATHS,
        ports=PORTS,
        vifs=vifs,
        tunnels=tuple(tunnel(name, 20 + number) for number, name in enumerate(others)),
        armed_chassis=(GW, HV1, HV2),
        endpoints=("web1", "web2", "db1"),
    )
    return replace(made, **changes)


def installed(
    text: str, *, cookie: int = 0, table: int = 0, priority: int = 100, hard_timeout_s: int = 0
) -> InstalledEntry:
    """An entry from "MATCH actions=ACTIONS"."""
    match, _, actions = text.partition("actions=")
    return InstalledEntry(
        table=TableId(table),
        priority=priority,
        cookie=Cookie(cookie),
        match=match.strip(),
        actions=actions,
        hard_timeout_s=hard_timeout_s,
    )


class Recorder:
    """Writes records as the agents of the chassis do: a sequence number for each chassis, one clock each."""

    def __init__(self, *, color: int = 7, epoch: int = 1, task: str = "t1") -> None:
        self.color, self.epoch, self.task = color, epoch, task
        self.records: list[LogRecord] = []
        self._seq: dict[str, int] = defaultdict(int)

    def write(self, chassis: str, point: Point, datapath: int, key: int, **fields: object) -> LogRecord:
        self._seq[chassis] += 1
        seq = self._seq[chassis]
        made = LogRecord(
            chassis=chassis,
            incarnation=1,
            seq=seq,
            color=self.color,
            epoch=self.epoch,
            key=key,
            task=self.task if point is Point.FIRST_HOP else "",
            point=point,
            datapath=datapath,
            proto=17,
            src="10.0.1.1",
            dst="10.0.1.2",
            mono_ns=seq * 1_000_000,
            wall_ns=1_700_000_000_000_000_000 + seq * 1_000_000,
        )
        made = replace(made, **fields)
        self.records.append(made)
        return made

    def first(self, key: int, number: int = 0, *, chassis: str = HV1, in_key: int = WEB1, in_ofport: int = 5) -> None:
        self.write(chassis, Point.FIRST_HOP, WEB, key, pair=number, in_key=in_key, in_ofport=in_ofport, ttl=64)

    def sent(self, key: int, sender: str = HV1, receiver: str = HV2, datapath: int = WEB, **fields: object) -> None:
        values = {"in_key": WEB1, "out_key": WEB2, "ttl": 64, **fields}
        self.write(sender, Point.REMOTE_OUTPUT, datapath, key, peer=receiver, **values)

    def came(self, key: int, receiver: str = HV2, sender: str = HV1, datapath: int = WEB, **fields: object) -> None:
        self.write(receiver, Point.INGRESS, datapath, key, **{"peer": sender, "in_ofport": 20, "ttl": 64, **fields})

    def passed(self, key: int, chassis: str, datapath: int, in_key: int, out_key: int, ttl: int = 64) -> None:
        self.write(chassis, Point.LOGICAL_EGRESS, datapath, key, in_key=in_key, out_key=out_key, ttl=ttl)

    def out(self, key: int, chassis: str = HV2, datapath: int = WEB, **fields: object) -> None:
        values = {"in_key": WEB1, "out_key": WEB2, "ttl": 64, **fields}
        self.write(chassis, Point.EGRESS, datapath, key, **values)

    def switched(self, key: int, number: int = 0) -> None:
        """web1 on hv1 to web2 on hv2, one switch: four records."""
        self.first(key, number)
        self.sent(key)
        self.came(key)
        self.out(key)

    def routed(self, key: int, number: int = 0) -> None:
        """web1 on hv1 across the router to db1 on hv2: six records."""
        self.first(key, number)
        self.passed(key, HV1, WEB, WEB1, TO_ROUTER)
        self.passed(key, HV1, R1, R1_WEB, R1_DB, 63)
        self.sent(key, datapath=DB, in_key=TO_ROUTER, out_key=DB1, ttl=63)
        self.came(key, datapath=DB, ttl=63)
        self.out(key, datapath=DB, in_key=TO_ROUTER, out_key=DB1, ttl=63)

    def hairpin(self, key: int, number: int = 0) -> None:
        """web1 on hv1, by the gateway's router, to db1 that is on hv1 too: hv1 is visited twice."""
        self.first(key, number)
        self.passed(key, HV1, WEB, WEB1, TO_ROUTER)
        self.sent(key, HV1, GW, R1, in_key=R1_WEB, out_key=9, ttl=63)
        self.came(key, GW, HV1, R1, ttl=63)
        self.passed(key, GW, R1, R1_WEB, R1_DB, 63)
        self.sent(key, GW, HV1, DB, in_key=TO_ROUTER, out_key=DB1, ttl=63)
        self.came(key, HV1, GW, DB, ttl=63)
        self.out(key, HV1, DB, in_key=TO_ROUTER, out_key=DB1, ttl=63)


def logical(
    stage: str, flow_match: str = "1", flow_actions: str = "drop;", /, table: str = "", **row: str
) -> OvnObject:
    """A logical flow's object; `row` are columns of the northbound row behind it."""
    return OvnObject(
        kind="logical_flow",
        stage=stage,
        match=flow_match,
        actions=flow_actions,
        row_table=table,
        row_uuid=f"nb-{table}" if table else "",
        row_name=row.get("name", ""),
        row=row,
    )


PHYSICAL = OvnObject(kind="physical", row_table="Port_Binding")
DEFAULT = OvnObject(kind="default")
FOREIGN = OvnObject(kind="foreign")


def step(
    found: OvnObject,
    actions: Sequence[str] = ("drop",),
    *,
    table: int = 20,
    datapath: int = WEB,
    in_key: int = WEB1,
    out_key: int = 0,
    cookie: int = 0xC0FFEE,
    match: str = "",
    priority: int = 100,
) -> ResolvedStep:
    return ResolvedStep(
        table=table,
        priority=priority,
        cookie=cookie,
        match=match,
        actions=tuple(actions),
        datapath=datapath,
        in_key=in_key,
        out_key=out_key,
        object=found,
    )


def inspection(
    *steps: ResolvedStep, outcome: str = "drop", chassis: str = HV1, number: int = 0, at: int = 1, **fields: object
) -> Inspection:
    """An inspection of a pair's packet, `at` seconds after the start."""
    made = Inspection(
        chassis=chassis,
        pair=number,
        wall_ns=1_700_000_000_000_000_000 + at * 1_000_000_000,
        mono_ns=at * 1_000_000_000,
        entry="in_port=5",
        flow="in_port=5,udp",
        steps=steps,
        outcome=outcome,
        log_to_physical=LAYOUT.log_to_physical,
    )
    return replace(made, **fields)


def case(
    records: Iterable[LogRecord],
    inspections: Iterable[Inspection] = (),
    *,
    pairs: Sequence[Pair] = (),
    inventory: Inventory = INVENTORY,
    covered: tuple[str, ...] = (GW, HV1, HV2),
    **fields: object,
) -> Case:
    """A case from records, reconstructed."""
    found = reconstruct(to_table(records))
    made = Case(
        pairs=tuple(pairs) or (pair(),),
        inventory=inventory,
        reconstruction=found,
        records=tuple(from_table(found.records)),
        inspections=tuple(inspections),
        covered=covered,
    )
    return replace(made, **fields)
