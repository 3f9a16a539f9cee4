"""A case in its lab: the way its packets take, all values drawn, and the commands filled in."""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import msgspec

from vtrace.bench import topologies, way
from vtrace.bench.drawing import Case
from vtrace.bench.fault import Command, Draw, Fault, Right, Row, Traffic
from vtrace.bench.way import Place, Way
from vtrace.errors import UsageError
from vtrace.lab.programs import run_on
from vtrace.lab.state import LabState

PORTS = (1024, 30000)
TRIES = 200
_TUNNEL_PORTS = {"geneve": 6081, "vxlan": 4789}


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """The packets of one pair."""

    way: Way
    ip: int
    proto: str
    port: int

    def ends(self, place: Place) -> tuple[str, str]:
        """Source and destination address at a place."""
        return place.src[self.ip == 6], place.dst[self.ip == 6]

    def match(self, place: Place, port: int | None = None) -> str:
        """In OVN's words (ovn-sb(5)), as they are at a place; with `port`, packets that nobody sends."""
        src, dst = self.ends(place)
        found = [f"ip{self.ip}.src == {src}"] if src else []
        found += [f"ip{self.ip}.dst == {dst}"] if dst else []
        proto = "udp" if port is not None and self.proto == "icmp" else self.proto
        if proto == "icmp":
            return " && ".join([*found, f"icmp{self.ip}"])
        side = "dst" if self.way.direction == "forward" else "src"
        return " && ".join([*found, f"{proto}.{side} == {port or place.dport or self.port}"])

    def openflow(self, place: Place, port: int | None = None) -> str:
        """The same in Open vSwitch's words (ovs-fields(7))."""
        src, dst = self.ends(place)
        six = "6" if self.ip == 6 else ""
        proto = "udp" if port is not None and self.proto == "icmp" else self.proto
        word = "ipv6" if six else "nw"
        found = [proto + six]
        found += [f"{word}_{end}={address}" for end, address in (("src", src), ("dst", dst)) if address]
        side = "dst" if self.way.direction == "forward" else "src"
        return ",".join(found + ([] if proto == "icmp" else [f"tp_{side}={port or place.dport or self.port}"]))


class Filled(msgspec.Struct, frozen=True, kw_only=True):
    """A fault with everything filled in."""

    fault: Fault
    right: Right
    prepare: tuple[Command, ...]
    inject: tuple[Command, ...]
    near: tuple[Command, ...]
    settled: Command | None


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """A case that can be run: one flow, or two of which each has a fault."""

    case: Case
    flows: tuple[Flow, ...]
    faults: tuple[Filled, ...]
    prepare: tuple[Command, ...]
    size_bytes: int
    rate_pps: int
    packets: int
    streams: int


def fill(case: Case, known: dict[str, Fault], state: LabState, rename: topologies.Rename | None) -> Ready:
    """Draws the rest of a case in the lab of its batch.

    Raises:
        UsageError: a fault's file names a field that there is none of, or no way of the lab fits it.
    """
    rng = case.rng
    faults = [known[name] for name in case.faults]
    ways = way.written(case.kind, rename) if rename else ()
    ip = rng.choice([v for v in (4, 6) if all(v in f.versions for f in faults)])
    protos = [p for p in ("udp", "tcp", "icmp") if all(p in f.protocols for f in faults)]
    # A second fault is in another pair with the same sender: replies would have one receiver, whose faults are of both.
    directions = ["forward"] if len(faults) > 1 else []
    one = _way(case, faults[:1], ways, state, rng, directions=directions)
    proto = rng.choice([p for p in protos if p in one.protocols] or ["udp"])
    port = one.port or rng.randint(*PORTS)
    flows = [Flow(way=one, ip=ip, proto=proto, port=port)]
    if len(faults) > 1:
        other = _way(case, faults[1:], ways, state, rng, other_than=one)
        flows.append(Flow(way=other, ip=ip, proto=proto, port=port))
    wanted = _wanted(faults)
    filled = tuple(_filled(f, flow, state, rng) for f, flow in zip(faults, flows, strict=False))
    return Ready(
        case=case,
        flows=tuple(flows),
        faults=filled,
        prepare=_lone_backends(one, state),
        size_bytes=rng.randint(*wanted.size_bytes),
        rate_pps=rng.randint(*wanted.rate_pps),
        packets=rng.randint(*wanted.packets),
        streams=rng.randint(*wanted.flows),
    )


