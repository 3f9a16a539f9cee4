"""Match entries: what logs colored packets on their way, and what takes the color off.

In an armed logical datapath every port puts the original DSCP back, unless it is known to lead to another armed
place. So nothing that is missing from the inventory can let a color out of the domain.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from vtrace.color import guard
from vtrace.color.entries import copy_action, ip_match, tunnel_match
from vtrace.color.registry import PRIORITY_MATCH, Role, Stage, cookie
from vtrace.model.inventory import FIRST_MULTICAST_KEY, LogicalDatapath, LogicalPort
from vtrace.model.openflow import Cookie, FlowEntry, TableId, TunnelPort
from vtrace.model.plan import Claim, ColorUse, Hook, PlannedEntry, Scope, TimeLimits
from vtrace.model.record import Point

PRIORITY_ANY_PORT = 65534


class _Numbers:
    """Numbers the entries of one color, so that each has a cookie of its own."""

    def __init__(self, claim: Claim, use: ColorUse) -> None:
        self._claim = claim
        self._use = use
        self._next = 0

    def cookie(self, role: Role) -> Cookie:
        self._next += 1
        return cookie(role, self._claim.generation, color=self._use.color, index=self._next)


def match_entries(scope: Scope, use: ColorUse, claim: Claim, limits: TimeLimits) -> tuple[PlannedEntry, ...]:
    """All entries of one color on one chassis, those that restore first."""
    return _Planner(scope, use, claim, limits).all_entries()


def leads_on(port: LogicalPort, scope: Scope) -> bool:
    """Whether the port is a patch into another armed logical datapath."""
    armed = {d.key for d in scope.datapaths}
    return port.peer_datapath in armed and port.type in ("patch", "l3gateway")


def remote_chassis(port: LogicalPort, scope: Scope) -> str:
    """The chassis that a packet for this port goes to by a tunnel; empty where it stays here."""
    if port.chassis in ("", scope.chassis):
        return ""
    is_vif = port.type == "" and port.name in scope.endpoints
    return port.chassis if is_vif or port.type in ("chassisredirect", "l3gateway") else ""


class _Planner:
    def __init__(self, scope: Scope, use: ColorUse, claim: Claim, limits: TimeLimits) -> None:
        self._scope = scope
        self._use = use
        self._claim = claim
        self._limits = limits
        self._numbers = _Numbers(claim, use)
        self._copy = copy_action(claim, claim.copy_meter)
        self._restore = f"load:0x{use.original_dscp:x}->NXM_OF_IP_TOS[2..7]"

    def all_entries(self) -> tuple[PlannedEntry, ...]:
        restore: list[PlannedEntry] = []
        match: list[PlannedEntry] = []
        for version in self._scope.ip_versions:
            ip = ip_match(version)
            for datapath in self._scope.datapaths:
                restore.extend(self._any_port(datapath, ip))
                for port in self._scope.ports:
                    if port.datapath == datapath.key:
                        match.extend(self._known_port(port, ip))
                if any(p.datapath == datapath.key and p.type == "localnet" for p in self._scope.ports):
                    match.append(self._group(datapath, ip))
                elif (
                    datapath.kind == "vswitch"
                    and datapath.chassis
                    and set(datapath.chassis) <= set(self._scope.armed_chassis)
                ):
                    match.append(self._group(datapath, ip, self._copy))
                match.extend(self._ingress(tunnel, datapath, ip) for tunnel in self._scope.tunnels)
        found = (*restore, *match)
        return tuple(sorted(found, key=lambda planned: not planned.hook.restores))

    def _any_port(self, datapath: LogicalDatapath, ip: str) -> Iterator[PlannedEntry]:
        """The entries for whatever port the packet leaves by: log, and restore."""
        layout = self._scope.layout
        here = f"{ip},metadata=0x{datapath.key:x},nw_tos={self._use.color << 2}"
        yield self._entry(
            Role.RESTORE,
            layout.remote_output,
            f"{here},{guard.match_before_remote_output(layout.guard)}",
            self._second_look(Stage.REMOTE_OUTPUT, layout.remote_output, self._copy, self._restore),
            Hook(role=Role.RESTORE, point=Point.REMOTE_OUTPUT, datapath=datapath.key, restores=True),
            priority=PRIORITY_ANY_PORT,
        )
        for guard_match in guard.matches_before_log_to_physical(layout.guard):
            yield self._entry(
                Role.RESTORE,
                layout.log_to_physical,
                f"{here},{guard_match}",
                self._second_look(Stage.LOG_TO_PHYSICAL, layout.log_to_physical, self._copy, self._restore),
                Hook(role=Role.RESTORE, point=Point.EGRESS, datapath=datapath.key, restores=True),
                priority=PRIORITY_ANY_PORT,
            )

    def _known_port(self, port: LogicalPort, ip: str) -> Iterator[PlannedEntry]:
        """The entries for a port that leads on, or whose color is taken off later: log, and keep the color."""
        layout = self._scope.layout
        here = f"{ip},metadata=0x{port.datapath:x},reg15=0x{port.key:x},nw_tos={self._use.color << 2}"
        peer = remote_chassis(port, self._scope)
        here_too = port.type == "chassisredirect" or port.name in self._scope.endpoints
        stays = not peer and (
            leads_on(port, self._scope) or port.type == "localnet" or (here_too and port.chassis == self._scope.chassis)
        )
        if peer or stays:
            actions: tuple[str, ...] = (self._copy,) if peer else ()
            # Where no agent would take the color off it is taken off here. Open vSwitch itself changes over to another
            # member of a gateway's group, before anybody hears of it.
            leaves = bool(peer) and (
                peer not in self._scope.armed_chassis or not set(port.standby).isdisjoint(self._scope.bare)
            )
            actions += (self._restore,) if leaves else ()
            yield self._entry(
                Role.RESTORE if leaves else Role.MATCH,
                layout.remote_output,
                f"{here},{guard.match_before_remote_output(layout.guard)}",
                self._second_look(Stage.REMOTE_OUTPUT, layout.remote_output, *actions),
                Hook(role=Role.MATCH, point=Point.REMOTE_OUTPUT, datapath=port.datapath, peer=peer, restores=leaves),
            )
        if leads_on(port, self._scope):
            for guard_match in guard.matches_before_log_to_physical(layout.guard):
                yield self._entry(
                    Role.MATCH,
                    layout.log_to_physical,
                    f"{here},{guard_match}",
                    self._second_look(Stage.LOG_TO_PHYSICAL, layout.log_to_physical, self._copy),
                    Hook(role=Role.MATCH, point=Point.LOGICAL_EGRESS, datapath=port.datapath),
                )

    def _group(self, datapath: LogicalDatapath, ip: str, *copy: str) -> PlannedEntry:
        """A multicast group of a switch with a physical network: what is flooded, or for an address unknown here.

        OVN sends such a switch's groups by no tunnel (controller/physical.c, consider_mc_group), so that each member
        is a port of this chassis, and its own entry takes the color off.
        """
        layout = self._scope.layout
        groups = f"reg15=0x{FIRST_MULTICAST_KEY:x}/0x{FIRST_MULTICAST_KEY:x}"
        return self._entry(
            Role.MATCH,
            layout.remote_output,
            f"{ip},metadata=0x{datapath.key:x},{groups},nw_tos={self._use.color << 2},"
            f"{guard.match_before_remote_output(layout.guard)}",
            self._second_look(Stage.REMOTE_OUTPUT, layout.remote_output, *copy),
            Hook(role=Role.MATCH, point=Point.REMOTE_OUTPUT, datapath=datapath.key),
        )

    def _ingress(self, tunnel: TunnelPort, datapath: LogicalDatapath, ip: str) -> PlannedEntry:
        """What comes in by a tunnel for the datapath."""
        bits = self._scope.layout.guard
        return self._entry(
            Role.MATCH,
            TableId(0),
            f"{tunnel_match(tunnel, datapath)},{ip},nw_tos={self._use.color << 2},{guard.match_none(bits)}",
            f"{guard.load(bits, Stage.TABLE_0)},{self._copy},resubmit(,0)",
            Hook(role=Role.MATCH, point=Point.INGRESS, datapath=datapath.key, peer=tunnel.chassis),
        )

    def _second_look(self, stage: Stage, table: int, *between: str) -> str:
        """Note the stage, do what is to be done, look the packet up again; in a clone, so that a multicast
        group's other copies are not touched."""
        inner = ",".join((guard.load(self._scope.layout.guard, stage), *between, f"resubmit(,{table})"))
        return f"clone({inner})"

    def _entry(
        self, role: Role, table: TableId, match: str, actions: str, hook: Hook, priority: int = PRIORITY_MATCH
    ) -> PlannedEntry:
        limit = self._limits.restore_s if role is Role.RESTORE else self._limits.match_s
        use = self._use
        return PlannedEntry(
            entry=FlowEntry(
                table=table,
                priority=priority,
                cookie=self._numbers.cookie(role),
                match=match,
                actions=actions,
                hard_timeout_s=limit,
            ),
            hook=replace(hook, color=use.color, epoch=use.epoch, original_dscp=use.original_dscp),
        )
