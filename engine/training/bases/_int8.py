"""A matrix of int8, one scale a row, and its input gradient: what int8 is good enough for.

The gradient of a step through int8 has a cosine of 0.999 with the exact one; products of int8 are
four times as quick as those of float32 where the CPU has them (VNNI). Where it has none, a matrix
is widened when it is needed and thrown away: the speed of float32 and a quarter of its memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.kernels.layout import StoredTensor
from engine.training.bases import Low
from engine.training.ops.int8 import dequantize, quantize, quantize_finely
from engine.training.products import has_quick_int8, times, times_transposed

Tensor = Any

_SLAB = 1024  # rows dequantised at a time


@dataclass(frozen=True, slots=True, eq=False)
class Int8:
    """W = scales[:, None] * q; q (N, K) int8, scales (N,) float32."""

    q: Tensor
    scales: Tensor

    @property
    def n_bytes(self) -> int:
        return int(self.q.numel()) + 4 * len(self.scales)

    def product(self, x: Tensor, low: Low | None) -> Tensor:
        """Activations in 16 bits: in 8, outliers cost too much (cosine 0.96, not 0.994)."""
        if not has_quick_int8():
            y = times_transposed(x, self._widened(x.dtype))
            return y if low is None else y.addmm_(low[0], low[1].to(x.dtype).t())
        q, rest, scales = quantize_finely(x)
        sums, fine = torch._int_mm(q, self.q.t()), torch._int_mm(rest, self.q.t())
        return dequantize(sums, fine, scales, self.scales, _transposed(low), x.dtype)

    def input_gradient(self, dy: Tensor, low: Low | None) -> Tensor:
        if not has_quick_int8():
            dx = times(dy, self._widened(dy.dtype))
            return dx if low is None else dx.addmm_(low[0], low[1].to(dy.dtype))
        q, scales = quantize(dy, self.scales)
        return dequantize(torch._int_mm(q, self.q), None, scales, None, low, dy.dtype)

    def _widened(self, width: Any) -> Tensor:
        """(N, K) of the dtype `width`."""
        return self.q.float().mul_(self.scales[:, None]).to(width)


def _transposed(low: Low | None) -> Low | None:
    return None if low is None else (low[0], low[1].float().t().contiguous())


def to_int8(tensors: Sequence[StoredTensor]) -> Int8:
    """Each row's largest value becomes 127."""
    n_out = sum(tensor.shape[0] for tensor in tensors)
    q, scales = np.empty((n_out, tensors[0].shape[1]), np.int8), np.empty(n_out, np.float32)
    at = 0
    for tensor in tensors:
        for start in range(0, tensor.shape[0], _SLAB):
            values = tensor.float32(start, min(start + _SLAB, tensor.shape[0]))
            rows = slice(at, at + len(values))
            scales[rows] = np.abs(values).max(axis=1) / np.float32(127)
            steps = np.where(scales[rows] == 0, np.float32(1), scales[rows])
            q[rows] = np.rint(values / steps[:, None])
            at = rows.stop
    return Int8(torch.from_numpy(q), torch.from_numpy(scales))
