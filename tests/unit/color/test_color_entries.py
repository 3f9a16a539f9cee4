"""Coloring entries and what watches beside them, as text; and what must hold for every entry of ours."""

from __future__ import annotations

import re

import pytest
from builders import CLAIM, HV1, HV2, USE, endpoint, pair, scope
from msgspec.structs import replace

from vtrace.color import registry
from vtrace.color.entries import (
    asked,
    coloring_entries,
    doubt_entries,
    fragment_matches,
    halved_matches,
    neighbor_entries,
    pair_matches,
    probe_entries,
    reply_count_entries,
)
from vtrace.color.registry import Role
from vtrace.model.plan import Claim, FirstHop, PlannedEntry
from vtrace.model.record import Point
from vtrace.model.task import Direction, Endpoint, Pair, TrafficFilter

COPY_FIRST = "controller(max_len=192,id=23228,meter_id=500)"
COPY = "controller(max_len=192,id=23228,meter_id=499)"


def ends(source: Endpoint, destination: Endpoint, *, six: bool = False, **traffic: object) -> Pair:
    ip_version = 6 if six else 4
    return Pair(
        index=0,
        direction=Direction.FORWARD,
        source=source,
        destination=destination,
        traffic=TrafficFilter(ip_version=ip_version, **traffic),
    )


def hop(found: Pair | None = None) -> FirstHop:
    return FirstHop(pair=found or pair(index=9), vif=scope(HV1).vifs[0])


def texts(entries: list[PlannedEntry] | tuple[PlannedEntry, ...]) -> list[str]:
    return [planned.entry.text() for planned in entries]


TCP = TrafficFilter(proto="tcp", sport=1000, dport=80, tcp_flags="+syn-ack")


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (pair(), "ip,nw_src=10.0.1.1,nw_dst=10.0.1.2"),
        (
            pair(traffic=TCP),
            "tcp,nw_src=10.0.1.1,nw_dst=10.0.1.2,tcp_src=1000,tcp_dst=80,tcp_flags=+syn-ack",
        ),
        (
            pair("web2", "web1", direction=Direction.REPLY, traffic=TCP),
            "tcp,nw_src=10.0.1.2,nw_dst=10.0.1.1,tcp_src=80,tcp_dst=1000",
        ),
        (
            pair(traffic=TrafficFilter(proto="udp", dport=53)),
            "udp,nw_src=10.0.1.1,nw_dst=10.0.1.2,udp_dst=53",
        ),
        (
            pair(traffic=TrafficFilter(proto="icmp", icmp_type=0)),
            "icmp,nw_src=10.0.1.1,nw_dst=10.0.1.2,icmp_type=0",
        ),
        (
            pair("web2", "web1", direction=Direction.REPLY, traffic=TrafficFilter(proto="icmp", icmp_type=8)),
            "icmp,nw_src=10.0.1.2,nw_dst=10.0.1.1",
        ),
        (
            ends(endpoint("a", "fd00::1"), endpoint("b", "fd00::2"), six=True),
            "ipv6,ipv6_src=fd00::1,ipv6_dst=fd00::2",
        ),
        (
            ends(endpoint("a", "fd00::1"), endpoint("b", "fd00::2"), six=True, proto="tcp", dport=22),
            "tcp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,tcp_dst=22",
        ),
        (
            ends(endpoint("a", "fd00::1"), endpoint("b", "fd00::2"), six=True, proto="icmp", icmp_type=128),
            "icmp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,icmpv6_type=128",
        ),
    ],
    ids=["any", "tcp", "tcp reply", "udp", "icmp", "icmp reply", "any 6", "tcp 6", "icmp 6"],
)
def test_a_pair_as_its_sender_writes_it(found: Pair, text: str) -> None:
    assert pair_matches(found) == [text]


def test_every_address_with_every_address() -> None:
    found = ends(endpoint("a", "10.0.0.1", "10.0.0.2"), endpoint("b", "10.0.0.8", "10.0.0.9"))
    assert sorted(pair_matches(found)) == [
        "ip,nw_src=10.0.0.1,nw_dst=10.0.0.8",
        "ip,nw_src=10.0.0.1,nw_dst=10.0.0.9",
        "ip,nw_src=10.0.0.2,nw_dst=10.0.0.8",
        "ip,nw_src=10.0.0.2,nw_dst=10.0.0.9",
    ]


def test_a_source_named_by_its_port_counts_with_any_address() -> None:
    found = ends(endpoint("a", "10.0.0.1", by_port=True), endpoint("b", "10.0.0.8"))
    assert pair_matches(found) == ["ip,nw_dst=10.0.0.8"]


