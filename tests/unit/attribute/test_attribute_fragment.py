"""Fragments dropped for being fragments, and what only looks like it."""

from __future__ import annotations

import pytest
from builders import DEFAULT, HV1, HV2, INVENTORY, Recorder, case, inspection, logical, pair, step
from msgspec.structs import replace

from vtrace.attribute.causes import find_cause
from vtrace.attribute.verdicts import attribute
from vtrace.model.inspection import Inspection, RefusedFragments

MODE = 'Packets are IP fragments and the fragment handling mode is "drop".'
BY_MODE = replace(step(DEFAULT, ("drop",), table=0, cookie=0, priority=-1, match=MODE, datapath=0, in_key=0))
INVALID = step(logical("ls_in_acl", "reg0[9] == 0 && ct.inv"))
FRAGMENT = "in_port=5,ip,nw_src=10.0.1.1,nw_dst=10.0.1.2,ip_frag=first"
SHORT = RefusedFragments(datapath="netdev@ovs-netdev", family="v4", counts={"too short": 7}, shortest=1200)


def test_a_receiver_that_drops_all_fragments_did_not_lose_them_on_the_wire() -> None:
    log = Recorder()
    for key in range(3):
        log.first(key)
        log.sent(key)
    asked = inspection(BY_MODE, chassis=HV2, flow=FRAGMENT, real_drop=True)
    (verdict,) = attribute(case(log.records, [asked])).verdicts
    assert verdict.why is not None
    assert (verdict.kind, verdict.why.code, verdict.why.actor) == ("dropped", "fragment_dropped", "provider")
    assert (verdict.where.server, verdict.where.next_server, verdict.pattern) == ("hv2", None, "persistent")
    assert verdict.why.object is not None
    assert (verdict.why.object.type, verdict.why.object.name) == ("Bridge", "br-int")


@pytest.mark.parametrize("colored", [0, 5])
def test_a_sender_that_drops_all_fragments_keeps_them_from_color(colored: int) -> None:
    log = Recorder()
    for key in range(colored):
        log.switched(key)
    key = "recirc_id(0),in_port(5),eth_type(0x0800),ipv4(src=10.0.1.1,dst=10.0.1.2,proto=17,frag=first)"
    asked = inspection(BY_MODE, flow=key, uncolored=True)
    found = attribute(case(log.records, [asked], pairs=[pair()]))
    verdict = found.verdicts[0]
    assert verdict.why is not None
    assert (verdict.kind, verdict.why.code, verdict.packets) == ("dropped", "fragment_dropped", 0)
    assert (verdict.where.server, found.loss, found.packets.delivered) == ("hv1", "yes", colored)


def invalid(**fields: object) -> Inspection:
    return replace(inspection(INVALID, flow=FRAGMENT, refused_fragments=(SHORT,)), **fields)


def test_what_conntrack_takes_not_of_fragments() -> None:
    cause = find_cause(invalid(), INVENTORY)
    assert cause is not None
    assert (cause.code, cause.actor) == ("fragment_dropped", "provider")
    assert "1200" in cause.summary
    assert "7 too short" in cause.summary
    assert any(e.source == "ovs-appctl dpctl/ipf-get-status" for e in cause.evidence)


@pytest.mark.parametrize(
    "asked",
    [
        invalid(refused_fragments=()),
        invalid(flow="in_port=5,udp,nw_src=10.0.1.1,nw_dst=10.0.1.2"),
        invalid(refused_fragments=(replace(SHORT, family="v6"),)),
    ],
    ids=["none refused", "no fragment", "of the other family"],
)
def test_other_invalid_packets_stay_invalid(asked: Inspection) -> None:
    cause = find_cause(asked, INVENTORY)
    assert cause is not None
    assert cause.code == "ct_invalid"


def test_a_fragment_that_an_entry_drops_is_that_entrys_matter() -> None:
    acl = step(logical("ls_in_acl", "ip.is_frag", table="ACL", action="drop", match="ip.is_frag"))
    cause = find_cause(inspection(acl, flow=FRAGMENT, refused_fragments=(SHORT,), chassis=HV1), INVENTORY)
    assert cause is not None
    assert cause.code == "acl_drop"
