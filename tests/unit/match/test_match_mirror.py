"""Entries that follow packets through tables somebody else wrote: which keep the color, which take it off."""

from __future__ import annotations

import pytest
from builders import CLAIM, USE
from hypothesis import given
from hypothesis import strategies as st

from vtrace.color.registry import Role
from vtrace.match.mirror import mirror_entries, port_doubt_entries
from vtrace.model.inventory import LogicalDatapath, LogicalPort
from vtrace.model.openflow import Cookie, GuardBits, OfPort, TableId, TunnelPort
from vtrace.model.plain import SEVERAL_PORTS, LearnedMac, MirroredEntry, OutputTable, PlainLayout, RegisterField
from vtrace.model.plan import PlannedEntry, Scope, TimeLimits
from vtrace.model.record import Point

LIMITS = TimeLimits(color_s=10, match_s=15, restore_s=20)
VM, WIRE, GONE = 1, 2, 99
RESTORE = f"load:0x{USE.original_dscp:x}->NXM_OF_IP_TOS[2..7]"


def mirrored(match: str = "", **fields: object) -> MirroredEntry:
    values = {"rank": 1, "terms": tuple(filter(None, match.split(","))), "cookie": Cookie(1), "text": "", **fields}
    values.setdefault("leaves", bool(values.keys() & {"ports", "field", "normal"}))
    return MirroredEntry(**values)


def planned(*entries: MirroredEntry, macs: tuple[LearnedMac, ...] = (), versions: tuple[int, ...] = (4,),
            **table: object) -> tuple[PlannedEntry, ...]:  # fmt: skip
    made = OutputTable(table=TableId(5), mirror=TableId(250), lsb=4, entries=entries, **table)
    layout = PlainLayout(guard=GuardBits(register=7, lsb=0), tables=(made,), macs=macs)
    scope = Scope(
        chassis="a/br0",
        layout=layout,
        datapaths=(LogicalDatapath(key=3, name="br0", kind="vswitch", nb_uuid="", sb_uuid="", chassis=("a/br0",)),),
        ports=(LogicalPort(name="vm", key=VM, datapath=3), LogicalPort(name="wire", key=WIRE, datapath=3)),
        vifs=(),
        tunnels=(TunnelPort(name="wire", ofport=OfPort(WIRE), kind="wire", remote_ip="", chassis="b/br0"),),
        armed_chassis=("a/br0", "b/br0"),
        endpoints=("vm",),
        ip_versions=versions,
    )
    return mirror_entries(scope, layout, USE, CLAIM, LIMITS)


def of_mirror(found: tuple[PlannedEntry, ...]) -> list[PlannedEntry]:
    """Those of the table of our own, without the default."""
    return [p for p in found if p.entry.table == 250 and p.entry.priority]


def test_to_our_table_and_back() -> None:
    jump, default, ingress = planned()
    assert (jump.entry.table, jump.entry.priority) == (5, 65535)
    assert jump.entry.match == f"ip,nw_tos={USE.color << 2},reg7=0x1/0x13"
    assert jump.entry.actions == "load:0x1->NXM_NX_REG7[4..5],resubmit(,250),load:0->NXM_NX_REG7[4..5]"
    assert (default.entry.priority, default.entry.actions) == (0, f"{RESTORE},resubmit(,5)")
    assert ingress.entry.match == f"in_port=2,ip,nw_tos={USE.color << 2},reg7=0/0x3"
    assert (ingress.hook.point, ingress.hook.peer) == (Point.INGRESS, "b/br0")


def test_before_and_after_conntrack() -> None:
    jumps = [p.entry for p in planned(mirrored("ct_state=-trk,ip", once=True), returns=True) if p.entry.table == 5]
    assert [j.match.partition(",nw_tos")[0] for j in jumps] == ["ip,ct_state=-trk", "ip,ct_state=+trk"]
    assert [j.match.rpartition("=")[2] for j in jumps] == ["0x1/0x33", "0x1/0x23"]
    assert [j.actions.partition("->")[0] for j in jumps] == ["load:0x1", "load:0x3"]


def test_ways_out() -> None:
    found = planned(
        mirrored("in_port=1", rank=4, ports=(WIRE,)),
        mirrored("ip", rank=3, ports=(VM,)),
        mirrored("tcp", rank=2, ports=(WIRE, VM), unsure="several"),
        mirrored("", rank=1),
        mirrored("udp", rank=1, ports=(GONE,)),
        mirrored("sctp", rank=1, unsure="controller"),
    )
    seen = {
        p.entry.match.rpartition(",")[0]: (p.hook.point, p.hook.ofport, p.hook.peer, RESTORE in p.entry.actions)
        for p in of_mirror(found)
    }
    assert seen == {
        "ip,in_port=1": (Point.REMOTE_OUTPUT, WIRE, "b/br0", False),
        "ip": (-1, 0, "", False),
        "tcp": (Point.EGRESS, VM, "", True),
        "udp": (-1, 0, "", True),
        "sctp": (-1, 0, "", True),
    } | {"ip": seen["ip"]}
    by_rank = {p.entry.priority: p.hook.point for p in of_mirror(found) if p.entry.match.startswith("ip,nw_tos")}
    assert by_rank == {5: Point.EGRESS, 1: -1}


