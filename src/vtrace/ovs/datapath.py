"""The datapath's cached flows (`dpctl/dump-flows -m`, ovs-dpctl(8)), their keys and actions.

A dump runs in vswitchd's main thread and lists every cached flow, so callers give a TOS byte where they can:
`filter=` then lets vswitchd itself leave out what can't match.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from vtrace.errors import ProtocolError
from vtrace.model.openflow import DatapathFlow
from vtrace.ovs.flowtext import masked, match_fields, number, seconds, split_top
from vtrace.ovs.unixctl import call

_DSCP_MASK = 0xFC
_FLOWS = re.compile(r"^\s+flows: (\d+)$", re.MULTILINE)
# openvswitch.h, OVS_CS_F_*.
_CT_FLAGS = (
    (0x01, "new"),
    (0x02, "est"),
    (0x04, "rel"),
    (0x08, "rpl"),
    (0x10, "inv"),
    (0x20, "trk"),
    (0x40, "snat"),
    (0x80, "dnat"),
)
# Words of an action list that stand alone and are no port.
_PLAIN_ACTIONS = frozenset(
    ("drop", "ct_clear", "pop_vlan", "pop_eth", "pop_nsh", "push_nsh", "dec_ttl", "trunc", "<error>")
)


async def dump_flows(
    path: str, *, tos: int | None = None, in_port: str = "", datapath: str = "", timeout_s: float = 10
) -> tuple[DatapathFlow, ...]:
    """The cached flows, all, or those of the packets with a TOS byte.

    Args:
        path: control socket of ovs-vswitchd.
        tos: the TOS byte or traffic class; its two ECN bits are left aside. The answer holds the flows that
            require this DSCP, and the flows that continue them after a recirculation, whatever these match.
        in_port: only flows of what comes in by this port of the datapath.
        datapath: name of the datapath, needed only where there are several.

    Raises:
        UnixctlError: vswitchd refused the dump.
        ProtocolError: a flow that can't be read.
    """
    where = (datapath,) if datapath else ()
    if tos is None:
        only = (f"filter=in_port={in_port}",) if in_port else ()
        return parse_dump(await call(path, "dpctl/dump-flows", "-m", *where, *only, timeout_s=timeout_s))
    flows: dict[str, DatapathFlow] = {}
    for family in ("ip", "ipv6"):
        words = ("-m", *where, f"filter={family},nw_tos={tos & _DSCP_MASK}")
        for flow in parse_dump(await call(path, "dpctl/dump-flows", *words, timeout_s=timeout_s)):
            flows[flow.ufid or flow.key] = flow
    return of_tos(tuple(flows.values()), tos)


def flow_count(shown: str) -> int:
    """How many flows all datapaths have cached, of what `dpctl/show` prints."""
    return sum(int(count) for count in _FLOWS.findall(shown))


def parse_dump(text: str) -> tuple[DatapathFlow, ...]:
    """Reads a dump; headers ("flow-dump from the main thread:") are skipped."""
    return tuple(parse_flow(line) for line in text.splitlines() if "actions:" in line)


def parse_flow(line: str) -> DatapathFlow:
    """One line of `dpctl/dump-flows -m`.

    Raises:
        ProtocolError: the line is no flow.
    """
    key: list[str] = []
    actions: list[str] = []
    values = {"ufid": "", "packets": "0", "used": "never"}
    part = "key"
    for word in split_top(line):
        name, colon, value = word.partition(":")
        if part == "key" and colon and name in ("ufid", "packets"):
            values[name] = value
            part = "counters" if name == "packets" else part
        elif part == "counters" and colon and name == "used":
            values[name] = value
        elif part == "counters" and colon and name == "actions":
            actions.append(value)
            part = "actions"
        elif part == "actions" and colon and name == "dp-extra-info":
            part = "end"
        elif part == "key":
            key.append(word)
        elif part == "actions":
            actions.append(word)
    if not actions:
        raise ProtocolError("a line of a datapath dump is no flow", why=line[:200])
    fields = _key_fields(key)
    tos, tos_mask = _tos(fields)
    set_flags, unset_flags = _ct_state(fields.get("ct_state", ""))
    return DatapathFlow(
        ufid=values["ufid"],
        key=",".join(key),
        actions=",".join(actions),
        packets=number(values["packets"]),
        recirc_id=masked(fields.get("recirc_id", "0"), 32)[0],
        in_port=fields.get("in_port", ""),
        tos=tos,
        tos_mask=tos_mask,
        ct_state=set_flags,
        ct_state_unset=unset_flags,
        unused_s=None if values["used"] == "never" else seconds(values["used"]),
    )


def of_tos(flows: Iterable[DatapathFlow], tos: int) -> tuple[DatapathFlow, ...]:
    """The flows that require this DSCP, and those that continue them after a recirculation."""
    chosen: list[DatapathFlow] = []
    later: dict[int, list[DatapathFlow]] = {}
    for flow in flows:
        if requires_dscp(flow, tos):
            chosen.append(flow)
        elif flow.recirc_id and _may_have(flow, tos):
            later.setdefault(flow.recirc_id, []).append(flow)
    # The list grows while it is gone through: each flow adds those that continue it, once.
    for flow in chosen:
        for recirc_id in recirculations(flow):
            chosen += later.pop(recirc_id, ())
    return tuple(chosen)


def requires_dscp(flow: DatapathFlow, tos: int) -> bool:
    """Whether the flow matches all six bits of the DSCP and they are those of `tos`."""
    return flow.tos_mask & _DSCP_MASK == _DSCP_MASK and (flow.tos ^ tos) & _DSCP_MASK == 0


def _may_have(flow: DatapathFlow, tos: int) -> bool:
    return (flow.tos ^ tos) & flow.tos_mask & _DSCP_MASK == 0


def recirculations(flow: DatapathFlow) -> tuple[int, ...]:
    """The recirculation ids in the flow's actions, in order."""
    return tuple(number(argument) for name, argument in _walk(flow.actions) if name == "recirc")


