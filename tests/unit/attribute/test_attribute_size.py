"""Packets too long for the next link: told by lengths, by a device's MTU, by a router port's; and what is not told."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from builders import (
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
    Recorder,
    case,
    inspection,
    logical,
    pair,
    step,
)
from msgspec.structs import replace

from vtrace.attribute.case import TunnelCheck
from vtrace.attribute.verdicts import Attribution, attribute
from vtrace.model.answer import Verdict
from vtrace.model.inspection import Inspection, PortReading
from vtrace.model.record import Point

TUNNELS = (TunnelCheck(sender=HV1, receiver=HV2, tunnel="ovn-hv2"),)
PASSES = step(logical("ls_in_l2_lkup"), ("resubmit(,39)",))
DEVICE = PortReading(
    name="eth9",
    ofport=1,
    kind="",
    admin_up=True,
    link_up=True,
    error="",
    tx_dropped=0,
    rx_dropped=0,
    tx_errors=0,
    mtu=1000,
)
GENEVE_BYTES = 58


def log_of(packets: Sequence[tuple[str, int]], flows: Sequence[int] = ()) -> Recorder:
    """A packet for each (fate, length): "." arrives, "-" is lost between hv1 and hv2. `flows` are source ports."""
    log = Recorder()
    for key, (fate, length) in enumerate(packets):
        fields = {"length_bytes": length, "sport": flows[key] if flows else 7}
        log.write(HV1, Point.FIRST_HOP, WEB, key, pair=0, in_key=WEB1, in_ofport=5, ttl=64, **fields)
        log.sent(key, **fields)
        if fate == ".":
            log.came(key, **fields)
            log.out(key, **fields)
    return log


def verdict_of(packets: Sequence[tuple[str, int]], flows: Sequence[int] = (), **fields: object) -> Verdict:
    found = attribute(case(log_of(packets, flows).records, tunnels=TUNNELS, **fields))
    return found.verdicts[0]


def code(verdict: Verdict) -> str:
    return verdict.why.code if verdict.why else ""


def named(verdict: Verdict) -> tuple[str, str]:
    assert verdict.why is not None
    assert verdict.why.object is not None
    return verdict.why.object.type, verdict.why.object.name


# --- by lengths ----------------------------------------------------------------------------------------------


def test_all_that_are_longer_are_lost() -> None:
    verdict = verdict_of([(".", 96), ("-", 97)] * 5)
    assert (verdict.kind, code(verdict), verdict.pattern) == ("lost_between", "mtu_exceeded", "persistent")
    assert named(verdict) == ("Tunnel", "ovn-hv2")
    assert verdict.why is not None
    assert verdict.why.actor == "provider"
    assert "97" in verdict.why.summary
    assert "96" in verdict.why.summary
    assert (verdict.packets, verdict.confidence) == (5, 0.8)


def test_one_run_of_long_ones_before_many_short_ones_is_persistent() -> None:
    verdict = verdict_of([("-", 1400)] * 4 + [(".", 100)] * 40)
    assert (code(verdict), verdict.pattern) == ("mtu_exceeded", "persistent")


@pytest.mark.parametrize(
    "packets",
    [
        [("-", 1400)] * 10,
        [("-", 100), (".", 100)] * 10,
        [("-", 100), (".", 1400)] * 10,
        [*[("-", 1400), (".", 100)] * 10, (".", 1400), *[("-", 1400), (".", 100)] * 10],
        [("-", 1400), (".", 100)],
        [("-", 1400), ("-", 1400), (".", 100)],
        [("-", 0), (".", 0)] * 5,
    ],
    ids=["nothing to compare", "one length", "the short ones", "some long pass", "one of each", "two and one", "none"],
)
def test_what_chance_explains_as_well_stays_physical(packets: list[tuple[str, int]]) -> None:
    assert code(verdict_of(packets)) == "physical_loss"


def test_a_wire_that_loses_at_random_does_not_become_an_mtu() -> None:
    # Of 60 packets of six lengths every third is lost; the two longest were lost by chance.
    packets = [("-" if number % 3 == 0 else ".", 100 + number % 7) for number in range(60)]
    packets += [("-", 1400), ("-", 1300)]
    assert code(verdict_of(packets)) == "physical_loss"


def test_a_few_short_ones_lost_for_another_reason_hide_no_mtu() -> None:
    found = attribute(
        case(log_of([("-", 100), *[(".", 100), ("-", 1400)] * 20]).records, tunnels=TUNNELS, packets_asked=100)
    )
    assert {code(v): v.packets for v in found.verdicts if v.why} == {"mtu_exceeded": 20, "physical_loss": 1}


def test_longer_ones_that_passed_before_the_fault_do_not_count() -> None:
    verdict = verdict_of([(".", 1400)] * 20 + [("-", 1400), (".", 100)] * 10 + [("-", 1400)])
    assert code(verdict) == "mtu_exceeded"


def test_of_two_flows_one_is_lost_and_happens_to_be_longer() -> None:
    # A bad member of a bundle takes a flow as a whole: lengths below what every link carries prove nothing.
    packets = [("-", 300), (".", 100)] * 10
    assert code(verdict_of(packets, [1, 2] * 10)) == "physical_loss"
    large = verdict_of([("-", 1400), (".", 100)] * 10, [1, 2] * 10)
    assert (code(large), large.confidence) == ("mtu_exceeded", 0.5)
    many = verdict_of(packets, list(range(20)))
    assert (code(many), many.confidence) == ("mtu_exceeded", 0.8)


def test_a_tunnel_that_is_misconfigured_is_no_matter_of_length() -> None:
    check = replace(TUNNELS[0], mismatch="hv2 sends to 192.0.2.77")
    found = attribute(case(log_of([("-", 1400), (".", 100)] * 10).records, tunnels=(check,)))
    assert code(found.verdicts[0]) == "tunnel_misconfigured"


# --- by a device's MTU -----------------------------------------------------------------------------------------


def sends_by(device: PortReading, at: int = 1) -> Inspection:
    return inspection(PASSES, outcome="tunnel", exits=(device,), overhead_bytes=GENEVE_BYTES, at=at)


def gets_by(device: PortReading) -> Inspection:
    return inspection(PASSES, outcome="output", chassis=HV2, entrances=(device,))


@pytest.mark.parametrize(("asked", "server"), [(sends_by(DEVICE), "hv1"), (gets_by(DEVICE), "hv2")])
def test_a_device_of_either_server_with_too_small_an_mtu(asked: Inspection, server: str) -> None:
    verdict = verdict_of([("-", 943)] * 3, inspections=[asked])
    assert (verdict.kind, code(verdict), verdict.pattern) == ("lost_between", "mtu_exceeded", "persistent")
    assert named(verdict) == ("Interface", "eth9")
    assert verdict.why is not None
    assert "943" in verdict.why.summary
    assert "1001" in verdict.why.summary
    assert verdict.why.evidence[0].chassis == server


@pytest.mark.parametrize("asked", [sends_by(DEVICE), gets_by(DEVICE)], ids=["sender", "receiver"])
def test_an_mtu_that_the_packets_just_fit_is_not_why(asked: Inspection) -> None:
    assert code(verdict_of([("-", 942)] * 3, inspections=[asked])) == "physical_loss"


def test_a_device_that_may_send_in_pieces_refuses_nothing() -> None:
    assert code(verdict_of([("-", 1400)], inspections=[sends_by(replace(DEVICE, segments=True))])) == "physical_loss"


def test_a_device_whose_mtu_was_raised_meanwhile_no_longer_stands() -> None:
    packets = [("-", 1400)] + [(".", 1400)] * 30
    log = log_of(packets)
    first = replace(sends_by(DEVICE), mono_ns=log.records[1].mono_ns)
    healed = sends_by(replace(DEVICE, mtu=1500), at=60)
    verdict = attribute(case(log.records, [first, healed], tunnels=TUNNELS)).verdicts[0]
    assert (code(verdict), verdict.pattern) == ("mtu_exceeded", "transient")


# --- by the destination's own device, and by a router port -------------------------------------------------------

OUT = step(PHYSICAL, ("output:6",), table=65, out_key=WEB2)


def handed_out(mtu: int) -> Inspection:
    device = replace(DEVICE, name="tap2", ofport=6, iface_id="web2", mtu=mtu)
    return inspection(PASSES, OUT, outcome="output", outputs=("6",), chassis=HV2, ports=(device,), exits=(device,))


def test_a_vif_with_too_small_an_mtu_takes_the_short_ones_only() -> None:
    found: Attribution = attribute(case(log_of([(".", 1001), (".", 1000)] * 3).records, [handed_out(1000)]))
    dropped, delivered = found.verdicts
    assert (dropped.kind, code(dropped), dropped.packets, dropped.pattern) == (
        "dropped",
        "mtu_exceeded",
        3,
        "persistent",
    )
    assert named(dropped) == ("Interface", "tap2")
    assert (dropped.where.server, dropped.where.port) == ("hv2", "web2")
    assert (delivered.kind, delivered.packets) == ("delivered", 3)


def test_a_vif_whose_mtu_is_not_known_takes_all() -> None:
    found = attribute(case(log_of([(".", 9000)]).records, [handed_out(0)]))
    assert [v.kind for v in found.verdicts] == ["delivered"]


def routed(length: int, limit: int) -> Attribution:
    log = Recorder()
    fields = {"length_bytes": length, "dst": "10.0.2.1"}
    log.write(HV1, Point.FIRST_HOP, WEB, 1, pair=0, in_key=WEB1, in_ofport=5, ttl=64, **fields)
    log.write(HV1, Point.LOGICAL_EGRESS, WEB, 1, in_key=WEB1, out_key=TO_ROUTER, ttl=64, **fields)
    check = step(
        logical("lr_in_chk_pkt_len"),
        (f"check_pkt_larger({limit})->OXM_OF_PKT_REG4[1]", "resubmit(,27)"),
        datapath=R1,
        in_key=R1_WEB,
        out_key=R1_DB,
    )
    asked = inspection(PASSES, check, outcome="tunnel")
    return attribute(case(log.records, [asked], pairs=[pair("web1", "db1")], inventory=INVENTORY))


def test_a_router_port_with_a_gateway_mtu() -> None:
    verdict = routed(1001, 1014).verdicts[0]
    assert (verdict.kind, code(verdict), verdict.pattern) == ("dropped", "mtu_exceeded", "persistent")
    assert named(verdict) == ("Logical_Router_Port", "r1-db")
    assert (verdict.where.vfd, verdict.where.port) == ("r1", "r1-db")


def test_what_a_gateway_mtu_lets_pass_is_lost_of_something_else() -> None:
    assert code(routed(1000, 1014).verdicts[0]) == "unknown"
