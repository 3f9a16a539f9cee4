"""Random numbers that depend on what they are for, and on nothing else: not on how many were drawn before.

So the same packet comes out the same however the work is cut into pieces. A number is the hash of the seed, a purpose
and coordinates (a task, a packet, …), mixed by the finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable
pseudorandom number generators, 2014).
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11, _S32 = (np.uint64(bits) for bits in (30, 27, 31, 11, 32))


class Purpose(IntEnum):
    """What a random number decides."""

    VPC = 1
    DSCP = 2
    KIND = 3
    SOURCE = 4
    DESTINATION = 5
    LOCALITY = 6
    PROTOCOL = 7
    VERSION = 8
    FLOWS = 9
    PORT = 10
    BACKEND = 11
    GATEWAY = 12
    FAULT = 13
    CUT = 14
    RATIO = 15
    LOST_PACKET = 16
    FLOOD = 17
    LOOP = 18
    MOVE = 19
    SERVER = 20
    KEY = 21
    SIZE = 22
    IP_ID = 23
    TTL = 24
    SENT = 25
    LATENCY = 26
    JITTER = 27
    IDENTICAL = 28
    CLOCK = 29
    DRIFT = 30
    SKEW = 31
    STEP = 32
    RESTART = 33
    INCARNATION = 34
    LOG_LOSS = 35
    REPEAT = 36
    DELAY = 37
    LATE = 38
    SHUFFLE = 39
    OFPORT = 40
    SNAT_PORT = 41
    TASK = 42
    EXTERNAL = 43
    ASYMMETRIC = 44
    PACE = 45
    ZONE = 46
    FLAGS = 47


# Their square roots are far from rational, and none is a sum of others' multiples.
_EVENLY = {
    Purpose.KIND: 5,
    Purpose.FAULT: 2,
    Purpose.FLOOD: 3,
    Purpose.LOOP: 7,
    Purpose.MOVE: 13,
}


class Chance:
    """Draws from one seed. All methods take integer arrays as coordinates, which are broadcast together."""

    def __init__(self, seed: int) -> None:
        self._seed = seed & 0xFFFF_FFFF_FFFF_FFFF

    def bits(self, purpose: Purpose, *coordinates: Ints) -> Hashes:
        """64 random bits."""
        start = np.array([self._seed ^ (int(purpose) << 56)], np.uint64)
        found = _mixed(start)
        for coordinate in coordinates:
            found = _mixed((found + _GOLDEN) ^ (np.asarray(coordinate).astype(np.uint64) * _FIRST))
        return found

    def share(self, purpose: Purpose, *coordinates: Ints) -> Floats:
        """Evenly distributed in [0, 1)."""
        return (self.bits(purpose, *coordinates) >> _S11).astype(np.float64) * 2.0**-53

    def below(self, bound: int | Ints, purpose: Purpose, *coordinates: Ints) -> Ints:
        """Integers from 0 up to a bound, which is at most 2^31."""
        high = self.bits(purpose, *coordinates) >> _S32
        return ((high * np.asarray(bound).astype(np.uint64)) >> _S32).astype(np.int64)

    def happens(self, rate: float, purpose: Purpose, *coordinates: Ints) -> Bools:
        """True with the given probability."""
        return self.share(purpose, *coordinates) < rate

    def evenly(self, purpose: Purpose, numbers: Ints) -> Floats:
        """In [0, 1) for numbers 0, 1, 2, …, so spread that few of them already have shares near the true ones.

        Additive recurrence with a slope of its own for each purpose (Kuipers, Niederreiter: Uniform distribution of
        sequences, 1974).
        """
        slope = math.sqrt(_EVENLY[purpose])
        start = self.share(purpose, np.zeros(1, np.int64))[0]
        return (np.asarray(numbers).astype(np.float64) * slope + start) % 1.0


def _mixed(value: Hashes) -> Hashes:
    value = (value ^ (value >> _S30)) * _FIRST
    value = (value ^ (value >> _S27)) * _SECOND
    return value ^ (value >> _S31)