def test_a_port_in_a_register() -> None:
    field = RegisterField(register=0, lsb=4, width=12)
    found = of_mirror(planned(mirrored("reg0=0x1/0xf,ip", field=field)))
    assert {(p.entry.match, p.entry.priority, p.hook.ofport, RESTORE in p.entry.actions) for p in found} == {
        (f"reg0=0x1/0xf,ip,nw_tos={USE.color << 2}", 1, SEVERAL_PORTS, True),
        (f"ip,reg0=0x11/0xffff,nw_tos={USE.color << 2}", 2, VM, True),
        (f"ip,reg0=0x21/0xffff,nw_tos={USE.color << 2}", 2, WIRE, False),
    }
    (only, fixed) = of_mirror(planned(mirrored("reg0=0x20/0xfff0", field=field)))
    assert (only.hook.ofport, fixed.hook.ofport) == (SEVERAL_PORTS, WIRE)


@pytest.mark.parametrize(
    ("macs", "kept"),
    [
        ([(WIRE, 0, "a", 5)], ["a"]),
        ([(WIRE, 0, "a", 5), (VM, 0, "b", 5)], ["a"]),
        ([(WIRE, 0, "a", 200)], []),
        ([(WIRE, 0, "a", 5), (WIRE, 7, "a", 5)], []),
        ([(WIRE, 0, "a", 5), (VM, 7, "b", 5)], []),
    ],
)
def test_normal_keeps_the_color_only_where_the_mac_table_leaves_no_doubt(
    macs: list[tuple[int, int, str, int]], kept: list[str]
) -> None:
    rows = tuple(LearnedMac(port=p, vlan=v, mac=m, age_s=a) for p, v, m, a in macs)
    found = of_mirror(planned(mirrored(normal=True), macs=rows))
    assert [p.entry.match.split("dl_dst=")[1][0] for p in found if RESTORE not in p.entry.actions] == kept


@pytest.mark.parametrize(
    ("match", "four", "six"),
    [
        ("", "ip", "ipv6"),
        ("in_port=1", "ip,in_port=1", "ipv6,in_port=1"),
        ("tcp,tp_dst=80", "tcp,tp_dst=80", None),
        ("icmp6", None, "icmp6"),
        ("arp", None, None),
        ("dl_type=0x86dd", None, "ipv6"),
        ("dl_type=0x88cc", None, None),
        ("ip,nw_tos=8", None, None),
    ],
)
def test_only_what_can_be_of_the_color(match: str, four: str | None, six: str | None) -> None:
    found = [
        p.entry.match.rpartition(",nw_tos")[0] for p in of_mirror(planned(mirrored(match, ports=(1,)), versions=(4, 6)))
    ]
    assert found == [want for want in (four, six) if want is not None]


PORTS = st.sampled_from([VM, WIRE, GONE, SEVERAL_PORTS])


@given(st.lists(st.tuples(st.integers(1, 40), st.lists(PORTS, max_size=3), st.booleans()), max_size=12))
def test_the_color_stays_only_towards_an_armed_bridge_or_for_the_entry_itself_to_pass_on(
    found: list[tuple[int, list[int], bool]],
) -> None:
    entries = [
        mirrored(f"in_port={n}", rank=r, ports=tuple(p), unsure="several" if len(p) > 1 else "", once=o and not p)
        for n, (r, p, o) in enumerate(found)
    ]
    everything = planned(*entries)
    cookies = [p.entry.cookie for p in everything]
    assert len(set(cookies)) == len(cookies)
    roles = [p.hook.role for p in everything]
    assert roles == sorted(roles, key=lambda role: role != Role.RESTORE), "what restores goes in first"
    for one in of_mirror(everything):
        assert one.entry.actions.endswith("resubmit(,5)"), "the entry itself decides"
        number = int(one.entry.match.partition("in_port=")[2].partition(",")[0])
        if RESTORE not in one.entry.actions:
            assert found[number][1] in ([], [WIRE])


def test_doubt_watches_ports() -> None:
    scope_entries = planned()
    assert scope_entries
    layout = PlainLayout(guard=GuardBits(register=7, lsb=0), tables=())
    scope = Scope(
        chassis="a", layout=layout, datapaths=(), ports=(), vifs=(), tunnels=(), armed_chassis=(), endpoints=()
    )
    (one,) = port_doubt_entries((VM,), scope, layout, USE, CLAIM, 9)
    assert one.entry.match == f"in_port=1,ip,nw_tos={USE.color << 2},reg7=0/0x3"
    assert (one.hook.role, one.hook.color) == (Role.DOUBT, USE.color)
