"""Several senders, several receivers, both directions, several causes at once: each pair has its own answer.

The truth is what the VMs' interfaces saw, and the commands that were given; each fault stands beside a near-miss.
"""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from faults import answers
from faults.answers import Answer
from faults.facts import PROGRAM, Facts
from faults.running import IN_FLIGHT, eventually, lab_command, namespace

from vtrace.bench.capture import Packet, Sniffer

pytestmark = pytest.mark.lab

SENDERS = ("red-web1", "red-web2")
RECEIVERS = ("red-web3", "red-db1", "red-db2")
PORT = 20999
OTHER_PORT = 20998
RATE_PPS = 40
PACKETS = 20
QUIET_S = 0.3
FORWARD, REPLY = "forward", "reply"
# From, to, direction.
Way = tuple[str, str, str]
ALL: tuple[Way, ...] = tuple((a, b, way) for a in SENDERS for b in RECEIVERS for way in (FORWARD, REPLY))

# Sends one and the same datagram to all addresses given, over and over, with IP id 0.
SAME_TO_ALL = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 20997))
end = time.monotonic() + 60
while time.monotonic() < end:
    for address in sys.argv[1:]:
        s.sendto(b"one and the same datagram for all", (address, 20999))
    time.sleep(0.025)
"""


@dataclass
class Watch:
    """What all VMs of the matrix sent and got."""

    facts: Facts
    sniffers: dict[str, Sniffer] = field(default_factory=dict)

    def address(self, name: str, ip: int = 4) -> str:
        return next(str(a) for a in self.facts.vm(name)["addresses"] if (":" in a) == (ip == 6))

    def read(self, ports: tuple[int, ...] = (PORT,), ip: int = 4) -> Seen:
        """Packets since the last call: those that left their sender, and those that reached their receiver."""
        owner = {self.address(name, ip): name for name in self.sniffers}
        seen = Seen()
        for name, sniffer in self.sniffers.items():
            for packet in sniffer.read():
                way = way_of(packet, owner, ports)
                if way is not None:
                    start = way[0] if way[2] == FORWARD else way[1]
                    (seen.sent if name == start else seen.arrived)[way] += 1
        return seen


@dataclass
class Seen:
    """Packets of each way, at its sender and at its receiver."""

    sent: Counter[Way] = field(default_factory=Counter)
    arrived: Counter[Way] = field(default_factory=Counter)

    @property
    def dead(self) -> set[Way]:
        """The ways on which something is sent and nothing arrives."""
        return {way for way in self.sent if not self.arrived[way]}

    @property
    def well(self) -> set[Way]:
        """The ways on which all arrives, but for what passes while one interface after the other is read."""
        return {way for way, sent in self.sent.items() if self.arrived[way] >= sent * 0.95 - IN_FLIGHT}

    def lost_share(self, way: Way) -> float:
        return 1 - self.arrived[way] / self.sent[way] if self.sent[way] else 0.0


def way_of(packet: Packet, owner: dict[str, str], ports: tuple[int, ...]) -> Way | None:
    """Whose packet it is, and in which direction."""
    if packet.proto != "udp" or packet.src not in owner or packet.dst not in owner:
        return None
    sport, dport = struct.unpack_from("!HH", packet.body)
    if dport in ports:
        return owner[packet.src], owner[packet.dst], FORWARD
    return (owner[packet.dst], owner[packet.src], REPLY) if sport in ports else None


@pytest.fixture
def watch(facts: Facts) -> Iterator[Watch]:
    with contextlib.ExitStack() as stack:
        sniffers = {n: stack.enter_context(Sniffer(namespace(facts, n))) for n in (*SENDERS, *RECEIVERS)}
        try:
            yield Watch(facts, sniffers)
        finally:
            lab_command(facts, "traffic", "stop")
            lab_command(facts, "heal")
            facts.execute("central", "ovn-nbctl", "--wait=hv", "acl-del", "red-web", "--", "acl-del", "red-db")
            facts.execute("red-db1", "nft", "flush", "ruleset", check=False)


def send(watch: Watch, source: str, destination: str, port: int = PORT, ip: int = 4) -> None:
    words = ("--from", source, "--to", destination, "--proto", "udp", "--dport", str(port), "--rate", str(RATE_PPS))
    lab_command(watch.facts, "traffic", "start", *words, "--ip", str(ip))


def acl(watch: Watch, switch: str, priority: int, match: str) -> str:
    """Adds an ACL that drops; its uuid."""
    facts = watch.facts
    facts.execute("central", "ovn-nbctl", "--wait=hv", "acl-add", switch, "to-lport", str(priority), match, "drop")
    found = facts.execute("central", "ovn-nbctl", "--bare", "--columns=_uuid", "find", "ACL", f"priority={priority}")
    (uuid,) = found.split()
    return uuid


def until_dead(watch: Watch, ways: set[Way], all_ways: tuple[Way, ...] = ALL, ip: int = 4) -> None:
    """Until just these lose everything, and what others send arrives."""

    def so_it_is() -> bool:
        watch.read(ip=ip)
        time.sleep(QUIET_S)
        seen = watch.read(ip=ip)
        # What nothing reaches answers nothing.
        quiet = {(a, b, REPLY) for a, b, way in ways if way == FORWARD}
        return seen.dead == ways and seen.well == set(all_ways) - ways - quiet

    eventually(so_it_is, f"the faults to act on {sorted(ways)}", 20.0)


def diagnose(watch: Watch, *args: str, packets: int = PACKETS) -> Answer:
    answer = answers.diagnose(watch.facts, "--packets", str(packets), "--timeout", "25", *args)
    answers.check_sound(answer, packets)
    pairs = answer.document["pairs"]
    assert sum(p["colored"] for p in pairs) == answer.document["packets"]["colored"], answer.text()
    for pair in pairs:
        packets_of = [answer.document["verdicts"][number]["packets"] for number in pair["verdicts"]]
        assert sum(packets_of) == pair["colored"], answer.text()
    return answer


def pairs_of(answer: Answer) -> dict[Way, dict[str, Any]]:
    return {(p["from"], p["to"], p["direction"]): p for p in answer.document["pairs"]}


def verdicts_of(answer: Answer, way: Way, *kinds: str) -> list[dict[str, Any]]:
    found = [answer.document["verdicts"][number] for number in pairs_of(answer)[way]["verdicts"]]
    return [verdict for verdict in found if not kinds or verdict["kind"] in kinds]


def check_well(answer: Answer, ways: set[Way], packets: int = PACKETS) -> None:
    for way in ways:
        pair = pairs_of(answer)[way]
        assert (pair["loss"], pair["loss_ratio"], pair["colored"]) == ("no", 0.0, packets), (way, answer.text())
        assert [v["kind"] for v in verdicts_of(answer, way)] == ["delivered"], (way, answer.text())


def check_acl(answer: Answer, way: Way, uuid: str, server: str, port: str) -> None:
    (verdict,) = verdicts_of(answer, way)
    found = (verdict["kind"], verdict["why"]["code"], verdict["why"]["object"]["uuid"])
    assert found == ("dropped", "acl_drop", uuid), answer.text()
    assert (verdict["where"]["server"], verdict["where"]["port"]) == (server, port), answer.text()
    pair = pairs_of(answer)[way]
    assert (pair["loss"], pair["loss_ratio"], verdict["packets"]) == ("yes", 1.0, pair["colored"]), answer.text()


def in_both(*extra: str) -> tuple[str, ...]:
    return (
        *("--from", ",".join(SENDERS), "--to", ",".join(RECEIVERS), "--direction", "both"),
        *("--proto", "udp", "--dport", str(PORT), *extra),
    )


@pytest.mark.parametrize("ip", [4, 6])
def test_each_pair_and_direction_has_its_own_cause(watch: Watch, ip: int) -> None:
    """An ACL that one pair meets, one that the reply of another meets, and a wire that two meet in one direction."""
    family = "ip4" if ip == 4 else "ip6"
    web1, db2 = watch.address("red-web1", ip), watch.address("red-db2", ip)
    for source in SENDERS:
        for destination in RECEIVERS:
            send(watch, source, destination, ip=ip)
    forward = acl(watch, "red-db", 1501, f'outport == "red-db1" && {family}.src == {web1} && udp')
    back = acl(watch, "red-web", 1502, f'outport == "red-web2" && {family}.src == {db2} && udp')
    lab_command(watch.facts, "break", "physical_loss", "a=hv1", "b=hv2", "direction=a-b")
    by_wire = {(source, "red-web3", FORWARD) for source in SENDERS}
    dead = {*by_wire, ("red-web1", "red-db1", FORWARD), ("red-web2", "red-db2", REPLY)}
    until_dead(watch, dead, ip=ip)
    answer = diagnose(watch, *in_both("--ip", str(ip)))
    seen = watch.read(ip=ip)
    assert seen.dead == dead, f"injector: {seen}"
    assert set(pairs_of(answer)) == set(ALL), answer.text()
    assert (answer.document["loss"], answer.document["task"]["state"], answer.code) == ("yes", "done", 1)
    check_acl(answer, ("red-web1", "red-db1", FORWARD), forward, "hv3", "red-db1")
    check_acl(answer, ("red-web2", "red-db2", REPLY), back, "hv1", "red-web2")
    for way in by_wire:
        (verdict,) = verdicts_of(answer, way)
        where = verdict["where"]
        assert (verdict["kind"], verdict["why"]["code"]) == ("lost_between", "physical_loss"), answer.text()
        assert (where["server"], where["next_server"], verdict["packets"]) == ("hv1", "hv2", PACKETS), answer.text()
    silent = {(a, b, REPLY) for a, b, way in dead if way == FORWARD}
    for way in silent:
        (verdict,) = verdicts_of(answer, way)
        assert (verdict["kind"], pairs_of(answer)[way]["loss"]) == ("no_traffic", "unknown"), answer.text()
        assert "nothing to answer" in verdict["why"]["summary"], answer.text()
    check_well(answer, set(ALL) - dead - silent)


def test_the_same_changes_where_they_meet_no_pair(watch: Watch) -> None:
    """The near-miss of the above: another port, another VPC's address, a wire that no tunnel of these pairs takes."""
    for source in SENDERS:
        for destination in RECEIVERS:
            send(watch, source, destination)
    acl(watch, "red-db", 1501, f'outport == "red-db1" && ip4.src == 10.1.1.11 && udp.dst == {OTHER_PORT}')
    acl(watch, "red-web", 1502, 'outport == "red-web2" && ip4.src == 10.1.2.99 && udp')
    lab_command(watch.facts, "break", "physical_loss", "a=hv2", "b=hv3")
    until_dead(watch, set())
    answer = diagnose(watch, *in_both())
    seen = watch.read()
    assert seen.well == set(ALL), f"injector: {seen}"
    assert (answer.document["loss"], answer.code) == ("no", 0), answer.text()
    check_well(answer, set(ALL))


