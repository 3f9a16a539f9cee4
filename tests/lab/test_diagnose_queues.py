"""Queues that are full: of an interface of a VM, by tc and by Open vSwitch, and of the device a server sends by."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import pytest
from faults import answers
from faults.facts import Facts
from faults.model import Do, Expect, Pair
from faults.running import Traffic, apply, eventually, lab_command, watching

pytestmark = pytest.mark.lab

PACKETS = 40
TIGHT, WIDE = ("tbf", "rate", "60kbit", "burst", "1600", "limit", "3000"), ("tbf", "rate", "50mbit", "burst", "64000")
"""Of pings of 600 bytes, 100 a second, every tenth passes the tight one."""
PINGS = ("-s", "600")
LONG_PINGS = ("-s", "1350", "-M", "do")

Commands = tuple[tuple[Do, ...], tuple[Do, ...]]
"""What puts a fault in, and what takes it away."""


def shaped(node: str, device: str, queue: tuple[str, ...]) -> Commands:
    more = () if "limit" in queue else ("limit", "300000")
    add = Do(node, ("tc", "qdisc", "add", "dev", device, "root", *queue, *more))
    return (add,), (Do(node, ("tc", "qdisc", "del", "dev", device, "root")),)


def limited(node: str, device: str) -> Commands:
    """A QoS of Open vSwitch, with a queue so short that it is full at once."""
    row = ("--", "--id=@q", "create", "QoS", "type=linux-htb", "other-config:max-rate=60000")
    inject = (
        Do(node, ("ip", "link", "set", device, "txqueuelen", "5")),
        Do(node, ("ovs-vsctl", "set", "Port", device, "qos=@q", *row)),
    )
    heal = (
        Do(node, ("ovs-vsctl", "clear", "Port", device, "qos")),
        Do(node, ("ip", "link", "set", device, "txqueuelen", "1000")),
    )
    return inject, heal


def diagnose(
    facts: Facts, traffic: Traffic, pair: Pair, commands: Commands, expect: Expect, pings: tuple[str, ...] = PINGS
) -> answers.Answer:
    inject, heal = commands
    with watching(facts, pair, "icmp") as watch:
        try:
            apply(facts, inject)
            traffic.ping(pair, (*pings, pair.dst), 0)
            eventually(lambda: bool(watch.read().sent), "the first ping")
            args = ("--from", pair.source, "--to", pair.destination, "--proto", "icmp", "--packets", str(PACKETS))
            answer = answers.diagnose(facts, *args, "--timeout", "20")
            seen = watch.read()
        finally:
            traffic.stop()
            apply(facts, heal, check=False)
    if expect.code:
        assert len(seen.arrived) < len(seen.sent) / 2, f"injector: {seen.text()}"
    answers.check_sound(answer, PACKETS)
    answers.check_expected(answer, expect, facts)
    return answer


def at_interface(pair: Pair, code: str) -> Expect:
    return Expect(
        "dropped",
        pair.destination_server,
        pair.destination_switch,
        code=code,
        object_type="Interface",
        object_words=(pair.destination,),
    )


def well(pair: Pair) -> Expect:
    return Expect("delivered", pair.destination_server, pair.destination_switch, loss="no", pattern=None, exit_code=0)


@pytest.mark.parametrize("placement", ["switched-remote", "routed-local"])
def test_the_queue_of_a_vms_interface_is_full(facts: Facts, traffic: Traffic, placement: str) -> None:
    pair = facts.pair(placement, 4)
    commands = shaped(pair.destination_server, pair.destination, TIGHT)
    answer = diagnose(facts, traffic, pair, commands, at_interface(pair, "vif_queue_full"))
    assert answer.document["packets"]["dropped"] > PACKETS / 2, answer.text()


def test_a_queue_that_is_wide_enough(facts: Facts, traffic: Traffic) -> None:
    pair = facts.pair("switched-remote", 4)
    diagnose(facts, traffic, pair, shaped(pair.destination_server, pair.destination, WIDE), well(pair))


def test_a_full_queue_of_another_vm(facts: Facts, traffic: Traffic) -> None:
    pair, other = facts.pair("switched-remote", 4), facts.pair("switched-local", 4)
    inject, heal = shaped(other.destination_server, other.destination, TIGHT)
    apply(facts, inject)
    try:
        traffic.ping(other, (*PINGS, other.dst), 0)
        diagnose(facts, traffic, pair, ((), ()), well(pair))
    finally:
        apply(facts, heal, check=False)


def test_an_interface_that_open_vswitch_limits(facts: Facts, traffic: Traffic) -> None:
    pair = facts.pair("switched-remote", 4)
    commands = limited(pair.destination_server, pair.destination)
    diagnose(facts, traffic, pair, commands, at_interface(pair, "qos_rate_limit"))


def test_the_device_that_the_sender_sends_by_is_limited(facts: Facts, traffic: Traffic) -> None:
    pair = facts.pair("switched-remote", 4)
    device = f"to-{pair.destination_server}"
    expect = Expect(
        "dropped",
        pair.source_server,
        pair.source_switch,
        code="qos_rate_limit",
        object_type="Interface",
        object_words=(device,),
    )
    diagnose(facts, traffic, pair, shaped(pair.source_server, device, TIGHT), expect)


def test_a_guest_that_refuses_what_is_above_its_own_mtu(facts: Facts, traffic: Traffic) -> None:
    """Its end refuses packets above its MTU: the interface counts them, and that is all that is known outside."""
    pair = facts.pair("switched-remote", 4)
    commands = (
        (Do(pair.destination, ("ip", "link", "set", "eth0", "mtu", "1280")),),
        (Do(pair.destination, ("ip", "link", "set", "eth0", "mtu", "1400")),),
    )
    answer = diagnose(facts, traffic, pair, commands, at_interface(pair, "vif_queue_full"), LONG_PINGS)
    assert answer.document["packets"]["dropped"] == PACKETS, answer.text()


@contextlib.contextmanager
def halting(process: int) -> Iterator[None]:
    """Stops a process of the lab for more than half of the time."""
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            os.kill(process, signal.SIGSTOP)
            done.wait(1.5)
            os.kill(process, signal.SIGCONT)
            done.wait(1.0)

    halts = threading.Thread(target=run)
    halts.start()
    try:
        yield
    finally:
        done.set()
        halts.join()
        os.kill(process, signal.SIGCONT)


def test_a_server_that_has_no_time_for_its_packets(facts: Facts, traffic: Traffic) -> None:
    """Another VM's packets fill the socket while ovs-vswitchd stands still; the pair's are too few to be cut."""
    pair, other = facts.pair("switched-remote", 4), facts.bystander(facts.pair("switched-remote", 4))
    words = ("--from", other, "--to", pair.destination, "--proto", "udp", "--rate", "400", "--size", "1300")
    traffic.ids.append(lab_command(facts, "traffic", "start", *words).strip())
    process = int(facts.execute(pair.destination_server, "sh", "-c", "cat $OVS_RUNDIR/ovs-vswitchd.pid"))
    traffic.ping(pair, ("-i", "0.05", "-s", "60", pair.dst), 0)
    args = ("--from", pair.source, "--to", pair.destination, "--proto", "icmp", "--packets", "200")
    with halting(process):
        answer = answers.diagnose(facts, *args, "--timeout", "20")
    expect = Expect(
        "dropped", pair.destination_server, pair.destination_switch, code="vswitch_overload", object_type="Chassis"
    )
    answers.check_expected(answer, expect, facts)
    assert answer.document["packets"]["delivered"] > 0, answer.text()
