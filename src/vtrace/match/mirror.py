"""Match entries for bridges without OVN: what follows colored packets through entries that somebody wrote by hand.

There are no stages to hook, so the tables themselves are followed. From each output table colored packets, and no
others, are sent to a table of our own that has an entry for each entry of the first: the same match, the same order
of priorities. It logs what that entry is about to do, takes the color off unless the packet goes to another armed
bridge, and sends the packet back, where the entry itself decides. Two bits for each output table keep it from being
sent away a second time; they are cleared when the look-up returns.

Other traffic meets one entry more in each output table, which matches a register first: Open vSwitch looks at
registers before headers, finds it 0, and looks at nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from vtrace.color import guard
from vtrace.color.entries import copy_action, ip_match
from vtrace.color.registry import PRIORITY_COLOR, PRIORITY_MATCH, PRIORITY_PROBE_BASE, Role, Stage, cookie
from vtrace.model.openflow import FlowEntry, TableId
from vtrace.model.plain import SEVERAL_PORTS, LearnedMac, MirroredEntry, OutputTable, PlainLayout, port_number
from vtrace.model.plan import Claim, ColorUse, Hook, LocalVif, PlannedEntry, Scope, TimeLimits
from vtrace.model.record import Point

# A row of the MAC table that is older may end while the task runs: NORMAL then floods (ovs-vswitchd.conf.db(5):
# rows live 300 s by default).
MAX_MAC_AGE_S = 120
# Several entries of ours stand for one that reads its port from a register or a MAC table.
_PER_RANK = 2
_V4 = frozenset(("ip", "icmp", "tcp", "udp", "sctp"))
_V6 = frozenset(("ipv6", "icmp6", "tcp6", "udp6", "sctp6"))
_NO_IP = frozenset(("arp", "rarp", "mpls", "mplsm"))


def mirror_entries(
    scope: Scope, layout: PlainLayout, use: ColorUse, claim: Claim, limits: TimeLimits
) -> tuple[PlannedEntry, ...]:
    """All entries of one color on one bridge, those that restore first."""
    return _Mirrors(scope, layout, use, claim, limits).all_entries()


def own_datapath(scope: Scope) -> int:
    """The number of the bridge itself."""
    return next((d.key for d in scope.datapaths if scope.chassis in d.chassis), 0)


def port_doubt_entries(
    ofports: Sequence[int], scope: Scope, bits: PlainLayout, use: ColorUse, claim: Claim, hard_timeout_s: int
) -> tuple[PlannedEntry, ...]:
    """Notices packets that come in with the color by a port that no armed bridge is behind."""
    datapath = own_datapath(scope)
    return tuple(
        PlannedEntry(
            entry=FlowEntry(
                table=TableId(0),
                priority=PRIORITY_COLOR,
                cookie=cookie(Role.DOUBT, claim.generation, color=use.color, index=number << 1 | (version == 6)),
                match=f"in_port={ofport},{ip_match(version)},nw_tos={use.color << 2},{guard.match_none(bits.guard)}",
                actions=f"{guard.load(bits.guard, Stage.TABLE_0)},{copy_action(claim, claim.copy_meter)},resubmit(,0)",
                hard_timeout_s=hard_timeout_s,
            ),
            hook=Hook(role=Role.DOUBT, datapath=datapath, color=use.color, epoch=use.epoch),
        )
        for number, ofport in enumerate(ofports)
        for version in scope.ip_versions
    )


def port_neighbor_entries(
    vif: LocalVif, version: int, scope: Scope, bits: PlainLayout, claim: Claim, hard_timeout_s: int
) -> list[PlannedEntry]:
    """Copies of the ARP or ND requests that come in by a port, and of answers for it that come in by any other."""
    port = next((p for p in scope.ports if (p.datapath, p.key) == (vif.datapath, vif.key)), None)
    words = [word for text in (port.addresses if port else ()) for word in text.split()[1:]]
    here = [word for word in words if (":" in word) == (version == 6)]
    request = "arp,arp_op=1" if version == 4 else "icmp6,icmpv6_type=135"
    reply = "arp,arp_op=2,arp_tpa=" if version == 4 else "icmp6,icmpv6_type=136,ipv6_dst="
    others = [v.ofport for v in scope.vifs if v.ofport != vif.ofport] + [
        t.ofport for t in scope.tunnels if t.ofport > 0
    ]
    places = [f"{vif.match},{request}"]
    places += [f"in_port={other},{reply}{address}" for other in others for address in here]
    copy = copy_action(claim, claim.copy_meter)
    return [
        PlannedEntry(
            entry=FlowEntry(
                table=TableId(0),
                priority=PRIORITY_PROBE_BASE + claim.generation,
                cookie=cookie(Role.NEIGHBOR, claim.generation, index=vif.ofport << 1 | (version == 6)),
                match=f"{place},{guard.match_none(bits.guard)}",
                actions=f"{guard.load(bits.guard, Stage.TABLE_0)},{copy},resubmit(,0)",
                hard_timeout_s=hard_timeout_s,
            ),
            hook=Hook(role=Role.NEIGHBOR, datapath=vif.datapath, in_key=vif.key),
        )
        for place in places
    ]


class _Mirrors:
    def __init__(self, scope: Scope, layout: PlainLayout, use: ColorUse, claim: Claim, limits: TimeLimits) -> None:
        self._scope = scope
        self._layout = layout
        self._use = use
        self._claim = claim
        self._limits = limits
        self._next = 0
        self._register = f"NXM_NX_REG{layout.guard.register}"
        self._copy = copy_action(claim, claim.copy_meter)
        self._restore = f"load:0x{use.original_dscp:x}->NXM_OF_IP_TOS[2..7]"
        self._datapath = own_datapath(scope)
        # The armed bridges behind ports of this one.
        self._peers = {int(t.ofport): t.chassis for t in scope.tunnels if t.ofport > 0 and t.chassis}
        here = [p.key for p in scope.ports if p.datapath == self._datapath and p.key < SEVERAL_PORTS]
        self._here = {port_number(key) for key in here}

    def all_entries(self) -> tuple[PlannedEntry, ...]:
        found: list[PlannedEntry] = []
        for version in self._scope.ip_versions:
            for table in self._layout.tables:
                found += self._jumps(table, version)
                found.append(self._default(table, version))
                for entry in table.entries:
                    found += self._mirrored(table, entry, version)
            found += [self._ingress(ofport, peer, version) for ofport, peer in sorted(self._peers.items())]
        return tuple(sorted(found, key=lambda planned: planned.hook.role != Role.RESTORE))

    def _jumps(self, table: OutputTable, version: int) -> Iterator[PlannedEntry]:
        """From an output table to ours and back. Where packets return after conntrack, once before and once after."""
        looked, tracked = 1 << table.lsb, 2 << table.lsb
        stage = Stage.TABLE_0 << self._layout.guard.lsb
        mask = 3 << self._layout.guard.lsb
        places = [("", looked, looked)]
        if table.returns:
            places = [("ct_state=-trk,", looked | tracked, looked), ("ct_state=+trk,", tracked, looked | tracked)]
        for state, clear, note in places:
            bits = f"{self._register}[{table.lsb}..{table.lsb + 1}]"
            yield self._entry(
                Role.RESTORE,
                table.table,
                f"{ip_match(version)},{state}nw_tos={self._use.color << 2},"
                f"reg{self._layout.guard.register}=0x{stage:x}/0x{mask | clear:x}",
                f"load:0x{note >> table.lsb:x}->{bits},resubmit(,{table.mirror}),load:0->{bits}",
                Hook(role=Role.RESTORE, datapath=self._datapath),
                priority=PRIORITY_MATCH,
            )

    def _default(self, table: OutputTable, version: int) -> PlannedEntry:
        """A packet that none of our entries stands for: the table has none for it, or has changed meanwhile."""
        return self._entry(
            Role.RESTORE,
            table.mirror,
            f"{ip_match(version)},nw_tos={self._use.color << 2}",
            f"{self._restore},resubmit(,{table.table})",
            Hook(role=Role.RESTORE, datapath=self._datapath, restores=True),
            priority=0,
        )

    def _mirrored(self, table: OutputTable, entry: MirroredEntry, version: int) -> Iterator[PlannedEntry]:
        terms = _with_family(entry.terms, version)
        if terms is None:
            return
        low, high = entry.rank * _PER_RANK - 1, entry.rank * _PER_RANK
        if entry.unsure and entry.leaves:
            yield self._out(table, terms, low, self._sure_port(entry), keep=False)
        elif entry.unsure:
            hook = Hook(role=Role.RESTORE, datapath=self._datapath, restores=True)
            yield self._mirror(table, terms, low, hook, self._restore)
        elif entry.field is not None:
            yield self._out(table, terms, low, SEVERAL_PORTS, keep=False)
            for ofport in sorted(self._here | set(self._peers)):
                field = entry.field
                found = _with_register(terms, field.register, ofport << field.lsb, (1 << field.width) - 1 << field.lsb)
                if found is not None and ofport >> field.width == 0:
                    yield self._out(table, found, high, ofport)
        elif entry.normal:
            yield self._out(table, terms, low, SEVERAL_PORTS, keep=False)
            for row in self._layout.macs:
                if not any(term.startswith("dl_dst=") for term in terms):
                    yield from self._to_mac(table, terms, high, row)
        elif entry.ports:
            yield self._out(table, terms, low, entry.ports[0], once=entry.once)
        else:
            yield from self._passed_on(table, terms, low, once=entry.once)

    def _sure_port(self, entry: MirroredEntry) -> int:
        """Of several ports the endpoint's, if there is one: what gets there has arrived."""
        ends = {
            port_number(p.key)
            for p in self._scope.ports
            if p.datapath == self._datapath and p.name in self._scope.endpoints
        }
        found = sorted(ends & set(entry.ports))
        if found:
            return found[0]
        return entry.ports[0] if len(entry.ports) == 1 else SEVERAL_PORTS

    def _to_mac(self, table: OutputTable, terms: tuple[str, ...], rank: int, row: LearnedMac) -> Iterator[PlannedEntry]:
        """What NORMAL sends to one port, as long as the MAC table stays as it is."""
        rows = [other for other in self._layout.macs if other.mac == row.mac]
        vlans = {other.vlan for other in self._layout.macs}
        keep = len(rows) == 1 and len(vlans) == 1 and row.age_s <= MAX_MAC_AGE_S
        if len(rows) == 1:
            yield self._out(table, (*terms, f"dl_dst={row.mac}"), rank, row.port, keep=keep)

    def _out(
        self,
        table: OutputTable,
        terms: tuple[str, ...],
        priority: int,
        ofport: int,
        *,
        keep: bool = True,
        once: bool = False,
    ) -> PlannedEntry:
        """Log what goes out by a port; keep the color where an armed bridge is behind it."""
        peer = self._peers.get(ofport, "") if keep and not once else ""
        if peer:
            hook = Hook(role=Role.MATCH, point=Point.REMOTE_OUTPUT, datapath=self._datapath, peer=peer, ofport=ofport)
            return self._mirror(table, terms, priority, hook, self._copy)
        gone = ofport in self._peers or ofport == SEVERAL_PORTS or ofport in self._here
        if not gone:
            # A port that is not there: nothing leaves, and an inspection says so.
            return self._mirror(table, terms, priority, Hook(role=Role.RESTORE, restores=True), self._restore)
        key = SEVERAL_PORTS if ofport in self._peers else ofport
        hook = Hook(role=Role.RESTORE, point=Point.EGRESS, datapath=self._datapath, ofport=key, restores=True)
        return self._mirror(table, terms, priority, hook, self._copy, self._restore)

    def _passed_on(
        self, table: OutputTable, terms: tuple[str, ...], priority: int, *, once: bool
    ) -> Iterator[PlannedEntry]:
        """An entry that only passes packets on, or ends them: in the way of those below it."""
        on = Hook(role=Role.MATCH, datapath=self._datapath)
        if not once:
            yield self._mirror(table, terms, priority, on)
            return
        # Through conntrack and back to this table: the second time nothing would stop a color.
        register, tracked = self._layout.guard.register, 2 << table.lsb
        again = Hook(role=Role.RESTORE, datapath=self._datapath, restores=True)
        yield self._mirror(table, (*terms, f"reg{register}=0/0x{tracked:x}"), priority, on)
        yield self._mirror(
            table, (*terms, f"reg{register}=0x{tracked:x}/0x{tracked:x}"), priority, again, self._restore
        )

    def _mirror(
        self, table: OutputTable, terms: tuple[str, ...], priority: int, hook: Hook, *between: str
    ) -> PlannedEntry:
        match = ",".join((*terms, f"nw_tos={self._use.color << 2}"))
        actions = ",".join((*between, f"resubmit(,{table.table})"))
        return self._entry(Role(hook.role), table.mirror, match, actions, hook, priority=priority)

    def _ingress(self, ofport: int, peer: str, version: int) -> PlannedEntry:
        """What comes in from another armed bridge."""
        bits = self._layout.guard
        return self._entry(
            Role.MATCH,
            TableId(0),
            f"in_port={ofport},{ip_match(version)},nw_tos={self._use.color << 2},{guard.match_none(bits)}",
            f"{guard.load(bits, Stage.TABLE_0)},{self._copy},resubmit(,0)",
            Hook(role=Role.MATCH, point=Point.INGRESS, datapath=self._datapath, peer=peer),
            priority=PRIORITY_MATCH,
        )

    def _entry(
        self, role: Role, table: TableId, match: str, actions: str, hook: Hook, *, priority: int
    ) -> PlannedEntry:
        self._next += 1
        use = self._use
        return PlannedEntry(
            entry=FlowEntry(
                table=table,
                priority=priority,
                cookie=cookie(role, self._claim.generation, color=use.color, index=self._next),
                match=match,
                actions=actions,
                hard_timeout_s=self._limits.restore_s if role is Role.RESTORE else self._limits.match_s,
            ),
            hook=replace(hook, color=use.color, epoch=use.epoch, original_dscp=use.original_dscp),
        )


