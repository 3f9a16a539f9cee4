"""Refresh entries: they change no packet, but have the userspace datapath forget cached flows that it left behind.

When entries change, Open vSwitch gives a cached flow that matches all it has to its new actions where it is. Its
userspace datapath looks for that flow by a packet's headers (3.1, lib/dpif-netdev.c, flow_put_on_pmd): where another
cached flow takes in the same packet it may find that one, and the first keeps its old actions for as long as packets
come. A cached flow that matches too little is removed instead, by its own name. So what none matches yet is asked for:
bits of the packet mark. All cached flows of the bridge get these bits, once (docs/adr/0019).
"""

from __future__ import annotations

from vtrace.color import guard
from vtrace.color.registry import PRIORITY_COLOR, Role, Stage, cookie
from vtrace.model.openflow import FlowEntry, GuardBits, TableId
from vtrace.model.plan import Claim


def refresh_entries(ofport: int, bits: GuardBits, claim: Claim, mark: int, hard_timeout_s: int) -> list[FlowEntry]:
    """What makes the datapath forget its flows of what comes in by a port.

    A packet that has all bits of `mark` set goes uncolored, and on as ever.
    """
    return [
        FlowEntry(
            table=TableId(0),
            priority=PRIORITY_COLOR,
            cookie=cookie(Role.REFRESH, claim.generation),
            match=f"in_port={ofport},{family},pkt_mark=0x{mark:x}/0x{mark:x},{guard.match_none(bits)}",
            actions=f"{guard.load(bits, Stage.TABLE_0)},resubmit(,0)",
            hard_timeout_s=hard_timeout_s,
        )
        for family in ("ip", "ipv6")
    ]
