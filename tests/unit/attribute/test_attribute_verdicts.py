"""From records and inspections to verdicts, by the rules of design.md ("The answer") and reasons.md."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from builders import (
    DB,
    DB1,
    DEFAULT,
    FOREIGN,
    GW,
    HV1,
    HV2,
    INVENTORY,
    PHYSICAL,
    PROPERTY,
    R1,
    R1_DB,
    R1_WEB,
    TO_ROUTER,
    WEB,
    WEB1,
    WEB2,
    Recorder,
    case,
    inspection,
    logical,
    pair,
    port,
    step,
    without,
)
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from vtrace.attribute.case import TunnelCheck
from vtrace.attribute.verdicts import Attribution, attribute
from vtrace.model.answer import Packets, Verdict
from vtrace.model.inspection import Inspection, PortReading
from vtrace.model.inventory import LogicalPort
from vtrace.model.record import Point, flow_id
from vtrace.model.task import Direction

ACL_STEP = step(
    logical("ls_out_acl", table="ACL", action="drop", direction="to-lport", priority="9", match="ip4", owner="web"),
    table=44,
    out_key=WEB2,
)
PASSES = step(logical("ls_in_l2_lkup"), ("resubmit(,39)",))


def blocked(at: int = 1, chassis: str = HV2, **fields: object) -> Inspection:
    return inspection(PASSES, ACL_STEP, chassis=chassis, at=at, **fields)


def passes(chassis: str = HV2, at: int = 1, outcome: str = "output", **fields: object) -> Inspection:
    return inspection(PASSES, outcome=outcome, chassis=chassis, at=at, **fields)


def log_of(fates: str) -> Recorder:
    """A packet for each sign: "." arrives, "x" ends on hv2 after it came in, "-" is lost between hv1 and hv2."""
    log = Recorder()
    for key, fate in enumerate(fates):
        log.first(key)
        log.sent(key)
        if fate != "-":
            log.came(key)
        if fate == ".":
            log.out(key)
    return log


def only(found: Attribution) -> Verdict:
    (verdict,) = found.verdicts
    return verdict


def lost(found: Attribution) -> list[Verdict]:
    return [v for v in found.verdicts if v.kind in ("dropped", "lost_between")]


def code(verdict: Verdict) -> str:
    return verdict.why.code if verdict.why else ""


# --- delivered ---------------------------------------------------------------------------------------------


def test_all_delivered() -> None:
    found = attribute(case(log_of("." * 10).records))
    verdict = only(found)
    assert (verdict.kind, verdict.packets, verdict.pattern, verdict.why) == ("delivered", 10, None, None)
    assert (verdict.from_, verdict.to, verdict.direction) == ("web1", "web2", "forward")
    where = verdict.where
    assert (where.server, where.server_ip, where.vfd, where.vfd_kind) == ("hv2", "192.0.2.2", "web", "vswitch")
    assert (where.port, where.next_server, where.next_vfd) == ("web2", None, None)
    assert (found.loss, found.loss_ratio, found.pattern) == ("no", 0.0, None)
    assert found.packets == Packets(colored=10, delivered=10)


def test_names_of_a_reply_are_those_of_the_task() -> None:
    # web1 sends the reply: the task is from web2 to web1.
    verdict = only(attribute(case(log_of(".").records, pairs=[pair(direction=Direction.REPLY)], reply_asked=True)))
    assert (verdict.from_, verdict.to, verdict.direction) == ("web2", "web1", "reply")


def test_only_the_first_n_count() -> None:
    found = attribute(case(log_of("." * 5 + "x" * 5).records, [blocked()], packets_asked=5))
    assert found.packets == Packets(colored=5, delivered=5)
    assert found.loss == "no"


# --- dropped -----------------------------------------------------------------------------------------------


def test_dropped_by_an_acl_at_the_destination() -> None:
    found = attribute(case(log_of("xxx").records, [blocked(real_drop=True)]))
    verdict = only(found)
    assert (verdict.kind, verdict.packets, verdict.pattern, code(verdict)) == ("dropped", 3, "persistent", "acl_drop")
    assert verdict.confidence == 1.0
    where = verdict.where
    assert (where.server, where.vfd, where.vfd_kind, where.port) == ("hv2", "web", "vswitch", "web2")
    assert (where.next_server, where.next_vfd) == (None, None)
    assert (found.loss, found.loss_ratio) == ("yes", 1.0)


def test_dropped_in_the_router_after_the_switch() -> None:
    log = Recorder()
    log.first(1)
    log.passed(1, HV1, WEB, WEB1, TO_ROUTER)
    drop = step(logical("lr_in_ip_routing"), datapath=R1, in_key=R1_WEB)
    verdict = only(attribute(case(log.records, [inspection(PASSES, drop)], pairs=[pair("web1", "db1")])))
    assert code(verdict) == "no_route"
    where = verdict.where
    assert (where.server, where.vfd, where.vfd_kind, where.port) == ("hv1", "r1", "vrouter", "r1-web")


def test_without_an_inspection_the_cause_is_unknown_and_a_guess() -> None:
    verdict = only(attribute(case(log_of("x").records)))
    assert (verdict.kind, code(verdict)) == ("dropped", "unknown")
    assert verdict.confidence <= 0.5
    assert verdict.where.server == "hv2"


def test_an_inspection_that_shows_nothing_leaves_it_unknown() -> None:
    verdict = only(attribute(case(log_of("x").records, [passes()])))
    assert code(verdict) == "unknown"
    assert verdict.why is not None
    assert verdict.why.evidence


def test_an_inspection_of_another_pair_or_server_is_not_used() -> None:
    for other in (blocked(number=1), blocked(chassis=GW)):
        assert code(only(attribute(case(log_of("x").records, [other])))) == "unknown"


def test_the_inspection_nearest_in_time_on_that_server_decides() -> None:
    log = log_of("x")
    at_ns = log.records[-1].mono_ns
    near = blocked(at=2, mono_ns=at_ns + 1_000)
    far = inspection(PASSES, step(FOREIGN), chassis=HV2, at=1, mono_ns=at_ns + 10**12)
    verdict = attribute(case(log.records, [far, near])).verdicts[0]
    assert code(verdict) == "acl_drop"


def test_the_inspection_of_the_packets_own_flow_decides() -> None:
    log = log_of("x")
    own = flow_id(log.records[0])
    at_ns = log.records[-1].mono_ns
    other = inspection(PASSES, step(FOREIGN), chassis=HV2, mono_ns=at_ns, flow_id=f"{own} of another")
    mine = blocked(mono_ns=at_ns + 10**12, flow_id=own)
    assert code(only(attribute(case(log.records, [other, mine])))) == "acl_drop"


def test_another_flow_of_the_same_protocol_stands_in_for_one_that_nobody_asked_about() -> None:
    log = log_of("x")
    assert code(only(attribute(case(log.records, [blocked(flow_id="17 other")])))) == "acl_drop"
    assert code(only(attribute(case(log.records, [blocked(flow_id="6 other")])))) == "unknown"


def test_what_another_flow_meets_after_its_port_does_not_touch_what_was_delivered() -> None:
    log = log_of(".")
    foreign = step(FOREIGN, table=65, priority=200, cookie=0, out_key=WEB2)
    after = inspection(PASSES, foreign, chassis=HV2, flow_id="17 other")
    assert only(attribute(case(log.records, [after]))).kind == "delivered"


def test_a_record_of_the_port_is_no_proof_of_leaving() -> None:
    # facts-ovs-ovn.md: a foreign drop in table 65 below our entry leaves an egress record.
    foreign = step(FOREIGN, table=65, priority=200, cookie=0, out_key=WEB2)
    verdict = only(attribute(case(log_of("...").records, [inspection(PASSES, foreign, chassis=HV2)])))
    assert (verdict.kind, verdict.packets, code(verdict)) == ("dropped", 3, "foreign_flow_entry")
    assert verdict.where.server == "hv2"


def test_a_foreign_entry_that_only_passes_on_drops_nothing() -> None:
    harmless = step(FOREIGN, ("resubmit(,8)",), table=0)
    found = attribute(case(log_of("...").records, [inspection(harmless, PASSES, outcome="output", chassis=HV2)]))
    assert only(found).kind == "delivered"


def test_a_later_drop_inspection_does_not_touch_what_had_arrived() -> None:
    found = attribute(case(log_of("...").records, [blocked(at=9)]))
    assert only(found).kind == "delivered"


INTERFACE = PortReading(
    name="tap2",
    iface_id="web2",
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
    reading = replace(INTERFACE, **changes)
    return inspection(PASSES, OUT, outcome="output", outputs=("6",), chassis=HV2, ports=(reading,))


@pytest.mark.parametrize(
    ("port", "outcome", "found"),
    [(9, "output", "foreign_flow_entry"), (9, "tunnel", "foreign_flow_entry"), (6, "output", "")],
    ids=["another interface", "a tunnel", "the right interface"],
)
def test_an_entry_by_hand_below_ours_diverts_what_was_handed_out(port: int, outcome: str, found: str) -> None:
    foreign = step(FOREIGN, (f"output:{port}",), table=65, priority=200, cookie=0, out_key=WEB2)
    seen = inspection(PASSES, foreign, outcome=outcome, outputs=(str(port),), chassis=HV2, ports=(INTERFACE,))
    verdict = only(attribute(case(log_of("...").records, [seen])))
    assert (verdict.kind, code(verdict)) == ("dropped" if found else "delivered", found)


def test_vif_down() -> None:
    verdict = only(attribute(case(log_of("...").records, [handed_out(link_up=False)])))
    assert (verdict.kind, code(verdict), verdict.where.port) == ("dropped", "vif_down", "web2")


def test_vif_queue_full() -> None:
    # reasons.md: "sent to the VIF, and the interface's drop counter took it".
    found = attribute(case(log_of("...").records, [handed_out(tx_dropped=3)]))
    assert [code(v) for v in lost(found)] == ["vif_queue_full"]


def test_misdelivered() -> None:
    other = LogicalPort(name="spoof", key=44, datapath=WEB, chassis=HV2, nb_uuid="nb-spoof")
    inventory = replace(INVENTORY, ports=(*INVENTORY.ports, other))
    log = Recorder()
    log.first(1)
    log.sent(1)
    log.came(1)
    log.out(1, out_key=44)
    verdict = only(attribute(case(log.records, inventory=inventory)))
    assert (verdict.kind, code(verdict), verdict.where.port) == ("dropped", "misdelivered", "spoof")


def test_misdelivered_at_a_port_that_the_inventory_does_not_have() -> None:
    # The any-port entry at remote output sees it first, and takes the color off there.
    log = Recorder()
    log.first(1)
    log.write(HV1, Point.REMOTE_OUTPUT, WEB, 1, in_key=WEB1, out_key=44)
    out = step(PHYSICAL, ("output:9",), table=65, out_key=44)
    found = inspection(PASSES, out, outcome="output", outputs=("9",))
    verdict = only(attribute(case(log.records, [found])))
    assert (verdict.kind, code(verdict)) == ("dropped", "misdelivered")


def test_left_by_a_localnet_port() -> None:
    outside = LogicalPort(name="provnet", key=50, datapath=WEB, type="localnet")
    inventory = replace(INVENTORY, ports=(*INVENTORY.ports, outside))
    log = Recorder()
    log.first(1)
    log.out(1, HV1, out_key=50)
    found = attribute(case(log.records, inventory=inventory))
    verdict = only(found)
    assert (verdict.kind, verdict.where.server, verdict.where.port) == ("left_domain", "hv1", "provnet")
    assert found.packets == Packets(colored=1, left_domain=1)


# --- between servers ---------------------------------------------------------------------------------------


def tunnels(mismatch: str = "") -> tuple[TunnelCheck, ...]:
    return (
        TunnelCheck(sender=HV1, receiver=HV2, tunnel="ovn-hv2", mismatch=mismatch),
        TunnelCheck(sender=HV1, receiver=GW, tunnel="ovn-gw", mismatch="that of another pair"),
    )


def test_physical_loss() -> None:
    found = attribute(case(log_of("---").records, [passes(HV1, outcome="tunnel")], tunnels=tunnels()))
    verdict = only(found)
    assert (verdict.kind, code(verdict), verdict.pattern) == ("lost_between", "physical_loss", "persistent")
    assert verdict.why is not None
    assert verdict.why.actor == "physical"
    where = verdict.where
    assert (where.server, where.vfd, where.port) == ("hv1", "web", "ovn-hv2")
    assert (where.next_server, where.next_vfd) == ("hv2", "web")
    assert found.packets == Packets(colored=3, lost_between=3)


def test_tunnel_misconfigured() -> None:
    verdict = only(attribute(case(log_of("-").records, tunnels=tunnels("hv2 sends to 192.0.2.77"))))
    assert (verdict.kind, code(verdict), verdict.pattern) == ("lost_between", "tunnel_misconfigured", "persistent")
    assert verdict.why is not None
    assert (verdict.why.actor, verdict.why.object and verdict.why.object.type) == ("provider", "Encap")
    assert "192.0.2.77" in verdict.why.summary


def test_a_misconfigured_tunnel_loses_only_what_is_lost() -> None:
    assert only(attribute(case(log_of("...").records, tunnels=tunnels("x")))).kind == "delivered"


def test_what_could_not_be_sent_is_dropped_by_the_sender() -> None:
    failed = inspection(PASSES, errors=("native tunnel routing failed",))
    verdict = only(attribute(case(log_of("-").records, [failed], tunnels=tunnels())))
    assert (verdict.kind, code(verdict), verdict.where.server) == ("dropped", "tunnel_unreachable", "hv1")
    assert verdict.where.next_server is None


def test_an_entry_of_the_receiver_that_outranks_ours_dropped_it_there() -> None:
    outranks = inspection(step(FOREIGN, table=0, priority=65535, cookie=0), chassis=HV2)
    verdict = only(attribute(case(log_of("-").records, [outranks], tunnels=tunnels())))
    assert (verdict.kind, code(verdict), verdict.where.server) == ("dropped", "foreign_flow_entry", "hv2")


def test_what_the_receiver_would_drop_later_does_not_explain_that_it_never_came() -> None:
    verdict = only(attribute(case(log_of("-").records, [blocked()], tunnels=tunnels())))
    assert (verdict.kind, code(verdict)) == ("lost_between", "physical_loss")


# --- evidence missing --------------------------------------------------------------------------------------


def test_a_receiver_without_an_agent_is_named() -> None:
    found = attribute(case(log_of("--").records, covered=(HV1,), tunnels=tunnels()))
    verdict = only(found)
    assert (verdict.kind, verdict.packets) == ("evidence_missing", 2)
    assert (verdict.where.server, verdict.where.next_server) == ("hv1", "hv2")
    assert found.loss == "unknown"
    assert found.loss_ratio is None


@pytest.mark.parametrize(("fate", "inspected"), [("-", HV1), ("x", HV2)], ids=["not come in", "not gone out"])
def test_a_copy_that_the_meter_cut_is_evidence_missing(fate: str, inspected: str) -> None:
    found = attribute(
        case(log_of("." * 17 + fate * 3).records, [passes(inspected)], copies_cut={HV2: 2}, tunnels=tunnels())
    )
    # Two cut copies explain two packets, not three.
    assert found.packets.evidence_missing == 2
    assert found.packets.dropped + found.packets.lost_between == 1
    (verdict,) = (v for v in found.verdicts if v.kind == "evidence_missing")
    assert (verdict.pattern, verdict.why) == (None, None)


def test_a_cut_on_another_server_explains_nothing() -> None:
    found = attribute(case(log_of("--").records, copies_cut={GW: 9}, tunnels=tunnels()))
    assert found.packets == Packets(colored=2, lost_between=2)


def test_a_cause_that_was_seen_is_not_explained_away_by_a_cut() -> None:
    found = attribute(case(log_of("xx").records, [blocked()], copies_cut={HV2: 9}))
    assert found.packets == Packets(colored=2, dropped=2)


# --- loss --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fates", "loss", "pattern"),
    [
        ("." * 40, "no", None),
        ("x" + "." * 20, "no", "transient"),
        ("x" + "." * 19, "unknown", "unclear"),
        ("." * 40 + "x", "unknown", "unclear"),
        ("x.x" + "." * 40, "yes", "persistent"),
        ("x", "yes", "persistent"),
        ("-" * 3 + "." * 20, "no", "transient"),
        ("-." * 20, "yes", "persistent"),
    ],
)
def test_loss_by_pattern_where_no_cause_stands(fates: str, loss: str, pattern: str | None) -> None:
    found = attribute(case(log_of(fates).records, tunnels=tunnels()))
    assert (found.loss, found.pattern) == (loss, pattern)
    assert {v.pattern for v in lost(found)} == ({pattern} if pattern else set())


def test_a_cause_that_stands_makes_one_packet_enough() -> None:
    found = attribute(case(log_of("x" + "." * 99).records, [blocked(1), blocked(30)]))
    assert (found.loss, found.verdicts[0].pattern) == ("yes", "persistent")


def test_a_cause_that_went_away_does_not() -> None:
    log = log_of("x" + "." * 30)
    mono_ns = log.records[2].mono_ns
    found = attribute(case(log.records, [blocked(1, mono_ns=mono_ns), passes(at=30)]))
    assert (found.loss, found.verdicts[0].pattern, code(found.verdicts[0])) == ("no", "transient", "acl_drop")


@pytest.mark.parametrize(("elsewhere", "loss", "found"), [(20, "no", "transient"), (19, "yes", "persistent")])
def test_a_cause_that_stands_where_the_flow_no_longer_comes_has_passed(elsewhere: int, loss: str, found: str) -> None:
    """As when a gateway port moves: what would still come to the former server would still be dropped there."""
    log = log_of("x")
    for key in range(1, 1 + elsewhere):
        log.first(key)
        log.sent(key, receiver=GW)
        log.came(key, receiver=GW)
        log.out(key, chassis=GW)
    answer = attribute(case(log.records, [blocked(1), blocked(30)]))
    assert (answer.loss, answer.verdicts[0].pattern, code(answer.verdicts[0])) == (loss, found, "acl_drop")


def test_packets_lost_otherwise_are_not_delivered_afterwards() -> None:
    # All packets are lost: the first on the wire, thirty by an ACL that stands. Nothing was transient.
    found = attribute(case(log_of("-" + "x" * 30).records, [blocked()], tunnels=tunnels()))
    assert {code(v): v.pattern for v in lost(found)} == {"acl_drop": "persistent", "physical_loss": "persistent"}


def test_packets_without_evidence_are_left_out_of_the_pattern() -> None:
    # Cut copies explain the last of the runs; what is left is one run with twenty delivered after it.
    log = log_of("x" + "." * 20)
    found = attribute(case(log.records, copies_cut={HV2: 1}))
    assert (found.packets.evidence_missing, found.pattern) == (1, None)


@pytest.mark.parametrize(("missing", "loss"), [(10, "no"), (11, "unknown")])
def test_more_than_a_tenth_missing_is_unknown(missing: int, loss: str) -> None:
    fates = "." * (100 - missing) + "-" * missing
    found = attribute(case(log_of(fates).records, copies_cut={HV2: missing}, tunnels=tunnels()))
    assert found.packets.evidence_missing == missing
    assert found.loss == loss


def test_a_loss_is_a_loss_also_with_evidence_missing() -> None:
    found = attribute(case(log_of("-" * 5 + "x" * 5).records, [blocked()], covered=(HV1,), tunnels=tunnels()))
    assert found.packets == Packets(colored=10, dropped=5, evidence_missing=5)
    assert (found.loss, found.loss_ratio) == ("yes", 1.0)


def test_over_pairs_yes_beats_unknown_beats_no() -> None:
    log = Recorder()
    for key in range(3):
        log.switched(key, 0)
    log.first(50, 1)
    two = [pair(index=0), pair("web1", "db1", index=1)]
    found = attribute(case(log.records, pairs=[*two, pair("web1", "db1", index=2)]))
    assert [p.loss for p in found.pairs] == ["no", "yes", "unknown"]
    assert found.loss == "yes"
    assert attribute(case(log.records[:-1], pairs=two)).loss == "unknown"


def test_loss_ratio_is_of_the_packets_with_evidence() -> None:
    found = attribute(case(log_of("...x--").records, [blocked()], covered=(HV1,)))
    assert found.packets == Packets(colored=6, delivered=3, dropped=1, evidence_missing=2)
    assert found.loss_ratio == 0.25


# --- order and sums ----------------------------------------------------------------------------------------


def test_lost_ones_first_persistent_first_then_by_packets() -> None:
    log = Recorder()
    for key in range(30):
        if key == 0:  # pair 0: one lost at the start, 29 delivered: transient
            log.first(key, 0)
            log.sent(key)
        else:
            log.switched(key, 0)
    for key in range(100, 102):  # pair 1: two lost between, all: persistent
        log.first(key, 1)
        log.sent(key)
    for key in range(200, 205):  # pair 2: five dropped on hv1, all: persistent
        log.first(key, 2)
    pairs = [pair(index=number) for number in range(3)]
    found = attribute(case(log.records, pairs=pairs, tunnels=tunnels()))
    assert [(v.kind, v.pattern, v.packets) for v in found.verdicts] == [
        ("dropped", "persistent", 5),
        ("lost_between", "persistent", 2),
        ("lost_between", "transient", 1),
        ("delivered", None, 29),
    ]
    assert [p.verdicts for p in found.pairs] == [(2, 3), (1,), (0,)]
    assert [p.colored for p in found.pairs] == [30, 2, 5]
    assert found.pattern == "persistent"


def test_one_verdict_for_each_kind_place_and_cause() -> None:
    found = attribute(case(log_of("x-x-.x.").records, [blocked()], tunnels=tunnels()))
    assert sorted((v.kind, v.packets) for v in found.verdicts) == [
        ("delivered", 2),
        ("dropped", 3),
        ("lost_between", 2),
    ]


FATES = st.text("x-.", max_size=40)
INSPECTIONS = st.lists(
    st.sampled_from([blocked(1), blocked(9), passes(at=5), passes(HV1, 6, "tunnel"), blocked(3, HV1)]), max_size=4
)


@PROPERTY
@given(FATES, INSPECTIONS, st.integers(0, 5), st.booleans())
def test_packets_add_up(fates: str, inspections: Sequence[Inspection], cut: int, covered: bool) -> None:
    everywhere = (HV1, HV2, GW) if covered else (HV1,)
    found = attribute(
        case(log_of(fates).records, inspections, copies_cut={HV2: cut}, covered=everywhere, tunnels=tunnels())
    )
    p = found.packets
    assert p.colored == len(fates)
    assert p.colored == p.delivered + p.dropped + p.lost_between + p.left_domain + p.evidence_missing
    assert sum(v.packets for v in found.verdicts) == p.colored
    assert sum(pair.colored for pair in found.pairs) == p.colored
    assert sum(path.packets for path in found.paths) == p.colored
    assert p.delivered == fates.count(".")
    assert (found.loss_ratio is None) == (p.colored == p.evidence_missing)
    for verdict in found.verdicts:
        assert (verdict.pattern is not None) == (verdict.kind in ("dropped", "lost_between"))
        assert 0 <= verdict.confidence <= 1
        if verdict.kind in ("dropped", "lost_between"):
            assert verdict.why is not None
    assert (found.loss == "yes") == any(v.pattern == "persistent" for v in found.verdicts)


@PROPERTY
@given(FATES, INSPECTIONS, st.integers(0, 3), st.integers(0, 2**16))
def test_the_same_case_gives_the_same_answer(fates: str, inspections: list[Inspection], cut: int, seed: int) -> None:
    records = log_of(fates).records
    given_case = case(records, inspections, copies_cut={HV2: cut}, tunnels=tunnels())
    once = attribute(given_case)
    assert attribute(given_case) == once
    random.Random(seed).shuffle(records)
    assert attribute(case(records, inspections, copies_cut={HV2: cut}, tunnels=tunnels())) == once


# --- paths -------------------------------------------------------------------------------------------------


def test_packets_that_lack_records_are_of_the_path_that_they_fit() -> None:
    log = Recorder()
    for key in range(5):
        log.routed(key)
    lacking = {(0, Point.INGRESS), (1, Point.REMOTE_OUTPUT), (1, Point.INGRESS)}
    records = [record for record in log.records if (record.key, record.point) not in lacking]
    (path,) = attribute(case(records, pairs=[pair("web1", "db1")])).paths
    assert (path.packets, path.packets_with_gaps, len(path.hops)) == (5, 2, 6)


def test_packets_that_lack_their_last_record_are_a_path_of_their_own() -> None:
    log = Recorder()
    for key in range(3):
        log.routed(key)
    records = [record for record in log.records if (record.key, record.point) != (0, Point.EGRESS)]
    found = attribute(case(records, pairs=[pair("web1", "db1")])).paths
    assert sorted((path.packets, path.packets_with_gaps) for path in found) == [(1, 0), (2, 0)]


def test_paths_hop_by_hop() -> None:
    log = Recorder()
    for key in range(2):
        log.routed(key)
    (path,) = attribute(case(log.records, pairs=[pair("web1", "db1")])).paths
    assert (path.packets, path.disposition, path.from_, path.to) == (2, "delivered", "web1", "db1")
    assert [(h.server, h.vfd, h.vfd_kind, h.point, h.in_port, h.out_port, h.ttl) for h in path.hops] == [
        ("hv1", "web", "vswitch", "first_hop", "web1", "", 64),
        ("hv1", "web", "vswitch", "logical_egress", "web1", "web-r1", 64),
        ("hv1", "r1", "vrouter", "logical_egress", "r1-web", "r1-db", 63),
        ("hv1", "db", "vswitch", "remote_output", "db-r1", "db1", 63),
        ("hv2", "db", "vswitch", "ingress", "tunnel from hv1", "", 63),
        ("hv2", "db", "vswitch", "egress", "db-r1", "db1", 63),
    ]
    assert path.hops[0].five_tuple == {"proto": "udp", "src": "10.0.1.1", "dst": "10.0.1.2", "sport": 0, "dport": 0}


def test_an_unbound_port_across_the_router() -> None:
    inventory = without(INVENTORY, db1=port("db1", chassis=""))
    log = Recorder()
    log.first(1)
    log.passed(1, HV1, WEB, WEB1, TO_ROUTER)
    log.passed(1, HV1, R1, R1_WEB, R1_DB, 63)
    end = step(DEFAULT, table=40, priority=0, cookie=0, datapath=DB, in_key=TO_ROUTER, out_key=DB1)
    verdict = only(attribute(case(log.records, [inspection(end)], pairs=[pair("web1", "db1")], inventory=inventory)))
    assert code(verdict) == "port_unbound"
    assert (verdict.where.server, verdict.where.vfd, verdict.where.port) == ("hv1", "db", "db1")
