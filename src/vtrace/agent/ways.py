"""By which devices packets leave a server in the end, and by which those of a tunnel come in.

A bridge's tunnel port is no device: with the userspace datapath the packet goes on through the bridge that has the
tunnel's address, and the kernel routes it otherwise.
"""

from __future__ import annotations

import re

from vtrace.errors import VTraceError
from vtrace.model.openflow import DatapathFlow, Trace
from vtrace.ovs import datapath
from vtrace.ovs import trace as ovs_trace
from vtrace.ovs.flowtext import is_decimal
from vtrace.ovs.unixctl import call

_TUNNEL_SOURCE = re.compile(r"\btun(?:_ipv6)?_src=([^,]+)")
_NEIGHBOR = re.compile(r"^(\S+)\s+((?:[0-9a-f]{2}:){5}[0-9a-f]{2})\s+(\S+)\s*$", re.MULTILINE)
_PORT = re.compile(r"^\s+port ([0-9]{1,20}): (\S+)", re.MULTILINE)
_PUSHED = re.compile(r"\btnl_push\(tnl_port\(\d+\),header\(size=([0-9]{1,5}),")


def port_names(text: str, kind: str) -> dict[str, str]:
    """Names of the ports of a datapath of a kind ("netdev", "system") by their numbers, from `dpctl/show`."""
    parts = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    return {number: name for part in parts if part.startswith(f"{kind}@") for number, name in _PORT.findall(part)}


def tunnel_bytes(found: Trace) -> int:
    """What a traced packet's tunnel adds to its length; 0 without one, or where the kernel adds it.

    The header's size has an outer Ethernet header, which is no part of the packet, and the inner one is as long.
    """
    sizes = [int(size) for actions in found.datapath_actions for size in _PUSHED.findall(actions)]
    return sizes[-1] if sizes else 0


def neighbors(text: str) -> dict[str, tuple[str, str]]:
    """MAC address and bridge by the address of a tunnel's far end or next hop, from `tnl/neigh/show`."""
    return {address: (mac, bridge) for address, mac, bridge in _NEIGHBOR.findall(text)}


class Ways:
    """Finds the devices of one server."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    async def out(self, path: str, kind: str, found: Trace) -> tuple[str, ...]:
        """The devices by which a traced packet leaves the server; none where it does not.

        Args:
            path: control socket of ovs-vswitchd.
            kind: of the datapath.
        """
        numbers = [port for actions in found.datapath_actions for port in _final_ports(actions)]
        if any(number not in self._names for number in numbers):
            self._names = port_names(await call(path, "dpctl/show"), kind)
        return tuple(dict.fromkeys(self._names.get(number, number) for number in numbers))

    async def into(self, path: str, kind: str, entry: str) -> tuple[str, ...]:
        """The devices that lead back to the sender of what came by a tunnel: it most likely came in by them.

        Args:
            entry: how it came in, with the tunnel's fields.
        """
        source = _TUNNEL_SOURCE.search(entry)
        if source is None:
            return ()
        try:
            known = neighbors(await call(path, "tnl/neigh/show"))
            if source[1] not in known:
                return ()
            mac, bridge = known[source[1]]
            six = ":" in source[1]
            back = (
                f"in_port=LOCAL,{'udp6' if six else 'udp'},dl_dst={mac},{'ipv6_dst' if six else 'nw_dst'}={source[1]}"
            )
            return await self.out(path, kind, await ovs_trace.trace(path, bridge, back))
        except VTraceError:
            # Only a candidate for the evidence: without it the answer is the less exact one.
            return ()


def _final_ports(actions: str) -> tuple[str, ...]:
    """The datapath's ports of final actions: a tunnel's own port is followed by the underlay's."""
    flow = DatapathFlow(
        ufid="", key="", actions=actions, packets=0, recirc_id=0, in_port="", tos=0, tos_mask=0, ct_state=()
    )
    return tuple(port for port in datapath.outputs(flow) if is_decimal(port))
