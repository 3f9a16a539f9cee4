"""Compares the tunnel ports of bridges with what the southbound database says they should be."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import anyio
from msgspec.structs import replace

from vtrace.analyzer.plain_links import check_link
from vtrace.attribute.case import TunnelCheck
from vtrace.collect.link import AgentLink, Survey
from vtrace.errors import VTraceError
from vtrace.model.inventory import Chassis, Inventory
from vtrace.model.openflow import TunnelPort

READ_S = 2.0
# Where no option says another one (ovs-vswitchd.conf.db(5), Interface, options:dst_port).
_UDP_PORTS = {"geneve": "6081", "vxlan": "4789", "stt": "7471"}


def check_tunnels(inventory: Inventory, surveys: Mapping[str, Survey]) -> tuple[TunnelCheck, ...]:
    """One check for each ordered pair of chassis that have agents."""
    check = check_link if inventory.plain else _check
    return tuple(
        check(inventory, surveys, sender, receiver)
        for sender in sorted(surveys)
        for receiver in sorted(surveys)
        if sender != receiver
    )


async def check_now(
    inventory: Inventory, surveys: Mapping[str, Survey], agents: Mapping[str, AgentLink]
) -> tuple[TunnelCheck, ...]:
    """The checks at the end of a task; where nothing is wrong any more what was wrong at its beginning."""
    before = check_tunnels(inventory, surveys)
    if inventory.plain:
        return before
    fresh = dict(surveys)
    for name, agent in agents.items():
        if name in fresh:
            with contextlib.suppress(VTraceError), anyio.move_on_after(READ_S):
                fresh[name] = replace(fresh[name], tunnels=await agent.tunnels())
    return tuple(
        now if now.mismatch else then for then, now in zip(before, check_tunnels(inventory, fresh), strict=True)
    )


def _check(inventory: Inventory, surveys: Mapping[str, Survey], sender: str, receiver: str) -> TunnelCheck:
    towards = _end(surveys[sender], receiver, inventory)
    back = _end(surveys[receiver], sender, inventory)
    tunnel, other = _tunnel(surveys[sender], receiver), _tunnel(surveys[receiver], sender)
    # An end has to be as the row of the server says that it leads to.
    unheeded = inventory.chassis_named(receiver if towards else sender) if towards or back else None
    return TunnelCheck(
        sender=sender,
        receiver=receiver,
        tunnel=tunnel.name if tunnel else "",
        mismatch="; ".join(filter(None, (towards, back))),
        remote_ip=tunnel.remote_ip if tunnel else "",
        tunnel_back=other.name if other else "",
        encap=unheeded.encap_uuid if unheeded else "",
    )


def _tunnel(survey: Survey, peer: str) -> TunnelPort | None:
    return next((t for t in survey.tunnels if t.chassis == peer), None)


def _end(survey: Survey, peer: str, inventory: Inventory) -> str:
    """What is wrong with a bridge's tunnel towards a peer; empty if nothing is."""
    wanted: Chassis | None = inventory.chassis_named(peer)
    own = inventory.chassis_named(survey.chassis)
    here = inventory.server(survey.chassis)
    tunnel = _tunnel(survey, peer)
    if wanted is None:
        return ""
    if tunnel is None:
        kinds = [", ".join(c.encap_types) for c in (own, wanted) if c is not None]
        apart = own is not None and not set(own.encap_types) & set(wanted.encap_types)
        why = f" ({here} takes {kinds[0]}, {wanted.server} {kinds[-1]})" if apart else ""
        return f"{here} has no tunnel port towards {wanted.server}{why}"
    options = tunnel.options
    if tunnel.remote_ip not in wanted.encap_ips:
        return f"{here} sends to {tunnel.remote_ip}, {wanted.server} is at {', '.join(wanted.encap_ips)}"
    if options.get("key", "flow") != "flow":
        return f"{here} uses the tunnel key {options['key']}, and OVN sets it by flow"
    if tunnel.kind not in wanted.encap_types:
        return f"{here} uses {tunnel.kind}, {wanted.server} takes {', '.join(wanted.encap_types)}"
    port = _UDP_PORTS.get(tunnel.kind, "")
    used, right = options.get("dst_port") or port, wanted.encap_port or port
    if used != right:
        return f"{here} uses the UDP port {used}, {wanted.server} takes {right}"
    local = options.get("local_ip", "")
    if local and own is not None and own.encap_ips and local not in own.encap_ips:
        return f"{here} sends from {local}, and is at {', '.join(own.encap_ips)}"
    return ""
