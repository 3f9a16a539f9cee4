"""Which row rewrote a packet's headers between two of its records."""

from __future__ import annotations

from builders import INVENTORY, R1, WEB
from msgspec.structs import replace

from vtrace.attribute.paths import hops_of
from vtrace.attribute.rewriting import rewrites
from vtrace.model.inventory import Backend, Nat, Vip
from vtrace.model.record import LogRecord, Point

CLOUD = replace(
    INVENTORY,
    nats=(
        Nat(router=R1, kind="snat", external="203.0.113.1", logical="10.0.1.0/24", uuid="n-snat"),
        Nat(router=R1, kind="dnat_and_snat", external="203.0.113.2", logical="10.0.1.1", uuid="n-floating"),
        Nat(router=99, kind="dnat_and_snat", external="203.0.113.3", logical="10.0.1.1", uuid="n-elsewhere"),
    ),
    vips=(
        Vip(
            balancer="lb",
            uuid="l1",
            address="10.9.0.1",
            proto="tcp",
            port=80,
            backends=(Backend(address="10.0.2.1", port=8080),),
            datapaths=(WEB,),
        ),
    ),
)


def record(datapath: int, src: tuple[str, int], dst: tuple[str, int], proto: int = 6, **fields: object) -> LogRecord:
    return LogRecord(
        chassis="c-hv1",
        incarnation=1,
        seq=1,
        color=3,
        epoch=1,
        key=1,
        point=Point.LOGICAL_EGRESS,
        datapath=datapath,
        proto=proto,
        src=src[0],
        sport=src[1],
        dst=dst[0],
        dport=dst[1],
        **fields,
    )


def kinds(before: LogRecord, after: LogRecord) -> list[tuple[str, str, str, str]]:
    found = rewrites(before, after, CLOUD)
    return [(r.kind, r.before, r.after, r.object.uuid if r.object else "") for r in found]


CLIENT, BACKEND = ("10.0.1.1", 4000), ("10.0.2.1", 8080)
OUTSIDE = ("198.51.100.7", 443)


def test_a_load_balancer_chose() -> None:
    found = kinds(record(WEB, CLIENT, ("10.9.0.1", 80)), record(WEB, CLIENT, BACKEND))
    assert found == [("load_balancing", "10.9.0.1:80", "10.0.2.1:8080", "l1")]


def test_and_its_answer_is_put_back() -> None:
    found = kinds(record(WEB, BACKEND, CLIENT), record(WEB, ("10.9.0.1", 80), CLIENT))
    assert found == [("undnat", "10.0.2.1:8080", "10.9.0.1:80", "l1")]


def test_a_backend_that_was_given_its_own_packets() -> None:
    own = ("10.0.2.1", 4000)
    found = kinds(record(WEB, own, ("10.9.0.1", 80)), record(WEB, ("10.9.0.1", 4000), BACKEND))
    assert found == [
        ("load_balancing", "10.9.0.1:80", "10.0.2.1:8080", "l1"),
        ("snat", "10.0.2.1:4000", "10.9.0.1:4000", "l1"),
    ]
    found = kinds(record(WEB, BACKEND, ("10.9.0.1", 4000)), record(WEB, ("10.9.0.1", 80), own))
    assert found == [
        ("unsnat", "10.9.0.1:4000", "10.0.2.1:4000", "l1"),
        ("undnat", "10.0.2.1:8080", "10.9.0.1:80", "l1"),
    ]


def test_the_narrower_source_nat_is_named() -> None:
    found = kinds(record(WEB, CLIENT, OUTSIDE), record(R1, ("203.0.113.2", 4000), OUTSIDE))
    assert found == [("snat", "10.0.1.1:4000", "203.0.113.2:4000", "n-floating")]
    found = kinds(record(WEB, ("10.0.1.5", 4000), OUTSIDE), record(R1, ("203.0.113.1", 50001), OUTSIDE))
    assert found == [("snat", "10.0.1.5:4000", "203.0.113.1:50001", "n-snat")]


def test_inward() -> None:
    found = kinds(record(WEB, OUTSIDE, ("203.0.113.2", 22)), record(R1, OUTSIDE, ("10.0.1.1", 22)))
    assert found == [("dnat", "203.0.113.2:22", "10.0.1.1:22", "n-floating")]
    found = kinds(record(WEB, OUTSIDE, ("203.0.113.1", 50001)), record(R1, OUTSIDE, ("10.0.1.5", 4000)))
    assert found == [("unsnat", "203.0.113.1:50001", "10.0.1.5:4000", "n-snat")]


def test_no_row_here_is_said_and_nothing_is_nothing() -> None:
    found = kinds(record(WEB, OUTSIDE, ("203.0.113.3", 22)), record(R1, OUTSIDE, ("10.0.1.1", 22)))
    assert found == [("unknown", "203.0.113.3:22", "10.0.1.1:22", "")]
    assert kinds(record(WEB, CLIENT, BACKEND), record(R1, CLIENT, BACKEND)) == []


def test_an_icmp_type_is_no_port() -> None:
    ping = (("10.0.1.1", 8), ("10.0.2.1", 0))
    assert kinds(record(WEB, *ping, proto=1), record(R1, ("10.0.1.1", 0), ("10.0.2.1", 0), proto=1)) == []


def test_a_load_balancer_is_a_hop_of_its_own() -> None:
    hops = list(hops_of([record(WEB, CLIENT, ("10.9.0.1", 80)), record(WEB, CLIENT, BACKEND, ttl=64)], CLOUD))
    assert [(h.vfd_kind, h.vfd, h.server) for h in hops] == [
        ("vswitch", "web", "hv1"),
        ("slb", "lb", "hv1"),
        ("vswitch", "web", "hv1"),
    ]
    assert [len(h.rewritten) for h in hops] == [0, 1, 0]
