"""RMS norm of the residual stream, with the addition that comes before it.

Letters: T tokens, E hidden_size.
"""

from __future__ import annotations

from typing import Any

import torch

from engine.training.kernels import norm as kernels
from engine.training.ops.team import rows_per_item, run

Tensor = Any


def rms_norm(x: Tensor, weight: Tensor, eps: float, width: Any) -> Tensor:
    """x (T, E) float32 over the root of its mean square, times weight (E,), of dtype `width`."""
    return _Norm.apply(x, weight, eps, width)


def add_rms_norm(x: Tensor, y: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + y, float32, and its RMS norm in y's dtype. x (T, E) float32, y float32 or bfloat16."""
    total, normed = _AddNorm.apply(x, y, weight, eps)
    return total, normed


def _forward(x: Tensor, y: Tensor | None, weight: Tensor, eps: float, width: Any) -> Any:
    n_rows, size = x.shape
    normed = torch.empty(n_rows, size, dtype=width)
    total = x if y is None else torch.empty_like(x)
    scales = torch.empty(n_rows)
    kernel = kernels.forward_2 if width == torch.bfloat16 else kernels.forward_4
    rows = rows_per_item(n_rows)
    arguments = x, y, weight, total, normed, scales, n_rows, size, rows, float(eps)
    run(kernel, -(-n_rows // rows), *arguments)
    return total, normed, scales


def _backward(ctx: Any, d_normed: Tensor, d_total: Tensor | None, needs_y: bool) -> Any:
    """(gradient of x, of y, of the weight), the second None where y's is the first itself."""
    total, weight, scales = ctx.saved_tensors
    n_rows, size = total.shape
    rows = rows_per_item(n_rows)
    n_items = -(-n_rows // rows)
    narrow = d_normed.dtype == torch.bfloat16
    dx = torch.empty_like(total)
    dy = torch.empty_like(d_normed) if needs_y and narrow else None
    d_weight = torch.empty(n_items, size) if ctx.needs_input_grad[ctx.weight_at] else None
    kernel = kernels.backward_2 if narrow else kernels.backward_4
    d_normed = d_normed.contiguous()
    arguments = d_normed, d_total, total, weight, scales, dx, dy, d_weight, n_rows, size, rows
    run(kernel, n_items, *arguments)
    return dx, dx if dy is None else dy, None if d_weight is None else d_weight.sum(0)


class _Norm(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, width: Any) -> Tensor:
        _, normed, scales = _forward(x, None, weight, eps, width)
        ctx.save_for_backward(x, weight, scales)
        ctx.weight_at = 1
        return normed

    @staticmethod
    def backward(ctx: Any, d_normed: Tensor) -> tuple[Any, ...]:
        dx, _, d_weight = _backward(ctx, d_normed, None, False)
        return dx, d_weight, None, None


class _AddNorm(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        total, normed, scales = _forward(x, y, weight, eps, y.dtype)
        ctx.save_for_backward(total, weight, scales)
        ctx.weight_at = 2
        return total, normed

    @staticmethod
    def backward(ctx: Any, d_total: Tensor, d_normed: Tensor) -> tuple[Any, ...]:
        dx, dy, d_weight = _backward(ctx, d_normed, d_total.contiguous(), ctx.needs_input_grad[1])
        return dx, dy, d_weight, None
