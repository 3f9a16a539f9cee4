"""From a task to its pairs, and whether the task may run at all."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from vtrace.errors import RefusedError, UsageError
from vtrace.model.inventory import Inventory
from vtrace.model.task import Direction, Endpoint, Pair, TaskSpec
from vtrace.task.carried import with_aliases

# More pairs than this in one task need more than one task.
MAX_PAIRS = 256
MAX_PACKETS = 100_000


def check(spec: TaskSpec) -> None:
    """Refuses a task that makes no sense.

    Raises:
        UsageError: says which option is wrong.
    """
    if not spec.sources or not spec.destinations:
        side = "--from" if not spec.sources else "--to"
        raise UsageError(f"{side} names no endpoint", side, "", "Name at least one VM on each side")
    if not 1 <= spec.packets <= MAX_PACKETS:
        raise UsageError(f"--packets {spec.packets} is not between 1 and {MAX_PACKETS}", "--packets")
    if not 1 <= spec.timeout_s <= 3600:
        raise UsageError(f"--timeout {spec.timeout_s:g} is not between 1 and 3600 seconds", "--timeout")
    traffic = spec.traffic
    for name, port in (("--sport", traffic.sport), ("--dport", traffic.dport)):
        if port is None:
            continue
        if traffic.proto not in ("tcp", "udp"):
            raise UsageError(f"{name} needs --proto tcp or udp", name)
        if not 1 <= port <= 65535:
            raise UsageError(f"{name} {port} is not between 1 and 65535", name)
    if traffic.tcp_flags is not None and traffic.proto != "tcp":
        raise UsageError("--tcp-flags needs --proto tcp", "--tcp-flags")
    if traffic.icmp_type is not None and traffic.proto != "icmp":
        raise UsageError("--icmp-type needs --proto icmp", "--icmp-type")
    if traffic.icmp_type is not None and not 0 <= traffic.icmp_type <= 255:
        raise UsageError(f"--icmp-type {traffic.icmp_type} is not between 0 and 255", "--icmp-type")


def make_pairs(spec: TaskSpec, sources: Sequence[Endpoint], destinations: Sequence[Endpoint]) -> tuple[Pair, ...]:
    """Every source with every destination, in every direction asked for, each packet in one pair only.

    Raises:
        UsageError: no pair is left, or there are too many.
    """
    ends = [
        (source, destination)
        for source in _merged(sources)
        for destination in _merged(destinations)
        if not _is_itself(source, destination)
    ]
    for source, destination in ends:
        if source.outside and destination.outside:
            raise UsageError(
                f"{source.name} and {destination.name} are both outside",
                "--from, --to",
                "no port, VIP or NAT row has either address",
                "Name a VM on at least one side",
            )
    if not ends:
        raise UsageError("Source and destination are the same", "--from, --to", "", "Name two different VMs")
    pairs: list[Pair] = []
    for source, destination in ends:
        for direction in spec.directions:
            first, last = (source, destination) if direction is Direction.FORWARD else (destination, source)
            if direction is Direction.REPLY and _is_forward_too(first, last, ends, spec):
                continue
            pairs.append(
                Pair(index=len(pairs), direction=direction, source=first, destination=last, traffic=spec.traffic)
            )
    if len(pairs) > MAX_PAIRS:
        raise UsageError(
            f"{len(pairs)} pairs are too many for one task",
            "--from, --to",
            f"the limit is {MAX_PAIRS}, and each direction of a pair counts",
            "Name fewer VMs, or one direction",
        )
    return tuple(pairs)


def _is_itself(source: Endpoint, destination: Endpoint) -> bool:
    """Whether both ends are one: a VM sends nothing to itself by its port, unless by an address that is translated."""
    if source.port and source.port == destination.port and not (source.only or destination.only):
        return True
    return (source.port, source.address) == (destination.port, destination.address)


def _merged(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """The endpoints, those that were named in several ways or by several of their addresses once."""
    found: dict[tuple[str, tuple[str, ...], str], Endpoint] = {}
    for end in endpoints:
        key = (end.name, end.ports, end.only)
        known = found.get(key, end)
        found[key] = replace(
            known,
            addresses=tuple(dict.fromkeys((*known.addresses, *end.addresses))),
            by_port=known.by_port or end.by_port,
        )
    return list(found.values())


def _is_forward_too(
    sender: Endpoint, receiver: Endpoint, ends: Sequence[tuple[Endpoint, Endpoint]], spec: TaskSpec
) -> bool:
    """Whether a reply's packets are those of another pair's forward direction: all that one VM sends to the other."""
    traffic = spec.traffic
    if traffic.sport != traffic.dport or traffic.tcp_flags is not None or traffic.icmp_type is not None:
        return False
    return Direction.FORWARD in spec.directions and not sender.only and (sender, receiver) in ends


def translated(pairs: Sequence[Pair], inventory: Inventory) -> tuple[Pair, ...]:
    """The pairs, their ends with all addresses that packets for them may carry."""
    return tuple(
        replace(
            pair,
            source=with_aliases(pair.source, inventory),
            destination=with_aliases(pair.destination, inventory),
        )
        for pair in pairs
    )


def refuse_dscp_conflict(found: Sequence[str], *, allowed: bool) -> None:
    """Refuses where something on the path reads or writes the DSCP, unless the operator said yes.

    Raises:
        RefusedError: names what does.
    """
    if found and not allowed:
        raise RefusedError(
            "Coloring could change what happens to these packets",
            "; ".join(found),
            "the color is a DSCP value, and this reads or writes the DSCP on the path",
            "Give --allow-dscp if that is acceptable for the time of the task",
        )
