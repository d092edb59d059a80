"""Bounds of keys: what a block of 16 slots can score at most, without reading its keys.

For each dimension the largest and the smallest number of a block's keys, as in Quest (Tang et al.
2024, arXiv:2406.10774): a query times the one or the other, by its sign, is at least what it is
times any of them. Bounds of 16 blocks lie together, [width][largest of 16 blocks, smallest of 16],
in float16, rounded away from the keys; so a lane is a block, and a query reads one of two vectors.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from engine.kernels import simd
from engine.kernels.address import caller
from engine.kernels.attention import key_address, scale_address
from engine.kernels.compiler import entry, kernel
from engine.kernels.listed import BLOCK

F = np.float32
GROUP = 16  # blocks whose bounds lie together
_NUMBERS = 64  # bytes of a dimension of a group: 16 largest and 16 smallest, float16
_LARGEST = F(65504)  # of float16; keys beyond it are bounded as if they were that

# bound(cache, width, first, last, bounds): bounds of blocks [first, last) of a kv head
BOUND = types.void(*(types.int64,) * 5)


@intrinsic
def _call_bound(typing, address, cache, width, first, last, bounds):
    return caller(BOUND)


@kernel
def group_bytes(width):
    """Size of the bounds of GROUP blocks."""
    return _NUMBERS * width


@entry
def bound_heads(address, cache, width, first, last, bounds):
    """BOUND, by the kernel at an address, for every kv head of every layer.

    cache   uint8 (n_layers, n_kv_heads, segments, bytes of a segment)
    bounds  uint8 (n_layers, n_kv_heads, groups, group_bytes(width)); blocks [first, last) written
    """
    for layer in range(cache.shape[0]):
        for kv in range(cache.shape[1]):
            head = simd.address_of(cache) + cache.strides[0] * layer + cache.strides[1] * kv
            out = simd.address_of(bounds) + bounds.strides[0] * layer + bounds.strides[1] * kv
            _call_bound(address, head, width, first, last, out)


@kernel
def _above(value):
    """At least value, once it is rounded to float16."""
    # half a unit in the last place is 2**-11 of a number, 2**-25 of the smallest ones
    up = value + abs(value) * F(2**-10) + F(2**-24)
    return min(max(up, -_LARGEST), _LARGEST)


@kernel
def bound_blocks(load, layout, cache, width, first, last, bounds):
    """BOUND in a format: `load` widens 16 of its numbers."""
    for block in range(first, last):
        slot = BLOCK * block
        key = key_address(cache, layout, width, slot)
        out = bounds + block // GROUP * group_bytes(width) + 2 * (block % GROUP)
        for i in range(width):
            numbers = load(key + layout.sixteen * i)
            if layout.key_scales != 0:
                scales = simd.load_f32(scale_address(cache, layout, layout.key_scales, slot))
                numbers = simd.mul(numbers, scales)
            largest = simd.max_lanes(numbers)
            smallest = -simd.max_lanes(simd.sub(simd.zero_f32(), numbers))
            simd.set_f16(out + _NUMBERS * i, _above(largest))
            simd.set_f16(out + _NUMBERS * i + 32, -_above(-smallest))


@kernel
def rate_group(q, bounds, width, ahead, out):
    """What a query scores at most in each block of a group; out float32 (GROUP,).

    q      float32 (width,)
    ahead  how far to ask for memory in advance, in bytes
    """
    a0 = a1 = a2 = a3 = simd.zero_f32()
    for i in range(0, 4 * width, 16):
        for line in range(0, 4 * _NUMBERS, 64):
            simd.prefetch(bounds + ahead + line)
        q0, q1 = simd.get_f32(q + i), simd.get_f32(q + i + 4)
        q2, q3 = simd.get_f32(q + i + 8), simd.get_f32(q + i + 12)
        a0 = simd.fma(simd.splat(q0), simd.load_f16(bounds + _side(q0)), a0)
        a1 = simd.fma(simd.splat(q1), simd.load_f16(bounds + _NUMBERS + _side(q1)), a1)
        a2 = simd.fma(simd.splat(q2), simd.load_f16(bounds + 2 * _NUMBERS + _side(q2)), a2)
        a3 = simd.fma(simd.splat(q3), simd.load_f16(bounds + 3 * _NUMBERS + _side(q3)), a3)
        bounds += 4 * _NUMBERS
    simd.store_f32(out, simd.add(simd.add(a0, a1), simd.add(a2, a3)))


@kernel
def _side(number):
    """Of the two vectors, the one that a number of the query makes larger."""
    return 32 if number < 0 else 0
