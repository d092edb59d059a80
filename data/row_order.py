"""Shuffling without memory: the n-th row of an epoch is computed, so an epoch can begin anywhere.

A permutation of [0, n) is a Feistel network over the smallest square of a power of two that holds
n numbers; a result beyond n goes through it again until it falls inside ("cycle walking",
https://en.wikipedia.org/wiki/Format-preserving_encryption), 4 times on average at worst.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate

_ROUNDS = 6
_MASK = (1 << 64) - 1


class Permutation:
    """A shuffled [0, n), the same for the same `key`; `permutation[i]` takes microseconds."""

    def __init__(self, n: int, *key: object) -> None:
        self.n = n
        self._half_bits = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
        text = repr(key).encode()
        self._keys = [
            int.from_bytes(blake2b(text, digest_size=8, salt=bytes([number])).digest(), "little")
            for number in range(_ROUNDS)
        ]

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.n:
            raise IndexError(f"{index} is not in [0, {self.n})")
        half_bits = self._half_bits
        half_mask = (1 << half_bits) - 1
        while True:
            left, right = index >> half_bits, index & half_mask
            for key in self._keys:
                left, right = right, left ^ (_mixed(right, key) & half_mask)
            index = left << half_bits | right
            if index < self.n:
                return index


def _mixed(value: int, key: int) -> int:
    """64 bits of which each depends on all of value and key (the finish of SplitMix64)."""
    value = (value + key) & _MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
    return value ^ value >> 31


class Draws:
    """Which row stands where in each epoch.

    sizes    rows of each source, all above 0
    weights  None: an epoch is every row once. Otherwise it has as many rows in all, drawn from the
             sources in these proportions; what an epoch leaves of a source comes in the next one,
             and a source that is used up begins again in another order
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float] | None, seed: int) -> None:
        self.sizes = list(sizes)
        self.n_rows = sum(sizes)
        self._seed = int(seed)
        self.shares = self.sizes if weights is None else _apportioned(self.n_rows, weights)
        self._ends = list(accumulate(self.shares))
        self._known: dict[tuple[object, ...], Permutation] = {}

    def at(self, epoch: int, position: int) -> tuple[int, int]:
        """(source, row of it) at `position` of `epoch`."""
        slot = self._permutation("slots", epoch, self.n_rows)[position]
        source = bisect_right(self._ends, slot)
        share, size = self.shares[source], self.sizes[source]
        n_drawn = epoch * share + slot - (self._ends[source] - share)
        n_times, index = divmod(n_drawn, size)
        return source, self._permutation(source, n_times, size)[index]

    def _permutation(self, name: object, number: int, n: int) -> Permutation:
        key = (name, number)
        if key not in self._known:
            if len(self._known) > 4 * len(self.sizes) + 4:
                self._known.clear()
            self._known[key] = Permutation(n, self._seed, name, number)
        return self._known[key]


def _apportioned(n: int, weights: Sequence[float]) -> list[int]:
    """n in parts proportional to the weights, at least 1 each and n in all."""
    total = sum(weights)
    exact = [n * weight / total for weight in weights]
    parts = [int(part) for part in exact]
    by_rest = sorted(range(len(weights)), key=lambda i: parts[i] - exact[i])
    for i in by_rest[: n - sum(parts)]:
        parts[i] += 1
    while (smallest := min(parts)) == 0:
        parts[parts.index(max(parts))] -= 1
        parts[parts.index(smallest)] = 1
    return parts