@pytest.mark.parametrize(
    ("found", "matches", "wanted"),
    [
        (ends(endpoint("a", "10.0.0.1"), endpoint("b", "10.0.0.2")), [], (None, None, None)),
        (ends(endpoint("a", "10.0.0.1"), endpoint("b", "10.0.0.2"), proto="udp"), [], (17, None, None)),
        (
            ends(endpoint("a", "10.0.0.1"), endpoint("b", "10.0.0.2"), proto="udp", dport=53),
            ["udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,ip_frag=yes"],
            (17, None, 53),
        ),
        (
            ends(endpoint("a", "fd00::1"), endpoint("b", "fd00::2"), six=True, proto="udp"),
            ["ipv6,ipv6_src=fd00::1,ipv6_dst=fd00::2,ip_frag=yes"],
            (17, None, None),
        ),
        (
            ends(endpoint("a", "fd00::1"), endpoint("b", "fd00::2"), six=True, proto="icmp", icmp_type=128),
            ["ipv6,ipv6_src=fd00::1,ipv6_dst=fd00::2,ip_frag=yes"],
            (58, 128, None),
        ),
    ],
)
def test_all_fragments_of_a_datagram_or_none(
    found: Pair, matches: list[str], wanted: tuple[int | None, int | None, int | None]
) -> None:
    # ovs-fields(7): no fragment has ports, and a later one of IPv6 has protocol 44.
    assert fragment_matches(found) == matches
    assert asked(found) == (wanted,)


def test_coloring_entry() -> None:
    made = coloring_entries(hop(pair(index=9, traffic=TrafficFilter(proto="icmp"))), USE, scope(), CLAIM, 35, 4)
    (found,) = made
    # Cookie: 0x5654, role 1, generation 0xabc, color 7 << 26 = 0x1c000000, index 9. DSCP 10 << 2 = 40.
    assert found.entry.text() == (
        "table=0,priority=65535,cookie=0x56541abc1c000009,hard_timeout=35,"
        "in_port=5,icmp,nw_src=10.0.1.1,nw_dst=10.0.1.2,nw_tos=40,reg10=0/0xc000000,reg8=0/0xa,reg9=0/0xabc,"
        "actions=load:0x7->NXM_OF_IP_TOS[2..7],load:0x1->NXM_NX_REG10[26..27],"
        f"{COPY_FIRST},resubmit(,0)"
    )
    assert (found.hook.role, found.hook.point, found.hook.pair) == (Role.COLOR, Point.FIRST_HOP, 9)
    assert (found.hook.datapath, found.hook.in_key) == (1, 2)
    assert (found.hook.color, found.hook.epoch, found.hook.original_dscp) == (7, 3, 10)
    assert not found.hook.restores


UDP_0 = "udp,nw_src=10.0.1.1,nw_dst=10.0.1.2"


@pytest.mark.parametrize(
    ("found", "matches"),
    [
        (
            pair(traffic=TrafficFilter(proto="udp", dport=53)),
            {f"{UDP_0},udp_dst=53,udp_src=0/0x10": 65535, f"{UDP_0},udp_dst=53,udp_src=0x10/0x10": 65535},
        ),
        (
            pair(traffic=TrafficFilter(proto="udp", sport=68)),
            {f"{UDP_0},udp_src=68,udp_dst=0/0x10": 65535, f"{UDP_0},udp_src=68,udp_dst=0x10/0x10": 65535},
        ),
        (pair(traffic=TrafficFilter(proto="udp", sport=68, dport=67)), {f"{UDP_0},udp_src=68,udp_dst=67": 65535}),
        (pair(traffic=TrafficFilter(proto="icmp")), {"icmp,nw_src=10.0.1.1,nw_dst=10.0.1.2": 65535}),
        (
            ends(endpoint("a", "fd00::1"), endpoint("b", "fd00::2"), six=True),
            {
                "ipv6,ipv6_src=fd00::1,ipv6_dst=fd00::2": 65534,
                "tcp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,tcp_src=0/0x10": 65535,
                "tcp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,tcp_src=0x10/0x10": 65535,
                "udp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,udp_src=0/0x10": 65535,
                "udp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,udp_src=0x10/0x10": 65535,
            },
        ),
    ],
    ids=["udp", "udp from a port", "both ports", "icmp", "any 6"],
)
def test_packets_are_colored_in_halves(found: Pair, matches: dict[str, int]) -> None:
    """By bit 4 of the port that is open, so that cached flows that don't match it go; together they are all."""
    assert dict(halved_matches(found, 4)) == matches
    assert halved_matches(found, None) == [(match, 65535) for match in pair_matches(found)]


