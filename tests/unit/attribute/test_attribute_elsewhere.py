"""Packets that came out at a port that is not the destination's: who claims what."""

from __future__ import annotations

from builders import DB, HV1, HV2, INVENTORY, TO_ROUTER, WEB, WEB2, Recorder, case, inspection, port, step
from builders import DEFAULT as DEFAULT_ENTRY
from msgspec.structs import replace

from vtrace.attribute.verdicts import attribute
from vtrace.model.answer import Verdict
from vtrace.model.inspection import Inspection
from vtrace.model.inventory import Inventory, LogicalPort

OTHER = 9
RIVAL = LogicalPort(
    name="rival",
    key=OTHER,
    datapath=WEB,
    chassis=HV2,
    addresses=("0a:00:00:00:00:02 10.0.1.99",),
    nb_uuid="nb-rival",
)


def diverted(port_: LogicalPort, *inspections: Inspection) -> Verdict:
    """The answer where web1's packets for web2 come out at a port of hv2."""
    recorder = Recorder()
    for key in range(1, 6):
        recorder.first(key)
        recorder.sent(key, out_key=port_.key, datapath=port_.datapath)
        recorder.came(key, datapath=port_.datapath)
        recorder.out(key, out_key=port_.key, datapath=port_.datapath)
    inventory = with_port(INVENTORY, port_)
    return attribute(case(recorder.records, inspections, inventory=inventory)).verdicts[0]


def with_port(inventory: Inventory, port_: LogicalPort) -> Inventory:
    return replace(inventory, ports=(*inventory.ports, port_))


def test_a_port_that_claims_the_destinations_mac_address() -> None:
    found = diverted(RIVAL)
    assert found.why is not None
    assert found.why.object is not None
    assert (found.kind, found.pattern, found.why.code, found.why.actor) == (
        "dropped",
        "persistent",
        "address_conflict",
        "tenant",
    )
    assert (found.where.server, found.where.vfd, found.where.port) == ("hv2", "web", "rival")
    assert (found.why.object.type, found.why.object.uuid) == ("Logical_Switch_Port", "nb-rival")
    assert found.why.object.name == "rival, web2"
    assert "0a:00:00:00:00:02" in found.why.summary
    assert "10.0.1" not in found.why.summary
    assert any("nb-web2" in e.text and "nb-rival" in e.text for e in found.why.evidence)


def test_a_port_that_claims_the_destinations_ip_address_with_a_prefix_length() -> None:
    found = diverted(replace(RIVAL, addresses=("0a:00:00:00:99:99 10.0.1.2/24",)))
    assert found.why is not None
    assert found.why.code == "address_conflict"
    assert "10.0.1.2" in found.why.summary


def test_a_port_with_addresses_of_its_own_is_misdelivered_to() -> None:
    for addresses in (("0a:00:00:00:99:99 10.0.1.99",), ("unknown",), ()):
        found = diverted(replace(RIVAL, addresses=addresses))
        assert found.why is not None
        assert (found.why.code, found.why.actor) == ("misdelivered", "provider")
        assert "rival" in found.why.summary
        assert found.why.evidence


def test_the_same_addresses_on_another_switch_are_no_conflict() -> None:
    found = diverted(replace(RIVAL, datapath=DB))
    assert found.why is not None
    assert found.why.code == "misdelivered"


def test_a_port_that_claims_the_routers_address() -> None:
    claimed = replace(RIVAL, addresses=("0a:00:00:00:ff:01 10.0.1.254",))
    inventory = with_port(INVENTORY, claimed)
    door = port("r1-web", addresses=("0a:00:00:00:ff:01 10.0.1.254/24",))
    inventory = replace(inventory, ports=tuple(door if p.name == "r1-web" else p for p in inventory.ports))
    recorder = Recorder()
    recorder.switched(1)
    records = [replace(r, out_key=OTHER) if r.out_key == WEB2 else r for r in recorder.records]
    found = attribute(case(records, inventory=inventory)).verdicts[0]
    assert found.why is not None
    assert found.why.code == "address_conflict"
    assert "r1-web" in found.why.summary
    assert TO_ROUTER != OTHER


def unbound(rival: LogicalPort) -> Verdict:
    """The answer where web1's packets go no further than hv1, since nobody has bound the port they go to."""
    recorder = Recorder()
    for key in range(1, 4):
        recorder.first(key)
    last = step(DEFAULT_ENTRY, table=40, cookie=0, priority=0, out_key=rival.key)
    asked = inspection(last, chassis=HV1, real_drop=True)
    return attribute(case(recorder.records, [asked], inventory=with_port(INVENTORY, rival))).verdicts[0]


def test_a_rival_that_nobody_has_bound() -> None:
    found = unbound(replace(RIVAL, chassis=""))
    assert found.why is not None
    assert (found.why.code, found.pattern) == ("address_conflict", "persistent")
    assert "no chassis has bound" in found.why.summary


def test_another_unbound_port_is_just_unbound() -> None:
    found = unbound(replace(RIVAL, chassis="", addresses=("0a:00:00:00:99:99",)))
    assert found.why is not None
    assert found.why.code == "port_unbound"


def test_what_is_sent_on_to_a_server_that_is_no_end_of_the_task_comes_out_there() -> None:
    """Its color is taken off on the way out, so nobody records it there: the port says on which server it ends."""
    recorder = Recorder()
    recorder.first(1)
    recorder.sent(1, receiver="", out_key=OTHER)
    inventory = with_port(INVENTORY, replace(RIVAL, addresses=("unknown",)))
    passed = inspection(step(DEFAULT_ENTRY), outcome="tunnel", chassis=HV1)
    found = attribute(case(recorder.records, [passed], inventory=inventory)).verdicts[0]
    assert found.why is not None
    assert found.why.code == "misdelivered"
    assert (found.where.server, found.where.vfd, found.where.port) == ("hv2", "web", "rival")
