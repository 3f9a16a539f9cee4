"""How much of an ovs-vswitchd's main thread we may take: a hard bound for control calls, whatever the answers cost.

That thread forwards, too, where ports are polled in it (the userspace datapath's veth and tap ports).
"""

from __future__ import annotations

# Of calls, and of the time that their answers take: so much at once, and so much each second after that. A task of one
# pair makes some twenty calls, which take 0.1 s; the burst is for tasks of hundreds of pairs.
BURST_CALLS, CALLS_PER_S = 500, 50.0
BURST_S, SHARE = 3.0, 0.1


class Allowance:
    """What is left for one ovs-vswitchd. Times are of any one clock, in seconds.

    Within any time T at most `BURST_CALLS + CALLS_PER_S * T` calls begin, and all of them but the last take at most
    `BURST_S + SHARE * T` together.
    """

    def __init__(self, now_s: float) -> None:
        self._at_s = now_s
        self._calls = float(BURST_CALLS)
        self._left_s = BURST_S

    def ask(self, now_s: float) -> float:
        """Takes one call; how long it has to wait, in seconds."""
        self._fill(now_s)
        self._calls -= 1.0
        return max(0.0, -self._calls / CALLS_PER_S, -self._left_s / SHARE)

    def spend(self, now_s: float, took_s: float) -> None:
        """Notes how long the thread worked until the answer was there, forwarding meanwhile included."""
        self._fill(now_s)
        self._left_s -= took_s

    def _fill(self, now_s: float) -> None:
        passed_s = max(0.0, now_s - self._at_s)
        self._at_s = max(self._at_s, now_s)
        self._calls = min(float(BURST_CALLS), self._calls + CALLS_PER_S * passed_s)
        self._left_s = min(BURST_S, self._left_s + SHARE * passed_s)
