"""Whether a packet fits the match of a logical flow (ovn-sb(5), Logical_Flow.match): yes, no, or not to be told. Pure.

What this does not know (address sets, port groups, other predicates) makes the answer unknown, never a guess.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

# Longer than any that ovn-northd writes.
_MOST_CHARACTERS = 1 << 20
_MOST_NESTED = 100
_MOST_BITS = 128
# White space is a match of its own, with an empty group: else it would be gone through again from each of its places.
_TOKEN = re.compile(r'\s+|("[^"]*"|&&|\|\||==|!=|<=|>=|[<>!(){},]|[^\s"&|=!<>(){},]+)')
_RELATIONS: Mapping[str, Callable[[int, int], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_FIELDS = {
    "eth.src": "dl_src",
    "eth.dst": "dl_dst",
    "ip4.src": "nw_src",
    "ip4.dst": "nw_dst",
    "ip6.src": "ipv6_src",
    "ip6.dst": "ipv6_dst",
    "ip.proto": "nw_proto",
    "ip.ttl": "nw_ttl",
    "flags": "reg10",
}
_PORTS = {"tcp": 6, "udp": 17, "sctp": 132}
_MULTICAST_BIT = 1 << 40


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """A packet where a logical flow is looked up: its fields as `ovs.trace_packet` has them, and its ports' names."""

    fields: Mapping[str, int]
    inport: str = ""
    outport: str = ""


def holds(match: str, packet: Packet) -> bool | None:
    """Whether the match takes the packet in; None where that can't be told."""
    if len(match) > _MOST_CHARACTERS:
        return None
    tokens = [token for token in _TOKEN.findall(match) if token]
    if "".join(tokens) != re.sub(r"\s+", "", match) and '"' not in match:
        return None
    reader = _Reader(tokens, packet)
    try:
        value = reader.either()
    except (IndexError, ValueError):
        return None
    return value if reader.at_end() else None


class _Reader:
    """Evaluates while it reads; three-valued: None is "not known"."""

    def __init__(self, tokens: Sequence[str], packet: Packet) -> None:
        self._tokens = tokens
        self._packet = packet
        self._next = 0
        self._nested = 0

    def at_end(self) -> bool:
        return self._next == len(self._tokens)

    def _peek(self) -> str:
        return self._tokens[self._next] if not self.at_end() else ""

    def _take(self) -> str:
        self._next += 1
        return self._tokens[self._next - 1]

    def either(self) -> bool | None:
        values = [self._both()]
        while self._peek() == "||":
            self._take()
            values.append(self._both())
        return True if True in values else None if None in values else False

    def _both(self) -> bool | None:
        values = [self._one()]
        while self._peek() == "&&":
            self._take()
            values.append(self._one())
        return False if False in values else None if None in values else True

    def _one(self) -> bool | None:
        turned = False
        while self._peek() == "!":
            self._take()
            turned = not turned
        value = self._inner() if self._peek() == "(" else self._term()
        return value if value is None or not turned else not value

    def _inner(self) -> bool | None:
        """What stands in parentheses."""
        self._take()
        self._nested += 1
        if self._nested > _MOST_NESTED:
            raise ValueError
        value = self.either()
        self._nested -= 1
        if self._take() != ")":
            raise ValueError
        return value

    def _term(self) -> bool | None:
        name = self._take()
        if self._peek() == "(":
            # A predicate such as is_chassis_resident("…").
            while self._take() != ")":
                pass
            return None
        if self._peek() not in ("==", "!=", *_RELATIONS):
            return _predicate(name, self._packet)
        relation = self._take()
        found = [_compare(name, relation, text, self._packet) for text in self._constants()]
        equal = True if True in found else None if None in found else False
        return (None if equal is None else not equal) if relation == "!=" else equal

    def _constants(self) -> list[str]:
        if self._peek() != "{":
            return [self._take()]
        self._take()
        found = []
        while (text := self._take()) != "}":
            found += [text] if text != "," else []
        return found


