"""Who sends and who answers a traffic: VMs and outside boxes, also behind VIPs and floating addresses."""

from __future__ import annotations

import ipaddress

import msgspec

from vtrace.errors import UsageError
from vtrace.lab.state import LabOutside, LabState, LabVip, LabVm


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """A VM or an outside box.

    Attributes:
        addresses: its own, the one to send from first.
        others: further ones that are its own too.
        vpcs: the VM's, or those whose addresses the box can route to.
    """

    name: str
    outside: bool
    addresses: tuple[str, ...]
    others: tuple[str, ...]
    vpcs: tuple[str, ...]


class End(msgspec.Struct, frozen=True, kw_only=True):
    """Where a traffic really ends: a node, the address it has there, and the port (0 with ICMP)."""

    node: str
    address: str
    port: int


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """What a sender sends to, and all that may answer."""

    address: str
    dport: int | None
    ends: tuple[End, ...]


def party_of(state: LabState, name: str) -> Party:
    """The VM or outside box of that name.

    Raises:
        UsageError: there is none; names those there are.
    """
    for box in state.outsides:
        if box.name == name:
            return _outside(box)
    if state.outsides and name not in {vm.name for vm in state.vms}:
        known = " ".join([*(vm.name for vm in state.vms), *(box.name for box in state.outsides)])
        raise UsageError(f"lab {state.name!r} has no VM or outside box {name!r}", "", f"there are {known}")
    return _vm(state.vm(name))


def _vm(vm: LabVm) -> Party:
    return Party(name=vm.name, outside=False, addresses=vm.addresses, others=vm.aliases, vpcs=(vm.vpc,))


def _outside(box: LabOutside) -> Party:
    own = tuple(text.partition("/")[0] for text in box.addresses)
    return Party(name=box.name, outside=True, addresses=box.hosts + own, others=(), vpcs=box.vpcs)


def source_of(party: Party, version: int, given: str | None) -> str:
    """The address a party sends from: the one given, else its first of that IP version.

    Raises:
        UsageError: it has no such address.
    """
    if given is None:
        return _first(party, version)
    if not _owns(party, given):
        own = " ".join(party.addresses + party.others)
        raise UsageError(f"{party.name} has no address {given}", "--source", f"it has {own}")
    if _version(given) != version:
        raise UsageError(f"{given} is not an IPv{version} address", "--source")
    return given


def destination_of(
    state: LabState, sender: Party, to: str, *, version: int | None, proto: str, dport: int | None
) -> Destination:
    """What `--to` means for a sender.

    Args:
        state: of the lab.
        sender: who sends.
        to: a VM or outside box, NAME:ADDRESS, or an address.
        version: the IP version asked for, if one was.
        proto: tcp, udp or icmp.
        dport: the destination port asked for, if one was.

    Raises:
        UsageError: there is no such thing, or the sender can't reach it by that name.
    """
    try:
        address = str(ipaddress.ip_address(to))
    except ValueError:
        return _named(state, sender, to, version, dport)
    if version is not None and _version(address) != version:
        raise UsageError(f"{address} is not an IPv{version} address", "--to")
    return _addressed(state, sender, address, proto, dport)


def _named(state: LabState, sender: Party, to: str, version: int | None, dport: int | None) -> Destination:
    name, _, given = to.partition(":")
    party = party_of(state, name)
    if given:
        if not _owns(party, given):
            raise UsageError(f"{party.name} has no address {given}", "--to")
        address = str(ipaddress.ip_address(given))
        return Destination(address=address, dport=dport, ends=_ends(party, address, dport))
    if sender.outside and not party.outside:
        floating = {_version(one.external): one for one in reversed(state.floating) if one.vm == party.name}
        chosen = version or min(floating, default=4)
        if chosen in floating:
            one = floating[chosen]
            return Destination(address=one.external, dport=dport, ends=_ends(party, one.address, dport))
    if not _routes(state, sender, party):
        if sender.outside:
            raise UsageError(f"{sender.name} knows no floating address of {party.name}", "--to")
        what = f"{party.name} is in VPC {party.vpcs[0]!r}, {sender.name} in {sender.vpcs[0]!r}"
        raise UsageError(what, "--to", "", "give the address if you mean it")
    versions = {_version(text) for text in sender.addresses} & {_version(text) for text in party.addresses}
    address = _first(party, version or min(versions, default=4))
    return Destination(address=address, dport=dport, ends=_ends(party, address, dport))


def _routes(state: LabState, sender: Party, party: Party) -> bool:
    """Whether a sender can reach a party at its own addresses."""
    if party.outside or set(sender.vpcs) & set(party.vpcs):
        return True
    return any({*sender.vpcs, *party.vpcs} == set(pair) for pair in state.crossings)


def _addressed(state: LabState, sender: Party, address: str, proto: str, dport: int | None) -> Destination:
    """Who answers at an address: nearest first, since two VPCs may use the same."""
    vms = [_vm(vm) for vm in state.vms]
    own = [vm for vm in vms if set(vm.vpcs) & set(sender.vpcs) and _owns(vm, address)]
    if own:
        return Destination(address=address, dport=dport, ends=_ends(own[0], address, dport))
    vips = [v for v in state.vips if v.address == address and (sender.outside or set(v.vpcs) & set(sender.vpcs))]
    if vips:
        return _balanced(vips, address, proto, dport)
    for one in state.floating:
        if one.external == address:
            return Destination(address=address, dport=dport, ends=(_end(one.vm, one.address, dport),))
    others = [_outside(box) for box in state.outsides] + [vm for vm in vms if _routes(state, sender, vm)]
    for party in others:
        if _owns(party, address):
            return Destination(address=address, dport=dport, ends=_ends(party, address, dport))
    return Destination(address=address, dport=dport, ends=())


def _balanced(vips: list[LabVip], address: str, proto: str, dport: int | None) -> Destination:
    """The backends of the VIP that the protocol and port choose; without a port, the only one there is."""
    fitting = [v for v in vips if v.port is None or (v.proto == proto and dport in (None, v.port))]
    ends = {
        _end(backend.vm, backend.address, dport if vip.backend_port is None else vip.backend_port)
        for vip in fitting[:1]
        for backend in vip.backends
    }
    port = fitting[0].port if fitting and dport is None else dport
    return Destination(address=address, dport=port, ends=tuple(sorted(ends, key=lambda end: end.node)))


def _end(node: str, address: str, port: int | None) -> End:
    return End(node=node, address=address, port=port or 0)


def _ends(party: Party, address: str, port: int | None) -> tuple[End, ...]:
    return (_end(party.name, address, port),)


def _owns(party: Party, text: str) -> bool:
    try:
        return str(ipaddress.ip_address(text)) in party.addresses + party.others
    except ValueError:
        raise UsageError(f"{text!r} is not an address", party.name) from None


def _version(text: str) -> int:
    return ipaddress.ip_address(text).version


def _first(party: Party, version: int) -> str:
    for text in party.addresses:
        if _version(text) == version:
            return text
    raise UsageError(f"{party.name} has no IPv{version} address")
