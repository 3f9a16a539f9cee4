"""Turns packet-ins into log records and other events. The payload goes no further than this."""

from __future__ import annotations

from collections import defaultdict

from vtrace.collect.link import AgentEvent, DoubtSeen, NeighborSeen, ProbeSeen
from vtrace.color.registry import Role
from vtrace.log.fragments import Fragments
from vtrace.log.packet import PROTO_ICMP6, Headers, decode, decode_arp, packet_key
from vtrace.model.openflow import PacketIn
from vtrace.model.plan import Hook
from vtrace.model.record import LogRecord, Point, StreamEnd

# ICMPv6 types of router and neighbor discovery (RFC 4861).
# What a record has room for; only STT has longer ones, and OVN uses none of them.
_MOST_TUNNEL_ID = (1 << 63) - 1
_NEIGHBOR_DISCOVERY = (133, 134, 135, 136, 137)


class RecordLogger:
    """Numbers and writes the records of one chassis: those of each color and epoch by themselves.

    Attributes:
        hooks: what each of our entries' copies means, by cookie and, where entries of several ports share one, by
            OpenFlow port (else 0).
        written: records written; lost: packet-ins of ours that could not be read or passed on.
    """

    def __init__(self, *, region: str, task_id: str, secret: bytes, incarnation: int) -> None:
        self.chassis = ""
        self.hooks: dict[tuple[int, int], Hook] = {}
        self.written = 0
        self.lost = 0
        self._probed: set[tuple[int, int]] = set()
        self._fragments = Fragments()
        self._region = region
        self._task_id = task_id
        self._secret = secret
        self._incarnation = incarnation
        # Of each color and epoch: what reads the records of one of them can tell that some are missing.
        self._written: dict[tuple[int, int], int] = defaultdict(int)

    def event(self, message: PacketIn, wall_ns: int, mono_ns: int) -> AgentEvent | None:
        """What a packet-in tells; None where it is not one of ours or can't be read (which is counted)."""
        hook = self.hooks.get((message.cookie, message.in_port)) or self.hooks.get((message.cookie, 0))
        if hook is None:
            return None
        if hook.role == Role.NEIGHBOR:
            return self._neighbor(hook, message, mono_ns)
        headers = decode(message.packet)
        if headers is None or message.tunnel_id > _MOST_TUNNEL_ID:
            self.lost += 1
            return None
        if headers.proto == PROTO_ICMP6 and headers.sport in _NEIGHBOR_DISCOVERY and not _is_asked_for(headers, hook):
            # A guest asks for its neighbor's address by unicast, too: that is no traffic of the pair.
            return None
        if hook.asked and headers.fragment and not self._fragments.is_wanted(headers, hook.asked):
            return None
        if hook.role == Role.PROBE:
            if (hook.pair, headers.dscp) in self._probed:
                return None
            self._probed.add((hook.pair, headers.dscp))
            return ProbeSeen(pair=hook.pair, dscp=headers.dscp, chassis=self.chassis)
        if hook.role == Role.DOUBT:
            return DoubtSeen(color=hook.color, epoch=hook.epoch, chassis=self.chassis)
        if hook.point < 0:
            return None
        self.written += 1
        self._written[hook.color, hook.epoch] += 1
        return self._record(hook, message, headers, wall_ns, mono_ns)

    def streams(self) -> tuple[StreamEnd, ...]:
        """What was written so far, of each color and epoch."""
        return tuple(
            StreamEnd(chassis=self.chassis, incarnation=self._incarnation, color=color, epoch=epoch, written=written)
            for (color, epoch), written in self._written.items()
        )

    def _neighbor(self, hook: Hook, message: PacketIn, mono_ns: int) -> AgentEvent | None:
        arp = decode_arp(message.packet)
        if arp is None:
            return None
        return NeighborSeen(
            datapath=hook.datapath,
            key=hook.in_key,
            operation=arp.operation,
            sender_ip=arp.sender_ip,
            target_ip=arp.target_ip,
            eth_src=arp.eth_src,
            chassis=self.chassis,
            mono_ns=mono_ns,
        )

    def _record(self, hook: Hook, message: PacketIn, headers: Headers, wall_ns: int, mono_ns: int) -> LogRecord:
        first = hook.point == Point.FIRST_HOP
        at_table_0 = hook.point in (Point.FIRST_HOP, Point.INGRESS)
        secret = self._secret + bytes([hook.color]) + hook.epoch.to_bytes(4, "big")
        return LogRecord(
            region=self._region,
            chassis=self.chassis,
            incarnation=self._incarnation,
            seq=self._written[hook.color, hook.epoch],
            color=hook.color,
            epoch=hook.epoch,
            key=packet_key(headers, secret[-64:]),
            pair=hook.pair if first else -1,
            task=self._task_id if first else "",
            point=hook.point,
            datapath=hook.datapath,
            in_key=hook.in_key or message.registers.get(14, 0),
            out_key=message.registers.get(15, 0),
            in_ofport=message.in_port if at_table_0 else 0,
            peer=hook.peer,
            tunnel_id=message.tunnel_id,
            tunnel_src=message.tunnel_src,
            tunnel_dst=message.tunnel_dst,
            eth_src=headers.eth_src,
            eth_dst=headers.eth_dst,
            proto=headers.proto,
            src=headers.src,
            dst=headers.dst,
            sport=headers.sport,
            dport=headers.dport,
            ttl=headers.ttl,
            dscp=hook.original_dscp,
            ecn=headers.ecn,
            ip_id=headers.ip_id,
            fragment=headers.fragment,
            vlan=headers.vlan,
            length_bytes=headers.length_bytes,
            tcp_flags=headers.tcp_flags,
            ct_state=message.ct_state,
            ct_zone=message.ct_zone,
            wall_ns=wall_ns,
            mono_ns=mono_ns,
        )


def _is_asked_for(headers: Headers, hook: Hook) -> bool:
    """Whether the task names this type of ICMP message; copies of later hops are of whatever was colored."""
    return not hook.asked or any(sport == headers.sport for _, sport, _ in hook.asked)
