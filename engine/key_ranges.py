"""Ranges of a cache's keys, kept up beside them: see engine/kernels/ranges.py."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.kernels.listed import BLOCK
from engine.kernels.ranges import GROUP, group_bytes, range_heads
from engine.kv_formats import listed_kernels


class KeyRanges:
    """Of each block of 16 slots that tokens have filled; a sixteenth of the cache's bytes in f16.

    data      uint8 (n_layers, n_kv_heads, groups, bytes of a group)
    n_blocks  the first so many blocks are measured. A block that is given up (forget) is measured
              anew when it is full again, whatever was written to it meanwhile.
    """

    def __init__(self, format_name: str, n_layers: int, n_kv_heads: int, width: int) -> None:
        self._measure = listed_kernels(format_name).measure.address
        self._width = width
        self.n_blocks = 0
        self.data: NDArray[np.uint8] = np.zeros(
            (n_layers, n_kv_heads, 0, group_bytes(width)), np.uint8
        )

    def update(self, cache: NDArray[np.uint8], n_tokens: int) -> None:
        """Measure the blocks that the first n_tokens of the cache's data fill."""
        n_blocks = n_tokens // BLOCK
        if n_blocks <= self.n_blocks:
            return
        n_groups = -(-n_blocks // GROUP)
        if n_groups > self.data.shape[2]:
            # as the cache grows
            wider = np.zeros((*self.data.shape[:2], 2 * n_groups, self.data.shape[3]), np.uint8)
            wider[:, :, : self.data.shape[2]] = self.data
            self.data = wider
        range_heads(self._measure, cache, self._width, self.n_blocks, n_blocks, self.data)
        self.n_blocks = n_blocks

    @property
    def n_bytes(self) -> int:
        """Of the blocks measured so far."""
        n_layers, n_kv_heads, _, n_bytes = self.data.shape
        return int(n_layers * n_kv_heads * n_bytes * self.n_blocks // GROUP)

    def forget(self, n_tokens: int) -> None:
        """Only the first n_tokens of the cache stay."""
        self.n_blocks = min(self.n_blocks, n_tokens // BLOCK)
