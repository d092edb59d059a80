"""8-bit weights: 32 columns of a row share one float16 scale, value = scale * q (GGUF's Q8_0).

A block is 16 scales, then eight runs of 64 bytes; run j holds columns 4 j … 4 j + 3 of each of the
16 rows. Bytes are q + 128, because the dot product of bytes takes one unsigned side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.kernels import dot, simd
from engine.kernels.activations import FINE, FINE_SUM, SCALE, SUM, join
from engine.kernels.compiler import block, callback
from engine.kernels.layout import COLUMNS, ROWS, StoredTensor, by_lane, padded, stored_blocks
from engine.kernels.matmul import MATMUL, ROW, matmul_blocks

BLOCK_BYTES = 32 + ROWS * COLUMNS
INT8 = True
NATIVE = frozenset({"Q8_0"})
_STORED_BYTES = 34  # float16 scale, 32 int8


def pack(tensor: StoredTensor, start: int, stop: int) -> NDArray[np.uint8]:
    """Rows [start, stop) -> uint8 (groups, blocks, BLOCK_BYTES)."""
    if tensor.kind != "Q8_0":
        return quantize(padded(tensor.float32(start, stop)))
    stored = stored_blocks(tensor, start, stop, _STORED_BYTES)
    scales = np.ascontiguousarray(stored[:, :, :2]).view(np.uint16)[:, :, 0]
    return _assemble(scales, stored[:, :, 2:] ^ np.uint8(0x80))


def quantize(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 (16 a, 32 b) -> uint8 (a, b, BLOCK_BYTES); error at most half a step."""
    columns = values.reshape(values.shape[0], -1, COLUMNS)
    scales = (np.abs(columns).max(axis=2) / 127).astype(np.float16)
    steps = np.where(scales == 0, np.float32(np.inf), scales.astype(np.float32))
    q = np.clip(np.rint(columns / steps[:, :, None]), -127, 127).astype(np.int8)
    return _assemble(scales.view(np.uint16), q.view(np.uint8) ^ np.uint8(0x80))


def _assemble(scales: NDArray[np.uint16], q: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """scales (rows, blocks), q + 128 (rows, blocks, 32) -> packed."""
    n_groups, n_blocks = scales.shape[0] // ROWS, scales.shape[1]
    packed = np.empty((n_groups, n_blocks, BLOCK_BYTES), np.uint8)
    packed[:, :, :32] = by_lane(scales).view(np.uint8)
    runs = q.reshape(n_groups, ROWS, n_blocks, 8, 4).transpose(0, 2, 3, 1, 4)
    packed[:, :, 32:] = runs.reshape(n_groups, n_blocks, ROWS * COLUMNS)
    return packed


def dequantize(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 (a, b, BLOCK_BYTES) -> float32 (16 a, 32 b)."""
    n_groups, n_blocks, _ = packed.shape
    scales = np.ascontiguousarray(packed[:, :, :32]).view(np.float16).astype(np.float32)
    runs = packed[:, :, 32:].reshape(n_groups, n_blocks, 8, ROWS, 4).astype(np.float32) - 128
    values = runs * scales[:, :, None, :, None]
    return values.transpose(0, 3, 1, 2, 4).reshape(n_groups * ROWS, n_blocks * COLUMNS)


@block
def _block(w, x, total):
    """total + one 16 x 32 block at `w` times the int8 block at `x`."""
    # q + 128 is stored: take 128 times the activations' sums off again
    coarse = simd.splat_i32(np.int32(-128) * simd.get_i32(x + SUM))
    fine = simd.splat_i32(np.int32(-128) * simd.get_i32(x + FINE_SUM))
    for j in range(8):
        q = simd.load_u8(w + 32 + 64 * j)
        coarse = dot.dot4(coarse, q, simd.load_u8_broadcast(x + 4 * j))
        fine = dot.dot4(fine, q, simd.load_u8_broadcast(x + 4 * j + FINE))
    scale = simd.mul(simd.load_f16(w), simd.splat(simd.get_f32(x + SCALE)))
    return simd.fma(join(coarse, fine), scale, total)


@block
def _coarse_block(w, x, total):
    """_block with one byte an activation."""
    coarse = simd.splat_i32(np.int32(-128) * simd.get_i32(x + SUM))
    for j in range(8):
        q = simd.load_u8(w + 32 + 64 * j)
        coarse = dot.dot4(coarse, q, simd.load_u8_broadcast(x + 4 * j))
    scale = simd.mul(simd.load_f16(w), simd.splat(simd.get_f32(x + SCALE)))
    return simd.fma(simd.to_f32(coarse), scale, total)


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
            q = simd.get_u8(w + 32 + 64 * (i >> 2) + 4 * lane + (i & 3)) - 128
            simd.set_f32(out + 128 * b + 4 * i, scale * np.float32(q))