@pytest.mark.parametrize("dropped_port", [OTHER_PORT, PORT - 2], ids=["two causes", "one"])
def test_two_causes_of_one_pair_have_their_own_packets(watch: Watch, dropped_port: int) -> None:
    """A wire that loses every third packet, and an ACL that drops one of two flows of one pair: or of none."""
    for source, port in (("red-web1", PORT), ("red-web1", OTHER_PORT), ("red-web2", PORT), ("red-web2", OTHER_PORT)):
        send(watch, source, "red-db1", port)
    match = f'outport == "red-db1" && ip4.src == {watch.address("red-web1")} && udp.dst == {dropped_port}'
    uuid = acl(watch, "red-db", 1503, match)
    lab_command(watch.facts, "break", "partial_loss", "a=hv1", "b=hv3", "direction=a-b", "mode=every", "ratio=3")
    one, other = ("red-web1", "red-db1", FORWARD), ("red-web2", "red-db1", FORWARD)
    eventually(lambda: watch.read((PORT, OTHER_PORT)).lost_share(other) > 0.2, "the wire to lose packets")
    watch.read()
    args = ("--from", ",".join(SENDERS), "--to", "red-db1", "--proto", "udp")
    answer = diagnose(watch, *args, packets=60)
    seen = watch.read((PORT, OTHER_PORT))
    met = dropped_port == OTHER_PORT
    assert min(seen.sent[one], seen.sent[other]) > 0, f"injector: {seen}"
    assert (seen.lost_share(one) > 0.5) == met, f"injector: {seen}"
    assert 0.2 < seen.lost_share(other) < 0.45, f"injector: {seen}"
    for way, causes in ((one, {"physical_loss", "acl_drop"} if met else {"physical_loss"}), (other, {"physical_loss"})):
        lost = verdicts_of(answer, way, "dropped", "lost_between")
        assert {v["why"]["code"] for v in lost} == causes, answer.text()
        assert {v["pattern"] for v in lost} == {"persistent"}, answer.text()
        assert len(lost) == len(causes), answer.text()
        # Of 60 packets the share that the VMs saw, within what chance does.
        assert abs(pairs_of(answer)[way]["loss_ratio"] - seen.lost_share(way)) < 0.2, (answer.text(), seen)
    acls = [v for v in answer.document["verdicts"] if v["why"] and v["why"]["code"] == "acl_drop"]
    assert [v["why"]["object"]["uuid"] for v in acls] == [uuid] * met, answer.text()


