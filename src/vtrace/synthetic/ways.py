"""The ways of the pairs' packets: one for each epoch of its task and each backend of its VIP; and the stops of a way.

A *stop* is what all records have in common that packets of one way leave at one place.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa

from vtrace.model.record import Point
from vtrace.synthetic import templates
from vtrace.synthetic.addresses import address_texts
from vtrace.synthetic.chance import Bools, Chance, Ints, Purpose
from vtrace.synthetic.cloud import Cloud
from vtrace.synthetic.kinds import LOOP
from vtrace.synthetic.pairs import BACKENDS, Pairs, kind_number
from vtrace.synthetic.places import Places, Rows, find_places
from vtrace.synthetic.tasks import Tasks

_ZONES = 60


class Ways(msgspec.Struct, frozen=True, kw_only=True):
    """A column each.

    Attributes:
        first, backends: for each pair its first way, and how many it has for each epoch of its task.
        pair: the row of its pair; template: of `templates`.
        start, length: its first stop, and how many it has.
        cut: how many stops a packet makes that is lost; between: whether it is lost between two servers.
    """

    first: Ints
    backends: Ints
    pair: Ints
    template: Ints
    start: Ints
    length: Ints
    cut: Ints
    between: Bools


class Stops(msgspec.Struct, frozen=True, kw_only=True):
    """A column each; fields as in `LogRecord`, servers and addresses as numbers.

    Attributes:
        way: the row of its way; peer, tunnel_from: -1 for none; src, dst: rows of `addresses`, the texts.
        tracked: the conntrack state bit of its translation, else 0; zone: conntrack's.
        translated: 1 where the packets have their second addresses and ports; routed: what the TTL has lost.
        wires: how many tunnels lie before it; number: its place in the way.
    """

    way: Ints
    number: Ints
    server: Ints
    point: Ints
    datapath: Ints
    in_key: Ints
    out_key: Ints
    in_ofport: Ints
    peer: Ints
    eth_src: Ints
    eth_dst: Ints
    src: Ints
    dst: Ints
    addresses: pa.Array
    translated: Ints
    routed: Ints
    wires: Ints
    tunnel_from: Ints
    tunnel_id: Ints
    tracked: Ints
    zone: Ints


def lay_ways(switches: int, cloud: Cloud, chance: Chance, tasks: Tasks, pairs: Pairs) -> tuple[Ways, Stops]:
    """All ways of some pairs, in the order of the pairs, and their stops, in the order of the ways."""
    backends = np.where(pairs.kind == kind_number("slb"), BACKENDS, 1)
    counts = backends * tasks.uses[pairs.task]
    first = np.cumsum(counts) - counts
    pair = np.repeat(np.arange(len(counts)), counts)
    phase, backend = np.divmod(np.arange(len(pair)) - first[pair], backends[pair])
    places = find_places(switches, cloud, chance, pairs, Rows(pair=pair, phase=phase, backend=backend))
    sender, receiver, gateway, other, *_ = places.servers
    local = np.where(pairs.kind[pair] == kind_number(LOOP), gateway == other, sender == receiver)
    template = templates.TEMPLATE_OF[pairs.kind[pair], local.astype(np.int64), pairs.inward[pair].astype(np.int64)]
    length = templates.LENGTH[template]
    cut, between = _cuts(chance, pairs, pair, np.arange(len(pair)) - first[pair], template)
    ways = Ways(
        first=first,
        backends=backends,
        pair=pair,
        template=template,
        start=np.cumsum(length) - length,
        length=length,
        cut=cut,
        between=between,
    )
    return ways, _stops(cloud, chance, ways, places)


def _cuts(chance: Chance, pairs: Pairs, pair: Ints, number: Ints, template: Ints) -> tuple[Ints, Bools]:
    """Where packets of each way are lost, if they are."""
    wires, devices = templates.COUNT_BETWEEN[template], templates.COUNT_AT_DEVICE[template]
    between = ((pairs.between[pair] & (wires > 0)) | (devices == 0)) & (wires > 0)
    identity = pairs.couple[pair] * 2 + pairs.reply[pair]
    chosen = chance.below(np.maximum(np.where(between, wires, devices), 1), Purpose.CUT, identity, number)
    at_wire = templates.CUTS_BETWEEN[template, np.minimum(chosen, templates.CUTS_BETWEEN.shape[1] - 1)]
    at_device = templates.CUTS_AT_DEVICE[template, np.minimum(chosen, templates.CUTS_AT_DEVICE.shape[1] - 1)]
    # No template's row has a cut of 0: it stands for "nowhere".
    found = np.where(between, at_wire, at_device)
    return np.where(found > 0, found, templates.LENGTH[template]), between


def _stops(cloud: Cloud, chance: Chance, ways: Ways, places: Places) -> Stops:
    way = np.repeat(np.arange(len(ways.length)), ways.length)
    number = np.arange(len(way)) - ways.start[way]
    row = templates.START[ways.template[way]] + number
    columns = templates.COLUMNS
    server = places.servers[columns.server[row], way]
    peer = places.servers[columns.peer[row], way]
    datapath = places.datapaths[columns.datapath[row], way]
    in_key = places.keys[columns.in_port[row], way]
    point = columns.point[row]
    tracked = columns.tracked[row]
    by_vif = cloud.ofport(server, datapath, in_key)
    by_tunnel = cloud.ofport(server, peer)
    translated = columns.translated[row]
    count = len(ways.length)
    return Stops(
        way=way,
        number=number,
        server=server,
        point=point,
        datapath=datapath,
        in_key=in_key,
        out_key=places.keys[columns.out_port[row], way],
        in_ofport=np.where(point == Point.FIRST_HOP, by_vif, np.where(point == Point.INGRESS, by_tunnel, 0)),
        peer=peer,
        eth_src=places.macs[columns.eth_src[row], way],
        eth_dst=places.macs[columns.eth_dst[row], way],
        src=translated * count + way,
        dst=(2 + translated) * count + way,
        addresses=address_texts(np.concatenate([*places.sources, *places.destinations])),
        translated=translated,
        routed=columns.routed[row],
        wires=columns.wires[row],
        tunnel_from=places.servers[columns.tunnel_from[row], way],
        tunnel_id=places.datapaths[columns.tunnel_datapath[row], way],
        tracked=tracked,
        zone=np.where(tracked > 0, chance.below(_ZONES, Purpose.ZONE, server, datapath) + 1, 0),
    )
