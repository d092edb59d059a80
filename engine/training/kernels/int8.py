"""Products of int8 back to activations. Items are runs of rows."""

from __future__ import annotations

import numpy as np

from engine.kernels import simd
from engine.kernels.compiler import callback, kernel
from engine.training.kernels import tile, widths
from engine.training.kernels.rounding import FINE
from engine.training.kernels.tasks import TASK, claim, thread_number, whole

F = np.float32


@kernel
def _dequantize(load, store, size, block):
    """sums (T, N) int32 * scales (T,) * factors (N,) or 0 + z (T, R) b (R, N) -> y (T, N).

    fine (T, N) int32 or 0: the sums of the second bytes.  z: activations with z_stride bytes a
    row, b: float32, R may be 0.  scratch: ROWS (R + N) float32 a thread.
    """
    sums, fine, scales, factors, y = (
        whole(block, 0), whole(block, 1), whole(block, 2), whole(block, 3), whole(block, 4),
    )  # fmt: skip
    z, z_stride, b, rank = whole(block, 5), whole(block, 6), whole(block, 7), whole(block, 8)
    n_rows, width, scratch = whole(block, 9), whole(block, 10), whole(block, 11)
    wide = 4 * (rank + width)
    left = scratch + tile.ROWS * wide * thread_number(block)
    extra = left + 4 * tile.ROWS * rank
    item = claim(block)
    while item >= 0:
        first = tile.ROWS * item
        last = min(first + tile.ROWS, n_rows)
        if rank:
            for row in range(first, last):
                for i in range(0, rank, 16):
                    value = load(z + z_stride * row + size * i)
                    simd.store_f32(left + 4 * (rank * (row - first) + i), value)
            for j in range(0, width, tile.COLUMNS):
                tile.tile(left, 4 * rank, 4, rank, b + 4 * j, 4 * width, extra + 4 * j, 4 * width)
        for row in range(first, last):
            scale = simd.splat(simd.get_f32(scales + 4 * row))
            for i in range(0, width, 16):
                at = 4 * (width * row + i)
                value = simd.to_f32(simd.load_i32(sums + at))
                if fine != 0:
                    rest = simd.to_f32(simd.load_i32(fine + at))
                    value = simd.fma(rest, simd.splat(F(1) / FINE), value)
                value = simd.mul(value, scale)
                if factors != 0:
                    value = simd.mul(value, simd.load_f32(factors + 4 * i))
                if rank:
                    more = simd.load_f32(extra + 4 * (width * (row - first) + i))
                    value = simd.add(value, more)
                store(y + size * (width * row + i), value)
        item = claim(block)


@callback(TASK)
def dequantize_4(block):
    _dequantize(widths.load_4, widths.store_4, 4, block)


@callback(TASK)
def dequantize_2(block):
    _dequantize(widths.load_2, widths.store_2, 2, block)
