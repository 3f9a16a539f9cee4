"""Whether a loss looks like a rate limit: packets that follow too closely on others are lost, whatever they are.

The model is a token bucket: it fills at a steady rate up to its depth, a packet that finds a token takes it and passes,
and any other is lost. It is laid over the times at which the first hop's agent read the packets. Such a bucket says of
each packet what becomes of it from what became of those before; packets lost at random no bucket can foretell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from math import exp, lgamma, log

import msgspec

# Fewer packets than this of one kind are no rate.
_FEWEST = 15
# A limit is told by at most so large a share of packets that go against it: times are read with some delay.
_ERRS = 0.12
# If counting ("each third is lost") errs on fewer than this share, it may be a matter of counting.
_COUNTED = 0.1
# What is tried: the rate as a multiple of that at which packets were delivered, the depth in packets.
_RATES = tuple(0.6 + 0.05 * n for n in range(25))
_DEPTHS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 25.0)
# Packets that are alike in all else have to be lost and delivered both, or that is what tells them apart:
# so large a share of them, by whether a limit is known to have taken them.
_MIXED = {False: 0.8, True: 0.5}


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A packet: when it was sent (its first hop's own clock), what it is like, and whether it was lost."""

    at_ns: int
    like: Hashable
    lost: bool


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """Packets a second that were sent, and that passed."""

    passed_pps: float
    sent_pps: float


def limit(packets: Sequence[Sent], *, known: bool, chance: float) -> Limit | None:
    """The rate limit that packets of one first hop met, if it was one.

    Args:
        packets: in the order in which they were sent.
        known: something that limits a rate was seen to take the lost ones. Where it was not, a bucket has to foretell
            what becomes of them, and better than counting does: each n-th lost is no matter of rate.
        chance: packets lost at random may fit a bucket as well only with a smaller probability.
    """
    lost = sum(p.lost for p in packets)
    span_s = (packets[-1].at_ns - packets[0].at_ns) / 1e9 if packets else 0.0
    if min(lost, len(packets) - lost) < _FEWEST or span_s <= 0 or not _is_mixed(packets, _MIXED[known]):
        return None
    sent_pps = (len(packets) - 1) / span_s
    passed_pps = sent_pps * (len(packets) - lost) / len(packets)
    if not known and not _is_foretold(packets, passed_pps, chance):
        return None
    return Limit(passed_pps=passed_pps, sent_pps=sent_pps)


def _is_foretold(packets: Sequence[Sent], passed_pps: float, chance: float) -> bool:
    """Whether a bucket foretells what becomes of packets, where neither chance nor counting would."""
    lost = [p.lost for p in packets]
    errors = int(_ERRS * len(lost)) + 1
    for factor in _RATES:
        for depth in _DEPTHS:
            errors = _bucket_errors(packets, passed_pps * factor, depth, errors)
    if errors > _ERRS * len(lost) or _counting_errors(lost) <= max(2 * errors, _COUNTED * len(lost)):
        return False
    usual = max(sum(lost), len(lost) - sum(lost)) / len(lost)
    tries = len(_RATES) * len(_DEPTHS)
    return tries * _binomial_tail(len(lost), usual, len(lost) - errors) < chance


def _is_mixed(packets: Sequence[Sent], share: float) -> bool:
    """Whether most lost packets, and most delivered ones, are like one that came to the other end."""
    outcomes = Counter((p.like, p.lost) for p in packets)
    for lost in (True, False):
        own = [p for p in packets if p.lost is lost]
        if sum(outcomes[(p.like, not lost)] > 0 for p in own) < share * len(own):
            return False
    return True


def _bucket_errors(packets: Sequence[Sent], rate_pps: float, depth: float, most: int) -> int:
    """How many packets go against a bucket, or `most` if that is fewer.

    What became of each packet is taken over, so that one error brings no other.
    """
    level, before_ns, errors = depth, packets[0].at_ns, 0
    for packet in packets:
        level = min(depth, level + max(0, packet.at_ns - before_ns) / 1e9 * rate_pps)
        before_ns = packet.at_ns
        errors += (level >= 1) == packet.lost
        if errors >= most:
            return most
        level = min(level, 1.0 - 1e-9) if packet.lost else max(level - 1, 0.0)
    return errors


def _counting_errors(lost: Sequence[bool]) -> int:
    """How many packets go against the best rule "each n-th is lost", or "is delivered"."""
    return min(_every_errors([was is kind for was in lost], n) for kind in (True, False) for n in range(2, 12))


def _every_errors(marked: Sequence[bool], every: int) -> int:
    since, errors = 0, 0
    for number, is_marked in enumerate(marked):
        since += 1
        # Where the count stands at the beginning is not known.
        errors += number >= every and (since >= every) != is_marked
        since = 0 if is_marked else since
    return errors


def _binomial_tail(count: int, share: float, at_least: int) -> float:
    """How likely so many or more of independent trials succeed. By logarithms: the binomials are beyond a float."""
    chances = (
        exp(lgamma(count + 1) - lgamma(n + 1) - lgamma(count - n + 1) + n * log(share) + (count - n) * log(1 - share))
        for n in range(at_least, count + 1)
    )
    return min(1.0, sum(chances))
