"""Whether what joins two bridges without OVN is whole at both ends: a tunnel, a wire, a patch."""

from __future__ import annotations

from collections.abc import Mapping

from vtrace.attribute.case import TunnelCheck
from vtrace.collect.link import Survey
from vtrace.model.inventory import Inventory
from vtrace.model.openflow import TunnelPort

_KEYS = (("out_key", "in_key"), ("in_key", "out_key"))


def check_link(inventory: Inventory, surveys: Mapping[str, Survey], sender: str, receiver: str) -> TunnelCheck:
    """The check of one direction; with an empty kind where no link joins the two."""
    towards, back = _end(surveys[sender], receiver), _end(surveys[receiver], sender)
    if towards is None or back is None:
        return TunnelCheck(sender=sender, receiver=receiver)
    wrong = [_port(inventory, surveys[sender], towards), _port(inventory, surveys[receiver], back)]
    kind = towards.kind if towards.kind in ("wire", "patch") else "tunnel"
    if kind == "tunnel":
        wrong.append(_tunnel(inventory, sender, receiver, towards, back))
    return TunnelCheck(
        sender=sender,
        receiver=receiver,
        tunnel=towards.name,
        kind=kind,
        mismatch="; ".join(filter(None, wrong)),
    )


def _end(survey: Survey, peer: str) -> TunnelPort | None:
    return next((link for link in survey.tunnels if link.chassis == peer), None)


def _port(inventory: Inventory, survey: Survey, link: TunnelPort) -> str:
    """What is wrong with one end's port; empty if nothing is."""
    here = f"{link.name} of {inventory.server(survey.chassis)}"
    port = next((p for p in survey.ports if p.name == link.name), None)
    if port is None:
        return f"{here} is not there"
    if port.error or port.ofport <= 0:
        return f"{here} has no port number: {port.error or 'its interface could not be opened'}"
    return "" if port.admin_up else f"{here} is administratively down"


def _tunnel(inventory: Inventory, sender: str, receiver: str, towards: TunnelPort, back: TunnelPort) -> str:
    """What is different at the two ends of a tunnel; empty if nothing is."""
    if towards.kind != back.kind:
        return f"{towards.name} is {towards.kind} and {back.name} is {back.kind}"
    for link, here, there in ((towards, sender, receiver), (back, receiver, sender)):
        peer = inventory.chassis_named(there)
        wanted = peer.encap_ips if peer else ()
        if wanted and link.remote_ip not in (*wanted, "flow"):
            return (
                f"{link.name} of {inventory.server(here)} sends to {link.remote_ip}, and the inventory file says "
                + (f"{inventory.server(there)} is at {', '.join(wanted)}")
            )
    for mine, theirs in _KEYS:
        one, two = _key(towards, mine), _key(back, theirs)
        if "flow" not in (one, two) and one != two:
            return f"{towards.name} has {mine} {one} and {back.name} {theirs} {two}"
    ports = [link.options.get("dst_port", "") for link in (towards, back)]
    return f"their UDP ports are {ports[0]} and {ports[1]}" if ports[0] != ports[1] else ""


def _key(link: TunnelPort, name: str) -> str:
    text = link.options.get(name) or link.options.get("key") or "0"
    return text if text == "flow" or not text.isdecimal() else str(int(text))
