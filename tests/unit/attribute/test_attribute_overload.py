"""What a server lost before it looked it up, told from what the wire lost."""

from __future__ import annotations

import pytest
from builders import HV1, HV2, Recorder, case, inspection, logical, step

from vtrace.attribute.case import TunnelCheck
from vtrace.attribute.verdicts import Attribution, attribute
from vtrace.model.inspection import PortReading

PASSES = step(logical("ls_in_l2_lkup"), ("resubmit(,39)",))
TUNNELS = (TunnelCheck(sender=HV1, receiver=HV2, tunnel="ovn-hv2"),)


def nic(lost: int, received: int) -> PortReading:
    return PortReading(
        name="eth9",
        ofport=1,
        kind="",
        admin_up=True,
        link_up=True,
        error="",
        tx_dropped=0,
        rx_dropped=0,
        tx_errors=0,
        rx_packets=received,
        rx_lost=lost,
    )


def sent(fates: str, *, rx_lost: int = 0, received: int = 100, upcalls: int = 0, copies_cut: int = 0) -> Attribution:
    """A packet for each sign, "." arrives, "-" has no record at the receiver, which was asked."""
    log = Recorder()
    for key, fate in enumerate(fates):
        log.first(key)
        log.sent(key)
        if fate == ".":
            log.came(key)
            log.out(key)
    asked = inspection(PASSES, outcome="output", chassis=HV2, entrances=(nic(rx_lost, received),), lost_upcalls=upcalls)
    return attribute(case(log.records, [asked], tunnels=TUNNELS, copies_cut={HV2: copies_cut}))


def counted(found: Attribution) -> dict[str, int]:
    return {v.why.code if v.why else v.kind: v.packets for v in found.verdicts}


@pytest.mark.parametrize("counters", [{"rx_lost": 30}, {"upcalls": 30}], ids=["at its socket", "on the way up"])
def test_a_receiver_that_had_no_time(counters: dict[str, int]) -> None:
    found = sent("-..." * 10, **counters)
    assert counted(found) == {"vswitch_overload": 10, "delivered": 30}
    verdict = found.verdicts[0]
    assert verdict.why is not None
    assert verdict.why.object is not None
    assert (verdict.kind, verdict.why.actor, verdict.pattern) == ("dropped", "provider", "persistent")
    assert (verdict.why.object.type, verdict.why.object.name) == ("Chassis", "hv2")
    assert (verdict.where.server, verdict.where.next_server, verdict.confidence) == ("hv2", None, 0.8)
    assert len(verdict.why.evidence) == 1


@pytest.mark.parametrize(
    ("rx_lost", "received"),
    [(0, 100), (9, 100), (30, 1000)],
    ids=["nothing lost", "less than is missing", "a much smaller share"],
)
def test_what_its_counters_do_not_explain_the_wire_has_lost(rx_lost: int, received: int) -> None:
    assert counted(sent("-..." * 10, rx_lost=rx_lost, received=received)) == {"physical_loss": 10, "delivered": 30}


def test_copies_that_were_cut_explain_a_missing_record_as_well() -> None:
    assert counted(sent("-..." * 10, rx_lost=30, copies_cut=10)) == {"evidence_missing": 10, "delivered": 30}


@pytest.mark.parametrize(("upcalls", "code", "confidence"), [(5, "vswitch_overload", 0.5), (0, "unknown", 0.5)])
def test_what_vanished_inside_a_server_meanwhile(upcalls: int, code: str, confidence: float) -> None:
    log = Recorder()
    log.first(1)
    log.sent(1)
    log.came(1)
    asked = inspection(PASSES, outcome="output", chassis=HV2, lost_upcalls=upcalls)
    (verdict,) = attribute(case(log.records, [asked], tunnels=TUNNELS)).verdicts
    assert verdict.why is not None
    assert (verdict.kind, verdict.why.code, verdict.confidence) == ("dropped", code, confidence)
