"""When a process that stood still may have missed copies."""

from __future__ import annotations

import time

import anyio
import pytest

from vtrace.analyzer.stalls import KEPT_COPIES, STALL_S, Stalls


@pytest.mark.parametrize(
    ("copies", "told"), [(KEPT_COPIES, ["hv1"]), (KEPT_COPIES - 1, [])], ids=["as many as wait", "fewer"]
)
def test_only_where_so_many_came_at_once_some_may_have_been_dropped(copies: int, told: list[str]) -> None:
    found: list[str] = []
    stalls = Stalls(lambda chassis, _: found.append(chassis))

    async def run() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(stalls.watch)
            await anyio.sleep(0.3)
            time.sleep(STALL_S + 0.3)  # noqa: ASYNC251 (the process stands still: nothing else runs)
            for _ in range(copies):
                stalls.take("hv1")
            stalls.take("hv2")
            await anyio.sleep(1.6)
            group.cancel_scope.cancel()

    anyio.run(run)
    assert found == told
