"""A second controller beside a real task: left alone and told nothing, and noticed where it takes what is ours."""

from __future__ import annotations

import os
import random
import re
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import pytest
from faults import answers, bridges, matrix
from faults.facts import Facts
from faults.model import Pair
from faults.running import Traffic, eventually, watching
from test_diagnose_safety import ask, wait_until

import second_controller as second
from second_controller import SecondController
from vtrace.lab import state as lab_state

pytestmark = pytest.mark.lab

THEIRS = 0xABCDEF0000000001
LIKE_OURS = 0x5654100100000001
MANY = "100000"
PACKETS = 1000
"""At 200 packets/s: enough to notice, and to go on with something else."""
GENERATION = re.compile(r"cookie=0x5654[0-9a-f]([0-9a-f]{3})")
NOT_TENANTS = 0x88B5
"""An ethernet type for experiments: no tenant's packet has it."""


def sampled(options: Iterable[str]) -> list[str]:
    """One of them, drawn from the commit; in a soak run all."""
    known = list(options)
    return known if os.environ.get("VTRACE_SOAK", "0") == "1" else [random.Random(matrix.seed()).choice(known)]


@pytest.fixture
def pair(facts: Facts) -> Pair:
    return facts.pair("routed-remote", 4)


def ofctl(facts: Facts, server: str, *words: str) -> str:
    return facts.execute(server, "ovs-ofctl", "-O", "OpenFlow13", *words)


def at_management(facts: Facts, server: str) -> SecondController:
    return SecondController(lab_state.node_directory(facts.lab, server) / "br-int.mgmt")


def put_theirs(facts: Facts, server: str, other: SecondController, *, below_top: int) -> None:
    """A meter near the top of the ids, entries (one that copies to any controller, one like ours), and a group."""
    top = int(re.search(r"max_meter:(\d+)", ofctl(facts, server, "meter-features", "br-int"))[1])  # type: ignore[index]
    other.meter(0, top - below_top, 1000, 25)
    other.meter(0, 17, 500)
    other.entry(cookie=THEIRS, table=0, priority=7, ether_type=NOT_TENANTS)
    other.entry(cookie=LIKE_OURS, table=3, priority=7, ether_type=NOT_TENANTS, copies=False)
    ofctl(facts, server, "add-group", "br-int", "group_id=77,type=all,bucket=actions=drop")


def take_theirs_away(facts: Facts, server: str) -> None:
    for cookie in (THEIRS, LIKE_OURS):
        ofctl(facts, server, "del-flows", "br-int", f"cookie={cookie:#x}/-1")
    ofctl(facts, server, "del-groups", "br-int", "group_id=77")
    for meter in re.findall(r"^meter=(\d+)", ofctl(facts, server, "dump-meters", "br-int"), re.MULTILINE):
        ofctl(facts, server, "del-meter", "br-int", f"meter={meter}")


@pytest.fixture
def cleaned(facts: Facts) -> Iterator[None]:
    """Nothing of a second controller's is left for the tests that follow."""
    before = bridges.all_standing(facts.lab)
    try:
        yield
    finally:
        for server in bridges.servers(facts.lab):
            take_theirs_away(facts, server)
        after = bridges.all_standing(facts.lab)
    assert bridges.complaints(before, after) == []


