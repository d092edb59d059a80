"""Products of int16 where the CPU has none of int8 (AVX2): pairs multiplied and added in one step.

Activations of 13 bits, weights of 12: as many as let BLOCK products be summed in int32, whatever
they are. A matrix (N, K) is laid out before each product as panels of COLUMNS of its outputs,
[output / COLUMNS][input / 2][COLUMNS][2], which costs a hundredth of the product.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types

from engine.kernels import simd, vectors
from engine.kernels.compiler import callback, kernel
from engine.kernels.dot import dot2
from engine.kernels.vectors import I32x16, operation
from engine.training.kernels.tasks import TASK, claim, thread_number, whole

F = np.float32
# of a tile: its sums, what they are made of and nothing else fill AVX2's registers
ROWS, COLUMNS = 6, 16
MOST, MOST_OF_WEIGHTS, BLOCK = 4095, 2047, 256
assert MOST * MOST_OF_WEIGHTS * BLOCK < 2**31
TILE = 4 * ROWS * COLUMNS  # bytes

_I16x16 = ir.VectorType(vectors.i16, 16)


@operation(I32x16, types.int64, types.int64)
def load_pairs(builder, low, high):
    """16 int16 at one address and 16 at another, in turns: low in the lower half of each int32."""
    low, high = (
        builder.zext(vectors.load(builder, address, _I16x16), I32x16.llvm)
        for address in (low, high)
    )
    return builder.or_(low, builder.shl(high, vectors.constant(I32x16.llvm, 16)))


@callback(TASK)
def lay_rows(block):
    """q (N, K) int16 -> panels of its rows, for x qᵀ. Items are panels."""
    q, panels, n_in = whole(block, 0), whole(block, 1), whole(block, 2)
    item = claim(block)
    while item >= 0:
        at, out = q + 2 * n_in * COLUMNS * item, panels + 2 * n_in * COLUMNS * item
        for k in range(0, 2 * n_in, 4):
            for row in range(COLUMNS):
                simd.set_i32(out, simd.get_i32(at + 2 * n_in * row + k))
                out += 4
        item = claim(block)


@callback(TASK)
def lay_columns(block):
    """q (N, K) int16 -> panels of its columns, for y q. Items are runs of pairs of rows."""
    q, panels, n_out, n_in, run = (
        whole(block, 0), whole(block, 1), whole(block, 2), whole(block, 3), whole(block, 4),
    )  # fmt: skip
    item = claim(block)
    while item >= 0:
        for pair in range(run * item, min(run * (item + 1), n_out // 2)):
            at, out = q + 4 * n_in * pair, panels + 4 * COLUMNS * pair
            for _ in range(0, n_in, COLUMNS):
                simd.store_i32(out, load_pairs(at, at + 2 * n_in))
                at += 2 * COLUMNS
                out += 2 * COLUMNS * n_out
        item = claim(block)


@kernel
def _sum_up(x, stride, rows, panel, n_pairs, totals):
    """totals (ROWS, COLUMNS) float32 += `rows` rows of x (int16) times a panel's n_pairs."""
    x1, x2 = x + stride * min(1, rows - 1), x + stride * min(2, rows - 1)
    x3, x4 = x + stride * min(3, rows - 1), x + stride * min(4, rows - 1)
    x5 = x + stride * min(5, rows - 1)
    s0 = s1 = s2 = s3 = s4 = s5 = simd.zero_i32()
    for k in range(0, 4 * n_pairs, 4):
        w = simd.load_i32(panel + COLUMNS * k)
        s0 = dot2(s0, w, simd.load_i32_broadcast(x + k))
        s1 = dot2(s1, w, simd.load_i32_broadcast(x1 + k))
        s2 = dot2(s2, w, simd.load_i32_broadcast(x2 + k))
        s3 = dot2(s3, w, simd.load_i32_broadcast(x3 + k))
        s4 = dot2(s4, w, simd.load_i32_broadcast(x4 + k))
        s5 = dot2(s5, w, simd.load_i32_broadcast(x5 + k))
    _add(totals, s0)
    _add(totals + 4 * COLUMNS, s1)
    _add(totals + 8 * COLUMNS, s2)
    _add(totals + 12 * COLUMNS, s3)
    _add(totals + 16 * COLUMNS, s4)
    _add(totals + 20 * COLUMNS, s5)


