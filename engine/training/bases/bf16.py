"""A frozen base in bfloat16: two bytes a weight, three where gradients go through int8.

For CPUs with quick products of bfloat16 (AMX, AVX512-BF16 of Zen 4 and 5): exact enough that the
loss of a batch changes by 0.0003. Gradients are products of bfloat16 with AMX, where those are as
quick as int8's and need no pass over activations before and after; elsewhere of int8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.kernels.layout import StoredTensor
from engine.training.bases import Low, LowBack
from engine.training.bases._int8 import Int8, to_int8
from engine.training.bases.f32 import F32
from engine.training.products import has_amx

Tensor = Any

WIDTH = torch.bfloat16
ROUNDS = True


@dataclass(slots=True, eq=False)
class Bf16:
    """weight (N, K) bfloat16; wide (N, K + R): the same with the adapters' b behind each row."""

    weight: Tensor
    back: Int8 | None
    wide: Tensor | None = None

    @property
    def n_bytes(self) -> int:
        kept = self.weight if self.wide is None else self.wide
        return 2 * int(kept.numel()) + (self.back.n_bytes if self.back else 0)

    def product(self, x: Tensor, low: Low | None) -> Tensor:
        """One product for both: the sum is rounded to bfloat16 once, or small changes get lost."""
        if low is None:
            return x @ self.weight.t()
        n_in = x.shape[1]
        if self.wide is None or self.wide.shape[1] != n_in + low.b.shape[1]:
            self.wide = torch.cat([self.weight, low.b], 1)
            self.weight = self.wide[:, :n_in]
        self.wide[:, n_in:] = low.b
        return torch.cat([x, low.z], 1) @ self.wide.t()

    def input_gradient(self, dy: Tensor, low: LowBack | None) -> Tensor:
        back = self.back or F32(self.weight)
        return back.input_gradient(dy, low)


def freeze(tensors: Sequence[StoredTensor]) -> Bf16:
    """Rounded to the nearest bfloat16."""
    weight = np.concatenate([t.float32(0, t.shape[0]) for t in tensors])
    back = None if has_amx() else to_int8(tensors)
    return Bf16(torch.from_numpy(weight).bfloat16(), back)