def _lone_backends(way: Way, state: LabState) -> tuple[Command, ...]:
    """Leaves a VIP with one backend, and lets every server forget whom it gave connections to."""
    if not way.balancers:
        return ()
    name = way.balancers[0].name
    words = ("ovn-nbctl", "--wait=hv", "--timeout=20", "set", "Load_Balancer", name)
    lone, all_ = (
        tuple(f'vips:"{b.vip}"="{ends}"' for b, ends in zip(way.balancers, backends, strict=True))
        for backends in ([b.lone for b in way.balancers], [b.all for b in way.balancers])
    )
    forget = [Command(on=server.name, run=("ovs-appctl", "dpctl/flush-conntrack")) for server in state.servers]
    return (Command(on="central", run=(*words, *lone), undo=((*words, *all_),)), *forget)


def _wanted(faults: list[Fault]) -> Traffic:
    """Packets that are right for all of the faults."""
    wishes = [fault.packets for fault in faults] or [Traffic()]

    def both(bounds: list[tuple[int, int]]) -> tuple[int, int]:
        low = max(bound[0] for bound in bounds)
        return low, max(low, min(bound[1] for bound in bounds))

    return Traffic(
        size_bytes=both([wish.size_bytes for wish in wishes]),
        rate_pps=both([wish.rate_pps for wish in wishes]),
        packets=both([wish.packets for wish in wishes]),
        flows=both([wish.flows for wish in wishes]),
    )


def _way(
    case: Case,
    faults: list[Fault],
    ways: Iterable[Way],
    state: LabState,
    rng: random.Random,
    *,
    other_than: Way | None = None,
    directions: Iterable[str] = (),
) -> Way:
    def fits(found: Way) -> bool:
        return all(_fits(fault, found) for fault in faults) and all(found.has(need) for need in directions)

    fitting = [found for found in ways if fits(found)]
    if fitting:
        name = rng.choice(list(dict.fromkeys(found.name for found in fitting)))
        return rng.choice([found for found in fitting if found.name == name])
    alias = any(fault.packets.to_alias for fault in faults)
    from_alias = any(fault.packets.from_alias for fault in faults)
    for _ in range(0 if case.kind != "vpc" else TRIES):
        found = way.inside(state, rng, alias=alias, from_alias=from_alias, other_than=other_than)
        if fits(found):
            ports = (found.client, found.server)
            by_name = any(fault.by_name for fault in faults)
            return msgspec.structs.replace(found, asked=(ports, ports)) if by_name else found
    names = " ".join(fault.name for fault in faults)
    raise UsageError("no way of the lab fits the fault", names, f"traffic of kind {case.kind}")


def _fits(fault: Fault, found: Way) -> bool:
    return (
        all(found.has(need) for need in fault.needs)
        and any(found.place(role) for role in fault.at)
        and bool(set(fault.protocols) & set(found.protocols))
    )


