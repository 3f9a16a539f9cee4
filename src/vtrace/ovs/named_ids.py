"""The meters and controller ids that entries and groups of others name: ours must be none of them.

An entry may name a meter that is not there yet: the one that gets its number is then the entry's. And it may name a
controller id: what it sends would come to us, if ours were the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from vtrace.color.registry import COOKIE_MAGIC
from vtrace.ovs.flowtext import number

_OURS = f"cookie=0x{COOKIE_MAGIC:x}"
# controller(id=5,meter_id=7,…), meter:7; with names or without (ovs-actions(7)).
_CONTROLLER = re.compile(r"controller\(([^()]*)")
_ID = re.compile(r"(?:^|,)id=(0x[0-9a-f]{1,8}|[0-9]{1,10})\b")
_METER = re.compile(r"\bmeter(?:_id=|:)(0x[0-9a-f]{1,8}|[0-9]{1,10})\b")


class NamedIds:
    """What was found so far."""

    def __init__(self) -> None:
        self.controllers: set[int] = set()
        self.meters: set[int] = set()

    def take(self, lines: Iterable[str]) -> None:
        """Looks at lines of a dump, or action lists; lines of ours are left aside."""
        for line in lines:
            if "controller(" in line and _OURS not in line:
                for inner in _CONTROLLER.findall(line):
                    self.controllers.update(number(text) for text in _ID.findall(inner))
            if "meter" in line and _OURS not in line:
                self.meters.update(number(text) for text in _METER.findall(line))
