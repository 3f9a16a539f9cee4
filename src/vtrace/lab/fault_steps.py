"""What each fault does, as ordinary commands on nodes, each with the command that undoes it."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable

import msgspec

from vtrace.errors import UsageError
from vtrace.lab.programs import run_on
from vtrace.lab.state import LabState, LabVm

TUNNEL_PORTS = {"geneve": 6081, "vxlan": 4789}

Values = dict[str, str]


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command on a node."""

    node: str
    argv: tuple[str, ...]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A command and its undoing, where `{out}` stands for the first line that the command printed."""

    do: Command
    undo: Command


def _nb(*argv: str) -> Command:
    return Command(node="central", argv=("ovn-nbctl", *argv))


def _row(table: str, columns: dict[str, str], parent: tuple[str, str, str]) -> Step:
    """A new northbound row, referenced from a parent's column; undone by dropping the reference."""
    parent_table, parent_name, column = parent
    settings = tuple(f"{key}={value}" for key, value in columns.items())
    create = _nb("--id=@row", "create", table, *settings, "--", "add", parent_table, parent_name, column, "@row")
    return Step(do=create, undo=_nb("--if-exists", "remove", parent_table, parent_name, column, "{out}"))


def _quoted(text: str) -> str:
    """A string as OVSDB's commands take it."""
    return json.dumps(text)


def _integer(values: Values, key: str, low: int, high: int) -> int:
    try:
        number = int(values[key], 0)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise UsageError(f"{key}={values[key]} is not possible", "lab break", f"a number from {low} to {high}")
    return number


def _address(state: LabState, text: str, version: str, *, alias: bool = False) -> tuple[LabVm | None, str]:
    """The VM and the address that `to=` or `from=` names; with `alias`, the VM's alias rather than its own."""
    name, _, given = text.partition(":")
    try:
        return None, str(ipaddress.ip_address(text))
    except ValueError:
        vm = state.vm(name)
    if given:
        if given not in vm.addresses + vm.aliases:
            raise UsageError(f"{vm.name} has no address {given}", "lab break")
        return vm, given
    for address in vm.aliases if alias else vm.addresses:
        if str(ipaddress.ip_address(address).version) == version:
            return vm, address
    kind = "alias" if alias else "address"
    raise UsageError(f"{vm.name} has no IPv{version} {kind}", "lab break")


def _ovn_match(state: LabState, values: Values) -> tuple[str, LabVm, LabVm | None]:
    """The packets of a fault in OVN's language, without ports of the switch, and the two VMs."""
    sender, source = _address(state, values["from"], values["ip"])
    receiver, destination = _address(state, values["to"], values["ip"])
    if sender is None:
        raise UsageError("from= has to be a VM", "lab break")
    version = ipaddress.ip_address(destination).version
    if ipaddress.ip_address(source).version != version:
        source = _address(state, sender.name, str(version))[1]
    parts = [f"ip{version}.src == {source}", f"ip{version}.dst == {destination}"]
    if "proto" in values:
        parts.append({"icmp": f"icmp{version}"}.get(values["proto"], values["proto"]))
    if "dport" in values:
        if values.get("proto") not in ("tcp", "udp"):
            raise UsageError("dport= needs proto=tcp or proto=udp", "lab break")
        parts.append(f"{values['proto']}.dst == {_integer(values, 'dport', 1, 65535)}")
    return " && ".join(parts), sender, receiver


def _placed_match(state: LabState, values: Values) -> tuple[str, str]:
    """The switch a row belongs to, and its match with the switch port that `direction` means."""
    match, sender, receiver = _ovn_match(state, values)
    if values["direction"] == "from-lport":
        return sender.switch, f'inport == "{sender.name}" && {match}'
    if receiver is None:
        raise UsageError("direction=to-lport needs a VM in to=", "lab break")
    return receiver.switch, f'outport == "{receiver.name}" && {match}'


def _acl(state: LabState, values: Values, action: str) -> list[Step]:
    switch, match = _placed_match(state, values)
    priority = _integer(values, "priority", 1, 32767)
    parent = ("Logical_Switch", switch, "acls")
    columns = {"direction": values["direction"], "priority": str(priority)}
    steps = [_row("ACL", {**columns, "action": action, "match": _quoted(match)}, parent)]
    if values["stateful"] == "yes":
        for direction in ("from-lport", "to-lport"):
            below = {"direction": direction, "priority": str(priority - 1), "action": "allow-related", "match": "ip"}
            steps.append(_row("ACL", below, parent))
    return steps


