"""Each cause from a hand-made inspection, and a near-miss that must not give it (reasons.md).

Stage names are those of ovn-northd(8).
"""

from __future__ import annotations

import pytest
from builders import (
    DB,
    DB1,
    DEFAULT,
    FOREIGN,
    HV1,
    HV2,
    INVENTORY,
    PHYSICAL,
    R1,
    R1_DB,
    R1_WEB,
    TO_ROUTER,
    WEB,
    WEB1,
    WEB2,
    inspection,
    logical,
    port,
    step,
    without,
)
from msgspec.structs import replace

from vtrace.attribute.cause import Cause
from vtrace.attribute.causes import find_cause
from vtrace.model.inspection import Inspection, MeterReading, PortReading, ResolvedStep
from vtrace.model.inventory import Inventory

ACL = {"direction": "to-lport", "priority": "1000", "match": "ip4.src == 10.0.1.1", "owner": "web"}


def cause(found: Inspection, inventory: Inventory = INVENTORY) -> Cause:
    result = find_cause(found, inventory)
    assert result is not None
    return result


def told(result: Cause) -> tuple[str, str, str, str]:
    assert result.object is not None
    return (result.code, result.actor, result.object.type, result.object.uuid or result.object.name)


def acl(stage: str, action: str = "drop", actions: tuple[str, ...] = ("drop",), **place: int) -> ResolvedStep:
    return step(logical(stage, "…", table="ACL", action=action, name="no-web", **ACL), actions, **place)


PASSED = step(logical("ls_in_l2_lkup", "eth.dst == …", "output;"), ("resubmit(,39)",))
ROUTER = {"datapath": R1, "in_key": R1_WEB}


# --- logical flows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stage", ["ls_in_acl", "ls_out_acl", "ls_in_acl_eval", "ls_out_acl_eval", "ls_in_acl_after_lb"]
)
def test_acl_drop(stage: str) -> None:
    found = cause(inspection(acl(stage)))
    assert told(found) == ("acl_drop", "tenant", "ACL", "nb-ACL")
    assert "ip4.src == 10.0.1.1" in found.summary
    assert found.fix == "ovn-nbctl acl-del web to-lport 1000 'ip4.src == 10.0.1.1'"
    assert found.place.datapath == WEB


def test_acl_of_a_port_group_is_removed_from_the_port_group() -> None:
    row = {**ACL, "owner": "pg1", "owner_table": "Port_Group"}
    found = cause(inspection(step(logical("ls_out_acl", table="ACL", action="drop", **row))))
    assert found.fix == "ovn-nbctl --type=port-group acl-del pg1 to-lport 1000 'ip4.src == 10.0.1.1'"


def test_acl_drop_of_newer_ovn_where_the_action_has_a_stage_of_its_own() -> None:
    # Since 23.06 ls_*_acl_eval notes the verdict (reg8[17]) and ls_*_acl_action, which hints at no ACL, drops.
    evaluated = acl("ls_out_acl_eval", actions=("load:0x1->reg8", "resubmit(,47)"))
    found = cause(inspection(evaluated, step(logical("ls_out_acl_action", "reg8[17] == 1"))))
    assert told(found) == ("acl_drop", "tenant", "ACL", "nb-ACL")


def test_the_last_acl_evaluated_in_this_switch_is_the_one() -> None:
    elsewhere = acl("ls_out_acl_eval", actions=("resubmit(,47)",), datapath=DB)
    here = step(logical("ls_in_acl_eval", table="ACL", action="drop", name="right", **ACL), ("resubmit(,20)",))
    found = cause(inspection(here, elsewhere, step(logical("ls_in_acl_action", "reg8[17] == 1"))))
    assert found.object is not None
    assert found.object.name == "right"


def test_an_acl_that_allows_is_not_what_dropped() -> None:
    evaluated = acl("ls_in_acl_eval", "allow-related", ("resubmit(,20)",))
    found = find_cause(inspection(evaluated, step(logical("ls_in_acl_action", "1"))), INVENTORY)
    assert found is not None
    assert found.object is None or found.object.uuid != "nb-ACL"


def test_acl_reject() -> None:
    found = cause(inspection(acl("ls_in_acl", "reject", ("controller(userdata=…)",)), outcome="controller"))
    assert told(found) == ("acl_reject", "tenant", "ACL", "nb-ACL")


