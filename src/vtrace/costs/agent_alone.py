"""An agent that idles, in a process of its own: claims made, connected to its bridge, no task.

    python -m vtrace.costs.agent_alone RUNDIR BRIDGE

Prints a line when it is so, and gives everything back when its input ends. It imports nothing that an agent does not
need: what this process takes is what an agent takes.
"""

from __future__ import annotations

import secrets
import sys

import anyio
import anyio.to_thread

from vtrace.agent.chassis import ChassisAgent
from vtrace.color.registry import POOL_2

HOLD_S = 3600


async def idle(rundir: str, bridge: str) -> None:
    """Idles until the input ends."""
    running = ChassisAgent.running(rundir, bridge, "", secrets.token_bytes(32), secrets.token_hex(8), HOLD_S)
    async with running as agent:
        await agent.lock()
        await agent.survey()
        used = await agent.colors_used()
        await agent.claim(next(color for color in POOL_2 if color not in used))
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)


if __name__ == "__main__":
    anyio.run(idle, sys.argv[1], sys.argv[2])