@pytest.mark.parametrize("arrives", sampled(["before", "during"]))
def test_a_second_controller_is_left_alone(
    facts: Facts, traffic: Traffic, pair: Pair, cleaned: None, arrives: str
) -> None:
    """On both servers, once as the master. (A bridge that gets its first controller drops all entries, OVN's too: a
    controller beside OVN comes by the management socket, as OVN does.)"""
    servers = (pair.source_server, pair.destination_server)
    traffic.start(pair, "udp", to=pair.destination, dscp=0)
    began = time.monotonic()
    task: subprocess.Popen[str] | None = None
    others: list[SecondController] = []
    with ExitStack() as stack, watching(facts, pair) as watch:
        if arrives == "during":
            task = answers.start(facts, *ask(pair, "--packets", "400"))
            stack.callback(answers.end, task)
            wait_until(task, "task ready")
        for number, server in enumerate(servers):
            idle, other = (stack.enter_context(at_management(facts, server)) for _ in range(2))
            put_theirs(facts, server, other, below_top=0 if arrives == "before" else 9)
            assert other.ask_role(second.MASTER if number else second.EQUAL) == (2 if number else 1)
            others += [idle, other]
        standing = {server: bridges.standing(facts.lab, server) for server in servers}
        if task is None:
            task = answers.start(facts, *ask(pair, "--packets", "400"))
            stack.callback(answers.end, task)
        answer = answers.finish(task, began)
        seen = watch.read()
        for number, other in enumerate(others):
            other.barrier()
            assert other.unasked() == []
            assert other.ask_role(second.NOCHANGE, 0) == (second.MASTER if number == 3 else second.EQUAL)
        now = {server: bridges.standing(facts.lab, server) for server in servers}
    assert answer.code == 0, answer.text()
    assert answer.document["packets"]["delivered"] >= 380, answer.text()
    assert {p.dscp for p in (*seen.arrived, *seen.answers_arrived)} == {0}
    for server in servers:
        # `ours` holds the one of theirs that looks like ours.
        assert [e for e in now[server].ours if "0x5654100100000001" not in e] == []
        theirs_then = {e for e in standing[server].entries if "0x5654" not in e or "0x5654100100000001" in e}
        assert theirs_then - now[server].entries == set()
        assert now[server].groups == standing[server].groups
        if arrives == "before":
            assert now[server].meters == standing[server].meters
        assert "rate=1000 burst_size=25" in now[server].meters
        assert "rate=500" in now[server].meters


def in_use(facts: Facts, server: str) -> tuple[str, list[int]]:
    """The generation and the meters of the one task there."""
    entries = bridges.standing(facts.lab, server).ours
    (generation,) = {found[1] for entry in entries if (found := GENERATION.search(entry))}
    return generation, sorted({int(meter) for entry in entries for meter in re.findall(r"meter_id=(\d+)", entry)})


def guard_bit(facts: Facts, server: str) -> int:
    """The lower guard bit, from what our entries load."""
    text = " ".join(bridges.standing(facts.lab, server).ours)
    return int(re.search(r"NXM_NX_REG10\[(\d+)\.\.", text)[1])  # type: ignore[index]


TAKEN = {
    "guard bits read": "table=20,cookie=0x77,priority=7,dl_type=0x88b5,reg10={bit:#x}/{bit:#x},actions=drop",
    "guard bits written": "table=20,cookie=0x77,priority=7,dl_type=0x88b5,actions=load:1->NXM_NX_REG10[{lsb}]",
    "in a clone": "table=0,cookie=0x77,priority=7,dl_type=0x88b5,actions=clone(set_field:{bit}/{bit}->reg10)",
}


@pytest.mark.parametrize("what", sampled(TAKEN))
def test_guard_bits_that_somebody_takes_are_given_up(facts: Facts, traffic: Traffic, pair: Pair, what: str) -> None:
    """The task goes on with other bits; the foreign entry stays."""
    traffic.start(pair, "udp", to=pair.destination, dscp=0)
    began = time.monotonic()
    server = pair.destination_server
    task = answers.start(facts, *ask(pair, "--packets", str(PACKETS)))
    try:
        wait_until(task, "coloring")
        lsb = guard_bit(facts, server)
        ofctl(facts, server, "add-flow", "br-int", TAKEN[what].format(lsb=lsb, bit=1 << lsb))
        eventually(lambda: abs(_guard_or(facts, server, lsb) - lsb) > 1, "other guard bits")
        answer = answers.finish(task, began)
        assert "cookie=0x77" in ofctl(facts, server, "dump-flows", "br-int", "cookie=0x77/-1")
    finally:
        answers.end(task)
        ofctl(facts, server, "del-flows", "br-int", "cookie=0x77/-1")
    answers.check_sound(answer, PACKETS)
    assert answer.code == 0, answer.text()
    assert any("uses our bits of reg10" in note for note in answer.document["notes"]), answer.text()


def _guard_or(facts: Facts, server: str, otherwise: int) -> int:
    try:
        return guard_bit(facts, server)
    except TypeError:
        return otherwise


