"""Scores: queries times keys. float32, in four sums over the columns of a key.

Keys lie in blocks of 16 slots, [width][16], so that a lane is a slot and a score needs no sum over
lanes. `load` widens 16 numbers of the cache's format, `get` one; `sixteen` is their size in bytes.
"""

from __future__ import annotations

import numpy as np

from engine.kernels import simd
from engine.kernels.compiler import kernel

F = np.float32


@kernel
def score_block(load, sixteen, q, block, width, ahead, out):
    """Scores of a block's 16 keys; what lies `ahead` bytes further is asked for meanwhile."""
    a0 = a1 = a2 = a3 = simd.zero_f32()  # four sums, because one would wait for itself
    for i in range(0, 4 * width, 16):
        for line in range(0, 4 * sixteen, 64):
            simd.prefetch(block + ahead + line)
        a0 = simd.fma(simd.splat(simd.get_f32(q + i)), load(block), a0)
        a1 = simd.fma(simd.splat(simd.get_f32(q + i + 4)), load(block + sixteen), a1)
        a2 = simd.fma(simd.splat(simd.get_f32(q + i + 8)), load(block + 2 * sixteen), a2)
        a3 = simd.fma(simd.splat(simd.get_f32(q + i + 12)), load(block + 3 * sixteen), a3)
        block += 4 * sixteen
    simd.store_f32(out, simd.add(simd.add(a0, a1), simd.add(a2, a3)))


@kernel
def score_block_of_four(load, sixteen, q, block, width, ahead, out):
    """score_block for four queries through one read of the keys; q, out: four addresses each."""
    q0, q1, q2, q3 = q
    a0 = a1 = a2 = a3 = simd.zero_f32()
    b0 = b1 = b2 = b3 = simd.zero_f32()
    c0 = c1 = c2 = c3 = simd.zero_f32()
    d0 = d1 = d2 = d3 = simd.zero_f32()
    for i in range(0, 4 * width, 16):
        for line in range(0, 4 * sixteen, 64):
            simd.prefetch(block + ahead + line)
        key = load(block)
        a0 = simd.fma(simd.splat(simd.get_f32(q0 + i)), key, a0)
        b0 = simd.fma(simd.splat(simd.get_f32(q1 + i)), key, b0)
        c0 = simd.fma(simd.splat(simd.get_f32(q2 + i)), key, c0)
        d0 = simd.fma(simd.splat(simd.get_f32(q3 + i)), key, d0)
        key = load(block + sixteen)
        a1 = simd.fma(simd.splat(simd.get_f32(q0 + i + 4)), key, a1)
        b1 = simd.fma(simd.splat(simd.get_f32(q1 + i + 4)), key, b1)
        c1 = simd.fma(simd.splat(simd.get_f32(q2 + i + 4)), key, c1)
        d1 = simd.fma(simd.splat(simd.get_f32(q3 + i + 4)), key, d1)
        key = load(block + 2 * sixteen)
        a2 = simd.fma(simd.splat(simd.get_f32(q0 + i + 8)), key, a2)
        b2 = simd.fma(simd.splat(simd.get_f32(q1 + i + 8)), key, b2)
        c2 = simd.fma(simd.splat(simd.get_f32(q2 + i + 8)), key, c2)
        d2 = simd.fma(simd.splat(simd.get_f32(q3 + i + 8)), key, d2)
        key = load(block + 3 * sixteen)
        a3 = simd.fma(simd.splat(simd.get_f32(q0 + i + 12)), key, a3)
        b3 = simd.fma(simd.splat(simd.get_f32(q1 + i + 12)), key, b3)
        c3 = simd.fma(simd.splat(simd.get_f32(q2 + i + 12)), key, c3)
        d3 = simd.fma(simd.splat(simd.get_f32(q3 + i + 12)), key, d3)
        block += 4 * sixteen
    simd.store_f32(out[0], simd.add(simd.add(a0, a1), simd.add(a2, a3)))
    simd.store_f32(out[1], simd.add(simd.add(b0, b1), simd.add(b2, b3)))
    simd.store_f32(out[2], simd.add(simd.add(c0, c1), simd.add(c2, c3)))
    simd.store_f32(out[3], simd.add(simd.add(d0, d1), simd.add(d2, d3)))


@kernel
def score(get, sixteen, q, column, width):
    """The score of one key, in the order of score_block."""
    a0 = a1 = a2 = a3 = F(0)
    for i in range(0, 4 * width, 16):
        a0 = simd.fma_scalar(simd.get_f32(q + i), get(column), a0)
        a1 = simd.fma_scalar(simd.get_f32(q + i + 4), get(column + sixteen), a1)
        a2 = simd.fma_scalar(simd.get_f32(q + i + 8), get(column + 2 * sixteen), a2)
        a3 = simd.fma_scalar(simd.get_f32(q + i + 12), get(column + 3 * sixteen), a3)
        column += 4 * sixteen
    return (a0 + a1) + (a2 + a3)
