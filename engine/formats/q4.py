"""4-bit weights: 32 columns of a row share a float16 scale and offset, value = scale * q + offset.

GGUF's Q4_1 is this; its Q4_0 has offset = -8 scale. A block is 16 scales, 16 offsets, then four
runs of 64 bytes; run j holds columns 8 j … 8 j + 3 of each of the 16 rows in its low nibbles and
columns 8 j + 4 … 8 j + 7 in its high ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.kernels import dot, simd
from engine.kernels.activations import FINE, SCALE, SUM, VALUE_SUM, join
from engine.kernels.compiler import block, callback
from engine.kernels.layout import COLUMNS, ROWS, StoredTensor, by_lane, padded, stored_blocks
from engine.kernels.matmul import MATMUL, ROW, matmul_blocks

BLOCK_BYTES = 64 + ROWS * COLUMNS // 2
INT8 = True
NATIVE = frozenset({"Q4_0", "Q4_1"})


def pack(tensor: StoredTensor, start: int, stop: int) -> NDArray[np.uint8]:
    """Rows [start, stop) -> uint8 (groups, blocks, BLOCK_BYTES)."""
    if tensor.kind not in NATIVE:
        return quantize(padded(tensor.float32(start, stop)))
    header = 4 if tensor.kind == "Q4_1" else 2
    stored = stored_blocks(tensor, start, stop, header + 16)
    numbers = np.ascontiguousarray(stored[:, :, :header]).view(np.float16)
    scales = numbers[:, :, 0]
    offsets = numbers[:, :, 1] if header == 4 else np.float16(-8) * scales
    nibbles = stored[:, :, header:]  # byte i: column i low, column 16 + i high
    q = np.concatenate([nibbles & 15, nibbles >> 4], axis=2)
    return _assemble(scales, offsets, q)


def quantize(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 (16 a, 32 b) -> uint8 (a, b, BLOCK_BYTES); error at most about half a step."""
    columns = values.reshape(values.shape[0], -1, COLUMNS)
    offsets = columns.min(axis=2).astype(np.float16)
    low = offsets.astype(np.float32)
    scales = ((columns.max(axis=2) - low) / 15).astype(np.float16)
    steps = np.where(scales == 0, np.float32(np.inf), scales.astype(np.float32))
    q = np.clip(np.rint((columns - low[:, :, None]) / steps[:, :, None]), 0, 15).astype(np.uint8)
    return _assemble(scales, offsets, q)


def _assemble(
    scales: NDArray[np.float16], offsets: NDArray[np.float16], q: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """scales and offsets (rows, blocks), q in 0 … 15 (rows, blocks, 32) -> packed."""
    n_groups, n_blocks = scales.shape[0] // ROWS, scales.shape[1]
    packed = np.empty((n_groups, n_blocks, BLOCK_BYTES), np.uint8)
    packed[:, :, :32] = by_lane(scales).view(np.uint8)
    packed[:, :, 32:64] = by_lane(offsets).view(np.uint8)
    halves = q.reshape(n_groups, ROWS, n_blocks, 4, 2, 4)  # run, low or high, column
    runs = (halves[:, :, :, :, 0] | (halves[:, :, :, :, 1] << 4)).transpose(0, 2, 3, 1, 4)
    packed[:, :, 64:] = runs.reshape(n_groups, n_blocks, ROWS * COLUMNS // 2)
    return packed


def dequantize(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 (a, b, BLOCK_BYTES) -> float32 (16 a, 32 b)."""
    n_groups, n_blocks, _ = packed.shape
    numbers = np.ascontiguousarray(packed[:, :, :64]).view(np.float16).astype(np.float32)
    scales, offsets = numbers[:, :, None, None, :16, None], numbers[:, :, None, None, 16:, None]
    runs = packed[:, :, 64:].reshape(n_groups, n_blocks, 4, ROWS, 4)
    q = np.stack([runs & 15, runs >> 4], axis=3)
    values = q.astype(np.float32) * scales + offsets
    return values.transpose(0, 4, 1, 2, 3, 5).reshape(n_groups * ROWS, n_blocks * COLUMNS)


@block
def _block(w, x, total):
    """total + one 16 x 32 block at `w` times the int8 block at `x`."""
    low = high = fine_low = fine_high = simd.zero_i32()
    for j in range(4):
        q = simd.load_u8(w + 64 + 64 * j)
        q_low, q_high, at = dot.low_nibbles(q), dot.high_nibbles(q), x + 8 * j
        low = dot.dot_nibbles(low, q_low, simd.load_u8_broadcast(at))
        high = dot.dot_nibbles(high, q_high, simd.load_u8_broadcast(at + 4))
        fine_low = dot.dot_nibbles(fine_low, q_low, simd.load_u8_broadcast(at + FINE))
        fine_high = dot.dot_nibbles(fine_high, q_high, simd.load_u8_broadcast(at + FINE + 4))
    value = join(dot.nibble_sums(low, high), dot.nibble_sums(fine_low, fine_high))
    scale = simd.mul(simd.load_f16(w), simd.splat(simd.get_f32(x + SCALE)))
    total = simd.fma(value, scale, total)
    return simd.fma(simd.load_f16(w + 32), simd.splat(simd.get_f32(x + VALUE_SUM)), total)


@block
def _coarse_block(w, x, total):
    """_block with one byte an activation; the sum is of those too, or errors would not cancel."""
    low = high = simd.zero_i32()
    for j in range(4):
        q, at = simd.load_u8(w + 64 + 64 * j), x + 8 * j
        low = dot.dot_nibbles(low, dot.low_nibbles(q), simd.load_u8_broadcast(at))
        high = dot.dot_nibbles(high, dot.high_nibbles(q), simd.load_u8_broadcast(at + 4))
    scale_x = simd.get_f32(x + SCALE)
    scale = simd.mul(simd.load_f16(w), simd.splat(scale_x))
    total = simd.fma(simd.to_f32(dot.nibble_sums(low, high)), scale, total)
    value_sum = scale_x * np.float32(simd.get_i32(x + SUM))
    return simd.fma(simd.load_f16(w + 32), simd.splat(value_sum), total)


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
        scale, offset = simd.get_f16(w + 2 * lane), simd.get_f16(w + 32 + 2 * lane)
        for i in range(32):
            byte = simd.get_u8(w + 64 + 64 * (i >> 3) + 4 * lane + (i & 3))
            q = (byte >> (i & 4)) & 15
            simd.set_f32(out + 128 * b + 4 * i, scale * np.float32(q) + offset)
