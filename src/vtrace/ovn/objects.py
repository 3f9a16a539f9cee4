"""From a cookie to the OVN object behind it (ovn-architecture(7), ovn-sb(5), ovn-nb(5)).

ovn-controller's cookies are the first 32 bits of a southbound row's uuid. A logical flow's `external_ids` name its
stage and, as `stage-hint`, the first 8 hex digits of the northbound row it was made for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vtrace.color.registry import is_ours
from vtrace.model.inspection import Inspection, ResolvedStep, SiteReport
from vtrace.model.inventory import FIRST_MULTICAST_KEY, Inventory, LogicalDatapath, LogicalPort, OvnObject
from vtrace.model.openflow import BridgeLayout, TraceStep
from vtrace.ovn.databases import OvnDatabases, port_groups
from vtrace.ovn.other_ports import read_port
from vtrace.ovn.ovsdb import Database, Row, as_tuple, uuid_ref
from vtrace.ovn.understood import understood
from vtrace.ovs.trace_packet import last_seen

FOREIGN = OvnObject(kind="foreign")
DEFAULT = OvnObject(kind="default")
# Rows other than logical flows that ovn-controller makes entries for, and the column that names their datapath.
_PHYSICAL_TABLES = (
    ("Port_Binding", "datapath"),
    ("Multicast_Group", "datapath"),
    ("MAC_Binding", "datapath"),
    ("Static_MAC_Binding", "datapath"),
)
_UNSCOPED_TABLES = ("Load_Balancer", "FDB", "ECMP_Nexthop", "Chassis_Template_Var", "Meter", "Encap", "Chassis")
# Tables for large packets, between the ingress pipeline and remote output: two since 23.03.1, none before.
LARGE_PACKET_TABLES = 2
# Not a table of OVN's: Open vSwitch's own hidden entries (TBL_INTERNAL of ofproto-provider.h).
_HIDDEN_TABLE = 254
# Northbound rows that a stage may hint at, by a word of the stage's name.
_HINTED = (
    ("acl", ("ACL",)),
    ("qos", ("QoS",)),
    ("ip_routing", ("Logical_Router_Static_Route", "Logical_Router_Port")),
    ("policy", ("Logical_Router_Policy",)),
    ("lb", ("Load_Balancer",)),
    ("dnat", ("Load_Balancer", "NAT")),
    ("snat", ("NAT",)),
)
_OWNER_COLUMNS = {
    "ACL": (("Logical_Switch", "acls"), ("Port_Group", "acls")),
    "QoS": (("Logical_Switch", "qos_rules"),),
    "Logical_Router_Static_Route": (("Logical_Router", "static_routes"),),
    "Logical_Router_Policy": (("Logical_Router", "policies"),),
    "NAT": (("Logical_Router", "nat"),),
}


class ObjectResolver:
    """Looks cookies up; remembers what it found for as long as the task runs."""

    def __init__(self, databases: OvnDatabases, inventory: Inventory) -> None:
        self.databases = databases
        self._nb: Database = databases.nb
        self._sb: Database = databases.sb
        self._inventory = inventory
        self._known: dict[tuple[int, int, int, str], OvnObject] = {}

    @understood
    async def inspection(self, report: SiteReport, layout: BridgeLayout) -> Inspection:
        """The report with the objects behind its steps; our own entries are left out."""
        steps, elsewhere = [], []
        bridge = report.bridge or (report.trace.steps[0].bridge if report.trace.steps else "")
        for step in report.trace.steps:
            if step.table < 0 or is_ours(step.cookie):
                continue
            # What resumes after conntrack bears the name of the bridge that it once came in by.
            if step.bridge == bridge or step.metadata:
                steps.append(await self._resolved(step, layout))
            else:
                elsewhere.append(_as_it_is(step))
        return Inspection(
            others=await self._others(steps),
            **last_seen(report.trace.text),
            chassis=report.chassis,
            bridge=bridge or "br-int",
            pair=report.pair,
            direction=report.direction,
            wall_ns=report.wall_ns,
            mono_ns=report.mono_ns,
            entry=report.entry,
            flow=report.flow,
            flow_id=report.flow_id,
            ct_next=report.ct_next,
            uncolored=report.uncolored,
            steps=tuple(steps),
            elsewhere=tuple(elsewhere),
            outcome=report.outcome,
            outputs=report.outputs,
            errors=report.trace.errors,
            real_drop=report.real_drop,
            meters=report.meters,
            ports=report.ports,
            exits=report.exits,
            entrances=report.entrances,
            overhead_bytes=report.overhead_bytes,
            refused_fragments=report.refused_fragments,
            lost_upcalls=report.lost_upcalls,
            log_to_physical=layout.log_to_physical,
            text=report.trace.text,
        )

    async def _others(self, steps: Sequence[ResolvedStep]) -> tuple[LogicalPort, ...]:
        """The ports that a packet came to last, as far as the inventory has them not."""
        keys = [(step.datapath, key) for step in steps[-1:] for key in (step.in_key, step.out_key)]
        wanted = [
            (datapath, key)
            for number, key in keys
            if (datapath := self._inventory.datapath(number)) is not None
            and 0 < key < FIRST_MULTICAST_KEY
            and self._inventory.port_by_key(number, key) is None
        ]
        return tuple([port for one in wanted for port in await read_port(self.databases, *one)])

    async def _resolved(self, step: TraceStep, layout: BridgeLayout) -> ResolvedStep:
        return ResolvedStep(
            table=step.table,
            priority=step.priority,
            cookie=step.cookie,
            match=step.match,
            actions=step.actions,
            datapath=step.metadata,
            in_key=step.reg14,
            out_key=step.reg15,
            object=await self._object(step, layout),
        )

    async def _object(self, step: TraceStep, layout: BridgeLayout) -> OvnObject:
        if step.priority < 0:
            return DEFAULT
        if step.cookie == 0:
            return DEFAULT if is_default(step, layout) else FOREIGN
        if step.cookie >> 32:
            return FOREIGN
        identity = (step.cookie, step.table, step.metadata, "")
        if identity not in self._known:
            self._known[identity] = await self._look_up(step, layout)
        return self._known[identity]

    async def _look_up(self, step: TraceStep, layout: BridgeLayout) -> OvnObject:
        prefix = f"{step.cookie:08x}"
        datapath = self._inventory.datapath(step.metadata)
        pipeline, table_id = logical_table(step.table, layout)
        if pipeline and datapath is not None:
            row = await self._logical_flow(prefix, pipeline, table_id, datapath)
            if row is not None:
                return await self._from_logical_flow(row, datapath)
            # The last tables before remote output may be those for large packets, which are physical.
            if pipeline == "egress" or step.table < layout.remote_output - LARGE_PACKET_TABLES:
                return FOREIGN
        # What logical flows learn (LB affinity, ECMP next hops) is beyond log-to-physical and has their cookies.
        learned = step.table > layout.log_to_physical
        return await self._physical(prefix, datapath, any_flow=datapath is None or learned)

    async def _logical_flow(self, prefix: str, pipeline: str, table_id: int, datapath: LogicalDatapath) -> Row | None:
        """The logical flow with this cookie, among those of its table and datapath (or a group with it)."""
        here: list[Any] = [("pipeline", "==", pipeline), ("table_id", "==", table_id)]
        groups = await self._sb.select(
            "Logical_DP_Group", [("datapaths", "includes", uuid_ref(datapath.sb_uuid))], ("_uuid",)
        )
        owners = [("logical_datapath", "==", uuid_ref(datapath.sb_uuid))]
        owners += [("logical_dp_group", "==", uuid_ref(group["_uuid"])) for group in groups]
        results = await self._sb.select_many([("Logical_Flow", [*here, owner], ()) for owner in owners])
        return next((row for rows in results for row in rows if row["_uuid"].startswith(prefix)), None)

    async def _from_logical_flow(self, row: Row, datapath: LogicalDatapath) -> OvnObject:
        stage = row["external_ids"].get("stage-name", "")
        found = OvnObject(
            kind="logical_flow", stage=stage, flow_uuid=row["_uuid"], match=row["match"], actions=row["actions"]
        )
        hint = row["external_ids"].get("stage-hint", "")
        if not hint:
            return found
        for word, tables in _HINTED:
            if word in stage:
                for table in tables:
                    hinted = await self._hinted(table, hint, datapath)
                    if hinted is not None:
                        return _with_row(found, table, *hinted)
        return found

    async def _hinted(self, table: str, hint: str, datapath: LogicalDatapath) -> tuple[Row, str, str] | None:
        """The northbound row a hint names, and what owns it: (row, owner's table, owner's name)."""
        for owner_table, column in _OWNER_COLUMNS.get(table, ()):
            for owner in await self._owners(owner_table, datapath):
                for uuid in as_tuple(owner[column]):
                    if str(uuid).startswith(hint):
                        rows = await self._nb.select(table, [("_uuid", "==", uuid_ref(uuid))])
                        if rows:
                            return rows[0], owner_table, owner["name"]
        if table in ("Load_Balancer", "Logical_Router_Port"):
            names = await self._nb.select(table, (), ("_uuid",))
            for row in names:
                if row["_uuid"].startswith(hint):
                    (found,) = await self._nb.select(table, [("_uuid", "==", uuid_ref(row["_uuid"]))])
                    return found, "", ""
        return None

    async def _owners(self, table: str, datapath: LogicalDatapath) -> Sequence[Row]:
        if table != "Port_Group":
            return await self._nb.select(table, [("_uuid", "==", uuid_ref(datapath.nb_uuid))])
        switch = await self._nb.select("Logical_Switch", [("_uuid", "==", uuid_ref(datapath.nb_uuid))], ("ports",))
        ports = as_tuple(switch[0]["ports"]) if switch else ()
        return await port_groups(self._nb, ports)

    async def _physical(self, prefix: str, datapath: LogicalDatapath | None, *, any_flow: bool) -> OvnObject:
        for table, column in _PHYSICAL_TABLES:
            where = [(column, "==", uuid_ref(datapath.sb_uuid))] if datapath else []
            if await self._has(table, where, prefix):
                return OvnObject(kind="physical", row_table=table)
        for table in _UNSCOPED_TABLES + (("Port_Binding", "Multicast_Group") if datapath else ()):
            if await self._has(table, [], prefix):
                return OvnObject(kind="physical", row_table=table)
        if any_flow and await self._has("Logical_Flow", [], prefix):
            return OvnObject(kind="logical_flow")
        return FOREIGN

    async def _has(self, table: str, where: Sequence[Any], prefix: str) -> bool:
        if not await self._sb.has_table(table):
            return False
        rows = await self._sb.select(table, where, ("_uuid",))
        return any(row["_uuid"].startswith(prefix) for row in rows)


def _as_it_is(step: TraceStep) -> ResolvedStep:
    """A look-up on a bridge that is not OVN's: of the provider network, or the underlay's."""
    return ResolvedStep(
        table=step.table,
        priority=step.priority,
        cookie=step.cookie,
        match=step.match,
        actions=step.actions,
        datapath=0,
        in_key=0,
        out_key=0,
        object=FOREIGN,
        bridge=step.bridge,
    )


def _with_row(found: OvnObject, table: str, row: Row, owner_table: str, owner: str) -> OvnObject:
    columns = {name: _text(value) for name, value in row.items() if not name.startswith("_")}
    if owner:
        columns |= {"owner": owner, "owner_table": owner_table}
    return OvnObject(
        kind=found.kind,
        stage=found.stage,
        flow_uuid=found.flow_uuid,
        match=found.match,
        actions=found.actions,
        row_table=table,
        row_uuid=row["_uuid"],
        row_name=_text(row.get("name", "")),
        row=columns,
    )


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{k}={v}" for k, v in sorted(value.items(), reverse=True))
    return str(value)


def logical_table(table: int, layout: BridgeLayout) -> tuple[str, int]:
    """The pipeline and logical table id of an OpenFlow table; ("", 0) for a physical one."""
    if layout.egress_first <= table < layout.save_inport:
        return "egress", table - layout.egress_first
    first_physical = min(layout.remote_output, layout.local_output, layout.check_loopback)
    if layout.ingress_first <= table < first_physical:
        return "ingress", table - layout.ingress_first
    return "", 0


def is_default(step: TraceStep, layout: BridgeLayout) -> bool:
    """Whether a cookie-0 entry is one of those that ovn-controller itself puts in (physical.c of OVN).

    Everything else with cookie 0 was put in by hand: in logical tables OVN's entries all have a row.
    """
    resubmits = all(a.startswith(("resubmit(", "load:", "set_field:", "move:", "->")) for a in step.actions)
    drops = step.actions in ((), ("drop",))
    terms = step.match.split(",")
    if step.table == 0:
        if step.priority == 0:
            return drops
        # 120, since 24.03: ICMP errors that say "too big" and came in by a tunnel.
        return (
            step.priority in (100, 120)
            and any(term.startswith("in_port=") for term in terms)
            and resubmits
            and any(a.startswith("move:NXM_NX_TUN_ID") for a in step.actions[:1])
        )
    first = min(layout.remote_output, layout.local_output, layout.check_loopback) - 3
    if first <= step.table <= layout.check_loopback:
        if step.priority == 0:
            return drops if step.table == layout.local_output else resubmits
        only_flags = all(term.startswith("reg10=") for term in terms)
        return only_flags and resubmits and step.priority in (10, 150, 110)
    if step.table == layout.save_inport:
        return step.priority == 0 and resubmits
    if step.table == layout.log_to_physical:
        return step.priority == 0 and drops
    if step.table > layout.log_to_physical:
        # Since 24.09 three tables read the original destination of a connection, at priority 100.
        reads_conntrack = bool(step.actions) and all(a.startswith(("move:NXM_NX_CT_", "->")) for a in step.actions)
        return step.priority == 0 or step.table == _HIDDEN_TABLE or (step.priority == 100 and reads_conntrack)
    return False