@kernel
def _add(address, sums):
    simd.store_f32(address, simd.add(simd.load_f32(address), simd.to_f32(sums)))


@kernel
def _low_rank(z, stride, rows, b, rank, out):
    """out (ROWS, COLUMNS) = `rows` rows of z (float32) times b (rank, COLUMNS)."""
    z1, z2 = z + stride * min(1, rows - 1), z + stride * min(2, rows - 1)
    z3, z4 = z + stride * min(3, rows - 1), z + stride * min(4, rows - 1)
    z5 = z + stride * min(5, rows - 1)
    s0 = s1 = s2 = s3 = s4 = s5 = simd.zero_f32()
    for k in range(0, 4 * rank, 4):
        w = simd.load_f32(b + COLUMNS * k)
        s0 = simd.fma(simd.splat(simd.get_f32(z + k)), w, s0)
        s1 = simd.fma(simd.splat(simd.get_f32(z1 + k)), w, s1)
        s2 = simd.fma(simd.splat(simd.get_f32(z2 + k)), w, s2)
        s3 = simd.fma(simd.splat(simd.get_f32(z3 + k)), w, s3)
        s4 = simd.fma(simd.splat(simd.get_f32(z4 + k)), w, s4)
        s5 = simd.fma(simd.splat(simd.get_f32(z5 + k)), w, s5)
    simd.store_f32(out, s0)
    simd.store_f32(out + 4 * COLUMNS, s1)
    simd.store_f32(out + 8 * COLUMNS, s2)
    simd.store_f32(out + 12 * COLUMNS, s3)
    simd.store_f32(out + 16 * COLUMNS, s4)
    simd.store_f32(out + 20 * COLUMNS, s5)


@callback(TASK)
def multiply(block):
    """q (T, K) * scales (T,) times panels of K, * factors (N,) or 0, + z (T, R) b -> y (T, N).

    z has z_stride bytes a row, b is [N / COLUMNS][R][COLUMNS], both float32; R may be 0.
    scratch: 2 tiles a thread. Items are runs of rows.
    """
    q, scales, panels, factors, y = (
        whole(block, 0), whole(block, 1), whole(block, 2), whole(block, 3), whole(block, 4),
    )  # fmt: skip
    z, z_stride, b, rank = whole(block, 5), whole(block, 6), whole(block, 7), whole(block, 8)
    n_rows, n_in, n_out, run = (
        whole(block, 9), whole(block, 10), whole(block, 11), whole(block, 12),
    )  # fmt: skip
    totals = whole(block, 13) + 2 * TILE * thread_number(block)
    more = totals + TILE
    for at in range(totals, totals + 2 * TILE, 64):
        simd.store_f32(at, simd.zero_f32())
    item = claim(block)
    while item >= 0:
        for column in range(0, n_out, COLUMNS):
            panel, scaled = panels + 2 * n_in * column, simd.splat(F(1))
            if factors != 0:
                scaled = simd.load_f32(factors + 4 * column)
            for row in range(run * item, min(run * (item + 1), n_rows), ROWS):
                rows = min(ROWS, n_rows - row)
                for k in range(0, n_in, BLOCK):
                    x, n_pairs = q + 2 * (n_in * row + k), min(BLOCK, n_in - k) // 2
                    _sum_up(x, 2 * n_in, rows, panel + 2 * COLUMNS * k, n_pairs, totals)
                if rank:
                    at = b + 4 * rank * column
                    _low_rank(z + z_stride * row, z_stride, rows, at, rank, more)
                for i in range(ROWS):
                    at = 4 * COLUMNS * i
                    value = simd.load_f32(totals + at)
                    simd.store_f32(totals + at, simd.zero_f32())
                    if i < rows:
                        scale = simd.mul(simd.splat(simd.get_f32(scales + 4 * (row + i))), scaled)
                        value = simd.fma(value, scale, simd.load_f32(more + at))
                        simd.store_f32(y + 4 * (n_out * (row + i) + column), value)
        item = claim(block)
