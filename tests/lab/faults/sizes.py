"""Devices whose MTU is too small for the traffic."""

from __future__ import annotations

from faults.catalogue import ANYWHERE, REMOTE, Entry, at_destination
from faults.facts import Facts
from faults.model import Do, Expect, Fault, Pair

USUAL = 1500
"""The MTU of the lab's devices."""
TOO_SMALL_FOR_TUNNELS = 100
"""Below the shortest packet of any connection with the tunnel's headers."""
TOO_SMALL_FOR_DATA = 80
"""Below the packets of `lab traffic`, above those of ARP and neighbor discovery."""
LARGE_ENOUGH = 400


def _mtu(node: str, device: str, size: int) -> Do:
    return Do(node, ("ip", "link", "set", device, "mtu", str(size)))


def _between(pair: Pair, name: str, server: str, device: str) -> Fault:
    expect = Expect(
        "lost_between",
        pair.source_server,
        pair.destination_switch,
        code="mtu_exceeded",
        next_server=pair.destination_server,
        object_type="Interface",
        object_words=(device,),
    )
    heal = (_mtu(server, device, USUAL),)
    return Fault(
        name=name,
        inject=(_mtu(server, device, TOO_SMALL_FOR_TUNNELS),),
        heal=heal,
        expect=expect,
        near=(_mtu(server, device, LARGE_ENOUGH),),
        near_heal=heal,
        decoy=False,
    )


def sender_mtu(pair: Pair, facts: Facts) -> Fault:
    """The device by which the sender's server sends to the receiver's; the near-miss: it carries the traffic."""
    return _between(pair, "sender_mtu", pair.source_server, f"to-{pair.destination_server}")


def receiver_mtu(pair: Pair, facts: Facts) -> Fault:
    """The device by which the receiver's server gets what the sender's sends."""
    return _between(pair, "receiver_mtu", pair.destination_server, f"to-{pair.source_server}")


def vif_mtu(pair: Pair, facts: Facts) -> Fault:
    """The server's end of the receiver's interface."""
    server, device = pair.destination_server, pair.destination
    heal = (_mtu(server, device, USUAL),)
    return Fault(
        name="vif_mtu",
        inject=(_mtu(server, device, TOO_SMALL_FOR_DATA),),
        heal=heal,
        expect=at_destination(pair, "mtu_exceeded", object_type="Interface", object_words=(device,)),
        near=(_mtu(server, device, LARGE_ENOUGH),),
        near_heal=heal,
        decoy=False,
    )


SIZES: tuple[Entry, ...] = (
    Entry("sender_mtu", sender_mtu, REMOTE),
    Entry("receiver_mtu", receiver_mtu, REMOTE),
    Entry("vif_mtu", vif_mtu, ANYWHERE, protos=("udp", "icmp")),
)
