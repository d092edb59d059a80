"""A frozen base of 4 bits and a scale and offset for 32 weights: five bits a weight.

What QLoRA (Dettmers et al. 2023, arXiv:2305.14314) does for memory: a matrix is dequantised when it
is needed and thrown away. A checkpoint that is stored as Q4_1 is kept exactly as it is; others are
rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.kernels.layout import StoredTensor
from engine.training.bases import Low, LowBack
from engine.training.bases.int16 import rounded
from engine.training.kernels import q4 as kernels
from engine.training.kernels.q4 import BLOCK_BYTES, COLUMNS
from engine.training.ops.team import rows_per_item, run
from engine.training.products import has_quick_bf16, has_quick_int16, times, times_transposed

Tensor = Any

WIDTH = torch.bfloat16 if has_quick_bf16() else torch.float32
IS_LEAN = True
_SLAB = 1024  # rows rounded at a time


@dataclass(frozen=True, slots=True, eq=False)
class Q4:
    """blocks (N, K / 32, BLOCK_BYTES) uint8."""

    blocks: Tensor

    @property
    def n_bytes(self) -> int:
        return int(self.blocks.numel())

    def dequantized(self, room: int = 0) -> Tensor:
        """(N, K + room) of the base's width; what is behind a row is not set."""
        n_rows, n_blocks, _ = self.blocks.shape
        values = torch.empty(n_rows, COLUMNS * n_blocks + room, dtype=WIDTH)
        kernel = kernels.dequantize_2 if WIDTH == torch.bfloat16 else kernels.dequantize_4
        rows = rows_per_item(n_rows)
        stride = values.stride(0) * values.element_size()
        arguments = self.blocks, values, stride, n_blocks, rows, n_rows
        run(kernel, -(-n_rows // rows), *arguments)
        return values

    def product(self, x: Tensor, low: Low | None) -> Tensor:
        if _is_rounded():
            return rounded(self.dequantized()).product(x, low)
        if low is None:
            return times_transposed(x, self.dequantized())
        wide = self.dequantized(low.b.shape[1])
        wide[:, x.shape[1] :] = low.b
        return times_transposed(torch.cat([x, low.z], 1), wide)

    def input_gradient(self, dy: Tensor, low: LowBack | None) -> Tensor:
        if _is_rounded():
            return rounded(self.dequantized()).input_gradient(dy, low)
        dx = times(dy, self.dequantized())
        return dx if low is None else dx.addmm_(low[0], low[1].to(WIDTH))


def _is_rounded() -> bool:
    """Whether what is dequantised is multiplied as int16."""
    return bool(WIDTH == torch.float32) and has_quick_int16()


def freeze(tensors: Sequence[StoredTensor]) -> Q4:
    """ValueError where a row is no whole number of blocks."""
    n_in = tensors[0].shape[1]
    if n_in % COLUMNS:
        raise ValueError(
            f"base q4 packs inputs by {COLUMNS}; {tensors[0].name} has {n_in}; choose int8"
        )
    parts = [_stored(t) if t.kind == "Q4_1" else _rounded(t) for t in tensors]
    return Q4(torch.from_numpy(np.concatenate(parts)))


def _stored(tensor: StoredTensor) -> NDArray[np.uint8]:
    n_rows, n_in = tensor.shape
    return tensor.data.reshape(n_rows, n_in // COLUMNS, BLOCK_BYTES)


def _rounded(tensor: StoredTensor) -> NDArray[np.uint8]:
    n_rows, n_in = tensor.shape
    blocks = np.empty((n_rows, n_in // COLUMNS, BLOCK_BYTES), np.uint8)
    for start in range(0, n_rows, _SLAB):
        rows = slice(start, min(start + _SLAB, n_rows))
        values = tensor.float32(rows.start, rows.stop).reshape(-1, n_in // COLUMNS, COLUMNS)
        low = values.min(axis=2).astype(np.float16)
        offsets = low.astype(np.float32)
        scale = ((values.max(axis=2) - offsets) / 15).astype(np.float16)
        steps = np.where(scale == 0, np.float32(np.inf), scale.astype(np.float32))
        q = np.clip(np.rint((values - offsets[..., None]) / steps[..., None]), 0, 15)
        q = q.astype(np.uint8)
        blocks[rows, :, :4] = np.stack([scale, low], axis=2).view(np.uint8)
        blocks[rows, :, 4:] = q[..., :16] | q[..., 16:] << 4
    return blocks