def test_probe_entries() -> None:
    # Priority: 50000 + generation 0xabc. The masks of reg8 and reg9 (0 in table 0) keep runs and pairs apart.
    assert texts(probe_entries(hop(), scope(), CLAIM, 35)) == [
        "table=0,priority=52748,cookie=0x56545abc00000009,hard_timeout=35,in_port=5,ip,nw_src=10.0.1.1,"
        "nw_dst=10.0.1.2,reg10=0/0xc000000,reg8=0/0xa,reg9=0/0xabc,"
        f"actions=load:0x1->NXM_NX_REG10[26..27],{COPY},resubmit(,0)",
    ]


@pytest.mark.parametrize(
    ("version", "request_match", "reply_match", "index"),
    [(4, "arp,arp_op=1", "arp,arp_op=2", "a"), (6, "icmp6,icmpv6_type=135", "icmp6,icmpv6_type=136", "b")],
)
def test_neighbor_entries(version: int, request_match: str, reply_match: str, index: str) -> None:
    head = f"priority=52748,cookie=0x56548abc0000000{index},hard_timeout=35"
    assert texts(neighbor_entries(scope().vifs[0], version, scope(), CLAIM, 35)) == [
        f"table=0,{head},in_port=5,{request_match},reg10=0/0xc000000,"
        f"actions=load:0x1->NXM_NX_REG10[26..27],{COPY},resubmit(,0)",
        *(
            f"table=65,{head},{reply_match},metadata=0x1,reg15=0x2,{match},"
            f"actions=clone(load:0x3->NXM_NX_REG10[26..27],{COPY},resubmit(,65))"
            for match in ("reg10=0/0x8000000", "reg10=0x8000000/0xc000000")
        ),
    ]


def test_doubt_entries() -> None:
    vifs = scope(HV2).vifs
    # Index: number of the place << 1 | IPv6. DSCP 7 << 2 = 28.
    assert texts(doubt_entries(vifs, USE, scope(HV2, ip_versions=(4, 6)), CLAIM, 40)) == [
        f"table=0,priority=65535,cookie=0x56546abc1c00000{index},hard_timeout=40,in_port={ofport},{ip},nw_tos=28,"
        f"reg10=0/0xc000000,actions=load:0x1->NXM_NX_REG10[26..27],{COPY},resubmit(,0)"
        for index, ofport, ip in (("0", 6, "ip"), ("1", 6, "ipv6"), ("2", 7, "ip"), ("3", 7, "ipv6"))
    ]


def test_replies_are_counted_without_color_or_copy() -> None:
    found = reply_count_entries(pair(index=9, traffic=TCP), scope(HV2).vifs[0], scope(HV2), CLAIM, 40)
    tail = "reg10=0/0xc000000,reg8=0/0xa,reg9=0/0xabc,actions=load:0x1->NXM_NX_REG10[26..27],resubmit(,0)"
    back = "nw_src=10.0.1.2,nw_dst=10.0.1.1"
    # Priorities: 40000 + generation, and 4096 more for errors and resets.
    assert texts(found) == [
        f"table=0,priority=42748,cookie=0x56544abc00000024,hard_timeout=40,in_port=6,tcp,{back},tcp_src=80,"
        f"tcp_dst=1000,{tail}",
        f"table=0,priority=46844,cookie=0x56544abc00000025,hard_timeout=40,in_port=6,icmp,{back},icmp_type=3,{tail}",
        f"table=0,priority=46844,cookie=0x56544abc00000026,hard_timeout=40,in_port=6,tcp,{back},tcp_flags=+rst,{tail}",
    ]


SIX = ends(endpoint("a", "fd00::1"), endpoint("b", "fd00::2"), six=True)
EVERY = [
    *coloring_entries(hop(), USE, scope(), CLAIM, 35, 4),
    *coloring_entries(hop(SIX), USE, scope(), CLAIM, 35, 4),
    *probe_entries(hop(), scope(), CLAIM, 35),
    *probe_entries(hop(SIX), scope(), CLAIM, 35),
    *neighbor_entries(scope().vifs[0], 4, scope(), CLAIM, 35),
    *doubt_entries(scope(HV2).vifs, USE, scope(HV2, ip_versions=(4, 6)), CLAIM, 40),
    *reply_count_entries(pair(), scope(HV2).vifs[0], scope(HV2), CLAIM, 40),
    *reply_count_entries(SIX, scope(HV2).vifs[0], scope(HV2), CLAIM, 40),
]