def _acl_drop(state: LabState, values: Values) -> list[Step]:
    return _acl(state, values, "drop")


def _acl_reject(state: LabState, values: Values) -> list[Step]:
    return _acl(state, values, "reject")


def _qos_rate_limit(state: LabState, values: Values) -> list[Step]:
    switch, match = _placed_match(state, values)
    columns = {
        "direction": values["direction"],
        "priority": str(_integer(values, "priority", 0, 32767)),
        "match": _quoted(match),
        "bandwidth:rate": str(_integer(values, "rate", 1, 4294967295)),
        "bandwidth:burst": str(_integer(values, "burst", 1, 4294967295)),
    }
    return [_row("QoS", columns, ("Logical_Switch", switch, "qos_rules"))]


def _router_of(state: LabState, values: Values, vm: LabVm | None) -> str:
    router = values.get("router") or (vm.router if vm is not None else None)
    if router is None:
        raise UsageError("router= has to be given", "lab break", "to= is no VM behind a router")
    return router


def _no_route(state: LabState, values: Values) -> list[Step]:
    vm, address = _address(state, values["to"], values["ip"], alias=True)
    router = _router_of(state, values, vm)
    steps = []
    for uuid, prefix, nexthop in _static_routes(state, router):
        if ipaddress.ip_address(address) in ipaddress.ip_network(prefix):
            undo = _row(
                "Logical_Router_Static_Route",
                {"ip_prefix": _quoted(prefix), "nexthop": _quoted(nexthop)},
                ("Logical_Router", router, "static_routes"),
            ).do
            steps.append(Step(do=_nb("remove", "Logical_Router", router, "static_routes", uuid), undo=undo))
    if not steps:
        raise UsageError(f"{router} has no static route to {address}", "lab break")
    return steps


def _static_routes(state: LabState, router: str) -> list[tuple[str, str, str]]:
    """(uuid, prefix, next hop) of a router's static routes."""
    uuids = run_on(state, "central", ["ovn-nbctl", "--bare", "get", "Logical_Router", router, "static_routes"])
    wanted = uuids.strip().strip("[]").replace(",", " ").split()
    columns = ["--format=json", "--columns=_uuid,ip_prefix,nexthop"]
    printed = run_on(state, "central", ["ovn-nbctl", *columns, "list", "Logical_Router_Static_Route", *wanted])
    rows = json.loads(printed)["data"] if wanted else []
    return [(uuid[1], prefix, nexthop) for uuid, prefix, nexthop in rows]


def _blackhole_route(state: LabState, values: Values) -> list[Step]:
    vm, address = _address(state, values["to"], values["ip"])
    prefix = values.get("prefix") or f"{address}/{ipaddress.ip_address(address).max_prefixlen}"
    columns = {"ip_prefix": _quoted(prefix), "nexthop": "discard"}
    parent = ("Logical_Router", _router_of(state, values, vm), "static_routes")
    return [_row("Logical_Router_Static_Route", columns, parent)]


def _port_security(state: LabState, values: Values) -> list[Step]:
    vm = state.vm(values["vm"])
    now = run_on(state, "central", ["ovn-nbctl", "lsp-get-port-security", vm.name]).splitlines()
    do = _nb("lsp-set-port-security", vm.name, f"{vm.mac} {values['address']}")
    return [Step(do=do, undo=_nb("lsp-set-port-security", vm.name, *now))]


def _port_disabled(state: LabState, values: Values) -> list[Step]:
    vm = state.vm(values["vm"])
    undo = _nb("clear", "Logical_Switch_Port", vm.name, "enabled")
    return [Step(do=_nb("lsp-set-enabled", vm.name, "disabled"), undo=undo)]


