"""What logs colored packets and takes the color off: nothing missing from the inventory may let a color out."""

from __future__ import annotations

import re

import pytest
from builders import (
    CLAIM,
    DATAPATHS,
    DB,
    DB1,
    GW,
    HV1,
    HV2,
    LAYOUT,
    PORTS,
    R1,
    R1_DB,
    R1_WEB,
    TO_ROUTER,
    USE,
    WEB,
    WEB1,
    WEB2,
    port,
    scope,
    tunnel,
)
from msgspec.structs import replace

from vtrace.color import registry
from vtrace.color.registry import Role
from vtrace.match.entries import PRIORITY_ANY_PORT, match_entries
from vtrace.model.inventory import LogicalPort
from vtrace.model.plan import PlannedEntry, Scope, TimeLimits
from vtrace.model.record import Point

LIMITS = TimeLimits(color_s=35, match_s=40, restore_s=45)
COPY = "controller(max_len=192,id=23228,meter_id=499)"
REMOTE, PHYSICAL = LAYOUT.remote_output, LAYOUT.log_to_physical


def entries(where: Scope | None = None) -> tuple[PlannedEntry, ...]:
    return match_entries(where or scope(), USE, CLAIM, LIMITS)


def fields(planned: PlannedEntry) -> dict[str, str]:
    return dict(term.partition("=")[::2] for term in planned.entry.match.split(","))


def at(found: tuple[PlannedEntry, ...], table: int, datapath: int, key: int | None = None) -> list[PlannedEntry]:
    """The entries of a table and logical datapath for one out port, or (None) for any."""
    wanted = None if key is None else hex(key)
    return [
        planned
        for planned in found
        if planned.entry.table == table
        and fields(planned).get("metadata") == hex(datapath)
        and fields(planned).get("reg15") == wanted
    ]


def restores(planned: PlannedEntry) -> bool:
    return f"load:0x{USE.original_dscp:x}->NXM_OF_IP_TOS[2..7]" in planned.entry.actions


def test_any_port_entries_as_text() -> None:
    found = [p.entry.text() for p in entries(scope(datapaths=DATAPATHS[:1], ports=(), tunnels=()))]
    back = f"{COPY},load:0xa->NXM_OF_IP_TOS[2..7]"
    assert found == [
        "table=39,priority=65534,cookie=0x56543abc1c000001,hard_timeout=45,ip,metadata=0x1,nw_tos=28,"
        f"reg10=0/0x8000000,actions=clone(load:0x2->NXM_NX_REG10[26..27],{back},resubmit(,39))",
        "table=65,priority=65534,cookie=0x56543abc1c000002,hard_timeout=45,ip,metadata=0x1,nw_tos=28,"
        f"reg10=0/0x8000000,actions=clone(load:0x3->NXM_NX_REG10[26..27],{back},resubmit(,65))",
        "table=65,priority=65534,cookie=0x56543abc1c000003,hard_timeout=45,ip,metadata=0x1,nw_tos=28,"
        f"reg10=0x8000000/0xc000000,actions=clone(load:0x3->NXM_NX_REG10[26..27],{back},resubmit(,65))",
    ]


def test_known_port_and_ingress_entries_as_text() -> None:
    where = scope(datapaths=DATAPATHS[:1], ports=(port("web2"),), tunnels=(tunnel(HV2, 20),))
    found = [p.entry.text() for p in entries(where)][3:]
    assert found == [
        "table=39,priority=65535,cookie=0x56542abc1c000004,hard_timeout=40,ip,metadata=0x1,reg15=0x3,nw_tos=28,"
        f"reg10=0/0x8000000,actions=clone(load:0x2->NXM_NX_REG10[26..27],{COPY},resubmit(,39))",
        "table=0,priority=65535,cookie=0x56542abc1c000005,hard_timeout=40,in_port=20,tun_id=0x1,ip,nw_tos=28,"
        f"reg10=0/0xc000000,actions=load:0x1->NXM_NX_REG10[26..27],{COPY},resubmit(,0)",
    ]


@pytest.mark.parametrize("versions", [(4,), (6,), (4, 6)])
@pytest.mark.parametrize("ports", [PORTS, ()], ids=["known", "nothing known"])
def test_every_datapath_restores_at_any_port_in_both_tables(
    versions: tuple[int, ...], ports: tuple[LogicalPort, ...]
) -> None:
    found = entries(scope(ip_versions=versions, ports=ports))
    for datapath in DATAPATHS:
        for table, guards in ((REMOTE, 1), (PHYSICAL, 2)):
            here = at(found, table, datapath.key)
            assert len(here) == guards * len(versions)
            assert all(restores(p) and p.entry.priority == PRIORITY_ANY_PORT for p in here)
            assert all(p.hook.restores and p.hook.role == Role.RESTORE for p in here)
            assert {"ip" in fields(p) for p in here} == {version == 4 for version in versions}


