"""What the generator says of a packet, against what is computed from its records alone."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from making import Generator, Made, Row, way

from vtrace.model.record import Point

EXTERNAL = ("internet-distributed", "internet-gateway", "internet-snat", "datacenter")


def single(made: Made, *kinds: str) -> list[tuple[Row, list[Row]]]:
    """The packets of some kinds (without any: all but floods) whose key nobody else has, with their records."""
    records = made.records()
    chosen = [
        row for row in made.truth if row["copies"] == 1 and (row["kind"] in kinds if kinds else row["kind"] != "flood")
    ]
    return [(row, records[row["color"], row["epoch"], row["key"]]) for row in chosen]


def test_truth_is_what_the_records_show(made: Generator) -> None:
    found = made(tasks=30, pairs=8, faults=0.5, loops=0.05, moves=0.3, restarts=0.3, identical=0.1)
    seen: Counter[tuple[str, str]] = Counter()
    for row, records in single(found):
        seen[row["kind"], row["disposition"]] += 1
        hops = way(records)
        assert len(hops) == len(records) == row["hops"]
        last = hops[-1]
        assert (last["chassis"], last["datapath"]) == (row["chassis"], row["datapath"])
        assert (hops[0]["task"], hops[0]["pair"]) == (row["task"], row["pair"])
        egresses = [hop for hop in hops if hop["point"] == Point.EGRESS]
        for hop in egresses:
            assert (row["goal_chassis"], row["goal_datapath"], row["goal_key"]) == (
                hop["chassis"],
                hop["datapath"],
                hop["out_key"],
            )
        sent = last["point"] == Point.REMOTE_OUTPUT
        ends = {"delivered": (1, False), "left_domain": (1, False), "dropped": (0, False), "lost_between": (0, True)}
        assert (len(egresses), sent) == ends[row["disposition"]]
        assert row["peer"] == (last["peer"] if sent else "")
    for kind in EXTERNAL:
        assert all(seen[kind, word] for word in ("delivered", "left_domain", "dropped")), kind
    for kind in ("vpc-switched", "vpc-routed", "slb", "vpc-vpc"):
        assert all(seen[kind, word] for word in ("delivered", "dropped", "lost_between")), kind
        assert not seen[kind, "left_domain"]
    assert seen["loop", "dropped"]


def test_packets_are_dropped_at_every_hop(made: Generator) -> None:
    found = made(tasks=60, pairs=8, packets=64, faults=1.0, kinds=("datacenter",))
    hops = {
        (row["disposition"], row["hops"]) for row in found.truth if row["disposition"] in ("dropped", "lost_between")
    }
    assert {count for word, count in hops if word == "dropped"} == set(range(1, 8))
    assert {count for word, count in hops if word == "lost_between"} == {4, 6}


def test_of_faulty_pairs_all_packets_are_lost_or_a_part(made: Generator) -> None:
    found = made(tasks=50, faults=0.4, packets=400, kinds=("vpc-switched", "vpc-routed"))
    pairs: dict[tuple[str, int], list[bool]] = defaultdict(list)
    for row in found.truth:
        pairs[row["task"], row["pair"]].append(row["disposition"] != "delivered")
    shares = [sum(lost) / len(lost) for lost in pairs.values()]
    assert sum(share > 0 for share in shares) == pytest.approx(0.4 * len(shares), abs=0.05 * len(shares))
    assert any(share == 1 for share in shares)
    assert any(0 < share < 1 for share in shares)


def test_routers_take_one_off_the_ttl_and_nobody_else(made: Generator) -> None:
    falls = {"vpc-switched": 0, "vpc-routed": 1, "slb": 1, "vpc-vpc": 2, "datacenter": 2}
    for row, records in single(made(tasks=20)):
        hops = way(records)
        ttls = [hop["ttl"] for hop in hops]
        assert ttls == sorted(ttls, reverse=True)
        assert ttls[0] - ttls[-1] == falls.get(row["kind"], 1)


def test_a_loop_goes_round_until_the_ttl_ends(made: Generator) -> None:
    found = made(loops=1.0, tasks=20, packets=40, servers=60, regions=2)
    servers = set()
    for row, records in single(found, "loop"):
        hops = way(records)
        assert row["disposition"] == "dropped"
        assert hops[-1]["ttl"] == 1
        assert {hop["ttl"] for hop in hops} == set(range(1, hops[0]["ttl"] + 1))
        servers.add(len({hop["chassis"] for hop in hops}))
    assert 3 in servers


def test_a_loop_stays_on_the_only_gateway(made: Generator) -> None:
    for _, records in single(made(loops=1.0, servers=9, tasks=3, packets=20), "loop"):
        assert len({record["chassis"] for record in records}) == 2


def test_answers_carry_the_addresses_that_were_asked(made: Generator) -> None:
    found = made(tasks=60, pairs=2, packets=32, kinds=("slb", "internet-snat", "internet-gateway"))
    seen: dict[tuple[str, str], set[tuple[object, ...]]] = defaultdict(set)
    asked: dict[tuple[str, str], set[tuple[object, ...]]] = defaultdict(set)
    for row, records in single(found):
        first, last = (_five_tuple(hop) for hop in (way(records)[0], way(records)[-1]))
        assert first != last
        if row["pair"] % 2:
            asked[row["kind"], row["task"]] |= {_turned(last), _turned(first)}
        else:
            seen[row["kind"], row["task"]] |= {first, last}
    assert {kind for kind, _ in seen} == {"slb", "internet-snat", "internet-gateway"}
    # Each flow has its own five-tuples, and both directions use each of them: inside and outside.
    assert asked == seen


def test_a_vip_has_several_backends(made: Generator) -> None:
    found = made(tasks=10, pairs=1, kinds=("slb",))
    backends: dict[str, set[str]] = defaultdict(set)
    for row, records in single(found):
        hops = way(records)
        assert hops[0]["dst"] != hops[1]["dst"] == hops[-1]["dst"]
        backends[row["task"]].add(hops[-1]["dst"])
    assert max(len(addresses) for addresses in backends.values()) == 3


def test_answers_may_come_by_another_gateway(made: Generator) -> None:
    found = made(tasks=40, servers=60, packets=16, kinds=("internet-gateway", "datacenter"))
    gateways: dict[tuple[str, int], set[str]] = defaultdict(set)
    for row, records in single(found):
        gateways[row["task"], row["pair"] // 2] |= {r["chassis"] for r in records if r["chassis"].startswith("gw")}
    counts = Counter(map(len, gateways.values()))
    assert set(counts) == {1, 2}
    assert counts[1] > counts[2]


def test_identical_packets_have_one_key_at_all_hops(made: Generator) -> None:
    found = made(identical=0.3, tasks=10, pairs=8, packets=400)
    copies = Counter((row["color"], row["epoch"], row["key"]) for row in found.truth)
    assert all(row["copies"] == copies[row["color"], row["epoch"], row["key"]] for row in found.truth)
    share = sum(count - 1 for count in copies.values()) / len(found.truth)
    assert share == pytest.approx(0.3, abs=0.03)
    records = found.records()
    pairs = defaultdict(set)
    for row in found.truth:
        pairs[row["color"], row["epoch"], row["key"]].add(row["pair"])
    for key, count in copies.items():
        firsts = [row for row in records[key] if row["point"] == Point.FIRST_HOP]
        assert len(firsts) == count
        assert len({(row["proto"], row["ip_id"], row["length_bytes"]) for row in records[key]}) == 1
    assert any(len(numbers) > 1 for numbers in pairs.values())


def test_a_flooded_packet_goes_to_many_ports(made: Generator) -> None:
    found = made(floods=1.0, faults=0.3, tasks=30, packets=32)
    seen = Counter()
    for row, records in single(found, "flood"):
        seen[row["disposition"]] += 1
        assert len(records) == row["hops"]
        (group,) = [r for r in records if r["point"] == Point.REMOTE_OUTPUT]
        assert (group["out_key"], group["peer"]) == (32_768, "")
        assert all(r["eth_dst"] >> 40 & 1 for r in records)
        egresses = [r for r in records if r["point"] == Point.EGRESS]
        assert len({r["out_key"] for r in egresses}) == len(egresses) >= 2
        here = [r for r in records if r["chassis"] == row["chassis"]]
        if row["disposition"] == "delivered":
            assert row["goal_key"] in {r["out_key"] for r in here if r["point"] == Point.EGRESS}
        if row["disposition"] == "lost_between":
            assert (row["chassis"], bool(row["peer"])) == (group["chassis"], True)
            assert not [r for r in records if r["chassis"] == row["peer"]]
        if row["disposition"] == "dropped":
            assert Point.INGRESS in {r["point"] for r in here}
    assert set(seen) == {"delivered", "dropped", "lost_between"}


def test_a_vm_that_moves_is_found_at_its_new_server(made: Generator) -> None:
    found = made(moves=1.0, tasks=10, kinds=("vpc-switched",))
    places: dict[tuple[str, int], dict[int, set[tuple[str, str]]]] = defaultdict(lambda: defaultdict(set))
    for row, records in single(found):
        hops = way(records)
        places[row["task"], row["pair"]][row["epoch"]].add((hops[0]["chassis"], hops[-1]["chassis"]))
    for by_epoch in places.values():
        before, after = (by_epoch[epoch] for epoch in sorted(by_epoch))
        assert len(before) == len(after) == 1
        assert before != after


def _five_tuple(row: Row) -> tuple[object, ...]:
    return (row["proto"], row["src"], row["sport"], row["dst"], row["dport"])


def _turned(five_tuple: tuple[object, ...]) -> tuple[object, ...]:
    proto, src, sport, dst, dport = five_tuple
    if proto in (1, 58):
        # An echo request for an answer.
        return (proto, dst, {0: 8, 129: 128}[sport], src, dport)  # type: ignore[index]
    return (proto, dst, dport, src, sport)
