"""Compares the tunnel ports of bridges with what the southbound database says they should be."""

from __future__ import annotations

from collections.abc import Mapping

from vtrace.analyzer.plain_links import check_link
from vtrace.attribute.case import TunnelCheck
from vtrace.collect.link import Survey
from vtrace.model.inventory import Chassis, Inventory


def check_tunnels(inventory: Inventory, surveys: Mapping[str, Survey]) -> tuple[TunnelCheck, ...]:
    """One check for each ordered pair of chassis that have agents."""
    check = check_link if inventory.plain else _check
    return tuple(
        check(inventory, surveys, sender, receiver)
        for sender in sorted(surveys)
        for receiver in sorted(surveys)
        if sender != receiver
    )


def _check(inventory: Inventory, surveys: Mapping[str, Survey], sender: str, receiver: str) -> TunnelCheck:
    towards = _end(surveys[sender], receiver, inventory)
    back = _end(surveys[receiver], sender, inventory)
    name = next((t.name for t in surveys[sender].tunnels if t.chassis == receiver), "")
    return TunnelCheck(sender=sender, receiver=receiver, tunnel=name, mismatch="; ".join(filter(None, (towards, back))))


def _end(survey: Survey, peer: str, inventory: Inventory) -> str:
    """What is wrong with a bridge's tunnel towards a peer; empty if nothing is."""
    wanted: Chassis | None = inventory.chassis_named(peer)
    here = inventory.server(survey.chassis)
    tunnel = next((t for t in survey.tunnels if t.chassis == peer), None)
    if wanted is None:
        return ""
    if tunnel is None:
        return f"{here} has no tunnel port towards {wanted.server}"
    if tunnel.remote_ip not in wanted.encap_ips:
        return f"{here} sends to {tunnel.remote_ip}, {wanted.server} is at {', '.join(wanted.encap_ips)}"
    if tunnel.options.get("key", "flow") != "flow":
        return f"{here} uses the tunnel key {tunnel.options['key']}, and OVN sets it by flow"
    if tunnel.kind not in wanted.encap_types:
        return f"{here} uses {tunnel.kind}, {wanted.server} takes {', '.join(wanted.encap_types)}"
    return ""