def test_entries_that_restore_come_first() -> None:
    roles = [p.hook.role for p in entries()]
    assert roles == sorted(roles, key=lambda role: role != Role.RESTORE)


def kept(found: tuple[PlannedEntry, ...], table: int) -> set[tuple[int, int]]:
    """The (datapath, port) whose packets keep the color in a table."""
    return {
        (int(fields(p)["metadata"], 0), int(fields(p)["reg15"], 0))
        for p in found
        if p.entry.table == table and "reg15" in fields(p) and not restores(p)
    }


PATCHES = {(WEB, TO_ROUTER), (R1, R1_WEB), (R1, R1_DB), (DB, TO_ROUTER)}


def test_only_ports_that_lead_to_armed_places_keep_the_color() -> None:
    found = entries(scope(HV1))
    # The own VIF is restored in the later table; web2 and db1 are across a tunnel, on an armed chassis.
    assert kept(found, REMOTE) == PATCHES | {(WEB, WEB1), (WEB, WEB2), (DB, DB1)}
    assert kept(found, PHYSICAL) == PATCHES


def test_no_entry_both_keeps_and_restores() -> None:
    for planned in entries():
        assert restores(planned) == (planned.hook.role == Role.RESTORE)


def test_a_patch_into_an_unarmed_datapath_does_not_keep_the_color() -> None:
    found = entries(scope(datapaths=tuple(d for d in DATAPATHS if d.key != R1)))
    assert not {(WEB, TO_ROUTER), (DB, TO_ROUTER)} & (kept(found, REMOTE) | kept(found, PHYSICAL))


def test_a_vif_that_is_no_endpoint_does_not_keep_the_color() -> None:
    found = entries(scope(endpoints=("web1", "db1")))
    assert (WEB, WEB2) not in kept(found, REMOTE)


def test_what_goes_to_a_chassis_without_an_agent_is_restored_here_and_says_where_it_goes() -> None:
    found = entries(scope(armed_chassis=(HV1,), tunnels=()))
    assert kept(found, REMOTE) == PATCHES | {(WEB, WEB1)}
    (entry,) = at(found, REMOTE, WEB, WEB2)
    assert restores(entry)
    assert entry.entry.hard_timeout_s == LIMITS.restore_s
    assert (entry.hook.peer, entry.hook.point) == (HV2, Point.REMOTE_OUTPUT)


def test_an_unbound_vif_does_not_keep_the_color() -> None:
    ports = (port("web1"), port("web2", chassis=""))
    assert (WEB, WEB2) not in kept(entries(scope(ports=ports)), REMOTE)


GATEWAY = LogicalPort(name="cr-r1-out", key=9, datapath=R1, type="chassisredirect", chassis=GW)
L3GATEWAY = LogicalPort(name="r1-gr", key=8, datapath=R1, type="l3gateway", chassis=GW, peer="x", peer_datapath=DB)


@pytest.mark.parametrize("gateway", [GATEWAY, L3GATEWAY], ids=["chassisredirect", "l3gateway"])
def test_a_port_of_an_armed_gateway_keeps_the_color_and_logs_where_to(gateway: LogicalPort) -> None:
    (found,) = at(entries(scope(ports=(gateway,))), REMOTE, R1, gateway.key)
    assert not restores(found)
    assert found.hook.peer == GW
    assert COPY in found.entry.actions


@pytest.mark.parametrize("gateway", [GATEWAY, L3GATEWAY], ids=["chassisredirect", "l3gateway"])
def test_a_port_of_a_gateway_without_an_agent_does_not_keep_the_color(gateway: LogicalPort) -> None:
    # Nothing on that gateway would take the color off again.
    found = entries(scope(ports=(gateway,), armed_chassis=(HV1, HV2)))
    assert (R1, gateway.key) not in kept(found, REMOTE)
    assert {p.hook.peer for p in at(found, REMOTE, R1, gateway.key)} == {GW}


@pytest.mark.parametrize(("bare", "keeps"), [(HV2, False), (HV1, True)], ids=["bare", "another is"])
def test_a_port_whose_standby_has_none_of_our_entries_does_not_keep_the_color(bare: str, keeps: bool) -> None:
    # Open vSwitch changes over to it by itself (BFD), before the southbound database says so.
    found = entries(scope(ports=(replace(GATEWAY, standby=(HV2,)),), bare=(bare,)))
    assert ((R1, GATEWAY.key) in kept(found, REMOTE)) == keeps
    assert {p.hook.peer for p in at(found, REMOTE, R1, GATEWAY.key)} == {GW}


