"""Paths across bridges without OVN: each is a datapath of its own, and may send on what came in by a wire."""

from __future__ import annotations

import pytest
from builders import GW, HV1, HV2, Recorder
from msgspec.structs import replace

from vtrace.model.plain import FIRST_BRIDGE
from vtrace.model.record import Disposition, Point
from vtrace.model.record_schema import to_table
from vtrace.reconstruct.whole import reconstruct

A, B, C = (FIRST_BRIDGE + number for number in range(3))


def across(recorder: Recorder, key: int, *, until: int = 6) -> None:
    """From the bridge on hv1 by that on hv2 to that on gw: six records, or the first of them."""
    steps = [
        (HV1, Point.FIRST_HOP, A, {"pair": 0, "in_key": 1, "in_ofport": 1}),
        (HV1, Point.REMOTE_OUTPUT, A, {"peer": HV2, "in_key": 1, "out_key": 2}),
        (HV2, Point.INGRESS, B, {"peer": HV1, "in_key": 5, "in_ofport": 5}),
        (HV2, Point.REMOTE_OUTPUT, B, {"peer": GW, "in_key": 5, "out_key": 6}),
        (GW, Point.INGRESS, C, {"peer": HV2, "in_key": 8, "in_ofport": 8}),
        (GW, Point.EGRESS, C, {"in_key": 8, "out_key": 9}),
    ]
    for chassis, point, datapath, fields in steps[:until]:
        recorder.write(chassis, point, datapath, key, ttl=64, **fields)


@pytest.mark.parametrize("same", [True, False])
def test_each_packet_has_its_own_records(same: bool) -> None:
    recorder = Recorder()
    for number in range(3):
        across(recorder, 7 if same else number)
    packets = reconstruct(to_table(recorder.records)).packets.to_pylist()
    assert [(p["disposition"], len(p["hops"]), p["gap"]) for p in packets] == [(Disposition.EGRESS, 6, False)] * 3
    assert len({hop for p in packets for hop in p["hops"]}) == 18


@pytest.mark.parametrize(
    ("until", "disposition"),
    [(1, Disposition.STOPPED), (2, Disposition.SENT), (3, Disposition.STOPPED), (4, Disposition.SENT)],
)
def test_one_of_two_equal_packets_is_lost(until: int, disposition: Disposition) -> None:
    recorder = Recorder()
    across(recorder, 7)
    across(recorder, 7, until=until)
    packets = reconstruct(to_table(recorder.records)).packets.to_pylist()
    assert sorted(p["disposition"] for p in packets) == sorted([Disposition.EGRESS, disposition])


def test_a_missing_ingress_is_a_hop_less_and_no_loss() -> None:
    recorder = Recorder()
    across(recorder, 7)
    recorder.records = [replace(r) for r in recorder.records if (r.chassis, r.point) != (HV2, Point.INGRESS)]
    (packet,) = reconstruct(to_table(recorder.records)).packets.to_pylist()
    assert packet["disposition"] == Disposition.EGRESS
