"""Which entries a task puts where: OVN's stages, or mirrors of a bridge's own tables."""

from __future__ import annotations

import pytest
from builders import CLAIM, USE, scope

from vtrace.analyzer.planning import follow_entries, request_entries, watch_entries, watched_vifs
from vtrace.match.entries import match_entries
from vtrace.model.inventory import LogicalDatapath, LogicalPort
from vtrace.model.openflow import BridgeLayout, GuardBits, OfPort, TunnelPort
from vtrace.model.plain import FIRST_BRIDGE, PlainLayout
from vtrace.model.plan import LocalVif, Scope, TimeLimits

LIMITS = TimeLimits(color_s=10, match_s=15, restore_s=20)
GUARD = GuardBits(register=7, lsb=0)
LINK = TunnelPort(name="wire", ofport=OfPort(9), kind="wire", remote_ip="", chassis="b/br0")


def plain(*links: TunnelPort) -> Scope:
    return Scope(
        chassis="a/br0",
        layout=BridgeLayout(guard=GUARD),
        plain=PlainLayout(guard=GUARD, tables=()),
        datapaths=(
            LogicalDatapath(key=FIRST_BRIDGE, name="br0", kind="vswitch", nb_uuid="", sb_uuid="", chassis=("a/br0",)),
        ),
        ports=(
            LogicalPort(name="vm1", key=1, datapath=FIRST_BRIDGE, addresses=("0a:00:00:00:00:01 10.0.0.1 fd00::1",)),
        ),
        vifs=tuple(LocalVif(ofport=OfPort(n), datapath=FIRST_BRIDGE, key=n) for n in (1, 2)),
        tunnels=links,
        armed_chassis=("a/br0",),
        endpoints=("vm1",),
    )


def test_with_ovn_nothing_is_mirrored() -> None:
    assert follow_entries(scope(), USE, CLAIM, LIMITS) == match_entries(scope(), USE, CLAIM, LIMITS)


@pytest.mark.parametrize(("links", "watched"), [((), [1]), ((LINK,), [1, 2])])
def test_without_another_bridge_only_the_pairs_ports_are_watched(
    links: tuple[TunnelPort, ...], watched: list[int]
) -> None:
    here = plain(*links)
    assert [vif.ofport for vif in watched_vifs(here)] == watched
    assert [e.entry.match.partition(",")[0] for e in watch_entries(here, USE, CLAIM, LIMITS)] == [
        f"in_port={number}" for number in watched
    ]


def test_answers_are_watched_where_they_come_into_the_bridge() -> None:
    here = plain(LINK)
    found = [e.entry.match.removesuffix(",reg7=0/0x3") for e in request_entries(here.vifs[0], 4, here, CLAIM, LIMITS)]
    assert found == [
        "in_port=1,arp,arp_op=1",
        "in_port=2,arp,arp_op=2,arp_tpa=10.0.0.1",
        "in_port=9,arp,arp_op=2,arp_tpa=10.0.0.1",
    ]
    six = request_entries(here.vifs[0], 6, here, CLAIM, LIMITS)
    assert six[1].entry.match.startswith("in_port=2,icmp6,icmpv6_type=136,ipv6_dst=fd00::1,")