def test_an_acl_that_is_passed_is_no_cause() -> None:
    assert (
        find_cause(inspection(acl("ls_in_acl", "allow", ("resubmit(,20)",)), PASSED, outcome="output"), INVENTORY)
        is None
    )


def test_ct_invalid() -> None:
    found = cause(inspection(step(logical("ls_out_acl", "ct.inv || (ct.est && ct.rpl && ct_mark.blocked == 1)"))))
    assert told(found) == ("ct_invalid", "guest", "Logical_Flow", "ls_out_acl")


INVALID = "ct.inv || (ct.est && ct.rpl && ct_mark.blocked == 1)"


def test_ct_invalid_where_the_action_has_a_stage_of_its_own() -> None:
    evaluated = step(logical("ls_out_acl_eval", INVALID), ("resubmit(,52)",), match="ct_state=+inv+trk,metadata=0x2")
    allowed = acl("ls_in_acl_eval", "allow-related", ("resubmit(,20)",))
    found = cause(inspection(allowed, evaluated, step(logical("ls_out_acl_action", "reg8[17] == 1"))))
    assert told(found) == ("ct_invalid", "guest", "Logical_Flow", "ls_out_acl_action")


@pytest.mark.parametrize("stages", [("ls_in_acl",), ("ls_in_acl_eval", "ls_in_acl_action")])
def test_a_reply_on_a_blocked_connection_is_not_invalid(stages: tuple[str, ...]) -> None:
    steps = [step(logical(stage, INVALID), match="ct_state=+est+rpl+trk,ct_mark=0x1/0x1") for stage in stages]
    found = cause(inspection(*steps))
    assert told(found)[:3] == ("acl_drop", "tenant", "ACL")


@pytest.mark.parametrize("stage", ["ls_in_check_port_sec", "ls_in_apply_port_sec", "ls_in_port_sec_l2"])
def test_port_security_of_the_source(stage: str) -> None:
    found = cause(inspection(step(logical(stage, "reg0[15] == 1"))))
    assert told(found) == ("port_security", "tenant", "Logical_Switch_Port", "nb-web1")
    assert "10.0.1.1" in found.summary


@pytest.mark.parametrize("stage", ["ls_out_check_port_sec", "ls_out_apply_port_sec"])
def test_port_security_of_the_destination(stage: str) -> None:
    found = cause(inspection(step(logical(stage), out_key=WEB2)))
    assert told(found) == ("port_security", "tenant", "Logical_Switch_Port", "nb-web2")


def test_port_disabled_is_not_port_security() -> None:
    inventory = without(INVENTORY, web1=port("web1", enabled=False))
    found = cause(inspection(step(logical("ls_in_check_port_sec", 'inport == "web1"'))), inventory)
    assert told(found) == ("port_disabled", "tenant", "Logical_Switch_Port", "nb-web1")
    assert found.fix == "ovn-nbctl lsp-set-enabled web1 enabled"


def test_another_disabled_port_is_no_cause() -> None:
    inventory = without(INVENTORY, web2=port("web2", enabled=False))
    assert cause(inspection(step(logical("ls_in_check_port_sec"))), inventory).code == "port_security"


def test_no_route() -> None:
    found = cause(inspection(step(logical("lr_in_ip_routing"), **ROUTER)))
    assert told(found) == ("no_route", "tenant", "Logical_Router", "nb-r1")


def test_what_a_router_could_not_do_names_the_addresses() -> None:
    seen = {"dst": "10.7.0.1", "next_hop": "10.0.2.9", "eth_dst": "0a:00:00:00:00:07"}
    route = cause(inspection(step(logical("lr_in_ip_routing"), **ROUTER), **seen))
    hop = cause(inspection(step(logical("lr_in_arp_resolve"), out_key=R1_DB, **ROUTER), **seen))
    mac = cause(inspection(step(logical("ls_in_l2_unknown", 'outport == "none"')), **seen))
    ttl = cause(inspection(step(logical("lr_in_ip_input", "ip4 && ip.ttl == {0, 1}"), **ROUTER), **seen))
    assert "10.7.0.1" in route.summary
    assert "lr-route-add r1 10.7.0.1 NEXTHOP" in str(route.fix)
    assert "10.0.2.9" in hop.summary
    assert "10.7.0.1" in hop.summary
    assert "r1-db" in hop.summary
    assert "10.0.2.9" in str(hop.fix)
    assert "0a:00:00:00:00:07" in mac.summary
    assert "0a:00:00:00:00:07 10.7.0.1" in str(mac.fix)
    assert "10.7.0.1" in ttl.summary
    assert ttl.fix == "ovn-nbctl lr-route-list r1; does the sender give its packets a higher TTL?"


