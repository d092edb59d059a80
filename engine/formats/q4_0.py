"""4-bit weights without offsets: 32 columns of a row share a float16 scale, value = scale (q - 8).

GGUF's Q4_0. A block is 16 scales, then the nibbles: a tenth less to read than with offsets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.kernels import nibbles, simd
from engine.kernels.activations import FINE_STEP, FINE_SUM, SCALE, SUM
from engine.kernels.compiler import block, callback
from engine.kernels.layout import COLUMNS, StoredTensor, by_lane, padded, stored_blocks
from engine.kernels.matmul import MATMUL, ROW, matmul_blocks

_RUNS = 32  # where the nibbles begin
BLOCK_BYTES = _RUNS + nibbles.N_BYTES
INT8 = True
NATIVE = frozenset({"Q4_0"})
_STORED_BYTES = 18  # float16 scale, 16 bytes of nibbles


def pack(tensor: StoredTensor, start: int, stop: int) -> NDArray[np.uint8]:
    """Rows [start, stop) -> uint8 (groups, blocks, BLOCK_BYTES)."""
    if tensor.kind != "Q4_0":
        return quantize(padded(tensor.float32(start, stop)))
    stored = stored_blocks(tensor, start, stop, _STORED_BYTES)
    scales = np.ascontiguousarray(stored[:, :, :2]).view(np.float16)[:, :, 0]
    return _assemble(scales, nibbles.stored(stored[:, :, 2:]))


def quantize(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 (16 a, 32 b) -> uint8 (a, b, BLOCK_BYTES); the largest value of a block is -8 steps.

    Errors are at most half a step, a whole one opposite to the largest value.
    """
    columns = values.reshape(values.shape[0], -1, COLUMNS)
    largest = np.take_along_axis(columns, np.abs(columns).argmax(axis=2)[:, :, None], axis=2)
    scales = (largest[:, :, 0] / -8).astype(np.float16)
    steps = np.where(scales == 0, np.float32(np.inf), scales.astype(np.float32))
    q = np.clip(np.rint(columns / steps[:, :, None]) + 8, 0, 15).astype(np.uint8)
    return _assemble(scales, q)


def _assemble(scales: NDArray[np.float16], q: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """scales (rows, blocks), q in 0 … 15 (rows, blocks, 32) -> packed."""
    return np.concatenate([by_lane(scales).view(np.uint8), nibbles.pack(q)], axis=2)


def dequantize(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 (a, b, BLOCK_BYTES) -> float32 (16 a, 32 b)."""
    scales = np.ascontiguousarray(packed[:, :, :_RUNS]).view(np.float16).astype(np.float32)
    by_row = scales.transpose(0, 2, 1).reshape(-1, packed.shape[1], 1)
    values = (nibbles.unpack(packed[:, :, _RUNS:]).astype(np.float32) - 8) * by_row
    return values.reshape(len(values), -1)


@block
def _block(w, x, total):
    """total + one 16 x 32 block at `w` times the int8 block at `x`."""
    fine = FINE_STEP * np.float32(simd.get_i32(x + FINE_SUM))
    eights = np.float32(8) * (np.float32(simd.get_i32(x + SUM)) + fine)
    value = simd.sub(nibbles.products(w + _RUNS, x), simd.splat(eights))
    scale = simd.mul(simd.load_f16(w), simd.splat(simd.get_f32(x + SCALE)))
    return simd.fma(value, scale, total)


@block
def _coarse_block(w, x, total):
    """_block with one byte an activation."""
    eights = np.float32(8) * np.float32(simd.get_i32(x + SUM))
    value = simd.sub(nibbles.coarse_products(w + _RUNS, x), simd.splat(eights))
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
            value = scale * np.float32(nibbles.one(w + _RUNS, lane, i) - 8)
            simd.set_f32(out + 128 * b + 4 * i, value)