def _with_family(terms: tuple[str, ...], version: int) -> tuple[str, ...] | None:
    """The match narrowed to an IP version; None where no such packet can match it, or none of this color."""
    names = {term.partition("=")[0] for term in terms}
    mine, others = (_V4, _V6) if version == 4 else (_V6, _V4)
    if names & (others | _NO_IP) or "nw_tos" in names or "ip_dscp" in names:
        return None
    kept: list[str] = []
    for term in terms:
        name, _, value = term.partition("=")
        if name in ("dl_type", "eth_type"):
            if int(value, 0) != (0x0800 if version == 4 else 0x86DD):
                return None
            continue
        kept.append(term)
    return tuple(kept) if names & mine else (ip_match(version), *kept)


def _with_register(terms: tuple[str, ...], register: int, value: int, mask: int) -> tuple[str, ...] | None:
    """The match narrowed to a value of some bits of a register; None where it excludes that value."""
    name = f"reg{register}"
    kept = []
    for term in terms:
        field, _, text = term.partition("=")
        if field != name:
            kept.append(term)
            continue
        own_text, slash, mask_text = text.partition("/")
        own, own_mask = int(own_text, 0), int(mask_text, 0) if slash else 0xFFFF_FFFF
        if (own ^ value) & own_mask & mask:
            return None
        value, mask = value | own, mask | own_mask
    return (*kept, f"{name}=0x{value:x}/0x{mask:x}")