@pytest.mark.parametrize("blocked", ["red-web1", "red-web2"])
def test_one_and_the_same_datagram_to_all_is_a_packet_of_each_pair(watch: Watch, blocked: str) -> None:
    """An ACL keeps it from one of three; the near-miss has the address of a VM that does not send."""
    facts, ways = watch.facts, [("red-web1", to, FORWARD) for to in RECEIVERS]
    uuid = acl(watch, "red-db", 1504, f'outport == "red-db1" && ip4.src == {watch.address(blocked)} && udp')
    argv = [*PROGRAM, "lab", "exec", "--lab", facts.lab, "red-web1", "--", sys.executable, "-c", SAME_TO_ALL]
    with subprocess.Popen([*argv, *map(watch.address, RECEIVERS)]) as sender:
        try:
            eventually(lambda: len(watch.read().sent) == len(ways), "the datagrams to be sent")
            well = set(ways) - ({ways[1]} if blocked == "red-web1" else set())
            eventually(lambda: well <= set(watch.read().arrived), "the others to arrive")
            args = ("--from", "red-web1", "--to", ",".join(RECEIVERS), "--proto", "udp", "--dport", str(PORT))
            answer = diagnose(watch, *args)
        finally:
            sender.terminate()
    seen = watch.read()
    dead = {ways[1]} if blocked == "red-web1" else set()
    assert seen.dead & set(ways) == dead, f"injector: {seen}"
    for way in dead:
        check_acl(answer, way, uuid, "hv3", "red-db1")
    for way in set(ways) - dead:
        # Whether somebody answers is another matter.
        pair = pairs_of(answer)[way]
        assert (pair["loss"], pair["loss_ratio"], pair["colored"]) == ("no", 0.0, PACKETS), (way, answer.text())


