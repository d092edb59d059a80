"""Rows of activations to int8, and products of int8 back. T tokens, N and K sizes of a row.

The kernels take rows of whole vectors; those of other sizes, which no model of use has, go through
torch's operations.
"""

from __future__ import annotations

from typing import Any

import torch

from engine.training.kernels import int8 as kernels
from engine.training.kernels import rounding, tile
from engine.training.kernels.rounding import FINE
from engine.training.ops.team import rows_per_item, run

Tensor = Any

MOST = 127  # the largest |q| of a row


def quantize(x: Tensor, factors: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """x (T, N), times factors (N,) -> (T, N) int8 and what to multiply each row with, (T,)."""
    q, _, scales = _quantized(x, factors, False)
    return q, scales


def quantize_finely(x: Tensor, factors: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The same and the rest, int8 too: value = scale * (q + rest / 254)."""
    return _quantized(x, factors, True)


def _quantized(x: Tensor, factors: Tensor | None, fine: bool) -> tuple[Tensor, Any, Tensor]:
    n_rows, width = x.shape
    if width % tile.COLUMNS:
        return _quantized_plainly(x, factors, fine)
    rows = rows_per_item(n_rows)
    q, scales = torch.empty(n_rows, width, dtype=torch.int8), torch.empty(n_rows)
    rest = torch.empty_like(q) if fine else None
    kernel = rounding.int8_of_2 if x.dtype == torch.bfloat16 else rounding.int8_of_4
    arguments = x.contiguous(), factors, q, rest, scales, MOST, n_rows, width, rows
    run(kernel, -(-n_rows // rows), *arguments)
    return q, rest, scales


def dequantize(
    sums: Tensor,
    fine: Tensor | None,
    scales: Tensor,
    factors: Tensor | None,
    low: tuple[Tensor, Tensor] | None,
    width: Any,
) -> Tensor:
    """(sums + fine / 254) * scales * factors + z b, in the dtype `width`.

    sums (T, N) int32, fine the same or None, scales (T,), factors (N,) or None for 1
    low  z (T, R) of dtype `width`, b (R, N) float32; R a multiple of 16
    """
    n_rows, n = sums.shape
    if n % tile.COLUMNS:
        return _dequantized_plainly(sums, fine, scales, factors, low, width)
    z, b = (None, None) if low is None else low
    rank = 0 if b is None else len(b)
    y = torch.empty(n_rows, n, dtype=width)
    scratch = torch.empty(torch.get_num_threads() * tile.ROWS * (rank + n))
    kernel = kernels.dequantize_2 if width == torch.bfloat16 else kernels.dequantize_4
    stride = 0 if z is None else z.stride(0) * z.element_size()
    n_items = -(-n_rows // tile.ROWS)
    arguments = sums, fine, scales, factors, y, z, stride, b, rank, n_rows, n, scratch
    run(kernel, n_items, *arguments)
    return y


def _quantized_plainly(x: Tensor, factors: Tensor | None, fine: bool) -> tuple[Tensor, Any, Tensor]:
    values = x.float() if factors is None else x.float() * factors
    scales = values.abs().amax(1) / MOST
    steps = values / scales.clamp_min(1e-30)[:, None]
    q = steps.round()
    rest = ((steps - q) * FINE).round().to(torch.int8) if fine else None
    return q.to(torch.int8), rest, scales


def _dequantized_plainly(
    sums: Tensor,
    fine: Tensor | None,
    scales: Tensor,
    factors: Tensor | None,
    low: tuple[Tensor, Tensor] | None,
    width: Any,
) -> Tensor:
    values = sums.float() if fine is None else sums.float() + fine.float() / FINE
    y = values * scales[:, None]
    if factors is not None:
        y *= factors
    if low is not None:
        y += low[0].float() @ low[1]
    return y.to(width)
