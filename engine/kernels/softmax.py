"""The running softmax: the weights of a segment's scores, and partial results merged."""

from __future__ import annotations

import numpy as np

from engine.kernels import pieces, simd
from engine.kernels.activations import exponential, tanh
from engine.kernels.compiler import kernel

F = np.float32
MASKED = F(-1e30)  # not -inf: -inf - -inf is NaN
LEAST = F(-60)  # an exponent


@kernel
def relative(x):
    """e**x of an F32x16 of at most 0, and 0 below LEAST.

    Nothing that small is seen beside 1. Its products with values would be too small for float32's
    whole precision, which many processors compute slowly: far keys under ALiBi are all so.
    """
    return pieces.where_above(x, simd.splat(LEAST), exponential(x))


@kernel
def multiply(at, factors, n):
    """The first n float32 at an address times as many others."""
    whole = n & -16
    for j in range(0, 4 * whole, 64):
        simd.store_f32(at + j, simd.mul(simd.load_f32(at + j), simd.load_f32(factors + j)))
    for j in range(4 * whole, 4 * n, 4):
        simd.set_f32(at + j, simd.get_f32(at + j) * simd.get_f32(factors + j))


@kernel
def scale_scores(scores, n, scale, softcap, slope, offset):
    """scores[j] = scale scores[j] + slope (offset + j), for the first n.

    softcap  c > 0: scale scores[j] as c tanh(scale scores[j] / c) (Gemma 2, arXiv:2408.00118)
    """
    factor = simd.splat(F(scale))
    distance = simd.add(simd.splat(F(offset)), simd.lane_numbers())
    for j in range(0, n, 16):
        value = simd.mul(simd.load_f32(scores + 4 * j), factor)
        if softcap > 0:
            share = tanh(simd.mul(value, simd.splat(F(1 / softcap))))
            value = simd.mul(simd.splat(F(softcap)), share)
        if slope != 0:
            value = simd.fma(simd.splat(slope), distance, value)
            distance = simd.add(distance, simd.splat(F(16)))
        simd.store_f32(scores + 4 * j, value)


@kernel
def _fill(at, first, last, value):
    for j in range(first, last):
        simd.set_f32(at + 4 * j, value)


@kernel
def weigh(scores, first, n, size):
    """Scores [first, n) of `size` to e**(score - largest), all others to 0; (largest, sum)."""
    end = (n + 15) & -16
    _fill(scores, 0, first, MASKED)
    _fill(scores, n, end, MASKED)
    largest = simd.splat(MASKED)
    for j in range(0, 4 * end, 64):
        largest = simd.maximum(largest, simd.load_f32(scores + j))
    shift = simd.max_lanes(largest)
    total = simd.zero_f32()
    for j in range(0, 4 * end, 64):
        value = relative(simd.sub(simd.load_f32(scores + j), simd.splat(shift)))
        simd.store_f32(scores + j, value)
        total = simd.add(total, value)
    # where all are masked, they are 1 now
    _fill(scores, 0, first, F(0))
    _fill(scores, n, end, F(0))
    for j in range(4 * end, 4 * size, 64):
        simd.store_f32(scores + j, simd.zero_f32())
    return shift, simd.sum_lanes(total)


# A partial result: float32 (width,) sum of weights times values, then the largest score, then the
# sum of the weights, 0 where nothing was in sight


@kernel
def partial_bytes(width):
    """Size of a partial result, in whole cache lines."""
    return 4 * width + 64


@kernel
def merge(partial, width, result):
    """Add one segment's partial result to that of the segments before."""
    total = simd.get_f32(partial + 4 * width + 4)
    if total == 0:
        return
    largest, seen = simd.get_f32(partial + 4 * width), simd.get_f32(result + 4 * width)
    shift = max(largest, seen)
    mine = relative(simd.splat(largest - shift))
    theirs = relative(simd.splat(seen - shift))
    for i in range(0, 4 * width, 64):
        value = simd.mul(simd.load_f32(result + i), theirs)
        simd.store_f32(result + i, simd.fma(simd.load_f32(partial + i), mine, value))
    before = simd.mul(simd.splat(simd.get_f32(result + 4 * width + 4)), theirs)
    both = simd.fma(simd.splat(total), mine, before)
    simd.set_f32(result + 4 * width + 4, simd.max_lanes(both))
    simd.set_f32(result + 4 * width, shift)


@kernel
def clear(result, width):
    """A partial result of nothing."""
    for i in range(0, 4 * width + 64, 64):
        simd.store_f32(result + i, simd.zero_f32())
    simd.set_f32(result + 4 * width, MASKED)


@kernel
def finish(result, width, head_dim, out):
    """out = the weighted mean, float32 (head_dim,)."""
    inverse = F(1) / simd.get_f32(result + 4 * width + 4)
    whole = 4 * (head_dim & -16)
    for i in range(0, whole, 64):
        simd.store_f32(out + i, simd.mul(simd.load_f32(result + i), simd.splat(inverse)))
    for i in range(whole, 4 * head_dim, 4):
        simd.set_f32(out + i, simd.get_f32(result + i) * inverse)