@pytest.mark.parametrize("mute", [True, False], ids=["mute", "near"])
def test_silent_unanswered_and_unreachable_pairs_are_told_apart(watch: Watch, mute: bool) -> None:
    """db1's firewall drops what comes from web1 (or from nobody); web2 is silent; blue-db1 can't be reached."""
    send(watch, "red-web1", "red-db1")
    source = watch.address("red-web1") if mute else "10.1.1.99"
    chain = f"chain c {{ type filter hook input priority 0; ip saddr {source} drop; }}"
    watch.facts.execute("red-db1", "nft", f"table inet injected {{ {chain}; }}")
    ways = (("red-web1", "red-db1", FORWARD), ("red-web1", "red-db1", REPLY))
    # Arrived, not just sent: a wire that lost packets in the case before may not be well at once.
    eventually(lambda: watch.read().arrived[ways[0]] > 0, "packets")
    args = ("--from", ",".join(SENDERS), "--to", "red-db1,blue-db1", "--direction", "both", "--proto", "udp")
    answer = answers.diagnose(watch.facts, *args, "--packets", str(PACKETS), "--timeout", "8")
    answers.check_sound(answer, PACKETS)
    seen = watch.read()
    assert (seen.sent[ways[1]] == 0) == mute, f"injector: {seen}"
    told = {
        way: [(v["kind"], (v["why"] or {}).get("code")) for v in verdicts_of(answer, way)] for way in pairs_of(answer)
    }
    losses = {way: pair["loss"] for way, pair in pairs_of(answer).items()}
    assert told[ways[0]] == [("delivered", None)], answer.text()
    assert told[ways[1]] == ([("no_traffic", "guest_not_answering")] if mute else [("delivered", None)]), answer.text()
    assert (losses[ways[0]], losses[ways[1]]) == ("no", "no"), answer.text()
    others = set(told) - set(ways)
    assert len(others) == 6, answer.text()
    assert {tuple(told[way]) for way in others} == {(("no_traffic", "source_silent"),)}, answer.text()
    assert {losses[way] for way in others} == {"unknown"}, answer.text()
    for way in others:
        apart = "another VPC" in verdicts_of(answer, way)[0]["why"]["summary"]
        # Nobody in blue has the address of red-web2: what blue-db1 sends there can be meant for it only.
        assert apart == (way[1] == "blue-db1" and way != ("red-web2", "blue-db1", REPLY)), answer.text()
    assert (answer.document["loss"], answer.code) == ("unknown", 3), answer.text()


def test_the_matrix_in_the_text_says_the_same(watch: Watch) -> None:
    for source in SENDERS:
        send(watch, source, "red-db1")
        send(watch, source, "red-web3")
    acl(watch, "red-db", 1505, f'outport == "red-db1" && ip4.src == {watch.address("red-web1")} && udp')
    dead = {("red-web1", "red-db1", FORWARD)}
    ways = tuple((a, b, way) for a in SENDERS for b in ("red-db1", "red-web3") for way in (FORWARD, REPLY))
    until_dead(watch, dead, ways)
    argv = [*PROGRAM, "diagnose", "--lab", watch.facts.lab, "--packets", str(PACKETS), "--timeout", "8"]
    done = subprocess.run([*argv, *in_both()], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    start = lines.index("Loss in %, row to column / back:")
    end = lines.index("", start)
    assert [line.split() for line in lines[start + 1 : start + 4]] == [
        ["red-web3", "red-db1", "red-db2"],
        ["red-web1", "0/0", "100a/–", "–/–"],
        ["red-web2", "0/0", "0/0", "–/–"],
    ], done.stdout
    assert "a acl_drop: red-db on hv3, port red-db1" in lines[end - 1], done.stdout
    assert max(map(len, lines[start:end])) <= 80, done.stdout
