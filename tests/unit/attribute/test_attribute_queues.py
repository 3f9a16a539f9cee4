"""What an interface's queue dropped, by its counters: how many of a task's packets are counted, and what is not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from builders import HV1, HV2, PHYSICAL, WEB2, Recorder, case, inspection, logical, pair, step
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from vtrace.attribute.case import TunnelCheck
from vtrace.attribute.verdicts import Attribution, attribute
from vtrace.model.inspection import Inspection, PortReading

PASSES = step(logical("ls_in_l2_lkup"), ("resubmit(,39)",))
OUT = step(PHYSICAL, ("output:6",), table=65, out_key=WEB2)
TAP = PortReading(
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
    queue="tbf",
)


def asked(at: int = 1, chassis: str = HV2, **changes: object) -> Inspection:
    reading = replace(TAP, **changes)
    return inspection(PASSES, OUT, outcome="output", outputs=("6",), chassis=chassis, ports=(reading,), at=at)


def answer(packets: int, *inspections: Inspection) -> Attribution:
    log = Recorder()
    for key in range(packets):
        log.switched(key)
    return attribute(case(log.records, inspections))


def counted(found: Attribution) -> dict[str, int]:
    return {v.why.code if v.why else v.kind: v.packets for v in found.verdicts}


def test_a_queue_that_took_nothing_dropped_all() -> None:
    found = answer(3, asked(tx_dropped=3))
    (verdict,) = found.verdicts
    assert verdict.why is not None
    assert verdict.why.object is not None
    assert (verdict.kind, verdict.why.code, verdict.why.actor) == ("dropped", "vif_queue_full", "guest")
    assert (verdict.why.object.type, verdict.why.object.name) == ("Interface", "tap2")
    assert (verdict.packets, verdict.confidence, verdict.pattern) == (3, 1.0, "persistent")
    assert (verdict.where.server, verdict.where.port) == ("hv2", "web2")
    assert [e.source for e in verdict.why.evidence] == ["ovs-ofctl dump-ports br-int 6"]


def test_of_a_share_of_all_that_was_sent_the_same_share_is_counted() -> None:
    found = answer(40, asked(tx_dropped=10, queue_dropped=20, tx_packets=90))
    assert counted(found) == {"vif_queue_full": 10, "delivered": 30}
    verdict = found.verdicts[0]
    assert verdict.why is not None
    assert (verdict.confidence, found.loss, found.loss_ratio) == (0.8, "yes", 0.25)
    assert "30 of 120" in verdict.why.summary
    assert "10 of the 40" in verdict.why.summary
    assert [e.source for e in verdict.why.evidence] == [
        "tc -s qdisc show dev tap2",
        "ovs-ofctl dump-ports br-int 6",
    ]


@pytest.mark.parametrize(
    "inspections",
    [
        [asked(tx_packets=1000)],
        [asked(tx_dropped=9, queue_dropped=9, iface_id="web9")],
        [asked(tx_dropped=9, chassis="c-gw")],
        [asked(tx_dropped=1, tx_packets=100_000)],
        [asked(at=1), asked(at=2, rx_dropped=50, tx_packets=50)],
        [],
    ],
    ids=["no drop", "another interface", "another server", "hardly any", "what came from it", "not asked"],
)
def test_packets_of_a_healthy_flow_stay_delivered(inspections: Sequence[Inspection]) -> None:
    assert counted(answer(40, *inspections)) == {"delivered": 40}


def test_the_latest_reading_counts() -> None:
    found = answer(10, asked(at=1, tx_dropped=1), asked(at=9, tx_dropped=5, tx_packets=5))
    assert counted(found) == {"vif_queue_full": 5, "delivered": 5}


def test_a_queue_that_open_vswitch_was_told_to_keep_is_a_limit() -> None:
    found = answer(10, asked(queue_dropped=5, tx_packets=5, queue="htb", limit="linux-htb max-rate=50000"))
    assert counted(found) == {"qos_rate_limit": 5, "delivered": 5}
    why = found.verdicts[0].why
    assert why is not None
    assert why.object is not None
    assert (why.actor, why.object.type) == ("tenant", "Interface")
    assert "max-rate=50000" in why.summary


@pytest.mark.parametrize("packets", [3, 10, 30, 100])
def test_a_limit_that_lets_one_packet_pass_is_no_loss_that_began_late(packets: int) -> None:
    """Which packet that was is not known."""
    found = answer(packets, asked(queue_dropped=10 * (packets - 1), tx_packets=10, queue="htb", limit="linux-htb"))
    assert counted(found) == {"qos_rate_limit": packets - 1, "delivered": 1}
    assert (found.verdicts[0].pattern, found.loss) == ("persistent", "yes")


def test_packets_of_another_port_are_left_alone() -> None:
    log = Recorder()
    for key in range(10):
        log.switched(key)
    for key in range(10, 20):
        log.routed(key, 1)
    pairs = [pair(index=0), pair("web1", "db1", index=1)]
    found = attribute(case(log.records, [asked(tx_dropped=7)], pairs=pairs))
    assert [p.loss for p in found.pairs] == ["yes", "no"]
    assert (found.packets.dropped, found.packets.delivered) == (10, 10)


@given(st.integers(1, 60), st.integers(0, 500), st.integers(0, 500))
def test_packets_add_up_and_the_share_is_that_of_the_counters(packets: int, dropped: int, passed: int) -> None:
    found = answer(packets, asked(queue_dropped=dropped, tx_packets=passed))
    assert found.packets.dropped + found.packets.delivered == packets == found.packets.colored
    share = dropped / (dropped + passed) if dropped else 0
    assert abs(found.packets.dropped - share * packets) <= 0.5


# --- the sender's own device ---------------------------------------------------------------------------------

NIC = replace(TAP, name="eth9", iface_id="", ofport=1)
TUNNELS = (TunnelCheck(sender=HV1, receiver=HV2, tunnel="ovn-hv2"),)


def sent(fates: str, lengths: Sequence[int] = (), **changes: object) -> Attribution:
    """A packet for each sign, "." arrives, "-" does not; asked was the sender, which sends by a device as given."""
    log = Recorder()
    for key, fate in enumerate(fates):
        fields = {"length_bytes": lengths[key] if lengths else 100}
        log.first(key)
        log.sent(key, **fields)
        if fate == ".":
            log.came(key, **fields)
            log.out(key, **fields)
    asked = inspection(PASSES, outcome="tunnel", exits=(replace(NIC, **changes),))
    return attribute(case(log.records, [asked], tunnels=TUNNELS))


@pytest.mark.parametrize(
    "device", [{"queue": "tbf"}, {"queue": "mq", "limit": "linux-htb max-rate=50000"}], ids=["by tc", "by Open vSwitch"]
)
def test_a_limit_of_the_device_that_a_server_sends_by(device: dict[str, str]) -> None:
    found = sent("-.--" * 5, queue_dropped=40, queue_passed=15, **device)
    assert counted(found) == {"qos_rate_limit": 15, "delivered": 5}
    verdict = found.verdicts[0]
    assert verdict.why is not None
    assert verdict.why.object is not None
    assert (verdict.kind, verdict.why.object.type, verdict.why.object.name) == ("dropped", "Interface", "eth9")
    assert (verdict.where.server, verdict.where.port, verdict.where.next_server) == ("hv1", "web2", None)
    assert "40 of 55" in verdict.why.summary


@pytest.mark.parametrize(
    "device",
    [
        {"queue": "tbf", "queue_dropped": 0, "queue_passed": 20},
        {"queue": "tbf", "queue_dropped": 14, "queue_passed": 0},
        {"queue": "tbf", "queue_dropped": 100, "queue_passed": 900},
        {"queue": "fq_codel", "queue_dropped": 40, "queue_passed": 15},
    ],
    ids=["none dropped", "fewer than were lost", "a much smaller share", "no limit"],
)
def test_what_the_device_does_not_explain_the_wire_has_lost(device: dict[str, object]) -> None:
    assert counted(sent("-.--" * 5, **device)) == {"physical_loss": 15, "delivered": 5}


def test_a_limit_that_takes_the_long_ones_is_no_mtu() -> None:
    found = sent("-." * 10, [1400, 100] * 10, queue="tbf", queue_dropped=10, queue_passed=10)
    assert counted(found) == {"qos_rate_limit": 10, "delivered": 10}
