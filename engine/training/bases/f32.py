"""A frozen base in float32: exact, and four bytes a weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.kernels.layout import StoredTensor
from engine.training.bases import Low
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
        y = times_transposed(x, self.weight)
        return y if low is None else y.addmm_(low[0], low[1].t())

    def input_gradient(self, dy: Tensor, low: Low | None) -> Tensor:
        dx = times(dy, self.weight)
        return dx if low is None else dx.addmm_(low[0], low[1].to(dx.dtype))


def freeze(tensors: Sequence[StoredTensor]) -> F32:
    """The values as they are stored, dequantised."""
    return F32(torch.from_numpy(np.concatenate([t.float32(0, t.shape[0]) for t in tensors])))
