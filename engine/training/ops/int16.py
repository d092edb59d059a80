"""Products of float32 by int16: both sides are rounded, the sums are exact.

Letters: T tokens, K numbers of a row that goes in, N of one that comes out, R the adapters' ranks.
K and N are multiples of 16 (`fits`).
"""

from __future__ import annotations

from typing import Any

import torch

from engine.training.kernels import int16 as kernels
from engine.training.kernels import rounding
from engine.training.kernels.int16 import COLUMNS, MOST, ROWS
from engine.training.ops.team import rows_per_item, run

Tensor = Any

_RUN = 8 * ROWS  # rows that share a panel while it is in the cache


def fits(*sizes: int) -> bool:
    """Whether the kernels take rows of these sizes."""
    return not any(size % COLUMNS for size in sizes)


def quantize(x: Tensor, factors: Tensor | None = None, most: int = MOST) -> tuple[Tensor, Tensor]:
    """x (T, N) float32, times factors (N,) -> (T, N) int16 and what to multiply each row with."""
    n_rows, width = x.shape
    rows = rows_per_item(n_rows)
    q, scales = torch.empty(n_rows, width, dtype=torch.int16), torch.empty(n_rows)
    arguments = x.contiguous(), factors, q, None, scales, most, n_rows, width, rows
    run(rounding.int16_of_4, -(-n_rows // rows), *arguments)
    return q, scales


def panels_of_rows(q: Tensor) -> Tensor:
    """q (N, K) int16 laid out for x qᵀ."""
    n_out, n_in = q.shape
    panels = torch.empty_like(q)
    run(kernels.lay_rows, n_out // COLUMNS, q, panels, n_in)
    return panels


def panels_of_columns(q: Tensor) -> Tensor:
    """q (N, K) int16 laid out for y q."""
    n_out, n_in = q.shape
    panels = torch.empty(n_in, n_out, dtype=torch.int16)
    pairs = rows_per_item(n_out // 2)
    run(kernels.lay_columns, -(-n_out // (2 * pairs)), q, panels, n_out, n_in, pairs)
    return panels


def multiply(
    x: Tensor,
    before: Tensor | None,
    panels: Tensor,
    after: Tensor | None,
    low: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """(x * before) times a matrix (K, N), * after, + z b -> (T, N) float32.

    x (T, K) float32; before (K,) and after (N,), None for 1; panels the matrix, laid out
    low  z (T, R) and b (R, N), float32
    """
    q, scales = quantize(x, before)
    (n_rows, n_in), n_out = x.shape, len(panels)
    z, b, rank, stride = None, None, 0, 0
    if low is not None:
        z, b = low
        rank, stride = len(b), 4 * z.stride(0)
        b = b.reshape(rank, -1, COLUMNS).transpose(0, 1).contiguous()
    y = torch.empty(n_rows, n_out)
    scratch = torch.empty(torch.get_num_threads() * 2 * kernels.TILE // 4)
    arguments = q, scales, panels, after, y, z, stride, b, rank, n_rows, n_in, n_out, _RUN, scratch
    run(kernels.multiply, -(-n_rows // _RUN), *arguments)
    return y
