"""RMS norm with the addition before it, and the way back.

The residual stream is float32; what a sublayer adds to it, and what the next one reads, has the
width of activations. Items are runs of rows.
"""

from __future__ import annotations

import numpy as np

from engine.kernels import simd
from engine.kernels.compiler import callback, kernel
from engine.training.kernels import widths
from engine.training.kernels.tasks import TASK, claim, real, whole

F = np.float32


@kernel
def _forward(load, store, size, block):
    """x (T, E), y (T, E) or 0, weight (E,) -> total = x + y (0: y is 0), normed, scales (T,)."""
    x, y, weight, total, normed, scales = (
        whole(block, 0), whole(block, 1), whole(block, 2), whole(block, 3), whole(block, 4),
        whole(block, 5),
    )  # fmt: skip
    n_rows, width, run, eps = whole(block, 6), whole(block, 7), whole(block, 8), real(block, 9)
    item = claim(block)
    while item >= 0:
        for row in range(run * item, min(run * (item + 1), n_rows)):
            at, out = x + 4 * width * row, normed + size * width * row
            squares = simd.zero_f32()
            if y != 0:
                added, sums = y + size * width * row, total + 4 * width * row
                for i in range(0, width, 16):
                    value = simd.add(simd.load_f32(at + 4 * i), load(added + size * i))
                    simd.store_f32(sums + 4 * i, value)
                    squares = simd.fma(value, value, squares)
                at = sums
            else:
                for i in range(0, width, 16):
                    value = simd.load_f32(at + 4 * i)
                    squares = simd.fma(value, value, squares)
            scale = F(1) / np.sqrt(simd.sum_lanes(squares) / F(width) + eps)
            simd.set_f32(scales + 4 * row, scale)
            for i in range(0, width, 16):
                value = simd.mul(simd.load_f32(at + 4 * i), simd.splat(scale))
                store(out + size * i, simd.mul(value, simd.load_f32(weight + 4 * i)))
        item = claim(block)


@kernel
def _backward(load, store, size, block):
    """d_normed (T, E), d_total (T, E) float32 or 0, x + y, weight, scales -> d_total's own
    gradient: dx (T, E) float32, dy (T, E) or 0, and d_weight (items, E) or 0, to be summed."""
    d_normed, d_total, total, weight, scales = (
        whole(block, 0), whole(block, 1), whole(block, 2), whole(block, 3), whole(block, 4),
    )  # fmt: skip
    dx, dy, d_weight = whole(block, 5), whole(block, 6), whole(block, 7)
    n_rows, width, run = whole(block, 8), whole(block, 9), whole(block, 10)
    item = claim(block)
    while item >= 0:
        sums = d_weight + 4 * width * item
        if d_weight != 0:
            for i in range(0, width, 16):
                simd.store_f32(sums + 4 * i, simd.zero_f32())
        for row in range(run * item, min(run * (item + 1), n_rows)):
            dn, x = d_normed + size * width * row, total + 4 * width * row
            scale = simd.get_f32(scales + 4 * row)
            dot = simd.zero_f32()
            for i in range(0, width, 16):
                value = simd.mul(load(dn + size * i), simd.load_f32(x + 4 * i))
                if d_weight != 0:
                    present = simd.load_f32(sums + 4 * i)
                    simd.store_f32(sums + 4 * i, simd.fma(value, simd.splat(scale), present))
                dot = simd.fma(value, simd.load_f32(weight + 4 * i), dot)
            back = simd.splat(-simd.sum_lanes(dot) * scale * scale * scale / F(width))
            for i in range(0, width, 16):
                value = simd.mul(load(dn + size * i), simd.load_f32(weight + 4 * i))
                value = simd.mul(value, simd.splat(scale))
                value = simd.fma(simd.load_f32(x + 4 * i), back, value)
                if d_total != 0:
                    value = simd.add(value, simd.load_f32(d_total + 4 * (width * row + i)))
                simd.store_f32(dx + 4 * (width * row + i), value)
                if dy != 0:
                    store(dy + size * (width * row + i), value)
        item = claim(block)


@callback(TASK)
def forward_4(block):
    _forward(widths.load_4, widths.store_4, 4, block)


@callback(TASK)
def forward_2(block):
    _forward(widths.load_2, widths.store_2, 2, block)


@callback(TASK)
def backward_4(block):
    _backward(widths.load_4, widths.store_4, 4, block)


@callback(TASK)
def backward_2(block):
    _backward(widths.load_2, widths.store_2, 2, block)
