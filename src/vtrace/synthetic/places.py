"""What the names in a way's template stand for: servers, datapaths, ports, Ethernet and IP addresses."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from vtrace.synthetic import templates
from vtrace.synthetic.chance import Bools, Chance, Ints, Purpose
from vtrace.synthetic.cloud import (
    BROADCAST_MAC,
    FIRST_VM_KEY,
    LOCALNET_KEY,
    OUTSIDE_MAC,
    ROUTER_KEY,
    VMS,
    Cloud,
)
from vtrace.synthetic.kinds import FLOOD, LOOP
from vtrace.synthetic.pairs import Pairs, kind_number

# The tunnel key of the group of all ports of a switch, and the Ethernet address of ff02::1 (RFC 2464).
_FLOOD_KEY = 32_768
_ALL_NODES_MAC = 0x3333_0000_0001
# The number of a switch, from 1, in the VIPs' addresses: there is no such switch.
_VIP_SWITCH = 255
_FIRST_HOST = 10
_NAT_KEYS = 32_000
# A router's ports have the keys of its VPC's switches, then these.
_ROUTER_PORTS = {"T": 1, "J": 2, "P": 3, "cr": 4}
_FIXED_KEYS = {
    "A.R": ROUTER_KEY,
    "B.R": ROUTER_KEY,
    "B.R2": ROUTER_KEY,
    "J.R": 1,
    "J.V": 2,
    "J.V2": 3,
    "V.J": 1,
    "V.E": 2,
    "V2.J": 1,
    "E.V": 2,
    "E.net": LOCALNET_KEY,
    "P.net": LOCALNET_KEY,
    "A.n1": FIRST_VM_KEY + VMS,
    "A.n2": FIRST_VM_KEY + VMS + 1,
    "A.n3": FIRST_VM_KEY + VMS + 2,
}
# Of so many pairs whose answers come by a gateway one has them come by another than its packets went.
_ASYMMETRIC = 0.2
_BACKEND_STEP = 21
_SLB, _SNAT, _DATACENTER = (kind_number(kind) for kind in ("slb", "internet-snat", "datacenter"))
_FLOATING = [kind_number(kind) for kind in ("internet-distributed", "internet-gateway")]


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """The ways that places are wanted for: the row of each one's pair, its phase (1: VMs have moved) and backend."""

    pair: Ints
    phase: Ints
    backend: Ints


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """For each name of `templates`, and last for none, a row; a column for each way.

    Attributes:
        servers, datapaths, keys, macs: in the order of SERVERS, DATAPATHS, PORTS and MACS.
        sources, destinations: addresses, before and after their translation.
    """

    servers: Ints
    datapaths: Ints
    keys: Ints
    macs: Ints
    sources: Ints
    destinations: Ints


class _Ends(msgspec.Struct, frozen=True, kw_only=True):
    """Of each way: VPC, switch and VM of sender and receiver; whether it goes the second way of its kind."""

    kind: Ints
    couple: Ints
    six: Bools
    inward: Bools
    reply: Bools
    vpc_a: Ints
    vpc_b: Ints
    switch_a: Ints
    switch_b: Ints
    vm_a: Ints
    vm_b: Ints
    moved_a: Ints
    moved_b: Ints


def find_places(switches: int, cloud: Cloud, chance: Chance, pairs: Pairs, rows: Rows) -> Places:
    """What the names stand for on each way."""
    ends = _ends(chance, pairs, rows)
    servers = _servers(cloud, chance, ends)
    datapaths = {
        "A": cloud.switch(ends.vpc_a, ends.switch_a),
        "B": cloud.switch(ends.vpc_b, ends.switch_b),
        "R": cloud.other(ends.vpc_a, 0),
        "J": cloud.other(ends.vpc_a, 1),
        "V": cloud.other(ends.vpc_a, 2),
        "E": cloud.other(ends.vpc_a, 3),
        "V2": cloud.other(ends.vpc_a, 4),
        "R2": cloud.other(ends.vpc_b, 0),
        "T": cloud.transit(ends.vpc_a),
        "P": cloud.provider(ends.vpc_a),
    }
    keys = _keys(switches, cloud, ends)
    macs = {"net": np.full_like(ends.vm_a, OUTSIDE_MAC)}
    for name in templates.MACS:
        if "." in name:
            macs[name] = cloud.mac(datapaths[name.partition(".")[0]], keys[name])
    macs["src"] = cloud.mac(datapaths["A"], keys["A.src"])
    macs["dst"] = cloud.mac(datapaths["B"], keys["B.dst"])
    # A floating address that is translated on the VM's server has an Ethernet address of its own.
    macs["nat"] = cloud.mac(datapaths["P"], _NAT_KEYS + np.where(ends.inward, ends.vm_b, ends.vm_a))
    for_one = chance.below(2, Purpose.FLOOD, ends.couple) == 1
    macs["all"] = np.where(ends.six & ~for_one, _ALL_NODES_MAC, BROADCAST_MAC)
    sources, destinations = _addresses(cloud, chance, ends, for_one)
    return Places(
        servers=_table(servers, templates.SERVERS, none=-1),
        datapaths=_table(datapaths, templates.DATAPATHS),
        keys=_table(keys, templates.PORTS),
        macs=_table(macs, templates.MACS),
        sources=sources,
        destinations=destinations,
    )


