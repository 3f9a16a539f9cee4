"""The seam between agents and the analyzer: what an agent says, and what can be asked of it.

An agent may run in the analyzer's process or at the other end of a byte pipe; the analyzer can't tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream

from vtrace.errors import CannotWorkError
from vtrace.model.inspection import CtZone, SiteReport
from vtrace.model.openflow import BridgeLayout, BridgePort, TunnelPort
from vtrace.model.plain import PlainLayout
from vtrace.model.plan import Claim, LocalVif, PlannedEntry
from vtrace.model.record import LogRecord, StreamEnd


class ProbeSeen(msgspec.Struct, frozen=True, kw_only=True):
    """An uncolored packet of a pair that has no color for its DSCP yet."""

    pair: int
    dscp: int
    chassis: str


class NeighborSeen(msgspec.Struct, frozen=True, kw_only=True):
    """An ARP or ND request that came in by a watched VIF (operation 1), or an answer that went out (operation 2).

    `datapath` and `key` are the VIF's.
    """

    datapath: int
    key: int
    operation: int
    sender_ip: str
    target_ip: str
    eth_src: int
    chassis: str
    mono_ns: int


class DoubtSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A packet that came in with a color that we had not given it."""

    color: int
    epoch: int
    chassis: str


class Disturbed(msgspec.Struct, frozen=True, kw_only=True):
    """Our entries went away and it was not us: ovn-controller restarted, say."""

    chassis: str
    reason: str


