"""Looks at the OVN databases of a cloud: reachable, of which version, and which servers have no agent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from vtrace.doctor.finding import Finding, from_error
from vtrace.doctor.judging import RUN_OVN
from vtrace.errors import VTraceError
from vtrace.ovn.ovsdb import Database, Row

# So many rows that read or write the DSCP are shown.
MOST_SHOWN = 5


class CloudRows(msgspec.Struct, kw_only=True):
    """What the databases say. `dscp` are rows that use it, as text."""

    failures: dict[str, VTraceError] = {}
    northd: str = ""
    chassis: dict[str, str] = {}
    dscp: tuple[str, ...] = ()


async def read_cloud(nb: str, sb: str) -> CloudRows:
    """Reads both databases."""
    rows = CloudRows()
    northbound, southbound = Database(nb, "OVN_Northbound"), Database(sb, "OVN_Southbound")
    try:
        found = await southbound.select_many([("SB_Global", (), ("options",)), ("Chassis", (), ("name", "hostname"))])
        rows.northd = next((row["options"].get("northd_internal_version", "") for row in found[0]), "")
        rows.chassis = {row["name"]: row["hostname"] or row["name"] for row in found[1]}
    except VTraceError as error:
        rows.failures = {**rows.failures, "southbound": error}
    try:
        rows.dscp = await _dscp(northbound)
    except VTraceError as error:
        rows.failures = {**rows.failures, "northbound": error}
    finally:
        northbound.close()
        southbound.close()
    return rows


async def _dscp(nb: Database) -> tuple[str, ...]:
    tables = ("ACL", "QoS", "Logical_Router_Policy")
    columns = ("_uuid", "match"), ("_uuid", "match", "action"), ("_uuid", "match")
    found = await nb.select_many([(table, (), names) for table, names in zip(tables, columns, strict=True)])
    return tuple(_shown(table, row) for table, rows in zip(tables, found, strict=True) for row in rows if _uses(row))


def _uses(row: Row) -> bool:
    return "ip.dscp" in row["match"] or "dscp" in row.get("action", {})


def _shown(table: str, row: Row) -> str:
    return f"{table} {row['_uuid'][:8]} ({row['match']})"


def judge_cloud(rows: CloudRows, agents: Sequence[str], controllers: Mapping[str, str]) -> Iterator[Finding]:
    """Findings on the databases.

    Args:
        agents: the chassis that VTrace can work.
        controllers: the version of ovn-controller on each.
    """
    for check, error in rows.failures.items():
        yield from_error(check, "", error)
    if "southbound" not in rows.failures:
        yield from _versions(rows, controllers)
        yield from _chassis(rows, agents)
    if "northbound" not in rows.failures:
        yield from _dscp_users(rows)


def _versions(rows: CloudRows, controllers: Mapping[str, str]) -> Iterator[Finding]:
    release = ".".join(rows.northd.split(".")[:2])
    if release in RUN_OVN:
        yield Finding(level="ok", check="southbound", where="", what=f"reachable; ovn-northd {rows.northd}")
    else:
        yield Finding(
            level="warning", check="southbound", where="", what=f"ovn-northd {rows.northd or 'of unknown version'} was "
            "never run with VTrace", why=f"run were {', '.join(RUN_OVN)}", next_step="Begin with a lab of this version",
        )  # fmt: skip
    different = sorted({v for v in controllers.values() if v and ".".join(v.split(".")[:2]) != release})
    if release and different:
        yield Finding(
            level="note", check="versions", where="", what=f"ovn-controllers of {', '.join(different)} work with "
            f"ovn-northd {release}", why="servers of several releases: each bridge's layout is found by itself",
            next_step="Nothing to do; finish the upgrade",
        )  # fmt: skip


def _chassis(rows: CloudRows, agents: Sequence[str]) -> Iterator[Finding]:
    unknown = [name for name in agents if name not in rows.chassis]
    if unknown:
        yield Finding(
            level="problem", check="chassis", where="",
            what=f"the southbound database has no chassis {', '.join(unknown)}",
            why="the bridge given is of another cloud, or its ovn-controller never registered",
            next_step="Compare `ovs-vsctl get open . external_ids:system-id` with `ovn-sbctl list Chassis`",
        )  # fmt: skip
    missing = [server for name, server in sorted(rows.chassis.items()) if name not in agents]
    if missing:
        shown = ", ".join(missing[:MOST_SHOWN]) + ("…" if len(missing) > MOST_SHOWN else "")
        yield Finding(
            level="warning", check="chassis", where="", what=f"{len(missing)} chassis have no agent: {shown}",
            why="packets that go there are followed up to the tunnel, and are evidence_missing",
            next_step="Run VTrace where all servers of the traffic can be reached",
        )  # fmt: skip
    if not unknown and not missing:
        yield Finding(level="ok", check="chassis", where="", what=f"all {len(rows.chassis)} chassis have an agent")


def _dscp_users(rows: CloudRows) -> Iterator[Finding]:
    if not rows.dscp:
        yield Finding(level="ok", check="dscp", where="", what="no ACL, policy or QoS row uses ip.dscp")
        return
    shown = "; ".join(rows.dscp[:MOST_SHOWN]) + ("…" if len(rows.dscp) > MOST_SHOWN else "")
    yield Finding(
        level="warning", check="dscp", where="", what=f"{len(rows.dscp)} rows read or write ip.dscp: {shown}",
        why="coloring could change what they do: tasks whose way they are on are refused",
        next_step="Leave it at that, or give such a task --allow-dscp after a look at the row",
    )  # fmt: skip