def _table(found: dict[str, Ints], names: Sequence[str], none: int = 0) -> Ints:
    first = found[names[0]]
    return np.stack([*(np.broadcast_to(found[name], first.shape) for name in names), np.full_like(first, none)])


def _ends(chance: Chance, pairs: Pairs, rows: Rows) -> _Ends:
    at = rows.pair
    inward = pairs.inward[at]
    # The VM that the couple was drawn with second is the one that VIPs stand for.
    step = np.where(pairs.kind[at] == _SLB, _BACKEND_STEP * rows.backend, 0)
    second_moves = chance.below(2, Purpose.MOVE, pairs.couple[at], np.ones_like(at)) == 1
    return _Ends(
        kind=pairs.kind[at],
        couple=pairs.couple[at],
        six=pairs.six[at],
        inward=inward,
        reply=pairs.reply[at],
        vpc_a=pairs.vpc_a[at],
        vpc_b=pairs.vpc_b[at],
        switch_a=pairs.switch_a[at],
        switch_b=pairs.switch_b[at],
        vm_a=(pairs.vm_a[at] + np.where(inward, step, 0)) % VMS,
        vm_b=(pairs.vm_b[at] + np.where(inward, 0, step)) % VMS,
        moved_a=rows.phase * (second_moves == inward),
        moved_b=rows.phase * (second_moves != inward),
    )


def _servers(cloud: Cloud, chance: Chance, ends: _Ends) -> dict[str, Ints]:
    sender = cloud.server(ends.vpc_a, ends.vm_a, ends.moved_a)
    receiver = cloud.server(ends.vpc_b, ends.vm_b, ends.moved_b)
    other = (ends.reply & chance.happens(_ASYMMETRIC, Purpose.ASYMMETRIC, ends.couple)).astype(np.int64)
    gateway = cloud.gateway(ends.vpc_a, other)
    return {
        "S": sender,
        "D": receiver,
        "G": gateway,
        "H": cloud.gateway(ends.vpc_a, 1 - other),
        "X": cloud.third(ends.vpc_a, sender, receiver, gateway, ends.couple),
    }


def _keys(switches: int, cloud: Cloud, ends: _Ends) -> dict[str, Ints]:
    keys = {name: np.full_like(ends.vm_a, key) for name, key in _FIXED_KEYS.items()}
    for router in ("R", "R2"):
        for port, number in _ROUTER_PORTS.items():
            keys[f"{router}.{port}"] = np.full_like(ends.vm_a, switches + number)
    keys["A.src"] = FIRST_VM_KEY + ends.vm_a
    keys["A.dst"] = keys["B.dst"] = FIRST_VM_KEY + ends.vm_b
    keys["A.group"] = np.full_like(ends.vm_a, _FLOOD_KEY)
    keys["R.A"] = 1 + ends.switch_a
    keys["R.B"] = keys["R2.B"] = 1 + ends.switch_b
    keys["T.R"], keys["T.R2"] = 1 + ends.vpc_a % 2, 1 + ends.vpc_b % 2
    keys["P.R"] = cloud.provider_key(ends.vpc_a)
    return keys


def _addresses(cloud: Cloud, chance: Chance, ends: _Ends, for_one: Bools) -> tuple[Ints, Ints]:
    """Sources and destinations. A flooded packet may have the address of one VM (`for_one`), in a frame for all."""
    source = cloud.inner(ends.vpc_a, 1 + ends.switch_a, _FIRST_HOST + ends.vm_a, ends.six)
    destination = cloud.inner(ends.vpc_b, 1 + ends.switch_b, _FIRST_HOST + ends.vm_b, ends.six)
    number = chance.below(1000, Purpose.EXTERNAL, ends.couple)
    vip = cloud.inner(ends.vpc_a, np.full_like(number, _VIP_SWITCH), 1 + number % 200, ends.six)
    kind = ends.kind
    is_vip, floats, shares = kind == _SLB, np.isin(kind, _FLOATING), kind == _SNAT
    own_vpc, own_vm = np.where(ends.inward, ends.vpc_b, ends.vpc_a), np.where(ends.inward, ends.vm_b, ends.vm_a)
    floating = cloud.floating(own_vpc, own_vm, ends.six)
    public = np.where(shares, cloud.shared(own_vpc, ends.six), floating)
    customer = (kind == _DATACENTER) | (kind == kind_number(LOOP))
    far = np.where(customer, cloud.customer(number, ends.six), cloud.outside(number, ends.six))
    outer = customer | floats | shares
    translated = floats | shares
    # A loop's packets go out both ways.
    came = ends.inward & (kind != kind_number(LOOP))
    flooded = (kind == kind_number(FLOOD)) & ~for_one
    destination = np.where(flooded, cloud.to_all(destination, ends.six), destination)
    seen_by = np.where(is_vip, vip, np.where(translated, public, 0))
    first_source = np.where(outer & came, far, source)
    last_source = np.where((translated & ~came) | (is_vip & came), seen_by, first_source)
    last_destination = np.where(outer & ~came, far, destination)
    first_destination = np.where((translated & came) | (is_vip & ~came), seen_by, last_destination)
    return np.stack([first_source, last_source]), np.stack([first_destination, last_destination])
