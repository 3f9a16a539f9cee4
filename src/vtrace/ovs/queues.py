"""What the kernel's queues dropped of what was sent to devices (tc(8)): Open vSwitch does not count that.

Read where ovs-vswitchd lives: its network namespace may not be ours.
"""

from __future__ import annotations

import msgspec

from vtrace.errors import CannotWorkError
from vtrace.ovs.namespace import entering
from vtrace.ovs.program import run_program

READ_TIMEOUT_S = 3


class DeviceQueue(msgspec.Struct, frozen=True, kw_only=True):
    """A device's outgoing queue: its kind ("tbf", "fq_codel", …), what it dropped and sent since it was made."""

    kind: str
    dropped: int
    packets: int = 0


async def device_queues(rundir: str) -> dict[str, DeviceQueue]:
    """The queues of all devices that have one; nothing where they can't be read."""
    try:
        argv = [*entering(rundir), "tc", "-s", "-j", "qdisc", "show"]
        done = await run_program(argv, timeout_s=READ_TIMEOUT_S)
    except (OSError, ValueError, CannotWorkError):
        return {}
    return parse_queues(done.stdout) if done.status == 0 else {}


class _Row(msgspec.Struct):
    """What is read of a queue in the JSON of tc."""

    dev: str = ""
    kind: str = ""
    root: bool = False
    drops: int = 0
    packets: int = 0


def parse_queues(text: str) -> dict[str, DeviceQueue]:
    """Reads the JSON of `tc -s -j qdisc show`: of each device its root, which counts for those below it, too."""
    try:
        rows = msgspec.json.decode(text.encode(), type=list[_Row])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    return {
        row.dev: DeviceQueue(kind=row.kind, dropped=row.drops, packets=row.packets)
        for row in rows
        if row.root and row.dev
    }
