"""silu(gate) * up. Letters: T tokens, F intermediate_size."""

from __future__ import annotations

from typing import Any

import torch

from engine.training.kernels import swiglu as kernels
from engine.training.ops.team import rows_per_item, run

Tensor = Any


def swiglu(both: Tensor) -> Tensor:
    """both (T, 2 F), gates before ups, float32 or bfloat16 -> (T, F)."""
    return _Swiglu.apply(both)


class _Swiglu(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        n_rows, width, rows = len(both), both.shape[1] // 2, rows_per_item(len(both))
        h = torch.empty(n_rows, width, dtype=both.dtype)
        kernel = kernels.forward_2 if both.dtype == torch.bfloat16 else kernels.forward_4
        run(kernel, -(-n_rows // rows), both, h, n_rows, width, rows)
        return h

    @staticmethod
    def backward(ctx: Any, dh: Tensor) -> Tensor:
        (both,) = ctx.saved_tensors
        n_rows, width, rows = len(both), both.shape[1] // 2, rows_per_item(len(both))
        d_both = torch.empty_like(both)
        kernel = kernels.backward_2 if both.dtype == torch.bfloat16 else kernels.backward_4
        dh = dh.contiguous()
        run(kernel, -(-n_rows // rows), both, dh, d_both, n_rows, width, rows)
        return d_both