class _Fields:
    """What `{…}` in a fault's file can stand for."""

    def __init__(self, fault: Fault, flow: Flow, state: LabState, rng: random.Random) -> None:
        self._fault, self._flow, self._state, self._rng = fault, flow, state, rng
        place = rng.choice([p for role in fault.at if (p := flow.way.place(role))])
        self.values: dict[str, Any] = {
            "at": _place(place, flow),
            "first": _place(flow.way.places[0], flow),
            "last": _place(flow.way.places[-1], flow),
            "before_last": _place(flow.way.places[-2], flow) if len(flow.way.places) > 1 else None,
            "src": self._end(flow.way.sending),
            "dst": self._end(flow.way.receiving),
            "client": self._end(flow.way.client),
            "listener": self._end(flow.way.server),
            "ip": flow.ip,
            "six": "6" if flow.ip == 6 else "",
            "bits": 32 if flow.ip == 4 else 128,
            "proto": flow.proto,
            "port": flow.port,
            "match": flow.match(place),
            "flow": flow.openflow(place),
            "tunnel_port": _TUNNEL_PORTS[state.encap],
            "encap": state.encap,
            "direction": flow.way.direction,
        }
        quiet = flow.port + 7 if flow.port < PORTS[1] else flow.port - 7
        self.values |= {"unsent": flow.match(place, quiet), "unsent_flow": flow.openflow(place, quiet)}
        self.values |= {p.role: _place(p, flow) for p in flow.way.places}
        for name, column in (("way", flow.ip == 6), ("other_ip", flow.ip == 4)):
            self.values[name] = SimpleNamespace(**{key: pair[column] for key, pair in flow.way.values.items()})
        crossings = flow.way.crossings
        if crossings:
            before, behind = rng.choice(crossings) if len(crossings) > 1 else crossings[0]
            self.values["wire"] = state.wire_between(before, behind.server).name
            self.values["sender"], self.values["receiver"] = self._server(before), self._server(behind.server)
            self.values["crossing"] = _place(behind, flow)
        for name, drawn in fault.draw.items():
            self.values[name] = self._draw(drawn)

    def text(self, text: str) -> str:
        """A text with its fields filled in.

        Raises:
            UsageError: it names a field that there is none of.
        """
        try:
            return text.format(**self.values)
        except (KeyError, AttributeError, IndexError, ValueError) as error:
            known = " ".join(sorted(self.values))
            raise UsageError(
                f"{text!r} can't be filled in", f"{self._fault.name}.toml", f"{error}; there is {known}"
            ) from error

    def command(self, command: Command) -> Command:
        return Command(
            on=self.text(command.on),
            run=tuple(map(self.text, command.run)),
            undo=tuple(tuple(map(self.text, words)) for words in command.undo),
        )

    def with_values(self, values: dict[str, str]) -> _Fields:
        """The same with other values in some fields."""
        other = object.__new__(_Fields)
        other.__dict__.update(self.__dict__)
        other.values = {**self.values, **{name: self.text(text) for name, text in values.items()}}
        return other

    def _end(self, node: str) -> SimpleNamespace:
        state = self._state
        vm = next((vm for vm in state.vms if vm.name == node), None)
        if vm is None:
            # Outside: an address that its packets have on the way.
            far = self._flow.way.places[0 if node == self._flow.way.sending else -1]
            address = self._flow.ends(far)[0 if node == self._flow.way.sending else 1]
            words = ("switch", "mac", "vpc", "router", "alias", "gateway")
            return SimpleNamespace(name=node, server=node, address=address, **dict.fromkeys(words, ""))
        return SimpleNamespace(
            name=vm.name,
            switch=vm.switch,
            server=vm.server,
            vpc=vm.vpc,
            router=vm.router or "",
            mac=vm.mac,
            address=way.both(vm.addresses)[self._flow.ip == 6],
            address4=way.both(vm.addresses)[0],
            address6=way.both(vm.addresses)[1],
            alias=way.both(vm.aliases)[self._flow.ip == 6],
            gateway=_gateway(way.both(vm.addresses)[self._flow.ip == 6]),
        )

    def _server(self, name: str) -> SimpleNamespace:
        server = next(server for server in self._state.servers if server.name == name)
        return SimpleNamespace(name=server.name, tunnel=server.tunnel_address, chassis=server.chassis)

    def _draw(self, drawn: Draw) -> Any:
        rng = self._rng
        if drawn.between is not None:
            return rng.randint(*drawn.between)
        if drawn.of is not None:
            chosen = rng.choice(drawn.of)
            return self.text(chosen) if isinstance(chosen, str) else chosen
        if drawn.word is not None:
            return topologies.word(rng, drawn.word)
        if drawn.unused is not None:
            return self._unused(drawn.unused)
        if drawn.bystander is not None:
            return self._bystander(*drawn.bystander.split())
        if drawn.text is not None:
            return self.text(drawn.text)
        return self._looked_up(drawn)

    def _looked_up(self, drawn: Draw) -> Any:
        on = self.text(drawn.on)
        if drawn.query is not None:
            return first_line(run_on(self._state, on, [self.text(word) for word in drawn.query]))
        if drawn.key is not None:
            name = self.text(drawn.key)
            words = ["ovn-sbctl", "--bare", "--columns=tunnel_key", "find", "Datapath_Binding"]
            return int(first_line(run_on(self._state, "central", [*words, f"external_ids:name={name}"])))
        if drawn.output is not None:
            rows = self._rows("Port_Binding", f"logical_port={self.text(drawn.output)}")
            return self._table_of(on, rows)
        for stage in drawn.table or ():
            rows = self._rows("Logical_Flow", f'external_ids:stage-name="{stage}"')
            if rows:
                return self._table_of(on, rows)
        raise UsageError("this OVN has no such stage", f"{self._fault.name}.toml", " ".join(drawn.table or ()))

    def _rows(self, table: str, condition: str) -> list[str]:
        words = ["ovn-sbctl", "--bare", "--columns=_uuid", "find", table, condition]
        return run_on(self._state, "central", words).split()

    def _table_of(self, server: str, uuids: Iterable[str]) -> int:
        """The lowest table but 0 with an entry whose cookie is the beginning of one of these rows' uuids."""
        cookies = {int(uuid[:8], 16) for uuid in uuids}
        found = re.findall(
            r"cookie=(0x[0-9a-f]+).*?table=(\d+)",
            run_on(self._state, server, ["ovs-ofctl", "--no-stats", "dump-flows", "br-int"]),
        )
        tables = {int(table) for cookie, table in found if int(cookie, 16) in cookies} - {0}
        if not tables:
            raise UsageError("no entry of a row", f"{self._fault.name}.toml", f"{len(cookies)} rows, on {server}")
        return min(tables)

    def _unused(self, end: str) -> str:
        taken = {a for vm in self._state.vms for a in (*vm.addresses, *vm.aliases)}
        taken |= {host for box in self._state.outsides for host in box.hosts}
        network = _subnet(self.values[end].address)
        while True:
            found = str(network[self._rng.randint(2, 250)])
            if found not in taken:
                return found

    def _bystander(self, end: str, same: str) -> SimpleNamespace:
        one = self.values[end]
        names = {self._flow.way.client, self._flow.way.server}
        vms = [vm for vm in self._state.vms if vm.vpc == one.vpc and vm.name not in names]
        near = [vm for vm in vms if getattr(vm, same) == getattr(one, same)] or vms
        return self._end(self._rng.choice(near).name)