class AgentLost(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's connection to its bridge broke."""

    chassis: str
    reason: str


AgentEvent: TypeAlias = LogRecord | ProbeSeen | NeighborSeen | DoubtSeen | Disturbed | AgentLost


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent found on its bridge.

    `entries_at_top` are entries of others at our own priority, as text (which of two such entries wins is
    undefined). `plain` is there on a bridge without OVN; `tunnels` are then its ports to other bridges of the task.
    `changes_flows_in_place`: its datapath may give new actions to another cached flow than is meant (docs/adr/0019).
    """

    chassis: str
    layout: BridgeLayout
    vifs: tuple[LocalVif, ...]
    ports: tuple[BridgePort, ...]
    tunnels: tuple[TunnelPort, ...]
    entries_at_top: tuple[str, ...] = ()
    drops_fragments: bool = False
    changes_flows_in_place: bool = False
    hostname: str = ""
    plain: PlainLayout | None = None


class NothingCachedError(CannotWorkError):
    """A question about packets that were never colored, and the datapath caches none that it drops."""


class SiteQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Which flow to inspect: how its packets come in on this chassis, uncolored.

    Attributes:
        entry: the first part of the flow ("in_port=5" and tunnel fields); `headers` the rest. Without headers the
            question is about packets that were never colored: what the datapath caches for `in_ofport` is traced.
        color: what colored packets of it carry (None: don't look for their datapath flows).
        flow_id: name of the flow (`model.record.flow_id`), handed back with the report.
        src, dst: addresses that cached flows have to cover; empty for any.
        seen: all (source, destination) addresses that the packet had here, in their order: NAT changes them.
        ports: likewise all (source, destination) ports, of protocols that have some; None stands for any.
        proto: IP protocol number as Open vSwitch has it; 0 for any.
        lost: whether the packet did not come out.
    """

    pair: int
    entry: str
    headers: str
    direction: int = 0
    in_ofport: int = 0
    color: int | None = None
    flow_id: str = ""
    src: str = ""
    dst: str = ""
    seen: tuple[tuple[str, str], ...] = ()
    ports: tuple[tuple[int | None, int | None], ...] = ()
    proto: int = 0
    lost: bool = False


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What stands on a bridge for the logical datapaths that were asked about.

    `entries` are (table, priority, cookie). `controller` says what keeps ovn-controller from its work; empty if
    nothing does.
    """

    controller: str = ""
    entries: tuple[tuple[int, int, int], ...] = ()
    ct_zones: tuple[CtZone, ...] = ()


class AgentCost(msgspec.Struct, frozen=True, kw_only=True):
    """What a run cost on one chassis so far."""

    entries_installed: int = 0
    entries_left: int = 0
    first_copies_cut: int = 0
    copies_cut: int = 0
    records: int = 0
    records_lost: int = 0
    streams: tuple[StreamEnd, ...] = ()


class FirstHits(msgspec.Struct, frozen=True, kw_only=True):
    """What coloring entries counted at the first hop, by the pair's number.

    Attributes:
        own: packets that hit the task's own, some of them surely after these were put in.
        taken: packets that other runs colored since the task began and that it might have.
    """

    own: Mapping[int, int] = {}
    taken: Mapping[int, int] = {}


class ColorsBefore(msgspec.Struct, frozen=True, kw_only=True):
    """What a bridge has of colors that were in use before: cached flows may act by entries that are gone.

    Attributes:
        ages_s: how long ago tasks last had them, of those that had one lately.
        cached_s: those that cached flows match, and how long ago a packet had it, whoever sent it; empty where that
            can't be asked.
    """

    ages_s: Mapping[int, float] = {}
    cached_s: Mapping[int, float] = {}


class AgentLink(Protocol):
    """An agent as the analyzer sees it. Every call has a time limit of its own."""

    @property
    def chassis(self) -> str:
        """The chassis name."""
        ...

    async def lock(self) -> None:
        """Locks the bridge against other runs' claims. Always in the order of chassis names."""

    async def survey(self) -> Survey:
        """Looks at the bridge."""
        ...

    async def colors_used(self) -> tuple[int, ...]:
        """The colors that entries of ours, of any run, hold on the bridge."""
        ...

    async def colors_before(self) -> ColorsBefore:
        """What is known of colors that no entry holds now."""
        ...

    async def claim(self, color: int) -> Claim:
        """Claims a color, and with the first one generation, controller id and meters; unlocks the bridge."""

    async def abandon_claim(self) -> None:
        """Unlocks the bridge without a claim."""

    def events(self) -> MemoryObjectReceiveStream[AgentEvent]:
        """Records and other events, in the order in which the bridge sent them."""

    async def install(self, entries: Sequence[PlannedEntry]) -> None:
        """Adds entries, all or none."""

    async def renew(self) -> None:
        """After somebody removed our entries and meters: waits until the bridge is whole, puts the meters back."""

    async def is_metered(self, flow: str) -> bool:
        """Whether the copies that a flow makes go through a meter, by a trace."""
        ...

    async def remove(self, role: int, *, color: int | None = None, index: int | None = None) -> None:
        """Removes our entries of a role, all or those of one color and index."""

    async def settle(self) -> None:
        """Waits until the datapath acts by the entries put in so far."""

    async def drain(self) -> None:
        """Waits until the datapath has forgotten the entries removed so far: until then it acts by them."""

    async def counts(self, role: int) -> dict[int, int]:
        """Packets counted by our entries of a role, by their index. May lag by about a second."""

    async def first_hits(self) -> FirstHits:
        """What coloring entries counted where packets come in."""
        ...

    async def inspect(self, question: SiteQuestion) -> SiteReport:
        """Asks the slow path what becomes of a flow."""

    async def tunnels(self) -> tuple[TunnelPort, ...]:
        """The bridge's tunnel ports as they are now."""
        ...

    async def standing(self, datapaths: Sequence[int], ct_zone: int = 0) -> Standing:
        """The entries that stand for logical datapaths, how ovn-controller is, and how full a conntrack zone."""
        ...

    async def cached_packets(self, question: SiteQuestion) -> int:
        """Packets that the datapath's cache counts of what a question without headers is about."""
        ...

    async def cost(self) -> AgentCost:
        """What the run cost here so far."""

    async def close(self) -> AgentCost:
        """Removes all that is ours; safe to call in any state."""
