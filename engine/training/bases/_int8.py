"""A matrix of int8, one scale a row, and its input gradient: what int8 is good enough for.

The gradient of a step through int8 has a cosine of 0.999 with the exact one; products of int8 are
four times as quick as those of float32 where the CPU has them (VNNI). Where it has none, a matrix
is widened when it is needed and thrown away, to what is quickest there: its speed, and less memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.kernels.layout import StoredTensor
from engine.training.bases import FrozenMatrix, Low, LowBack
from engine.training.bases.f32 import F32
from engine.training.bases.int16 import Int16
from engine.training.ops.int8 import dequantize, quantize, quantize_finely
from engine.training.ops.int16 import fits
from engine.training.products import has_quick_int8, has_quick_int16

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
        q, rest, scales = quantize_finely(x)
        sums, fine = torch._int_mm(q, self.q.t()), torch._int_mm(rest, self.q.t())
        return dequantize(sums, fine, scales, self.scales, _transposed(low), x.dtype)

    def input_gradient(self, dy: Tensor, low: LowBack | None) -> Tensor:
        q, scales = quantize(dy, self.scales)
        return dequantize(torch._int_mm(q, self.q), None, scales, None, low, dy.dtype)


class WidenedInt8(Int8):
    """The same where the CPU has no quick products of int8: widened when it is needed."""

    def product(self, x: Tensor, low: Low | None) -> Tensor:
        return self._wide(x.dtype).product(x, low)

    def input_gradient(self, dy: Tensor, low: LowBack | None) -> Tensor:
        return self._wide(dy.dtype).input_gradient(dy, low)

    def _wide(self, width: Any) -> FrozenMatrix:
        """Thrown away by the caller."""
        if width == torch.float32 and has_quick_int16() and fits(*self.q.shape):
            return Int16(self.q.to(torch.int16), self.scales)
        return F32(self.q.float().mul_(self.scales[:, None]).to(width))


def _transposed(low: Low | None) -> tuple[Tensor, Tensor] | None:
    return None if low is None else (low.z, low.b.float().t().contiguous())


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
    kind = Int8 if has_quick_int8() else WidenedInt8
    return kind(torch.from_numpy(q), torch.from_numpy(scales))