def _subnet(address: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The subnet of a VM's address: those of all topologies have these lengths."""
    return ipaddress.ip_network(f"{address}/{64 if ':' in address else 24}", strict=False)


def _gateway(address: str) -> str:
    """The router's address in a VM's subnet: its first host."""
    return str(_subnet(address)[1]) if address else ""


def _place(place: Place, flow: Flow) -> SimpleNamespace:
    src, dst = flow.ends(place)
    return SimpleNamespace(
        server=place.server,
        vfd=place.vfd,
        vfd_kind=place.vfd_kind,
        in_port=place.in_port,
        out_port=place.out_port,
        src=src,
        dst=dst,
        match=flow.match(place),
        flow=flow.openflow(place),
    )


def _filled(fault: Fault, flow: Flow, state: LabState, rng: random.Random) -> Filled:
    fields = _Fields(fault, flow, state, rng)
    missing = fields.with_values(fault.near)
    near = tuple(missing.command(c) for c in (fault.near_inject or (fault.inject if fault.near else ())))
    right = fault.right
    row = right.row
    return Filled(
        fault=fault,
        prepare=tuple(map(fields.command, fault.prepare)),
        inject=tuple(map(fields.command, fault.inject)),
        near=near,
        settled=fields.command(fault.settled) if fault.settled else None,
        right=Right(
            kind=right.kind,
            loss=right.loss,
            server=fields.text(right.server),
            vfd=fields.text(right.vfd),
            vfd_kind=fields.text(right.vfd_kind),
            next_server=fields.text(right.next_server),
            direction=right.direction or flow.way.direction,
            object=right.object,
            row=Row(table=row.table, find=fields.text(row.find), database=row.database, before=row.before)
            if row
            else None,
        ),
    )


def first_line(text: str) -> str:
    """The first line of what a command printed."""
    return (text.splitlines() or [""])[0].strip()