def test_an_unbound_gateway_port_does_not_keep_the_color() -> None:
    found = entries(scope(ports=(replace(GATEWAY, chassis=""),)))
    assert (R1, GATEWAY.key) not in kept(found, REMOTE)


def test_the_own_gateway_port_is_no_remote_output() -> None:
    found = at(entries(scope(GW, ports=(GATEWAY,))), REMOTE, R1, GATEWAY.key)
    assert [p.hook.peer for p in found] == [""]


def test_a_localnet_port_restores_where_the_packet_leaves() -> None:
    localnet = LogicalPort(name="provnet", key=7, datapath=WEB, type="localnet")
    found = entries(scope(ports=(localnet,)))
    assert (WEB, 7) not in kept(found, PHYSICAL)


def test_remote_output_names_the_chassis_it_goes_to() -> None:
    found = entries(scope(HV1))
    assert {p.hook.peer for p in at(found, REMOTE, WEB, WEB2)} == {HV2}
    assert {p.hook.peer for p in at(found, REMOTE, WEB, WEB1)} == {""}
    assert {p.hook.point for p in at(found, REMOTE, WEB, WEB2)} == {Point.REMOTE_OUTPUT}


def test_ingress_is_scoped_by_port_and_tunnel_id() -> None:
    found = [p for p in entries(scope(HV1)) if p.hook.point == Point.INGRESS]
    # Two tunnels (ofports 20 and 21: hv2 and the gateway), three datapaths.
    assert {(fields(p)["in_port"], fields(p)["tun_id"], p.hook.peer, p.hook.datapath) for p in found} == {
        (ofport, hex(key), peer, key) for ofport, peer in (("20", HV2), ("21", GW)) for key in (WEB, DB, R1)
    }
    assert len(found) == 6


def test_vxlan_matches_the_datapath_bits_of_the_vni_alone() -> None:
    # ovn-architecture(7), "Tunnel Encapsulations": with VXLAN 12 bits of the VNI are the logical datapath.
    found = entries(scope(tunnels=(tunnel(HV2, 20, "vxlan"),)))
    assert {fields(p)["tun_id"] for p in found if p.hook.point == Point.INGRESS} == {
        "0x1/0xfff",
        "0x2/0xfff",
        "0x3/0xfff",
    }


@pytest.mark.parametrize("where", [scope(HV1), scope(HV2), scope(GW), scope(HV1, ip_versions=(4, 6))])
def test_what_holds_for_every_entry(where: Scope) -> None:
    for planned in entries(where):
        entry, found = planned.entry, fields(planned)
        assert registry.is_ours(entry.cookie)
        assert registry.generation_of(entry.cookie) == CLAIM.generation
        assert registry.color_of(entry.cookie) == USE.color
        assert registry.role_of(entry.cookie) == planned.hook.role
        assert found["nw_tos"] == "28"
        assert "reg10" in found
        if entry.table == 0:
            assert {"in_port", "tun_id"} <= found.keys()
            assert "clone(" not in entry.actions
        else:
            assert found["metadata"] in ("0x1", "0x2", "0x3")
            assert entry.actions.startswith("clone(")
            assert entry.actions.endswith(f"resubmit(,{entry.table}))")
        assert entry.hard_timeout_s == (45 if restores(planned) else 40), "match dies before restore"
        for copy in re.findall(r"controller\([^)]*\)", entry.actions):
            assert copy == COPY
        hook = planned.hook
        assert (hook.color, hook.epoch, hook.original_dscp, hook.pair) == (7, 3, 10, -1)


@pytest.mark.parametrize("chassis", [HV1, HV2, GW])
def test_cookies_and_places_are_unique(chassis: str) -> None:
    found = entries(scope(chassis, ip_versions=(4, 6)))
    assert len({p.entry.cookie for p in found}) == len(found)
    assert len({(p.entry.table, p.entry.priority, p.entry.match) for p in found}) == len(found)


def test_two_colors_do_not_replace_each_others_entries() -> None:
    one = {(p.entry.table, p.entry.match) for p in entries()}
    two = {(p.entry.table, p.entry.match) for p in match_entries(scope(), replace(USE, color=11), CLAIM, LIMITS)}
    assert not one & two


def test_the_same_scope_gives_the_same_entries() -> None:
    assert entries() == entries()
