"""Activations: norms, int8 blocks, the non-linearities.

Letters: `n` counts float32 values, `blocks` of 32 values. Buffers are padded with zeros to whole
blocks.

An int8 block is 80 bytes: 32 int8 q | 32 int8 r | float32 scale d | float32 sum of the values |
int32 sum(q) | int32 sum(r), and value = d (q + r / 254): 8 bits and the 8 bits below them. One byte
alone changes the likeliest token at 3 to 5 % of the positions of hard text; the second byte costs
decoding nothing, because it waits for weights, not for arithmetic. Weight kernels read both
broadcast, four bytes at a time.
"""

from __future__ import annotations

import numpy as np

from engine.kernels import simd
from engine.kernels.compiler import block, kernel

BLOCK = 32
BLOCK_BYTES = 80
FINE, SCALE, VALUE_SUM, SUM, FINE_SUM = 32, 64, 68, 72, 76  # byte offsets in a block
FINE_STEP = np.float32(1 / 254)  # of r, in steps of q: r reaches 127 where q is half a step off

F = np.float32


@kernel
def quantize_block(low, high, block):
    """Write 32 values, given as two F32x16, as one int8 block at `block`."""
    largest = simd.max_lanes(simd.maximum(simd.absolute(low), simd.absolute(high)))
    scale = largest * F(1 / 127)
    inverse = F(0)
    if largest > 0:
        inverse = F(127) / largest
    low, high = simd.mul(low, simd.splat(inverse)), simd.mul(high, simd.splat(inverse))
    q_low, q_high = simd.to_i32(low), simd.to_i32(high)
    fine = simd.splat(F(254))
    r_low = simd.to_i32(simd.mul(simd.sub(low, simd.to_f32(q_low)), fine))
    r_high = simd.to_i32(simd.mul(simd.sub(high, simd.to_f32(q_high)), fine))
    q_sum = simd.sum_lanes_i32(simd.add_i32(q_low, q_high))
    r_sum = simd.sum_lanes_i32(simd.add_i32(r_low, r_high))
    simd.store_i8(block, q_low)
    simd.store_i8(block + 16, q_high)
    simd.store_i8(block + FINE, r_low)
    simd.store_i8(block + FINE + 16, r_high)
    simd.set_f32(block + SCALE, scale)
    simd.set_f32(block + VALUE_SUM, scale * (F(q_sum) + FINE_STEP * F(r_sum)))
    simd.set_i32(block + SUM, q_sum)
    simd.set_i32(block + FINE_SUM, r_sum)


@block
def join(coarse, fine):
    """Products with q and with r, in steps of q, as float32."""
    return simd.fma(simd.to_f32(fine), simd.splat(FINE_STEP), simd.to_f32(coarse))


@kernel
def quantize(x, blocks, out):
    """float32 at `x` to int8 blocks at `out`."""
    for b in range(blocks):
        quantize_block(simd.load_f32(x + 128 * b), simd.load_f32(x + 128 * b + 64),
                       out + BLOCK_BYTES * b)  # fmt: skip


@kernel
def add_rows(x, y, bias, n):
    """x += y (+ bias unless its address is 0); all float32 (n,), n a multiple of 16."""
    for i in range(0, 4 * n, 64):
        value = simd.add(simd.load_f32(x + i), simd.load_f32(y + i))
        if bias != 0:
            value = simd.add(value, simd.load_f32(bias + i))
        simd.store_f32(x + i, value)


@kernel
def rms_norm(x, weight, eps, n, n_padded, out):
    """out = x / sqrt(mean(x²) + eps) * weight (Zhang and Sennrich 2019, arXiv:1910.07467)."""
    squares = simd.zero_f32()
    for i in range(0, 4 * n_padded, 64):
        value = simd.load_f32(x + i)
        squares = simd.fma(value, value, squares)
    scale = simd.splat(F(1) / np.sqrt(simd.sum_lanes(squares) / F(n) + F(eps)))
    for i in range(0, 4 * n_padded, 64):
        value = simd.mul(simd.load_f32(x + i), scale)
        simd.store_f32(out + i, simd.mul(value, simd.load_f32(weight + i)))


