"""silu(gate) * up of a gated feed-forward, and the way back. Items are runs of rows."""

from __future__ import annotations

import numpy as np

from engine.kernels import simd
from engine.kernels.activations import sigmoid
from engine.kernels.compiler import callback, kernel
from engine.training.kernels import widths
from engine.training.kernels.tasks import TASK, claim, whole

F = np.float32


@kernel
def _forward(load, store, size, block):
    """both (T, 2 F): gates, then ups -> h (T, F)."""
    both, h, n_rows, width, run = (
        whole(block, 0), whole(block, 1), whole(block, 2), whole(block, 3), whole(block, 4),
    )  # fmt: skip
    item = claim(block)
    while item >= 0:
        for row in range(run * item, min(run * (item + 1), n_rows)):
            gate, out = both + 2 * size * width * row, h + size * width * row
            for i in range(0, size * width, 16 * size):
                g, u = load(gate + i), load(gate + size * width + i)
                store(out + i, simd.mul(simd.mul(g, sigmoid(g)), u))
        item = claim(block)


@kernel
def _backward(load, store, size, block):
    """both (T, 2 F), dh (T, F) -> d_both (T, 2 F), may be `both` itself."""
    both, dh, d_both, n_rows, width, run = (
        whole(block, 0), whole(block, 1), whole(block, 2), whole(block, 3), whole(block, 4),
        whole(block, 5),
    )  # fmt: skip
    one = simd.splat(F(1))
    item = claim(block)
    while item >= 0:
        for row in range(run * item, min(run * (item + 1), n_rows)):
            gate, out = both + 2 * size * width * row, d_both + 2 * size * width * row
            back = dh + size * width * row
            for i in range(0, size * width, 16 * size):
                g, u, d = load(gate + i), load(gate + size * width + i), load(back + i)
                s = sigmoid(g)
                silu = simd.mul(g, s)
                slope = simd.fma(silu, simd.sub(one, s), s)
                store(out + i, simd.mul(simd.mul(d, u), slope))
                store(out + size * width + i, simd.mul(d, silu))
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
