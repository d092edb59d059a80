"""4-bit weights: 32 columns of a row share a float16 scale and offset, value = scale * q + offset.

GGUF's Q4_1 is this. A block is 16 scales, 16 offsets, then the nibbles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.kernels import nibbles, simd
from engine.kernels.activations import SCALE, SUM, VALUE_SUM
from engine.kernels.compiler import block, callback
from engine.kernels.layout import COLUMNS, StoredTensor, by_lane, padded, stored_blocks
from engine.kernels.matmul import MATMUL, ROW, matmul_blocks

_RUNS = 64  # where the nibbles begin
BLOCK_BYTES = _RUNS + nibbles.N_BYTES
INT8 = True
NATIVE = frozenset({"Q4_1"})
_STORED_BYTES = 20  # float16 scale, float16 offset, 16 bytes of nibbles


def pack(tensor: StoredTensor, start: int, stop: int) -> NDArray[np.uint8]:
    """Rows [start, stop) -> uint8 (groups, blocks, BLOCK_BYTES)."""
    if tensor.kind != "Q4_1":
        return quantize(padded(tensor.float32(start, stop)))
    stored = stored_blocks(tensor, start, stop, _STORED_BYTES)
    numbers = np.ascontiguousarray(stored[:, :, :4]).view(np.float16)
    return _assemble(numbers[:, :, 0], numbers[:, :, 1], nibbles.stored(stored[:, :, 4:]))


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
    numbers = [by_lane(values).view(np.uint8) for values in (scales, offsets)]
    return np.concatenate([*numbers, nibbles.pack(q)], axis=2)


def dequantize(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 (a, b, BLOCK_BYTES) -> float32 (16 a, 32 b)."""
    numbers = np.ascontiguousarray(packed[:, :, :_RUNS]).view(np.float16).astype(np.float32)
    by_row = numbers.reshape(*packed.shape[:2], 2, -1).transpose(2, 0, 3, 1)
    scales, offsets = by_row.reshape(2, -1, packed.shape[1], 1)
    values = nibbles.unpack(packed[:, :, _RUNS:]) * scales + offsets
    return values.reshape(len(values), -1)


@block
def _block(w, x, total):
    """total + one 16 x 32 block at `w` times the int8 block at `x`."""
    scale = simd.mul(simd.load_f16(w), simd.splat(simd.get_f32(x + SCALE)))
    total = simd.fma(nibbles.products(w + _RUNS, x), scale, total)
    return simd.fma(simd.load_f16(w + 32), simd.splat(simd.get_f32(x + VALUE_SUM)), total)


@block
def _coarse_block(w, x, total):
    """_block with one byte an activation; the sum is of those too, or errors would not cancel."""
    scale_x = simd.get_f32(x + SCALE)
    scale = simd.mul(simd.load_f16(w), simd.splat(scale_x))
    total = simd.fma(nibbles.coarse_products(w + _RUNS, x), scale, total)
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
            value = scale * np.float32(nibbles.one(w + _RUNS, lane, i)) + offset
            simd.set_f32(out + 128 * b + 4 * i, value)
