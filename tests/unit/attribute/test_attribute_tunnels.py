"""Tunnels: what could not be sent, what came as another's, what nobody got."""

from __future__ import annotations

from builders import DB, HV1, HV2, WEB, WEB1, WEB2, Recorder, case, inspection, step
from builders import DEFAULT as DEFAULT_ENTRY
from builders import PHYSICAL as PHYSICAL_ENTRY
from msgspec.structs import replace

from vtrace.attribute.case import TunnelCheck
from vtrace.attribute.verdicts import attribute
from vtrace.model.answer import Verdict
from vtrace.model.inspection import Inspection
from vtrace.model.record import Point, flow_id

WRONG = "hv1 uses the tunnel key 5, and OVN sets it by flow"
CHECK = TunnelCheck(sender=HV1, receiver=HV2, tunnel="ovn-hv2-0", remote_ip="192.0.2.2", tunnel_back="ovn-hv1-0")
BAD = TunnelCheck(sender=HV1, receiver=HV2, tunnel="ovn-hv2-0", mismatch=WRONG, encap="encap-hv2")
NONE = TunnelCheck(sender=HV1, receiver=HV2, mismatch="hv1 has no tunnel port towards hv2")


def answer(recorder: Recorder, *inspections: Inspection, check: TunnelCheck) -> Verdict:
    return attribute(case(recorder.records, inspections, tunnels=(check,))).verdicts[0]


def sent(*, came_as: int = 0) -> Recorder:
    """Three packets that hv1 sent to hv2, which came in for a datapath (0: did not come in)."""
    recorder = Recorder()
    for key in range(1, 4):
        recorder.first(key)
        recorder.sent(key)
        if came_as:
            recorder.came(key, datapath=came_as)
    return recorder


def refused(error: str) -> Inspection:
    last = step(PHYSICAL_ENTRY, ("set_field:0x1/0xffffff->tun_id", "output:20"), table=39, out_key=WEB2)
    return inspection(last, chassis=HV1, errors=(error,), outcome="drop", outputs=("20",))


def why(verdict: Verdict) -> tuple[str, str, str, str]:
    assert verdict.why is not None
    assert verdict.why.object is not None
    return verdict.kind, verdict.why.code, verdict.why.object.type, verdict.why.object.uuid or verdict.why.object.name


def test_what_came_in_for_another_datapath_by_a_tunnel_that_is_wrong() -> None:
    found = answer(sent(came_as=DB), check=BAD)
    assert why(found) == ("lost_between", "tunnel_misconfigured", "Encap", "encap-hv2")
    assert (found.where.server, found.where.port, found.where.next_server) == ("hv1", "ovn-hv2-0", "hv2")
    assert found.why is not None
    assert any("sent for web, came in for db" in e.text for e in found.why.evidence)


def test_what_came_in_for_its_own_datapath_was_not_the_tunnels_fault() -> None:
    found = answer(sent(came_as=WEB), check=BAD).why
    assert found is not None
    assert found.code == "unknown"


def test_what_came_in_for_another_datapath_by_a_tunnel_that_is_right() -> None:
    found = answer(sent(came_as=DB), check=CHECK).why
    assert found is not None
    assert found.code == "unknown"


def test_what_the_sender_could_not_send_names_the_other_end() -> None:
    found = answer(sent(), refused("native tunnel routing failed"), check=CHECK)
    assert why(found) == ("dropped", "tunnel_unreachable", "Tunnel", "ovn-hv2-0")
    assert found.pattern == "persistent"
    assert found.why is not None
    assert "hv1 could not send it to hv2 (192.0.2.2): native tunnel routing failed" in found.why.summary
    assert "ovs/route/lookup 192.0.2.2" in str(found.why.fix)


def test_what_the_sender_could_not_send_says_what_is_wrong_with_its_tunnel() -> None:
    found = answer(sent(), refused("Tunneling decided against output"), check=BAD)
    assert why(found)[:2] == ("dropped", "tunnel_unreachable")
    assert found.why is not None
    assert WRONG in found.why.summary


def test_an_entry_that_leads_to_an_interface_that_is_gone() -> None:
    found = answer(sent(), refused("Nonexistent output port"), check=NONE)
    assert why(found)[:3] == ("dropped", "tunnel_unreachable", "Tunnel")


def test_a_server_without_any_tunnel_to_the_other() -> None:
    last = step(DEFAULT_ENTRY, table=40, cookie=0, priority=0, out_key=WEB2)
    found = answer(sent(), inspection(last, chassis=HV1), check=NONE)
    assert why(found)[:3] == ("dropped", "tunnel_unreachable", "Tunnel")
    assert found.where.server == "hv1"
    assert found.why is not None
    assert "no tunnel port towards hv2" in found.why.summary
    assert found.why.evidence


def test_with_both_ends_right_it_was_the_wire() -> None:
    assert why(answer(sent(), check=CHECK))[:2] == ("lost_between", "physical_loss")


def flows(fates: str) -> Recorder:
    """A packet for each sign, each of a flow of its own: "." arrives, "-" does not."""
    recorder = Recorder()
    for key, fate in enumerate(fates, start=1):
        ports = {"sport": 40000 + key, "dport": 80}
        recorder.write(HV1, Point.FIRST_HOP, WEB, key, pair=0, in_key=WEB1, in_ofport=5, ttl=64, **ports)
        recorder.sent(key, **ports)
        if fate == ".":
            recorder.came(key, **ports)
            recorder.out(key, **ports)
    return recorder


def cached(recorder: Recorder) -> list[Inspection]:
    """Of the last flow that its packets can't be sent; of the others that they are, as the switch cached it before."""
    firsts = [r for r in recorder.records if r.point == Point.FIRST_HOP]
    passes = step(PHYSICAL_ENTRY, ("output:20",), table=39, out_key=WEB2)
    found = [inspection(passes, outcome="tunnel", outputs=("20",), flow_id=flow_id(r)) for r in firsts[:-1]]
    return [*found, replace(refused("native tunnel routing failed"), flow_id=flow_id(firsts[-1]))]


def counted(recorder: Recorder) -> dict[str, int]:
    found = attribute(case(recorder.records, cached(recorder), tunnels=(CHECK,)))
    return {v.why.code if v.why else v.kind: v.packets for v in found.verdicts}


def test_what_was_seen_of_one_flow_explains_what_the_others_lost_in_the_same_tunnel() -> None:
    assert counted(flows("---")) == {"tunnel_unreachable": 3}
    assert counted(flows("..---")) == {"tunnel_unreachable": 3, "delivered": 2}


def test_what_the_wire_lost_while_the_tunnel_passed_others_is_its_own_loss() -> None:
    assert counted(flows("--.--")) == {"physical_loss": 2, "tunnel_unreachable": 2, "delivered": 1}


def test_a_local_interface_that_is_gone_is_no_tunnel() -> None:
    last = step(PHYSICAL_ENTRY, ("output:6",), table=65, out_key=WEB2)
    gone = inspection(last, chassis=HV2, errors=("Nonexistent output port",), outcome="drop")
    recorder = Recorder()
    for key in range(1, 4):
        recorder.switched(key)
    found = answer(recorder, gone, check=CHECK)
    assert why(found) == ("dropped", "vif_down", "Interface", "web2")
