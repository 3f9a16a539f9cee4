"""OpenFlow entries and the layout of an integration bridge, as every stage speaks of them."""

from __future__ import annotations

from typing import NewType

import msgspec

TableId = NewType("TableId", int)
Cookie = NewType("Cookie", int)
OfPort = NewType("OfPort", int)


class FlowEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An OpenFlow entry to install, in the text syntax of ovs-ofctl(8) and ovs-actions(7).

    `match` and `actions` hold no table, priority, cookie or time-out: those are fields here.
    """

    table: TableId
    priority: int
    cookie: Cookie
    match: str
    actions: str
    hard_timeout_s: int

    def text(self) -> str:
        """The entry as one line of an `ovs-ofctl add-flows` file."""
        match = f",{self.match}" if self.match else ""
        return (
            f"table={self.table},priority={self.priority},cookie=0x{self.cookie:x},"
            f"hard_timeout={self.hard_timeout_s}{match},actions={self.actions}"
        )


class InstalledEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An OpenFlow entry as the bridge reports it.

    `match` is the canonical text of `ovs-ofctl dump-flows` without table, priority and counters. `idle_s` is the time
    since a packet hit it or, if none did, since it was added, in whole seconds.
    """

    table: TableId
    priority: int
    cookie: Cookie
    match: str
    actions: str
    n_packets: int = 0
    n_bytes: int = 0
    duration_s: float = 0.0
    idle_s: int = 0
    hard_timeout_s: int = 0

    def identity(self) -> tuple[int, int, int, str, str]:
        """What makes the entry itself: counters and ages left aside."""
        return (self.table, self.priority, self.cookie, self.match, self.actions)


class GuardBits(msgspec.Struct, frozen=True, kw_only=True):
    """Two neighboring bits of a register that nobody else on the bridge matches or sets; `lsb` is the lower one."""

    register: int
    lsb: int


class BridgeLayout(msgspec.Struct, frozen=True, kw_only=True):
    """Where OVN put its stages on this bridge, found from its entries (never assumed).

    `guard` stands in reg10, which OVN clears where a packet crosses into the next logical datapath. A bridge without
    OVN has none of the stages (0), and its guard in any register.
    """

    ingress_first: TableId = TableId(0)
    remote_output: TableId = TableId(0)
    local_output: TableId = TableId(0)
    check_loopback: TableId = TableId(0)
    egress_first: TableId = TableId(0)
    save_inport: TableId = TableId(0)
    log_to_physical: TableId = TableId(0)
    guard: GuardBits


class TunnelPort(msgspec.Struct, frozen=True, kw_only=True):
    """A tunnel interface of the bridge. `chassis` is the peer's chassis name, empty if it has none."""

    name: str
    ofport: OfPort
    kind: str
    remote_ip: str
    chassis: str = ""
    options: dict[str, str] = {}


class BridgePort(msgspec.Struct, frozen=True, kw_only=True):
    """An interface of the bridge. `iface_id` is `external_ids:iface-id`, empty if it has none.

    `behind` names the ports of the bridge at the other side of a patch: the datapath knows those, not the patch.
    `cut_off` says that all network cards there are down. `mtu` is the longest IP packet that it takes, 0 where that is
    not known, and `limit` the QoS that the database gives it, as text.
    """

    name: str
    ofport: OfPort
    kind: str = ""
    behind: tuple[str, ...] = ()
    cut_off: bool = False
    iface_id: str = ""
    admin_up: bool = True
    link_up: bool = True
    error: str = ""
    mtu: int = 0
    limit: str = ""
    statistics: dict[str, int] = {}


class MeterStat(msgspec.Struct, frozen=True, kw_only=True):
    """One meter: its single band's rate (packets/s) and burst (packets), and what it counted."""

    meter_id: int
    rate_pps: int = 0
    burst_packets: int = 0
    packets_in: int = 0
    band_packets: int = 0
    in_use_by: int = 0


class TraceStep(msgspec.Struct, frozen=True, kw_only=True):
    """One table look-up of an `ofproto/trace`.

    `table` is -1 where the trace names no table (a group bucket, a port without a table). `priority` is -1
    for a miss. `metadata` is the OVN logical datapath key in force when the look-up was made (0: not set yet).
    `registers` holds reg14 and reg15 as far as the trace let them be known.
    """

    depth: int
    bridge: str
    table: int
    match: str
    priority: int
    cookie: Cookie
    actions: tuple[str, ...]
    metadata: int = 0
    reg14: int = 0
    reg15: int = 0


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed `ofproto/trace`, over all its recirculations.

    Args:
        steps: the look-ups, in order.
        datapath_actions: one string for each pass (first pass and each recirculation), in order.
        errors: translation errors and notes that ended the packet ("native tunnel routing failed", …).
        text: the raw text, for the evidence.
    """

    steps: tuple[TraceStep, ...]
    datapath_actions: tuple[str, ...]
    errors: tuple[str, ...] = ()
    text: str = ""


class DatapathFlow(msgspec.Struct, frozen=True, kw_only=True):
    """One cached flow of the datapath.

    `key` and `actions` are the text of `dpctl/dump-flows`; the other fields are read from them.
    `tos` is the IP TOS byte or IPv6 traffic class the flow matches and `tos_mask` its mask (0: any).
    `ct_state` is the set of flags that the flow requires to be set ("trk", "est", …). `unused_s` is for how long no
    packet has hit it, None where none ever did but the one that it was made for.
    """

    ufid: str
    key: str
    actions: str
    packets: int
    recirc_id: int
    in_port: str
    tos: int
    tos_mask: int
    ct_state: tuple[str, ...]
    ct_state_unset: tuple[str, ...] = ()
    unused_s: float | None = None


class PacketIn(msgspec.Struct, frozen=True, kw_only=True):
    """An NXT_PACKET_IN2 message (nicira-ext.h), decoded.

    `packet` is the whole packet: Open vSwitch pays no attention to the `max_len` of a controller action since
    2.7 (ovs-actions(7)); should it be truncated, `length_bytes` is the full length.
    `registers` maps register number (0 to 15) to value, only for registers that were sent.
    """

    cookie: Cookie
    table: TableId
    packet: bytes
    length_bytes: int
    userdata: bytes = b""
    in_port: OfPort = OfPort(0)
    metadata: int = 0
    registers: dict[int, int] = {}
    tunnel_id: int = 0
    tunnel_src: str = ""
    tunnel_dst: str = ""
    ct_state: int = 0
    ct_zone: int = 0
    ct_mark: int = 0
    pkt_mark: int = 0
