"""Weighted sums of values: float32, added in the order of their positions.

Values lie slot after slot, [slots][width]. `load` widens 16 numbers of the cache's format, whose
size in bytes is `sixteen`; width is a multiple of 32.
"""

from __future__ import annotations

from engine.kernels import simd
from engine.kernels.compiler import kernel


@kernel
def add_values(load, sixteen, weights, values, n, width, out):
    """out = the first n values, weighted."""
    row = sixteen * (width >> 4)
    for i in range(0, width, 32):
        a0 = a1 = simd.zero_f32()
        at = values + sixteen * (i >> 4)
        for j in range(0, 4 * n, 4):
            weight = simd.splat(simd.get_f32(weights + j))
            a0, a1 = simd.fma(weight, load(at), a0), simd.fma(weight, load(at + sixteen), a1)
            at += row
        _store_two(out + 4 * i, a0, a1)


@kernel
def add_values_of_four(load, sixteen, weights, values, n, width, ahead, out):
    """add_values for four rows through one read of the values; weights, out: four addresses each.

    What lies `ahead` bytes further is asked for meanwhile.
    """
    w0, w1, w2, w3 = weights
    row = sixteen * (width >> 4)
    for i in range(0, width, 32):
        a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = simd.zero_f32()
        at = values + sixteen * (i >> 4)
        for j in range(0, 4 * n, 4):
            if i == 0:
                for line in range(0, row, 64):
                    simd.prefetch(at + ahead + line)
            v0, v1 = load(at), load(at + sixteen)
            weight = simd.splat(simd.get_f32(w0 + j))
            a0, a1 = simd.fma(weight, v0, a0), simd.fma(weight, v1, a1)
            weight = simd.splat(simd.get_f32(w1 + j))
            b0, b1 = simd.fma(weight, v0, b0), simd.fma(weight, v1, b1)
            weight = simd.splat(simd.get_f32(w2 + j))
            c0, c1 = simd.fma(weight, v0, c0), simd.fma(weight, v1, c1)
            weight = simd.splat(simd.get_f32(w3 + j))
            d0, d1 = simd.fma(weight, v0, d0), simd.fma(weight, v1, d1)
            at += row
        _store_two(out[0] + 4 * i, a0, a1)
        _store_two(out[1] + 4 * i, b0, b1)
        _store_two(out[2] + 4 * i, c0, c1)
        _store_two(out[3] + 4 * i, d0, d1)


@kernel
def _store_two(at, low, high):
    simd.store_f32(at, low)
    simd.store_f32(at + 64, high)


@kernel
def add_value(load, sixteen, weight, value, width, out):
    """out += one value, weighted."""
    w = simd.splat(weight)
    for i in range(0, width, 16):
        at = out + 4 * i
        simd.store_f32(at, simd.fma(w, load(value + sixteen * (i >> 4)), simd.load_f32(at)))
