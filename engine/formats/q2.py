"""2-bit weights: 32 columns of a row share a float16 scale, value = scale (q - 1.5).

Made for screens (engine/sparsity/head.py), which only have to say which rows deserve a closer look:
too coarse for a model's own weights, and without a zero for padding. A block is 16 scales, then two
runs of 64 bytes: run j holds columns 16 j … 16 j + 15 of each of the 16 rows, four by four, from
the lowest bits up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.kernels import dot, simd
from engine.kernels.activations import FINE, FINE_STEP, FINE_SUM, SCALE, SUM, join
from engine.kernels.compiler import block, callback
from engine.kernels.layout import COLUMNS, ROWS, StoredTensor, by_lane, padded
from engine.kernels.matmul import MATMUL, ROW, matmul_blocks

_RUNS = 32  # where the bits begin
BLOCK_BYTES = _RUNS + ROWS * COLUMNS // 4
INT8 = True
NATIVE: frozenset[str] = frozenset()
_SPREAD = np.float32(0.9957)  # steps that suit a normal distribution best, in standard deviations


def pack(tensor: StoredTensor, start: int, stop: int) -> NDArray[np.uint8]:
    """Rows [start, stop) -> uint8 (groups, blocks, BLOCK_BYTES)."""
    return quantize(padded(tensor.float32(start, stop)))


def quantize(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 (16 a, 32 b) -> uint8 (a, b, BLOCK_BYTES); the step fits the values best."""
    columns = values.reshape(values.shape[0], -1, COLUMNS)
    steps = _SPREAD * np.sqrt(np.square(columns).mean(axis=2))
    for _ in range(2):  # with the levels fixed, the best step is a quotient
        q = _nearest(columns, steps)
        levels = q.astype(np.float32) - np.float32(1.5)
        steps = (columns * levels).sum(axis=2) / np.square(levels).sum(axis=2)
    scales = steps.astype(np.float16)
    return _assemble(scales, _nearest(columns, scales.astype(np.float32)))


def _nearest(columns: NDArray[np.float32], steps: NDArray[np.float32]) -> NDArray[np.uint8]:
    safe = np.where(steps == 0, np.float32(np.inf), steps)
    q: NDArray[np.uint8] = np.clip(np.floor(columns / safe[:, :, None]) + 2, 0, 3).astype(np.uint8)
    return q


def _assemble(scales: NDArray[np.float16], q: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """scales (rows, blocks), q in 0 … 3 (rows, blocks, 32) -> packed."""
    n_groups, n_blocks = scales.shape[0] // ROWS, scales.shape[1]
    parts = q.reshape(n_groups, ROWS, n_blocks, 2, 4, 4)  # run, bits, column
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    runs = (parts << shifts).sum(axis=4, dtype=np.uint8).transpose(0, 2, 3, 1, 4)
    bits = np.ascontiguousarray(runs).reshape(n_groups, n_blocks, -1)
    return np.concatenate([by_lane(scales).view(np.uint8), bits], axis=2)


def dequantize(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 (a, b, BLOCK_BYTES) -> float32 (16 a, 32 b)."""
    n_groups, n_blocks, _ = packed.shape
    scales = np.ascontiguousarray(packed[:, :, :_RUNS]).view(np.float16).astype(np.float32)
    runs = packed[:, :, _RUNS:].reshape(n_groups, n_blocks, 2, 1, ROWS, 4)
    shifts = np.arange(0, 8, 2, dtype=np.uint8).reshape(4, 1, 1)
    q = (runs >> shifts) & 3  # (groups, blocks, run, bits, row, column)
    rows = q.transpose(0, 4, 1, 2, 3, 5).reshape(n_groups * ROWS, n_blocks, COLUMNS)
    by_row = scales.transpose(0, 2, 1).reshape(-1, n_blocks, 1)
    return ((rows.astype(np.float32) - np.float32(1.5)) * by_row).reshape(len(rows), -1)


@block
def _block(w, x, total):
    """total + one 16 x 32 block at `w` times the int8 block at `x`."""
    coarse = fine = simd.zero_i32()
    for j in range(2):
        q, at = simd.load_u8(w + _RUNS + 64 * j), x + 16 * j
        for i in range(4):
            bits = dot.two_bits(q, i)
            coarse = dot.dot4(coarse, bits, simd.load_u8_broadcast(at + 4 * i))
            fine = dot.dot4(fine, bits, simd.load_u8_broadcast(at + 4 * i + FINE))
    rest = FINE_STEP * np.float32(simd.get_i32(x + FINE_SUM))
    middle = np.float32(1.5) * (np.float32(simd.get_i32(x + SUM)) + rest)
    value = simd.sub(join(coarse, fine), simd.splat(middle))
    scale = simd.mul(simd.load_f16(w), simd.splat(simd.get_f32(x + SCALE)))
    return simd.fma(value, scale, total)


@block
def _coarse_block(w, x, total):
    """_block with one byte an activation."""
    coarse = simd.zero_i32()
    for j in range(2):
        q, at = simd.load_u8(w + _RUNS + 64 * j), x + 16 * j
        for i in range(4):
            coarse = dot.dot4(coarse, dot.two_bits(q, i), simd.load_u8_broadcast(at + 4 * i))
    middle = np.float32(1.5) * np.float32(simd.get_i32(x + SUM))
    value = simd.sub(simd.to_f32(coarse), simd.splat(middle))
    scale = simd.mul(simd.load_f16(w), simd.splat(simd.get_f32(x + SCALE)))
    return simd.fma(value, scale, total)


@callback(MATMUL)
def matmul(weight, first, last, blocks, x, x_stride, tokens, out, out_stride):
    matmul_blocks(_block, BLOCK_BYTES, weight, first, last, blocks,
                  x, x_stride, tokens, out, out_stride)  # fmt: skip


@callback(MATMUL)
def matmul_coarse(weight, first, last, blocks, x, x_stride, tokens, out, out_stride):
    matmul_blocks(_coarse_block, BLOCK_BYTES, weight, first, last, blocks,
                  x, x_stride, tokens, out, out_stride)  # fmt: skip


@callback(ROW)
def row(weight, blocks, index, out):
    lane = index & 15
    for b in range(blocks):
        w = weight + ((index >> 4) * blocks + b) * BLOCK_BYTES
        scale = simd.get_f16(w + 2 * lane)
        for i in range(32):
            byte = simd.get_u8(w + _RUNS + 64 * (i >> 4) + 4 * lane + (i & 3))
            q = (byte >> (2 * (i >> 2 & 3))) & 3
            simd.set_f32(out + 128 * b + 4 * i, scale * (np.float32(q) - np.float32(1.5)))
