"""What is read off a packet's records, so that it can be held against others."""

from __future__ import annotations

from collections.abc import Sequence

from builders import (
    DB,
    HV1,
    HV2,
    INVENTORY,
    PHYSICAL,
    R1,
    R1_DB,
    WEB,
    WEB2,
    Recorder,
    case,
    inspection,
    logical,
    pair,
    step,
)
from msgspec.structs import replace

from vtrace.attribute.endings import endings
from vtrace.attribute.traits import Traits, traits_of
from vtrace.model.inspection import Inspection
from vtrace.model.inventory import Backend, Inventory, Vip
from vtrace.model.record import LogRecord, flow_id

ROUTER_MAC, ONE_MAC, OTHER_MAC = 0x0A0000000100, 0x0A0000000003, 0x0A0000000004
DROP = step(logical("ls_out_acl", table="ACL", action="drop", direction="to-lport", name="a"), table=44, out_key=WEB2)
TRACKED = step(logical("ls_out_pre_stateful"), ("ct(table=45,zone=NXM_NX_REG13[0..15])",), table=43)


def traits(
    records: Sequence[LogRecord], *inspections: Inspection, inventory: Inventory = INVENTORY, to: str = "web2"
) -> list[Traits]:
    made = case(records, inspections, pairs=[pair(destination=to)], inventory=inventory)
    return traits_of(made, endings(made)[0])


def value(packet: Traits, name: str) -> object:
    return packet.values.get(name)


def asked(record: LogRecord, *steps: object, outcome: str = "drop", **fields: object) -> Inspection:
    made = inspection(*steps, outcome=outcome, chassis=HV2, flow_id=flow_id(record))  # type: ignore[arg-type]
    return replace(made, **fields)


def switched(*, last: str = "out", sport: int = 4000, **fields: object) -> list[LogRecord]:
    """A packet from web1 to web2, up to a record of that name."""
    recorder = Recorder()
    recorder.first(1)
    recorder.sent(1)
    if last != "sent":
        recorder.came(1)
    if last == "out":
        recorder.out(1, **fields)
    return [replace(r, sport=sport, dport=53, length_bytes=77) for r in recorder.records]


def test_what_stands_in_the_first_record() -> None:
    (packet,) = traits(switched())
    assert not packet.lost
    assert {name: value(packet, name) for name in ("size", "fragment", "protocol", "source_port")} == {
        "size": 77,
        "fragment": False,
        "protocol": "udp",
        "source_port": 4000,
    }
    assert value(packet, "tcp_flags") is None
    (segment,) = traits([replace(r, proto=6, tcp_flags=0x12) for r in switched()])
    assert value(segment, "tcp_flags") == "SYN"


def test_echoes_and_later_fragments_have_no_ports() -> None:
    for fields in ({"proto": 1, "sport": 8, "dport": 0}, {"fragment": 2, "sport": 0, "dport": 0}):
        (packet,) = traits([replace(r, **fields) for r in switched()])
        assert value(packet, "source_port") is None
        assert value(packet, "destination_port") is None


def test_the_server_it_was_sent_to_counts_as_passed() -> None:
    """Else that of all packets that a wire loses would be missing."""
    (packet,) = traits(switched(last="sent"))
    assert packet.lost
    assert packet.between
    assert packet.servers == {"hv1", "hv2"}
    assert packet.cause == "physical_loss between hv1 and hv2"


def test_the_state_of_a_delivered_packet() -> None:
    (packet,) = traits(switched(ct_state=0x2A))
    assert value(packet, "conntrack_state") == "est,rpl"
    (packet,) = traits(switched())
    assert value(packet, "conntrack_state") is None, "nothing says that it was tracked"


def test_a_delivered_packet_without_state_where_all_are_tracked_was_committed() -> None:
    records = switched()
    found = asked(records[0], TRACKED, step(PHYSICAL, ("output:2",), table=65), outcome="output")
    (packet,) = traits(records, found)
    assert not packet.lost
    assert value(packet, "conntrack_state") == "new"
    elsewhere = asked(records[0], replace(TRACKED, datapath=DB), outcome="output")
    (packet,) = traits(records, elsewhere)
    assert value(packet, "conntrack_state") is None


