"""The tasks: which color and epoch each has, when it runs, and in which VPC."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from vtrace.synthetic.chance import Chance, Ints, Purpose
from vtrace.synthetic.options import Options

# DSCP pool 2 (RFC 2474, section 6).
COLORS: Ints = np.arange(3, 64, 4)
# Packets of a pair come in groups of so many: of one five-tuple, and those with one key are all of one group.
GROUP = 4
# Time goes in ticks. Nothing is on its way when one ends, so that what happens then happens between packets.
TICK_NS = 10_000_000
# From a move until the task goes on, with the next epoch of its color (docs/pipeline.md, "When the topology changes").
_MOVE_TICKS = 40
_BETWEEN_TICKS = 100
_ORIGINAL_DSCPS: Ints = np.array([0, 0, 0, 0, 0, 0, 10, 46])
_PACES: Ints = np.array([1, 2, 4])


class Tasks:
    """All tasks, a column each.

    Attributes:
        color, epoch: epochs of one color are numbered in the order of the tasks; `epoch` is the first that a task has.
        packets, pairs: of each task.
        uses: how many epochs it has; vpc; dscp: the original one.
        start: its first tick; pace: packets of a pair in a tick.
        per_pair: how many packets a pair has at most; move: from which one on VMs have moved, if any do.
    """

    def __init__(self, options: Options, chance: Chance, packets: int) -> None:
        self.packets = packets
        self.pairs = min(options.pairs, packets)
        self.per_pair = -(-packets // self.pairs)
        self.move = self.per_pair // 2 // GROUP * GROUP
        numbers = np.arange(options.tasks)
        moves = (chance.evenly(Purpose.MOVE, numbers) < options.moves) & (self.move > 0)
        self.uses = 1 + moves.astype(np.int64)
        self.color = COLORS[numbers % len(COLORS)]
        self.epoch = _epochs(self.uses)
        # With an odd number of VPCs the last one has no neighbor.
        self.vpc = chance.below(options.vpcs - options.vpcs % 2, Purpose.VPC, numbers)
        self.dscp = _ORIGINAL_DSCPS[chance.below(len(_ORIGINAL_DSCPS), Purpose.DSCP, numbers)]
        self.pace = _PACES[chance.below(len(_PACES), Purpose.PACE, numbers)]
        self.ticks = self.per_pair + _MOVE_TICKS
        # So many at once as there are colors.
        self.start = numbers // len(COLORS) * (self.ticks + _BETWEEN_TICKS) + numbers % len(COLORS)
        names = chance.bits(Purpose.TASK, numbers).tolist()
        self.names = pa.array([*(f"{name:016x}" for name in names), ""])

    def tick(self, task: Ints, number: Ints) -> Ints:
        """When a packet is sent, by its number in its pair."""
        pause = np.where((self.uses[task] > 1) & (number >= self.move), _MOVE_TICKS, 0)
        return np.asarray(self.start[task] + number // self.pace[task] + pause)


def _epochs(uses: Ints) -> Ints:
    """The first epoch of each task: one more than its color has had uses."""
    colors = len(COLORS)
    padded = np.zeros(-(-len(uses) // colors) * colors, np.int64)
    padded[: len(uses)] = uses
    table = padded.reshape(-1, colors)
    return (1 + np.cumsum(table, axis=0) - table).reshape(-1)[: len(uses)]