def test_blackhole_route() -> None:
    route = logical("lr_in_ip_routing", table="Logical_Router_Static_Route", ip_prefix="10.0.2.0/24", nexthop="discard")
    found = cause(inspection(step(route, **ROUTER)))
    assert told(found) == ("blackhole_route", "tenant", "Logical_Router_Static_Route", "nb-Logical_Router_Static_Route")
    assert found.fix == "ovn-nbctl lr-route-del r1 10.0.2.0/24"


def test_a_route_that_is_passed_is_no_cause() -> None:
    route = logical(
        "lr_in_ip_routing", table="Logical_Router_Static_Route", ip_prefix="10.0.2.0/24", nexthop="10.0.2.1"
    )
    assert (
        find_cause(inspection(step(route, ("resubmit(,21)",), **ROUTER), PASSED, outcome="tunnel"), INVENTORY) is None
    )


def test_policy() -> None:
    row = logical("lr_in_policy", table="Logical_Router_Policy", priority="10", match="ip4", action="drop")
    found = cause(inspection(step(row, **ROUTER)))
    assert told(found) == ("policy_route_drop", "tenant", "Logical_Router_Policy", "nb-Logical_Router_Policy")


def test_a_policy_stage_without_a_policy_is_not_a_policy() -> None:
    assert cause(inspection(step(logical("lr_in_policy"), **ROUTER))).code != "policy_route_drop"


def test_ttl() -> None:
    found = cause(inspection(step(logical("lr_in_ip_input", "ip4 && ip.ttl == {0, 1}"), **ROUTER)))
    assert told(found) == ("ttl_exceeded", "tenant", "Logical_Router", "nb-r1")


def test_another_drop_of_the_same_stage_is_not_the_ttl() -> None:
    assert cause(inspection(step(logical("lr_in_ip_input", "ip4.src == 255.255.255.255"), **ROUTER))).code == "unknown"


@pytest.mark.parametrize(
    ("stage", "outcome"), [("lr_in_arp_resolve", "drop"), ("lr_in_arp_request", "controller")], ids=str
)
def test_neighbor_unresolved(stage: str, outcome: str) -> None:
    found = cause(inspection(step(logical(stage), out_key=R1_DB, **ROUTER), outcome=outcome))
    assert told(found) == ("neighbor_unresolved", "provider", "Logical_Router_Port", "nb-r1-db")


def test_the_arp_responder_is_not_an_unresolved_neighbor() -> None:
    assert cause(inspection(step(logical("ls_in_arp_rsp")))).code == "unknown"


@pytest.mark.parametrize("stage", ["ls_in_l2_unknown", "ls_in_l2_lkup"])
def test_unknown_mac(stage: str) -> None:
    found = cause(inspection(step(logical(stage, 'outport == "none"'))))
    assert told(found) == ("unknown_destination_mac", "tenant", "Logical_Switch", "nb-web")


def test_load_balancer_without_backend() -> None:
    found = cause(inspection(step(logical("ls_in_lb", table="Load_Balancer", name="lb1"))))
    assert told(found) == ("lb_no_backend", "tenant", "Load_Balancer", "nb-Load_Balancer")


def test_a_stage_that_nobody_foresaw_is_unknown_and_names_itself() -> None:
    found = cause(inspection(step(logical("ls_in_new_stage", "x == 1"))))
    assert told(found) == ("unknown", "unknown", "Logical_Flow", "ls_in_new_stage")
    assert found.confidence <= 0.5


# --- others' entries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cookie", [0xDEAD, 0], ids=["with cookie", "without cookie"])
@pytest.mark.parametrize("table", [0, 20, 65])
def test_foreign_flow_entry(cookie: int, table: int) -> None:
    found = cause(inspection(PASSED, step(FOREIGN, cookie=cookie, table=table, match="ip", priority=200)))
    assert told(found) == ("foreign_flow_entry", "provider", "OpenFlow entry", hex(cookie))
    assert found.fix is not None
    assert f"table={table},priority=200,ip,cookie={cookie:#x}/-1" in found.fix
    assert found.fix.startswith("on hv1: ")


def test_ovns_own_default_entry_is_not_foreign() -> None:
    assert find_cause(inspection(PASSED, step(DEFAULT, cookie=0, table=0)), INVENTORY) is None


