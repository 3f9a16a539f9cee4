"""Packets that a server lost before Open vSwitch looked them up, and copies of packets that it could not hand on.

With the userspace datapath a device's packets wait in a socket until ovs-vswitchd reads them; what does not fit is
dropped by the kernel and counted at the socket alone (packet(7), `ss -0 -m`). "lost" of `dpctl/show` counts packets
whose upcall failed (ovs-dpctl(8)). A packet-in is dropped where its queue is full: 1,024 for all of a bridge, and 100
for a connection whose reader lags (Open vSwitch: ofproto-dpif.c, connmgr.c, do_send_packet_ins).
"""

from __future__ import annotations

import re

from vtrace.errors import CannotWorkError
from vtrace.ovs.flowtext import is_decimal
from vtrace.ovs.namespace import entering, pid_of
from vtrace.ovs.program import run_program
from vtrace.ovs.unixctl import call

READ_TIMEOUT_S = 3
_SOCKET = re.compile(r"^p_(?:raw|dgr)\s.*?\s\S+:(\S+)\s.*skmem:\([^)]*\bd([0-9]{1,20})\)", re.MULTILINE)
_LOOKUPS = re.compile(r"^\s*lookups: hit:\d+ missed:\d+ lost:([0-9]{1,20})\b", re.MULTILINE)
_PACKET_INS = re.compile(r"^(?:rconn_overflow|packet_in_overflow)\s.*\btotal: ([0-9]{1,20})\b", re.MULTILINE)


async def socket_drops(rundir: str) -> dict[str, int]:
    """By device what its sockets dropped, where ovs-vswitchd lives; nothing where that can't be read."""
    try:
        argv = [*entering(rundir), "ss", "-0", "-n", "-m", "-a"]
        done = await run_program(argv, timeout_s=READ_TIMEOUT_S)
    except (OSError, ValueError, CannotWorkError):
        return {}
    return parse_sockets(done.stdout) if done.status == 0 else {}


async def lost_upcalls(path: str, kind: str) -> int:
    """Packets whose upcall failed, of the datapaths of a kind ("netdev", "system").

    Args:
        path: control socket of ovs-vswitchd.
    """
    return parse_lost(await call(path, "dpctl/show"), kind)


async def lost_packet_ins(path: str) -> int:
    """Packet-ins that found a queue full since ovs-vswitchd began, whoever they were for. May lag by a second.

    Args:
        path: control socket of ovs-vswitchd.
    """
    return parse_packet_ins(await call(path, "coverage/show"))


def received(rundir: str) -> dict[str, int]:
    """By device the packets that came in, where ovs-vswitchd lives."""
    try:
        with open(f"/proc/{pid_of(rundir)}/net/dev", encoding="ascii") as file:
            return parse_received(file.read())
    except (OSError, ValueError):
        return {}


def parse_lost(text: str, kind: str) -> int:
    """Reads what `dpctl/show` prints."""
    parts = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    return sum(int(lost) for part in parts if part.startswith(f"{kind}@") for lost in _LOOKUPS.findall(part))


def parse_packet_ins(text: str) -> int:
    """Reads what `coverage/show` prints; it leaves out what is 0."""
    return sum(map(int, _PACKET_INS.findall(text)))


def parse_sockets(text: str) -> dict[str, int]:
    """Reads what `ss -0 -n -m -a` prints; of several sockets on one device the sum."""
    found: dict[str, int] = {}
    for device, dropped in _SOCKET.findall(text):
        found[device] = found.get(device, 0) + int(dropped)
    return found


def parse_received(text: str) -> dict[str, int]:
    """Reads /proc/net/dev (proc(5)): the packets received."""
    rows = [(line.partition(":")[0].strip(), line.partition(":")[2].split()) for line in text.splitlines()]
    return {name: int(values[1]) for name, values in rows if len(values) > 1 and is_decimal(values[1])}
