"""Inputs near valid ones: parts flipped, cut, repeated, or taken from elsewhere."""

from __future__ import annotations

import random
from collections.abc import Sequence

from fuzzing import Target
from hypothesis import strategies as st

# An edit: which kind, where (a share of the length, in 1/65536), how much, and a word or byte by its number.
Edit = tuple[int, int, int, int]
_KINDS = 8
_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)


def mutated(seed: bytes, edits: Sequence[Edit], words: Sequence[bytes], other: bytes, most_bytes: int) -> bytes:
    """A seed after some edits."""
    data = bytearray(seed)
    for kind, where, amount, number in edits:
        at = where * len(data) >> 16
        if kind == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << number % 8
        elif kind == 1 and data:
            data[min(at, len(data) - 1)] = _INTERESTING[number % len(_INTERESTING)]
        elif kind == 2:
            del data[at : at + amount]
        elif kind == 3:
            data[at:at] = words[number % len(words)]
        elif kind == 4:
            data[at:at] = data[at : at + amount] * (1 + number % 4)
        elif kind == 5:
            begin = number * len(other) >> 8
            data[at : at + amount] = other[begin : begin + amount]
        elif kind == 6:
            word = words[number % len(words)]
            data[at : at + len(word)] = word
        elif kind == 7:
            del data[at:]
    return bytes(data[:most_bytes])


def strategy(target: Target) -> st.SearchStrategy[bytes]:
    """Inputs of a target; a shrunk one has few edits."""
    inputs = target.inputs()
    edit = st.tuples(st.integers(0, _KINDS - 1), st.integers(0, 0xFFFF), st.integers(1, 64), st.integers(0, 255))
    return st.builds(
        mutated,
        st.sampled_from(inputs),
        st.lists(edit, max_size=8),
        st.just(target.words),
        st.sampled_from(inputs),
        st.just(target.most_bytes),
    )


def drawn(target: Target, chance: random.Random) -> bytes:
    """One by chance."""
    inputs = target.inputs()
    edits = [
        (chance.randrange(_KINDS), chance.randrange(1 << 16), chance.randrange(1, 65), chance.randrange(256))
        for _ in range(chance.randrange(9))
    ]
    return mutated(chance.choice(inputs), edits, target.words, chance.choice(inputs), target.most_bytes)
