"""Where each pair's packets should arrive, if that is one place: it tells their copy in a flood."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from vtrace.model.inventory import Inventory
from vtrace.model.task import Pair

if TYPE_CHECKING:
    from vtrace.reconstruct.schema import Goal


def goals(task_id: str, pairs: Iterable[Pair], inventory: Inventory) -> dict[tuple[str, int], Goal]:
    """The goals of a task, by its id and the number of the pair."""
    # Compiled code is loaded when there is something to reconstruct.
    from vtrace.reconstruct.schema import Goal

    found: dict[tuple[str, int], Goal] = {}
    for pair in pairs:
        ports = inventory.ends(pair.destination)
        if len(ports) == 1 and ports[0].chassis:
            port = ports[0]
            found[task_id, pair.index] = Goal(datapath=port.datapath, key=port.key, chassis=port.chassis)
    return found