def _predicate(name: str, packet: Packet) -> bool | None:
    fields = packet.fields
    version, proto = fields.get("version"), fields.get("nw_proto")
    if name.isdigit():
        return name != "0"
    if name in ("ip", "ip4", "ip6"):
        return version is not None and name in ("ip", f"ip{version}")
    if name in _PORTS:
        return version is not None and proto == _PORTS[name]
    if name in ("icmp", "icmp4", "icmp6"):
        return version is not None and proto == {4: 1, 6: 58}[version] and name in ("icmp", f"icmp{version}")
    if name in ("arp", "rarp"):
        return False if version is not None else None
    if name.startswith(("nd", "mld")):
        # All of them are ICMPv6.
        return None if proto == 58 else False
    if name == "eth.mcast":
        return bool(fields["dl_dst"] & _MULTICAST_BIT) if "dl_dst" in fields else None
    if name.startswith("ct."):
        tracked = fields.get("ct.trk", 0)
        return bool(fields.get(name)) and bool(tracked) if name in fields else None
    value = _value(name, packet)
    return None if value is None else bool(value)


def _compare(name: str, relation: str, text: str, packet: Packet) -> bool | None:
    if name in ("inport", "outport"):
        known = packet.inport if name == "inport" else packet.outport
        return text.strip('"') == known if known and text.startswith('"') else None
    if name.startswith(("arp.", "nd.")):
        return False if packet.fields.get("version") == 4 else None
    family = {"ip4": 4, "ip6": 6}.get(name.partition(".")[0])
    if family is not None and packet.fields.get("version") not in (None, family):
        return False
    if (proto := _PORTS.get(name.partition(".")[0])) and packet.fields.get("nw_proto", proto) != proto:
        return False
    value, wanted = _value(name, packet), _constant(text)
    if value is None or wanted is None:
        return None
    number, mask = wanted
    if relation in _RELATIONS:
        return _RELATIONS[relation](value, number)
    return (value ^ number) & mask == 0


def _value(name: str, packet: Packet) -> int | None:
    """The value of a symbol, perhaps of some of its bits: `reg0[3]`, `xxreg1`, `ip4.dst`, `tcp.dst`."""
    symbol, bracket, bits = name.partition("[")
    fields = packet.fields
    layer, _, part = symbol.partition(".")
    value: int | None
    if symbol == "flags.loopback":
        return fields.get("reg10", 0) & 1
    if symbol.startswith(("xxreg", "xreg")):
        value = _long_register(symbol, fields)
    elif layer in _PORTS:
        value = fields.get(f"tp_{part}")
    else:
        value = fields.get(_FIELDS.get(symbol, symbol))
    if value is None or not bracket:
        return value
    low, dots, high = bits.removesuffix("]").partition("..")
    first, last = int(low), int(high if dots else low)
    if not 0 <= first <= last < _MOST_BITS:
        raise ValueError
    return value >> first & ((1 << last - first + 1) - 1)


def _long_register(name: str, fields: Mapping[str, int]) -> int:
    count = 4 if name.startswith("xx") else 2
    first = int(name.lstrip("x").removeprefix("reg")) * count
    value = 0
    for number in range(first, first + count):
        value = value << 32 | fields.get(f"reg{number}", 0)
    return value


def _constant(text: str) -> tuple[int, int] | None:
    """A constant and its mask (-1: all bits)."""
    value, slash, mask = text.partition("/")
    if text.startswith(("$", "@", '"')):
        return None
    if value.count(":") == 5 and "::" not in value:
        return int(value.replace(":", ""), 16), int(mask.replace(":", ""), 16) if slash else -1
    if ":" in value or value.count(".") == 3:
        if slash and mask.isdigit():
            network = ipaddress.ip_network(text, strict=False)
            return int(network.network_address), int(network.netmask)
        return int(ipaddress.ip_address(value)), int(ipaddress.ip_address(mask)) if slash else -1
    return int(value, 0), int(mask, 0) if slash else -1
