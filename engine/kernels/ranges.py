"""Ranges of keys: how much a block of 16 slots is likely to score, without reading its keys.

For each dimension the mean of a block's keys, and half a standard deviation above and below it. A
query times the one or the other, by its sign, summed, rates the block: as in Quest (Tang et al.
2024, arXiv:2406.10774), which takes the largest and the smallest number instead and so a bound of
every key's score. A bound is too cautious: with the same 64 of 476 blocks read, KL against dense
attention is 0.017 (SmolLM2-135M at position 7,600, 190 positions), with these ranges 0.008; with
means alone 0.009, with the whole standard deviation 0.010, with the best choice there is 0.002.

Ranges of 16 blocks lie together, [width][upper ends of 16 blocks, lower ends of 16], in float16, so
that a lane is a block, and a query reads one of two vectors.
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
GROUP = 16  # blocks whose ranges lie together
_NUMBERS = 64  # bytes of a dimension of a group: 16 largest and 16 smallest, float16
_LARGEST = F(65504)  # of float16
SPREAD = F(0.5)  # standard deviations

# range(cache, width, first, last, ranges): ranges of blocks [first, last) of a kv head
RANGE = types.void(*(types.int64,) * 5)


@intrinsic
def _call_range(typing, address, cache, width, first, last, ranges):
    return caller(RANGE)


@kernel
def group_bytes(width):
    """Size of the ranges of GROUP blocks."""
    return _NUMBERS * width


@entry
def range_heads(address, cache, width, first, last, ranges):
    """RANGE, by the kernel at an address, for every kv head of every layer.

    cache   uint8 (n_layers, n_kv_heads, segments, bytes of a segment)
    ranges  uint8 (n_layers, n_kv_heads, groups, group_bytes(width)); blocks [first, last) written
    """
    for layer in range(cache.shape[0]):
        for kv in range(cache.shape[1]):
            head = simd.address_of(cache) + cache.strides[0] * layer + cache.strides[1] * kv
            out = simd.address_of(ranges) + ranges.strides[0] * layer + ranges.strides[1] * kv
            _call_range(address, head, width, first, last, out)


@kernel
def range_blocks(load, layout, cache, width, first, last, ranges):
    """RANGE in a format: `load` widens 16 of its numbers."""
    for block in range(first, last):
        slot = BLOCK * block
        key = key_address(cache, layout, width, slot)
        out = ranges + block // GROUP * group_bytes(width) + 2 * (block % GROUP)
        for i in range(width):
            numbers = load(key + layout.sixteen * i)
            if layout.key_scales != 0:
                scales = simd.load_f32(scale_address(cache, layout, layout.key_scales, slot))
                numbers = simd.mul(numbers, scales)
            mean = simd.sum_lanes(numbers) * F(1 / BLOCK)
            apart = simd.sub(numbers, simd.splat(mean))
            spread = SPREAD * np.sqrt(simd.sum_lanes(simd.mul(apart, apart)) * F(1 / BLOCK))
            simd.set_f16(out + _NUMBERS * i, min(mean + spread, _LARGEST))
            simd.set_f16(out + _NUMBERS * i + 32, max(mean - spread, -_LARGEST))


@kernel
def rate_group(q, ranges, width, ahead, out):
    """How a query rates the blocks of a group; out float32 (GROUP,).

    q      float32 (width,)
    ahead  how far to ask for memory in advance, in bytes
    """
    a0 = a1 = a2 = a3 = simd.zero_f32()
    for i in range(0, 4 * width, 16):
        for line in range(0, 4 * _NUMBERS, 64):
            simd.prefetch(ranges + ahead + line)
        q0, q1 = simd.get_f32(q + i), simd.get_f32(q + i + 4)
        q2, q3 = simd.get_f32(q + i + 8), simd.get_f32(q + i + 12)
        a0 = simd.fma(simd.splat(q0), simd.load_f16(ranges + _side(q0)), a0)
        a1 = simd.fma(simd.splat(q1), simd.load_f16(ranges + _NUMBERS + _side(q1)), a1)
        a2 = simd.fma(simd.splat(q2), simd.load_f16(ranges + 2 * _NUMBERS + _side(q2)), a2)
        a3 = simd.fma(simd.splat(q3), simd.load_f16(ranges + 3 * _NUMBERS + _side(q3)), a3)
        ranges += 4 * _NUMBERS
    simd.store_f32(out, simd.add(simd.add(a0, a1), simd.add(a2, a3)))


@kernel
def _side(number):
    """Of the two vectors, the one that a number of the query makes larger."""
    return 32 if number < 0 else 0