def outputs(flow: DatapathFlow) -> tuple[str, ...]:
    """The ports the flow outputs to, in order, nested ones too.

    A tunnel's port is followed by its far end: `genev_sys_6081,dst=192.0.2.2`.
    """
    ports = []
    tunnel = ""
    for name, argument in _walk(flow.actions):
        if name == "set" and argument.startswith("tunnel("):
            tunnel = match_fields(argument.removeprefix("tunnel(").removesuffix(")")).get("dst", "")
        elif name == "tnl_push":
            ports.append(_pushed(argument))
        elif name == "output":
            ports.append(f"{argument},dst={tunnel}" if tunnel else argument)
            tunnel = ""
    return tuple(ports)


def ends_in_drop(flow: DatapathFlow) -> bool:
    """Whether nothing follows the last copy: no output, tunnel or recirculation.

    A copy is a `userspace(…controller…)`, alone or in the sample() that its meter needs. A flow without a copy
    ends in a drop if it has no output at all. A flow that the slow path handles as a whole is no drop: its
    actions are not shown.
    """
    goes_on = False
    for name, argument in _walk(flow.actions):
        if name == "userspace":
            if "slow_path(" in argument:
                return False
            goes_on = False
        elif name in ("output", "tnl_push", "tnl_pop", "recirc", "lb_output"):
            goes_on = True
    return not goes_on


def translates(flow: DatapathFlow) -> bool:
    """Whether the flow sends its packets through conntrack's NAT."""
    return any(
        name == "ct" and any(word.partition("(")[0] == "nat" for word in split_top(argument))
        for name, argument in _walk(flow.actions)
    )


def without_copies(actions: str, cookie_prefix: str) -> str:
    """The actions without the copies that entries with such a cookie make (`0x5654`)."""
    return ",".join(word for word in split_top(actions) if f"rule_cookie={cookie_prefix}" not in word)


def _walk(actions: str) -> Iterator[tuple[str, str]]:
    """(name, argument) of each action in order, within clone(), sample() and check_pkt_len() too.

    An output is ("output", port).
    """
    for word in split_top(actions):
        name, bracket, rest = word.partition("(")
        argument = rest.removesuffix(")")
        if not bracket:
            yield ("output", word) if word not in _PLAIN_ACTIONS else (word, "")
        elif name == "clone":
            yield from _walk(argument)
        elif name in ("sample", "check_pkt_len"):
            for inner in split_top(argument):
                branch, found, body = inner.partition("(")
                if found and branch in ("actions", "gt", "le"):
                    yield from _walk(body.removesuffix(")"))
        else:
            yield name, argument


def _pushed(argument: str) -> str:
    """`port,dst=address` of a tnl_push's argument."""
    parts = _key_fields(split_top(argument))
    port = parts.get("tnl_port", "")
    outer = _key_fields(split_top(parts.get("header", "")))
    for family in ("ipv4", "ipv6"):
        if family in outer:
            return f"{port},dst={match_fields(outer[family]).get('dst', '')}"
    return port


def _key_fields(words: Iterable[str]) -> dict[str, str]:
    """`{"in_port": "vm1", "ipv4": "src=…"}` of `in_port(vm1)`, `ipv4(src=…)`. The first of a name counts."""
    fields: dict[str, str] = {}
    for word in words:
        name, bracket, rest = word.partition("(")
        if bracket:
            # "encap(eth_type(…),ipv4(…))" holds the fields behind a VLAN tag.
            if name == "encap":
                for inner, value in _key_fields(split_top(rest.removesuffix(")"))).items():
                    fields.setdefault(inner, value)
            fields.setdefault(name, rest.removesuffix(")"))
    return fields


def _tos(fields: dict[str, str]) -> tuple[int, int]:
    for family, name in (("ipv4", "tos"), ("ipv6", "tclass")):
        value = match_fields(fields.get(family, "")).get(name)
        if value is not None:
            return masked(value, 8)
    return 0, 0


def _ct_state(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Flags required to be set and required to be clear: of `0x21/0x3f` or of `+new-est+trk`."""
    if not text:
        return (), ()
    if text[0] not in "+-":
        value, mask = masked(text, 8)
        return (
            tuple(name for bit, name in _CT_FLAGS if value & mask & bit),
            tuple(name for bit, name in _CT_FLAGS if ~value & mask & bit),
        )
    signed = text.replace("+", " +").replace("-", " -").split()
    return tuple(w[1:] for w in signed if w[0] == "+"), tuple(w[1:] for w in signed if w[0] == "-")
