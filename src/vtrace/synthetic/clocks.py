"""The servers' clocks, and when their agents restart."""

from __future__ import annotations

import numpy as np

from vtrace.synthetic.chance import Chance, Ints, Purpose
from vtrace.synthetic.options import Options
from vtrace.synthetic.tasks import TICK_NS

# Where the run begins: 2026-01-01 in UTC.
_BEGIN_NS = 1_767_225_600 * 10**9
_MOST_UPTIME_NS = 400 * 86_400 * 10**9
_DRIFT_PPB = 50_000
# Wall clocks that nobody skewed are this right.
_SYNCHRONIZED_NS = 2_000_000
# Of the servers whose wall clocks are wrong so many have them set while the run goes on.
_STEPPED = 0.25


class Clocks:
    """A monotonic and a wall clock for each server, and one incarnation after the other of its agent.

    The monotonic clock has an origin of its own and drifts; it is never set. The wall clock may be wrong, and be set.
    """

    def __init__(self, options: Options, chance: Chance, ticks: int, restart_ticks: int) -> None:
        """Args:
        ticks: how long the run is; restart_ticks: how long an agent that restarts runs.
        """
        servers = np.arange(options.servers)
        self._chance = chance
        self._origin_ns = (chance.share(Purpose.CLOCK, servers) * _MOST_UPTIME_NS).astype(np.int64)
        self._drift_ppb = chance.below(2 * _DRIFT_PPB, Purpose.DRIFT, servers) - _DRIFT_PPB
        most_ns = max(options.skew_s * 1e9, _SYNCHRONIZED_NS)
        self._skew_ns = ((2 * chance.share(Purpose.SKEW, servers) - 1) * most_ns).astype(np.int64)
        step = (2 * chance.share(Purpose.STEP, servers) - 1) * options.skew_s * 1e9
        steps = chance.happens(_STEPPED, Purpose.STEP, servers, np.ones_like(servers))
        self._step_ns = np.where(steps, step, 0).astype(np.int64)
        when = chance.share(Purpose.STEP, servers, np.full_like(servers, 2))
        self._step_at_ns = (when * ticks).astype(np.int64) * TICK_NS
        self._restarts = chance.happens(options.restarts, Purpose.RESTART, servers)
        self._restart_ticks = restart_ticks
        self._restart_phase = chance.below(restart_ticks, Purpose.RESTART, servers, np.ones_like(servers))
        self.restart = bool(self._restarts.any())

    def mono_ns(self, server: Ints, time_ns: Ints) -> Ints:
        """The monotonic clocks at a time since the beginning of the run."""
        drift_ns = time_ns // 1000 * self._drift_ppb[server] // 1_000_000
        return self._origin_ns[server] + time_ns + drift_ns

    def wall_ns(self, server: Ints, time_ns: Ints) -> Ints:
        """The wall clocks."""
        stepped = np.where(time_ns >= self._step_at_ns[server], self._step_ns[server], 0)
        return _BEGIN_NS + time_ns + self._skew_ns[server] + stepped

    def lives(self, server: Ints, time_ns: Ints) -> Ints:
        """How often the agent of each server has restarted by a time."""
        tick = time_ns // TICK_NS + self._restart_phase[server]
        return np.where(self._restarts[server], tick // self._restart_ticks, 0)

    def incarnation(self, server: Ints, life: Ints) -> Ints:
        """The number that an agent drew when it started for the `life`-th time."""
        return (self._chance.bits(Purpose.INCARNATION, server, life) >> np.uint64(2)).astype(np.int64)