def test_two_foreign_entries_without_a_cookie_are_two_causes() -> None:
    one = cause(inspection(step(FOREIGN, cookie=0, match="ip", priority=200)))
    two = cause(inspection(step(FOREIGN, cookie=0, match="tcp", priority=300)))
    assert one.key != two.key


def test_a_foreign_entry_wins_over_what_its_wrong_result_looks_like() -> None:
    diverted = step(FOREIGN, ("load:0x9->NXM_NX_REG15[]", "resubmit(,39)"))
    assert cause(inspection(diverted, step(DEFAULT, table=40, out_key=9))).code == "foreign_flow_entry"


def test_lagging_bridge() -> None:
    found = cause(replace(inspection(PASSED), lagging="nb_cfg 7, chassis at 5"))
    assert told(found) == ("stale_flow_entry", "provider", "Chassis", HV1)
    assert found.fix is not None
    assert "restart ovn-controller" in found.fix


def test_what_is_to_be_done_depends_on_what_keeps_ovn_controller_from_its_work() -> None:
    lagging = replace(inspection(PASSED), lagging="…")
    fixes = {
        state: cause(replace(lagging, controller=state)).fix
        for state in ("does not answer", "is not connected to the southbound database", "is paused")
    }
    assert "alive, stopped, busy" in str(fixes["does not answer"])
    assert "ovn-remote" in str(fixes["is not connected to the southbound database"])
    assert "debug/resume" in str(fixes["is paused"])


def test_a_controller_that_does_not_answer_is_no_cause_by_itself() -> None:
    assert find_cause(replace(inspection(PASSED, outcome="output"), controller="does not answer"), INVENTORY) is None


# --- physical tables ---------------------------------------------------------------------------------------


def last_default(key: int, datapath: int = WEB) -> ResolvedStep:
    """OVN's own drop at the end of local output (table 40): nothing for this out port."""
    return step(DEFAULT, table=40, cookie=0, priority=0, datapath=datapath, out_key=key)


def test_port_unbound() -> None:
    inventory = without(INVENTORY, web2=port("web2", chassis=""))
    found = cause(inspection(PASSED, last_default(WEB2)), inventory)
    assert told(found) == ("port_unbound", "provider", "Logical_Switch_Port", "nb-web2")


def test_a_port_bound_elsewhere_is_not_unbound() -> None:
    assert find_cause(inspection(PASSED, last_default(WEB2)), INVENTORY) is None


def test_the_port_of_another_datapath_with_the_same_key_is_not_meant() -> None:
    inventory = without(INVENTORY, web1=port("web1", chassis=""))
    assert (WEB1, DB1) == (2, 2)
    assert find_cause(inspection(PASSED, last_default(DB1, DB)), inventory) is None


def test_a_disabled_out_port_is_not_unbound() -> None:
    inventory = without(INVENTORY, web2=port("web2", chassis="", enabled=False))
    assert cause(inspection(PASSED, last_default(WEB2)), inventory).code == "port_disabled"


def test_a_patch_port_is_never_unbound() -> None:
    # ovn-controller binds no patch port to a chassis.
    assert find_cause(inspection(PASSED, last_default(TO_ROUTER)), INVENTORY) is None


def test_vif_missing_on_its_own_chassis() -> None:
    found = cause(inspection(PASSED, last_default(WEB2), chassis=HV2))
    assert told(found) == ("vif_down", "guest", "Interface", "web2")
    assert found.fix is not None
    assert found.fix.startswith("on hv2: ")


READING = PortReading(
    name="tap2",
    ofport=6,
    kind="",
    admin_up=True,
    link_up=True,
    error="",
    tx_dropped=0,
    rx_dropped=0,
    tx_errors=0,
)
OUT = step(PHYSICAL, ("output:6",), table=65, out_key=WEB2)


def handed_out(**changes: object) -> Inspection:
    reading = replace(READING, **changes)
    return inspection(PASSED, OUT, outcome="output", outputs=("6",), chassis=HV2, ports=(reading,))


@pytest.mark.parametrize(
    "state", [{"admin_up": False}, {"link_up": False}, {"error": "could not open network device tap2"}], ids=str
)
def test_vif_down(state: dict[str, object]) -> None:
    assert told(cause(handed_out(**state))) == ("vif_down", "guest", "Interface", "tap2")


def test_what_a_queue_dropped_is_no_cause_of_what_never_came_to_it() -> None:
    assert find_cause(handed_out(tx_dropped=3), INVENTORY) is None


