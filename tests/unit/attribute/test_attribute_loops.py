"""Packets that go round, told from packets that pass a device twice for good reason."""

from __future__ import annotations

from builders import DATAPATHS, GW, HV1, HV2, INVENTORY, PORTS, R1, Recorder, case
from msgspec.structs import replace

from vtrace.attribute.loops import loop
from vtrace.attribute.verdicts import attribute
from vtrace.model.inventory import LogicalDatapath, LogicalPort
from vtrace.model.record import LogRecord

R2, JOIN = 4, 5
MORE = (
    LogicalDatapath(key=R2, name="r2", kind="vrouter", nb_uuid="nb-r2", sb_uuid="sb-r2"),
    LogicalDatapath(key=JOIN, name="join", kind="vswitch", nb_uuid="nb-join", sb_uuid="sb-join"),
)
# Ports 8 and 9 of the join switch lead to r1 and r2.
DOORS = (
    LogicalPort(name="join-r1", key=8, datapath=JOIN, type="l3gateway", chassis=HV1, peer="r1-join", peer_datapath=R1),
    LogicalPort(name="join-r2", key=9, datapath=JOIN, type="l3gateway", chassis=GW, peer="r2-join", peer_datapath=R2),
    LogicalPort(name="r1-join", key=5, datapath=R1, type="l3gateway", chassis=HV1, peer="join-r1", peer_datapath=JOIN),
    LogicalPort(name="r2-join", key=5, datapath=R2, type="l3gateway", chassis=GW, peer="join-r2", peer_datapath=JOIN),
)
CLOUD = replace(INVENTORY, datapaths=(*DATAPATHS, *MORE), ports=(*PORTS, *DOORS))


def rounds(number: int, ttl: int = 10) -> list[LogRecord]:
    """One packet: r1 on hv1 sends it by the join switch to r2 on the gateway, which sends it back."""
    recorder = Recorder()
    recorder.first(1)
    for _ in range(number):
        recorder.passed(1, HV1, R1, 5, 5, ttl)
        recorder.sent(1, HV1, GW, JOIN, in_key=8, out_key=9, ttl=ttl)
        recorder.came(1, GW, HV1, JOIN, ttl=ttl)
        recorder.passed(1, GW, R2, 5, 5, ttl - 1)
        recorder.sent(1, GW, HV1, JOIN, in_key=9, out_key=8, ttl=ttl - 1)
        recorder.came(1, HV1, GW, JOIN, ttl=ttl - 1)
        ttl -= 2
    return recorder.records


def test_the_devices_of_a_loop_in_their_order() -> None:
    found = loop(rounds(4), CLOUD)
    assert found is not None
    assert [device.name for device in found.devices] == ["r1", "join", "r2"]
    assert found.rounds == 4
    assert "r1 → join → r2 → r1" in found.text
    assert found.fix == "ovn-nbctl lr-route-list r1; ovn-nbctl lr-route-list r2"


def test_the_router_that_would_send_it_on_without_a_ttl_ends_it() -> None:
    even, odd = loop(rounds(4, ttl=10), CLOUD), loop(rounds(4, ttl=11), CLOUD)
    assert even is not None
    assert odd is not None
    assert (even.last.datapath, even.last.chassis) == (R1, HV1)
    assert (odd.last.datapath, odd.last.chassis) == (R2, GW)


def test_twice_is_no_loop() -> None:
    assert loop(rounds(2), CLOUD) is None


def test_one_router_on_two_servers_is_no_loop() -> None:
    recorder = Recorder()
    recorder.hairpin(1)
    assert loop(recorder.records, INVENTORY) is None


def test_copies_of_one_passage_are_no_loop() -> None:
    recorder = Recorder()
    recorder.first(1)
    for chassis in (HV1, HV2, HV1, HV2, HV1):
        recorder.passed(1, chassis, R1, 5, 5, 63)
    assert loop(recorder.records, CLOUD) is None


def test_a_packet_whose_last_copies_were_cut_ended_in_the_loop_all_the_same() -> None:
    found = attribute(case(rounds(4), inventory=CLOUD, copies_cut={HV1: 5, GW: 5})).verdicts[0]
    assert found.why is not None
    assert found.why.object is not None
    assert (found.kind, found.why.code, found.why.actor) == ("dropped", "ttl_exceeded", "tenant")
    assert (found.why.object.type, found.why.object.uuid) == ("Logical_Router", "nb-r1")
    assert (found.where.server, found.where.vfd) == ("hv1", "r1")
    assert "goes round" in found.why.summary
    assert found.why.evidence


def test_without_a_loop_what_was_cut_stays_missing() -> None:
    found = attribute(case(rounds(2), inventory=CLOUD, copies_cut={HV1: 5, GW: 5})).verdicts[0]
    assert found.kind == "evidence_missing"
