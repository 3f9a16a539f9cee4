"""Generated records against real ones: data/lab.parquet, recorded in the lab."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from making import Generator, Row, way

from vtrace.model.record import Point
from vtrace.model.record_schema import RECORD_SCHEMA
from vtrace.synthetic.kinds import KINDS

LAB = Path(__file__).parent / "data" / "lab.parquet"
# The lab's name of a way, and what the generator calls it.
NAMES = {
    "switched-local": "vpc-switched",
    "switched-remote": "vpc-switched",
    "routed-local": "vpc-routed",
    "routed-remote": "vpc-routed",
    "slb": "slb",
    "distributed": "internet-distributed",
    "central": "internet-gateway",
    "shared": "internet-snat",
    "datacenter": "datacenter",
    "vpc-vpc": "vpc-vpc",
}
# What a packet is sent with: none of it depends on where it was seen. IPv4 senders may leave the IP id out.
_OF_PACKET = ("dscp", "ecn", "ip_id")
_HEADERS = ("eth_src", "eth_dst", "src", "dst", "ttl", "dscp", "ecn", "ip_id", "length_bytes", "tcp_flags", "proto")

Profile = dict[tuple[object, ...], set[Hashable]]


@pytest.fixture(scope="module")
def lab() -> pa.Table:
    return pq.read_table(LAB)


@pytest.fixture(scope="module")
def packets(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, list[Row]]]:
    """Generated packets that passed, each with its kind and its records in the order of their way."""
    found = Generator(tmp_path_factory.mktemp("kinds"))(tasks=600, pairs=4, packets=48, vpcs=40, servers=60)
    records = found.records()
    passed = [row for row in found.truth if row["copies"] == 1]
    return [(row["kind"], way(records[row["color"], row["epoch"], row["key"]])) for row in passed]


def lab_packets(lab: pa.Table) -> list[tuple[str, list[Row]]]:
    """The lab's packets that left all their records."""
    groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in lab.to_pylist():
        groups[row["sample"], row["key"]].append(row)
    found = []
    for (sample, _), rows in groups.items():
        rows.sort(key=lambda row: (row["chassis"], row["incarnation"], row["seq"]))
        if sum(row["point"] == Point.FIRST_HOP for row in rows) == 1:
            hops = way(rows)
            if len(hops) == len(rows) and hops[-1]["point"] == Point.EGRESS:
                found.append((NAMES[sample.rpartition("-")[0]], hops))
    return found


def traffic(kind: str, hops: list[Row]) -> tuple[object, ...]:
    """What decides which way a packet takes and which fields it has."""
    first = hops[0]
    outside = "." in first["src"] and not first["src"].startswith("10.")
    outside |= first["src"].startswith("2001:") or first["src"].startswith(("10.50.", "fd00:50:"))
    protocol = (first["proto"], ":" in first["src"], first["sport"] == 0)
    answers_of_vip = kind == "slb" and hops[-1]["src"] != first["src"]
    return (kind, outside, answers_of_vip, len({hop["chassis"] for hop in hops}), *protocol)


def profile(packets: Iterable[tuple[str, list[Row]]], of_hops: object) -> Profile:
    """For each traffic all values that a function has of its packets."""
    assert callable(of_hops)
    found: Profile = defaultdict(set)
    for kind, hops in packets:
        found[traffic(kind, hops)].add(of_hops(hops))
    return found


def presence(hops: list[Row]) -> Hashable:
    """The points, and which fields each has."""
    names = [name for name in RECORD_SCHEMA.names if name not in (*_OF_PACKET, "pair", "vlan")]
    return tuple(
        (Point(hop["point"]).word, hop["pair"] >= 0, hop["vlan"] >= 0, *(name for name in names if hop[name]))
        for hop in hops
    )


def shape(hops: list[Row]) -> Hashable:
    """Which servers, datapaths and ports are the same ones along the way, numbered in the order of appearance."""
    servers: dict[str, int] = {}
    datapaths: dict[int, int] = {}
    ports: dict[tuple[int, int], int] = {}
    found = []
    for hop in hops:
        number = [servers.setdefault(hop[name], len(servers)) for name in ("chassis", "peer")]
        datapath = [datapaths.setdefault(hop[name], len(datapaths)) for name in ("datapath", "tunnel_id")]
        port = [ports.setdefault((hop["datapath"], hop[name]), len(ports)) for name in ("in_key", "out_key")]
        found.append((Point(hop["point"]).word, *number, *datapath, *port))
    return tuple(found)


def changes(hops: list[Row]) -> Hashable:
    """Which headers change from one record to the next, and how much the TTL falls."""
    return tuple(
        (before["ttl"] - after["ttl"], *(name for name in _HEADERS if before[name] != after[name]))
        for before, after in pairwise(hops)
    )


def conntrack(hops: list[Row]) -> Hashable:
    return tuple(hop["ct_state"] for hop in hops)


@pytest.mark.parametrize("of_hops", [presence, shape, changes])
def test_generated_packets_look_as_the_labs_do(
    lab: pa.Table, packets: list[tuple[str, list[Row]]], of_hops: object
) -> None:
    real, generated = profile(lab_packets(lab), of_hops), profile(packets, of_hops)
    assert {key[0] for key in real} == set(KINDS)
    assert len(real) > 80
    for key, seen in real.items():
        assert generated[key] == seen, key


def test_conntrack_states_are_among_those_of_the_lab(lab: pa.Table, packets: list[tuple[str, list[Row]]]) -> None:
    real, generated = profile(lab_packets(lab), conntrack), profile(packets, conntrack)
    for key, seen in real.items():
        assert seen <= generated[key], key


def test_columns_are_those_of_the_lab(lab: pa.Table, made: Generator) -> None:
    found = made().table.schema
    assert [field for field in lab.schema if field.name != "sample"] == list(found)
