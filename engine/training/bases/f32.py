"""A frozen base in float32: exact, and four bytes a weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.kernels.layout import StoredTensor
from engine.training.bases import Low, LowBack
from engine.training.products import times, times_transposed

Tensor = Any

WIDTH = torch.float32


@dataclass(frozen=True, slots=True, eq=False)
class F32:
    """weight (N, K) float32, or of the activations' dtype."""

    weight: Tensor

    @property
    def n_bytes(self) -> int:
        return 4 * int(self.weight.numel())

    def product(self, x: Tensor, low: Low | None) -> Tensor:
        if low is None:
            return times_transposed(x, self.weight)
        if low.a is None or x.dtype != torch.float32:  # bfloat16 would lose b a in W
            return times_transposed(x, self.weight).addmm_(low.z, low.b.t())
        # a pass over the matrix, which is shorter than the product
        return times_transposed(x, torch.addmm(self.weight, low.b, low.a))

    def input_gradient(self, dy: Tensor, low: LowBack | None) -> Tensor:
        dx = times(dy, self.weight)
        return dx if low is None else dx.addmm_(low[0], low[1].to(dx.dtype))


def freeze(tensors: Sequence[StoredTensor]) -> F32:
    """The values as they are stored, dequantised."""
    return F32(torch.from_numpy(np.concatenate([t.float32(0, t.shape[0]) for t in tensors])))
