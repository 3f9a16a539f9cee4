"""`kinds.TEMPLATES` as columns: a row for each record of each template."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from vtrace.model.record import Point
from vtrace.synthetic.chance import Ints
from vtrace.synthetic.kinds import ALL_KINDS, IN, OUT, TEMPLATES

SERVERS = ("S", "D", "G", "H", "X")
# A loop's template is long enough for this TTL.
MAX_LOOP_TTL = 64
_POINTS = {
    "first": Point.FIRST_HOP,
    "from": Point.INGRESS,
    "on": Point.LOGICAL_EGRESS,
    "to": Point.REMOTE_OUTPUT,
    "out": Point.EGRESS,
}
# Conntrack state bits of ovs-fields(7): src_nat, dst_nat.
_NAT_BITS = {"+src": 0x40, "+dst": 0x80}


class _Hop(msgspec.Struct, frozen=True, kw_only=True):
    server: str
    point: Point
    datapath: str
    in_port: str
    out_port: str
    peer: str
    eth: tuple[str, str]
    routed: int
    translated: int
    wires: int
    before: int
    tunnel: tuple[str, str]
    tracked: int


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """All templates' records, one after the other.

    Attributes:
        server, datapath, in_port, out_port, peer, eth_src, eth_dst: which one of `SERVERS`, `DATAPATHS`, `PORTS`
            ("A.R") or `MACS`; -1 for none.
        point: a `Point`. routed: how many routers took one off the TTL. translated: 1 after its translation.
        wires: how many tunnels lie before it. before: the number in its template of the record before it.
        tunnel_from, tunnel_datapath: the server and the datapath of the tunnel that the packet came in by; the tunnel's
            fields stay with it as long as it is on the server.
        tracked: the conntrack state bit of a translation that has just been made, else 0.
    """

    server: Ints
    point: Ints
    datapath: Ints
    in_port: Ints
    out_port: Ints
    peer: Ints
    eth_src: Ints
    eth_dst: Ints
    routed: Ints
    translated: Ints
    wires: Ints
    before: Ints
    tunnel_from: Ints
    tunnel_datapath: Ints
    tracked: Ints


def template_number(kind: str, *, local: bool, direction: int) -> int:
    """The number of a template. Kinds for which it makes no difference where the ends are have one for both."""
    name = f"{kind} local"
    return 2 * _NAMES.index(name if local and name in TEMPLATES else kind) + direction


def _parsed(text: str) -> list[_Hop]:
    hops: list[_Hop] = []
    eth = ("", "")
    routed = translated = 0
    begin, _, round_ = text.partition("repeat\n")
    # Each round passes two routers.
    rounds = [round_] * (MAX_LOOP_TTL // 2)
    for line in "\n".join([begin, *rounds]).splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] in ("eth", "route"):
            eth = (words[1], words[2])
            routed += words[0] == "route"
        elif words[0] == "nat":
            translated = 1
        else:
            hops.append(_hop(words, hops, eth, routed, translated))
    return hops


def _hop(words: list[str], hops: Sequence[_Hop], eth: tuple[str, str], routed: int, translated: int) -> _Hop:
    before = len(hops) - 1
    if words[-1].startswith("@"):
        before = int(words.pop()[1:])
    tracked = _NAT_BITS[words.pop()] if words[-1] in _NAT_BITS else 0
    server, point = words[0], _POINTS[words[1]]
    peer = words.pop(2) if point in (Point.INGRESS, Point.REMOTE_OUTPUT) else ""
    ports = [*(port if "." in port else f"{words[2]}.{port}" for port in words[3:]), "", ""]
    wires = hops[before].wires + (point is Point.INGRESS) if hops else 0
    tunnel = hops[before].tunnel if hops and hops[before].server == server else ("", "")
    return _Hop(
        server=server,
        point=point,
        datapath=words[2],
        in_port=ports[0],
        out_port=ports[1],
        peer="" if peer == "*" else peer,
        eth=eth,
        routed=routed,
        translated=translated,
        wires=wires,
        before=before,
        tunnel=(peer, words[2]) if point is Point.INGRESS else tunnel,
        tracked=tracked,
    )


_NAMES = tuple(TEMPLATES)
_ALL = [_parsed(text) for both in TEMPLATES.values() for text in both]
_HOPS = [hop for hops in _ALL for hop in hops]

LENGTH: Ints = np.array([len(hops) for hops in _ALL], np.int64)
"""Records of each template, by its number; `START` is the first one's row in `COLUMNS`."""
START: Ints = np.concatenate(([0], np.cumsum(LENGTH)[:-1]))
WIRES: Ints = np.array([max(hop.wires for hop in hops) for hops in _ALL], np.int64)
"""How many tunnels the longest way in each template has."""
LEAVES = np.array([hops[-1].out_port.endswith(".net") for hops in _ALL])
"""Which templates end at a physical network."""