@pytest.mark.parametrize("how", sampled(["changed", "deleted and taken"]))
def test_a_meter_that_somebody_takes_is_given_up(facts: Facts, traffic: Traffic, pair: Pair, how: str) -> None:
    """The task goes on with other meters; theirs stays as they made it."""
    traffic.start(pair, "udp", to=pair.destination, dscp=0)
    began = time.monotonic()
    server = pair.destination_server
    task = answers.start(facts, *ask(pair, "--packets", str(PACKETS)))
    taken = 0
    try:
        wait_until(task, "coloring")
        _, meters = in_use(facts, server)
        taken = meters[0]
        with at_management(facts, server) as other:
            if how == "changed":
                other.meter(1, taken, 7)
            else:
                other.meter(2, taken, 0)
                other.meter(0, taken, 7)
        eventually(lambda: taken not in in_use_or(facts, server, [taken]), "other meters")
        answer = answers.finish(task, began)
        left = ofctl(facts, server, "dump-meters", "br-int")
        assert re.findall(r"meter=(\d+)", left) == [str(taken)], left
        assert "rate=7 " in left
    finally:
        answers.end(task)
        ofctl(facts, server, "del-meter", "br-int", f"meter={taken or 1}")
    # A meter that lets less through cuts copies until it is noticed; no packet.
    answers.check_sound(answer, PACKETS, alone=False)
    assert answer.code in (0, 3), answer.text()
    assert answer.document["packets"]["dropped"] + answer.document["packets"]["lost_between"] == 0, answer.text()
    assert any(f"our meter {taken} was changed by somebody else" in n for n in answer.document["notes"]), answer.text()


def in_use_or(facts: Facts, server: str, otherwise: list[int]) -> list[int]:
    try:
        return in_use(facts, server)[1] or otherwise
    except ValueError:
        return otherwise


@pytest.mark.parametrize("where", sampled(["elsewhere", "at an entry of ours"]))
def test_cookies_that_somebody_takes_end_the_task(facts: Facts, traffic: Traffic, pair: Pair, where: str) -> None:
    """Ours are removed one by one, theirs stays, no packet arrives colored, and the reason is told."""
    traffic.start(pair, "udp", to=pair.destination, dscp=0)
    before = bridges.all_standing(facts.lab)
    began = time.monotonic()
    server = pair.destination_server
    task = answers.start(facts, *ask(pair, "--packets", MANY))
    taken = "cookie=0/0"
    try:
        with watching(facts, pair) as watch:
            wait_until(task, "coloring")
            generation, _ = in_use(facts, server)
            cookie = f"0x5654f{generation}00000001"
            if where != "elsewhere":
                ours = bridges.standing(facts.lab, server).ours
                cookie = next(found[1] for e in ours if "clone" in e and (found := re.search(r"cookie=(0x\w+)", e)))
            taken = f"cookie={cookie}/-1"
            ofctl(
                facts, server, "add-flow", "br-int", f"table=20,cookie={cookie},priority=7,dl_type=0x88b5,actions=drop"
            )
            answer = answers.finish(task, began)
            seen = watch.read()
        assert "table=20" in ofctl(facts, server, "dump-flows", "br-int", taken)
    finally:
        answers.end(task)
        ofctl(facts, server, "del-flows", "br-int", f"table=20,{taken}")
    assert answer.code == 4, answer.text()
    assert answer.document["error"]["what"] == "Somebody else uses the cookies of this task's entries"
    assert cookie in answer.document["error"]["why"]
    assert bridges.complaints(before, bridges.all_standing(facts.lab)) == []
    assert {p.dscp for p in (*seen.arrived, *seen.answers_arrived)} == {0}


def test_an_entry_of_ours_that_somebody_replaces_is_put_back(facts: Facts, traffic: Traffic, pair: Pair) -> None:
    """OpenFlow replaces an entry by one of the same table, priority and match, and tells nobody."""
    traffic.start(pair, "udp", to=pair.destination, dscp=0)
    began = time.monotonic()
    server = pair.destination_server
    task = answers.start(facts, *ask(pair, "--packets", str(PACKETS)))
    try:
        wait_until(task, "coloring")
        eventually(lambda: any("65534" in e for e in bridges.standing(facts.lab, server).ours), "a restoring entry")
        ours = next(e for e in bridges.standing(facts.lab, server).ours if "65534" in e and "table=65" in e)
        place = re.search(r"(table=\d+),.*(priority=65534,\S+) actions=", ours)
        assert place is not None, ours
        # As it was, but somebody else's: nothing else changes.
        actions = ours.partition(" actions=")[2]
        time_left = "hard_timeout=60"
        line = f"{place[1]},cookie=0x77,{time_left},{place[2]},actions={actions}"
        ofctl(facts, server, "add-flow", "br-int", line)
        answer = answers.finish(task, began)
    finally:
        answers.end(task)
        ofctl(facts, server, "del-flows", "br-int", "cookie=0x77/-1")
    answers.check_sound(answer, PACKETS)
    told = [n for n in answer.document["notes"] if "replaced by somebody else" in n or "uses our bits" in n]
    assert told, answer.text()
