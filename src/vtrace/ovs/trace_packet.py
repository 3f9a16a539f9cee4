"""What a packet looked like at each look-up of a trace: its headers, and what OVN keeps in registers (ovs-fields(7)).

Read from the trace's own text, one pass after the other, in the order in which Open vSwitch printed it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TypedDict

import msgspec

from vtrace.errors import ProtocolError
from vtrace.ovs.flowtext import is_decimal, match_fields, number
from vtrace.ovs.trace_state import subfield

_PROTOCOLS = {"icmp": (4, 1), "icmp6": (6, 58), "tcp": (4, 6), "tcp6": (6, 6), "udp": (4, 17), "udp6": (6, 17)}
_PROTOCOLS |= {"ip": (4, 0), "ipv6": (6, 0), "sctp": (4, 132), "sctp6": (6, 132)}
_CT_STATES = ("new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat")
_RENAMED = {"eth_src": "dl_src", "eth_dst": "dl_dst", "ip_src": "nw_src", "ip_dst": "nw_dst", "ip_ttl": "nw_ttl"}
_RENAMED |= {f"{proto}_{end}": f"tp_{end}" for proto in ("tcp", "udp") for end in ("src", "dst")}
_REGISTER_BITS = 32
_REGISTERS = 16
_HEADERS = {
    "NXM_OF_ETH_SRC": "dl_src",
    "NXM_OF_ETH_DST": "dl_dst",
    "NXM_OF_IP_SRC": "nw_src",
    "NXM_OF_IP_DST": "nw_dst",
}
_HEADERS |= {"NXM_NX_IPV6_SRC": "ipv6_src", "NXM_NX_IPV6_DST": "ipv6_dst", "NXM_NX_IP_TTL": "nw_ttl"}


class LookUp(msgspec.Struct, frozen=True, kw_only=True):
    """One look-up: where, what it hit (priority -1: nothing), and the packet's fields at that moment, as numbers.

    Beside the fields' own names `version` is 4 or 6 for IP, and `ct.NAME` is 1 for each conntrack state it has.
    """

    table: int
    priority: int
    cookie: int
    fields: Mapping[str, int]


class LastSeen(TypedDict):
    """Addresses, empty where not known; the conntrack zone, 0 where not known; whether conntrack calls it new."""

    dst: str
    next_hop: str
    eth_dst: str
    ct_zone: int
    ct_new: bool


def look_ups(text: str) -> tuple[LookUp, ...]:
    """The look-ups of a trace; what can't be read of a packet is left out of its fields."""
    found: list[LookUp] = []
    packet: dict[str, int] = {}
    for line in text.splitlines():
        words = line.strip()
        if line.startswith("Flow: "):
            packet = _flow(words.removeprefix("Flow: "))
        elif words.startswith("-> ") and " is now " in words:
            target, _, value = words.removeprefix("-> ").partition(" is now ")
            _load(packet, target, value)
        elif (hit := _hit(words)) is not None:
            found.append(LookUp(table=hit[0], priority=hit[1], cookie=hit[2], fields=dict(packet)))
        else:
            _act(packet, words)
    return tuple(found)


def last_seen(text: str) -> LastSeen:
    """What the last look-up of a trace saw of the packet (ovn-northd(8), ovn-architecture(7)).

    A router keeps the next hop in the first register, for IPv6 in the first four; a switch its port's conntrack zone
    in register 13.
    """
    found = look_ups(text)
    fields = found[-1].fields if found else {}
    six = fields.get("version") == 6
    dst = fields.get("ipv6_dst" if six else "nw_dst")
    hop = sum(fields.get(f"reg{n}", 0) << 32 * (3 - n) for n in range(4)) if six else fields.get("reg0", 0)
    address = ipaddress.IPv6Address if six else ipaddress.IPv4Address
    mac = fields.get("dl_dst")
    return {
        "dst": str(address(dst)) if dst is not None and 0 <= dst >> address(0).max_prefixlen == 0 else "",
        "next_hop": str(address(hop)) if hop else "",
        "eth_dst": ":".join(f"{mac >> shift & 0xFF:02x}" for shift in range(40, -1, -8)) if mac is not None else "",
        "ct_zone": fields.get("reg13", 0) & 0xFFFF,
        "ct_new": bool(fields.get("ct.new")),
    }


