"""The key-value cache of a conversation, which remembers the token ids that it holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.config import DecoderConfig

_FIRST_CAPACITY = 512
BLOCK = 16  # slots


class KVCache:
    """Keys and values of the tokens seen so far.

    values   float32 (n_layers, n_kv_heads, capacity, width): slot i holds token_ids[i]; width is
             head_dim rounded up to 16, the rest zero
    keys     float32 (n_layers, n_kv_heads, capacity / 16, width, 16): rotated, in blocks of 16
             slots
    Slots beyond len(token_ids) are scratch: beams branch there.
    """

    def __init__(self, config: DecoderConfig) -> None:
        self.width = -(-config.head_dim // 16) * 16
        self._heads = (config.n_layers, config.n_kv_heads)
        self.token_ids: list[int] = []
        self.keys, self.values = self._empty(0)

    def _empty(self, capacity: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        # zeros: the padding of each row must be; the system commits pages when they are used
        keys = np.zeros((*self._heads, capacity // BLOCK, self.width, BLOCK), np.float32)
        return keys, np.zeros((*self._heads, capacity, self.width), np.float32)

    @property
    def capacity(self) -> int:
        """How many slots there is room for."""
        return int(self.values.shape[2])

    def reserve(self, n_slots: int) -> None:
        """Make room for n_slots; existing slots are kept."""
        if n_slots <= self.capacity:
            return
        capacity = max(_FIRST_CAPACITY, 2 * self.capacity, -(-n_slots // BLOCK) * BLOCK)
        keys, values = self._empty(capacity)
        keys[:, :, : self.keys.shape[2]] = self.keys
        values[:, :, : self.capacity] = self.values
        self.keys, self.values = keys, values

    def common_prefix(self, token_ids: Sequence[int]) -> int:
        """How many leading ids are in the cache already."""
        n = 0
        for ours, theirs in zip(self.token_ids, token_ids, strict=False):
            if ours != theirs:
                break
            n += 1
        return n

    def truncate(self, n_tokens: int) -> None:
        """Forget all but the first n_tokens."""
        del self.token_ids[n_tokens:]

    def adopt(self, path: Sequence[int], token_ids: Sequence[int]) -> None:
        """Append token_ids, whose rows lie in the slots of `path`: a branch that was chosen."""
        first = len(self.token_ids)
        last = first + len(path)
        self.reserve(last)
        source, target = np.asarray(path, np.int64), np.arange(first, last)
        self.values[:, :, target] = self.values[:, :, source]
        blocks, lanes = divmod(target, BLOCK)
        self.keys[:, :, blocks, :, lanes] = self.keys[:, :, source // BLOCK, :, source % BLOCK]
        self.token_ids.extend(token_ids)