def test_another_interface_that_is_down_or_dropped_is_no_cause() -> None:
    assert find_cause(handed_out(ofport=60, link_up=False, tx_dropped=9), INVENTORY) is None


def test_an_interface_that_is_well_is_no_cause() -> None:
    assert find_cause(handed_out(rx_dropped=5), INVENTORY) is None


QOS = logical(
    "ls_in_qos_meter",
    table="QoS",
    match="ip4",
    direction="from-lport",
    priority="100",
    owner="web",
    bandwidth="rate=100",
)


def limited(cut: int, meter: int = 3) -> Inspection:
    reading = MeterReading(meter_id=meter, rate=0, cut_packets=cut)
    return inspection(step(QOS, ("meter:3", "resubmit(,20)")), OUT, outcome="output", meters=(reading,))


def test_metered_by_a_qos_row() -> None:
    found = cause(limited(40))
    assert told(found) == ("qos_rate_limit", "tenant", "QoS", "nb-QoS")
    assert "40 packets" in found.summary
    assert found.fix == "ovn-nbctl qos-del web from-lport 100 'ip4'"
    assert found.confidence == 1.0


def test_a_limit_above_the_rate_is_no_cause() -> None:
    assert find_cause(limited(0), INVENTORY) is None


def test_a_meter_that_is_not_on_the_way_is_no_cause() -> None:
    assert find_cause(limited(40, meter=33), INVENTORY) is None


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        ("native tunnel routing failed", "tunnel_unreachable", "Tunnel"),
        ("neighbor cache miss for 192.0.2.2 on bridge br-phy, sending ARP request", "tunnel_unreachable", "Tunnel"),
        ("over 4096 resubmit actions", "vswitch_pipeline_error", "Chassis"),
        ("over max translation depth 64", "vswitch_pipeline_error", "Chassis"),
    ],
)
def test_translation_errors(error: str, code: str, kind: str) -> None:
    found = cause(inspection(PASSED, errors=(error,)))
    assert found.object is not None
    assert (found.code, found.actor, found.object.type) == (code, "provider", kind)
    assert error in found.summary


def test_a_tunnel_port_that_there_is_not() -> None:
    """The tunnel key is given just before; without one it is any other port that there is not."""
    error = ("Nonexistent output port",)
    sent = step(logical("…"), ("set_field:0x4002/0xffffff->tun_id", "output:6", "resubmit(,40)"))
    assert cause(inspection(sent, errors=error)).code == "tunnel_unreachable"
    other = step(logical("…"), ("output:6",))
    assert cause(inspection(other, errors=error)).code == "vswitch_pipeline_error"


# --- what holds for all ------------------------------------------------------------------------------------


def test_a_packet_that_passes_has_no_cause() -> None:
    assert find_cause(inspection(PASSED, OUT, outcome="output", outputs=("6",)), INVENTORY) is None
    assert find_cause(inspection(PASSED, outcome="tunnel"), INVENTORY) is None
    assert find_cause(inspection(), INVENTORY) is None


@pytest.mark.parametrize(("real_drop", "confidence"), [(True, 1.0), (False, 0.8), (None, 0.8)])
def test_confidence_is_1_where_it_was_seen_acting_on_the_packet(real_drop: bool | None, confidence: float) -> None:
    assert cause(inspection(acl("ls_in_acl"), real_drop=real_drop)).confidence == confidence


def test_an_unknown_cause_stays_a_guess_when_the_drop_was_seen() -> None:
    found = cause(inspection(step(logical("ls_in_new_stage")), real_drop=True))
    assert (found.code, found.confidence) == ("unknown", 0.5)


def test_evidence_names_command_entry_server_and_time() -> None:
    (found,) = cause(inspection(acl("ls_in_acl"), at=5)).evidence
    assert found.source == "ovs-appctl ofproto/trace br-int 'in_port=5,udp'"
    assert "table=20,priority=100,cookie=0xc0ffee actions=drop" in found.text
    assert (found.chassis, found.at) == ("hv1", "2023-11-14T22:13:25.000Z")


def test_a_provider_bridge_without_a_way_out() -> None:
    found = find_cause(handed_out(kind="patch", cut_off=True, behind=("eth1", "br-ex")), INVENTORY)
    assert found is not None
    assert (found.code, found.actor) == ("vif_down", "provider")
    assert found.object is not None
    assert found.object.name == "eth1"
    assert find_cause(handed_out(kind="patch", behind=("eth1", "br-ex")), INVENTORY) is None
