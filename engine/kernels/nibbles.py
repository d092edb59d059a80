"""Blocks of 4-bit numbers: how their 256 bytes lie, and their products with int8 activations.

Four runs of 64 bytes: run j holds columns 8 j … 8 j + 3 of each of the 16 rows in its low nibbles
and columns 8 j + 4 … 8 j + 7 in its high ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.kernels import dot, simd
from engine.kernels.activations import FINE, join
from engine.kernels.compiler import block
from engine.kernels.layout import COLUMNS, ROWS

N_BYTES = ROWS * COLUMNS // 2


def pack(q: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """q in 0 … 15 (16 groups, blocks, 32) -> uint8 (groups, blocks, N_BYTES)."""
    n_groups, n_blocks = q.shape[0] // ROWS, q.shape[1]
    halves = q.reshape(n_groups, ROWS, n_blocks, 4, 2, 4)  # run, low or high, column
    runs = (halves[:, :, :, :, 0] | (halves[:, :, :, :, 1] << 4)).transpose(0, 2, 3, 1, 4)
    return np.ascontiguousarray(runs).reshape(n_groups, n_blocks, N_BYTES)


def unpack(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (groups, blocks, N_BYTES) -> q (16 groups, blocks, 32)."""
    n_groups, n_blocks, _ = packed.shape
    runs = packed.reshape(n_groups, n_blocks, 4, ROWS, 4)
    q = np.stack([runs & 15, runs >> 4], axis=3)
    return q.transpose(0, 4, 1, 2, 3, 5).reshape(n_groups * ROWS, n_blocks, COLUMNS)


def stored(nibbles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """GGUF's 16 bytes of a block (…, 16) -> q (…, 32): byte i has column i low, 16 + i high."""
    return np.concatenate([nibbles & 15, nibbles >> 4], axis=-1)


@block
def products(runs, x):
    """Sums of q times the activations of the block at `x`, in steps of their scale; F32x16."""
    low = high = fine_low = fine_high = simd.zero_i32()
    for j in range(4):
        q = simd.load_u8(runs + 64 * j)
        q_low, q_high, at = dot.low_nibbles(q), dot.high_nibbles(q), x + 8 * j
        low = dot.dot_nibbles(low, q_low, simd.load_u8_broadcast(at))
        high = dot.dot_nibbles(high, q_high, simd.load_u8_broadcast(at + 4))
        fine_low = dot.dot_nibbles(fine_low, q_low, simd.load_u8_broadcast(at + FINE))
        fine_high = dot.dot_nibbles(fine_high, q_high, simd.load_u8_broadcast(at + FINE + 4))
    return join(dot.nibble_sums(low, high), dot.nibble_sums(fine_low, fine_high))


@block
def coarse_products(runs, x):
    """The same with one byte an activation."""
    low = high = simd.zero_i32()
    for j in range(4):
        q, at = simd.load_u8(runs + 64 * j), x + 8 * j
        low = dot.dot_nibbles(low, dot.low_nibbles(q), simd.load_u8_broadcast(at))
        high = dot.dot_nibbles(high, dot.high_nibbles(q), simd.load_u8_broadcast(at + 4))
    return simd.to_f32(dot.nibble_sums(low, high))


@block
def one(runs, lane, i):
    """q of row `lane` and column `i` of the block."""
    byte = simd.get_u8(runs + 64 * (i >> 3) + 4 * lane + (i & 3))
    return (byte >> (i & 4)) & 15