@kernel
def layer_norm(x, weight, bias, eps, n, n_padded, out):
    """out = (x - mean) / sqrt(var + eps) * weight (+ bias); a bias address of 0 is none.

    x is zero beyond n, so the padding adds mean² each to the squares and is taken off again.
    """
    total = simd.zero_f32()
    for i in range(0, 4 * n_padded, 64):
        total = simd.add(total, simd.load_f32(x + i))
    mean = simd.sum_lanes(total) / F(n)
    squares = simd.zero_f32()
    for i in range(0, 4 * n_padded, 64):
        value = simd.sub(simd.load_f32(x + i), simd.splat(mean))
        squares = simd.fma(value, value, squares)
    variance = (simd.sum_lanes(squares) - F(n_padded - n) * mean * mean) / F(n)
    scale = simd.splat(F(1) / np.sqrt(max(variance, F(0)) + F(eps)))
    for i in range(0, 4 * n_padded, 64):
        value = simd.mul(simd.sub(simd.load_f32(x + i), simd.splat(mean)), scale)
        value = simd.mul(value, simd.load_f32(weight + i))
        if bias != 0:
            value = simd.add(value, simd.load_f32(bias + i))
        simd.store_f32(out + i, value)


@kernel
def exponential(x):
    """e**x of an F32x16, to 2 units in the last place; clamped to [-87, 88].

    Cephes' expf: x = n ln 2 + f, a polynomial in f, and n added to the exponent field.
    """
    x = simd.minimum(simd.maximum(x, simd.splat(F(-87))), simd.splat(F(88)))
    n = simd.nearest(simd.mul(x, simd.splat(F(1.44269504088896341))))
    f = simd.fma(n, simd.splat(F(-0.693359375)), x)
    f = simd.fma(n, simd.splat(F(2.12194440e-4)), f)
    p = simd.splat(F(1.9875691500e-4))
    p = simd.fma(p, f, simd.splat(F(1.3981999507e-3)))
    p = simd.fma(p, f, simd.splat(F(8.3334519073e-3)))
    p = simd.fma(p, f, simd.splat(F(4.1665795894e-2)))
    p = simd.fma(p, f, simd.splat(F(1.6666665459e-1)))
    p = simd.fma(p, f, simd.splat(F(5.0000001201e-1)))
    p = simd.fma(simd.mul(f, f), p, simd.add(f, simd.splat(F(1))))
    return simd.scale_by_power_of_two(p, n)


@kernel
def sigmoid(x):
    """1 / (1 + e**-x)."""
    one = simd.splat(F(1))
    return simd.div(one, simd.add(one, exponential(simd.sub(simd.zero_f32(), x))))


@kernel
def tanh(x):
    """To 1e-7 absolute."""
    return simd.fma(simd.splat(F(2)), sigmoid(simd.add(x, x)), simd.splat(F(-1)))


@kernel
def error_function(x):
    """erf(x) to 1.5e-7 absolute (Abramowitz and Stegun 7.1.26)."""
    one, zero = simd.splat(F(1)), simd.zero_f32()
    size = simd.absolute(x)
    t = simd.div(one, simd.fma(simd.splat(F(0.3275911)), size, one))
    p = simd.splat(F(1.061405429))
    p = simd.fma(p, t, simd.splat(F(-1.453152027)))
    p = simd.fma(p, t, simd.splat(F(1.421413741)))
    p = simd.fma(p, t, simd.splat(F(-0.284496736)))
    p = simd.fma(p, t, simd.splat(F(0.254829592)))
    tail = exponential(simd.sub(zero, simd.mul(size, size)))
    value = simd.sub(one, simd.mul(simd.mul(p, t), tail))
    return simd.copy_sign(value, x)


SILU, GELU, GELU_TANH, RELU = 0, 1, 2, 3


@kernel
def activate(x, kind):
    """One of the four non-linearities, by code, of an F32x16."""
    if kind == SILU:
        return simd.mul(x, sigmoid(x))
    if kind == RELU:
        return simd.maximum(x, simd.zero_f32())
    half = simd.mul(x, simd.splat(F(0.5)))
    if kind == GELU:
        scaled = simd.mul(x, simd.splat(F(0.70710678118654752)))
        return simd.fma(half, error_function(scaled), half)
    # tanh(u) = 2 sigmoid(2 u) - 1
    cube = simd.mul(simd.mul(x, x), x)
    u = simd.mul(simd.fma(simd.splat(F(0.044715)), cube, x), simd.splat(F(1.5957691216057308)))
    return simd.mul(x, sigmoid(u))


@kernel
def feed_forward_gate(gate, up, gate_bias, up_bias, kind, first, last):
    """gate[i] = activate(gate[i]) * up[i] for i in [first, last); up = 0 means a plain layer."""
    for i in range(4 * first, 4 * last, 64):
        value = simd.load_f32(gate + i)
        if gate_bias != 0:
            value = simd.add(value, simd.load_f32(gate_bias + i))
        value = activate(value, kind)
        if up != 0:
            other = simd.load_f32(up + i)
            if up_bias != 0:
                other = simd.add(other, simd.load_f32(up_bias + i))
            value = simd.mul(value, other)
        simd.store_f32(gate + i, value)