def _foreign_flow_entry(state: LabState, values: Values) -> list[Step]:
    sender, source = _address(state, values["from"], values["ip"])
    receiver, destination = _address(state, values["to"], values["ip"])
    node = values.get("node") or (sender.server if sender else receiver.server if receiver else "")
    if node not in [server.name for server in state.servers]:
        raise UsageError(f"node={node} is not a server", "lab break")
    table = _integer(values, "table", 0, 254)
    priority = _integer(values, "priority", 0, 65535)
    cookie = _integer(values, "cookie", 0, 2**64 - 1)
    six = ipaddress.ip_address(destination).version == 6
    protocol = values.get("proto", "ip") + ("6" if six else "")
    protocol = {"ip6": "ipv6"}.get(protocol, protocol)
    match = f"{protocol},{'ipv6' if six else 'nw'}_src={source},{'ipv6' if six else 'nw'}_dst={destination}"
    if "dport" in values:
        match += f",tp_dst={_integer(values, 'dport', 1, 65535)}"
    if values["scope"] == "auto" and table == 0 and sender is not None and sender.server == node:
        match += f",in_port={sender.name}"
    elif values["scope"] == "auto" and table != 0 and state.kind == "ovn":
        switch = values.get("switch") or (sender.switch if sender else receiver.switch if receiver else "")
        match += f",metadata={_tunnel_key(state, switch):#x}"
    where = f"table={table},priority={priority},{match}"
    bridge = next(server.bridge for server in state.servers if server.name == node)
    bridge = next((end.bridge for end in (sender, receiver) if end is not None and end.server == node), bridge)
    do = ("ovs-ofctl", "add-flow", bridge, f"cookie={cookie:#x},{where},actions=drop")
    undo = ("ovs-ofctl", "--strict", "del-flows", bridge, f"cookie={cookie:#x}/-1,{where}")
    return [Step(do=Command(node=node, argv=do), undo=Command(node=node, argv=undo))]


def _tunnel_key(state: LabState, switch: str) -> int:
    """The number of a logical switch's datapath, which OpenFlow tables have in `metadata`."""
    query = ["ovn-sbctl", "--bare", "--columns=tunnel_key", "find", "Datapath_Binding"]
    printed = run_on(state, "central", [*query, f"external_ids:name={switch}"]).strip()
    if not printed:
        raise UsageError(f"there is no switch {switch!r}", "lab break")
    return int(printed)


def _on_wire(state: LabState, values: Values, drop: str, lasts: str | None = None) -> list[Step]:
    """A table of nft on a wire, named after the fault's id ({table}).

    Args:
        state: of the lab.
        values: with `a`, `b` and `direction`.
        drop: what the rule does with a tunnel packet.
        lasts: how long, as nft has it; the kernel itself then takes the addresses out of the rule's set.
    """
    wire = state.wire_between(values["a"], values["b"])
    addresses = {server.name: server.tunnel_address for server in state.servers}
    ends = {"a-b": ("b",), "b-a": ("a",), "both": ("a", "b")}[values["direction"]]
    targets = [addresses[values[end]] for end in ends]
    tunnel = f"udp dport {TUNNEL_PORTS[state.encap]}"
    sets = ""
    if lasts is None:
        rules = [f"ip daddr {target} {tunnel} {drop}" for target in targets]
    else:
        elements = ", ".join(f"{target} timeout {lasts}" for target in targets)
        sets = f"set until {{ type ipv4_addr; flags timeout; elements = {{ {elements} }}; }}; "
        rules = [f"ip daddr @until {tunnel} {drop}"]
    chain = f"chain forward {{ type filter hook forward priority 0; policy accept; {'; '.join(rules)}; }};"
    return [
        Step(
            do=Command(node=wire.name, argv=("nft", f"table inet {{table}} {{ {sets}{chain} }}")),
            # `add` first: taking out what somebody already took out by hand is no error
            undo=Command(node=wire.name, argv=("nft", "add table inet {table}; delete table inet {table}")),
        )
    ]


def _physical_loss(state: LabState, values: Values) -> list[Step]:
    return _on_wire(state, values, "counter drop")


def _partial_loss(state: LabState, values: Values) -> list[Step]:
    mode = {"every": "inc", "random": "random"}[values["mode"]]
    ratio = _integer(values, "ratio", 2, 1000)
    return _on_wire(state, values, f"numgen {mode} mod {ratio} == 0 counter drop")


def _transient_loss(state: LabState, values: Values) -> list[Step]:
    try:
        milliseconds = round(float(values["seconds"]) * 1000)
    except ValueError:
        milliseconds = 0
    if not 10 <= milliseconds <= 3_600_000:
        raise UsageError(f"seconds={values['seconds']} is not possible", "lab break", "0.01 to 3600")
    return _on_wire(state, values, "counter drop", lasts=f"{milliseconds}ms")


STEPS: dict[str, Callable[[LabState, Values], list[Step]]] = {
    "acl_drop": _acl_drop,
    "acl_reject": _acl_reject,
    "no_route": _no_route,
    "blackhole_route": _blackhole_route,
    "port_security": _port_security,
    "qos_rate_limit": _qos_rate_limit,
    "foreign_flow_entry": _foreign_flow_entry,
    "physical_loss": _physical_loss,
    "partial_loss": _partial_loss,
    "transient_loss": _transient_loss,
    "port_disabled": _port_disabled,
}