@pytest.mark.parametrize("planned", EVERY, ids=lambda p: p.entry.match)
def test_every_entry_is_ours_ends_by_itself_and_is_scoped(planned: PlannedEntry) -> None:
    entry = planned.entry
    assert registry.is_ours(entry.cookie)
    assert registry.generation_of(entry.cookie) == CLAIM.generation
    assert registry.role_of(entry.cookie) == planned.hook.role
    assert entry.hard_timeout_s > 0
    fields = entry.match.split(",")
    assert fields[0].startswith("in_port=") if entry.table == 0 else "metadata=0x1" in fields, "scope"
    assert any(field.startswith("reg10=") for field in fields), "guard"
    assert entry.actions.startswith("clone(") == (entry.table != 0)
    assert f"resubmit(,{entry.table})" in entry.actions, "the original entries decide"


@pytest.mark.parametrize("planned", EVERY, ids=lambda p: p.entry.match)
def test_every_copy_goes_through_a_meter_to_our_connection_alone(planned: PlannedEntry) -> None:
    copies = re.findall(r"controller\(([^)]*)\)", planned.entry.actions)
    assert planned.entry.actions.count("controller") == len(copies)
    for copy in copies:
        fields = dict(term.split("=") for term in copy.split(","))
        assert int(fields["meter_id"]) in (CLAIM.first_meter, CLAIM.copy_meter)
        assert int(fields["id"]) == CLAIM.controller_id, "without an id ovn-controller gets it too"
        assert "userdata" not in fields
    assert bool(copies) == (planned.hook.role != Role.COUNT)


@pytest.mark.parametrize("planned", EVERY, ids=lambda p: p.entry.match)
def test_only_coloring_entries_change_the_packet(planned: PlannedEntry) -> None:
    changes = [a for a in re.findall(r"(?:load|set_field|move|mod)[^,]*", planned.entry.actions) if "REG10[" not in a]
    assert changes == (["load:0x7->NXM_OF_IP_TOS[2..7]"] if planned.hook.role == Role.COLOR else [])


def places(entries: list[PlannedEntry] | tuple[PlannedEntry, ...]) -> set[tuple[int, int, str]]:
    """What makes an OpenFlow entry replace another (OpenFlow 1.3, 6.4: same table, priority and match)."""
    return {(p.entry.table, p.entry.priority, p.entry.match) for p in entries}


def test_entries_of_one_task_do_not_replace_each_other() -> None:
    planned = [
        *coloring_entries(hop(), USE, scope(), CLAIM, 35, 4),
        *coloring_entries(hop(), replace(USE, color=11, original_dscp=0), scope(), CLAIM, 35, 4),
        *probe_entries(hop(), scope(), CLAIM, 35),
        *neighbor_entries(scope().vifs[0], 4, scope(), CLAIM, 35),
        *doubt_entries(scope(HV1).vifs, USE, scope(), CLAIM, 40),
    ]
    assert len(places(planned)) == len(planned)


OTHER_RUN = replace(CLAIM, generation=0xABD, controller_id=0x5ABD, first_meter=498, copy_meter=497)


@pytest.mark.parametrize("kind", ["coloring", "probe", "neighbor", "count"])
def test_two_runs_for_one_pair_do_not_replace_each_others_entries(kind: str) -> None:
    # design.md: "Any number of `diagnose` may run at once on the same bridges, also for the same pair."
    def made(claim: Claim, color: int) -> set[tuple[int, int, str]]:
        if kind == "coloring":
            return places(coloring_entries(hop(), replace(USE, color=color), scope(), claim, 35, 4))
        if kind == "probe":
            return places(probe_entries(hop(), scope(), claim, 35))
        if kind == "neighbor":
            return places(neighbor_entries(scope().vifs[0], 4, scope(), claim, 35))
        return places(reply_count_entries(pair(), scope(HV2).vifs[0], scope(HV2), claim, 40))

    assert not made(CLAIM, 7) & made(OTHER_RUN, 11)


def test_two_pairs_of_one_task_with_the_same_traffic_do_not_replace_each_others_entries() -> None:
    # --from a,b --to a,b --direction both: "a to b" and the reply of "b to a".
    one, two = hop(pair(index=0)), hop(pair(index=3, direction=Direction.REPLY))
    for make in (probe_entries, lambda *rest: coloring_entries(rest[0], USE, *rest[1:], 4)):
        assert not places(make(one, scope(), CLAIM, 35)) & places(make(two, scope(), CLAIM, 35))


def test_entries_that_watch_stand_below_those_that_color_whatever_the_run() -> None:
    for generation in (1, 4095):
        claim = replace(CLAIM, generation=generation)
        lowest = min(color.entry.priority for color in coloring_entries(hop(), USE, scope(), claim, 35, 4))
        (probe,) = probe_entries(hop(), scope(), claim, 35)
        counts = reply_count_entries(pair(), scope(HV2).vifs[0], scope(HV2), claim, 40)
        replies, errors = counts[0].entry.priority, counts[1].entry.priority
        assert lowest > probe.entry.priority > 50_000 > errors > replies + 4000