def _numbers(words: Sequence[str], known: Sequence[str]) -> Ints:
    return np.array([known.index(word) if word else -1 for word in words], np.int64)


DATAPATHS = tuple(sorted({hop.datapath for hop in _HOPS}))
PORTS = tuple(sorted({port for hop in _HOPS for port in (hop.in_port, hop.out_port) if port}))
MACS = tuple(sorted({word for hop in _HOPS for word in hop.eth}))

COLUMNS = Columns(
    server=_numbers([hop.server for hop in _HOPS], SERVERS),
    point=np.array([hop.point for hop in _HOPS], np.int64),
    datapath=_numbers([hop.datapath for hop in _HOPS], DATAPATHS),
    in_port=_numbers([hop.in_port for hop in _HOPS], PORTS),
    out_port=_numbers([hop.out_port for hop in _HOPS], PORTS),
    peer=_numbers([hop.peer for hop in _HOPS], SERVERS),
    eth_src=_numbers([hop.eth[0] for hop in _HOPS], MACS),
    eth_dst=_numbers([hop.eth[1] for hop in _HOPS], MACS),
    routed=np.array([hop.routed for hop in _HOPS], np.int64),
    translated=np.array([hop.translated for hop in _HOPS], np.int64),
    wires=np.array([hop.wires for hop in _HOPS], np.int64),
    before=np.array([hop.before for hop in _HOPS], np.int64),
    tunnel_from=_numbers([hop.tunnel[0] for hop in _HOPS], SERVERS),
    tunnel_datapath=_numbers([hop.tunnel[1] for hop in _HOPS], DATAPATHS),
    tracked=np.array([hop.tracked for hop in _HOPS], np.int64),
)


def _cuts(hops: Sequence[_Hop], *, between: bool) -> list[int]:
    """After how many records a packet may be lost: between two servers, or at a device.

    Of a flooded packet the copy for the receiver is lost, and its records are the last ones of the template.
    """
    if hops[-1].routed >= MAX_LOOP_TTL:
        return []
    if any(hop.out_port == "A.group" for hop in hops):
        at_receiver = [n for n, hop in enumerate(hops) if hop.server == "D"]
        return at_receiver[:1] if between else at_receiver[-1:]
    return [n for n in range(1, len(hops)) if (hops[n - 1].point is Point.REMOTE_OUTPUT) == between]


def _padded(between: bool) -> tuple[Ints, Ints]:
    found = [_cuts(hops, between=between) for hops in _ALL]
    width = max(map(len, found))
    table = np.array([[*cuts, *[0] * (width - len(cuts))] for cuts in found], np.int64)
    return table, np.array([len(cuts) for cuts in found], np.int64)


CUTS_BETWEEN, COUNT_BETWEEN = _padded(between=True)
"""For each template after how many of its records a packet may be lost between two servers, and how many such."""
CUTS_AT_DEVICE, COUNT_AT_DEVICE = _padded(between=False)

# A number for each kind, place of the ends and direction: TEMPLATE_OF[kind, local, direction].
TEMPLATE_OF: Ints = np.array(
    [
        [
            [template_number(kind, local=local, direction=direction) for direction in (OUT, IN)]
            for local in (False, True)
        ]
        for kind in ALL_KINDS
    ],
    np.int64,
)

BEFORE_TTL: Ints = np.array(
    [np.searchsorted([hop.routed for hop in hops], np.arange(MAX_LOOP_TTL + 1)) for hops in _ALL], np.int64
)
"""BEFORE_TTL[template, ttl]: how many records a packet leaves whose TTL ends on the way."""
