"""The pairs of tasks: which kind of traffic, between which VMs, with which headers. A row for each pair."""

from __future__ import annotations

import msgspec
import numpy as np

from vtrace.synthetic.chance import Bools, Chance, Floats, Ints, Purpose
from vtrace.synthetic.cloud import PLACES, VMS
from vtrace.synthetic.kinds import ALL_KINDS, FLOOD, KINDS, LOOP
from vtrace.synthetic.options import Options
from vtrace.synthetic.tasks import Tasks

ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
_LOCAL, _SIX = 0.25, 0.3
_TCP, _UDP = 0.4, 0.8
BACKENDS = 3
_SERVER_PORTS: Ints = np.array([22, 53, 80, 443, 3306, 5353, 5432, 8080])
_TTLS: Ints = np.array([64, 64, 64, 128, 255])
_LOOP_TTLS: Ints = np.array([64, 32, 16])


def kind_number(kind: str) -> int:
    return ALL_KINDS.index(kind)


# The source may be outside: kinds whose first packet comes in as often as it goes out.
_BOTH_WAYS = [kind_number(kind) for kind in ("internet-distributed", "internet-gateway", "datacenter")]
_ONE_SWITCH = [kind_number(kind) for kind in ("vpc-switched", FLOOD)]


class Pairs(msgspec.Struct, frozen=True, kw_only=True):
    """A column each.

    Attributes:
        task, number: of the task, and in it. couple: one number for a pair and that of its answers.
        kind: `ALL_KINDS`. reply: whether it is the one of answers. inward: whether its packets go the second way of
            their kind's template.
        six, proto; ttl: what the sender sets; server_port: the port of the end that is asked.
        vpc_a, vpc_b, switch_a, switch_b, vm_a, vm_b: sender's and receiver's; switches and VMs from 0.
        loss: the share of the packets that are lost, and between: whether between servers, if they can be.
        flows: how many five-tuples.
    """

    task: Ints
    number: Ints
    couple: Ints
    kind: Ints
    reply: Bools
    inward: Bools
    six: Bools
    proto: Ints
    ttl: Ints
    server_port: Ints
    vpc_a: Ints
    vpc_b: Ints
    switch_a: Ints
    switch_b: Ints
    vm_a: Ints
    vm_b: Ints
    loss: Floats
    between: Bools
    flows: Ints


def draw_pairs(options: Options, chance: Chance, tasks: Tasks, low: int, high: int) -> Pairs:
    """All pairs of the tasks from `low` up to `high`."""
    row = np.arange(low * tasks.pairs, high * tasks.pairs)
    task, number = row // tasks.pairs, row % tasks.pairs
    couple = task * -(-tasks.pairs // 2) + number // 2
    kind = _kinds(options, chance, couple)
    reply = number % 2 == 1
    inward = reply ^ (np.isin(kind, _BOTH_WAYS) & (chance.below(2, Purpose.SOURCE, couple, _ones(couple)) == 1))
    six = chance.share(Purpose.VERSION, couple) < _SIX
    first, second = _ends(options, chance, tasks.vpc[task], couple, kind)
    # What is sent back, or comes from outside, goes to the VM that the couple was drawn with first.
    (vpc_a, switch_a, vm_a), (vpc_b, switch_b, vm_b) = (
        [np.where(inward, back, out) for out, back in zip(one, other, strict=True)]
        for one, other in ((first, second), (second, first))
    )
    return Pairs(
        task=task,
        number=number,
        couple=couple,
        kind=kind,
        reply=reply,
        inward=inward,
        six=six,
        proto=_protocols(chance, couple, kind, six),
        ttl=_ttls(chance, couple, kind, reply),
        server_port=_SERVER_PORTS[chance.below(len(_SERVER_PORTS), Purpose.PORT, couple)],
        vpc_a=vpc_a,
        vpc_b=vpc_b,
        switch_a=switch_a,
        switch_b=switch_b,
        vm_a=vm_a,
        vm_b=vm_b,
        loss=_losses(options, chance, row),
        between=chance.below(2, Purpose.CUT, row) == 1,
        flows=1 + chance.below(8, Purpose.FLOWS, couple),
    )


def _ones(like: Ints) -> Ints:
    return np.ones_like(like)


def _kinds(options: Options, chance: Chance, couple: Ints) -> Ints:
    asked = np.array([kind_number(kind) for kind in KINDS if kind in options.kinds])
    found = asked[(chance.evenly(Purpose.KIND, couple) * len(asked)).astype(np.int64)]
    special = chance.evenly(Purpose.FLOOD, couple)
    found = np.where(special < options.floods + options.loops, kind_number(LOOP), found)
    return np.where(special < options.floods, kind_number(FLOOD), found)


def _ends(options: Options, chance: Chance, vpc: Ints, couple: Ints, kind: Ints) -> tuple[list[Ints], list[Ints]]:
    """VPC, switch and VM of both ends."""
    switch_a = chance.below(options.switches, Purpose.SOURCE, couple)
    further = 1 + chance.below(options.switches - 1, Purpose.DESTINATION, couple)
    one_switch = np.isin(kind, _ONE_SWITCH)
    switch_b = np.where(one_switch, switch_a, (switch_a + further) % options.switches)
    vm_a = chance.below(VMS, Purpose.SOURCE, couple, 2 * _ones(couple))
    local = chance.share(Purpose.LOCALITY, couple) < _LOCAL
    away = 1 + chance.below(PLACES - 1, Purpose.DESTINATION, couple, _ones(couple))
    vm_b = (vm_a + np.where(local, PLACES, away)) % VMS
    vpc_b = np.where(kind == kind_number("vpc-vpc"), vpc ^ 1, vpc)
    return [vpc, switch_a, vm_a], [vpc_b, switch_b, vm_b]


def _ttls(chance: Chance, couple: Ints, kind: Ints, reply: Bools) -> Ints:
    usual = _TTLS[chance.below(len(_TTLS), Purpose.TTL, couple, reply.astype(np.int64))]
    looping = _LOOP_TTLS[chance.below(len(_LOOP_TTLS), Purpose.TTL, couple)]
    return np.where(kind == kind_number(LOOP), looping, usual)


def _protocols(chance: Chance, couple: Ints, kind: Ints, six: Bools) -> Ints:
    share = chance.share(Purpose.PROTOCOL, couple)
    icmp = np.where(six, ICMP6, ICMP)
    found = np.where(share < _TCP, TCP, np.where(share < _UDP, UDP, icmp))
    return np.where(kind == kind_number(FLOOD), UDP, found)


def _losses(options: Options, chance: Chance, row: Ints) -> Floats:
    """Of half of the faulty pairs all packets are lost, of the others a part."""
    part = 0.1 + 0.8 * chance.share(Purpose.RATIO, row, _ones(row))
    loss = np.where(chance.below(2, Purpose.RATIO, row) == 1, 1.0, part)
    return np.where(chance.evenly(Purpose.FAULT, row) < options.faults, loss, 0.0)
