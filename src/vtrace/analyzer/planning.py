"""Which entries a task puts where: those for OVN's stages, or those for a bridge that somebody wrote by hand."""

from __future__ import annotations

from vtrace.color.entries import doubt_entries, neighbor_entries
from vtrace.match import entries as stages
from vtrace.match import mirror
from vtrace.model.plan import Claim, ColorUse, LocalVif, PlannedEntry, Scope, TimeLimits


def watch_entries(scope: Scope, use: ColorUse, claim: Claim, limits: TimeLimits) -> tuple[PlannedEntry, ...]:
    """What notices that somebody else uses the color."""
    vifs = watched_vifs(scope)
    if scope.plain is None:
        return doubt_entries(vifs, use, scope, claim, limits.match_s)
    return mirror.port_doubt_entries([vif.ofport for vif in vifs], scope, scope.plain, use, claim, limits.match_s)


def watched_vifs(scope: Scope) -> list[LocalVif]:
    """The ports whose packets may reach the armed datapaths.

    Without OVN: all that lead to no armed bridge; where there is no other bridge only those of the pairs.
    """
    keys = {datapath.key for datapath in scope.datapaths}
    vifs = [vif for vif in scope.vifs if vif.datapath in keys]
    if scope.plain is None or scope.tunnels:
        return vifs
    ends = {(port.datapath, port.key) for port in scope.ports if port.name in scope.endpoints}
    return [vif for vif in vifs if (vif.datapath, vif.key) in ends]


def follow_entries(scope: Scope, use: ColorUse, claim: Claim, limits: TimeLimits) -> tuple[PlannedEntry, ...]:
    """What logs colored packets on their way and takes the color off."""
    if scope.plain is None:
        return stages.match_entries(scope, use, claim, limits)
    return mirror.mirror_entries(scope, scope.plain, use, claim, limits)


def request_entries(vif: LocalVif, version: int, scope: Scope, claim: Claim, limits: TimeLimits) -> list[PlannedEntry]:
    """What watches a source's ARP or ND."""
    if scope.plain is None:
        return neighbor_entries(vif, version, scope, claim, limits.color_s)
    return mirror.port_neighbor_entries(vif, version, scope, scope.plain, claim, limits.color_s)
