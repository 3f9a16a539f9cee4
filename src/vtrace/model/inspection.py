"""What an agent found out on the spot about a packet that came in and did not come out."""

from __future__ import annotations

import msgspec

from vtrace.model.inventory import LogicalPort, OvnObject
from vtrace.model.openflow import Trace


class ResolvedStep(msgspec.Struct, frozen=True, kw_only=True):
    """One look-up of a trace, and what the entry it hit stands for.

    `datapath`, `in_key` and `out_key` are the logical datapath and ports in force there (0: not known). `bridge` is
    given where it is not the one that was asked.
    """

    table: int
    priority: int
    cookie: int
    match: str
    actions: tuple[str, ...]
    datapath: int
    in_key: int
    out_key: int
    object: OvnObject
    bridge: str = ""


class MeterReading(msgspec.Struct, frozen=True, kw_only=True):
    """A meter that packets of the flow pass: its limit, and how much it cut since the task began."""

    meter_id: int
    rate: int
    cut_packets: int


class PortReading(msgspec.Struct, frozen=True, kw_only=True):
    """An interface the flow uses: what it dropped since the task began, and whether it is up.

    `behind` and `cut_off` are a patch's: the ports of the bridge at its other side, and whether none of them is up.
    `mtu` is the longest IP packet that it takes (0: not known); where `segments`, longer ones may go in pieces.
    `queue` is the kernel's queue before the device, which dropped `queue_dropped` and sent `queue_passed`; `limit` the
    QoS that the database of Open vSwitch gives it. Of `rx_packets` that came in `rx_lost` were dropped before they
    were read.
    """

    name: str
    iface_id: str = ""
    behind: tuple[str, ...] = ()
    cut_off: bool = False
    ofport: int
    kind: str
    admin_up: bool
    link_up: bool
    error: str
    tx_dropped: int
    rx_dropped: int
    tx_errors: int
    mtu: int = 0
    segments: bool = False
    tx_packets: int = 0
    queue: str = ""
    queue_dropped: int = 0
    queue_passed: int = 0
    limit: str = ""
    rx_packets: int = 0
    rx_lost: int = 0


class RefusedFragments(msgspec.Struct, frozen=True, kw_only=True):
    """Fragments that the datapath's conntrack did not take since the task began, by why ("too short", "expired", …).

    `family` is "v4" or "v6"; `shortest` the shortest fragment that it takes, but for the last of a packet.
    """

    datapath: str
    family: str
    counts: dict[str, int]
    shortest: int = 0


class CtZone(msgspec.Struct, frozen=True, kw_only=True):
    """A conntrack zone: how many connections it may have (0: any number), and has."""

    zone: int
    limit: int
    count: int


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """The on-site forwarding condition of one flow on one chassis at one time.

    The trace is made with the tenant's own headers, uncolored, so that none of our entries decides it.

    Attributes:
        pair: the pair whose packet it was; -1 for an ARP or ND request.
        entry: how it came in ("in_port=5", with tunnel fields), as given to the trace.
        flow: the flow given to the trace.
        uncolored: it was made of what the datapath caches for packets that were never colored.
        ct_next: the conntrack states given to the trace.
        flow_id: name of the packets' flow (`model.record.flow_id`).
        steps: the trace, our own entries left out.
        elsewhere: look-ups on other bridges, before or behind this one (a provider's, the underlay's).
        outcome: "output", "tunnel", "drop", "controller".
        outputs: OpenFlow ports or tunnel destinations it would be output to.
        errors: translation errors.
        real_drop: True where the datapath flow that the colored packets hit ends in a drop, False where it ends
            in an output, None where no such flow was found any more.
        log_to_physical: the bridge's table for output to ports.
        lagging: why the bridge is known to lag behind the southbound database; empty if it is not.
        dst, next_hop, eth_dst: the addresses that the last look-up saw; empty where not known. `next_hop` is that which
            a router chose.
        ct_zone: the conntrack zone that it was last looked up in; `ct_new` says that it was a new connection there.
        ct_zones: how full zones are that it passed, where that was asked.
        others: ports on its way that the task's inventory does not have.
        controller: what keeps the server's ovn-controller from its work, where that was asked; empty if nothing.
        exits: the devices by which it would leave the server in the end: the underlay's for a tunnel.
        entrances: for what came by a tunnel the underlay's device that leads back to its sender.
        overhead_bytes: what the tunnel that it goes out by adds to its length, 0 where that is not known.
        refused_fragments: of the families of which some were refused; read only where the packet is a fragment.
        lost_upcalls: packets that the datapath lost since the task began, since their upcall failed.
    """

    chassis: str
    bridge: str = "br-int"
    pair: int
    direction: int = 0
    wall_ns: int
    mono_ns: int
    entry: str
    flow: str
    flow_id: str = ""
    ct_next: tuple[str, ...] = ()
    uncolored: bool = False
    steps: tuple[ResolvedStep, ...]
    elsewhere: tuple[ResolvedStep, ...] = ()
    outcome: str
    outputs: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    real_drop: bool | None = None
    meters: tuple[MeterReading, ...] = ()
    ports: tuple[PortReading, ...] = ()
    lagging: str = ""
    controller: str = ""
    others: tuple[LogicalPort, ...] = ()
    dst: str = ""
    next_hop: str = ""
    eth_dst: str = ""
    ct_zone: int = 0
    ct_new: bool = False
    ct_zones: tuple[CtZone, ...] = ()
    log_to_physical: int = 0
    text: str = ""
    exits: tuple[PortReading, ...] = ()
    entrances: tuple[PortReading, ...] = ()
    overhead_bytes: int = 0
    refused_fragments: tuple[RefusedFragments, ...] = ()
    lost_upcalls: int = 0


class SiteReport(msgspec.Struct, frozen=True, kw_only=True):
    """An inspection as the agent makes it: cookies not yet looked up in the OVN databases."""

    chassis: str
    bridge: str = ""
    pair: int
    direction: int = 0
    wall_ns: int
    mono_ns: int
    entry: str
    flow: str
    flow_id: str = ""
    ct_next: tuple[str, ...] = ()
    uncolored: bool = False
    trace: Trace
    outcome: str
    outputs: tuple[str, ...] = ()
    real_drop: bool | None = None
    meters: tuple[MeterReading, ...] = ()
    ports: tuple[PortReading, ...] = ()
    exits: tuple[PortReading, ...] = ()
    entrances: tuple[PortReading, ...] = ()
    overhead_bytes: int = 0
    refused_fragments: tuple[RefusedFragments, ...] = ()
    lost_upcalls: int = 0
