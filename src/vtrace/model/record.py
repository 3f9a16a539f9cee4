"""The log record: what one observation point saw of one colored packet.

`LogRecord` is the one place where the columns of a record stand; `record_schema` makes the Arrow schema of it.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

import msgspec


class Point(IntEnum):
    """Observation points, in the order in which one logical datapath of one chassis passes them."""

    FIRST_HOP = 0
    INGRESS = 1
    REMOTE_OUTPUT = 2
    LOGICAL_EGRESS = 3
    EGRESS = 4

    @property
    def word(self) -> str:
        return self.name.lower()


class LogRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One observation of one colored packet.

    Attributes:
        region: availability zone of the chassis.
        chassis: chassis name (SB Chassis.name).
        incarnation: a number drawn when the agent started; `seq` begins again with each.
        seq: sequence number in its log stream (chassis, incarnation, color, epoch), from 1, without holes.
        color: DSCP value that marks the packet; epoch: which use of that color.
        key: packet key, 64 bits, the same at every hop; as a signed integer.
        pair: number of the pair and direction in the task, -1 except at the first hop.
        task: task id, empty except at the first hop.
        point: a `Point`.
        datapath: tunnel key of the logical datapath; at table 0 of a tunnel that of the tunnel header.
        in_key, out_key: tunnel keys of the logical in and out port; 0 where not known.
        in_ofport: OpenFlow port of the bridge the packet came in by.
        peer: chassis at the other end of the tunnel, where the packet came from or goes to; else empty.
        tunnel_id, tunnel_src, tunnel_dst: tunnel header, where it came in by one.
        eth_src, eth_dst: 48-bit addresses.
        proto, src, dst, sport, dport: inner headers; for ICMP sport is the type and dport the code.
        ttl, dscp (the original one), ecn, ip_id, fragment (1: more or later fragment), length_bytes (IP packet).
        tcp_flags: TCP flag bits.
        ct_state: OVS conntrack state bits (ovs-fields(7)), 0 where not tracked; ct_zone its zone.
        wall_ns, mono_ns: the agent's two clocks when it read the copy.
    """

    region: str = ""
    chassis: str
    incarnation: int
    seq: int
    color: int
    epoch: int
    key: int
    pair: int = -1
    task: str = ""
    point: int
    datapath: int
    in_key: int = 0
    out_key: int = 0
    in_ofport: int = 0
    peer: str = ""
    tunnel_id: int = 0
    tunnel_src: str = ""
    tunnel_dst: str = ""
    eth_src: int = 0
    eth_dst: int = 0
    proto: int
    src: str
    dst: str
    sport: int = 0
    dport: int = 0
    ttl: int = 0
    dscp: int = 0
    ecn: int = 0
    ip_id: int = 0
    fragment: int = 0
    vlan: int = -1
    length_bytes: int = 0
    tcp_flags: int = 0
    ct_state: int = 0
    ct_zone: int = 0
    wall_ns: int = 0
    mono_ns: int = 0


class StreamEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How many records an agent has written of one color and epoch: more than those at hand were lost on the way.

    The four names are those of a *log stream*, whose records are numbered by `seq` from 1.
    """

    chassis: str
    incarnation: int
    color: int
    epoch: int
    written: int


class EvidenceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a chassis said on the spot about a flow that came in: it travels with the records that it explains.

    Attributes:
        task, pair, chassis: whose packets were asked about, and where; flow: `flow_id` of them, empty for any.
        wall_ns, mono_ns: that chassis's clocks at the time.
        outcome: how the slow path ended: "drop", "output", "tunnel", "controller" …
        code: reason code of what it shows, empty where it shows none; actor, summary, fix: of the same.
        object_type, object_uuid, object_name: what the reason names, empty where it names nothing.
        datapath, in_key, out_key: where the packet was then, by tunnel keys; 0 where not known.
    """

    task: str
    pair: int
    chassis: str
    flow: str = ""
    wall_ns: int
    mono_ns: int
    outcome: str
    code: str = ""
    actor: str = ""
    summary: str = ""
    fix: str = ""
    object_type: str = ""
    object_uuid: str = ""
    object_name: str = ""
    datapath: int = 0
    in_key: int = 0
    out_key: int = 0


# FIN, SYN and RST: what conntrack and stateful rules treat differently.
_STATE_FLAGS = 0x07


def flow_id(first_hop: LogRecord) -> str:
    """Names the flow of a packet, by its first-hop record: packets with one name meet the same fate in a pipeline."""
    r = first_hop
    flags = r.tcp_flags & _STATE_FLAGS
    return f"{r.proto} {r.src} {r.sport} {r.dst} {r.dport} ttl={r.ttl} dscp={r.dscp} frag={r.fragment} flags={flags}"


class Disposition(StrEnum):
    """How a packet's records end. What it means (delivered, dropped, …) is for `attribute` to say."""

    EGRESS = "egress"
    """handed to a port's entry, color taken off"""
    SENT = "sent"
    """sent to another chassis, and no record from there"""
    STOPPED = "stopped"
    """no record after one that should have been followed by another on the same chassis"""
    UNPLANNED = "unplanned"
    """left by a port that leads to no armed place; the color was taken off"""