def test_the_state_of_a_lost_packet_is_that_of_its_own_inspection() -> None:
    records = switched(last="came")
    found = asked(records[0], TRACKED, DROP, ct_next=("est,trk",), real_drop=True)
    (packet,) = traits(records, found)
    assert (packet.lost, packet.code) == (True, "acl_drop")
    assert value(packet, "conntrack_state") == "est"
    (packet,) = traits(records, replace(found, real_drop=None))
    assert value(packet, "conntrack_state") is None, "a trace takes what it is told"
    (packet,) = traits(records, replace(found, flow_id="17 of another"))
    assert value(packet, "conntrack_state") is None


def test_whether_the_cause_looks_at_the_state() -> None:
    records = switched(last="came")
    for match, looks in (("udp && ct.est", True), ("udp", False)):
        acl = logical("ls_out_acl", table="ACL", action="drop", direction="to-lport", name=match, match=match)
        found = asked(records[0], step(acl, table=44, out_key=WEB2), real_drop=True)
        (packet,) = traits(records, found)
        assert packet.code == "acl_drop"
        assert packet.by_state is looks


# --- which way --------------------------------------------------------------------------------------------


def routed(key: int, mac: int, dst: str = "10.0.2.1", *, lost: bool = False) -> list[LogRecord]:
    """A packet from web1 to db1; the router puts a MAC address on it."""
    recorder = Recorder()
    recorder.routed(key)
    made = []
    for number, record in enumerate(recorder.records):
        made.append(
            replace(
                record, seq=key * 10 + record.seq, dst=dst, sport=4000 + key, eth_dst=ROUTER_MAC if number < 2 else mac
            )
        )
    return made[:-1] if lost else made


def test_next_hops_for_one_address() -> None:
    found = traits([*routed(1, ONE_MAC), *routed(2, OTHER_MAC, lost=True)], to="db1")
    assert {(p.lost, value(p, "ecmp_member")) for p in found} == {
        (False, "0a:00:00:00:00:03"),
        (True, "0a:00:00:00:00:04"),
    }


def test_next_hops_for_two_addresses_are_no_choice() -> None:
    found = traits([*routed(1, ONE_MAC), *routed(2, OTHER_MAC, dst="10.0.2.7")], to="db1")
    assert [value(p, "ecmp_member") for p in found] == [None, None]


def test_a_next_hop_that_is_not_known() -> None:
    """Of one that does not answer no MAC address is seen; the inspection knows its IP address."""
    lost = [r for r in routed(2, 0) if r.point == 0 or (r.datapath, r.point) == (WEB, 3)]
    chosen = step(
        logical("lr_in_ip_routing_ecmp", "1", "reg0 = 10.0.2.9; reg1 = 10.0.2.254; next;"),
        ("resubmit(,21)",),
        datapath=R1,
    )
    last = step(logical("lr_in_arp_request", "1", "arp { }; output;"), ("controller",), datapath=R1, out_key=R1_DB)
    found = inspection(chosen, last, outcome="controller", chassis=HV1, flow_id=flow_id(lost[0]))
    packets = traits([*routed(1, ONE_MAC), *lost], found, to="db1")
    assert [(p.code, value(p, "ecmp_member")) for p in packets] == [
        ("", "0a:00:00:00:00:03"),
        ("neighbor_unresolved", "10.0.2.9"),
    ]


VIP = "10.9.0.1"
BALANCED = replace(
    INVENTORY,
    vips=(
        Vip(
            balancer="lb",
            uuid="nb-lb",
            address=VIP,
            backends=(Backend(address="10.0.1.2"), Backend(address="10.0.2.1")),
            datapaths=(WEB,),
        ),
    ),
)


def test_a_backend() -> None:
    records = [replace(r, dst=VIP) if n < 1 else r for n, r in enumerate(switched())]
    (packet,) = traits(records, inventory=BALANCED)
    assert value(packet, "backend") == "10.0.1.2"
    (packet,) = traits(switched(), inventory=BALANCED)
    assert value(packet, "backend") is None


def test_a_backend_that_only_the_inspection_knows() -> None:
    """Lost on the switch where it came in: no record shows what was chosen."""
    recorder = Recorder()
    recorder.first(1)
    (first,) = (replace(r, dst=VIP) for r in recorder.records)
    found = inspection(replace(DROP, out_key=WEB2), chassis=HV1, flow_id=flow_id(first))
    (packet,) = traits([first], found, inventory=BALANCED)
    assert packet.lost
    assert value(packet, "backend") == "10.0.1.2"