def _hit(words: str) -> tuple[int, int, int] | None:
    table, dot, rest = words.partition(". ")
    if not dot or not is_decimal(table):
        return None
    if rest.startswith("No match"):
        return int(table), -1, 0
    body, _, cookie = rest.partition(", cookie ")
    _, found, priority = body.rpartition("priority ")
    return (int(table), int(priority), number(cookie or "0")) if found and is_decimal(priority) else None


def _flow(text: str) -> dict[str, int]:
    packet: dict[str, int] = {f"reg{n}": 0 for n in range(16)} | {"metadata": 0}
    for name, value in match_fields(text).items():
        if name in _PROTOCOLS:
            packet["version"], packet["nw_proto"] = _PROTOCOLS[name]
        elif name == "ct_state":
            packet |= {f"ct.{state}": 1 for state in value.replace("+", "|").split("|") if state in _CT_STATES}
        else:
            _set(packet, name, value)
    # A trace names all states that a packet has.
    return {f"ct.{state}": 0 for state in _CT_STATES} | packet


def _act(packet: dict[str, int], action: str) -> None:
    verb, _, rest = action.partition(":")
    value, arrow, target = rest.rpartition("->")
    if verb == "set_field" and arrow:
        _set(packet, target, value)
    elif verb == "load" and arrow:
        _load(packet, target, value)
    elif action.startswith("dec_ttl") and "nw_ttl" in packet:
        packet["nw_ttl"] -= 1
    elif action == "ct_clear":
        packet |= {f"ct.{state}": 0 for state in _CT_STATES}


def _load(packet: dict[str, int], target: str, value: str) -> None:
    """`0x1->NXM_NX_REG10[3..5]`, and what is said of `move:`; of other fields than registers it makes them unknown."""
    name, _, bits = target.partition("[")
    register = name.rpartition("_")[2].lower()
    if (header := _HEADERS.get(name)) is not None:
        packet.pop(header, None)
        return
    try:
        low, width = subfield(bits.removesuffix("]"), 128 if register.startswith("xx") else _REGISTER_BITS)
        put = number(value) << low
    except ProtocolError:
        return
    if register == "metadata":
        packet[register] = put
    elif register.startswith(("reg", "xreg", "xxreg")):
        _put(packet, register, put, ((1 << width) - 1) << low)


def _set(packet: dict[str, int], name: str, text: str) -> None:
    name = _RENAMED.get(name, name)
    value, slash, mask = text.partition("/")
    known = _number(value)
    if known is None:
        packet.pop(name, None)
    elif name.startswith(("reg", "xreg", "xxreg")):
        _put(packet, name, known, (_number(mask) or 0) if slash else -1)
    elif not slash:
        packet[name] = known
    else:
        packet.pop(name, None)


def _put(packet: dict[str, int], register: str, value: int, mask: int) -> None:
    """Puts bits into a register; the first of the 32-bit ones that make up a longer one holds its highest bits."""
    count = 4 if register.startswith("xx") else 2 if register.startswith("x") else 1
    own = register.lstrip("x").removeprefix("reg")
    if not is_decimal(own) or int(own) * count >= _REGISTERS:
        return
    first = int(own) * count
    for number_ in range(count):
        shift = (count - 1 - number_) * _REGISTER_BITS
        own_mask = (mask >> shift) & 0xFFFFFFFF
        name = f"reg{first + number_}"
        packet[name] = packet.get(name, 0) & ~own_mask | (value >> shift) & own_mask


def _number(text: str) -> int | None:
    try:
        if text.count(":") == 5:
            return int(text.replace(":", ""), 16)
        return int(ipaddress.ip_address(text)) if ":" in text or text.count(".") == 3 else number(text)
    except (ValueError, ProtocolError):
        return None
