"""What stands on the bridges of a lab: so that a task can be held to leave all as it found it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vtrace.lab import state as lab_state
from vtrace.lab.programs import run_on

OUR_COOKIE = re.compile(r"cookie=0x5654[0-9a-f]{12},")
MAC_TABLES = re.compile(r"table=(66|67|71|73|74|75|76|77|78|79),")
"""Where ovn-controller itself writes what it learns: MAC bindings, FDB, multicast, their ages."""


@dataclass(frozen=True)
class Standing:
    """All entries, meters and groups of one bridge, without counters."""

    entries: frozenset[str]
    meters: str
    groups: str
    controller_pid: int

    @property
    def ours(self) -> list[str]:
        return [entry for entry in self.entries if OUR_COOKIE.search(entry)]

    def of_others(self) -> frozenset[str]:
        return frozenset(e for e in self.entries if not OUR_COOKIE.search(e) and not MAC_TABLES.search(e))


def standing(lab: str, server: str) -> Standing:
    """What stands on one server."""
    state = lab_state.require(lab)
    script = (
        "ovs-ofctl --no-stats --no-names dump-flows br-int; echo ==; "
        "ovs-ofctl -O OpenFlow13 dump-meters br-int; echo ==; "
        "ovs-ofctl -O OpenFlow13 dump-groups br-int; echo ==; cat $OVN_RUNDIR/ovn-controller.pid"
    )
    entries, meters, groups, pid = run_on(state, server, ["sh", "-c", script]).split("==\n")
    lines = [line.strip() for line in entries.splitlines() if "table=" in line or "actions=" in line]
    meters, groups = (re.sub(r"\(xid=\w+\)", "", text).strip() for text in (meters, groups))
    return Standing(entries=frozenset(lines), meters=meters, groups=groups, controller_pid=int(pid))


def servers(lab: str) -> list[str]:
    return [server.name for server in lab_state.require(lab).servers]


def all_standing(lab: str) -> dict[str, Standing]:
    """What stands on every server."""
    return {server: standing(lab, server) for server in servers(lab)}


def forget_colors(lab: str) -> bool:
    """Has the servers forget which colors were in use lately, and whether their cached flows did so too.

    Then the next task takes the lowest.
    """
    for server in lab_state.require(lab).servers:
        (Path(server.rundir) / "vtrace.br-int.colors").unlink(missing_ok=True)
    return not any(cached_colors(lab, server) for server in servers(lab))


def cached_colors(lab: str, server: str) -> set[str]:
    """The TOS bytes of colors (DSCP pool 2) that a server's cached flows match, as they are printed."""
    cached = run_on(lab_state.require(lab), server, ["ovs-appctl", "dpctl/dump-flows"])
    matched = re.findall(r"ipv[46]\([^)]*(?:tos|tclass)=(0x[0-9a-f]+)/0xfc", cached)
    return {tos for tos in matched if int(tos, 16) >> 2 & 3 == 3}


def complaints(before: dict[str, Standing], after: dict[str, Standing]) -> list[str]:
    """What a task did not leave as it was."""
    found = []
    for server, now in after.items():
        then = before[server]
        found += [f"{server}: ours is left: {entry}" for entry in now.ours]
        found += [f"{server}: gone: {entry}" for entry in sorted(then.of_others() - now.of_others())]
        found += [f"{server}: new: {entry}" for entry in sorted(now.of_others() - then.of_others())]
        if now.meters != then.meters:
            found.append(f"{server}: meters were {then.meters}, are {now.meters}")
        if now.groups != then.groups:
            found.append(f"{server}: groups were {then.groups}, are {now.groups}")
        if now.controller_pid != then.controller_pid:
            found.append(f"{server}: ovn-controller {then.controller_pid} is now {now.controller_pid}")
    return found
