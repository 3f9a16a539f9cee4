"""What one agent is asked to do on one chassis: claims, hooks, and the entries of a task."""

from __future__ import annotations

import msgspec

from vtrace.model.inventory import LogicalDatapath, LogicalPort
from vtrace.model.openflow import BridgeLayout, FlowEntry, OfPort, TunnelPort
from vtrace.model.plain import PlainLayout
from vtrace.model.task import Pair

# What a run that is alone on a bridge asks its meters to let through at once.
FIRST_BURST_PACKETS = 25
COPY_BURST_PACKETS = 50


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of one agent holds on one bridge: its cookie generation, controller id and two meters.

    The rates are how many copies a second the meters let through, the bursts how many at once.
    """

    generation: int
    controller_id: int
    first_meter: int
    copy_meter: int
    first_rate_pps: int
    copy_rate_pps: int
    first_burst: int = FIRST_BURST_PACKETS
    copy_burst: int = COPY_BURST_PACKETS


class ColorUse(msgspec.Struct, frozen=True, kw_only=True):
    """One color in use: the DSCP value `color` stands for packets that carried `original_dscp`."""

    color: int
    epoch: int
    original_dscp: int


class TimeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Hard time-outs in seconds: color < match < restore, so that an abandoned run dies in the right order."""

    color_s: int
    match_s: int
    restore_s: int


class LocalVif(msgspec.Struct, frozen=True, kw_only=True):
    """A logical port that this bridge has: its OpenFlow port, its logical datapath's key and its own.

    A nested port (a container, a trunk's child) shares its parent's interface and has a VLAN tag. `shared` says that
    there are such on the interface.
    """

    ofport: OfPort
    datapath: int
    key: int
    vlan: int = 0
    shared: bool = False

    @property
    def match(self) -> str:
        """Matches what comes in by this logical port, and by no other that shares its interface.

        Without a tag of its own it takes all frames, or where it shares the interface with nested ports the untagged.
        """
        if self.vlan:
            return f"in_port={self.ofport},dl_vlan={self.vlan}"
        return f"in_port={self.ofport}" + (",vlan_tci=0x0000/0x1000" if self.shared else "")


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Where on one chassis a task's entries go.

    `datapaths` are the armed ones, `ports` what the inventory knows of their ports, `armed_chassis` the names
    of all chassis that have agents in this task, `endpoints` the names of the pairs' logical ports. `tunnels` lead
    to armed chassis, `other_tunnels` to such that have ports of the armed datapaths and no agent. `bare` are those of
    which it is known that none of our entries stand there. `plain` is there on a bridge without OVN.
    """

    chassis: str
    layout: BridgeLayout
    datapaths: tuple[LogicalDatapath, ...]
    ports: tuple[LogicalPort, ...]
    vifs: tuple[LocalVif, ...]
    tunnels: tuple[TunnelPort, ...]
    other_tunnels: tuple[TunnelPort, ...] = ()
    armed_chassis: tuple[str, ...]
    bare: tuple[str, ...] = ()
    endpoints: tuple[str, ...]
    ip_versions: tuple[int, ...] = (4,)
    plain: PlainLayout | None = None

    def vif(self, port: LogicalPort) -> LocalVif | None:
        """The bridge's port of a logical port, if it is here."""
        return next((v for v in self.vifs if (v.datapath, v.key) == (port.datapath, port.key)), None)


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy made by an entry means: looked up by the entry's cookie when the copy arrives.

    `point` is a `model.record.Point`, or -1 for copies that are no observation of a colored packet.
    `peer` is the chassis at the tunnel's other end. `ofport` is the port that packets come in by, or without OVN that
    which they leave by. `asked` are the protocols and ports of the pair, which no entry can match in fragments.
    `restores` is true where the entry takes the color off.
    """

    role: int
    point: int = -1
    datapath: int = 0
    in_key: int = 0
    ofport: int = 0
    peer: str = ""
    pair: int = -1
    color: int = -1
    epoch: int = 0
    original_dscp: int = -1
    restores: bool = False
    asked: tuple[tuple[int | None, int | None, int | None], ...] = ()


class PlannedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry to install, and what its copies mean."""

    entry: FlowEntry
    hook: Hook


class FirstHop(msgspec.Struct, frozen=True, kw_only=True):
    """A pair whose first virtual device is on this chassis, with its VIF."""

    pair: Pair
    vif: LocalVif
